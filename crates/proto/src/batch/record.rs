//! Walking the records of one batch, borrowed.

use super::header::{BatchHeader, corrupt};
use super::varint;
use crate::error::Result;

/// One record of a batch, borrowing the batch's bytes.
#[derive(Debug, Clone)]
pub struct RecordRef<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; -1 when its producer gave none.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null, a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Headers, in order, duplicates kept.
    pub headers: HeaderRefs<'a>,
}

/// One header of a record that was read.
///
/// Kafka says that a header's key is UTF-8 but no broker checks it, and a consumer must not get
/// stuck on a record that it cannot change: so the key stays bytes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// Key; may repeat within a record.
    pub key: &'a [u8],
    /// Value; `None` is Kafka's null, not the empty value.
    pub value: Option<&'a [u8]>,
}

impl<'a> HeaderRef<'a> {
    /// The key as text, unless it is not UTF-8.
    pub fn key_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

/// The headers of a record, in order. The record's reader has checked them all, so that walking
/// them cannot fail.
#[derive(Debug, Clone, Default)]
pub struct HeaderRefs<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Iterator for HeaderRefs<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<HeaderRef<'a>> {
        self.count = self.count.checked_sub(1)?;
        take_header(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for HeaderRefs<'_> {}
impl std::iter::FusedIterator for HeaderRefs<'_> {}

/// Walks the records of one batch without allocating.
///
/// It ends at the first error, which is its last item. Offsets lie within the batch; whether they
/// ascend is the writer's affair and not checked.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    remaining: i32,
    failed: bool,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl<'a> Records<'a> {
    /// Begins at the start of the records section of the batch with this header, inflated if the
    /// batch is compressed.
    pub fn new(header: &BatchHeader, section: &'a [u8]) -> Self {
        Self {
            rest: section,
            remaining: header.record_count,
            failed: false,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            append_time: header.is_log_append_time().then_some(header.max_timestamp),
        }
    }

    fn take_record(&mut self) -> Result<RecordRef<'a>, &'static str> {
        let mut body = take_length_prefixed(&mut self.rest)
            .map_err(|_| "its length")?
            .ok_or("its length")?;
        // The attributes byte has no meaning yet.
        body.split_off_first().ok_or("its attributes")?;
        let timestamp_delta = varint::read_i64(&mut body).ok_or("its timestamp delta")?;
        let offset_delta = varint::read_i32(&mut body).ok_or("its offset delta")?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err("its offset delta");
        }
        let key = take_length_prefixed(&mut body).map_err(|_| "its key's length")?;
        let value = take_length_prefixed(&mut body).map_err(|_| "its value's length")?;
        let headers = take_headers(&mut body)?;
        if !body.is_empty() {
            return Err("its length, more than its fields");
        }
        Ok(RecordRef {
            // The header's check saw to it that the last offset does not overflow.
            offset: self.base_offset.saturating_add(i64::from(offset_delta)),
            // Java adds with wrapping too, so that a base that its writer wrapped comes out right.
            timestamp: self
                .append_time
                .unwrap_or(self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }

    fn fail(&mut self, message: String) -> Option<Result<RecordRef<'a>>> {
        self.failed = true;
        Some(Err(corrupt(message)))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.remaining <= 0 {
            if self.rest.is_empty() {
                return None;
            }
            return self.fail(format!(
                "the record batch at offset {} has {} bytes behind its last record",
                self.base_offset,
                self.rest.len()
            ));
        }
        match self.take_record() {
            Ok(record) => {
                self.remaining -= 1;
                Some(Ok(record))
            }
            Err(what) => self.fail(format!(
                "a record in the batch at offset {} is malformed: {what} ({} records before the \
                 batch's end)",
                self.base_offset, self.remaining
            )),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is the header's claim: no record is smaller than seven bytes with its length,
        // so a caller that reserves by it reserves no more than the bytes justify.
        const MIN_RECORD_BYTES: usize = 7;
        let claimed = usize::try_from(self.remaining).unwrap_or(0);
        let upper = claimed.min(self.rest.len() / MIN_RECORD_BYTES);
        (0, Some(upper + 1))
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// A length of -1 is null, any other that the bytes do not back is an error.
#[inline]
fn take_length_prefixed<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ()> {
    let length = varint::read_i32(input).ok_or(())?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(drop)?;
    let (taken, rest) = input.split_at_checked(length).ok_or(())?;
    *input = rest;
    Ok(Some(taken))
}

fn take_header<'a>(input: &mut &'a [u8]) -> Result<HeaderRef<'a>, &'static str> {
    let key = take_length_prefixed(input)
        .map_err(|()| "a header key's length")?
        .ok_or("a header key's length")?;
    let value = take_length_prefixed(input).map_err(|()| "a header value's length")?;
    Ok(HeaderRef { key, value })
}

fn take_headers<'a>(body: &mut &'a [u8]) -> Result<HeaderRefs<'a>, &'static str> {
    let count = varint::read_i32(body)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or("its header count")?;
    let headers = HeaderRefs { rest: body, count };
    // Each turn takes two bytes at least, so that a lying count ends with the bytes.
    for _ in 0..count {
        take_header(body)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
