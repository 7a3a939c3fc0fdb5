//! Fetch: the answer is read by hand; records stay slices of the frame.

use super::list_offsets::Isolation;
use super::produce::{read_endpoints, read_leader};
use super::reader::Reader;
use super::topic_id_option;
use super::{broker_option, encode, from_millis, non_negative, shared, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use crate::frame::Frame;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use ottla_proto::cluster::Broker;
use ottla_proto::producer::LeaderHint;
use ottla_proto::topic::TopicId;
use ottla_proto::{BrokerId, Code, Error, ErrorKind, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// From the first version with record batches; 18 is for brokers among themselves.
const OURS: RangeInclusive<i16> = 4..=17;
const FLEXIBLE_FROM: i16 = 12;
const LOG_START_FROM: i16 = 5;
const SESSIONS_FROM: i16 = 7;
const LEADER_EPOCH_FROM: i16 = 9;
const RACK_FROM: i16 = 11;
/// From here the request says the epoch last read, and the answer where logs part (KIP-595).
const LAST_EPOCH_FROM: i16 = 12;
/// From here topics go by id instead of name.
const TOPIC_ID_FROM: i16 = 13;

/// How far an answer may go beyond what was asked: the first batch comes whole, however large, and
/// there is the framing.
const SLACK_BYTES: usize = 100 << 20;

/// One partition to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRequest {
    /// Number.
    pub partition: i32,
    /// The epoch we believe the leader has.
    pub leader_epoch: Option<i32>,
    /// The first offset wanted.
    pub offset: i64,
    /// The epoch of the last record read.
    pub last_fetched_epoch: Option<i32>,
    /// The most to return, in bytes; the first batch comes whole nevertheless.
    pub max_bytes: i32,
}

/// One topic to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRequest {
    /// Name.
    pub topic: Arc<str>,
    /// Id; one topic without an id keeps the whole request at version 12.
    pub topic_id: Option<TopicId>,
    /// Its partitions.
    pub partitions: Vec<PartitionRequest>,
}

/// Partitions that leave a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Name.
    pub topic: Arc<str>,
    /// Id.
    pub topic_id: Option<TopicId>,
    /// Numbers.
    pub partitions: Vec<i32>,
}

/// The place in a fetch session (KIP-227).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The session's id; 0 without one.
    pub id: i32,
    /// The place within it: -1 without a session, 0 asks for a new one, else the next number.
    pub epoch: i32,
}

impl Default for Session {
    fn default() -> Self {
        Self::NONE
    }
}

impl Session {
    /// No session: every request names every partition.
    pub const NONE: Session = Session { id: 0, epoch: -1 };
}

/// A fetch from one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// How long the broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// How much must be there before the broker answers, in bytes.
    pub min_bytes: i32,
    /// The most to return, in bytes; the first batch comes whole nevertheless.
    pub max_bytes: i32,
    /// Which records to return.
    pub isolation: Isolation,
    /// The place in a session.
    pub session: Session,
    /// The partitions, by topic.
    pub topics: Vec<TopicRequest>,
    /// Partitions that leave the session.
    pub forgotten: Vec<Forgotten>,
    /// Our rack, so that the broker may name a nearer replica.
    pub rack: Option<Arc<str>>,
}

/// An aborted transaction whose records are to be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// The producer.
    pub producer_id: i64,
    /// The first offset of the transaction.
    pub first_offset: i64,
}

/// Where our log and the leader's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diverging {
    /// The largest epoch that both have.
    pub epoch: i32,
    /// Where it ends at the leader.
    pub end_offset: i64,
}

/// One partition's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Number.
    pub partition: i32,
    /// Kafka's code.
    pub code: Code,
    /// The end of what consumers may read; `None` on an error.
    pub high_watermark: Option<i64>,
    /// The end of what is decided; `None` on an error.
    pub last_stable: Option<i64>,
    /// The first offset of the log, when told.
    pub log_start: Option<i64>,
    /// Aborted transactions in the records, when reading committed. Not sorted.
    pub aborted: Vec<Aborted>,
    /// A nearer replica to fetch from.
    pub preferred_read_replica: Option<BrokerId>,
    /// Where the logs part, if they do.
    pub diverging: Option<Diverging>,
    /// The new leader, when the answer names one (KIP-951).
    pub leader_hint: Option<LeaderHint>,
    /// Record batches, the last perhaps cut short: a slice of the answer, which it keeps alive.
    pub records: Bytes,
}

/// One topic's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicAnswer {
    /// Name; `None` when the answer gave an id that the request did not have (a session's topic).
    pub topic: Option<Arc<str>>,
    /// Id, from version 13.
    pub topic_id: Option<TopicId>,
    /// Its partitions.
    pub partitions: Vec<PartitionAnswer>,
}

/// A broker's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// What is wrong with the request as a whole, its session for instance.
    pub error: Option<Code>,
    /// The session's id; 0 without one.
    pub session_id: i32,
    /// The topics.
    pub topics: Vec<TopicAnswer>,
    /// Addresses of the new leaders that the answer names; give them to
    /// [`crate::Cluster::learn_brokers`].
    pub endpoints: Vec<Broker>,
}

/// Fetches from one broker. The broker answers nothing else on the connection meanwhile.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Error codes are
/// inside the answer.
///
/// Cancel safety: nothing is changed but the session, whose next epoch is spent.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = version(connection, request)?;
    let frame = frame(version, connection.client_id(), request)?;
    let timeout = request.max_wait + connection.request_timeout();
    let answer = connection.submit(frame, timeout).await?;
    decode(version, answer, request).map_err(|error| connection.name(error))
}

/// The version to use on a connection for this request.
///
/// # Errors
/// `UnsupportedVersion`, naming the broker.
pub fn version(connection: &Connection, request: &Request) -> Result<i16> {
    let by_id = request.topics.iter().all(|topic| topic.topic_id.is_some())
        && request
            .forgotten
            .iter()
            .all(|topic| topic.topic_id.is_some());
    let newest = if by_id {
        *OURS.end()
    } else {
        TOPIC_ID_FROM - 1
    };
    connection.version(ApiKey::Fetch, *OURS.start()..=newest)
}

/// Frames a request; its answer's limit follows from what it asks for.
///
/// # Errors
/// `Config` when it is over the limit of a request.
pub fn frame(version: i16, client_id: &str, request: &Request) -> Result<Frame> {
    let mut body = FetchRequest::default()
        .with_max_wait_ms(to_millis(request.max_wait))
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(request.isolation.number())
        .with_topics(
            request
                .topics
                .iter()
                .map(|topic| topic_body(version, topic))
                .collect(),
        );
    if version >= SESSIONS_FROM {
        let forgotten = request
            .forgotten
            .iter()
            .map(|topic| forgotten_body(version, topic));
        body = body
            .with_session_id(request.session.id)
            .with_session_epoch(request.session.epoch)
            .with_forgotten_topics_data(forgotten.collect());
    }
    if let Some(rack) = request.rack.as_deref().filter(|_| version >= RACK_FROM) {
        body = body.with_rack_id(text(rack));
    }
    let limit = usize::try_from(request.max_bytes).unwrap_or(0) + SLACK_BYTES;
    let frame = encode(ApiKey::Fetch, version, client_id, &body)?;
    Ok(frame.with_answer_max_bytes(limit))
}

fn topic_body(version: i16, topic: &TopicRequest) -> FetchTopic {
    let partitions = topic.partitions.iter().map(|partition| {
        let mut body = FetchPartition::default()
            .with_partition(partition.partition)
            .with_fetch_offset(partition.offset)
            .with_partition_max_bytes(partition.max_bytes);
        if version >= LEADER_EPOCH_FROM {
            body = body.with_current_leader_epoch(partition.leader_epoch.unwrap_or(-1));
        }
        if version >= LAST_EPOCH_FROM {
            body = body.with_last_fetched_epoch(partition.last_fetched_epoch.unwrap_or(-1));
        }
        body
    });
    let body = FetchTopic::default().with_partitions(partitions.collect());
    match topic.topic_id.filter(|_| version >= TOPIC_ID_FROM) {
        Some(id) => body.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        None => body.with_topic(TopicName(text(&topic.topic))),
    }
}

fn forgotten_body(version: i16, topic: &Forgotten) -> ForgottenTopic {
    let body = ForgottenTopic::default().with_partitions(topic.partitions.clone());
    match topic.topic_id.filter(|_| version >= TOPIC_ID_FROM) {
        Some(id) => body.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        None => body.with_topic(TopicName(text(&topic.topic))),
    }
}

/// Reads an answer. `answer` begins after the correlation id; the request gives topics their names.
///
/// # Errors
/// `Protocol` when the answer is malformed.
#[expect(clippy::needless_pass_by_value, reason = "an answer is read once")]
pub fn decode(version: i16, answer: Bytes, request: &Request) -> Result<Response> {
    read(version, &answer, &request.topics).map_err(|error| {
        let what = format!("Fetch version {version} brought {error}");
        Error::new(ErrorKind::Protocol, what)
    })
}

fn read(version: i16, answer: &Bytes, asked: &[TopicRequest]) -> Result<Response> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut reader = Reader::new(answer, flexible);
    reader.skip_tags()?; // the response header's
    let mut response = Response {
        throttle: from_millis(reader.int32()?),
        ..Response::default()
    };
    if version >= SESSIONS_FROM {
        response.error = Code(reader.int16()?).ok().err();
        response.session_id = reader.int32()?;
    }
    let topic_count = reader.count(2)?;
    for _ in 0..topic_count {
        response
            .topics
            .push(read_topic(version, &mut reader, asked)?);
    }
    reader.tags(|tag, reader| {
        if tag == 0 {
            response.endpoints = read_endpoints(reader)?;
        }
        Ok(())
    })?;
    Ok(response)
}

fn read_topic(
    version: i16,
    reader: &mut Reader<'_>,
    asked: &[TopicRequest],
) -> Result<TopicAnswer> {
    let (topic, topic_id) = if version >= TOPIC_ID_FROM {
        let id = topic_id_option(reader.uuid()?);
        let known = asked
            .iter()
            .find(|topic| topic.topic_id == id && id.is_some());
        (known.map(|topic| Arc::clone(&topic.topic)), id)
    } else {
        (reader.text()?.map(shared), None)
    };
    // Number, code, high watermark, last stable offset.
    let count = reader.count(4 + 2 + 8 + 8)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(read_partition(version, reader)?);
    }
    reader.skip_tags()?;
    Ok(TopicAnswer {
        topic,
        topic_id,
        partitions,
    })
}

fn read_partition(version: i16, reader: &mut Reader<'_>) -> Result<PartitionAnswer> {
    let mut answer = PartitionAnswer {
        partition: reader.int32()?,
        code: Code(reader.int16()?),
        high_watermark: non_negative(reader.int64()?),
        last_stable: non_negative(reader.int64()?),
        log_start: None,
        aborted: Vec::new(),
        preferred_read_replica: None,
        diverging: None,
        leader_hint: None,
        records: Bytes::new(),
    };
    if version >= LOG_START_FROM {
        answer.log_start = non_negative(reader.int64()?);
    }
    let aborted = reader.count(16)?;
    answer.aborted.reserve(aborted);
    for _ in 0..aborted {
        let (producer_id, first_offset) = (reader.int64()?, reader.int64()?);
        reader.skip_tags()?;
        answer.aborted.push(Aborted {
            producer_id,
            first_offset,
        });
    }
    if version >= RACK_FROM {
        answer.preferred_read_replica = broker_option(reader.int32()?);
    }
    answer.records = reader.blob()?.unwrap_or_default();
    reader.tags(|tag, reader| {
        match tag {
            0 => answer.diverging = read_diverging(reader)?,
            1 => answer.leader_hint = read_leader(reader)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(answer)
}

fn read_diverging(reader: &mut Reader<'_>) -> Result<Option<Diverging>> {
    let epoch = non_negative(reader.int32()?);
    let end_offset = non_negative(reader.int64()?);
    reader.skip_tags()?;
    Ok(epoch
        .zip(end_offset)
        .map(|(epoch, end_offset)| Diverging { epoch, end_offset }))
}
