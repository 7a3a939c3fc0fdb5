//! Keyed records under steering: the policies with the real producer, collector and brokers.

use crate::collection::commit;
use crate::ends::Log;
use ottla::lag::Lag;
use ottla::partitioner::{KeyPolicy, Method, java_partition};
use ottla::{Client, ErrorKind, LagAware, Producer, Record, RecordMetadata};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing_subscriber::util::SubscriberInitExt;

const SECOND: Duration = Duration::from_secs(1);

async fn two_partitions() -> (Cluster, Client) {
    let builder = Cluster::builder().nodes(2).replication(2).in_memory();
    let cluster = builder.topic("orders", 2).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

/// A key whose hash falls on partition 0.
fn key() -> String {
    let mut keys = (0..).map(|number: u32| format!("key-{number}"));
    let at_0 = |key: &String| java_partition(key.as_bytes(), 2) == 0;
    keys.find(at_0).unwrap()
}

async fn steered(client: &Client, policy: KeyPolicy) -> (Lag, Producer) {
    let lag = client.lag("billing").topics(["orders"]).keys(policy);
    let lag = lag.start().await.unwrap();
    let partitioner = LagAware::new(lag.plan());
    let producer = client.producer().partitioner(partitioner).build().unwrap();
    producer.prepare("orders").await.unwrap();
    (lag, producer)
}

/// A group that reads all of partition 1, and ten records a second of partition 0 while fifty come.
struct Slow {
    feeder: Producer,
    client: Client,
    committed: i64,
}

impl Slow {
    async fn begin(client: &Client) -> Self {
        for partition in 0..2 {
            commit(client, "billing", "orders", partition, 0).await;
        }
        Self {
            feeder: client.producer().build().unwrap(),
            client: client.clone(),
            committed: 0,
        }
    }

    async fn second(&mut self) {
        let mut end = 0;
        for partition in [0, 1] {
            for _ in 0..50 {
                let record = Record::to("orders").partition(partition).value("v");
                end = self.feeder.send(record).await.unwrap().offset.unwrap() + 1;
            }
        }
        self.committed += 10;
        commit(&self.client, "billing", "orders", 0, self.committed).await;
        commit(&self.client, "billing", "orders", 1, end).await;
        sleep(SECOND).await;
    }
}

async fn send(producer: &Producer, key: &str) -> RecordMetadata {
    let record = Record::to("orders").key(key.as_bytes()).value("v");
    producer.send(record).await.unwrap()
}

async fn moves_after_its_last_record_is_committed(fault: impl Fn(&Cluster)) {
    let (cluster, client) = two_partitions().await;
    let mut slow = Slow::begin(&client).await;
    let (lag, producer) = steered(&client, KeyPolicy::MIGRATE).await;
    let key = key();
    for _ in 0..6 {
        slow.second().await;
    }
    fault(&cluster);
    let sent = send(&producer, &key).await;
    assert_eq!(sent.partition, 0, "a key begins at home");
    slow.second().await;
    assert!(slow.committed <= sent.offset.unwrap());
    let sent = send(&producer, &key).await;
    assert_eq!(
        sent.partition, 0,
        "the group has still to read the one before"
    );
    let offset = sent.offset.unwrap();
    assert!(slow.committed <= offset);
    while slow.committed <= offset {
        let explained = lag.explain("orders").unwrap();
        assert_eq!(explained.keys_away, 0, "{} of {offset}", slow.committed);
        slow.second().await;
    }
    slow.second().await;
    assert_eq!(send(&producer, &key).await.partition, 1);
    let explained = lag.explain("orders").unwrap();
    assert_eq!(
        (explained.key_policy, explained.keys_away),
        (KeyPolicy::MIGRATE, 1)
    );
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_migrating_key_moves_after_its_last_record_is_committed() {
    moves_after_its_last_record_is_committed(|_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_migrating_key_moves_also_when_an_answer_about_it_was_lost() {
    let lose = |cluster: &Cluster| {
        cluster
            .faults()
            .on(ApiKey::Produce)
            .apply_then_lose_answer();
    };
    moves_after_its_last_record_is_committed(lose).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_start_a_key_waits_until_the_group_has_committed_what_was_there() {
    let (_cluster, client) = two_partitions().await;
    let mut slow = Slow::begin(&client).await;
    slow.second().await;
    commit(&client, "billing", "orders", 1, 49).await;
    let (_lag, producer) = steered(&client, KeyPolicy::MIGRATE).await;
    let key = key();
    let record = || Record::to("orders").key(key.as_bytes()).value("v");
    let (error, _) = producer.try_enqueue(record()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::State);
    assert!(
        timeout(5 * SECOND, producer.enqueue(record()))
            .await
            .is_err()
    );
    let error = producer.enqueue(record()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout, "max.block.ms is over");
    let waiting = async { send(&producer, &key).await.partition };
    let reading = async {
        sleep(SECOND).await;
        commit(&client, "billing", "orders", 1, 50).await;
    };
    let (partition, ()) = tokio::join!(waiting, reading);
    assert_eq!(partition, 0, "what lies at home is read before it");
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn properties_choose_the_policy_the_scorer_and_further_groups() {
    let (cluster, _) = two_partitions().await;
    let mut builder = client(&cluster);
    for (name, value) in [
        ("lag.key.policy", "blind"),
        ("health_threshold", "0.5"),
        ("max_lag_for_health", "10"),
        ("lag.groups", "audit"),
        // What is written below is read by nobody, and must not change the scores.
        ("lag.refresh.interval.ms", "60000"),
    ] {
        builder = builder.property(name, value).unwrap();
    }
    let client = builder.connect().await.unwrap();
    let feeder = client.producer().build().unwrap();
    for number in 0..40 {
        feeder
            .send(Record::to("orders").partition(number % 2).value("v"))
            .await
            .unwrap();
    }
    // One group is behind in one partition.
    for (group, offsets) in [("billing", [20, 20]), ("audit", [20, 0])] {
        for (partition, offset) in (0..).zip(offsets) {
            commit(&client, group, "orders", partition, offset).await;
        }
    }
    let lag = client
        .lag("billing")
        .topics(["orders"])
        .start()
        .await
        .unwrap();
    let explained = lag.explain("orders").unwrap();
    assert_eq!(explained.method, Method::Weighted);
    assert_eq!(explained.key_policy, KeyPolicy::Blind);
    assert!(explained.partitions[0].weight > 0.8, "{explained:?}");
    let lags: Vec<_> = lag
        .snapshots()
        .iter()
        .map(|snapshot| snapshot.lag())
        .collect();
    assert_eq!(lags, [Some(0), Some(20)]);
    let producer = client
        .producer()
        .partitioner(LagAware::new(lag.plan()))
        .build()
        .unwrap();
    let key = key();
    let mut seen = [0; 2];
    // Sixteen records go together, so that these are some sixty choices.
    for _ in 0..960 {
        seen[send(&producer, &key).await.partition as usize] += 1;
    }
    assert!(seen[0] > 576, "one key goes where the score says: {seen:?}");
    assert!(client.lag("billing").set("lag.key.policy", "any").is_err());
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_migrating_policy_refuses_a_producer_that_may_reorder() {
    let (_cluster, client) = two_partitions().await;
    let lag = client
        .lag("billing")
        .topics(["orders"])
        .start()
        .await
        .unwrap();
    let build = |policy| {
        let steer = LagAware::new(lag.plan()).keys(policy);
        client
            .producer()
            .idempotence(false)
            .partitioner(steer)
            .build()
    };
    let error = build(KeyPolicy::MIGRATE).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("enable.idempotence"), "{error}");
    assert!(build(KeyPolicy::STICKY).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_would_not_wait_for_the_look_that_places_keys_is_refused() {
    let (_cluster, client) = two_partitions().await;
    let build = async |policy, refresh_seconds: u32, max_block_ms: &str| {
        let lag = client.lag("billing").topics(["orders"]).keys(policy);
        let lag = lag.refresh(refresh_seconds * SECOND).start().await.unwrap();
        let builder = client.producer().partitioner(LagAware::new(lag.plan()));
        let builder = builder.property("max.block.ms", max_block_ms).unwrap();
        builder.build().map(drop)
    };
    let error = build(KeyPolicy::MIGRATE, 10, "9999").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    let said = error.to_string();
    for word in [
        "lag.refresh.interval.ms=10000",
        "max.block.ms of 9999",
        "migrate",
    ] {
        assert!(said.contains(word), "{said}");
    }
    for policy in [KeyPolicy::Keep, KeyPolicy::Blind, KeyPolicy::STICKY] {
        build(policy, 10, "9999").await.unwrap();
    }
    // By one who only tries, and tries again.
    build(KeyPolicy::MIGRATE, 10, "0").await.unwrap();
    // What is enough only as long as looks are quick is said.
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let _guard = subscriber.with_writer(move || writer.clone()).set_default();
    for (max_block_ms, warned) in [("10000", 1), ("29999", 2), ("30000", 2), ("0", 2)] {
        build(KeyPolicy::MIGRATE, 10, max_block_ms).await.unwrap();
        build(KeyPolicy::STICKY, 10, max_block_ms).await.unwrap();
        let said = log.lines_with("when a look takes long");
        assert_eq!(said.len(), warned, "{max_block_ms}: {said:?}");
    }
}
