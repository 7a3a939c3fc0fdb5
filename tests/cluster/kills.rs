//! Brokers are killed with -9, or freeze, and come back while records are written: nothing is lost,
//! nothing is there twice, nothing is out of order, as a foreign consumer reads it.

use crate::foreign::{Seen, kcat_reads};
use crate::kafka::{Harm, Kafka, unique};
use ottla::consumer::{Consumer, OffsetReset, Start};
use ottla::lag::{Topics, collect_once};
use ottla::{
    Client, Delivery, Producer, Record, RecordMetadata, Result, TopicPartition, WriteOutcome,
};
use ottla_wire::CoordinatorKind;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: i32 = 6;
const RATE: u32 = 20_000;
const SECOND: Duration = Duration::from_secs(1);
/// Longer than the controller takes to notice that a broker is dead, which is 6 s.
const DOWN: Duration = Duration::from_secs(8);
/// No consumer or producer of a cluster that is whole again waits for so long.
const PATIENCE: Duration = Duration::from_secs(60);

const PADDING: &str =
    "a line of text of about the usual length, so that the records are of a hundred bytes ..";

/// Half of the records have keys, so that both ways to a partition are taken.
fn key(number: u32) -> Option<String> {
    number
        .is_multiple_of(2)
        .then(|| format!("key {}", number % 1000))
}

/// A record's value, which says its number.
pub(crate) fn value(number: u32) -> String {
    format!("{number:010} {PADDING}")
}

/// Enqueues records at the rate, numbered from 0, until it is told to stop.
async fn load(producer: Producer, topic: String, stop: Arc<AtomicBool>) -> Vec<Delivery> {
    let began = Instant::now();
    let mut deliveries = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let due = began.elapsed().as_millis() * u128::from(RATE) / 1000;
        while u128::from(number) < due {
            let (key, value) = (key(number), value(number));
            let mut record = Record::to(&topic).value(&value);
            if let Some(key) = &key {
                record = record.key(key.as_bytes());
            }
            deliveries.push(producer.enqueue(record).await.unwrap());
            number += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    producer.close().await.unwrap();
    deliveries
}

/// The numbers of the records as somebody reads them, and where each lies.
#[derive(Debug, Default)]
pub(crate) struct Log {
    places: Vec<Option<(i32, i64)>>,
    count: usize,
    last: HashMap<i32, u32>,
}

impl Log {
    pub(crate) fn saw(&mut self, partition: i32, offset: i64, value: &[u8]) {
        let text = std::str::from_utf8(value).unwrap();
        let (number, padding) = text.split_once(' ').unwrap();
        assert_eq!(padding, PADDING);
        let number: u32 = number.parse().unwrap();
        let index = number as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        if let Some(before) = self.places[index].replace((partition, offset)) {
            panic!("record {number} is there twice: {before:?}, {partition} {offset}");
        }
        self.count += 1;
        let last = self.last.insert(partition, number);
        assert!(
            last.is_none_or(|last| last < number),
            "record {number} comes after {last:?} in partition {partition}"
        );
    }

    /// What was told of each record is true.
    pub(crate) fn holds(&self, outcomes: &[Result<RecordMetadata>]) {
        assert!(
            self.places.len() <= outcomes.len(),
            "records that nobody wrote"
        );
        for (number, outcome) in outcomes.iter().enumerate() {
            let place = self.places.get(number).copied().flatten();
            match outcome {
                Ok(told) => {
                    let Some((partition, offset)) = place else {
                        panic!("record {number} was acknowledged and is lost: {told:?}");
                    };
                    assert_eq!(told.partition, partition, "record {number}");
                    assert!(
                        told.offset.is_none_or(|told| told == offset),
                        "record {number} lies at {offset} and was told to be at {:?}",
                        told.offset
                    );
                }
                Err(error) if error.write_outcome() == Some(WriteOutcome::NotWritten) => {
                    assert_eq!(place, None, "record {number} is there in spite of {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// Our consumer of the whole topic, by assignment.
async fn assigned(client: &Client, topic: &str) -> Consumer {
    let partition = |number| (TopicPartition::new(topic, number), Start::Offset(0, None));
    let consumer = client.consumer().unwrap();
    let consumer = consumer.assign((0..PARTITIONS).map(partition));
    consumer.build().await.unwrap()
}

/// Our consumer of the whole topic, the only member of its group.
async fn member(client: &Client, topic: &str, group: &str) -> Consumer {
    let consumer = client.consumer().unwrap().group(group).topics([topic]);
    let consumer = consumer
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(Some(Duration::from_millis(500)));
    consumer.build().await.unwrap()
}

/// Reads along until there are as many records as were written, then closes.
async fn follow(mut consumer: Consumer, written: Arc<OnceCell<usize>>) -> Log {
    let mut log = Log::default();
    while written.get().is_none_or(|written| log.count < *written) {
        match consumer.poll(10_000, SECOND).await {
            Ok(records) => {
                for record in records {
                    let value = record.value.as_deref().unwrap();
                    log.saw(record.partition(), record.offset, value);
                }
            }
            Err(error) => assert!(!error.is_fatal(), "{error}"),
        }
    }
    consumer.close().await.unwrap();
    log
}

/// The longest time in which no record was acknowledged.
async fn longest_silence(producer: Producer, stop: Arc<AtomicBool>) -> Duration {
    let (mut known, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Acquire) {
        let acknowledged = producer.metrics().records_acknowledged;
        if acknowledged > known {
            longest = longest.max(since.elapsed());
            (known, since) = (acknowledged, Instant::now());
        }
        sleep(Duration::from_millis(20)).await;
    }
    longest.max(since.elapsed())
}

/// Takes down the group's coordinator, which also leads a third of the partitions, and waits until the
/// cluster is whole again.
async fn take_down(harm: Harm, kafka: &Kafka, client: &Client, group: &str) {
    let deadline = Instant::now() + PATIENCE;
    let coordinator = client
        .cluster()
        .coordinator(CoordinatorKind::Group, group, deadline);
    let victim = coordinator.await.unwrap();
    let down = kafka.harm(harm, victim.0).await;
    sleep(DOWN).await;
    down.end().await;
    kafka.settled().await;
    client
        .cluster()
        .forget_coordinator(CoordinatorKind::Group, group, victim);
}

/// Writes under load while brokers go down, and holds every reader to what was told.
async fn records_survive(harms: &[Harm], between: Duration, request_timeout_millis: &str) {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "kills", PARTITIONS).await;
    let builder = kafka.client_builder();
    let builder = builder.property("request.timeout.ms", request_timeout_millis);
    let writer = builder.unwrap().connect().await.unwrap();
    let producer = writer.producer().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(OnceCell::new());
    let began = Instant::now();
    let group = unique("kills");
    let readers = [
        assigned(&kafka.client().await, &topic).await,
        member(&kafka.client().await, &topic, &group).await,
    ];
    let readers = readers.map(|reader| tokio::spawn(follow(reader, Arc::clone(&written))));
    let silence = tokio::spawn(longest_silence(producer.clone(), Arc::clone(&stop)));
    let load = tokio::spawn(load(producer, topic.clone(), Arc::clone(&stop)));
    sleep(between / 2).await;
    for harm in harms {
        take_down(*harm, &kafka, &client, &group).await;
        sleep(between).await;
    }
    stop.store(true, Ordering::Release);
    let deliveries = timeout(PATIENCE, load).await.unwrap().unwrap();
    let mut outcomes = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        // The producer is closed: there is nothing left to wait for.
        outcomes.push(delivery.outcome().unwrap());
    }
    let took = began.elapsed();
    written.set(outcomes.len()).unwrap();
    for reader in readers {
        let ours = timeout(PATIENCE, reader).await.unwrap().unwrap();
        ours.holds(&outcomes);
    }
    let lag = collect_once(client.cluster(), &group, &Topics::Committed);
    let lags = lag.await.unwrap().rows.into_iter().map(|row| row.lag.lag);
    assert_eq!(
        lags.collect::<Vec<_>>(),
        [Some(0); 6],
        "what the member closed with"
    );
    let mut foreign = Log::default();
    let saw = |seen: Seen<'_>| foreign.saw(seen.partition, seen.offset, seen.value);
    kcat_reads(&kafka.bootstrap, &topic, saw).await;

    foreign.holds(&outcomes);
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|one| one.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    let nowhere =
        |told: &&Result<RecordMetadata>| matches!(told, Ok(told) if told.offset.is_none());
    println!(
        "{} records in {took:?}, {} of them acknowledged without an offset, longest silence {:?}",
        outcomes.len(),
        outcomes.iter().filter(nowhere).count(),
        silence.await.unwrap()
    );
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn a_broker_killed_under_load_costs_and_repeats_nothing() {
    records_survive(&[Harm::Kill], 2 * SECOND, "30000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn a_broker_frozen_under_load_costs_and_repeats_nothing() {
    // The other leaders wait for the frozen follower; by then they have what is sent once more.
    records_survive(&[Harm::Freeze], 2 * SECOND, "2000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_brokers_killed_twice_under_load_cost_and_repeat_nothing() {
    records_survive(&[Harm::Kill, Harm::Kill], 20 * SECOND, "30000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_brokers_killed_and_frozen_with_late_answers_cost_and_repeat_nothing() {
    let harms = [Harm::Freeze, Harm::Kill, Harm::Freeze, Harm::Kill];
    records_survive(&harms, 6 * SECOND, "2000").await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(numbers: &[(i32, u32)]) -> Log {
        let mut log = Log::default();
        for (offset, (partition, number)) in (0..).zip(numbers) {
            log.saw(*partition, offset, value(*number).as_bytes());
        }
        log
    }

    fn told(partition: i32, offset: i64) -> Result<RecordMetadata> {
        Ok(RecordMetadata {
            topic: "t".into(),
            partition,
            offset: Some(offset),
            timestamp: 0,
        })
    }

    #[test]
    fn what_was_told_and_is_there_is_right() {
        log(&[(0, 0), (1, 1), (0, 2)]).holds(&[told(0, 0), told(1, 1), told(0, 2)]);
    }

    #[test]
    #[should_panic = "record 1 is there twice"]
    fn a_record_that_is_there_twice_is_noticed() {
        log(&[(0, 1), (0, 1)]);
    }

    #[test]
    #[should_panic = "record 1 comes after Some(2) in partition 0"]
    fn records_in_the_wrong_order_are_noticed() {
        log(&[(0, 2), (0, 1)]);
    }

    #[test]
    #[should_panic = "record 1 was acknowledged and is lost"]
    fn a_lost_record_is_noticed() {
        log(&[(0, 0), (0, 2)]).holds(&[told(0, 0), told(0, 1), told(0, 1)]);
    }

    #[test]
    #[should_panic = "record 1 lies at 1 and was told to be at Some(2)"]
    fn a_wrong_offset_is_noticed() {
        log(&[(0, 0), (0, 1)]).holds(&[told(0, 0), told(0, 2)]);
    }

    #[test]
    #[should_panic = "record 0 is there in spite of refused"]
    fn a_record_that_was_told_not_to_be_written_is_noticed() {
        let refused = ottla::Error::new(ottla::ErrorKind::Timeout, "refused");
        let refused = refused.with_outcome(WriteOutcome::NotWritten);
        log(&[(0, 0)]).holds(&[Err(refused)]);
    }
}
