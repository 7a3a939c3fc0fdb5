//! Walking what was fetched of one partition, a record at a time, without copying.

use super::partition::Aborted;
use super::progress::Progress;
use super::{Isolation, fetcher::FetchConfig};
use crate::batch::{
    BatchHeader, BatchRef, Batches, ControlType, HeaderRefs, RecordRef, Records, control_type,
    varint,
};
use crate::error::{Error, ErrorKind, Result};
use crate::topic::TopicPartition;
use bytes::{Buf, Bytes};
use std::borrow::Cow;
use std::sync::Arc;

/// What a record's timestamp means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// The producer gave it.
    Create,
    /// The broker gave it, when it appended the batch.
    LogAppend,
}

/// A record's headers: read when asked for.
#[derive(Debug, Clone, Default)]
struct Headers {
    /// The whole record, when it has headers.
    record: Option<Bytes>,
}

impl Headers {
    fn iter(&self) -> HeaderRefs<'_> {
        // Offsets and times do not matter here; the bytes were walked once already.
        let header = BatchHeader {
            record_count: 1,
            last_offset_delta: i32::MAX,
            ..BatchHeader::default()
        };
        let first = |record| Records::new(&header, record).next();
        let record = self.record.as_deref().and_then(first);
        match record {
            Some(Ok(record)) => record.headers,
            _ => HeaderRefs::default(),
        }
    }
}

/// A record that was fetched. Its parts are slices of the answer, or of the inflated batch.
#[derive(Debug, Clone)]
pub struct FetchedRecord {
    /// Whose it is.
    pub(crate) progress: Arc<Progress>,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; -1 when its producer gave none.
    pub timestamp: i64,
    /// What the timestamp means.
    pub timestamp_kind: TimestampKind,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is null, a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    headers: Headers,
}

impl FetchedRecord {
    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.progress.partition().topic
    }

    /// Its partition's number.
    pub fn partition(&self) -> i32 {
        self.progress.partition().partition
    }

    /// Its topic and partition.
    pub fn topic_partition(&self) -> &TopicPartition {
        self.progress.partition()
    }

    /// Its headers, in order, duplicates kept.
    pub fn headers(&self) -> HeaderRefs<'_> {
        self.headers.iter()
    }
}

/// What was fetched of one partition and not handed out yet.
#[derive(Debug)]
pub struct Cursor {
    pub(super) progress: Arc<Progress>,
    pub(super) incarnation: u64,
    /// Batches that are not open yet.
    batches: Bytes,
    open: Option<OpenBatch>,
    /// Records below are skipped: a batch can begin before the offset that was asked for.
    position: i64,
    /// Where the position is once everything is handed out.
    end: i64,
    rules: Rules,
    /// By first offset; those already reached are taken out.
    aborted: std::vec::IntoIter<Aborted>,
    /// The producers whose records are of an aborted transaction at this point of the log.
    aborting: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    check_crcs: bool,
    isolation: Isolation,
    inflated_max_bytes: usize,
}

/// A batch being walked.
#[derive(Debug)]
struct OpenBatch {
    /// The batch's header with a record count of one: records are read one at a time.
    header: BatchHeader,
    /// The records, inflated, that are left.
    section: Bytes,
    remaining: i32,
}

/// What a batch holds for the user.
enum Content {
    Records(OpenBatch),
    Nothing,
}

impl Cursor {
    pub(super) fn new(
        progress: Arc<Progress>,
        incarnation: u64,
        batches: Bytes,
        (position, end): (i64, i64),
        mut aborted: Vec<Aborted>,
        config: &FetchConfig,
    ) -> Self {
        // Some brokers send them in another order.
        aborted.sort_by_key(|one| one.first_offset);
        Self {
            progress,
            incarnation,
            batches,
            open: None,
            position,
            end,
            rules: Rules {
                check_crcs: config.check_crcs,
                isolation: config.isolation,
                inflated_max_bytes: config.inflated_max_bytes,
            },
            aborted: aborted.into_iter(),
            aborting: Vec::new(),
        }
    }

    /// Whose records these are, and how far they are handed out.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The offset of the next record to hand out.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// The bytes held, counting an inflated batch as inflated.
    pub(super) fn held_bytes(&self) -> usize {
        self.batches.len() + self.open.as_ref().map_or(0, |open| open.section.len())
    }

    /// Copies what is left out of the answer it came with, so that a partition that is paused does
    /// not keep the other partitions' bytes in memory.
    pub(super) fn detach(&mut self) {
        self.batches = Bytes::copy_from_slice(&self.batches);
        if let Some(open) = &mut self.open {
            open.section = Bytes::copy_from_slice(&open.section);
        }
    }

    /// The next record, with the progress moved behind it; `None` when everything is handed out.
    ///
    /// # Errors
    /// `Corrupt` (or `UnsupportedVersion` for the formats before Kafka 0.11), with the partition and
    /// the offset, at bytes that cannot be believed. The position stays before them, and the
    /// cursor is of no further use.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<FetchedRecord>> {
        loop {
            let Some(open) = &mut self.open else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            if open.remaining <= 0 {
                self.close_batch();
                continue;
            }
            match open.take(&self.progress) {
                Ok(record) if record.offset < self.position => {}
                Ok(record) => {
                    self.position = record.offset + 1;
                    self.progress.hand_out_to(self.position);
                    return Ok(Some(record));
                }
                Err(error) => return Err(self.located(error)),
            }
        }
    }

    /// Behind the batch's last offset, which compaction may have left without a record.
    fn close_batch(&mut self) {
        if let Some(open) = self.open.take() {
            self.pass(open.header.last_offset().saturating_add(1));
        }
    }

    fn pass(&mut self, position: i64) {
        if position > self.position {
            self.position = position;
            self.progress.hand_out_to(position);
        }
    }

    /// Opens batches until one has something for the user. `false` when none is left.
    fn open_next(&mut self) -> Result<bool> {
        loop {
            let batches = self.batches.clone();
            let Some(batch) = Batches::new(&batches).next() else {
                self.pass(self.end);
                return Ok(false);
            };
            let batch = batch.map_err(|error| self.located(error))?;
            let (size, after) = (
                batch.bytes.len(),
                batch.header.last_offset().saturating_add(1),
            );
            if after <= self.position {
                self.batches = self.batches.slice(size..);
                continue;
            }
            let content = self
                .read_batch(&batch)
                .map_err(|error| self.located(error))?;
            let (leader_epoch, aborts) = (batch.header.partition_leader_epoch, self.aborts(&batch));
            self.follow_transactions(&batch.header, aborts);
            let hidden = self.is_hidden(&batch.header);
            self.batches = self.batches.slice(size..);
            self.progress.enter_batch(leader_epoch);
            match content {
                Content::Records(open) if !hidden => {
                    self.open = Some(open);
                    return Ok(true);
                }
                _ => self.pass(after),
            }
        }
    }

    fn read_batch(&self, batch: &BatchRef<'_>) -> Result<Content> {
        if self.rules.check_crcs {
            batch.verify_crc()?;
        }
        if batch.header.is_control() {
            return Ok(Content::Nothing);
        }
        let section = match batch.decompressed(self.rules.inflated_max_bytes)? {
            Cow::Borrowed(section) => self.batches.slice_ref(section),
            Cow::Owned(section) => Bytes::from(section),
        };
        let remaining = batch.header.record_count;
        let header = BatchHeader {
            record_count: 1,
            ..batch.header.clone()
        };
        Ok(Content::Records(OpenBatch {
            header,
            section,
            remaining,
        }))
    }

    /// Whether the batch is the mark of an aborted transaction.
    fn aborts(&self, batch: &BatchRef<'_>) -> bool {
        if !batch.header.is_control() {
            return false;
        }
        let first = Records::new(&batch.header, batch.records_section()).next();
        let key = first.and_then(Result::ok).and_then(|record| record.key);
        key.and_then(control_type) == Some(ControlType::Abort)
    }

    /// Keeps track of which producers' transactions are aborted ones here.
    fn follow_transactions(&mut self, header: &BatchHeader, abort_mark: bool) {
        if self.rules.isolation == Isolation::ReadUncommitted || header.producer_id < 0 {
            return;
        }
        let reached = |one: &Aborted| one.first_offset <= header.last_offset();
        while let Some(one) = self.aborted.as_slice().first().copied().filter(reached) {
            self.aborted.next();
            self.aborting.push(one.producer_id);
        }
        if abort_mark {
            self.aborting
                .retain(|producer| *producer != header.producer_id);
        }
    }

    fn is_hidden(&self, header: &BatchHeader) -> bool {
        header.is_transactional() && self.aborting.contains(&header.producer_id)
    }

    fn located(&self, error: Error) -> Error {
        // The message names the batch; the place names the partition.
        error.at_partition(self.progress.partition().clone())
    }
}

impl OpenBatch {
    /// Takes the next record off the front.
    #[inline]
    fn take(&mut self, progress: &Arc<Progress>) -> Result<FetchedRecord> {
        let mut rest: &[u8] = &self.section;
        let body = varint::read_i32(&mut rest).and_then(|length| usize::try_from(length).ok());
        let prefix = self.section.len() - rest.len();
        let size = body.map_or(usize::MAX, |body| body.saturating_add(prefix));
        let Some(bytes) = self.section.get(..size) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the record batch at offset {} ends {} records early",
                    self.header.base_offset, self.remaining
                ),
            ));
        };
        let mut records = Records::new(&self.header, bytes);
        let record = match records.next() {
            Some(record) => self.own(&record?, size, progress),
            None => return Err(Error::new(ErrorKind::Corrupt, "a record is missing")),
        };
        self.section.advance(size);
        self.remaining -= 1;
        if self.remaining == 0 && !self.section.is_empty() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the record batch at offset {} has {} bytes behind its last record",
                    self.header.base_offset,
                    self.section.len()
                ),
            ));
        }
        Ok(record)
    }

    #[inline]
    fn own(&self, record: &RecordRef<'_>, size: usize, progress: &Arc<Progress>) -> FetchedRecord {
        let own = |part: &[u8]| self.section.slice_ref(part);
        FetchedRecord {
            progress: Arc::clone(progress),
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_kind: if self.header.is_log_append_time() {
                TimestampKind::LogAppend
            } else {
                TimestampKind::Create
            },
            key: record.key.map(own),
            value: record.value.map(own),
            headers: Headers {
                record: (record.headers.len() > 0).then(|| self.section.slice(..size)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
