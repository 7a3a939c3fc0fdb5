//! Every version of every API is answered in its own form, and bad requests end the connection.

use crate::api::versions_of;
use crate::server::Connection;
use crate::testing::{Client, batch_bytes, fetch_request, name, produce_request, request_frame};
use crate::{ApiKey, Cluster, Code};
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::io::AsyncWriteExt;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// Sends a request in every version served, with and without an ordered error; every answer must
/// decode to its last byte, which the client checks.
async fn every_version<Q: Request>(make: impl Fn(i16) -> Q) {
    let api = ApiKey::try_from(Q::KEY).unwrap();
    let served = versions_of(api).unwrap();
    // The generated code does not know the oldest Produce versions; they have a test of their own.
    for version in (*served.start()).max(Q::VERSIONS.min)..=*served.end() {
        for code in [None, Some(Code::UNKNOWN_SERVER_ERROR)] {
            let builder = Cluster::builder().topic("t", 2).in_memory();
            let cluster = builder.start().await.unwrap();
            let mut client = Client::to(&cluster, 0).await;
            if let Some(code) = code {
                cluster.faults().on(api).error(code);
            }
            let answer = client.call(version, &make(version)).await;
            assert!(
                answer.is_some(),
                "{api:?} version {version}, ordered {code:?}"
            );
        }
        survives_changes(&request_frame(version, 1, &make(version))).await;
    }
}

/// How many times each request is sent with bytes changed.
const CHANGES: u64 = 30;

/// Sends a request with random bytes changed, cut out or added. It may be answered or end the
/// connection; a panic fails the test, because the connection is served on the test's own task.
async fn survives_changes(frame: &[u8]) {
    let builder = Cluster::builder().topic("t", 2).in_memory();
    let cluster = builder.start().await.unwrap();
    for seed in 0..CHANGES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = frame.to_vec();
        for _ in 0..random.usize(1..4) {
            // The first bytes say which API it is; that is left alone.
            let at = random.usize(4..bytes.len());
            match random.u8(..4) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, random.u8(..)),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
                _ => bytes[at] = random.u8(..),
            }
        }
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let connection = Connection::new(cluster.shared().clone(), 0, "/127.0.0.1".to_owned());
        let length = (bytes.len() as i32).to_be_bytes();
        theirs.write_all(&length).await.unwrap();
        theirs.write_all(&bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        connection.serve(ours).await;
    }
}

#[tokio::test(start_paused = true)]
async fn logs_are_served_in_every_version() {
    let batch = batch_bytes(&["a"], 0, None);
    every_version(|version| {
        let mut request = produce_request(-1, "t", 0, batch.clone());
        if version >= 13 {
            request.topic_data[0].name = TopicName::default();
        }
        request
    })
    .await;
    every_version(|version| {
        let mut request = fetch_request("t", 0, 0);
        if version >= 13 {
            request.topics[0].topic = TopicName::default();
        }
        request
    })
    .await;
    every_version(|_| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![
                partition,
                ListOffsetsPartition::default().with_partition_index(9),
            ]);
        ListOffsetsRequest::default().with_topics(vec![topic])
    })
    .await;
    every_version(|_| {
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name("t"))
            .with_partitions(vec![OffsetForLeaderPartition::default()]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    })
    .await;
    every_version(|_| InitProducerIdRequest::default().with_transactional_id(None)).await;
    every_version(|_| ApiVersionsRequest::default()).await;
}

#[tokio::test(start_paused = true)]
async fn transactions_are_served_in_every_version() {
    let id = || TransactionalId(text("x"));
    every_version(|_| {
        InitProducerIdRequest::default()
            .with_transactional_id(Some(id()))
            .with_transaction_timeout_ms(1000)
    })
    .await;
    every_version(|version| {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![0, 9]);
        let request = AddPartitionsToTxnRequest::default();
        if version >= 4 {
            let transaction = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id())
                .with_topics(vec![topic]);
            let verify = transaction.clone().with_verify_only(true);
            request.with_transactions(vec![transaction, verify])
        } else {
            request
                .with_v3_and_below_transactional_id(id())
                .with_v3_and_below_topics(vec![topic])
        }
    })
    .await;
    every_version(|_| {
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(id())
            .with_group_id(group("g"))
    })
    .await;
    every_version(|_| {
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(group("g"))
            .with_topics(vec![topic])
    })
    .await;
    every_version(|_| EndTxnRequest::default().with_transactional_id(id())).await;
    every_version(|_| DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]))
        .await;
    every_version(|_| ListTransactionsRequest::default().with_state_filters(vec![text("Empty")]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn topics_are_served_in_every_version() {
    for topic in ["t", "none", "a b"] {
        every_version(|_| {
            let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
            MetadataRequest::default().with_topics(Some(vec![topic]))
        })
        .await;
        every_version(|_| {
            let topic = CreatableTopic::default()
                .with_name(name(topic))
                .with_num_partitions(2)
                .with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic])
        })
        .await;
        every_version(|version| {
            let request = DeleteTopicsRequest::default();
            if version >= 6 {
                let by_name = DeleteTopicState::default().with_name(Some(name(topic)));
                let by_id = DeleteTopicState::default().with_name(None);
                request.with_topics(vec![by_name, by_id])
            } else {
                request.with_topic_names(vec![name(topic)])
            }
        })
        .await;
        every_version(|_| {
            let topic = CreatePartitionsTopic::default()
                .with_name(name(topic))
                .with_count(4)
                .with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![topic])
        })
        .await;
        every_version(|_| {
            let topic = DeleteRecordsTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![DeleteRecordsPartition::default()]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        })
        .await;
        every_version(|version| {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(topic))
                .with_configuration_keys(None);
            DescribeConfigsRequest::default()
                .with_resources(vec![resource])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3)
        })
        .await;
    }
    every_version(|_| MetadataRequest::default().with_topics(Some(vec![]))).await;
    every_version(|_| DescribeClusterRequest::default()).await;
}

#[tokio::test(start_paused = true)]
async fn groups_are_served_in_every_version() {
    every_version(|version| {
        let request = FindCoordinatorRequest::default();
        if version >= 4 {
            request.with_coordinator_keys(vec![text("g"), text("h")])
        } else {
            request.with_key(text("g"))
        }
    })
    .await;
    every_version(|_| {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        JoinGroupRequest::default()
            .with_group_id(group("g"))
            .with_session_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    })
    .await;
    every_version(|_| SyncGroupRequest::default().with_group_id(group("g"))).await;
    every_version(|_| HeartbeatRequest::default().with_group_id(group("g"))).await;
    every_version(|version| {
        let request = LeaveGroupRequest::default().with_group_id(group("g"));
        if version >= 3 {
            request.with_members(vec![MemberIdentity::default()])
        } else {
            request
        }
    })
    .await;
    every_version(|_| DescribeGroupsRequest::default().with_groups(vec![group("g")])).await;
    every_version(|_| DeleteGroupsRequest::default().with_groups_names(vec![group("g")])).await;
    every_version(|_| ListGroupsRequest::default()).await;
}

#[tokio::test(start_paused = true)]
async fn offsets_are_served_in_every_version() {
    every_version(|_| {
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![OffsetCommitRequestPartition::default()]);
        OffsetCommitRequest::default()
            .with_group_id(group("g"))
            .with_topics(vec![topic])
    })
    .await;
    every_version(|version| {
        let request = OffsetFetchRequest::default();
        if version >= 8 {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0, 9]);
            let asked = OffsetFetchRequestGroup::default()
                .with_group_id(group("g"))
                .with_topics(Some(vec![topic]));
            request.with_groups(vec![asked])
        } else {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0, 9]);
            request
                .with_group_id(group("g"))
                .with_topics(Some(vec![topic]))
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let cluster = Cluster::builder().in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    client
        .send_raw(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0])
        .await;
    let answer = client.receive_raw().await.unwrap();
    // Correlation 5, error 35, one row: key 18, versions 0 to 4.
    assert_eq!(
        answer[..],
        [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
    );
    let next = client
        .call(3, &ApiVersionsRequest::default())
        .await
        .unwrap();
    let produce = next.api_keys.iter().find(|row| row.api_key == 0).unwrap();
    assert_eq!(
        produce.min_version, 0,
        "or librdkafka leaves compression out"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_ends_the_connection() {
    let head = |api: i16, version: i16| {
        let mut frame = api.to_be_bytes().to_vec();
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0xff, 0xff]);
        frame
    };
    let mut cases = vec![
        (vec![], "an empty frame"),
        (vec![0, 3], "half a header"),
        (head(999, 0), "an unknown API"),
        (head(3, 99), "an unknown version"),
        (head(1, 4), "a body that is missing"),
    ];
    let mut huge = head(3, 1);
    huge.extend([0x7f, 0xff, 0xff, 0xff]);
    cases.push((huge, "a count that no frame can hold"));
    let mut huge = head(19, 5);
    huge.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    cases.push((huge, "a compact count that no frame can hold"));
    let mut huge = head(0, 3);
    huge.extend([0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    cases.push((huge, "a count of a request that is read by hand"));
    for (frame, what) in cases {
        let cluster = Cluster::builder().in_memory().start().await.unwrap();
        let mut client = Client::to(&cluster, 0).await;
        client.send_raw(&frame).await;
        assert_eq!(client.receive_raw().await, None, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_ends_the_connection() {
    let builder = Cluster::builder().topic("t", 1).request_bytes_max(2000);
    let cluster = builder.in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let small = batch_bytes(&[&"x".repeat(1000)], 0, None);
    assert_eq!(
        client.produce(-1, "t", 0, small).await.unwrap().error_code,
        0
    );
    let large = batch_bytes(&[&"x".repeat(2000)], 0, None);
    assert_eq!(client.produce(-1, "t", 0, large).await, None);
}
