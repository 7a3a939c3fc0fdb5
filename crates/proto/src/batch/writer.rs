//! A batch that is encoded while its records arrive.
//!
//! The records are written once, into a list of chunks that the caller provides (from a pool), so a
//! growing batch never copies what it already holds. The checksum is carried along piece by piece,
//! while the bytes are still in the cache; the header comes last, because the stamp (producer id,
//! epoch, sequence) is only known when the batch is first sent.

use super::Compression;
use super::header::{BatchHeader, HEADER_BYTES};
use super::segments::Segments;
use super::{crc, varint};
use crate::record::{Header, Record};
use bytes::Bytes;

mod packing;

pub use packing::Packed;

/// The longest prefix of a record: length, attributes, timestamp, offset, key length, value length.
const PREFIX_BYTES: usize = 5 + 1 + 10 + 5 + 5 + 5;

/// The checksum follows the records at this distance: far enough to be quick, and close enough to
/// find the bytes in the cache.
const CHECKSUM_STEP_BYTES: usize = 1 << 15;

/// Records of one batch, encoded as they come.
#[derive(Debug, Default)]
pub struct BatchWriter {
    /// The chunk that is being filled.
    open: Vec<u8>,
    /// How many of the other chunks are full.
    full: usize,
    /// The other chunks, and values that stand between what they hold.
    room: BatchRoom,
    kept_bytes: usize,
    /// So many more bytes of values may be kept.
    keepable_bytes: usize,
    /// Over the full chunks, the open one up to `summed`, and what is kept between; `None` when nobody wants it.
    crc: Option<u32>,
    summed: usize,
    bytes: usize,
    spare_bytes: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// Room for the chunks of a batch, the values that it keeps and its pieces, to be used again by the
/// next one.
#[derive(Debug, Default)]
pub struct BatchRoom {
    /// The full ones in order, and the empty ones behind them.
    chunks: Vec<Vec<u8>>,
    kept: Vec<Kept>,
    pieces: Vec<Bytes>,
}

/// A value that is not copied.
#[derive(Debug)]
struct Kept {
    value: Bytes,
    /// It stands in this chunk, behind so many of its bytes.
    chunk: usize,
    offset: usize,
}

/// The batch has no room for a record: give it chunks of so many bytes in total, then try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsRoom(pub usize);

impl BatchWriter {
    /// An empty batch without chunks.
    pub fn new() -> Self {
        Self {
            crc: Some(0),
            ..Self::default()
        }
    }

    /// An empty batch that will be compressed: a checksum over its records would be thrown away.
    pub fn to_be_compressed() -> Self {
        Self::default()
    }

    /// Uses the room that a sealed batch left.
    pub fn reuse(&mut self, mut room: BatchRoom) {
        if self.room.kept.is_empty() {
            room.chunks.append(&mut self.room.chunks);
            self.room = room;
        }
    }

    /// Adds an empty chunk; its capacity is what it can take.
    pub fn add_chunk(&mut self, mut chunk: Vec<u8>) {
        chunk.clear();
        self.spare_bytes += chunk.capacity();
        if self.open.capacity() == 0 {
            self.open = chunk;
        } else {
            self.room.chunks.push(chunk);
        }
    }

    /// How many records are in.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size of the batch on the wire so far, header included, before compression.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.bytes
    }

    /// Size of the chunks that it was given, and of what it may keep beside them.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes + self.spare_bytes + self.keepable_bytes
    }

    /// How much of it is in chunks, header included.
    pub fn copied_bytes(&self) -> usize {
        self.size_bytes() - self.kept_bytes
    }

    /// What its chunks can still take.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    /// So many bytes of values may still be kept; what exceeds them is copied.
    pub fn keepable_bytes(&self) -> usize {
        self.keepable_bytes
    }

    /// Lets it keep so many bytes more of shared values ([`Record::value_to_keep`]).
    pub fn allow_kept(&mut self, bytes: usize) {
        self.keepable_bytes += bytes;
    }

    /// The largest number of bytes that `record` can take in any batch, header of the batch left out.
    pub fn upper_bound(record: &Record<'_>) -> usize {
        let headers: usize = record
            .headers
            .iter()
            .map(|h| 10 + h.key.len() + h.value.map_or(0, <[u8]>::len))
            .sum();
        PREFIX_BYTES
            + 5
            + record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + headers
    }

    /// Appends a record and gives its index in the batch.
    ///
    /// # Errors
    /// [`NeedsRoom`] when the chunks are full; the batch is then as it was.
    #[inline]
    pub fn append(&mut self, record: &Record<'_>, timestamp: i64) -> Result<u32, NeedsRoom> {
        let base = if self.count == 0 {
            timestamp
        } else {
            self.base_timestamp
        };
        let delta = timestamp.wrapping_sub(base);
        if record.key.is_none()
            && record.headers.is_empty()
            && record.value_to_keep().is_none()
            && let Some(value) = record.value
            && let Some(total) = self.put_plain(value, delta)
        {
            self.note(total, timestamp);
            return Ok(self.count - 1);
        }
        self.append_any(record, timestamp, delta)
    }

    fn append_any(
        &mut self,
        record: &Record<'_>,
        timestamp: i64,
        delta: i64,
    ) -> Result<u32, NeedsRoom> {
        let key_len = record.key.map_or(0, <[u8]>::len);
        let value_len = record.value.map_or(0, <[u8]>::len);
        let headers_len = if record.headers.is_empty() {
            1
        } else {
            headers_bytes(&record.headers)
        };
        let offset_delta = self.count.cast_signed();
        let body = 1
            + varint::size_i64(delta)
            + varint::size_i32(offset_delta)
            + varint::size_i32(wire_len(record.key, key_len))
            + key_len
            + varint::size_i32(wire_len(record.value, value_len))
            + value_len
            + headers_len;
        let total = varint::size_i32(wire_count(body)) + body;
        // A checksum that nobody wants: the section will be compressed, and so copied anyway.
        let kept = record
            .value_to_keep()
            .filter(|value| self.crc.is_some() && value.len() <= self.keepable_bytes);
        let kept_len = kept.map_or(0, Bytes::len);
        let copied = total - kept_len;
        if copied > self.spare_bytes {
            return Err(NeedsRoom(copied - self.spare_bytes));
        }
        self.put_any(record, delta, body, kept);
        self.keepable_bytes -= kept_len;
        self.spare_bytes += kept_len;
        self.note(total, timestamp);
        Ok(self.count - 1)
    }

    /// Writes a record without key and headers, if the open chunk has room for all of it, and says
    /// how long it is: most records are such, and take less than half the time so.
    #[inline]
    fn put_plain(&mut self, value: &[u8], delta: i64) -> Option<usize> {
        let inner = varint::Packed::default()
            .with(0)? // attributes: unused
            .with(delta)?
            .with(i64::from(self.count))?
            .with(-1)?
            .with(i64::from(wire_count(value.len())))?;
        let body = inner.len() + value.len() + 1;
        let prefix = varint::Packed::default()
            .with(i64::from(wire_count(body)))?
            .with_all(inner)?;
        let room = self.open.capacity() - self.open.len();
        if room <= varint::Packed::MAX_BYTES + value.len() {
            return None;
        }
        let end = self.open.len() + prefix.len();
        self.open.extend_from_slice(&prefix.bytes());
        self.open.truncate(end);
        self.open.extend_from_slice(value);
        self.open.push(0); // no headers
        Some(prefix.len() + value.len() + 1)
    }

    /// Writes a record that is known to fit.
    fn put_any(&mut self, record: &Record<'_>, delta: i64, body: usize, kept: Option<&Bytes>) {
        let key_len = record.key.map_or(0, <[u8]>::len);
        let offset_delta = self.count.cast_signed();
        let value_len = record.value.map_or(0, <[u8]>::len);
        let mut prefix = [0u8; PREFIX_BYTES];
        let mut at = varint::write_i32(&mut prefix, 0, wire_count(body));
        at += 1; // attributes: unused, zero
        at = varint::write_i64(&mut prefix, at, delta);
        at = varint::write_i32(&mut prefix, at, offset_delta);
        at = varint::write_i32(&mut prefix, at, wire_len(record.key, key_len));
        if let Some(key) = record.key {
            self.put(&prefix[..at]);
            self.put(key);
            at = 0;
        }
        at = varint::write_i32(&mut prefix, at, wire_len(record.value, value_len));
        self.put(&prefix[..at]);
        match (kept, record.value) {
            (Some(value), _) => self.keep(value.clone()),
            (None, Some(value)) => self.put(value),
            (None, None) => {}
        }
        if record.headers.is_empty() {
            self.put(&[0]);
        } else {
            self.put_headers(&record.headers);
        }
    }

    /// Counts a record that was written.
    #[inline]
    fn note(&mut self, total: usize, timestamp: i64) {
        self.spare_bytes -= total;
        self.bytes += total;
        if self.open.len() >= self.summed + CHECKSUM_STEP_BYTES {
            self.sum();
        }
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        } else if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
        }
        self.count += 1;
    }

    #[cold]
    fn put_headers(&mut self, headers: &[Header<'_>]) {
        let mut prefix = [0u8; 5];
        let at = varint::write_i32(&mut prefix, 0, wire_count(headers.len()));
        self.put(&prefix[..at]);
        for header in headers {
            let at = varint::write_i32(&mut prefix, 0, wire_count(header.key.len()));
            self.put(&prefix[..at]);
            self.put(header.key.as_bytes());
            let value_len = header.value.map_or(0, <[u8]>::len);
            let at = varint::write_i32(&mut prefix, 0, wire_len(header.value, value_len));
            self.put(&prefix[..at]);
            self.put(header.value.unwrap_or_default());
        }
    }

    /// Writes bytes that are known to fit, over as many chunks as it takes.
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.open.capacity() - self.open.len() {
            self.open.extend_from_slice(bytes);
        } else {
            self.put_across(bytes);
        }
    }

    #[cold]
    fn put_across(&mut self, mut bytes: &[u8]) {
        loop {
            let room = self.open.capacity() - self.open.len();
            let (head, tail) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(head);
            if tail.is_empty() {
                return;
            }
            self.sum();
            let Some(next) = self.room.chunks.get_mut(self.full) else {
                return;
            };
            std::mem::swap(&mut self.open, next);
            self.full += 1;
            self.summed = 0;
            bytes = tail;
        }
    }

    /// Puts a value where the chunks end now.
    fn keep(&mut self, value: Bytes) {
        self.sum();
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, &value));
        self.kept_bytes += value.len();
        self.room.kept.push(Kept {
            value,
            chunk: self.full,
            offset: self.open.len(),
        });
    }

    /// Carries the checksum to the end of what is written.
    #[cold]
    fn sum(&mut self) {
        let new = self.open.get(self.summed..).unwrap_or_default();
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, new));
        self.summed = self.open.len();
    }

    /// Ends the batch. `wrap` turns each chunk into shared bytes (and takes back unused ones, which
    /// come empty).
    pub fn seal(self, mut wrap: impl FnMut(Vec<u8>) -> Bytes) -> SealedRecords {
        self.seal_kept(|chunk, _| wrap(chunk)).0
    }

    /// As [`seal`](Self::seal); `wrap` is also told how many bytes of values are kept behind the
    /// records of each chunk, or were allowed for and are not kept.
    pub fn seal_kept(
        mut self,
        mut wrap: impl FnMut(Vec<u8>, usize) -> Bytes,
    ) -> (SealedRecords, BatchRoom) {
        self.sum();
        let pieces = &mut self.room.pieces;
        let mut kept = self.room.kept.drain(..);
        let mut over = self.keepable_bytes;
        let chunks = &mut self.room.chunks;
        for (place, chunk) in chunks.drain(..self.full).chain([self.open]).enumerate() {
            let here = kept.as_slice();
            let count = here.partition_point(|kept| kept.chunk == place);
            let kept_here: usize = here.iter().take(count).map(|kept| kept.value.len()).sum();
            let mut rest = wrap(chunk, kept_here + std::mem::take(&mut over));
            let mut taken = 0;
            for kept in kept.by_ref().take(count) {
                pieces.push(rest.split_to((kept.offset - taken).min(rest.len())));
                pieces.push(kept.value);
                taken = kept.offset;
            }
            if !rest.is_empty() {
                pieces.push(rest);
            }
        }
        for unused in chunks.drain(..) {
            drop(wrap(unused, 0));
        }
        drop(kept);
        let sealed = SealedRecords {
            segments: Segments::drained(pieces),
            bytes: self.bytes,
            raw_bytes: self.bytes,
            crc: self.crc,
            compression: Compression::None,
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        };
        (sealed, self.room)
    }
}

/// A length on the wire. Everything here is below the batch limit, which is far below `i32::MAX`.
fn wire_count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn wire_len(field: Option<&[u8]>, len: usize) -> i32 {
    if field.is_some() { wire_count(len) } else { -1 }
}

fn headers_bytes(headers: &[Header<'_>]) -> usize {
    let each = |header: &Header<'_>| {
        let value_len = header.value.map_or(0, <[u8]>::len);
        varint::size_i32(wire_count(header.key.len()))
            + header.key.len()
            + varint::size_i32(wire_len(header.value, value_len))
            + value_len
    };
    varint::size_i32(wire_count(headers.len())) + headers.iter().map(each).sum::<usize>()
}

/// Who a batch says it is from, and where in that producer's sequence it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStamp {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
}

/// The records of a batch that takes no more; what is missing is the header.
#[derive(Debug, Clone)]
pub struct SealedRecords {
    segments: Segments,
    bytes: usize,
    raw_bytes: usize,
    /// Over the section, once it is known.
    crc: Option<u32>,
    compression: Compression,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl SealedRecords {
    /// How many records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size on the wire, header included.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.bytes
    }

    /// Size before compression, header included.
    pub fn raw_size_bytes(&self) -> usize {
        HEADER_BYTES + self.raw_bytes
    }

    /// The records section, in pieces.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) fn segments_mut(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// The records section's pieces themselves.
    pub fn into_segments(self) -> Segments {
        self.segments
    }

    /// How the section is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The time of the first record.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    fn section_crc(&self) -> u32 {
        let append = |crc, segment: &Bytes| crc32c::crc32c_append(crc, segment);
        self.crc
            .unwrap_or_else(|| self.segments.iter().fold(0, append))
    }

    /// The batch header for a stamp; `None` for a producer without idempotence.
    pub fn header(&self, stamp: Option<BatchStamp>) -> [u8; HEADER_BYTES] {
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: wire_count(HEADER_BYTES - 12 + self.bytes),
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: self.compression.bits(),
            last_offset_delta: wire_count(self.count.saturating_sub(1) as usize),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: wire_count(self.count as usize),
        };
        if let Some(stamp) = stamp {
            header.producer_id = stamp.producer_id;
            header.producer_epoch = stamp.epoch;
            header.base_sequence = stamp.base_sequence;
            header.attributes |= if stamp.transactional { 0x10 } else { 0 };
        }
        let mut out = [0u8; HEADER_BYTES];
        header.write(&mut out);
        let crc = crc::combine(crc32c::crc32c(&out[21..]), self.section_crc(), self.bytes);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests;
