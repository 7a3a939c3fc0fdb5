//! The first batches of topics that were made a moment ago, many at once and small: bug class 1, a
//! broker that takes a later batch of a fresh partition before its first one.

use crate::foreign::{Seen, kcat_reads};
use crate::kafka::{Harm, Kafka, unique};
use crate::kills::Log;
use ottla::{Client, NewTopic, Record, RecordMetadata, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: i32 = 6;
const TOPICS: u32 = 20;
const RECORDS: u32 = 2_000;
/// Long enough for elections with a dead broker.
const PATIENCE: Duration = Duration::from_secs(90);

/// Makes a topic and at once writes numbered records to it, a few to a batch.
async fn make_and_write(client: Client, topic: String) -> Vec<Result<RecordMetadata>> {
    let new = || {
        let new = NewTopic::new(topic.as_str());
        new.partitions(PARTITIONS).replication(3)
    };
    let made = async {
        // Asking a broker that goes down is an error that says so.
        while let Err(error) = client.topics().ensure(new()).await {
            assert!(error.is_retriable(), "{error}");
        }
    };
    timeout(PATIENCE, made).await.unwrap();
    let producer = client.producer().batch_bytes(1_000).linger(Duration::ZERO);
    let producer = producer.build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let (key, value) = (number.to_string(), crate::kills::value(number));
        let record = Record::to(&topic).key(&key).value(&value);
        deliveries.push(producer.enqueue(record).await.unwrap());
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    producer.close().await.unwrap();
    let outcomes = deliveries
        .into_iter()
        .map(|delivery| delivery.outcome().unwrap());
    outcomes.collect()
}

/// Holds a topic to what was told of it.
async fn check(kafka: Kafka, topic: String, outcomes: Vec<Result<RecordMetadata>>) -> String {
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    assert!(failed.is_none(), "{topic}: {failed:?}");
    let mut log = Log::default();
    let saw = |seen: Seen<'_>| log.saw(seen.partition, seen.offset, seen.value);
    kcat_reads(&kafka.bootstrap, &topic, saw).await;
    log.holds(&outcomes);
    topic
}

async fn fresh_topics(harm: Option<Harm>) {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let began = Instant::now();
    let mut writers = Vec::new();
    let mut down = None;
    for number in 0..TOPICS {
        let topic = unique("fresh");
        let writer = make_and_write(client.clone(), topic.clone());
        writers.push((topic, tokio::spawn(writer)));
        if let Some(harm) = harm.filter(|_| number == TOPICS / 2) {
            down = Some(kafka.harm(harm, 2).await);
        }
        sleep(Duration::from_millis(50)).await;
    }
    if let Some(down) = down {
        sleep(Duration::from_secs(8)).await;
        down.end().await;
    }
    let mut checks = Vec::new();
    for (topic, writer) in writers {
        let outcomes = timeout(PATIENCE, writer).await.unwrap().unwrap();
        checks.push(tokio::spawn(check(kafka.clone(), topic, outcomes)));
    }
    for check in checks {
        let topic = check.await.unwrap();
        client.topics().delete(&topic).await.unwrap();
    }
    println!("{TOPICS} topics in {:?}", began.elapsed());
    kafka.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn the_first_batches_of_fresh_topics_keep_their_order() {
    fresh_topics(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_the_first_batches_of_fresh_topics_keep_their_order_while_brokers_go_down() {
    for harm in [Harm::Kill, Harm::Freeze, Harm::Kill, Harm::Freeze] {
        fresh_topics(Some(harm)).await;
    }
}
