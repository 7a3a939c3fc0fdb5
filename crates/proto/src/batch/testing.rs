//! An encoder for tests that, unlike the writer, also makes batches that no client writes: with
//! gaps, of control records, with fields that lie.

use super::header::{BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use super::{Compression, Segments, compress, varint};
use bytes::Bytes;

/// The batch "123" that a real broker of version 0.11 wrote.
pub(super) const GOLDEN: &[u8; 71] = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x3b\
    \x00\x00\x00\x01\x02\x03\x18\xa2\x70\x00\x00\x00\x00\x00\x00\x00\x00\x01\x5d\xff\x7b\x06\x3c\
    \x00\x00\x01\x5d\xff\x7b\x06\x3c\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \x00\x00\x00\x01\x12\x00\x00\x00\x01\x06123\x00";

/// A header's key and value.
pub(super) type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

/// A record with every field under the test's hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnedRecord {
    pub(super) offset_delta: i32,
    pub(super) timestamp_delta: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<OwnedHeader>,
}

impl OwnedRecord {
    pub(super) fn at(offset_delta: i32, value: &str) -> Self {
        Self {
            offset_delta,
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The record as on the wire, without its length.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = vec![0];
        put_varint(&mut body, self.timestamp_delta);
        put_varint(&mut body, self.offset_delta.into());
        put_field(&mut body, self.key.as_deref());
        put_field(&mut body, self.value.as_deref());
        put_varint(&mut body, self.headers.len() as i64);
        for (key, value) in &self.headers {
            put_field(&mut body, Some(key));
            put_field(&mut body, value.as_deref());
        }
        body
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [0; varint::MAX_BYTES_I64];
    let len = varint::write_i64(&mut buffer, 0, value);
    out.extend_from_slice(&buffer[..len]);
}

pub(super) fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |field| field.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}

/// The records section of these records.
pub(super) fn section(records: &[OwnedRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        put_field(&mut out, Some(&record.body()));
    }
    out
}

/// A batch around this section; length and checksum are made right, the other fields are `header`'s.
pub(super) fn batch_of_section(mut header: BatchHeader, section: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES - LENGTH_PREFIX_BYTES + section.len();
    header.batch_length = length.try_into().unwrap();
    let mut head = [0; HEADER_BYTES];
    header.write(&mut head);
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(section);
    seal(&mut bytes);
    bytes
}

/// Makes the checksum right.
pub(super) fn seal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// A batch of these records: count, last offset and compression are made right too.
pub(super) fn batch(
    mut header: BatchHeader,
    codec: Compression,
    records: &[OwnedRecord],
) -> Vec<u8> {
    header.record_count = records.len().try_into().unwrap();
    let last = records.last().map_or(0, |last| last.offset_delta);
    header.last_offset_delta = header.last_offset_delta.max(last);
    header.attributes |= codec.bits();
    let plain = section(records);
    batch_of_section(header, &compress(codec, None, &[&plain]).unwrap())
}

/// A compressed section outside any pool.
pub(super) fn kept(packed: &[u8]) -> Segments {
    Bytes::copy_from_slice(packed).into()
}
