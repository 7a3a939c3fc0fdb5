//! One partition's log: batches in order, kept in memory as the bytes that arrived.

use crate::batch::{self, Head};
use crate::partition::Marker;
use crate::sequence::{Check, Producers, Remembered, Stamp};
use crate::settings::FirstSequence;
use crate::transaction_index::{Aborted, TransactionIndex};
use bytes::{Bytes, BytesMut};
use ottla_proto::Code;
use std::collections::VecDeque;

/// A batch in the log.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    stamp: Option<Stamp>,
    content: Content,
    append_time: i64,
    pub(crate) bytes: Bytes,
}

impl Stored {
    /// The producer it is from, or about.
    fn producer_id(&self) -> Option<i64> {
        match self.content {
            Content::Marker(marker) => Some(marker.producer_id),
            _ => self.stamp.map(|stamp| stamp.producer_id),
        }
    }

    /// The end of a transaction, if it is one.
    pub(crate) fn marker(&self) -> Option<Marker> {
        match self.content {
            Content::Marker(marker) => Some(marker),
            _ => None,
        }
    }
}

/// What a batch is to transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Outside of any.
    Plain,
    Transactional,
    Marker(Marker),
}

/// How a batch is to be appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendAs {
    pub(crate) leader_epoch: i32,
    /// The time every record gets; `None` where records keep their own.
    pub(crate) append_time: Option<i64>,
    pub(crate) first_sequence: FirstSequence,
    /// Oldest batches are dropped to stay below this; the newest is always kept.
    pub(crate) retained_bytes_max: usize,
}

/// Where a batch is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// -1 where records keep their own time.
    pub(crate) append_time: i64,
}

impl From<Remembered> for Appended {
    fn from(known: Remembered) -> Self {
        Self {
            base_offset: known.base_offset,
            last_offset: known.last_offset,
            append_time: known.append_time,
        }
    }
}

/// The bytes that one read found.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) size_bytes: usize,
    /// The offset behind the last whole batch.
    pub(crate) end: i64,
}

/// One partition's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    size_bytes: usize,
    producers: Producers,
    transactions: TransactionIndex,
    /// Each leader epoch that wrote, with the offset at which it began.
    epochs: Vec<(i32, i64)>,
}

impl Log {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset that the next record gets.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Every batch, oldest first.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Stored> {
        self.batches.iter()
    }

    /// Appends a batch that [`batch::check`] took, or finds it among the last five.
    ///
    /// # Errors
    /// The code of the sequence rules.
    pub(crate) fn append(
        &mut self,
        mut bytes: BytesMut,
        mut head: Head,
        how: AppendAs,
    ) -> Result<Appended, Code> {
        let stamp = head.stamp();
        if let Some(stamp) = stamp {
            let untouched = self.end == 0;
            match self.producers.check(stamp, how.first_sequence, untouched)? {
                Check::Duplicate(known) => return Ok(known.into()),
                Check::Append => {}
            }
            let open = self.transactions.is_open(stamp.producer_id);
            if open && !head.is_transactional() {
                return Err(Code::INVALID_TXN_STATE);
            }
        }
        if let Some(millis) = how.append_time {
            batch::set_append_time(&mut bytes, &mut head, millis);
        }
        batch::place(&mut bytes, self.end, how.leader_epoch);
        let stored = Stored {
            base_offset: self.end,
            last_offset: self.end + i64::from(head.last_offset_delta),
            max_timestamp: head.max_timestamp,
            stamp,
            content: if head.is_transactional() {
                Content::Transactional
            } else {
                Content::Plain
            },
            append_time: how.append_time.unwrap_or(-1),
            bytes: bytes.freeze(),
        };
        let appended = Appended {
            base_offset: stored.base_offset,
            last_offset: stored.last_offset,
            append_time: stored.append_time,
        };
        if let Some(stamp) = stamp
            && stored.content == Content::Transactional
        {
            self.transactions
                .write(stamp.producer_id, stored.base_offset);
        }
        self.push(stored, how.leader_epoch);
        self.drop_oldest(how.retained_bytes_max);
        Ok(appended)
    }

    /// Appends the end of a transaction; its offset.
    pub(crate) fn append_marker(&mut self, marker: Marker, leader_epoch: i32, millis: i64) -> i64 {
        let mut bytes = batch::marker(marker, millis);
        batch::place(&mut bytes, self.end, leader_epoch);
        let offset = self.end;
        self.transactions
            .end(marker.producer_id, offset, !marker.committed);
        let stored = Stored {
            base_offset: offset,
            last_offset: offset,
            max_timestamp: millis,
            stamp: None,
            content: Content::Marker(marker),
            append_time: -1,
            bytes: bytes.freeze(),
        };
        self.push(stored, leader_epoch);
        offset
    }

    fn push(&mut self, stored: Stored, leader_epoch: i32) {
        self.remember(&stored);
        let newest = self.epochs.last();
        if newest.is_none_or(|(epoch, _)| *epoch < leader_epoch) {
            self.epochs.push((leader_epoch, self.end));
        }
        self.end = stored.last_offset + 1;
        self.size_bytes += stored.bytes.len();
        self.batches.push_back(stored);
    }

    fn remember(&mut self, stored: &Stored) {
        if let Content::Marker(marker) = stored.content {
            let offset = stored.base_offset;
            self.producers
                .mark(marker.producer_id, marker.producer_epoch, offset);
        }
        if let Some(stamp) = stored.stamp {
            self.producers.record(
                stamp,
                stored.base_offset,
                stored.last_offset,
                stored.append_time,
            );
        }
    }

    /// Whether a producer has an open transaction here, and writes under the epoch it began with.
    pub(crate) fn has_open(&self, producer_id: i64, epoch: i16) -> bool {
        self.transactions.is_open(producer_id) && self.producers.epoch(producer_id) == Some(epoch)
    }

    /// Whether the marker that was written at `offset` is still there, or was and is before the
    /// log's start by now.
    pub(crate) fn holds_marker(&self, offset: i64, producer_id: i64) -> bool {
        if offset < self.start {
            return true;
        }
        let at = self.batches.partition_point(|b| b.last_offset < offset);
        let content = self.batches.get(at).map(|stored| stored.content);
        matches!(content, Some(Content::Marker(m)) if m.producer_id == producer_id)
    }

    /// Up to where every transaction is decided, and the decision replicated.
    pub(crate) fn last_stable(&self, high_watermark: i64) -> i64 {
        let stable = self.transactions.last_stable(high_watermark);
        // An open transaction may have lost its first records to retention.
        stable.max(self.start).min(high_watermark)
    }

    /// Says how far the log is replicated.
    pub(crate) fn replicated(&mut self, high_watermark: i64) {
        self.transactions.replicated(high_watermark);
    }

    /// The batches below `stable` that were committed, or are outside of any transaction.
    pub(crate) fn committed(&self, stable: i64) -> Vec<Bytes> {
        let aborted = self.aborted_between(self.start, stable);
        let dropped = |stored: &Stored| {
            let within = |a: &Aborted| {
                stored.producer_id() == Some(a.producer_id)
                    && (a.first_offset..=a.last_offset).contains(&stored.base_offset)
            };
            stored.content == Content::Transactional && aborted.iter().any(within)
        };
        let below = self.batches.iter().take_while(|b| b.base_offset < stable);
        let kept = below.filter(|stored| !dropped(stored));
        kept.map(|stored| stored.bytes.clone()).collect()
    }

    /// The aborted transactions that have offsets from `from` to before `end`.
    pub(crate) fn aborted_between(&self, from: i64, end: i64) -> Vec<Aborted> {
        self.transactions.aborted_between(from, end)
    }

    fn drop_oldest(&mut self, retained_bytes_max: usize) {
        while self.size_bytes > retained_bytes_max && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.size_bytes -= oldest.bytes.len();
                self.start = self.start.max(oldest.last_offset + 1);
            }
        }
        self.transactions.drop_before(self.start);
    }

    /// Moves the start up to `offset`, as DeleteRecords does.
    pub(crate) fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        while self
            .batches
            .front()
            .is_some_and(|b| b.last_offset < self.start)
        {
            if let Some(oldest) = self.batches.pop_front() {
                self.size_bytes -= oldest.bytes.len();
            }
        }
        self.transactions.drop_before(self.start);
    }

    /// Cuts every batch that reaches `end` or beyond, as a follower that becomes leader does, and
    /// restores what the rest says of the producers.
    pub(crate) fn truncate(&mut self, end: i64) {
        while self.batches.back().is_some_and(|b| b.last_offset >= end) {
            if let Some(newest) = self.batches.pop_back() {
                self.size_bytes -= newest.bytes.len();
                self.end = newest.base_offset;
            }
        }
        self.start = self.start.min(self.end);
        self.epochs.retain(|(_, start)| *start < self.end);
        self.producers.forget_from(self.end);
        let forgotten: Vec<Stored> = self
            .batches
            .iter()
            .filter(|b| b.producer_id().is_some_and(|id| !self.producers.knows(id)))
            .cloned()
            .collect();
        forgotten.iter().for_each(|stored| self.remember(stored));
        self.transactions.cut(self.end);
        for stored in &self.batches {
            match (stored.content, stored.stamp) {
                (Content::Transactional, Some(stamp)) => {
                    self.transactions
                        .write(stamp.producer_id, stored.base_offset);
                }
                (Content::Marker(marker), _) => self.transactions.close(marker.producer_id),
                _ => {}
            }
        }
    }

    /// Reads whole batches from the one that holds `offset`, below `end`, as Kafka does: up to
    /// `bytes_max`, the last one cut short if it does not fit. The first batch is given whole
    /// whatever its size if `first_whole`, else nothing is given if it does not fit.
    pub(crate) fn read(&self, offset: i64, end: i64, bytes_max: usize, first_whole: bool) -> Read {
        let from = self.batches.partition_point(|b| b.last_offset < offset);
        let mut read = Read {
            end: offset,
            ..Read::default()
        };
        for stored in self.batches.range(from..) {
            if stored.base_offset >= end {
                break;
            }
            let left = bytes_max.saturating_sub(read.size_bytes);
            let size = stored.bytes.len();
            if size <= left || (read.chunks.is_empty() && first_whole) {
                read.size_bytes += size;
                read.end = stored.last_offset + 1;
                read.chunks.push(stored.bytes.clone());
                continue;
            }
            if !read.chunks.is_empty() && left > 0 {
                read.size_bytes += left;
                read.chunks.push(stored.bytes.slice(..left));
            }
            break;
        }
        read
    }

    /// The first batch below `end` in which a record may have this time or a later one.
    pub(crate) fn batch_at_time(&self, millis: i64, end: i64) -> Option<&Stored> {
        self.batches
            .iter()
            .take_while(|b| b.base_offset < end)
            .find(|b| b.max_timestamp >= millis && b.last_offset >= self.start)
    }

    /// The batch below `end` with the latest time; the oldest of several.
    pub(crate) fn batch_of_latest_time(&self, end: i64) -> Option<&Stored> {
        self.batches
            .iter()
            .take_while(|b| b.base_offset < end)
            .reduce(|best, b| {
                if b.max_timestamp > best.max_timestamp {
                    b
                } else {
                    best
                }
            })
    }

    /// The epoch that wrote the record at `offset`.
    pub(crate) fn epoch_at(&self, offset: i64) -> Option<i32> {
        let after = self.epochs.partition_point(|(_, start)| *start <= offset);
        self.epochs
            .get(after.checked_sub(1)?)
            .map(|(epoch, _)| *epoch)
    }

    /// The largest epoch up to `epoch` that wrote here and where it ended (KIP-320).
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let after = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = self.epochs.get(after.checked_sub(1)?)?;
        let end = self.epochs.get(after).map_or(self.end, |(_, start)| *start);
        Some((*found, end))
    }
}

#[cfg(test)]
mod tests;
