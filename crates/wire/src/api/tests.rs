//! The adapters against kafka-protocol's own encoders and decoders, in every version.

use super::*;
use crate::api::produce::{Head, PartitionBatch, TopicBatches};
use crate::testing::answer_bytes;
use bytes::BytesMut;
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::buf::ByteBuf;
use ottla_proto::producer::{AnsweredTopic, LeaderHint};
use proptest::prelude::*;
use uuid::Uuid;
use wire::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use wire::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};

const ID: TopicId = TopicId([7; 16]);

fn batches() -> Vec<TopicBatches> {
    let partition = |partition, segments: &[&'static [u8]]| PartitionBatch {
        partition,
        segments: segments
            .iter()
            .map(|bytes| Bytes::from_static(bytes))
            .collect(),
    };
    static LARGE: [u8; 5000] = [3; 5000];
    vec![
        TopicBatches {
            topic: "orders".into(),
            topic_id: Some(ID),
            // In pieces, in one large piece, null, and empty (bug class 30: a null or empty batch
            // must not shift what follows).
            partitions: vec![
                partition(0, &[b"head", &LARGE, b"tail"]),
                partition(1, &[&LARGE]),
                partition(2, &[]),
                partition(3, &[b""]),
                partition(4, &[b"x"]),
            ],
        },
        TopicBatches {
            topic: "nothing".into(),
            topic_id: Some(TopicId([9; 16])),
            partitions: Vec::new(),
        },
    ]
}

#[test]
fn a_produce_request_reads_back_in_every_version() {
    for transactional_id in [None, Some("tx")] {
        for version in produce::VERSIONS {
            let head = Head {
                acks: -1,
                timeout: Duration::from_secs(30),
                transactional_id: transactional_id.map(Into::into),
            };
            let frame = produce::encode(version, "me", &head, &batches()).unwrap();
            let whole = frame.to_bytes();
            let mut body = Bytes::from(whole).split_off(4);
            let header_version = wire::ProduceRequest::header_version(version);
            let header = wire::RequestHeader::decode(&mut body, header_version).unwrap();
            assert_eq!(
                (header.request_api_key, header.request_api_version),
                (0, version)
            );
            assert_eq!(header.client_id.as_deref(), Some("me"));
            let read = wire::ProduceRequest::decode(&mut body, version).unwrap();
            assert!(
                body.is_empty(),
                "version {version} left {} bytes",
                body.len()
            );
            assert_eq!(
                read.transactional_id.as_deref().map(|id| &**id),
                transactional_id
            );
            assert_eq!((read.acks, read.timeout_ms), (-1, 30_000));
            same_batches(version, &read.topic_data);
        }
    }
}

fn same_batches(version: i16, read: &[wire::produce_request::TopicProduceData]) {
    let wanted = batches();
    assert_eq!(read.len(), wanted.len());
    for (read, wanted) in read.iter().zip(&wanted) {
        match version {
            13.. => assert_eq!(Some(TopicId(*read.topic_id.as_bytes())), wanted.topic_id),
            _ => assert_eq!(**read.name, *wanted.topic),
        }
        assert_eq!(read.partition_data.len(), wanted.partitions.len());
        for (read, wanted) in read.partition_data.iter().zip(&wanted.partitions) {
            assert_eq!(read.index, wanted.partition);
            let records = (!wanted.segments.is_empty()).then(|| wanted.segments.concat());
            assert_eq!(read.records.as_deref(), records.as_deref());
        }
    }
}

#[test]
fn a_produce_request_by_id_needs_the_id() {
    let mut topics = batches();
    topics[1].topic_id = None;
    let head = Head {
        acks: 1,
        timeout: Duration::ZERO,
        transactional_id: None,
    };
    let error = produce::encode(13, "me", &head, &topics).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    produce::encode(12, "me", &head, &topics).unwrap();
}

fn produce_answer(version: i16) -> wire::ProduceResponse {
    let mut partition = PartitionProduceResponse::default()
        .with_index(3)
        .with_error_code(Code::NOT_LEADER_OR_FOLLOWER.0)
        .with_base_offset(-1)
        .with_log_append_time_ms(1_700_000_000_000);
    if version >= 5 {
        partition = partition.with_log_start_offset(5);
    }
    if version >= 8 {
        let wrong = BatchIndexAndErrorMessage::default()
            .with_batch_index(2)
            .with_batch_index_error_message(Some("bad".into()));
        partition = partition
            .with_record_errors(vec![wrong, BatchIndexAndErrorMessage::default()])
            .with_error_message(Some("told".into()));
    }
    if version >= 10 {
        let leader = LeaderIdAndEpoch::default()
            .with_leader_id(2.into())
            .with_leader_epoch(8);
        partition = partition.with_current_leader(leader);
    }
    let fine = PartitionProduceResponse::default()
        .with_index(4)
        .with_base_offset(77);
    let topic = TopicProduceResponse::default().with_partition_responses(vec![partition, fine]);
    let topic = match version {
        13.. => topic.with_topic_id(Uuid::from_bytes(ID.0)),
        _ => topic.with_name(wire::TopicName("orders".into())),
    };
    let mut answer = wire::ProduceResponse::default()
        .with_responses(vec![topic])
        .with_throttle_time_ms(250);
    if version >= 10 {
        let endpoint = NodeEndpoint::default()
            .with_node_id(2.into())
            .with_host("new".into())
            .with_port(9093);
        answer = answer.with_node_endpoints(vec![endpoint]);
    }
    answer
}

#[test]
fn a_produce_answer_reads_as_written_in_every_version() {
    for version in produce::VERSIONS {
        let bytes = answer_bytes(version, &produce_answer(version));
        let (read, endpoints) = produce::decode_with_endpoints(version, bytes.into()).unwrap();
        assert_eq!(read.throttle, Duration::from_millis(250));
        let [moved, fine] = &read.partitions[..] else {
            panic!("{read:?}")
        };
        let topic = match version {
            13.. => AnsweredTopic::Id(ID),
            _ => AnsweredTopic::Name("orders".into()),
        };
        assert_eq!((&moved.topic, moved.partition), (&topic, 3));
        assert_eq!(moved.code, Code::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(moved.base_offset, None, "-1 is no offset");
        assert_eq!(moved.log_append_time, Some(1_700_000_000_000));
        assert_eq!(moved.log_start, (version >= 5).then_some(5));
        let wrong: Vec<_> = moved
            .record_errors
            .iter()
            .map(|e| (e.index, e.message.as_deref()))
            .collect();
        let told = [(2, Some("bad")), (0, None)];
        assert_eq!(wrong, if version >= 8 { &told[..] } else { &[] });
        assert_eq!(moved.message.as_deref(), (version >= 8).then_some("told"));
        let hint = LeaderHint {
            leader: BrokerId(2),
            leader_epoch: 8,
        };
        assert_eq!(moved.leader_hint, (version >= 10).then_some(hint));
        assert_eq!((fine.partition, fine.base_offset), (4, Some(77)));
        assert_eq!((fine.code, fine.leader_hint), (Code::NONE, None));
        let named: Vec<_> = endpoints.iter().map(|b| (b.id, &*b.host, b.port)).collect();
        assert_eq!(
            named,
            if version >= 10 {
                &[(BrokerId(2), "new", 9093)][..]
            } else {
                &[]
            }
        );
    }
}

fn fetch_request() -> fetch::Request {
    fetch::Request {
        max_wait: Duration::from_millis(500),
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation: list_offsets::Isolation::ReadCommitted,
        session: fetch::Session { id: 5, epoch: 6 },
        topics: vec![fetch::TopicRequest {
            topic: "orders".into(),
            topic_id: Some(ID),
            partitions: vec![fetch::PartitionRequest {
                partition: 3,
                leader_epoch: Some(4),
                offset: 100,
                last_fetched_epoch: None,
                max_bytes: 1000,
            }],
        }],
        forgotten: vec![fetch::Forgotten {
            topic: "gone".into(),
            topic_id: Some(TopicId([8; 16])),
            partitions: vec![1],
        }],
        rack: Some("r1".into()),
    }
}

#[test]
fn a_fetch_request_is_written_in_every_version() {
    for version in 4..=17 {
        let frame = fetch::frame(version, "me", &fetch_request()).unwrap();
        let mut body = Bytes::from(frame.to_bytes()).split_off(4);
        let header_version = wire::FetchRequest::header_version(version);
        wire::RequestHeader::decode(&mut body, header_version).unwrap();
        let read = wire::FetchRequest::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
        assert_eq!(
            (read.max_wait_ms, read.min_bytes, read.max_bytes),
            (500, 1, 1 << 20)
        );
        assert_eq!(read.isolation_level, 1);
        assert_eq!(read.replica_id.0, -1, "a consumer, not a replica");
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition, partition.fetch_offset), (3, 100));
        if version >= 7 {
            assert_eq!((read.session_id, read.session_epoch), (5, 6));
            assert_eq!(read.forgotten_topics_data[0].partitions, [1]);
        }
        match version {
            13.. => assert_eq!(read.topics[0].topic_id, Uuid::from_bytes(ID.0)),
            _ => assert_eq!(&**read.topics[0].topic, "orders"),
        }
    }
}

fn fetch_answer(version: i16, records: Bytes) -> wire::FetchResponse {
    let aborted = AbortedTransaction::default()
        .with_producer_id(9.into())
        .with_first_offset(90);
    let mut partition = PartitionData::default()
        .with_partition_index(3)
        .with_high_watermark(200)
        .with_last_stable_offset(190)
        .with_aborted_transactions(Some(vec![aborted]))
        .with_records(Some(records));
    if version >= 5 {
        partition = partition.with_log_start_offset(10);
    }
    if version >= 11 {
        partition = partition.with_preferred_read_replica(4.into());
    }
    if version >= 12 {
        let diverging = EpochEndOffset::default().with_epoch(2).with_end_offset(50);
        let leader = wire::fetch_response::LeaderIdAndEpoch::default()
            .with_leader_id(2.into())
            .with_leader_epoch(8);
        partition = partition
            .with_diverging_epoch(diverging)
            .with_current_leader(leader);
    }
    let refused = PartitionData::default()
        .with_partition_index(4)
        .with_error_code(Code::OFFSET_OUT_OF_RANGE.0)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_aborted_transactions(None)
        .with_records(None);
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition, refused]);
    let topic = match version {
        13.. => topic.with_topic_id(Uuid::from_bytes(ID.0)),
        _ => topic.with_topic(wire::TopicName("orders".into())),
    };
    let answer = wire::FetchResponse::default()
        .with_throttle_time_ms(7)
        .with_responses(vec![topic]);
    match version {
        7.. => answer.with_session_id(55),
        _ => answer,
    }
}

#[test]
fn a_fetch_answer_reads_as_written_in_every_version() {
    for version in 4..=17 {
        let records = Bytes::from_static(b"not really a batch");
        let bytes = Bytes::from(answer_bytes(
            version,
            &fetch_answer(version, records.clone()),
        ));
        let read = fetch::decode(version, bytes.clone(), &fetch_request()).unwrap();
        assert_eq!(read.throttle, Duration::from_millis(7));
        assert_eq!(
            (read.error, read.session_id),
            (None, if version >= 7 { 55 } else { 0 })
        );
        let topic = &read.topics[0];
        assert_eq!(
            topic.topic.as_deref(),
            Some("orders"),
            "by name or by the request's id"
        );
        let [fine, refused] = &topic.partitions[..] else {
            panic!("{topic:?}")
        };
        assert_eq!(fine.records, records);
        assert!(
            bytes.as_ptr_range().contains(&fine.records.as_ptr()),
            "a slice, not a copy"
        );
        assert_eq!(
            (fine.high_watermark, fine.last_stable),
            (Some(200), Some(190))
        );
        assert_eq!(fine.log_start, (version >= 5).then_some(10));
        assert_eq!(
            fine.aborted,
            [fetch::Aborted {
                producer_id: 9,
                first_offset: 90
            }]
        );
        assert_eq!(
            fine.preferred_read_replica,
            (version >= 11).then_some(BrokerId(4))
        );
        let diverging = fetch::Diverging {
            epoch: 2,
            end_offset: 50,
        };
        assert_eq!(fine.diverging, (version >= 12).then_some(diverging));
        let hint = LeaderHint {
            leader: BrokerId(2),
            leader_epoch: 8,
        };
        assert_eq!(fine.leader_hint, (version >= 12).then_some(hint));
        assert_eq!(refused.code, Code::OFFSET_OUT_OF_RANGE);
        assert_eq!((refused.high_watermark, refused.records.len()), (None, 0));
    }
}

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
fn every_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
    cluster_answer(api, version)
        .or_else(|| group_answer(api, version))
        .or_else(|| admin_answer(api, version))
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

fn admin_answer(api: ApiKey, version: i16) -> Option<Vec<u8>> {
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

fn header_version(api: ApiKey, version: i16) -> i16 {
    wire::ApiKey::try_from(api.number())
        .unwrap()
        .response_header_version(version)
}

fn every_version() -> impl Iterator<Item = (ApiKey, i16, Vec<u8>)> {
    let versions = |api: &ApiKey| {
        schema::of(*api).versions.clone().map({
            let api = *api;
            move |version| (api, version)
        })
    };
    let all = ApiKey::ALL.iter().flat_map(versions);
    all.filter_map(|(api, version)| Some((api, version, every_answer(api, version)?)))
}

#[test]
fn the_walk_passes_every_proper_answer_to_its_last_byte() {
    for (api, version, bytes) in every_version() {
        assert!(
            decode_any(api, version, bytes.clone().into()),
            "{api} {version}"
        );
        let header = usize::from(header_version(api, version) >= 1);
        let body = &bytes[header..];
        schema::of(api).walk(version, body).unwrap();
        if let Some((_, short)) = body.split_last() {
            assert!(
                schema::of(api).walk(version, short).is_err(),
                "{api} {version} one byte short"
            );
        }
    }
}

#[test]
fn no_prefix_of_an_answer_and_no_flipped_byte_panics() {
    let fetches = (4..=17).map(|v| (ApiKey::Fetch, v, fetch_answer(v, Bytes::from_static(b"r"))));
    let fetches = fetches.map(|(api, v, answer)| (api, v, answer_bytes(v, &answer)));
    let produces = produce::VERSIONS.map(|v| (ApiKey::Produce, v, produce_answer(v)));
    let produces = produces.map(|(api, v, answer)| (api, v, answer_bytes(v, &answer)));
    for (api, version, bytes) in every_version().chain(fetches).chain(produces) {
        for length in 0..bytes.len() {
            decode_any(api, version, Bytes::copy_from_slice(&bytes[..length]));
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                decode_any(api, version, bytes.into());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(
        api in 0..ApiKey::ALL.len(),
        version in 0i16..19,
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..80),
    ) {
        decode_any(ApiKey::ALL[api], version, bytes.into());
    }
}

#[test]
fn metadata_partition_numbers_cannot_ask_for_memory() {
    use wire::metadata_response as of;
    let partition = |index| {
        of::MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(1.into())
    };
    let topic = of::MetadataResponseTopic::default()
        .with_name(Some(wire::TopicName("orders".into())))
        .with_partitions(vec![partition(i32::MAX), partition(1), partition(-5)]);
    let broker = of::MetadataResponseBroker::default()
        .with_node_id(1.into())
        .with_port(70_000);
    let answer = wire::MetadataResponse::default()
        .with_topics(vec![topic])
        .with_brokers(vec![broker]);
    let read = metadata::read(12, answer_bytes(12, &answer).into()).unwrap();
    assert!(read.brokers.is_empty(), "no such port");
    let leaders: Vec<_> = read.topics[0].partitions.iter().map(|p| p.leader).collect();
    assert_eq!(leaders, [None, Some(BrokerId(1)), None]);
}

#[test]
fn a_header_with_tagged_fields_is_skipped() {
    let mut bytes = Bytes::from_static(&[2, 0, 1, 9, 5, 2, 8, 8, 42]);
    skip_header_tags(&mut bytes).unwrap();
    assert_eq!(bytes.get_bytes(1)[..], [42]);
    assert!(skip_header_tags(&mut Bytes::from_static(&[1, 0, 9])).is_err());
}
