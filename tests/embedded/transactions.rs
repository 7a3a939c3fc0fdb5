//! The transactional producer against the embedded cluster, in memory and under a paused clock, in
//! both of Kafka's protocols.

pub(crate) mod failures;
mod hooks;
mod offsets;

use ottla::consumer::{Isolation, Start};
use ottla::{Client, Decision, Record, TopicPartition, TransactionalProducer};
use ottla_broker::{ApiKey, Cluster};
use std::time::Duration;

pub(crate) const PARTITIONS: i32 = 3;
/// The levels of `transaction.version` at which the two protocols are spoken.
pub(crate) const LEVELS: [i16; 2] = [1, 2];

pub(crate) async fn cluster(level: i16) -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let builder = builder.topic("out", PARTITIONS).topic("in", PARTITIONS);
    builder.transaction_version(level).start().await.unwrap()
}

pub(crate) async fn client(cluster: &Cluster) -> Client {
    ottla_tests::client(cluster).connect().await.unwrap()
}

pub(crate) async fn producer(client: &Client) -> TransactionalProducer {
    client
        .transactional_producer("billing-1")
        .build()
        .await
        .unwrap()
}

/// What a reader sees of the topic that sees only what is committed, in the order of the values.
pub(crate) async fn committed(cluster: &Cluster) -> Vec<String> {
    let client = client(cluster).await;
    let consumer = client.consumer().unwrap();
    let partitions = (0..PARTITIONS).map(|number| {
        let partition = TopicPartition::new("out", number);
        (partition, Start::Offset(0, None))
    });
    let consumer = consumer.isolation(Isolation::ReadCommitted);
    let consumer = consumer.assign(partitions);
    let mut consumer = consumer.build().await.unwrap();
    let mut values = Vec::new();
    loop {
        let records = consumer.poll(1000, Duration::from_secs(2)).await.unwrap();
        if records.is_empty() {
            break;
        }
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        values.extend(records.iter().filter_map(|r| r.value.as_deref().map(text)));
    }
    consumer.close().await.unwrap();
    values.sort();
    values
}

pub(crate) fn record<'r>(partition: i32, value: &'r str) -> Record<'r> {
    Record::to("out").partition(partition).value(value)
}

fn metrics_are_clean(producer: &TransactionalProducer) {
    let metrics = producer.metrics();
    assert_eq!((metrics.records_pending, metrics.buffer_used_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_seen_whole_and_what_is_aborted_not_at_all() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        for (round, end) in ["commit", "abort", "commit", "drop"].iter().enumerate() {
            let tx = producer.begin().await.unwrap();
            for partition in 0..PARTITIONS {
                let value = format!("{round}-{partition}");
                tx.send(record(partition, &value)).await.unwrap();
            }
            match *end {
                "commit" => tx.commit().await.unwrap(),
                "abort" => tx.abort().await.unwrap(),
                _ => drop(tx),
            }
        }
        let seen = committed(&cluster).await;
        assert_eq!(seen, ["0-0", "0-1", "0-2", "2-0", "2-1", "2-2"], "{level}");
        metrics_are_clean(&producer);
        producer.close().await.unwrap();
        let adds = cluster.requests(ApiKey::AddPartitionsToTxn);
        assert_eq!(adds == 0, level == 2, "{adds} at level {level}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_transaction_costs_no_request_to_end() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        producer.begin().await.unwrap().commit().await.unwrap();
        producer.begin().await.unwrap().abort().await.unwrap();
        assert_eq!(cluster.requests(ApiKey::EndTxn), 0);
        assert_eq!(producer.settle().await.unwrap(), Some(Decision::Abort));
    }
}

#[tokio::test(start_paused = true)]
async fn many_records_of_many_transactions_are_seen_once_each() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let mut wanted = Vec::new();
        for round in 0..20 {
            let tx = producer.begin().await.unwrap();
            for number in 0..50 {
                let value = format!("{round:03}-{number:03}");
                drop(
                    tx.enqueue(record(number % PARTITIONS, &value))
                        .await
                        .unwrap(),
                );
                if round % 3 != 0 {
                    wanted.push(value);
                }
            }
            match round % 3 {
                0 => tx.abort().await.unwrap(),
                _ => tx.commit().await.unwrap(),
            }
        }
        assert_eq!(committed(&cluster).await, wanted, "level {level}");
        metrics_are_clean(&producer);
    }
}

/// Lives through many short-lived topics without keeping anything of them.
#[tokio::test(start_paused = true)]
async fn a_topic_that_transactions_leave_alone_is_forgotten_and_comes_back_when_it_is_wanted() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let builder = client.transactional_producer("billing-1");
        let builder = builder.property("metadata.max.idle.ms", "60000").unwrap();
        let mut producer = builder.build().await.unwrap();
        for value in ["a", "b", "c"] {
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, value)).await.unwrap();
            tx.commit().await.unwrap();
            let begun = tokio::time::Instant::now();
            while client.cluster().view().topic("out").is_some() {
                let tx = producer.begin().await.unwrap();
                let record = Record::to("in").partition(0).value(value);
                tx.send(record).await.unwrap();
                tx.commit().await.unwrap();
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert!(begun.elapsed() < Duration::from_secs(1_000), "it is kept");
            }
            assert!(begun.elapsed() >= Duration::from_secs(60));
        }
        assert_eq!(committed(&cluster).await, ["a", "b", "c"]);
        metrics_are_clean(&producer);
        producer.close().await.unwrap();
    }
}
