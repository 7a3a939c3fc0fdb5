//! How transactions end: late markers, timeouts, nodes that stop, followers that lag.

use super::{Producer, Speaks, cluster, init};
use crate::testing::Client;
use crate::{ApiKey, Cluster, Code};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Beyond what a second brings, whoever is woken first.
const LATER: Duration = Duration::from_millis(1010);

#[tokio::test(start_paused = true)]
async fn until_the_markers_are_written_everything_is_concurrent() {
    let busy = Code::CONCURRENT_TRANSACTIONS;
    for speaks in [Speaks::V1, Speaks::V2] {
        let (cluster, mut client) = cluster(|b| b.marker_delay(SECOND)).await;
        let mut producer = Producer::new(&mut client, speaks).await;
        producer.send("a").await;
        producer.send_offset(3).await;
        let old = producer.epoch;
        producer.end(true).await;
        assert_eq!(cluster.transaction("x").unwrap().state, "PrepareCommit");
        assert_eq!(cluster.last_stable("t", 0), Some(0));
        assert_eq!(cluster.committed("g", "t", 0), None);
        assert_eq!(producer.try_end(true).await, busy);
        assert_eq!(producer.add(0).await, busy);
        assert_eq!(producer.add_group().await, busy);
        assert_eq!(producer.commit_offset(5, 4).await, busy);
        assert_eq!(producer.write(12, 1, "b").await, busy);
        let older = producer.write(11, 1, "b").await;
        assert_eq!(older, Code::NOT_ENOUGH_REPLICAS, "older clients repeat it");
        let (code, ..) = init(producer.client, "x", None, 60_000).await;
        assert_eq!(code, busy);
        // The log itself does not know yet, as in Kafka.
        producer.epoch = old;
        producer.sequence = 1;
        assert_eq!(producer.write(12, 0, "b").await, Code::NONE);

        tokio::time::sleep(LATER).await;
        assert_eq!(cluster.transaction("x").unwrap().state, "CompleteCommit");
        assert_eq!(cluster.last_stable("t", 0), Some(3));
        assert_eq!(cluster.committed("g", "t", 0), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_repeated_is_known_by_its_epoch() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    let old = producer.epoch;
    producer.end(true).await;
    producer.epoch = old;
    assert_eq!(producer.try_end(false).await, Code::INVALID_TXN_STATE);
    producer.end(true).await;
    assert_eq!(producer.epoch, old + 1, "no second bump");
    producer.send("b").await;
    let now = std::mem::replace(&mut producer.epoch, old);
    let late = producer.try_end(true).await;
    assert_eq!(late, Code::PRODUCER_FENCED, "it does not end the next one");
    producer.epoch = now;
    producer.end(false).await;
    producer.end(false).await;
    assert_eq!(producer.epoch, now + 2, "an abort of nothing is taken");
    assert_eq!(producer.try_end(true).await, Code::INVALID_TXN_STATE);
}

#[tokio::test(start_paused = true)]
async fn in_the_first_protocol_a_late_end_hits_the_next_transaction() {
    let (cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V1).await;
    producer.send("a").await;
    producer.end(false).await;
    producer.send("b").await;
    producer.end(false).await;
    assert_eq!(cluster.committed_log("t", 0), []);
    producer.send("c").await;
    assert_eq!(producer.try_end(false).await, Code::NONE);
    assert_eq!(cluster.markers("t", 0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_takes_too_long_is_aborted() {
    for speaks in [Speaks::V1, Speaks::V2] {
        let (cluster, mut client) = cluster(|b| b).await;
        let mut producer = Producer::new(&mut client, speaks).await;
        producer.send("a").await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(cluster.transaction("x").unwrap().state, "Ongoing");
        producer.send("b").await;
        tokio::time::sleep(LATER).await;
        assert_eq!(cluster.transaction("x").unwrap().state, "CompleteAbort");
        assert_eq!(cluster.committed_log("t", 0), []);
        let late = producer.write(12, 0, "c").await;
        assert_eq!(late, Code::INVALID_PRODUCER_EPOCH);
        let ended = match speaks {
            Speaks::V1 => Code::PRODUCER_FENCED,
            Speaks::V2 => Code::INVALID_TXN_STATE,
        };
        assert_eq!(producer.try_end(true).await, ended);
        let known = Some((producer.id, producer.epoch));
        let (code, _, epoch) = init(producer.client, "x", known, 60_000).await;
        assert_eq!((code, epoch), (Code::NONE, producer.epoch + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_transaction_outlives_its_coordinator() {
    let builder = Cluster::builder().nodes(3).replication(3).topic("t", 2);
    let cluster = builder.in_memory().start().await.unwrap();
    cluster.move_leader("t", 0, 0).unwrap();
    cluster.move_coordinator("x", 1).unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let (code, ..) = init(&mut client, "x", None, 60_000).await;
    assert_eq!(code, Code::NOT_COORDINATOR);
    let mut coordinator = Client::to(&cluster, 1).await;
    let (_, producer_id, epoch) = init(&mut coordinator, "x", None, 60_000).await;
    let mut producer = Producer {
        client: &mut client,
        speaks: Speaks::V2,
        id: producer_id,
        epoch,
        sequence: 0,
    };
    producer.send("a").await;
    assert_eq!(producer.try_end(true).await, Code::NOT_COORDINATOR);
    cluster.stop_node(1).await.unwrap();
    let heir = cluster.coordinator("x").unwrap();
    assert_ne!(heir, 1);
    let mut coordinator = Client::to(&cluster, heir).await;
    producer.client = &mut coordinator;
    producer.end(true).await;
    let end = cluster.markers("t", 0)[0];
    assert!(end.committed && end.coordinator_epoch > 1, "{end:?}");
    cluster.start_node(1).await.unwrap();
    assert_eq!(cluster.coordinator("x"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_marker_waits_for_a_leader() {
    let builder = Cluster::builder().nodes(2).replication(1).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    let leader = cluster.leader("t", 0).unwrap();
    cluster.move_coordinator("x", leader).unwrap();
    let mut client = Client::to(&cluster, leader).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    let (id, epoch) = (producer.id, producer.epoch);
    cluster.stop_node(leader).await.unwrap();
    let mut client = Client::to(&cluster, 1 - leader).await;
    let mut producer = Producer {
        client: &mut client,
        speaks: Speaks::V2,
        id,
        epoch,
        sequence: 0,
    };
    producer.end(true).await;
    tokio::time::sleep(LATER).await;
    assert_eq!(cluster.transaction("x").unwrap().state, "PrepareCommit");
    cluster.start_node(leader).await.unwrap();
    tokio::time::sleep(LATER).await;
    assert_eq!(cluster.transaction("x").unwrap().state, "CompleteCommit");
    assert_eq!(cluster.committed_log("t", 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_a_new_leader_does_not_have_is_written_again() {
    let builder = Cluster::builder().nodes(2).replication(2).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    cluster.move_leader("t", 0, 0).unwrap();
    cluster.move_coordinator("x", 0).unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    cluster.freeze_follower("t", 0).unwrap();
    producer.end(false).await;
    tokio::time::sleep(LATER).await;
    assert_eq!(cluster.markers("t", 0).len(), 1);
    assert_eq!(cluster.transaction("x").unwrap().state, "PrepareAbort");
    assert_eq!(cluster.last_stable("t", 0), Some(0), "it is not replicated");

    cluster.move_leader("t", 0, 1).unwrap();
    tokio::time::sleep(LATER).await;
    assert_eq!(cluster.markers("t", 0).len(), 1);
    assert_eq!(cluster.transaction("x").unwrap().state, "PrepareAbort");
    cluster.thaw("t", 0).unwrap();
    tokio::time::sleep(LATER).await;
    assert_eq!(cluster.transaction("x").unwrap().state, "CompleteAbort");
    assert_eq!(cluster.last_stable("t", 0), Some(2));
    assert_eq!(cluster.committed_log("t", 0), []);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_holds_no_end_up() {
    let (cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    cluster.delete_topic("t").unwrap();
    producer.end(true).await;
    assert_eq!(cluster.transaction("x").unwrap().state, "CompleteCommit");
}

#[tokio::test(start_paused = true)]
async fn faults_strike_transactions_too() {
    let (cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    let loading = Code::COORDINATOR_LOAD_IN_PROGRESS;
    cluster.faults().on(ApiKey::EndTxn).error(loading);
    assert_eq!(producer.try_end(true).await, loading);
    assert_eq!(cluster.transaction("x").unwrap().state, "Ongoing");
    cluster
        .faults()
        .on(ApiKey::AddPartitionsToTxn)
        .error(loading);
    assert_eq!(producer.add(0).await, loading);
    cluster.faults().on(ApiKey::AddOffsetsToTxn).error(loading);
    assert_eq!(producer.add_group().await, loading);
    cluster.faults().on(ApiKey::TxnOffsetCommit).error(loading);
    assert_eq!(producer.commit_offset(5, 1).await, loading);
    cluster.faults().on(ApiKey::InitProducerId).error(loading);
    let (code, ..) = init(producer.client, "x", None, 60_000).await;
    assert_eq!(code, loading);

    let unknown = Code::UNKNOWN_SERVER_ERROR;
    cluster
        .faults()
        .on(ApiKey::EndTxn)
        .append_then_error(unknown);
    assert_eq!(producer.try_end(true).await, unknown);
    assert_eq!(cluster.committed_log("t", 0).len(), 1, "it was done");
    cluster.faults().on(ApiKey::EndTxn).apply_then_lose_answer();
    let (version, request) = producer.end_request(true);
    assert_eq!(producer.client.call(version, &request).await, None);
}
