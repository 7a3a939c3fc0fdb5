//! Ordered faults.

use crate::testing::{Client, batch_bytes, name, produce_request};
use crate::{ApiKey, Cluster, Code};
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use std::time::Duration;
use tokio::time::Instant;

async fn pair() -> (Cluster, Client) {
    let builder = Cluster::builder().nodes(2).replication(2).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    let client = Client::to(&cluster, cluster.leader("t", 0).unwrap()).await;
    (cluster, client)
}

#[tokio::test(start_paused = true)]
async fn an_error_is_answered_and_nothing_is_done() {
    let (cluster, mut client) = pair().await;
    let fault = cluster
        .faults()
        .on(ApiKey::Produce)
        .after(1)
        .error(Code::KAFKA_STORAGE_ERROR);
    let batch = batch_bytes(&["a"], 0, None);
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answer = client.produce(-1, "t", 0, batch.clone()).await.unwrap();
        codes.push(Code(answer.error_code));
    }
    assert_eq!(codes, [Code::NONE, Code::KAFKA_STORAGE_ERROR, Code::NONE]);
    assert_eq!((cluster.end_offset("t", 0), fault.fired()), (Some(2), 1));
    assert_eq!(cluster.requests(ApiKey::Produce), 3);
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_the_answer() {
    let (cluster, mut client) = pair().await;
    cluster
        .faults()
        .on(ApiKey::Produce)
        .delay(Duration::from_secs(4));
    let begun = Instant::now();
    client
        .produce(-1, "t", 0, batch_bytes(&["a"], 0, None))
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn disconnects_come_before_or_after_the_work() {
    let (cluster, mut client) = pair().await;
    let batch = batch_bytes(&["a"], 0, None);
    cluster
        .faults()
        .on(ApiKey::Produce)
        .disconnect_before_apply();
    assert_eq!(client.produce(-1, "t", 0, batch.clone()).await, None);
    assert_eq!(cluster.end_offset("t", 0), Some(0));
    let mut client = Client::to(&cluster, cluster.leader("t", 0).unwrap()).await;
    cluster
        .faults()
        .on(ApiKey::Produce)
        .apply_then_lose_answer();
    assert_eq!(client.produce(-1, "t", 0, batch).await, None);
    assert_eq!(cluster.end_offset("t", 0), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_appended_and_refused_or_appended_and_lost() {
    let (cluster, mut client) = pair().await;
    let leader = cluster.leader("t", 0).unwrap();
    let batch = batch_bytes(&["a"], 0, Some((7, 0, 0)));
    let not_leader = Code::NOT_LEADER_OR_FOLLOWER;
    cluster
        .faults()
        .on(ApiKey::Produce)
        .append_then_error(not_leader);
    let answer = client.produce(-1, "t", 0, batch.clone()).await.unwrap();
    assert_eq!(
        (Code(answer.error_code), cluster.end_offset("t", 0)),
        (not_leader, Some(1))
    );
    let retried = client.produce(-1, "t", 0, batch).await.unwrap();
    assert_eq!(
        (retried.error_code, retried.base_offset),
        (0, 0),
        "the retry is a duplicate"
    );

    cluster.faults().on(ApiKey::Produce).append_then_truncate();
    let batch = batch_bytes(&["b"], 0, Some((7, 0, 1)));
    let answer = client.produce(-1, "t", 0, batch.clone()).await.unwrap();
    assert_eq!(
        (Code(answer.error_code), cluster.end_offset("t", 0)),
        (not_leader, Some(1))
    );
    assert_eq!(cluster.leader("t", 0), Some(1 - leader));
    let mut client = Client::to(&cluster, 1 - leader).await;
    let retried = client.produce(-1, "t", 0, batch).await.unwrap();
    assert_eq!(
        (retried.error_code, retried.base_offset),
        (0, 1),
        "the retry is written"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_breaks_off_and_a_batch_is_corrupted_on_its_way() {
    let (cluster, mut client) = pair().await;
    let batch = batch_bytes(&["a"], 0, None);
    client.produce(-1, "t", 0, batch).await.unwrap();
    cluster.faults().on(ApiKey::Fetch).corrupt_records();
    let sum = |records: &[u8]| crc32c::crc32c(&records[21..]).to_be_bytes() == records[17..21];
    let records = client.fetch("t", 0, 0).await.unwrap().records.unwrap();
    assert!(!sum(&records));
    let records = client.fetch("t", 0, 0).await.unwrap().records.unwrap();
    assert!(sum(&records), "the log is whole");

    cluster.faults().on(ApiKey::Fetch).cut_answer(20);
    assert_eq!(client.fetch("t", 0, 0).await, None);
}

#[tokio::test(start_paused = true)]
async fn faults_of_other_apis_are_applied_and_refused_too() {
    let (cluster, mut client) = pair().await;
    let exists = Code::TOPIC_ALREADY_EXISTS;
    cluster
        .faults()
        .on(ApiKey::CreateTopics)
        .append_then_error(exists);
    let response = super::topics::create(&mut client, "new", 3).await;
    assert_eq!(response, exists);
    assert!(cluster.leader("new", 2).is_some());
    cluster
        .faults()
        .on(ApiKey::CreateTopics)
        .always()
        .error(Code::NOT_CONTROLLER);
    assert_eq!(
        super::topics::create(&mut client, "newer", 3).await,
        Code::NOT_CONTROLLER
    );
    cluster.faults().clear();
    assert_eq!(
        super::topics::create(&mut client, "newer", 3).await,
        Code::NONE
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_can_be_for_one_node() {
    let (cluster, mut client) = pair().await;
    let leader = cluster.leader("t", 0).unwrap();
    let other = cluster.faults().on(ApiKey::Produce).node(1 - leader);
    other.disconnect_before_apply();
    let request = produce_request(-1, "t", 0, batch_bytes(&["a"], 0, None));
    assert!(client.call(9, &request).await.is_some());
    let mut client = Client::to(&cluster, 1 - leader).await;
    assert!(client.call(9, &request).await.is_none());
    assert_eq!(cluster.requests_at(1 - leader, ApiKey::Produce), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fault_can_be_for_one_partition_of_a_request() {
    let builder = Cluster::builder().topic("t", 2).in_memory();
    let cluster = builder.start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let mut request = produce_request(-1, "t", 0, batch_bytes(&["a"], 0, None));
    let second = PartitionProduceData::default()
        .with_index(1)
        .with_records(Some(batch_bytes(&["b"], 0, None)));
    request.topic_data[0].partition_data.push(second);
    let only = cluster.faults().on(ApiKey::Produce).partition(1);
    only.error(Code::KAFKA_STORAGE_ERROR);
    let response = client.call(9, &request).await.unwrap();
    let parts = &response.responses[0].partition_responses;
    let codes: Vec<Code> = parts.iter().map(|part| Code(part.error_code)).collect();
    assert_eq!(codes, [Code::NONE, Code::KAFKA_STORAGE_ERROR]);
    let ends = [cluster.end_offset("t", 0), cluster.end_offset("t", 1)];
    assert_eq!(ends, [Some(1), Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_connection_is_answered_and_then_left_unread() {
    let (cluster, mut client) = pair().await;
    let second = Duration::from_secs(1);
    cluster.faults().on(ApiKey::Produce).throttle(second);
    let request = produce_request(-1, "t", 0, batch_bytes(&["a"], 0, None));
    let begun = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let response = client.call(9, &request).await.unwrap();
        answers.push((response.throttle_time_ms, begun.elapsed()));
    }
    assert_eq!(answers, [(1000, Duration::ZERO), (0, second)]);
}

#[tokio::test(start_paused = true)]
async fn frozen_metadata_names_the_old_leader_until_it_thaws() {
    let (cluster, mut client) = pair().await;
    let old = cluster.leader("t", 0).unwrap();
    cluster.freeze_metadata();
    cluster.move_leader("t", 0, 1 - old).unwrap();
    let topic = MetadataRequestTopic::default().with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let mut named = Vec::new();
    for _ in 0..2 {
        let response = client.call(12, &request).await.unwrap();
        let partition = &response.topics[0].partitions[0];
        named.push((partition.leader_id.0, partition.leader_epoch));
        cluster.thaw_metadata();
    }
    assert_eq!(named, [(old, 0), (1 - old, 1)]);
}
