//! The records inside batches, read with the client's own reader.

use bytes::Bytes;
use ottla_proto::batch::{BatchRef, Records};

/// How far a compressed batch may inflate when the broker itself looks into it.
const INFLATED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// One record in a log, with its batch's stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is null.
    pub value: Option<Vec<u8>>,
    /// Headers in order; a value of `None` is null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The producer id of its batch; `None` if it has none.
    pub producer_id: Option<i64>,
    /// The producer epoch of its batch; -1 without a producer id.
    pub epoch: i16,
    /// Its own sequence: its batch's plus its place there; -1 without a producer id.
    pub sequence: i32,
}

/// The records are not what the batch's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Visits every record of one batch, in order, as (offset, timestamp); the visitor ends it by
/// `false`.
fn walk(
    bytes: &[u8],
    inflated_max: usize,
    mut visit: impl FnMut(i64, i64) -> bool,
) -> Result<(), Unreadable> {
    let batch = BatchRef::parse(bytes).map_err(|_| Unreadable)?;
    let section = batch.decompressed(inflated_max).map_err(|_| Unreadable)?;
    for record in Records::new(&batch.header, &section) {
        let record = record.map_err(|_| Unreadable)?;
        if !visit(record.offset, record.timestamp) {
            return Ok(());
        }
    }
    Ok(())
}

/// Checks that a batch holds the records that its header counts, at offsets without gaps.
///
/// # Errors
/// It does not, or it does not inflate within `inflated_max` bytes.
pub(crate) fn validate(bytes: &[u8], inflated_max: usize) -> Result<(), Unreadable> {
    let header = BatchRef::parse(bytes).map_err(|_| Unreadable)?.header;
    let mut next = header.base_offset;
    walk(bytes, inflated_max, |offset, _| {
        let follows = offset == next;
        next += i64::from(follows);
        follows
    })?;
    if next == header.base_offset + i64::from(header.record_count) {
        Ok(())
    } else {
        Err(Unreadable)
    }
}

/// The places of the records without a key.
pub(crate) fn keyless(bytes: &[u8], inflated_max: usize) -> Result<Vec<u32>, Unreadable> {
    let batch = BatchRef::parse(bytes).map_err(|_| Unreadable)?;
    let section = batch.decompressed(inflated_max).map_err(|_| Unreadable)?;
    let mut places = Vec::new();
    for (place, record) in (0u32..).zip(Records::new(&batch.header, &section)) {
        if record.map_err(|_| Unreadable)?.key.is_none() {
            places.push(place);
        }
    }
    Ok(places)
}

/// The first record of a batch at or after a time, as (offset, timestamp).
pub(crate) fn first_at_time(bytes: &[u8], millis: i64, from: i64) -> Option<(i64, i64)> {
    let mut found = None;
    let walked = walk(bytes, INFLATED_BYTES_MAX, |offset, timestamp| {
        if timestamp >= millis && offset >= from {
            found = Some((offset, timestamp));
        }
        found.is_none()
    });
    walked.ok().and(found)
}

/// The records of one batch; nothing of a batch that cannot be read, or that only ends a
/// transaction.
pub(crate) fn stored(bytes: &Bytes) -> Vec<StoredRecord> {
    let Ok(batch) = BatchRef::parse(bytes) else {
        return Vec::new();
    };
    if batch.header.is_control() {
        return Vec::new();
    }
    let Ok(section) = batch.decompressed(INFLATED_BYTES_MAX) else {
        return Vec::new();
    };
    let header = &batch.header;
    let stamped = header.producer_id >= 0;
    let records = Records::new(header, &section).map_while(Result::ok);
    let records = records.map(|record| {
        let place = i32::try_from(record.offset - header.base_offset).unwrap_or(0);
        let headers = record.headers.map(|h| {
            let key = String::from_utf8_lossy(h.key).into_owned();
            (key, h.value.map(<[u8]>::to_vec))
        });
        StoredRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
            producer_id: stamped.then_some(header.producer_id),
            epoch: if stamped { header.producer_epoch } else { -1 },
            sequence: if stamped {
                header
                    .base_sequence
                    .checked_add(place)
                    .unwrap_or_else(|| place - (i32::MAX - header.base_sequence) - 1)
            } else {
                -1
            },
        }
    });
    records.collect()
}
