//! Every adapter against a real cluster, whose addresses `OTTLA_KAFKA` names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end")]

use bytes::{Bytes, BytesMut};
use ottla_proto::batch::Segments;
use ottla_proto::cluster::Topic;
use ottla_proto::producer::{Identity, ProduceAnswer};
use ottla_proto::{Code, ErrorKind};
use ottla_wire::api::offset_commit::{Member, PartitionCommit};
use ottla_wire::api::{
    create_partitions, create_topics, delete_topics, describe_configs, describe_groups, fetch,
    heartbeat, init_producer_id, join_group, leave_group, list_groups, list_offsets, offset_commit,
    offset_fetch, produce, sync_group,
};
use ottla_wire::{ApiKey, Class, Cluster, Connection, CoordinatorKind, Settings, Tcp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(30);

/// One record with the value "123", as a 0.11 broker wrote it.
const BATCH: &[u8] = &[
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3b, 0, 0, 0, 1, 2, 0x03, 0x18, 0xa2, 0x70, 0, 0, 0, 0, 0, 0,
    0, 0, 1, 0x5d, 0xff, 0x7b, 0x06, 0x3c, 0, 0, 1, 0x5d, 0xff, 0x7b, 0x06, 0x3c, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x12, 0, 0, 0, 1,
    6, b'1', b'2', b'3', 0,
];
const BATCH_TIME: i64 = 1_503_229_838_908;

async fn connect() -> Cluster {
    let mut settings = Settings::default();
    let addresses = std::env::var("OTTLA_KAFKA").unwrap();
    settings.set("bootstrap.servers", &addresses).unwrap();
    Cluster::connect(settings, Arc::new(Tcp::default()))
        .await
        .unwrap()
}

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

fn fresh_name() -> Arc<str> {
    format!("wire-{:x}", fastrand::u32(..)).into()
}

async fn make_topic(cluster: &Cluster, name: &Arc<str>) -> Arc<Topic> {
    let connection = cluster.any_connection(Class::Control).await.unwrap();
    let topic = create_topics::NewTopic {
        name: Arc::clone(name),
        partitions: Some(2),
        replication: None,
        assignments: Vec::new(),
        configs: vec![("retention.ms".into(), Some("-1".into()))],
    };
    let request = create_topics::Request {
        topics: vec![topic],
        validate_only: false,
    };
    let answer = create_topics::call(&connection, &request).await.unwrap();
    let made = answer.topics[0].1.as_ref().unwrap();
    assert_eq!((made.partitions, made.id.is_some()), (Some(2), true));
    let again = create_topics::call(&connection, &request).await.unwrap();
    let error = again.topics[0].1.as_ref().unwrap_err();
    assert_eq!(error.code, Code::TOPIC_ALREADY_EXISTS);
    loop {
        let topic = cluster.topic(name, deadline()).await.unwrap();
        if topic.available.len() == 2 {
            assert_eq!(topic.id, made.id);
            return topic;
        }
        cluster.refresh().await.unwrap();
    }
}

async fn leader(cluster: &Cluster, topic: &Topic, class: Class) -> Connection {
    let leader = topic.partitions[0].leader.unwrap();
    cluster.connection(leader, class).await.unwrap()
}

fn versions(connection: &Connection, api: ApiKey, from: i16, to: i16) -> Vec<i16> {
    let theirs = connection.versions().range(api).unwrap();
    (from..=to)
        .filter(|version| theirs.contains(version))
        .collect()
}

async fn produce_once(connection: &Connection, topic: &Topic, version: i16) -> ProduceAnswer {
    let batch = produce::PartitionBatch {
        topic: &topic.name,
        topic_id: topic.id,
        partition: 0,
        header: BATCH.first_chunk().unwrap(),
        segments: &Segments::from(Bytes::from_static(&BATCH[61..])),
    };
    let head = produce::Head {
        acks: -1,
        timeout: TIMEOUT,
        transactional_id: None,
    };
    let (batches, mut room) = (std::iter::once(batch), BytesMut::new());
    let frame =
        produce::encode(version, connection.client_id(), &head, batches, &mut room).unwrap();
    let answer = connection.submit(frame, TIMEOUT).await.unwrap();
    produce::decode(version, answer).unwrap()
}

#[tokio::test]
#[ignore = "needs kafka"]
async fn records_go_in_and_come_out_in_every_version() {
    let cluster = connect().await;
    let name = fresh_name();
    let topic = make_topic(&cluster, &name).await;
    let connection = leader(&cluster, &topic, Class::Produce(0)).await;
    let tried = versions(&connection, ApiKey::Produce, 3, 13);
    assert!(tried.len() >= 9, "{tried:?}");
    for (nth, version) in (0..).zip(&tried) {
        let answer = produce_once(&connection, &topic, *version).await;
        let [partition] = &answer.partitions[..] else {
            panic!("{answer:?}")
        };
        assert!(partition.topic.is(&name, topic.id), "{answer:?}");
        assert_eq!(
            (partition.code, partition.base_offset),
            (Code::NONE, Some(nth))
        );
    }
    let end = tried.len() as i64;
    let connection = leader(&cluster, &topic, Class::Fetch(0)).await;
    for version in versions(&connection, ApiKey::Fetch, 4, 17) {
        let request = fetch_request(&topic);
        let frame = fetch::frame(version, connection.client_id(), &request).unwrap();
        let answer = connection.submit(frame, TIMEOUT).await.unwrap();
        let answer = fetch::decode(version, answer, &request).unwrap();
        assert_eq!(answer.error, None);
        assert_eq!(answer.topics[0].topic.as_ref(), Some(&name));
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(
            (partition.code, partition.high_watermark),
            (Code::NONE, Some(end))
        );
        assert_eq!(partition.records.len(), tried.len() * BATCH.len());
        assert_eq!(partition.records[61..71], BATCH[61..]);
    }
    offsets(&cluster, &topic, end).await;
    drop_topic(&cluster, &name).await;
    cluster.close().await;
}

fn fetch_request(topic: &Topic) -> fetch::Request {
    let partition = fetch::PartitionRequest {
        partition: 0,
        leader_epoch: topic.partitions[0].leader_epoch,
        offset: 0,
        last_fetched_epoch: None,
        max_bytes: 1 << 20,
    };
    fetch::Request {
        max_wait: Duration::from_millis(500),
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![fetch::TopicRequest {
            topic: Arc::clone(&topic.name),
            topic_id: topic.id,
            partitions: vec![partition],
        }],
        ..fetch::Request::default()
    }
}

async fn offsets(cluster: &Cluster, topic: &Topic, end: i64) {
    use list_offsets::Timestamp::{At, Earliest, Latest, MaxTimestamp};
    let connection = leader(cluster, topic, Class::Control).await;
    let ask = async |timestamp| {
        let partition = list_offsets::PartitionRequest {
            partition: 0,
            leader_epoch: topic.partitions[0].leader_epoch,
            timestamp,
        };
        let request = list_offsets::Request {
            isolation: list_offsets::Isolation::ReadCommitted,
            topics: vec![(Arc::clone(&topic.name), vec![partition])],
        };
        let answer = list_offsets::call(&connection, &request).await.unwrap();
        let answer = answer.topics[0].1[0];
        assert_eq!(answer.code, Code::NONE);
        (answer.offset, answer.timestamp)
    };
    assert_eq!(ask(Earliest).await, (Some(0), None));
    assert_eq!(ask(Latest).await, (Some(end), None));
    assert_eq!(ask(At(BATCH_TIME)).await, (Some(0), Some(BATCH_TIME)));
    assert_eq!(ask(At(BATCH_TIME + 1)).await, (None, None));
    assert_eq!(ask(MaxTimestamp).await, (Some(0), Some(BATCH_TIME)));
}

async fn drop_topic(cluster: &Cluster, name: &Arc<str>) {
    let connection = cluster.any_connection(Class::Control).await.unwrap();
    let grow = create_partitions::Request {
        topics: vec![(Arc::clone(name), 4)],
        validate_only: false,
    };
    let answer = create_partitions::call(&connection, &grow).await.unwrap();
    assert_eq!(answer.topics, [(Arc::clone(name), Ok(()))]);
    let configs = describe_configs::Request {
        resources: vec![(describe_configs::Resource::Topic(Arc::clone(name)), None)],
    };
    let answer = describe_configs::call(&connection, &configs).await.unwrap();
    let configs = answer.resources[0].1.as_ref().unwrap();
    let retention = configs
        .iter()
        .find(|config| &*config.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (retention.value.as_deref(), retention.is_default),
        (Some("-1"), false)
    );
    let request = delete_topics::Request {
        topics: vec![Arc::clone(name)],
    };
    let answer = delete_topics::call(&connection, &request).await.unwrap();
    assert_eq!(answer.topics, [(Arc::clone(name), Ok(()))]);
}

#[tokio::test]
#[ignore = "needs kafka"]
async fn a_group_forms_commits_and_ends() {
    let cluster = connect().await;
    let name = fresh_name();
    let topic = make_topic(&cluster, &name).await;
    let group: Arc<str> = fresh_name();
    let kind = CoordinatorKind::Group;
    let coordinator = cluster.coordinator(kind, &group, deadline()).await.unwrap();
    let connection = cluster
        .connection(coordinator, Class::Group(0))
        .await
        .unwrap();
    let (member_id, generation) = join(&connection, &group).await;
    let beat = heartbeat::Request {
        group: Arc::clone(&group),
        generation,
        member_id: Arc::clone(&member_id),
        instance_id: None,
    };
    assert_eq!(
        heartbeat::call(&connection, &beat).await.unwrap().code,
        Code::NONE
    );
    let member = Member {
        group: Arc::clone(&group),
        generation: Some(generation),
        member_id: Arc::clone(&member_id),
        instance_id: None,
    };
    commits(&connection, &topic, member).await;
    describe(&connection, &group, &member_id).await;
    let leaving = leave_group::Leaving {
        member_id,
        ..leave_group::Leaving::default()
    };
    let leave = leave_group::Request {
        group: Arc::clone(&group),
        members: vec![leaving],
    };
    let left = leave_group::call(&connection, &leave).await.unwrap();
    assert_eq!((left.code, left.members[0].code), (Code::NONE, Code::NONE));
    drop_topic(&cluster, &name).await;
    cluster.close().await;
}

/// Joins and syncs as the only member.
async fn join(connection: &Connection, group: &Arc<str>) -> (Arc<str>, i32) {
    let mut request = join_group::Request {
        group: Arc::clone(group),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(10),
        protocol_type: "consumer".into(),
        protocols: vec![(
            "range".into(),
            Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        )],
        reason: Some("a test".into()),
        ..join_group::Request::default()
    };
    let first = join_group::call(connection, &request).await.unwrap();
    assert_eq!(first.code, Code::MEMBER_ID_REQUIRED);
    request.member_id = first.member_id;
    let joined = join_group::call(connection, &request).await.unwrap();
    assert_eq!(
        (joined.code, &joined.leader),
        (Code::NONE, &request.member_id)
    );
    assert_eq!(
        (joined.protocol_name.as_deref(), joined.members.len()),
        (Some("range"), 1)
    );
    let part = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sync = sync_group::Request {
        group: Arc::clone(group),
        generation: joined.generation,
        member_id: Arc::clone(&request.member_id),
        instance_id: None,
        protocol_type: joined.protocol_type,
        protocol_name: joined.protocol_name,
        assignments: vec![(Arc::clone(&request.member_id), part.clone())],
        rebalance_timeout: Duration::from_secs(10),
    };
    let synced = sync_group::call(connection, &sync).await.unwrap();
    assert_eq!((synced.code, synced.assignment), (Code::NONE, part));
    (request.member_id, joined.generation)
}

async fn commits(connection: &Connection, topic: &Topic, member: Member) {
    let group = Arc::clone(&member.group);
    let commit = PartitionCommit {
        partition: 1,
        offset: 42,
        leader_epoch: Some(0),
        metadata: Some("note".into()),
    };
    let topics = vec![(Arc::clone(&topic.name), vec![commit])];
    let request = offset_commit::Request { member, topics };
    let answer = offset_commit::call(connection, &request).await.unwrap();
    assert_eq!(answer.topics[0].1, [(1, Code::NONE)]);
    let named = Some(vec![(Arc::clone(&topic.name), vec![0, 1])]);
    let asked = |group: &Arc<str>, topics| offset_fetch::GroupRequest {
        group: Arc::clone(group),
        topics,
    };
    let request = offset_fetch::Request {
        groups: vec![
            asked(&group, named),
            asked(&"wire-no-such-group".into(), None),
        ],
        require_stable: true,
    };
    let answer = offset_fetch::call(connection, &request).await.unwrap();
    let of = |group: &str| {
        answer
            .groups
            .iter()
            .find(|found| &*found.group == group)
            .unwrap()
    };
    let found: Vec<_> = of(&group).topics[0]
        .1
        .iter()
        .map(|p| (p.partition, p.committed))
        .collect();
    assert_eq!(found, [(0, None), (1, Some(42))]);
    let note = of(&group).topics[0].1[1].metadata.as_deref();
    assert_eq!(note, Some("note"));
    assert!(of("wire-no-such-group").topics.is_empty());
}

async fn describe(connection: &Connection, group: &Arc<str>, member_id: &Arc<str>) {
    let request = describe_groups::Request {
        groups: vec![Arc::clone(group)],
    };
    let answer = describe_groups::call(connection, &request).await.unwrap();
    let described = answer.groups[0].1.as_ref().unwrap();
    assert_eq!(
        (&*described.state, &*described.protocol),
        ("Stable", "range")
    );
    assert_eq!(described.members[0].member_id, *member_id);
    let request = list_groups::Request {
        states: vec!["Stable".into()],
        types: Vec::new(),
    };
    let listed = list_groups::call(connection, &request).await.unwrap();
    assert_eq!(listed.code, Code::NONE);
    assert!(listed.groups.iter().any(|listed| listed.group == *group));
}

async fn identity(connection: &Connection) -> Identity {
    loop {
        let request = init_producer_id::Request::default();
        match init_producer_id::call(connection, &request).await {
            Ok(answer) => return answer.identity,
            // A broker that never gave an identity begins by getting a block of them.
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs kafka"]
async fn identities_differ_and_unknown_topics_are_named() {
    let cluster = connect().await;
    assert!(cluster.view().cluster_id.is_some());
    assert!(cluster.view().controller.is_some());
    let connection = cluster.any_connection(Class::Control).await.unwrap();
    let one = identity(&connection).await;
    let other = identity(&connection).await;
    assert_ne!(one.producer_id, other.producer_id);
    assert!(
        connection
            .versions()
            .feature_level("metadata.version")
            .is_some()
    );
    let soon = Instant::now() + Duration::from_secs(1);
    let error = cluster.topic("not/a/name", soon).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::INVALID_TOPIC_EXCEPTION));
    let settings = Settings {
        allow_auto_create_topics: false,
        ..cluster.settings().clone()
    };
    let careful = Cluster::connect(settings, Arc::new(Tcp::default()))
        .await
        .unwrap();
    let name = fresh_name();
    let error = careful
        .topic(&name, Instant::now() + Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(
        !careful
            .all_topics()
            .await
            .unwrap()
            .topics
            .contains_key(&name)
    );
}
