//! A partition that an open transaction holds, on a real cluster: its end and its committed offset
//! are fine, and yet its readers get nothing.

use crate::kafka::{Kafka, unique};
use crate::steering::{PARTITIONS, STALLED, until_share};
use ottla::consumer::{Isolation, OffsetReset, Start};
use ottla::lag::Progress;
use ottla::{Client, LagAware, Record, TopicPartition};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const COMMIT: Duration = Duration::from_millis(200);

/// Reads what is committed of one partition, for the group.
async fn read_committed(client: Client, group: String, partition: TopicPartition) {
    let consumer = client.consumer().unwrap().group(&group);
    let consumer = consumer
        .auto_offset_reset(OffsetReset::Earliest)
        .isolation(Isolation::ReadCommitted)
        .auto_commit(Some(COMMIT))
        .assign([(partition, Start::Awaited)]);
    let mut consumer = consumer.build().await.unwrap();
    loop {
        consumer.poll(1000, COMMIT / 2).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_partition_that_an_open_transaction_holds_attracts_no_records() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "blocked", PARTITIONS).await;
    let group = unique("blocked");
    let readers = (0..PARTITIONS).map(|partition| {
        let partition = TopicPartition::new(topic.as_str(), partition);
        tokio::spawn(read_committed(client.clone(), group.clone(), partition))
    });
    let readers: Vec<_> = readers.collect();
    let lag = client.lag(group.as_str()).topics([topic.as_str()]);
    let lag = lag.refresh(SECOND / 4).start().await.unwrap();
    let builder = client.producer().partitioner(LagAware::new(lag.plan()));
    let producer = builder.linger(Duration::from_millis(5)).build().unwrap();
    let transactional = client.transactional_producer(unique("holder"));
    let mut transactional = transactional.build().await.unwrap();

    let even = |share: f64| share > 0.5;
    until_share(&producer, &topic, even).await;
    let transaction = transactional.begin().await.unwrap();
    let held = Record::to(&topic).partition(STALLED).value("held");
    transaction.send(held).await.unwrap();
    until_share(&producer, &topic, |share| share < 0.2).await;
    let snapshot = lag.snapshot();
    let blocked = *snapshot.partition(&topic, STALLED).unwrap();
    transaction.commit().await.unwrap();
    until_share(&producer, &topic, even).await;
    println!("while held: {blocked:?}");

    // It says why, and does not call the consumer dead.
    assert_eq!(blocked.progress, Progress::Blocked);
    assert!(blocked.lag > Some(0), "its lag is what is unread");

    producer.close().await.unwrap();
    transactional.close().await.unwrap();
    for reader in readers {
        reader.abort();
    }
    client.topics().delete(&topic).await.unwrap();
}
