//! Produce: framed by hand over borrowed payloads, so that a record is copied once on its way, at
//! the append.

use super::reader::Reader;
use super::{broker_option, from_millis, non_negative, shared, to_millis};
use crate::api_key::ApiKey;
use crate::frame::{Frame, FrameWriter, Header, HeaderForm, Payloads};
use crate::walk::malformed;
use bytes::{BufMut, Bytes, BytesMut};
use ottla_proto::batch::{HEADER_BYTES, Segments};
use ottla_proto::cluster::Broker;
use ottla_proto::producer::{
    AnsweredTopic, LeaderHint, PartitionAnswer, ProduceAnswer, RecordError,
};
use ottla_proto::topic::TopicId;
use ottla_proto::{Code, Error, ErrorKind, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Our versions, from the first that takes record batches: for requests whose topics all have ids.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;
/// Our versions that name topics: one topic without an id keeps the whole request at these.
pub const VERSIONS_BY_NAME: RangeInclusive<i16> = 3..=12;
/// From here a leader adds what is written to it to its producer's transaction (KIP-890).
pub const ADDS_PARTITIONS_FROM: i16 = 12;
const FLEXIBLE_FROM: i16 = 9;
const LOG_START_FROM: i16 = 5;
/// From here the answer says which records are wrong (KIP-467).
const RECORD_ERRORS_FROM: i16 = 8;
/// From here topics go by id instead of name.
const TOPIC_ID_FROM: i16 = 13;

/// What stands before the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// -1: all in-sync replicas, 1: the leader, 0: no answer at all.
    pub acks: i16,
    /// How long the leader may wait for its followers.
    pub timeout: Duration,
    /// The transactional id, inside a transaction.
    pub transactional_id: Option<Arc<str>>,
}

/// One partition's batch in a request.
#[derive(Debug, Clone, Copy)]
pub struct PartitionBatch<'b> {
    /// The topic's name.
    pub topic: &'b str,
    /// Its id; one topic without an id keeps the whole request at version 12.
    pub topic_id: Option<TopicId>,
    /// The partition's number.
    pub partition: i32,
    /// The batch's header.
    pub header: &'b [u8; HEADER_BYTES],
    /// The records section, in pieces that are not copied.
    pub segments: &'b Segments,
}

impl PartitionBatch<'_> {
    fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.segments.size_bytes()
    }

    fn is_beside(&self, other: &Self) -> bool {
        self.topic == other.topic && self.topic_id == other.topic_id
    }
}

/// Frames a request without copying its payloads. The batches of a topic stand together, and no
/// partition stands twice. What is small is written into `room`, which later requests use on.
///
/// # Errors
/// `RecordTooLarge` over the limit of a request; `State` when a version from 13 lacks a topic's id.
pub fn encode<'b>(
    version: i16,
    client_id: &str,
    head: &Head,
    batches: impl Iterator<Item = PartitionBatch<'b>> + Clone,
    room: &mut BytesMut,
) -> Result<Frame> {
    let flexible = version >= FLEXIBLE_FROM;
    let header = Header {
        api: ApiKey::Produce,
        version,
        form: if flexible {
            HeaderForm::Flexible
        } else {
            HeaderForm::Plain
        },
        client_id,
    };
    let (topics, needed) = sizes(batches.clone());
    let payloads = Payloads::of(batches.clone().flat_map(|batch| batch.segments));
    let capacity = 64 + needed + payloads.copied_bytes;
    let mut writer = FrameWriter::in_room(std::mem::take(room), header, capacity);
    writer.reserve(payloads);
    let small = writer.small();
    put_text(small, flexible, head.transactional_id.as_deref())?;
    small.put_i16(head.acks);
    small.put_i32(to_millis(head.timeout));
    put_length(small, flexible, Some(topics))?;
    let mut rest = batches;
    while let Some(first) = rest.clone().next() {
        let of_topic = rest.clone().take_while(|batch| batch.is_beside(&first));
        let count = of_topic.count();
        let small = writer.small();
        match first.topic_id {
            Some(id) if version >= TOPIC_ID_FROM => small.put_slice(&id.0),
            None if version >= TOPIC_ID_FROM => return Err(without_id(first.topic)),
            _ => put_text(small, flexible, Some(first.topic))?,
        }
        put_length(small, flexible, Some(count))?;
        for batch in rest.by_ref().take(count) {
            put_batch(&mut writer, flexible, &batch)?;
        }
        end_struct(writer.small(), flexible);
    }
    end_struct(writer.small(), flexible);
    let frame = writer.finish();
    *room = writer.into_room();
    frame
}

/// How many topics there are, and what is written of all batches beside their records at most.
fn sizes<'b>(batches: impl Iterator<Item = PartitionBatch<'b>>) -> (usize, usize) {
    let mut last: Option<PartitionBatch<'b>> = None;
    batches.fold((0, 0), |(topics, bytes), batch| {
        let beside = last
            .replace(batch)
            .is_some_and(|last| last.is_beside(&batch));
        let bytes = bytes + HEADER_BYTES + 16;
        if beside {
            (topics, bytes)
        } else {
            (topics + 1, bytes + batch.topic.len() + 24)
        }
    })
}

fn put_batch(writer: &mut FrameWriter, flexible: bool, batch: &PartitionBatch<'_>) -> Result<()> {
    let small = writer.small();
    small.put_i32(batch.partition);
    put_length(small, flexible, Some(batch.size_bytes()))?;
    small.put_slice(batch.header);
    for segment in batch.segments {
        writer.payload(segment);
    }
    end_struct(writer.small(), flexible);
    Ok(())
}

fn without_id(topic: &str) -> Error {
    let what = format!("a Produce request of version {TOPIC_ID_FROM} needs the id of {topic}");
    Error::new(ErrorKind::State, what)
}

fn end_struct(small: &mut BytesMut, flexible: bool) {
    if flexible {
        small.put_u8(0);
    }
}

/// A count or a length of bytes; `None` is null.
fn put_length(small: &mut BytesMut, flexible: bool, length: Option<usize>) -> Result<()> {
    let length = length
        .map(i32::try_from)
        .transpose()
        .map_err(|_| Error::new(ErrorKind::RecordTooLarge, "a Produce request is over 2 GiB"))?;
    match (flexible, length) {
        (false, length) => small.put_i32(length.unwrap_or(-1)),
        // At most 2^31, so the sum fits.
        (true, length) => put_uvarint(small, length.map_or(0, |length| length.unsigned_abs() + 1)),
    }
    Ok(())
}

fn put_text(small: &mut BytesMut, flexible: bool, text: Option<&str>) -> Result<()> {
    let length = text
        .map(|text| i16::try_from(text.len()))
        .transpose()
        .map_err(|_| {
            Error::new(
                ErrorKind::Config,
                "a name of a Produce request is over 32767 bytes",
            )
        })?;
    match (flexible, length) {
        (false, length) => small.put_i16(length.unwrap_or(-1)),
        (true, length) => {
            put_uvarint(
                small,
                length.map_or(0, |length| u32::from(length.unsigned_abs()) + 1),
            );
        }
    }
    small.put_slice(text.unwrap_or_default().as_bytes());
    Ok(())
}

fn put_uvarint(small: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        small.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    small.put_u8(value as u8);
}

/// Reads an answer. `answer` begins after the correlation id.
///
/// # Errors
/// `Protocol` when the answer is malformed.
pub fn decode(version: i16, answer: Bytes) -> Result<ProduceAnswer> {
    decode_with_endpoints(version, answer).map(|(answer, _)| answer)
}

/// As [`decode`], with the addresses of the new leaders that the answer names (KIP-951); give them
/// to [`crate::Cluster::learn_brokers`].
///
/// # Errors
/// As [`decode`].
#[expect(clippy::needless_pass_by_value, reason = "an answer is read once")]
pub fn decode_with_endpoints(version: i16, answer: Bytes) -> Result<(ProduceAnswer, Vec<Broker>)> {
    let mut read = ProduceAnswer::default();
    decode_into(version, &answer, &mut read).map(|endpoints| (read, endpoints))
}

/// As [`decode_with_endpoints`], in place of an earlier answer, whose memory is used again.
///
/// # Errors
/// As [`decode`]; the answer is then incomplete.
pub fn decode_into(version: i16, answer: &Bytes, into: &mut ProduceAnswer) -> Result<Vec<Broker>> {
    into.partitions.clear();
    read(version, answer, into).map_err(|error| {
        let what = format!("Produce version {version} brought {error}");
        Error::new(ErrorKind::Protocol, what)
    })
}

fn read(version: i16, answer: &Bytes, into: &mut ProduceAnswer) -> Result<Vec<Broker>> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut reader = Reader::new(answer, flexible);
    reader.skip_tags()?; // the response header's
    let partitions = &mut into.partitions;
    let topic_count = reader.count(2)?;
    for _ in 0..topic_count {
        let topic = read_topic(version, &mut reader)?;
        let partition_count = reader.count(smallest_partition(version))?;
        partitions.reserve(partition_count);
        for _ in 0..partition_count {
            partitions.push(read_partition(version, &mut reader, &topic)?);
        }
        reader.skip_tags()?;
    }
    into.throttle = from_millis(reader.int32()?);
    let mut endpoints = Vec::new();
    reader.tags(|tag, reader| {
        if tag == 0 {
            endpoints = read_endpoints(reader)?;
        }
        Ok(())
    })?;
    Ok(endpoints)
}

fn read_topic(version: i16, reader: &mut Reader<'_>) -> Result<AnsweredTopic> {
    if version >= TOPIC_ID_FROM {
        return reader.uuid().map(TopicId).map(AnsweredTopic::Id);
    }
    let name = reader
        .text()?
        .ok_or_else(|| malformed("a topic without a name"))?;
    Ok(AnsweredTopic::Name(shared(name)))
}

/// Number, code, base offset, append time; then what later versions add.
fn smallest_partition(version: i16) -> usize {
    let log_start = if version >= LOG_START_FROM { 8 } else { 0 };
    4 + 2 + 8 + 8 + log_start
}

fn read_partition(
    version: i16,
    reader: &mut Reader<'_>,
    topic: &AnsweredTopic,
) -> Result<PartitionAnswer> {
    let mut answer = PartitionAnswer {
        topic: topic.clone(),
        partition: reader.int32()?,
        code: Code(reader.int16()?),
        base_offset: non_negative(reader.int64()?),
        log_append_time: non_negative(reader.int64()?),
        log_start: None,
        record_errors: Vec::new(),
        message: None,
        leader_hint: None,
    };
    if version >= LOG_START_FROM {
        answer.log_start = non_negative(reader.int64()?);
    }
    if version >= RECORD_ERRORS_FROM {
        let count = reader.count(5)?;
        answer.record_errors.reserve(count);
        for _ in 0..count {
            let index =
                u32::try_from(reader.int32()?).map_err(|_| malformed("a negative index"))?;
            let message = reader.text()?.map(shared);
            reader.skip_tags()?;
            answer.record_errors.push(RecordError { index, message });
        }
        answer.message = reader.text()?.map(shared);
    }
    reader.tags(|tag, reader| {
        if tag == 0 {
            answer.leader_hint = read_leader(reader)?;
        }
        Ok(())
    })?;
    Ok(answer)
}

/// The leader that a tagged field names (KIP-951); -1 names none.
pub(super) fn read_leader(reader: &mut Reader<'_>) -> Result<Option<LeaderHint>> {
    let leader = broker_option(reader.int32()?);
    let epoch = non_negative(reader.int32()?);
    reader.skip_tags()?;
    Ok(leader.zip(epoch).map(|(leader, leader_epoch)| LeaderHint {
        leader,
        leader_epoch,
    }))
}

/// The addresses that a tagged field names (KIP-951).
pub(super) fn read_endpoints(reader: &mut Reader<'_>) -> Result<Vec<Broker>> {
    let count = reader.count(11)?;
    let mut endpoints = Vec::with_capacity(count);
    for _ in 0..count {
        let id = broker_option(reader.int32()?);
        let host = reader.text()?;
        let port = u16::try_from(reader.int32()?).ok();
        let rack = reader.text()?.map(shared);
        reader.skip_tags()?;
        if let (Some(id), Some(host), Some(port)) = (id, host, port) {
            endpoints.push(Broker {
                id,
                host: shared(host),
                port,
                rack,
            });
        }
    }
    Ok(endpoints)
}
