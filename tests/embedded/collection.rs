//! Lag collection against embedded brokers that move, stop and refuse.

use ottla::lag::{Collector, Lag, LagStatus, Origin, Progress, Snapshot};
use ottla::{Client, Code, Record};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use ottla_wire::api::offset_commit::{Member, PartitionCommit, Request, call};
use ottla_wire::{Class, CoordinatorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

async fn three_nodes() -> (Cluster, Client) {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let builder = builder.topic("orders", 6).topic("secret", 2);
    let cluster = builder.start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

pub(crate) async fn commit(client: &Client, group: &str, topic: &str, partition: i32, offset: i64) {
    let deadline = Instant::now() + 10 * SECOND;
    let cluster = client.cluster();
    let home = cluster.coordinator(CoordinatorKind::Group, group, deadline);
    let connection = cluster
        .connection(home.await.unwrap(), Class::Control)
        .await
        .unwrap();
    let request = Request {
        member: Member {
            group: group.into(),
            ..Member::default()
        },
        topics: vec![(
            topic.into(),
            vec![PartitionCommit {
                partition,
                offset,
                leader_epoch: None,
                metadata: None,
            }],
        )],
    };
    let answer = call(&connection, &request).await.unwrap();
    assert_eq!(answer.topics[0].1, [(partition, Code::NONE)]);
}

async fn watch(client: &Client, topics: &[&str]) -> Lag {
    let lag = client.lag("billing").topics(topics.iter().copied());
    lag.start().await.unwrap()
}

fn lag_of(snapshot: &Snapshot, partition: i32) -> Option<u64> {
    snapshot.partition("orders", partition).unwrap().lag
}

#[tokio::test(start_paused = true)]
async fn a_round_is_one_request_to_a_coordinator_and_three_to_a_leader_for_all_groups() {
    let (cluster, client) = three_nodes().await;
    let groups: Vec<String> = (0..40).map(|number| format!("group-{number}")).collect();
    for group in &groups {
        commit(&client, group, "orders", 0, 0).await;
    }
    let collector = Collector::start(client.cluster().clone(), SECOND, 1);
    let mut lags = Vec::new();
    for group in &groups {
        let lag = Lag::with_collector(&collector, group.as_str()).topics(["orders"]);
        lags.push(lag.start().await.unwrap());
    }
    let count = || {
        let apis = [
            ApiKey::OffsetFetch,
            ApiKey::ListOffsets,
            ApiKey::FindCoordinator,
            ApiKey::ListGroups,
        ];
        apis.map(|api| cluster.requests(api))
    };
    let (before, rounds) = (count(), collector.figures().rounds);
    sleep(10 * SECOND).await;
    let (after, rounds) = (count(), collector.figures().rounds - rounds);
    let sent = [0, 1, 2, 3].map(|at| after[at] - before[at]);
    assert!(rounds >= 8);
    // Three coordinators, three leaders; a round may be under way.
    assert!(sent[0] <= 3 * (rounds + 1), "{sent:?} in {rounds} rounds");
    assert!(sent[1] <= 9 * (rounds + 1), "{sent:?} in {rounds} rounds");
    assert_eq!(sent[2..], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_is_followed() {
    let (cluster, client) = three_nodes().await;
    commit(&client, "billing", "orders", 0, 0).await;
    let lag = watch(&client, &["orders"]).await;
    let home = cluster.coordinator("billing").unwrap();
    for to in [0, 1, 2].into_iter().filter(|node| *node != home) {
        cluster.move_coordinator("billing", to).unwrap();
        sleep(3 * SECOND).await;
        let snapshot = lag.snapshot();
        let age = snapshot
            .partition("orders", 0)
            .unwrap()
            .age(Instant::now().into_std());
        assert!(age < 2 * SECOND, "{age:?}");
        assert_eq!(lag_of(&snapshot, 0), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_ages_its_partitions_and_the_rest_stays_fresh() {
    let (cluster, client) = three_nodes().await;
    for partition in 0..6 {
        commit(&client, "billing", "orders", partition, 0).await;
    }
    let lag = watch(&client, &["orders"]).await;
    let home = cluster.coordinator("billing").unwrap();
    let led = (0..6).map(|partition| cluster.leader("orders", partition).unwrap());
    let led: Vec<i32> = led.collect();
    let frozen = *led.iter().find(|node| **node != home).unwrap();
    cluster.freeze_node(frozen).unwrap();
    sleep(30 * SECOND).await;
    let snapshot = lag.snapshot();
    let now = Instant::now().into_std();
    for (partition, leader) in (0..6).zip(led) {
        let age = snapshot.partition("orders", partition).unwrap().age(now);
        match leader == frozen {
            true => assert!(age > 25 * SECOND, "{partition}: {age:?}"),
            false => assert!(age < 4 * SECOND, "{partition}: {age:?}"),
        }
    }
    cluster.thaw_node(frozen).unwrap();
    sleep(15 * SECOND).await;
    let snapshot = lag.snapshot();
    let now = Instant::now().into_std();
    let partitions = &snapshot.topic("orders").unwrap().partitions;
    assert!(partitions.iter().all(|one| one.age(now) < 4 * SECOND));
}

/// Trap: brokers accept any number as a committed offset.
#[tokio::test(start_paused = true)]
async fn a_commit_beyond_the_end_is_a_status() {
    let (_cluster, client) = three_nodes().await;
    commit(&client, "billing", "orders", 0, 1_000_000).await;
    let lag = watch(&client, &["orders"]).await;
    let snapshot = lag.snapshot();
    let partition = snapshot.partition("orders", 0).unwrap();
    assert_eq!(
        (partition.lag, partition.status),
        (None, LagStatus::BeyondEnd)
    );
    assert_eq!(
        snapshot.partition("orders", 1).unwrap().status,
        LagStatus::NoCommit
    );
    assert_eq!(snapshot.origin, Origin::Asked);
}

/// Trap: a group that reads committed records ends at the last stable offset, which an open
/// transaction holds still.
#[tokio::test(start_paused = true)]
async fn a_group_held_by_an_open_transaction_is_named_and_keeps_its_lag() {
    let (_cluster, client) = three_nodes().await;
    commit(&client, "billing", "orders", 0, 0).await;
    let lag = watch(&client, &["orders"]).await;
    let mut producer = client.transactional_producer("held").build().await.unwrap();
    let transaction = producer.begin().await.unwrap();
    for _ in 0..10 {
        let record = Record::to("orders").partition(0).value("v");
        transaction.enqueue(record).await.unwrap().await.unwrap();
    }
    sleep(8 * SECOND).await;
    let snapshot = lag.snapshot();
    let held = snapshot.partition("orders", 0).unwrap();
    assert_eq!((held.lag, held.stable_lag()), (Some(10), Some(0)));
    assert_eq!(held.progress, Progress::Blocked);
    transaction.commit().await.unwrap();
    sleep(2 * SECOND).await;
    let snapshot = lag.snapshot();
    let free = snapshot.partition("orders", 0).unwrap();
    assert_ne!(free.progress, Progress::Blocked);
    assert_eq!(free.stable_lag(), free.lag);
    commit(&client, "billing", "orders", 0, 10).await;
    sleep(2 * SECOND).await;
    let snapshot = lag.snapshot();
    let marker = snapshot.partition("orders", 0).unwrap();
    // Trap: the marker is no record, and the lag of 1 stays.
    assert_eq!((marker.lag, marker.progress), (Some(1), Progress::Ok));
}

#[tokio::test(start_paused = true)]
async fn topics_by_pattern_are_taken_in_as_they_come() {
    let (cluster, client) = three_nodes().await;
    let lag = client
        .lag("billing")
        .topics_matching("orders.*")
        .start()
        .await
        .unwrap();
    let topics = |snapshot: Arc<Snapshot>| {
        let topics = snapshot.topics.iter().map(|topic| topic.topic.to_string());
        topics.collect::<Vec<_>>()
    };
    assert_eq!(topics(lag.snapshot()), ["orders"]);
    cluster.create_topic("orders-eu", 2).unwrap();
    sleep(15 * SECOND).await;
    assert_eq!(topics(lag.snapshot()), ["orders", "orders-eu"]);
}
