//! Produce and Fetch, which are framed by hand, against kafka-protocol.

use super::ID;
use crate::api::produce::{Head, PartitionBatch};
use crate::api::*;
use crate::testing::answer_bytes;
use bytes::BytesMut;
use kafka_protocol::messages as wire;
use ottla_proto::batch::{HEADER_BYTES, Segments};
use ottla_proto::producer::{AnsweredTopic, LeaderHint};
use uuid::Uuid;
use wire::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use wire::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};

struct TopicBatches {
    topic: &'static str,
    topic_id: Option<TopicId>,
    partitions: Vec<(i32, Segments)>,
}

const HEADER: [u8; HEADER_BYTES] = [7; HEADER_BYTES];

fn batches() -> Vec<TopicBatches> {
    let partition = |partition: i32, segments: &[&'static [u8]]| {
        let pieces = segments.iter().map(|bytes| Bytes::from_static(bytes));
        (partition, pieces.collect())
    };
    static LARGE: [u8; 5000] = [3; 5000];
    vec![
        TopicBatches {
            topic: "orders",
            topic_id: Some(ID),
            // In pieces, in one large piece, empty (bug class 30: a batch without records must not
            // shift what follows), and tiny.
            partitions: vec![
                partition(0, &[b"head", &LARGE, b"tail"]),
                partition(1, &[&LARGE]),
                partition(2, &[]),
                partition(3, &[b"x"]),
            ],
        },
        TopicBatches {
            topic: "others",
            topic_id: Some(TopicId([9; 16])),
            partitions: vec![partition(3, &[b"y"])],
        },
    ]
}

fn encode(
    version: i16,
    head: &Head,
    topics: &[TopicBatches],
    room: &mut BytesMut,
) -> Result<Frame> {
    let batches = topics.iter().flat_map(|of| {
        of.partitions
            .iter()
            .map(|(partition, segments)| PartitionBatch {
                topic: of.topic,
                topic_id: of.topic_id,
                partition: *partition,
                header: &HEADER,
                segments,
            })
    });
    produce::encode(version, "me", head, batches, room)
}

#[test]
fn bug_30_a_produce_request_reads_back_to_its_last_byte_in_every_version() {
    // One room for all, while some of what was written into it is still on its way.
    let mut room = BytesMut::new();
    let mut on_its_way = Vec::new();
    for transactional_id in [None, Some("tx")] {
        for version in produce::VERSIONS {
            let head = Head {
                acks: -1,
                timeout: Duration::from_secs(30),
                transactional_id: transactional_id.map(Into::into),
            };
            let frame = encode(version, &head, &batches(), &mut room).unwrap();
            let whole = frame.to_bytes();
            on_its_way.push((frame, whole.clone()));
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
    assert!(
        on_its_way
            .iter()
            .all(|(frame, whole)| frame.to_bytes() == *whole)
    );
}

#[test]
fn requests_share_a_room_and_begin_it_anew_when_all_have_left() {
    let head = Head {
        acks: -1,
        timeout: Duration::from_secs(30),
        transactional_id: None,
    };
    let mut room = BytesMut::new();
    let mut next = || {
        let frame = encode(13, &head, &batches(), &mut room).unwrap();
        frame.into_segments(0).next().unwrap()
    };
    let place = |head: &Bytes| head.as_ptr() as usize;
    // All are on their way: a room of its own for each would stand elsewhere.
    let first: Vec<Bytes> = (0..20).map(|_| next()).collect();
    let shared = place(&first[0])..place(&first[0]) + (16 << 10);
    assert!(first.iter().all(|head| shared.contains(&place(head))));
    drop(first);
    assert!((0..1000).all(|_| shared.contains(&place(&next()))));
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
            let (partition, segments) = wanted;
            assert_eq!(read.index, *partition);
            let mut records = HEADER.to_vec();
            records.extend(segments.concat());
            assert_eq!(read.records.as_deref(), Some(&*records));
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
    let mut room = BytesMut::new();
    let error = encode(13, &head, &topics, &mut room).unwrap_err();
    assert!(error.to_string().contains("others"), "{error}");
    encode(12, &head, &topics, &mut room).unwrap();
}

pub(super) fn produce_answer(version: i16) -> wire::ProduceResponse {
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
fn bug_28_no_length_or_count_of_a_produce_answer_asks_for_more_than_there_is() {
    for version in produce::VERSIONS {
        let whole = answer_bytes(version, &produce_answer(version));
        for at in 0..whole.len() {
            // A long one and a negative one in plain form, the longest in compact form, and two bytes
            // of a text's length.
            for lie in [
                &[0x7f, 0xff, 0xff, 0xff][..],
                &[0xff, 0xff, 0xff, 0xfe],
                &[0xff, 0xff, 0xff, 0xff, 0x0f],
                &[0x7f, 0xff],
            ] {
                let mut bytes = whole.clone();
                let until = (at + lie.len()).min(bytes.len());
                bytes.splice(at..until, lie.iter().copied());
                let bytes_max = bytes.len();
                let Ok((read, endpoints)) = produce::decode_with_endpoints(version, bytes.into())
                else {
                    continue;
                };
                let wrong = read.partitions.iter().map(|p| p.record_errors.capacity());
                let room = [read.partitions.capacity(), endpoints.capacity()];
                let most = wrong.chain(room).max();
                assert!(
                    most <= Some(bytes_max),
                    "version {version} at {at}: {most:?}"
                );
            }
        }
    }
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

pub(super) fn fetch_answer(version: i16, records: Bytes) -> wire::FetchResponse {
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
