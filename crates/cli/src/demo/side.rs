//! One side of the comparison: a topic, a group that reads it, and a producer that writes it.

use super::journal::{Figures, Journal};
use super::members::{self, Member, Roster};
use super::rehearsal::rehearse;
use super::scene::{PARTITIONS, Scene};
use crate::failure::{Failure, Result};
use ottla::lag::Lag;
use ottla::{Client, LagAware, NewTopic, Producer, Record};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The groups commit every 0.1 s, so that looking four times a second tells something new each time.
const REFRESH: Duration = Duration::from_millis(250);

/// A batch is as large as Java's by default: the default partitioner then changes partitions as
/// often as it does there.
const BATCH_BYTES: usize = 16_384;
/// How long a group may take to share its partitions out.
const GROUP_WITHIN: Duration = Duration::from_secs(60);
/// How long cleaning up may take; what is left then ends with the process.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a side's partitions are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By a partitioner of this name.
    Named(String),
    /// By the group's lag.
    LagAware,
}

/// What a side is called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// For people.
    pub(super) title: String,
    pub(super) topic: Arc<str>,
    pub(super) group: Arc<str>,
}

/// When things happen. `None` until the load begins.
pub(super) type Begun = watch::Receiver<Option<Instant>>;

/// A side whose consumers are ready.
pub(super) struct Side {
    pub(super) names: Names,
    journal: Arc<Journal>,
    producer: Producer,
    members: JoinSet<()>,
    stop: watch::Sender<bool>,
    load: Option<JoinHandle<()>>,
    /// Watched for as long as the side lives.
    _lag: Option<Lag>,
}

impl Side {
    /// Makes the topic, starts the consumers, waits until each has its partition, and rehearses.
    pub(super) async fn open(
        client: Client,
        names: Names,
        way: &Way,
        scene: &Arc<Scene>,
        replication: Option<i16>,
        begun: &Begun,
    ) -> Result<Self> {
        let partitions = i32::try_from(PARTITIONS).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(Arc::clone(&names.topic)).partitions(partitions);
        if let Some(copies) = replication {
            topic = topic.replication(copies);
        }
        client.topics().create(topic).await?;
        let journal = Arc::new(Journal::new(scene.warm_up));
        let (stop, stopped) = watch::channel(false);
        let roster = Arc::new(Roster::default());
        let mut members = JoinSet::new();
        for number in 0..PARTITIONS {
            let member = Member {
                number,
                scene: Arc::clone(scene),
                journal: Arc::clone(&journal),
                roster: Arc::clone(&roster),
                begun: begun.clone(),
                stopped: stopped.clone(),
            };
            let consumer = members::consumer(&client, &names).await?;
            members.spawn(member.run(consumer));
        }
        wait_for_group(&names, &roster, &journal).await?;
        rehearse(&client, &names).await?;
        let (producer, lag) = producer(&client, &names, way).await?;
        Ok(Self {
            names,
            journal,
            producer,
            members,
            stop,
            load: None,
            _lag: lag,
        })
    }

    /// Begins to send.
    pub(super) fn start(&mut self, scene: &Arc<Scene>, began: Instant) {
        let load = Load {
            producer: self.producer.clone(),
            journal: Arc::clone(&self.journal),
            topic: Arc::clone(&self.names.topic),
            scene: Arc::clone(scene),
            began,
        };
        self.load = Some(tokio::spawn(load.run()));
    }

    /// # Errors
    /// What broke in the side.
    pub(super) fn check(&self) -> Result<()> {
        check(&self.journal)
    }

    pub(super) fn figures(&self, at: Duration) -> Figures {
        self.journal.figures(at)
    }

    /// Records that could not be written.
    pub(super) fn failed(&self) -> u64 {
        let metrics = self.producer.metrics();
        metrics.records_not_written + metrics.records_unknown
    }

    /// Stops sending and reading, and leaves the group.
    pub(super) async fn close(mut self) {
        if let Some(load) = self.load.take() {
            load.abort();
        }
        self.stop.send_replace(true);
        let clean = async {
            let closing = self.producer.close();
            while self.members.join_next().await.is_some() {}
            let _ = closing.await;
        };
        if timeout(CLEAN_WITHIN, clean).await.is_err() {
            tracing::warn!(topic = &*self.names.topic, "cleaning up took too long");
        }
    }
}

fn check(journal: &Journal) -> Result<()> {
    journal.fault().map_or(Ok(()), |error| Err(error.into()))
}

async fn wait_for_group(names: &Names, roster: &Roster, journal: &Journal) -> Result<()> {
    let deadline = Instant::now() + GROUP_WITHIN;
    while !roster.is_complete() {
        check(journal)?;
        if Instant::now() >= deadline {
            let group = &names.group;
            let clause = format!("the group {group} did not share its partitions out in time");
            return Err(Failure::error(clause));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn producer(client: &Client, names: &Names, way: &Way) -> Result<(Producer, Option<Lag>)> {
    let builder = client.producer().batch_bytes(BATCH_BYTES);
    let (builder, lag) = match way {
        Way::Named(name) => (builder.property("partitioner", name)?, None),
        Way::LagAware => {
            let lag = client.lag(Arc::clone(&names.group));
            let lag = lag
                .topics([Arc::clone(&names.topic)])
                .refresh(REFRESH)
                .start()
                .await?;
            (builder.partitioner(LagAware::new(lag.plan())), Some(lag))
        }
    };
    let producer = builder.build()?;
    producer.prepare(&names.topic).await?;
    Ok((producer, lag))
}

/// Sends each record when it is due.
struct Load {
    producer: Producer,
    journal: Arc<Journal>,
    topic: Arc<str>,
    scene: Arc<Scene>,
    began: Instant,
}

impl Load {
    async fn run(self) {
        let mut value = vec![0; self.scene.record_bytes];
        for (number, due) in (0u64..).zip(self.scene.arrivals()) {
            let at = self.began + due;
            if at > Instant::now() {
                sleep_until(at).await;
            }
            members::inscribe(&mut value, number, due);
            let record = Record::to(&self.topic).value(&value);
            match self.producer.enqueue(record).await {
                Ok(delivery) => {
                    // What becomes of it, the consumers tell; failures are in the metrics.
                    let partition = usize::try_from(delivery.partition()).unwrap_or(usize::MAX);
                    self.journal.sent(number, due, partition);
                }
                Err(error) => return self.journal.fail(error),
            }
        }
    }
}
