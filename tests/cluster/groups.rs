//! One classic group of our consumer and of others: they share the partitions, and what one has
//! committed the next one goes on from.

use crate::foreign::{FORMAT, Seen, kcat, record};
use crate::kafka::{Kafka, unique};
use crate::process::Running;
use crate::python::{CONFLUENT_MEMBER, KAFKA_PYTHON_MEMBER, python};
use ottla::consumer::{Consumer, OffsetReset};
use ottla::{Client, Record};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: i32 = 6;
/// How long a group may take to share its partitions out anew.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often members commit.
const COMMIT: Duration = Duration::from_millis(500);
/// What is written between two commits.
const REPEATED_MAX: usize = 1000;
const TICK: Duration = Duration::from_millis(50);
/// Lines of the foreign member that were not looked at yet; its reader waits for the test then.
const LINES_MAX: usize = 100_000;

/// Numbers each partition's records from 0, two thousand records a second in all.
struct Load {
    paused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Gives how many records each partition got.
    task: JoinHandle<i64>,
}

impl Load {
    fn start(client: &Client, topic: &str) -> Self {
        let (paused, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let task = write(
            client.clone(),
            topic.to_owned(),
            Arc::clone(&paused),
            Arc::clone(&stop),
        );
        Self {
            paused,
            stop,
            task: tokio::spawn(task),
        }
    }

    async fn end(self) -> i64 {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

async fn write(
    client: Client,
    topic: String,
    paused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
) -> i64 {
    let producer = client.producer().build().unwrap();
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        sleep(Duration::from_millis(3)).await;
        if paused.load(Ordering::Acquire) {
            continue;
        }
        for partition in 0..PARTITIONS {
            let value = number.to_string();
            let record = Record::to(&topic).partition(partition).value(&value);
            drop(producer.enqueue(record).await.unwrap());
        }
        number += 1;
    }
    producer.close().await.unwrap();
    number
}

/// How a foreign member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// While records come.
    Busy,
    /// While none come: at Ctrl-C kcat commits records that it was about to print and does not.
    Idle,
}

/// What all members read together.
#[derive(Debug, Default)]
struct Together {
    /// By partition and offset: how often it was read.
    read: HashMap<(i32, i64), u32>,
}

impl Together {
    fn saw(&mut self, partition: i32, offset: i64, value: &[u8]) {
        let value = std::str::from_utf8(value).unwrap();
        assert_eq!(value, offset.to_string(), "partition {partition}");
        *self.read.entry((partition, offset)).or_default() += 1;
    }

    fn repeated(&self) -> usize {
        self.read.values().filter(|times| **times > 1).count()
    }
}

/// A foreign member that prints what it reads.
struct Foreign {
    lines: mpsc::Receiver<Vec<u8>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    seen: Vec<i32>,
}

impl Foreign {
    fn start(command: Command) -> Self {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let mut running = Running::start(command);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    line = running.line() => match line {
                        Some(line) => sender.send(line.to_vec()).await.unwrap(),
                        None => return,
                    }
                }
            }
            let rest = running.end().await;
            for line in rest
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                sender.send(line.to_vec()).await.unwrap();
            }
        });
        Self {
            lines,
            stop: Some(stop),
            seen: Vec::new(),
        }
    }

    fn saw(&mut self, together: &mut Together, line: &[u8]) {
        let Seen {
            partition,
            offset,
            value,
            ..
        } = record(line);
        together.saw(partition, offset, value);
        if !self.seen.contains(&partition) {
            self.seen.push(partition);
        }
    }

    fn read(&mut self, together: &mut Together) {
        while let Ok(line) = self.lines.try_recv() {
            self.saw(together, &line);
        }
    }

    /// Lets it leave the group, and takes what it still printed.
    async fn leave(mut self, together: &mut Together) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        while let Some(line) = timeout(PATIENCE, self.lines.recv()).await.unwrap() {
            self.saw(together, &line);
        }
    }
}

async fn ours_reads(consumer: &mut Consumer, together: &mut Together) {
    match consumer.poll(5000, TICK).await {
        Ok(records) => {
            for record in records {
                let value = record.value.as_deref().unwrap();
                together.saw(record.partition(), record.offset, value);
            }
        }
        Err(error) => assert!(error.is_retriable(), "{error}"),
    }
}

async fn join(kafka: &Kafka, topic: &str, group: &str, assignor: &str) -> Consumer {
    let client = kafka
        .client_builder()
        .property("partition.assignment.strategy", assignor);
    let client = client.unwrap().connect().await.unwrap();
    let consumer = client.consumer().unwrap().group(group).topics([topic]);
    let consumer = consumer
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(Some(COMMIT));
    consumer.build().await.unwrap()
}

/// Reads until each of the two has half of the partitions, and then on for a while.
async fn share(ours: &mut Consumer, other: &mut Foreign, together: &mut Together) {
    other.seen.clear();
    let mut since: Option<Instant> = None;
    while since.is_none_or(|since| since.elapsed() < 2 * COMMIT) {
        ours_reads(ours, together).await;
        other.read(together);
        if since.is_none() && ours.assignment().len() == 3 && other.seen.len() == 3 {
            since = Some(Instant::now());
        }
    }
    let mine = ours.assignment();
    let both = mine.iter().find(|one| other.seen.contains(&one.partition));
    assert_eq!(both, None, "read by both");
}

/// Ours reads alone, a foreign member joins, leaves and joins again, then ours leaves.
async fn shares_with(
    what: &str,
    assignor: &str,
    leaving: Leaving,
    foreign: impl Fn(&Kafka, &str, &str) -> Command,
) {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, what, PARTITIONS).await;
    let group = unique(what);
    let load = Load::start(&client, &topic);
    let mut together = Together::default();
    let mut ours = join(&kafka, &topic, &group, assignor).await;
    let alone = async |ours: &mut Consumer, together: &mut Together| {
        while ours.assignment().len() < 6 {
            ours_reads(ours, together).await;
        }
        ours_reads(ours, together).await;
    };
    let alone = async |ours: &mut Consumer, together: &mut Together| {
        timeout(PATIENCE, alone(ours, together)).await.unwrap();
    };

    alone(&mut ours, &mut together).await;
    let mut other = Foreign::start(foreign(&kafka, &topic, &group));
    let shared = share(&mut ours, &mut other, &mut together);
    timeout(PATIENCE, shared).await.unwrap();
    if leaving == Leaving::Idle {
        load.paused.store(true, Ordering::Release);
        let since = Instant::now();
        while since.elapsed() < 2 * COMMIT {
            ours_reads(&mut ours, &mut together).await;
            other.read(&mut together);
        }
    }
    other.leave(&mut together).await;
    load.paused.store(false, Ordering::Release);
    alone(&mut ours, &mut together).await;
    let mut other = Foreign::start(foreign(&kafka, &topic, &group));
    let shared = share(&mut ours, &mut other, &mut together);
    timeout(PATIENCE, shared).await.unwrap();
    ours.close().await.unwrap();
    let each = load.end().await;

    let whole = usize::try_from(each * i64::from(PARTITIONS)).unwrap();
    let rest = async {
        while together.read.len() < whole {
            let line = other.lines.recv().await.unwrap();
            other.saw(&mut together, &line);
        }
    };
    assert!(
        timeout(PATIENCE, rest).await.is_ok(),
        "{whole} written, {} read",
        together.read.len()
    );
    other.leave(&mut together).await;
    assert_eq!(together.read.len(), whole, "records that nobody wrote");
    let repeated = together.repeated();
    println!("{what}: {whole} records, {repeated} of them read twice");
    // Four changes of members, at each of which the last commits may be missing.
    assert!(
        repeated < 4 * REPEATED_MAX,
        "{repeated} records were read twice"
    );
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn a_group_is_shared_with_kcat() {
    let member = |kafka: &Kafka, topic: &str, group: &str| {
        let mut command = kcat(&kafka.bootstrap);
        command.args([
            "-X",
            "auto.offset.reset=earliest",
            "-X",
            "auto.commit.interval.ms=500",
        ]);
        command.args([
            "-X",
            "partition.assignment.strategy=range",
            "-u",
            "-q",
            "-f",
            FORMAT,
        ]);
        command.args(["-G", group, topic]);
        command
    };
    shares_with("kcat", "range", Leaving::Idle, member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and python clients"]
async fn a_group_is_shared_with_kafka_python() {
    let member = |kafka: &Kafka, topic: &str, group: &str| {
        python(KAFKA_PYTHON_MEMBER, &[&kafka.bootstrap, topic, group])
    };
    shares_with("kafka-python", "range", Leaving::Busy, member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and python clients"]
async fn a_group_is_shared_with_confluent_kafka_by_moving_one_partition_at_a_time() {
    let member = |kafka: &Kafka, topic: &str, group: &str| {
        python(CONFLUENT_MEMBER, &[&kafka.bootstrap, topic, group])
    };
    shares_with(
        "confluent-kafka",
        "cooperative-sticky",
        Leaving::Busy,
        member,
    )
    .await;
}
