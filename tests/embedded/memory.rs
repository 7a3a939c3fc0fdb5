//! The producer's buffer while brokers are stuck: each leader has its part of it.

use bytes::Bytes;
use ottla::{Producer, Record};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::time::Duration;

const VALUE: [u8; 1_000] = [b'v'; 1_000];
/// Far more than the buffer holds.
const RECORDS: u32 = 6_000;

/// Three nodes, two partitions led by each, and a producer with a small buffer.
async fn producer() -> (Cluster, Producer) {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let cluster = builder.topic("orders", 6).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let builder = client.producer().buffer_bytes(1 << 20);
    // Stuck batches do not go away by themselves.
    let builder = builder.delivery_timeout(Duration::from_secs(3_600));
    let producer = builder.build().unwrap();
    // It has its id before anything is frozen.
    producer
        .send(Record::to("orders").value("first"))
        .await
        .unwrap();
    (cluster, producer)
}

fn led_by(cluster: &Cluster, node: i32) -> Vec<i32> {
    let led = |&partition: &i32| cluster.leader("orders", partition) == Some(node);
    (0..6).filter(led).collect()
}

/// Fills what the leader of this partition may hold.
fn fill(producer: &Producer, partition: i32) {
    let record = || Record::to("orders").partition(partition).value(&VALUE);
    while let Ok(delivery) = producer.try_enqueue(record()) {
        drop(delivery);
    }
}

fn written(cluster: &Cluster, partitions: &[i32]) -> usize {
    let count = |&partition: &i32| cluster.log("orders", partition).len();
    partitions.iter().map(count).sum()
}

async fn within(time: Duration, work: impl Future<Output = ()>, what: &str) {
    let done = tokio::time::timeout(time, work).await;
    assert!(done.is_ok(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_go_on_while_one_broker_of_three_is_frozen() {
    let (cluster, producer) = producer().await;
    cluster.freeze_node(1).unwrap();
    let send = async {
        for _ in 0..RECORDS {
            drop(
                producer
                    .enqueue(Record::to("orders").value(&VALUE))
                    .await
                    .unwrap(),
            );
        }
    };
    within(Duration::from_secs(5), send, "held up by the frozen broker").await;
    let others = [led_by(&cluster, 0), led_by(&cluster, 2)].concat();
    let stuck = 1_048;
    let went = written(&cluster, &others);
    assert!(
        went > RECORDS as usize - 2 * stuck,
        "{went} of {RECORDS} went"
    );
}

#[tokio::test(start_paused = true)]
async fn several_callers_without_keys_go_on_while_others_wait_for_the_frozen_broker() {
    let (cluster, producer) = producer().await;
    cluster.freeze_node(1).unwrap();
    let stuck = led_by(&cluster, 1)[0];
    fill(&producer, stuck);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let producer = producer.clone();
        let record = Record::to("orders").partition(stuck).value(&VALUE);
        waiting.spawn(async move { producer.enqueue(record).await.map(drop) });
    }
    tokio::task::yield_now().await;
    assert_eq!(producer.metrics().callers_waiting, 5);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let producer = producer.clone();
        callers.spawn(async move {
            for _ in 0..RECORDS / 8 {
                drop(
                    producer
                        .enqueue(Record::to("orders").value(&VALUE))
                        .await
                        .unwrap(),
                );
            }
        });
    }
    let all = async {
        callers.join_all().await;
    };
    within(Duration::from_secs(5), all, "held up by the frozen broker").await;
    assert_eq!(producer.metrics().callers_waiting, 5, "they wait on");
    cluster.thaw_node(1).unwrap();
    let all = waiting.join_all().await;
    assert!(all.iter().all(Result::is_ok), "served when it goes on");
}

#[tokio::test(start_paused = true)]
async fn keyed_records_for_living_brokers_do_not_wait_for_the_frozen_one() {
    let (cluster, producer) = producer().await;
    cluster.freeze_node(2).unwrap();
    let stuck = led_by(&cluster, 2)[0];
    fill(&producer, stuck);
    let behind = producer.clone();
    let behind = tokio::spawn(async move {
        let record = Record::to("orders").partition(stuck).value(&VALUE);
        behind.enqueue(record).await.map(drop)
    });
    tokio::task::yield_now().await;
    let living = [led_by(&cluster, 0), led_by(&cluster, 1)].concat();
    let send = async {
        for number in 0..RECORDS as usize {
            if number % 100 == 0 {
                // Callers that take their time leave batches open.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let partition = living[number % living.len()];
            let record = Record::to("orders").partition(partition).value(&VALUE);
            drop(producer.enqueue(record).await.unwrap());
        }
    };
    within(Duration::from_secs(5), send, "held up by the frozen broker").await;
    let batches = producer.metrics().batches_sent;
    assert!(batches < 200, "batches were cut short: {batches}");
    assert!(!behind.is_finished(), "someone waits for the frozen broker");
    behind.abort();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_frozen_broker_goes_on_when_the_partition_moves() {
    let (cluster, producer) = producer().await;
    cluster.freeze_node(1).unwrap();
    let stuck = led_by(&cluster, 1);
    fill(&producer, stuck[0]);
    fill(&producer, stuck[1]);
    let record = Record::to("orders").partition(stuck[1]).value(&VALUE);
    let mut waiting = Box::pin(producer.send(record));
    let short = tokio::time::timeout(Duration::from_secs(1), waiting.as_mut()).await;
    assert!(short.is_err() && producer.metrics().callers_waiting == 1);
    cluster.move_leader("orders", stuck[1], 0).unwrap();
    // Nothing tells the producer but its own look at the metadata.
    let metadata = tokio::time::timeout(Duration::from_secs(400), waiting).await;
    assert_eq!(metadata.unwrap().unwrap().partition, stuck[1]);
}

/// Large shared values go out from where they are, also when they are sent again, and count like
/// any others.
#[tokio::test(start_paused = true)]
async fn shared_values_arrive_once_through_a_small_buffer_and_lost_connections() {
    let (cluster, producer) = producer().await;
    let lost = cluster.faults().on(ApiKey::Produce).times(6);
    lost.apply_then_lose_answer();
    let source: Bytes = (0..2_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut sent = Vec::new();
    let mut deliveries = Vec::new();
    for number in 0..100 {
        let value = source.slice(number * 1_000..number * 1_000 + 3_000 + number * 400);
        let record = Record::to("orders").partition(1).key("k");
        deliveries.push(producer.enqueue(record.value_bytes(&value)).await.unwrap());
        sent.push(value);
        assert!(producer.metrics().buffer_used_bytes <= 1 << 20);
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let log = cluster.log("orders", 1).into_iter();
    let read: Vec<_> = log.filter(|record| record.key.is_some()).collect();
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(read.value.as_deref(), Some(&sent[..]));
    }
    producer.flush().await.unwrap();
    assert_eq!(producer.metrics().buffer_used_bytes, 0);
}
