//! The order of keyed records under the key policies on a real cluster, as a group of slow and fast
//! consumers processes them, while brokers are killed with -9, the producer's process dies and
//! consumers are started anew.

use crate::kafka::{Harm, Kafka, unique};
use ottla::consumer::{OffsetReset, Start};
use ottla::lag::{Lag, Topics, collect_once};
use ottla::partitioner::KeyPolicy;
use ottla::{Client, LagAware, Record, TopicPartition};
use ottla_tests::order::{Again, OrderChecker, Processed};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: usize = 6;
const KEYS: usize = 240;
/// Each sends records of keys of its own.
const CALLERS: usize = 6;
/// Records a second of each caller.
const PACE: f64 = 50.0;
/// Records a second that a consumer can read, one that is well and one that falls behind.
const WELL: u32 = 400;
const SLOW: u32 = 15;
const COMMIT: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);
/// Longer than the controller takes to notice that a broker is dead, which is 6 s.
const DOWN: Duration = Duration::from_secs(8);

/// A group's consumers, one a partition, and what they were seen to process.
#[derive(Debug)]
struct Group {
    topic: String,
    name: String,
    checker: Mutex<Checked>,
    /// Records a second, by partition.
    speeds: Vec<AtomicU32>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Checked {
    order: OrderChecker,
    processed: u64,
    repeated: u64,
    /// The first offset of each partition that was never processed.
    next: Vec<i64>,
}

impl Group {
    fn process(&self, partition: usize, offset: i64, key: &[u8], value: &[u8]) {
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse().unwrap();
        let mut checked = self.checker.lock().unwrap();
        let is_repeated = offset < checked.next[partition];
        checked.next[partition] = checked.next[partition].max(offset + 1);
        checked.processed += 1;
        checked.repeated += u64::from(is_repeated);
        let record = Processed {
            key: number(key) as usize,
            number: number(value),
            place: partition,
            life: 0,
            again: match is_repeated {
                true => Again::Restarted,
                false => Again::No,
            },
        };
        checked
            .order
            .process(record, format_args!("offset {offset}"));
    }

    /// One life of a partition's consumer: it processes records, commits them afterwards, and dies
    /// without a word after so long.
    async fn read(&self, client: &Client, partition: usize, life: Duration) {
        let place = TopicPartition::new(self.topic.as_str(), i32::try_from(partition).unwrap());
        let consumer = client.consumer().unwrap().group(&self.name);
        let consumer = consumer
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit(None)
            .assign([(place, Start::Awaited)]);
        let Ok(mut consumer) = consumer.build().await else {
            return;
        };
        let began = Instant::now();
        let (mut committed, mut credit, mut last) = (began, 0.0, began);
        while began.elapsed() < life && !self.stop.load(Ordering::Acquire) {
            let speed = f64::from(self.speeds[partition].load(Ordering::Relaxed));
            credit = (credit + speed * last.elapsed().as_secs_f64()).min(speed / 4.0 + 1.0);
            last = Instant::now();
            let most = credit as usize;
            if most > 0 {
                // A broker that is down is no end: it goes on when there is a leader again.
                let records = consumer.poll(most, SECOND / 50).await.unwrap_or_default();
                credit -= records.len() as f64;
                for record in records {
                    let (key, value) = (record.key.as_deref(), record.value.as_deref());
                    self.process(partition, record.offset, key.unwrap(), value.unwrap());
                }
            }
            if committed.elapsed() > COMMIT {
                let _ = timeout(SECOND, consumer.commit()).await;
                committed = Instant::now();
            }
            sleep(SECOND / 50).await;
        }
    }
}

/// A producer's process: what it is made of dies with its runtime.
struct Process {
    runtime: Runtime,
    lag: Lag,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Process {
    async fn begin(kafka: &Kafka, group: &Group, policy: KeyPolicy, numbers: &Numbers) -> Self {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let (kafka, topic, name) = (kafka.clone(), group.topic.clone(), group.name.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (stops, numbers) = (Arc::clone(&stop), Arc::clone(numbers));
        let begun = runtime.spawn(async move {
            let client = kafka.client().await;
            let lag = client.lag(name).topics([topic.as_str()]).keys(policy);
            let lag = lag.refresh(SECOND / 4).start().await.unwrap();
            let producer = client.producer().linger(SECOND / 200);
            let producer = producer.partitioner(LagAware::new(lag.plan()));
            // A key that has no place yet is waited for this long, and its record left out then.
            let producer = producer.property("max.block.ms", "15000").unwrap();
            let producer = producer.build().unwrap();
            let mut callers = JoinSet::new();
            for caller in 0..CALLERS {
                let call = call(
                    producer.clone(),
                    topic.clone(),
                    caller,
                    Arc::clone(&numbers),
                    Arc::clone(&stops),
                );
                callers.spawn(call);
            }
            (lag, callers)
        });
        let (lag, callers) = begun.await.unwrap();
        Self {
            runtime,
            lag,
            stop,
            callers,
        }
    }

    fn moves(&self) -> u64 {
        let topics = self.lag.counters().topics;
        topics.iter().map(|topic| topic.key_moves).sum()
    }

    /// It dies in mid-work; how often keys had moved.
    fn crash(self) -> u64 {
        let moves = self.moves();
        self.runtime.shutdown_background();
        moves
    }

    /// It sends what it has, and ends.
    async fn end(self) -> u64 {
        let moves = self.moves();
        self.stop.store(true, Ordering::Release);
        self.callers.join_all().await;
        self.runtime.shutdown_background();
        moves
    }
}

/// The number of each key's next record.
type Numbers = Arc<Vec<AtomicU32>>;

/// Sends records of one caller's keys, some all the time, most now and then.
async fn call(
    producer: ottla::Producer,
    topic: String,
    caller: usize,
    numbers: Numbers,
    stop: Arc<AtomicBool>,
) {
    let own = KEYS / CALLERS;
    let mut rng = fastrand::Rng::with_seed(caller as u64);
    while !stop.load(Ordering::Acquire) {
        let at = (rng.f64().powi(3) * own as f64) as usize;
        let key = at.min(own - 1) * CALLERS + caller;
        let number = numbers[key].fetch_add(1, Ordering::Relaxed);
        let (name, value) = (key.to_string(), number.to_string());
        let record = Record::to(&topic).key(&name).value(&value);
        // A record that is left out is none that could be overtaken.
        drop(producer.enqueue(record).await);
        sleep(Duration::from_secs_f64(2.0 * rng.f64() / PACE)).await;
    }
    let _ = producer.flush().await;
}

/// What was seen.
#[derive(Debug)]
struct Outcome {
    checked: Checked,
    moves: u64,
    kills: u32,
}

/// Writes and reads through so many deaths of a broker, each followed by one of the producer.
async fn play(policy: KeyPolicy, kills: u32) -> Outcome {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka
        .topic(&client, "order", i32::try_from(PARTITIONS).unwrap())
        .await;
    let group = Arc::new(Group {
        name: unique("order"),
        checker: Mutex::new(Checked {
            order: OrderChecker::new(KEYS),
            processed: 0,
            repeated: 0,
            next: vec![0; PARTITIONS],
        }),
        speeds: (0..PARTITIONS).map(|_| AtomicU32::new(WELL)).collect(),
        stop: AtomicBool::new(false),
        topic,
    });
    let mut readers = JoinSet::new();
    for partition in 0..PARTITIONS {
        let (group, client) = (Arc::clone(&group), kafka.client().await);
        readers.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(partition as u64);
            while !group.stop.load(Ordering::Acquire) {
                let life = Duration::from_millis(rng.u64(3_000..20_000));
                group.read(&client, partition, life).await;
            }
        });
    }
    let numbers: Numbers = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    let mut process = Process::begin(&kafka, &group, policy, &numbers).await;
    let mut moves = 0;
    for kill in 0..kills {
        slow_down(&group, kill as usize);
        sleep(8 * SECOND).await;
        let node = i32::try_from(kill % 3).unwrap() + 1;
        let down = kafka.harm(Harm::Kill, node).await;
        sleep(DOWN).await;
        slow_down(&group, kill as usize + 2);
        down.end().await;
        kafka.settled().await;
        moves += process.crash();
        // Whoever takes over begins when what the one before wrote can be read.
        sleep(SECOND).await;
        process = Process::begin(&kafka, &group, policy, &numbers).await;
    }
    sleep(8 * SECOND).await;
    moves += process.end().await;
    for speed in &group.speeds {
        speed.store(100 * WELL, Ordering::Relaxed);
    }
    read_all(&client, &group).await;
    group.stop.store(true, Ordering::Release);
    readers.join_all().await;
    client.topics().delete(&group.topic).await.unwrap();
    let group = Arc::into_inner(group).unwrap();
    Outcome {
        checked: group.checker.into_inner().unwrap(),
        moves,
        kills,
    }
}

/// One partition's consumer falls behind, and all others are well.
fn slow_down(group: &Group, partition: usize) {
    for (at, speed) in group.speeds.iter().enumerate() {
        let is_slow = at == partition % PARTITIONS;
        speed.store(if is_slow { SLOW } else { WELL }, Ordering::Relaxed);
    }
}

/// Waits until the group has committed all there is.
async fn read_all(client: &Client, group: &Group) {
    let topics = Topics::Named(vec![group.topic.as_str().into()]);
    let all = async {
        loop {
            let lag = collect_once(client.cluster(), &group.name, &topics).await;
            if lag.is_ok_and(|lag| lag.rows.iter().all(|row| row.lag.lag == Some(0))) {
                return;
            }
            sleep(SECOND / 5).await;
        }
    };
    timeout(60 * SECOND, all).await.unwrap();
}

fn enough_happened(outcome: &Outcome) {
    let checked = &outcome.checked;
    let first = u64::try_from(checked.next.iter().sum::<i64>()).unwrap();
    println!(
        "{} kills and deaths: {first} records, {} read again, {} key moves, {} overtaken",
        outcome.kills, checked.repeated, outcome.moves, checked.order.violations
    );
    assert_eq!(checked.processed - checked.repeated, first, "each once");
    assert!(first > 3_000, "next to nothing was written");
    assert!(checked.repeated > 50, "consumers start anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka"]
async fn soak_migrating_keys_are_processed_in_order_while_brokers_and_clients_die() {
    let outcome = play(KeyPolicy::MIGRATE, 4).await;
    enough_happened(&outcome);
    assert!(outcome.moves > 20, "keys move: {}", outcome.moves);
    assert_eq!(outcome.checked.order.overtaken, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka"]
async fn soak_blind_keys_have_no_order_and_the_checker_sees_it() {
    let outcome = play(KeyPolicy::Blind, 2).await;
    enough_happened(&outcome);
    assert!(outcome.checked.order.violations > 100);
}
