//! Groups and offsets over the wire.

use crate::testing::{Client, name};
use crate::{Cluster, Code};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;
use tokio::time::Instant;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

async fn coordinated(nodes: u16) -> (Cluster, i32) {
    let builder = Cluster::builder().nodes(nodes).topic("t", 3).in_memory();
    let cluster = builder.start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    let response = client.call(4, &request).await.unwrap();
    let node = response.coordinators[0].node_id.0;
    (cluster, node)
}

fn join(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"m"));
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

async fn join_twice(client: &mut Client) -> JoinGroupResponse {
    let first = client.call(5, &join("")).await.unwrap();
    assert_eq!(Code(first.error_code), Code::MEMBER_ID_REQUIRED);
    client.call(5, &join(&first.member_id)).await.unwrap()
}

async fn heartbeat(client: &mut Client, member: &str, generation: i32) -> Code {
    let request = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_generation_id(generation);
    Code(client.call(4, &request).await.unwrap().error_code)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_falls_silent_makes_way_when_its_session_ends() {
    let (cluster, node) = coordinated(3).await;
    let mut first = Client::to(&cluster, node).await;
    let joined = join_twice(&mut first).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let sync = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(1)
        .with_member_id(joined.member_id.clone());
    assert_eq!(first.call(5, &sync).await.unwrap().error_code, 0);

    let begun = Instant::now();
    let mut second = Client::to(&cluster, node).await;
    let joined = join_twice(&mut second).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(cluster.member_count("g"), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_answers_and_another_takes_over() {
    let (cluster, node) = coordinated(2).await;
    let mut client = Client::to(&cluster, node).await;
    let joined = join_twice(&mut client).await;
    let mut other = Client::to(&cluster, 1 - node).await;
    let refused = heartbeat(&mut other, &joined.member_id, 1).await;
    assert_eq!(refused, Code::NOT_COORDINATOR);
    cluster.stop_node(node).await.unwrap();
    assert_eq!(
        heartbeat(&mut other, &joined.member_id, 1).await,
        Code::NONE
    );
}

#[tokio::test(start_paused = true)]
async fn session_timeouts_have_bounds() {
    let (cluster, node) = coordinated(1).await;
    let mut client = Client::to(&cluster, node).await;
    for millis in [5_999, 1_800_001, -1] {
        let request = join("").with_session_timeout_ms(millis);
        let response = client.call(5, &request).await.unwrap();
        assert_eq!(
            Code(response.error_code),
            Code::INVALID_SESSION_TIMEOUT,
            "{millis}"
        );
    }
    let nameless = join("").with_group_id(group(""));
    let response = client.call(5, &nameless).await.unwrap();
    assert_eq!(Code(response.error_code), Code::INVALID_GROUP_ID);
}

fn commit(offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_leader_epoch(4)
        .with_committed_metadata(Some(text(metadata)));
    let mut partitions = vec![partition.clone()];
    partitions.push(partition.with_partition_index(7));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(partitions);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

#[tokio::test(start_paused = true)]
async fn offsets_are_kept_for_partitions_that_exist() {
    let (cluster, node) = coordinated(1).await;
    let mut client = Client::to(&cluster, node).await;
    let codes = |response: kafka_protocol::messages::OffsetCommitResponse| {
        let partitions = response.topics[0].partitions.clone();
        partitions
            .iter()
            .map(|p| Code(p.error_code))
            .collect::<Vec<_>>()
    };
    let unknown = Code::UNKNOWN_TOPIC_OR_PARTITION;
    // Far beyond the end: Kafka takes any number.
    let response = client.call(8, &commit(1_000_000, "note")).await.unwrap();
    assert_eq!(codes(response), [Code::NONE, unknown]);
    assert_eq!(cluster.committed("g", "t", 0), Some(1_000_000));
    let response = client.call(8, &commit(5, &"x".repeat(4097))).await.unwrap();
    assert_eq!(codes(response), [Code::OFFSET_METADATA_TOO_LARGE, unknown]);
    cluster.delete_topic("t").unwrap();
    assert_eq!(cluster.committed("g", "t", 0), None);
    let nameless = commit(5, "").with_group_id(group(""));
    let response = client.call(8, &nameless).await.unwrap();
    assert_eq!(codes(response), [unknown, unknown], "an empty name is one");
}

#[tokio::test(start_paused = true)]
async fn offsets_of_many_groups_are_fetched_at_once() {
    let (cluster, node) = coordinated(1).await;
    let mut client = Client::to(&cluster, node).await;
    client.call(8, &commit(42, "note")).await.unwrap();
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0, 1]);
    let asked = |id: &str, topics| {
        OffsetFetchRequestGroup::default()
            .with_group_id(group(id))
            .with_topics(topics)
    };
    let groups = vec![
        asked("g", None),
        asked("g", Some(vec![topic.clone()])),
        asked("unknown", Some(vec![topic])),
        asked("unknown", None),
    ];
    let request = OffsetFetchRequest::default().with_groups(groups);
    let response = client.call(8, &request).await.unwrap();
    let offsets = |index: usize| -> Vec<(i32, i64)> {
        let topics = response.groups[index].topics.iter();
        topics
            .flat_map(|t| &t.partitions)
            .map(|p| (p.partition_index, p.committed_offset))
            .collect()
    };
    assert_eq!(offsets(0), [(0, 42)], "everything committed");
    assert_eq!(offsets(1), [(0, 42), (1, -1)]);
    assert_eq!(
        offsets(2),
        [(0, -1), (1, -1)],
        "an unknown group is no error"
    );
    assert_eq!(offsets(3), []);
    let kept = &response.groups[1].topics[0].partitions[0];
    assert_eq!(kept.committed_leader_epoch, 4);
    assert_eq!(kept.metadata.as_deref(), Some("note"));
    assert!(response.groups.iter().all(|g| g.error_code == 0));
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_by_their_coordinator_with_their_state() {
    let (cluster, node) = coordinated(2).await;
    let mut client = Client::to(&cluster, node).await;
    client.call(8, &commit(42, "")).await.unwrap();
    let listed = client
        .call(5, &ListGroupsRequest::default())
        .await
        .unwrap()
        .groups;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].group_id.as_str(), listed[0].group_state.as_str()),
        ("g", "Empty")
    );
    let stable = ListGroupsRequest::default().with_states_filter(vec![text("Stable")]);
    assert!(client.call(5, &stable).await.unwrap().groups.is_empty());
    let mut other = Client::to(&cluster, 1 - node).await;
    let listed = other
        .call(5, &ListGroupsRequest::default())
        .await
        .unwrap()
        .groups;
    assert!(listed.is_empty());
}
