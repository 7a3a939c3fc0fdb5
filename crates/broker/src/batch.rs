//! A record batch as it arrives: its header, and whether a broker may take it.

use crate::partition::Marker;
use crate::sequence::Stamp;
use bytes::{BufMut, BytesMut};
use ottla_proto::Code;

/// The bytes of a batch before its records.
pub(crate) const HEADER_BYTES: usize = 61;
/// The bytes before and with the length field, which the length does not count.
const LENGTH_END: usize = 12;
const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
/// zstd's number among the compression types, which older requests must not carry.
const ZSTD: i16 = 4;
/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// What a broker reads of a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) base_offset: i64,
    pub(crate) size_bytes: usize,
    pub(crate) magic: i8,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl Head {
    /// Reads the header; `None` if there are too few bytes for one or its length is impossible.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let length = i32::from_be_bytes(array(bytes, 8)?);
        let size_bytes = usize::try_from(length).ok()?.checked_add(LENGTH_END)?;
        if size_bytes < HEADER_BYTES {
            return None;
        }
        Some(Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)?),
            size_bytes,
            magic: i8::from_be_bytes(array(bytes, MAGIC)?),
            crc: u32::from_be_bytes(array(bytes, CRC)?),
            attributes: i16::from_be_bytes(array(bytes, ATTRIBUTES)?),
            last_offset_delta: i32::from_be_bytes(array(bytes, LAST_OFFSET_DELTA)?),
            max_timestamp: i64::from_be_bytes(array(bytes, MAX_TIMESTAMP)?),
            producer_id: i64::from_be_bytes(array(bytes, PRODUCER_ID)?),
            producer_epoch: i16::from_be_bytes(array(bytes, PRODUCER_EPOCH)?),
            base_sequence: i32::from_be_bytes(array(bytes, BASE_SEQUENCE)?),
            record_count: i32::from_be_bytes(array(bytes, RECORD_COUNT)?),
        })
    }

    /// Whether the batch is part of a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// The producer's stamp, if the batch has one.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        Stamp::new(
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.record_count,
        )
    }
}

/// A refusal: the code and, for the newer answers, why.
pub(crate) type Refusal = (Code, &'static str);

/// Checks what a producer sent for one partition, as Kafka does before it touches the log.
///
/// # Errors
/// The code to answer, with the reason.
pub(crate) fn check(bytes: &[u8], batch_bytes_max: usize, version: i16) -> Result<Head, Refusal> {
    const INVALID: Code = Code::INVALID_RECORD;
    // Older formats have their magic at the same place.
    let magic = bytes.get(MAGIC).copied();
    if version < 3 || magic.is_some_and(|magic| magic < 2) {
        let reason = "only record batches of format 2 are taken";
        return Err((Code::UNSUPPORTED_FOR_MESSAGE_FORMAT, reason));
    }
    let Some(head) = Head::parse(bytes) else {
        let reason = match bytes.len() {
            0 => "a partition must have at least one record batch",
            _ => "the record batch is cut short",
        };
        let code = if bytes.is_empty() {
            INVALID
        } else {
            Code::CORRUPT_MESSAGE
        };
        return Err((code, reason));
    };
    if head.size_bytes > bytes.len() {
        return Err((Code::CORRUPT_MESSAGE, "the record batch is cut short"));
    }
    if head.size_bytes < bytes.len() {
        return Err((INVALID, "a partition may have one record batch only"));
    }
    if head.magic != 2 {
        return Err((INVALID, "the record batch's format is unknown"));
    }
    if head.attributes & 0x07 == ZSTD && version < ZSTD_SINCE {
        let reason = "zstd needs a Produce request of version 7 or newer";
        return Err((Code::UNSUPPORTED_COMPRESSION_TYPE, reason));
    }
    if head.size_bytes > batch_bytes_max {
        let reason = "the record batch is larger than max.message.bytes";
        return Err((Code::MESSAGE_TOO_LARGE, reason));
    }
    if crc32c::crc32c(bytes.get(ATTRIBUTES..).unwrap_or_default()) != head.crc {
        return Err((Code::CORRUPT_MESSAGE, "the record batch fails its checksum"));
    }
    check_counts(&head)?;
    Ok(head)
}

fn check_counts(head: &Head) -> Result<(), Refusal> {
    let refuse = |reason| Err((Code::INVALID_RECORD, reason));
    if head.base_offset != 0 {
        return refuse("the base offset must be 0");
    }
    if head.attributes & CONTROL_BIT != 0 {
        return refuse("clients cannot write control records");
    }
    if head.is_transactional() && head.producer_id < 0 {
        return refuse("a transactional batch needs a producer id");
    }
    if head.attributes & 0x07 > ZSTD {
        return refuse("the compression type is unknown");
    }
    if head.record_count <= 0 || head.last_offset_delta.checked_add(1) != Some(head.record_count) {
        return refuse("the record count does not fit the last offset");
    }
    if head.producer_id >= 0 && (head.base_sequence < 0 || head.producer_epoch < 0) {
        return refuse("a batch with a producer id needs a sequence and an epoch");
    }
    Ok(())
}

/// Writes the offset and the leader epoch into a batch: neither is covered by the checksum.
pub(crate) fn place(bytes: &mut BytesMut, base_offset: i64, leader_epoch: i32) {
    if let Some(field) = bytes.get_mut(..8) {
        field.copy_from_slice(&base_offset.to_be_bytes());
    }
    if let Some(field) = bytes.get_mut(LEADER_EPOCH..LEADER_EPOCH + 4) {
        field.copy_from_slice(&leader_epoch.to_be_bytes());
    }
}

/// Gives every record of a batch the broker's time, as a topic with LogAppendTime wants; the
/// checksum covers it and is made anew.
pub(crate) fn set_append_time(bytes: &mut BytesMut, head: &mut Head, millis: i64) {
    head.attributes |= LOG_APPEND_TIME_BIT;
    head.max_timestamp = millis;
    if let Some(field) = bytes.get_mut(ATTRIBUTES..ATTRIBUTES + 2) {
        field.copy_from_slice(&head.attributes.to_be_bytes());
    }
    if let Some(field) = bytes.get_mut(MAX_TIMESTAMP..MAX_TIMESTAMP + 8) {
        field.copy_from_slice(&millis.to_be_bytes());
    }
    head.crc = crc32c::crc32c(bytes.get(ATTRIBUTES..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(CRC..CRC + 4) {
        field.copy_from_slice(&head.crc.to_be_bytes());
    }
}

/// The batch that ends a transaction: one control record.
pub(crate) fn marker(marker: Marker, millis: i64) -> BytesMut {
    // Version 0 of the key and the value; small lengths are zigzag varints of one byte.
    let kind = i16::from(marker.committed);
    let mut record = BytesMut::new();
    record.put_slice(&[0, 0, 0]);
    record.put_u8(4 << 1);
    record.put_i16(0);
    record.put_i16(kind);
    record.put_u8(6 << 1);
    record.put_i16(0);
    record.put_i32(marker.coordinator_epoch);
    record.put_u8(0);

    let mut covered = BytesMut::new();
    covered.put_i16(TRANSACTIONAL_BIT | CONTROL_BIT);
    covered.put_i32(0);
    covered.put_i64(millis);
    covered.put_i64(millis);
    covered.put_i64(marker.producer_id);
    covered.put_i16(marker.producer_epoch);
    covered.put_i32(-1);
    covered.put_i32(1);
    covered.put_u8(u8::try_from(record.len() << 1).unwrap_or(u8::MAX));
    covered.put_slice(&record);

    let length = covered.len() + ATTRIBUTES - LENGTH_END;
    let mut bytes = BytesMut::with_capacity(ATTRIBUTES + covered.len());
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
    bytes.put_i32(-1);
    bytes.put_u8(2);
    bytes.put_u32(crc32c::crc32c(&covered));
    bytes.put_slice(&covered);
    bytes
}
