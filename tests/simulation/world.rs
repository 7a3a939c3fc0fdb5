//! One run: a cluster, a producer, callers, weather; then calm, and the reckoning.

use crate::book::Book;
use crate::callers;
use crate::census::Census;
use crate::check;
use crate::fault::{Gate, Kind, Ordered};
use crate::letters::{self, Letters};
use crate::plan::{End, Plan, Promise};
use crate::trace::Trace;
use crate::transactions::{self, Round};
use ottla::{BoxFuture, BoxStream, Dial, Partitioner, Producer};
use ottla_broker::{Cluster, FirstSequence, StoredRecord};
use ottla_partitioner::Sticky;
use ottla_producer::{Clock, CompressOn, Config, Hooks, VerdictCounts};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longer than anything in a run takes: what has not ended by then never does.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// A batch that expired in flight keeps its memory until its request is answered or given up, and so
/// do those behind it on its connection.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(300);

/// So many records the producer takes at least in a run, for so many partitions, and so many faults
/// strike.
pub(crate) const RECORDS_MIN: usize = 200;
pub(crate) const PARTITIONS_MIN: usize = 3;
pub(crate) const FAULTS_MIN: usize = 3;

/// More than the pool's smaller chunks hold.
const LARGE_BYTES: u64 = 40_000;

/// Records of one topic: by partition, oldest first.
pub(crate) type Logs = Vec<Vec<StoredRecord>>;

/// What everything in a run shares.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) cluster: Cluster,
    pub(crate) gate: Gate,
    pub(crate) trace: Trace,
    pub(crate) book: Mutex<Book>,
    pub(crate) ordered: Mutex<Vec<Ordered>>,
    /// What the topic held each time before it was deleted.
    pub(crate) old_logs: Mutex<Vec<Logs>>,
    /// The transactions so far.
    pub(crate) rounds: Mutex<Vec<Round>>,
    /// Most of the batches were larger than any of the pool's smaller chunks, so that those behind
    /// the first ones began with a larger chunk.
    pub(crate) large: AtomicBool,
    /// What the brokers' answers meant.
    pub(crate) verdicts: Mutex<VerdictCounts>,
    repairs: Mutex<JoinSet<()>>,
    pub(crate) deliveries: Mutex<JoinSet<()>>,
}

/// How a run went.
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) census: Census,
    pub(crate) breach: Option<String>,
}

/// Reaches the nodes in memory, unless connections are refused.
struct Door {
    cluster: Cluster,
    gate: Gate,
}

impl Dial for Door {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            self.gate.pass()?;
            self.cluster.dial(host, port).await.map(BoxStream::new)
        })
    }
}

/// Runs a seed under a clock of its own.
pub(crate) fn run(seed: u64, told: bool) -> Report {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let plan = Plan::of(seed);
        let world = World::new(plan, told).await;
        if told {
            eprintln!("{:#?}", world.plan);
        }
        let breach = match tokio::time::timeout(FOR_EVER, world.live()).await {
            Ok(Ok(())) => None,
            Ok(Err(breach)) => Some(breach),
            Err(_) => Some("it never ended".to_owned()),
        };
        let census = Census::of(&world);
        world.cluster.shutdown().await;
        Report {
            hash: world.trace.hash(),
            census,
            breach,
        }
    })
}

impl World {
    async fn new(plan: Plan, told: bool) -> Arc<Self> {
        let first = match plan.strict_first_sequence {
            true => FirstSequence::Zero,
            false => FirstSequence::Any,
        };
        let times = match plan.log_append_time {
            true => "LogAppendTime",
            false => "CreateTime",
        };
        let mut builder = Cluster::builder()
            .nodes(u16::try_from(plan.nodes).unwrap())
            .replication(3)
            .min_insync_replicas(plan.min_insync)
            .election_delay(plan.election_delay)
            .first_sequence(first)
            .in_memory()
            .seed(plan.seed)
            .start_millis(0)
            .topic(plan.topic, plan.partitions)
            .topic_setting("message.timestamp.type", times)
            .topic_setting("max.message.bytes", plan.batch_bytes_stored_max.to_string());
        if plan.letters.is_some() {
            builder = builder
                .topic_setting("cleanup.policy", "compact")
                .topic(letters::TOPIC, plan.partitions);
        }
        let cluster = builder.start().await.unwrap();
        Arc::new(Self {
            cluster,
            gate: Gate::default(),
            trace: Trace::new(told),
            book: Mutex::default(),
            ordered: Mutex::default(),
            old_logs: Mutex::default(),
            rounds: Mutex::default(),
            verdicts: Mutex::default(),
            large: AtomicBool::new(false),
            repairs: Mutex::default(),
            deliveries: Mutex::default(),
            plan,
        })
    }

    async fn producer(&self) -> Producer {
        let (cluster, config) = self.connect().await;
        let sticky: Arc<dyn Partitioner> = Arc::new(Sticky::default());
        Producer::new(cluster, config, sticky).unwrap()
    }

    /// Connections to the cluster, and what a producer on them is set to.
    pub(crate) async fn connect(&self) -> (ottla_wire::Cluster, Config) {
        let plan = &self.plan;
        let settings = ottla_wire::Settings {
            bootstrap: self
                .cluster
                .bootstrap()
                .split(',')
                .map(str::to_owned)
                .collect(),
            request_timeout: plan.request_timeout,
            seed: plan.seed,
            ..ottla_wire::Settings::default()
        };
        let door = Door {
            cluster: self.cluster.clone(),
            gate: self.gate.clone(),
        };
        let cluster = ottla_wire::Cluster::connect(settings, Arc::new(door))
            .await
            .unwrap();
        let config = Config {
            acks: plan.acks(),
            idempotence: plan.idempotent(),
            linger: plan.linger,
            batch_bytes: plan.batch_bytes,
            buffer_bytes: plan.buffer_bytes,
            max_block: plan.max_block,
            delivery_timeout: plan.delivery_timeout,
            stall_after: plan.stall_after,
            retries: plan.retries,
            in_flight_max: plan.in_flight_max,
            compression: plan.compression,
            compress_on: CompressOn::Driver,
            clock: Clock::Runtime { start: 0 },
            hooks: Hooks {
                dead_letters: plan.letters.map(Letters::policy),
                ..Hooks::default()
            },
            ..Config::default()
        };
        (cluster, config)
    }

    /// Everything, from the first record to the reckoning.
    async fn live(self: &Arc<Self>) -> Result<(), String> {
        let produce = ottla_broker::ApiKey::Produce;
        let _ = self
            .cluster
            .faults()
            .on(produce)
            .always()
            .delay(self.plan.distance);
        if self.plan.promise == Promise::Transactions {
            return transactions::live(self).await;
        }
        let producer = self.producer().await;
        // Several who wait for the topic would be woken in a random order, and the seed not replay.
        let topics = [self.plan.topic, letters::TOPIC];
        let count = 1 + usize::from(self.plan.letters.is_some());
        for topic in &topics[..count] {
            let prepared = producer.prepare(topic).await;
            prepared.map_err(|error| format!("prepare: {error}"))?;
        }
        let mut callers = JoinSet::new();
        for caller in 0..self.plan.callers {
            callers.spawn(callers::call(Arc::clone(self), producer.clone(), caller));
        }
        let producer = Some(producer).filter(|_| self.plan.end != End::Abandon);
        while let Some(ended) = callers.join_next().await {
            ended.map_err(|error| format!("a caller panicked: {error}"))??;
        }
        if let (Some(producer), End::Calm) = (&producer, self.plan.end) {
            self.top_up(producer).await;
        }
        self.calm().await;
        self.settle().await?;
        if let (Some(producer), End::Calm) = (&producer, self.plan.end) {
            callers::probe(self, producer).await?;
        }
        tokio::time::sleep(AFTERMATH).await;
        if let Some(producer) = producer {
            let metrics = producer.metrics();
            let large = metrics.batch_bytes.p50 > LARGE_BYTES && metrics.batch_bytes.count > 6;
            self.large.store(large, Ordering::Relaxed);
            *self.verdicts.lock().unwrap() = metrics.verdicts;
            check::metrics(self, &metrics)?;
            let closed = producer.close().await;
            let expected = self.plan.end == End::Calm;
            if closed.is_ok() != expected {
                return Err(format!("close gave {closed:?}"));
            }
        }
        self.keep_logs();
        check::logs(self)?;
        letters::check(self)
    }

    /// The partition of each record that a producer took.
    pub(crate) fn taken(&self) -> Vec<i32> {
        let book = self.book.lock().unwrap();
        let alone = book.taken().map(|(_, taken)| taken.partition);
        let rounds = self.rounds.lock().unwrap();
        let together = rounds.iter().flat_map(Round::partitions);
        alone.chain(together).collect()
    }

    /// Whether enough has happened for the run to say anything.
    pub(crate) fn is_enough(&self) -> bool {
        self.struck() >= FAULTS_MIN && self.taken().len() >= RECORDS_MIN
    }

    /// Sees to it that enough happens.
    async fn top_up(self: &Arc<Self>, producer: &Producer) {
        let mut dice = fastrand::Rng::with_seed(!self.plan.seed);
        while !self.is_enough() {
            if self.struck() < FAULTS_MIN {
                self.strike(&mut dice, Kind::DisconnectBefore).await;
            }
            for _ in 0..3 {
                callers::extra(self, producer).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// How many faults have struck.
    pub(crate) fn struck(&self) -> usize {
        let ordered = self.ordered.lock().unwrap();
        ordered.iter().filter(|ordered| ordered.struck()).count()
    }

    /// Ends every fault.
    pub(crate) async fn calm(&self) {
        self.trace.note(format_args!("calm"));
        self.cluster.faults().clear();
        self.gate.open();
        let mut repairs = std::mem::take(&mut *self.repairs.lock().unwrap());
        while let Some(ended) = repairs.join_next().await {
            ended.unwrap();
        }
    }

    /// Waits until every delivery has ended.
    pub(crate) async fn settle(&self) -> Result<(), String> {
        let mut deliveries = std::mem::take(&mut *self.deliveries.lock().unwrap());
        while let Some(ended) = deliveries.join_next().await {
            ended.map_err(|error| format!("a delivery panicked: {error}"))?;
        }
        Ok(())
    }

    /// Leaves the end of a fault to a task.
    pub(crate) fn later<F>(&self, wait: Duration, end: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        self.repairs.lock().unwrap().spawn(async move {
            tokio::time::sleep(wait).await;
            end().await;
        });
    }

    /// Keeps what the topic holds now.
    pub(crate) fn keep_logs(&self) {
        let count = (0..).take_while(|p| self.cluster.leader_epoch(self.plan.topic, *p).is_some());
        let logs = count
            .map(|p| self.cluster.log(self.plan.topic, p))
            .collect();
        self.old_logs.lock().unwrap().push(logs);
    }

    /// Waits for a delivery, and enters its outcome into the book.
    pub(crate) fn await_delivery(self: &Arc<Self>, number: u32, delivery: ottla::Delivery) {
        let world = Arc::clone(self);
        self.deliveries.lock().unwrap().spawn(async move {
            let outcome = delivery.await;
            world.trace.note(format_args!("told {number}: {outcome:?}"));
            let mut book = world.book.lock().unwrap();
            book.told(number, Instant::now(), outcome);
        });
    }
}
