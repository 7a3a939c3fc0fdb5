//! One answer of every API that a generated decoder reads.

use super::{ID, header_version};
use crate::ApiKey;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::Encodable;
use uuid::Uuid;

/// The bytes of an answer as they follow the correlation id.
fn bytes<R: Encodable>(api: ApiKey, version: i16, answer: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    if header_version(api, version) >= 1 {
        body.extend_from_slice(&[0]);
    }
    answer.encode(&mut body, version).unwrap();
    body.to_vec()
}

/// A topic id where the version has one.
fn id_from(wanted: i16, version: i16) -> Uuid {
    match version >= wanted {
        true => Uuid::from_bytes(ID.0),
        false => Uuid::nil(),
    }
}

/// Every answer that a generated decoder reads, with one element in each list.
pub(super) fn every_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    cluster_answer(api, version)
        .or_else(|| group_answer(api, version))
        .or_else(|| transaction_answer(api, version))
        .or_else(|| admin_answer(api, version))
        .or_else(|| group_admin_answer(api, version))
}

fn cluster_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    Some(match api {
        ApiKey::ApiVersions => bytes(api, version, &crate::testing::every_version()),
        ApiKey::Metadata => {
            use wire::metadata_response as of;
            let partition = of::MetadataResponsePartition::default()
                .with_replica_nodes(vec![1.into(), 2.into()])
                .with_isr_nodes(vec![1.into()]);
            let topic = of::MetadataResponseTopic::default()
                .with_name(Some(wire::TopicName("orders".into())))
                .with_topic_id(id_from(10, version))
                .with_partitions(vec![partition]);
            let broker = of::MetadataResponseBroker::default().with_host("h".into());
            bytes(
                api,
                version,
                &wire::MetadataResponse::default()
                    .with_brokers(vec![broker])
                    .with_topics(vec![topic]),
            )
        }
        ApiKey::ListOffsets => {
            use wire::list_offsets_response as of;
            let topic = of::ListOffsetsTopicResponse::default()
                .with_name(wire::TopicName("orders".into()))
                .with_partitions(vec![of::ListOffsetsPartitionResponse::default()]);
            bytes(
                api,
                version,
                &wire::ListOffsetsResponse::default().with_topics(vec![topic]),
            )
        }
        ApiKey::FindCoordinator if version <= 3 => {
            bytes(api, version, &wire::FindCoordinatorResponse::default())
        }
        ApiKey::FindCoordinator => {
            let one = wire::find_coordinator_response::Coordinator::default();
            bytes(
                api,
                version,
                &wire::FindCoordinatorResponse::default().with_coordinators(vec![one]),
            )
        }
        ApiKey::InitProducerId => bytes(api, version, &wire::InitProducerIdResponse::default()),
        _ => return None,
    })
}

fn group_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    Some(match api {
        ApiKey::OffsetCommit => {
            use wire::offset_commit_response as of;
            let topic = of::OffsetCommitResponseTopic::default()
                .with_topic_id(id_from(10, version))
                .with_partitions(vec![of::OffsetCommitResponsePartition::default()]);
            bytes(
                api,
                version,
                &wire::OffsetCommitResponse::default().with_topics(vec![topic]),
            )
        }
        ApiKey::OffsetFetch if version <= 7 => {
            use wire::offset_fetch_response as of;
            let partition = of::OffsetFetchResponsePartition::default();
            let topic = of::OffsetFetchResponseTopic::default().with_partitions(vec![partition]);
            bytes(
                api,
                version,
                &wire::OffsetFetchResponse::default().with_topics(vec![topic]),
            )
        }
        ApiKey::OffsetFetch => {
            use wire::offset_fetch_response as of;
            let partition = of::OffsetFetchResponsePartitions::default();
            let topic = of::OffsetFetchResponseTopics::default()
                .with_topic_id(id_from(10, version))
                .with_partitions(vec![partition]);
            let group = of::OffsetFetchResponseGroup::default().with_topics(vec![topic]);
            bytes(
                api,
                version,
                &wire::OffsetFetchResponse::default().with_groups(vec![group]),
            )
        }
        ApiKey::JoinGroup => {
            let member = wire::join_group_response::JoinGroupResponseMember::default()
                .with_metadata(Bytes::from_static(b"meta"));
            let answer = wire::JoinGroupResponse::default()
                .with_protocol_name(Some("range".into()))
                .with_members(vec![member]);
            bytes(api, version, &answer)
        }
        ApiKey::Heartbeat => bytes(api, version, &wire::HeartbeatResponse::default()),
        ApiKey::LeaveGroup => {
            let member = wire::leave_group_response::MemberResponse::default();
            let members = if version >= 3 {
                vec![member]
            } else {
                Vec::new()
            };
            bytes(
                api,
                version,
                &wire::LeaveGroupResponse::default().with_members(members),
            )
        }
        ApiKey::SyncGroup => bytes(
            api,
            version,
            &wire::SyncGroupResponse::default().with_assignment(Bytes::from_static(b"part")),
        ),
        _ => return None,
    })
}

fn transaction_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    Some(match api {
        ApiKey::AddPartitionsToTxn => {
            use wire::add_partitions_to_txn_response as of;
            let topic = of::AddPartitionsToTxnTopicResult::default()
                .with_results_by_partition(vec![of::AddPartitionsToTxnPartitionResult::default()]);
            let answer = wire::AddPartitionsToTxnResponse::default();
            bytes(
                api,
                version,
                &answer.with_results_by_topic_v3_and_below(vec![topic]),
            )
        }
        ApiKey::AddOffsetsToTxn => bytes(api, version, &wire::AddOffsetsToTxnResponse::default()),
        ApiKey::EndTxn => bytes(api, version, &wire::EndTxnResponse::default()),
        ApiKey::TxnOffsetCommit => {
            use wire::txn_offset_commit_response as of;
            let topic = of::TxnOffsetCommitResponseTopic::default()
                .with_partitions(vec![of::TxnOffsetCommitResponsePartition::default()]);
            bytes(
                api,
                version,
                &wire::TxnOffsetCommitResponse::default().with_topics(vec![topic]),
            )
        }
        _ => return None,
    })
}

fn admin_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    Some(match api {
        ApiKey::CreateTopics => {
            use wire::create_topics_response as of;
            let configs = (version >= 5).then(|| vec![of::CreatableTopicConfigs::default()]);
            let topic = of::CreatableTopicResult::default()
                .with_topic_id(id_from(7, version))
                .with_configs(configs.or(Some(Vec::new())))
                .with_topic_config_error_code(if version >= 5 { 29 } else { 0 });
            bytes(
                api,
                version,
                &wire::CreateTopicsResponse::default().with_topics(vec![topic]),
            )
        }
        ApiKey::DeleteTopics => {
            let topic = wire::delete_topics_response::DeletableTopicResult::default()
                .with_name(Some(wire::TopicName("orders".into())));
            bytes(
                api,
                version,
                &wire::DeleteTopicsResponse::default().with_responses(vec![topic]),
            )
        }
        ApiKey::DescribeConfigs => {
            use wire::describe_configs_response as of;
            let config = of::DescribeConfigsResourceResult::default()
                .with_synonyms(vec![of::DescribeConfigsSynonym::default()]);
            let result = of::DescribeConfigsResult::default().with_configs(vec![config]);
            bytes(
                api,
                version,
                &wire::DescribeConfigsResponse::default().with_results(vec![result]),
            )
        }
        ApiKey::CreatePartitions => {
            let topic = wire::create_partitions_response::CreatePartitionsTopicResult::default();
            bytes(
                api,
                version,
                &wire::CreatePartitionsResponse::default().with_results(vec![topic]),
            )
        }
        _ => return None,
    })
}

fn group_admin_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    Some(match api {
        ApiKey::DescribeGroups => {
            use wire::describe_groups_response as of;
            let group = of::DescribedGroup::default()
                .with_members(vec![of::DescribedGroupMember::default()]);
            bytes(
                api,
                version,
                &wire::DescribeGroupsResponse::default().with_groups(vec![group]),
            )
        }
        ApiKey::ListGroups => {
            let group = wire::list_groups_response::ListedGroup::default();
            bytes(
                api,
                version,
                &wire::ListGroupsResponse::default().with_groups(vec![group]),
            )
        }
        ApiKey::DeleteGroups => {
            let group = wire::delete_groups_response::DeletableGroupResult::default();
            bytes(
                api,
                version,
                &wire::DeleteGroupsResponse::default().with_results(vec![group]),
            )
        }
        ApiKey::ConsumerGroupDescribe => {
            use wire::consumer_group_describe_response as of;
            let topic = of::TopicPartitions::default().with_partitions(vec![1, 2]);
            let assignment = of::Assignment::default().with_topic_partitions(vec![topic]);
            let member = of::Member::default()
                .with_subscribed_topic_names(vec![wire::TopicName::default()])
                .with_assignment(assignment);
            let group = of::DescribedGroup::default().with_members(vec![member]);
            bytes(
                api,
                version,
                &wire::ConsumerGroupDescribeResponse::default().with_groups(vec![group]),
            )
        }
        ApiKey::ShareGroupDescribe => {
            use wire::share_group_describe_response as of;
            let topic = of::TopicPartitions::default().with_partitions(vec![1, 2]);
            let assignment = of::Assignment::default().with_topic_partitions(vec![topic]);
            let member = of::Member::default()
                .with_subscribed_topic_names(vec![wire::TopicName::default()])
                .with_assignment(assignment);
            let group = of::DescribedGroup::default().with_members(vec![member]);
            bytes(
                api,
                version,
                &wire::ShareGroupDescribeResponse::default().with_groups(vec![group]),
            )
        }
        ApiKey::DescribeShareGroupOffsets => {
            use wire::describe_share_group_offsets_response as of;
            let partition = of::DescribeShareGroupOffsetsResponsePartition::default();
            let topic = of::DescribeShareGroupOffsetsResponseTopic::default()
                .with_partitions(vec![partition]);
            let group =
                of::DescribeShareGroupOffsetsResponseGroup::default().with_topics(vec![topic]);
            bytes(
                api,
                version,
                &wire::DescribeShareGroupOffsetsResponse::default().with_groups(vec![group]),
            )
        }
        _ => return None,
    })
}
