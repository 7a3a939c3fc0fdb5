//! Transactions on a real cluster, as Kafka's own consumer reads them; and a copy with exactly-once
//! output while brokers are killed.

use crate::foreign::{java_reads_committed, kcat_reads_committed};
use crate::kafka::{Harm, Kafka, unique};
use ottla::consumer::{Consumer, ConsumerRecord, Isolation, OffsetReset, Start};
use ottla::lag::{Topics, collect_once};
use ottla::{Client, Decision, ErrorKind, Record, Result, TransactionalProducer, WriteOutcome};
use ottla_wire::Class;
use ottla_wire::api::versions;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: i32 = 3;
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(120);

async fn producer(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional_producer(id).build().await.unwrap()
}

/// Writes a round of a hundred records in one transaction.
async fn round(
    producer: &mut TransactionalProducer,
    topic: &str,
    round: u32,
    decision: Decision,
) -> Result<()> {
    let tx = producer.begin().await?;
    for number in 0..100 {
        let value = format!("{round}-{number:02}");
        let record = Record::to(topic).partition(number % PARTITIONS);
        drop(tx.enqueue(record.value(&value)).await?);
    }
    match decision {
        Decision::Commit => tx.commit().await,
        Decision::Abort => {
            tx.flush().await?;
            tx.abort().await
        }
    }
}

fn values(rounds: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    let rounds = rounds.into_iter();
    let each = |round| (0..100).map(move |number| format!("{round}-{number:02}"));
    rounds.flat_map(each).collect()
}

async fn java_sees(kafka: &Kafka, topic: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    java_reads_committed(kafka, topic, |one| {
        let value = String::from_utf8(one.value.to_vec()).unwrap();
        assert!(seen.insert(value.clone()), "{value} is there twice");
    })
    .await;
    seen
}

/// Has the cluster speak the protocol of this level of `transaction.version`.
async fn set_level(kafka: &Kafka, client: &Client, level: i16) {
    let feature = format!("transaction.version={level}");
    for word in ["downgrade", "upgrade"] {
        let mut tool = kafka.tool("FeatureCommand", &[word, "--feature", &feature]);
        // One of the two is refused: the level lies on the other side.
        drop(tool.output().await.unwrap());
    }
    for broker in client.cluster().view().brokers.keys() {
        let connection = client.cluster().connection(*broker, Class::Control);
        let connection = connection.await.unwrap();
        let settings = client.cluster().settings();
        let shown = async || {
            let versions = versions::call(&connection, settings).await.unwrap();
            versions.feature_level("transaction.version")
        };
        let wait = async {
            while shown().await != Some(level) {
                sleep(SECOND / 20).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn the_java_consumer_sees_what_was_committed_and_nothing_that_was_aborted() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "transactions", PARTITIONS).await;
    let mut producer = producer(&client, &unique("ends")).await;
    for number in 0..10 {
        let decision = match number % 2 {
            0 => Decision::Commit,
            _ => Decision::Abort,
        };
        round(&mut producer, &topic, number, decision)
            .await
            .unwrap();
    }
    producer.close().await.unwrap();
    let committed = values((0..10).filter(|number| number % 2 == 0));
    assert_eq!(java_sees(&kafka, &topic).await, committed);
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn both_protocols_are_spoken_as_the_cluster_changes_its_mind() {
    let kafka = Kafka::here();
    if kafka.major_version().await < 4 {
        return;
    }
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "protocols", PARTITIONS).await;
    let mut producer = producer(&client, &unique("protocols")).await;
    for (level, first) in [(2, 0), (1, 3), (2, 6), (1, 9)] {
        set_level(&kafka, &client, level).await;
        for number in first..first + 3 {
            let decision = match number % 3 {
                1 => Decision::Abort,
                _ => Decision::Commit,
            };
            round(&mut producer, &topic, number, decision)
                .await
                .unwrap();
        }
    }
    set_level(&kafka, &client, 2).await;
    producer.close().await.unwrap();
    let committed = values((0..12).filter(|number| number % 3 != 1));
    assert_eq!(java_sees(&kafka, &topic).await, committed);
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_zombie_is_fenced_by_a_real_coordinator() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "zombies", PARTITIONS).await;
    let id = unique("zombie");
    let mut zombie = producer(&client, &id).await;
    let tx = zombie.begin().await.unwrap();
    let record = Record::to(&topic).partition(0);
    tx.send(record.value("lost")).await.unwrap();
    let mut heir = producer(&client, &id).await;
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Fenced, "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    assert!(zombie.begin().await.unwrap_err().is_fatal());
    round(&mut heir, &topic, 1, Decision::Commit).await.unwrap();
    heir.close().await.unwrap();
    assert_eq!(java_sees(&kafka, &topic).await, values([1]));
    client.topics().delete(&topic).await.unwrap();
}

/// How a copy went.
#[derive(Debug, Default)]
struct Tally {
    transactions: AtomicU64,
    records: AtomicU64,
    aborted: AtomicU64,
    indefinite: AtomicU64,
    rebuilt: AtomicU64,
}

/// One member of the copying group, with a transactional id of its own.
struct Copier {
    kafka: Kafka,
    client: Client,
    output: String,
    id: String,
    consumer: Consumer,
    tally: Arc<Tally>,
}

impl Copier {
    async fn new(kafka: &Kafka, plan: &Plan, number: u32, tally: Arc<Tally>) -> Self {
        let client = kafka.client().await;
        let consumer = client.consumer().unwrap().group(&plan.group);
        let consumer = consumer.topics([&plan.input]).auto_commit(None);
        let consumer = consumer.isolation(Isolation::ReadCommitted);
        let consumer = consumer.auto_offset_reset(OffsetReset::Earliest);
        Self {
            kafka: kafka.clone(),
            consumer: consumer.build().await.unwrap(),
            client,
            output: plan.output.clone(),
            id: format!("{}-{number}", plan.group),
            tally,
        }
    }

    /// Copies until it is told to stop.
    async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut producer = self.build().await;
        while !stop.load(Ordering::Acquire) {
            let records = match self.consumer.poll(1000, SECOND / 5).await {
                Ok(records) if records.is_empty() => continue,
                Ok(records) => records,
                Err(error) => {
                    assert!(!error.is_fatal(), "{error}");
                    continue;
                }
            };
            let copied = self.copy(&mut producer, &records).await;
            let Err(error) = copied else {
                let count = records.len() as u64;
                self.tally.transactions.fetch_add(1, Ordering::Relaxed);
                self.tally.records.fetch_add(count, Ordering::Relaxed);
                continue;
            };
            eprintln!("{}: {error}", self.id);
            if error.write_outcome() == Some(WriteOutcome::Unknown) {
                self.tally.indefinite.fetch_add(1, Ordering::Relaxed);
            } else {
                self.tally.aborted.fetch_add(1, Ordering::Relaxed);
            }
            if error.is_fatal() {
                self.tally.rebuilt.fetch_add(1, Ordering::Relaxed);
                drop(producer);
                producer = self.build().await;
            }
            self.rewind().await;
        }
        producer.close().await.unwrap();
        self.consumer.close().await.unwrap();
    }

    async fn build(&self) -> TransactionalProducer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let builder = self.client.transactional_producer(self.id.as_str());
            match builder.build().await {
                Ok(producer) => return producer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// One transaction: what was read, in the same partitions, and how far.
    async fn copy(
        &self,
        producer: &mut TransactionalProducer,
        records: &[ConsumerRecord],
    ) -> Result<()> {
        let tx = producer.begin().await?;
        for record in records {
            let value = record.value.as_deref().unwrap();
            let copy = Record::to(&self.output).partition(record.partition());
            drop(tx.enqueue(copy.value(value)).await?);
        }
        let group = self.consumer.group_metadata()?;
        tx.send_offsets(group, self.consumer.positions()).await?;
        tx.commit().await
    }

    /// Goes back to what the group has committed. The coordinator tells only once it is known how
    /// the transaction ended.
    async fn rewind(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let assignment = self.consumer.assignment();
        let committed = loop {
            match self.consumer.committed(&assignment).await {
                Ok(committed) => break committed,
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "{}: {error}",
                    self.kafka.bootstrap
                ),
            }
        };
        for (partition, committed) in committed {
            let offset = committed.map_or(0, |committed| committed.offset);
            // A partition that is another member's by now.
            let _ = self.consumer.seek(&partition, Start::Offset(offset, None));
        }
    }
}

/// A soak's measures, from the environment.
#[derive(Debug)]
struct Plan {
    input: String,
    output: String,
    group: String,
    length: Duration,
    between_kills: Duration,
    down: Duration,
    rate: u64,
}

fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(number(name, default))
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap())
}

/// Writes numbered records at a rate; gives how many.
async fn write(client: Client, topic: String, rate: u64, length: Duration) -> u64 {
    let producer = client.producer().build().unwrap();
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < length {
        let due = u64::try_from(began.elapsed().as_millis()).unwrap() * rate / 1000;
        while written < due {
            let partition = i32::try_from(written % 6).unwrap();
            let value = format!("{written:010}");
            let record = Record::to(&topic).partition(partition);
            drop(producer.enqueue(record.value(&value)).await.unwrap());
            written += 1;
        }
        sleep(SECOND / 100).await;
    }
    let metrics = producer.clone();
    producer.close().await.unwrap();
    assert_eq!(metrics.metrics().records_acknowledged, written);
    written
}

/// Kills one broker after the other, and brings each back.
async fn kill(kafka: Kafka, plan: Arc<Plan>, until: Instant) -> u32 {
    let mut kills = 0;
    loop {
        let next = Instant::now() + plan.between_kills;
        if next > until {
            return kills;
        }
        let node = i32::try_from(kills % 3).unwrap() + 1;
        let down = kafka.harm(Harm::Kill, node).await;
        sleep(plan.down).await;
        down.end().await;
        kills += 1;
        tokio::time::sleep_until(next).await;
    }
}

async fn until_copied(client: &Client, plan: &Plan) {
    let topics = Topics::Committed;
    let copied = async || {
        let Ok(lag) = collect_once(client.cluster(), &plan.group, &topics).await else {
            return false;
        };
        let mut rows = lag.rows.iter();
        lag.rows.len() == 6 && rows.all(|row| row.lag.lag == Some(0))
    };
    let wait = async {
        while !copied().await {
            sleep(SECOND / 2).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

/// Every number once, in order a partition.
async fn holds(kafka: &Kafka, topic: &str, written: u64) {
    let mut seen = vec![false; usize::try_from(written).unwrap()];
    let mut last: BTreeMap<i32, u64> = BTreeMap::new();
    kcat_reads_committed(&kafka.bootstrap, topic, |one| {
        let number: u64 = std::str::from_utf8(one.value).unwrap().parse().unwrap();
        let before = std::mem::replace(&mut seen[usize::try_from(number).unwrap()], true);
        assert!(!before, "record {number} is there twice");
        let before = last.insert(one.partition, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{number} after {before:?}"
        );
    })
    .await;
    let lost = seen.iter().filter(|seen| !**seen).count();
    assert_eq!(lost, 0, "of {written} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat; OTTLA_SOAK_SECONDS, OTTLA_SOAK_KILL_EVERY, OTTLA_SOAK_RATE"]
async fn soak_a_transactional_copy_is_exactly_once_while_brokers_are_killed() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let between_kills = seconds("OTTLA_SOAK_KILL_EVERY", 20);
    let plan = Arc::new(Plan {
        input: kafka.topic(&client, "copy-in", 6).await,
        output: kafka.topic(&client, "copy-out", 6).await,
        group: unique("copy"),
        length: seconds("OTTLA_SOAK_SECONDS", 300),
        between_kills,
        down: (between_kills / 3).min(8 * SECOND),
        rate: number("OTTLA_SOAK_RATE", 2000),
    });
    let tally = Arc::new(Tally::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut copiers = Vec::new();
    for number in 0..2 {
        let copier = Copier::new(&kafka, &plan, number, Arc::clone(&tally)).await;
        copiers.push(tokio::spawn(copier.run(Arc::clone(&stop))));
    }
    let until = Instant::now() + plan.length;
    let killer = tokio::spawn(kill(kafka.clone(), Arc::clone(&plan), until));
    let writer = write(client.clone(), plan.input.clone(), plan.rate, plan.length);
    let written = writer.await;
    let kills = killer.await.unwrap();
    kafka.settled().await;
    until_copied(&client, &plan).await;
    stop.store(true, Ordering::Release);
    for copier in copiers {
        timeout(PATIENCE, copier).await.unwrap().unwrap();
    }
    holds(&kafka, &plan.output, written).await;
    println!("{written} records copied once each, {kills} brokers killed: {tally:?}");
    client.topics().delete(&plan.input).await.unwrap();
    client.topics().delete(&plan.output).await.unwrap();
}
