//! Who may write in a transaction, who is fenced, and what each is told.

use super::{Producer, Speaks, cluster, id, init, name, text};
use crate::Code;
use crate::testing::{Client, batch_bytes, produce_request, transactional};
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeTransactionsRequest, FindCoordinatorRequest,
    ListTransactionsRequest, ProducerId,
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn the_first_protocol_wants_every_partition_and_group_added() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V1).await;
    assert_eq!(
        producer.write(11, 0, "a").await,
        Code::TRANSACTION_ABORTABLE
    );
    assert_eq!(producer.write(10, 0, "a").await, Code::INVALID_TXN_STATE);
    assert_eq!(
        producer.commit_offset(4, 1).await,
        Code::TRANSACTION_ABORTABLE
    );
    assert_eq!(producer.commit_offset(3, 1).await, Code::INVALID_TXN_STATE);
    assert_eq!(producer.try_end(true).await, Code::INVALID_TXN_STATE);
    assert_eq!(producer.try_end(false).await, Code::INVALID_TXN_STATE);
    assert_eq!(producer.add(0).await, Code::NONE);
    assert_eq!(producer.write(3, 0, "a").await, Code::NONE);
    assert_eq!(
        producer.write(11, 1, "a").await,
        Code::TRANSACTION_ABORTABLE
    );
    assert_eq!(producer.add(9).await, Code::UNKNOWN_TOPIC_OR_PARTITION);
    producer.end(true).await;
    assert_eq!(producer.try_end(true).await, Code::NONE, "the same again");
    assert_eq!(producer.try_end(false).await, Code::INVALID_TXN_STATE);
    assert_eq!(
        producer.write(11, 0, "a").await,
        Code::TRANSACTION_ABORTABLE
    );
    producer.send_offset(1).await;
    producer.end(true).await;
    let next = producer.commit_offset(4, 2).await;
    assert_eq!(next, Code::TRANSACTION_ABORTABLE, "the group is added anew");
}

#[tokio::test(start_paused = true)]
async fn a_batch_must_fit_its_transaction() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    let stamp = Some((producer.id, producer.epoch, 1));
    let plain = batch_bytes(&["b"], 0, stamp);
    let part = producer.client.produce(-1, "t", 0, plain.clone()).await;
    assert_eq!(Code(part.unwrap().error_code), Code::INVALID_TXN_STATE);
    let nameless = produce_request(-1, "t", 0, transactional(&plain));
    let answer = producer.client.call(12, &nameless).await.unwrap();
    let code = Code(answer.responses[0].partition_responses[0].error_code);
    assert_eq!(code, Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    let unstamped = transactional(&batch_bytes(&["b"], 0, None));
    let part = producer.client.produce(-1, "t", 0, unstamped).await;
    assert_eq!(Code(part.unwrap().error_code), Code::INVALID_RECORD);
}

#[tokio::test(start_paused = true)]
async fn sequences_begin_anew_under_the_epoch_that_an_end_gave() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    producer.send("b").await;
    let old = producer.epoch;
    producer.end(true).await;
    producer.sequence = 2;
    let order = Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
    assert_eq!(producer.write(12, 0, "c").await, order);
    producer.sequence = 0;
    producer.send("c").await;
    producer.epoch = old;
    producer.sequence = 2;
    let fenced = Code::INVALID_PRODUCER_EPOCH;
    assert_eq!(producer.write(12, 0, "late").await, fenced);
    assert_eq!(producer.write(12, 1, "late").await, fenced);
}

#[tokio::test(start_paused = true)]
async fn a_second_producer_fences_the_first_and_aborts_its_transaction() {
    for speaks in [Speaks::V1, Speaks::V2] {
        let (cluster, mut client) = cluster(|b| b).await;
        let mut other = Client::to(&cluster, 0).await;
        let mut zombie = Producer::new(&mut client, speaks).await;
        zombie.send("z").await;
        let mut second = Producer::again(&mut other, speaks).await;
        assert_eq!((second.id, second.epoch), (zombie.id, zombie.epoch + 2));
        let ends = cluster.markers("t", 0);
        assert_eq!(
            (ends[0].committed, ends[0].epoch),
            (false, zombie.epoch + 1)
        );

        let stale = Code::INVALID_PRODUCER_EPOCH;
        assert_eq!(zombie.write(11, 0, "z").await, stale);
        assert_eq!(zombie.write(12, 0, "z").await, stale);
        assert_eq!(zombie.commit_offset(4, 1).await, stale);
        assert_eq!(zombie.commit_offset(5, 1).await, stale);
        let fenced = Code::PRODUCER_FENCED;
        assert_eq!(zombie.add(0).await, fenced);
        assert_eq!(zombie.add_group().await, fenced);
        assert_eq!(zombie.try_end(true).await, fenced);
        assert_eq!(zombie.try_end(false).await, fenced);
        let known = Some((zombie.id, zombie.epoch));
        let (code, ..) = init(zombie.client, "x", known, 60_000).await;
        assert_eq!(code, fenced);
        second.send("s").await;
        second.end(true).await;
        assert_eq!(super::values(&cluster.committed_log("t", 0)), ["s"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_goes_on_by_naming_itself() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let producer = Producer::new(&mut client, Speaks::V1).await;
    let (me, client) = (producer.id, producer.client);
    let ok = |epoch| (Code::NONE, me, epoch);
    let fenced = (Code::PRODUCER_FENCED, -1, -1);
    assert_eq!(init(client, "x", Some((me, 0)), 60_000).await, ok(1));
    assert_eq!(
        init(client, "x", Some((me, 0)), 60_000).await,
        ok(1),
        "again"
    );
    assert_eq!(init(client, "x", Some((me, 1)), 60_000).await, ok(2));
    assert_eq!(init(client, "x", Some((me, 0)), 60_000).await, fenced);
    assert_eq!(init(client, "x", Some((me + 9, 2)), 60_000).await, fenced);
    let (code, ..) = init(client, "x", Some((me, -1)), 60_000).await;
    assert_eq!(code, Code::INVALID_REQUEST);
    for timeout in [0, -1, 15 * 60_000 + 1] {
        let (code, ..) = init(client, "x", None, timeout).await;
        assert_eq!(code, Code::INVALID_TRANSACTION_TIMEOUT);
    }
    let (code, ..) = init(client, "", None, 60_000).await;
    assert_eq!(code, Code::INVALID_REQUEST);

    // In a transaction it aborts that one, and finds its new epoch by the old one.
    let mut producer = Producer::again(client, Speaks::V2).await;
    producer.send("a").await;
    let known = Some((me, producer.epoch));
    let (code, ..) = init(producer.client, "x", known, 60_000).await;
    assert_eq!(code, Code::CONCURRENT_TRANSACTIONS);
    let epoch = producer.epoch + 1;
    assert_eq!(init(producer.client, "x", known, 60_000).await, ok(epoch));
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_initialised_are_unknown() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.id += 77;
    let unknown = Code::INVALID_PRODUCER_ID_MAPPING;
    assert_eq!(producer.write(12, 0, "a").await, unknown);
    assert_eq!(producer.add(0).await, unknown);
    assert_eq!(producer.add_group().await, unknown);
    assert_eq!(producer.commit_offset(5, 1).await, unknown);
    assert_eq!(producer.try_end(true).await, unknown);
}

#[tokio::test(start_paused = true)]
async fn used_up_epochs_bring_another_producer_id() {
    let (cluster, mut client) = cluster(|b| b.first_producer_epoch(i16::MAX - 1)).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    let (old_id, last) = (producer.id, producer.epoch);
    assert_eq!(last, i16::MAX - 1);
    cluster.set_marker_delay(Duration::from_secs(1));
    producer.send("a").await;
    producer.end(true).await;
    assert_eq!(producer.epoch, 0);
    assert_ne!(producer.id, old_id);
    let busy = Code::CONCURRENT_TRANSACTIONS;
    assert_eq!(producer.write(12, 0, "b").await, busy, "not unknown");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.markers("t", 0)[0].epoch, i16::MAX);

    let new = (producer.id, producer.epoch);
    (producer.id, producer.epoch) = (old_id, last);
    producer.end(true).await;
    assert_eq!((producer.id, producer.epoch), new, "the same again");
    producer.send("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_asks_for_the_epoch_beyond_the_last_gets_another_id() {
    let (_cluster, mut client) = cluster(|b| b.first_producer_epoch(i16::MAX - 1)).await;
    let first = init(&mut client, "x", None, 60_000).await;
    let second = init(&mut client, "x", Some((first.1, first.2)), 60_000).await;
    assert_eq!(second.2, 0);
    assert_ne!(second.1, first.1);
    let again = init(&mut client, "x", Some((first.1, first.2)), 60_000).await;
    assert_eq!(again, second);
}

#[tokio::test(start_paused = true)]
async fn the_level_of_transaction_version_is_told_and_can_change() {
    let (cluster, mut client) = cluster(|b| b.transaction_version(1)).await;
    let mut levels = async || {
        let request = ApiVersionsRequest::default();
        let answer = client.call(3, &request).await.unwrap();
        let features = answer.finalized_features.iter();
        let levels = features.map(|f| (f.name.to_string(), f.max_version_level));
        (answer.finalized_features_epoch, levels.collect::<Vec<_>>())
    };
    let told = |level| vec![("transaction.version".to_owned(), level)];
    assert_eq!(levels().await, (0, told(1)));
    cluster.set_transaction_version(2);
    assert_eq!(levels().await, (1, told(2)));
    cluster.set_transaction_version(0);
    assert_eq!(levels().await, (2, vec![]), "level 0 is not finalized");
}

#[tokio::test(start_paused = true)]
async fn tools_see_the_transactions_of_the_node_that_they_ask() {
    let (cluster, mut client) = cluster(|b| b.nodes(2)).await;
    let find = FindCoordinatorRequest::default()
        .with_key_type(1)
        .with_coordinator_keys(vec![text("x")]);
    cluster.move_coordinator("x", 0).unwrap();
    let found = client.call(4, &find).await.unwrap();
    assert_eq!(found.coordinators[0].node_id.0, 0);
    let mut producer = Producer::new(&mut client, Speaks::V1).await;
    assert_eq!(producer.add(1).await, Code::NONE);
    let (me, epoch) = (ProducerId(producer.id), producer.epoch);

    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![
        id("x"),
        id("y"),
        id(""),
    ]);
    let answer = client.call(0, &request).await.unwrap();
    let described = &answer.transaction_states[0];
    assert_eq!(
        (described.producer_id, described.producer_epoch),
        (me, epoch)
    );
    assert_eq!(described.transaction_state.as_str(), "Ongoing");
    assert_eq!(described.transaction_timeout_ms, 60_000);
    let topic = &described.topics[0];
    assert_eq!(
        (&topic.topic, &topic.partitions[..]),
        (&name("t"), &[1][..])
    );
    let listed = async |client: &mut Client, state: &str| {
        let request = ListTransactionsRequest::default().with_state_filters(vec![text(state)]);
        client
            .call(1, &request)
            .await
            .unwrap()
            .transaction_states
            .len()
    };
    assert_eq!(listed(&mut client, "Ongoing").await, 1);
    assert_eq!(listed(&mut client, "Empty").await, 0);
    let mut elsewhere = Client::to(&cluster, 1).await;
    assert_eq!(listed(&mut elsewhere, "Ongoing").await, 0);
    let answer = elsewhere.call(0, &request).await.unwrap();
    let code = Code(answer.transaction_states[0].error_code);
    assert_eq!(code, Code::NOT_COORDINATOR);
}
