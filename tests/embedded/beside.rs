//! Producers beside each other on one client, and topics that rest while something still waits.

use ottla::partitioner::{KeyChoice, Partitioner, Run, Sticky, TopicView};
use ottla::{Client, ErrorKind, Record};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Three nodes, a partition each, no followers.
async fn three_nodes() -> (Cluster, Client) {
    let cluster = Cluster::builder().nodes(3).in_memory();
    let cluster = cluster.topic("orders", 3).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

fn record(partition: i32) -> Record<'static> {
    Record::to("orders").partition(partition).value("v")
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_hears_of_its_leader_however_long_nothing_else_is_written() {
    let (cluster, client) = three_nodes().await;
    let builder = client.producer();
    let builder = builder.property("metadata.max.idle.ms", "5000").unwrap();
    let producer = builder.build().unwrap();
    let leader = cluster.leader("orders", 0).unwrap();
    producer.send(record(0)).await.unwrap();
    cluster.stop_node(leader).await.unwrap();
    let delivery = producer.enqueue(record(0)).await.unwrap();
    sleep(60 * SECOND).await;
    assert!(delivery.outcome().is_none());
    cluster.start_node(leader).await.unwrap();
    delivery.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_request_of_one_producer_costs_its_neighbour_nothing() {
    let cluster = Cluster::builder().nodes(3).replication(3).in_memory();
    let cluster = cluster.topic("orders", 6).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let leader = cluster.leader("orders", 0);
    let beside = |other: &i32| cluster.leader("orders", *other) == leader;
    let other = (1..6).find(beside).unwrap();
    let stuck = client.producer().build().unwrap();
    let neighbour = client
        .producer()
        .property("enable.idempotence", "false")
        .unwrap()
        .build()
        .unwrap();
    for partition in [0, other] {
        stuck.send(record(partition)).await.unwrap();
        neighbour.send(record(partition)).await.unwrap();
    }
    cluster.freeze_follower("orders", 0).unwrap();
    let waits = stuck.enqueue(record(0)).await.unwrap();
    for _ in 0..20 {
        // This one gives up what is stuck, and sends it apart; the neighbour writes all the while.
        drop(stuck.enqueue(record(other)).await.unwrap());
        let begun = Instant::now();
        neighbour.send(record(other)).await.unwrap();
        assert!(begun.elapsed() < SECOND);
        sleep(SECOND / 10).await;
    }
    assert_eq!(neighbour.metrics().batch_retries, 0);
    cluster.thaw("orders", 0).unwrap();
    waits.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_only_tries_finds_a_forgotten_topic_again() {
    let (_cluster, client) = three_nodes().await;
    let builder = client.producer();
    let builder = builder.property("metadata.max.idle.ms", "5000").unwrap();
    let producer = builder.build().unwrap();
    producer.send(record(0)).await.unwrap();
    sleep(60 * SECOND).await;
    let (error, refused) = producer.try_enqueue(record(0)).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::State);
    sleep(SECOND).await;
    producer.try_enqueue(refused).unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn names_without_end_are_not_all_looked_for_at_once() {
    let (cluster, client) = three_nodes().await;
    let builder = client.producer().property("max.block.ms", "5000").unwrap();
    let producer = builder.build().unwrap();
    let outcome = |topic: &str| producer.try_enqueue(Record::to(topic).value("v")).is_ok();
    for number in 0..64 {
        assert!(!outcome(&format!("typo-{number}")));
    }
    for _ in 0..3 {
        assert!(!outcome("orders"), "too many others are looked for");
        sleep(SECOND).await;
    }
    sleep(5 * SECOND).await;
    // The others have been given up.
    assert!(!outcome("orders"), "it is asked for now");
    sleep(SECOND).await;
    assert!(outcome("orders"));
    producer.flush().await.unwrap();
    let count = |partition| cluster.log("orders", partition).len();
    assert_eq!((0..3).map(count).sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_producer_ends_with_its_client() {
    let (cluster, client) = three_nodes().await;
    let producer = client.producer().build().unwrap();
    producer.send(record(0)).await.unwrap();
    let produce = cluster.faults().on(ApiKey::Produce);
    let _ = produce.always().delay(20 * SECOND);
    let delivery = producer.enqueue(record(0)).await.unwrap();
    sleep(SECOND).await;
    client.cluster().close().await;
    let begun = Instant::now();
    delivery.await.unwrap_err();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

/// The queue was emptied by failing, not by sending: neither its length nor the leader that took
/// nothing of it may keep records away for good.
#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_after_its_batches_expired_gets_keyless_records_again() {
    let (cluster, client) = three_nodes().await;
    let sticky = Sticky::default().availability_timeout(2 * SECOND);
    let producer = client
        .producer()
        .partitioner(sticky)
        .delivery_timeout(5 * SECOND)
        .linger(Duration::ZERO)
        .build()
        .unwrap();
    for partition in 0..3 {
        producer.send(record(partition)).await.unwrap();
    }
    cluster.freeze_metadata();
    let leader = cluster.leader("orders", 0).unwrap();
    cluster.stop_node(leader).await.unwrap();
    for _ in 0..3 {
        producer.send(record(0)).await.unwrap_err();
    }
    cluster.start_node(leader).await.unwrap();
    cluster.thaw_metadata();
    sleep(30 * SECOND).await;
    let before = cluster.log("orders", 0).len();
    for _ in 0..200 {
        let value = [b'v'; 16 << 10];
        let keyless = Record::to("orders").value(&value);
        producer.send(keyless).await.unwrap();
    }
    assert!(cluster.log("orders", 0).len() > before);
}

/// Sends every run to partition 1 and notes what waits for partition 0, and for how many
/// milliseconds its leader has taken nothing.
#[derive(Debug, Default, Clone)]
struct Watching {
    waiting: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Partitioner for Watching {
    fn keyed(&self, _view: &TopicView<'_>, _key: &[u8]) -> KeyChoice {
        KeyChoice::Run
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: std::time::Instant,
        _random: u64,
        _previous: Option<i32>,
    ) -> Run {
        let waiting = view.queued.waiting_bytes(0);
        self.waiting.store(waiting, Ordering::Relaxed);
        let refused = view.queued.refused_for(0, now).as_millis() as u64;
        self.refused.store(refused, Ordering::Relaxed);
        Run {
            partition: 1,
            bytes: 1,
            records: 1,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_expired_in_the_queue_does_not_wait_there_for_the_partitioner() {
    let (cluster, client) = three_nodes().await;
    let waiting = Watching::default();
    let builder = client.producer().partitioner(waiting.clone());
    let builder = builder.delivery_timeout(5 * SECOND).batch_bytes(1_000);
    let producer = builder.build().unwrap();
    for partition in 0..2 {
        producer.send(record(partition)).await.unwrap();
    }
    cluster
        .stop_node(cluster.leader("orders", 0).unwrap())
        .await
        .unwrap();
    let value = [b'v'; 900];
    for _ in 0..10 {
        let lost = Record::to("orders").partition(0).value(&value);
        drop(producer.enqueue(lost).await.unwrap());
    }
    let look = async || {
        producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
        producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
        waiting.waiting.load(Ordering::Relaxed)
    };
    assert!(look().await > 5_000);
    sleep(10 * SECOND).await;
    assert_eq!(look().await, 0);
}

/// Two partitions of the dead leader wait; the batch of one of them expires first.
#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_another_partition_waiting_still_takes_nothing() {
    let cluster = Cluster::builder().nodes(3).in_memory();
    let cluster = cluster.topic("orders", 6).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let watching = Watching::default();
    let builder = client.producer().partitioner(watching.clone());
    let builder = builder.delivery_timeout(5 * SECOND);
    let producer = builder.linger(Duration::ZERO).build().unwrap();
    let leader = cluster.leader("orders", 0).unwrap();
    let beside = |other: &i32| cluster.leader("orders", *other) == Some(leader);
    let other = (2..6).find(beside).unwrap();
    for partition in [0, 1, other] {
        producer.send(record(partition)).await.unwrap();
    }
    cluster.freeze_metadata();
    cluster.stop_node(leader).await.unwrap();
    sleep(SECOND).await;
    let early = producer.enqueue(record(0)).await.unwrap();
    sleep(2 * SECOND).await;
    let late = producer.enqueue(record(other)).await.unwrap();
    let refused = async || {
        let keyless = || Record::to("orders").value("v");
        producer.send(keyless()).await.unwrap();
        producer.send(keyless()).await.unwrap();
        watching.refused.load(Ordering::Relaxed)
    };
    early.await.unwrap_err();
    let since_early = refused().await;
    assert!((5_000..5_100).contains(&since_early), "{since_early}");
    late.await.unwrap_err();
    assert_eq!(refused().await, 0, "there is nothing to take");
}
