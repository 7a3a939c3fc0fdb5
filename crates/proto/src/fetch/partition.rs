//! Where the consumer stands in one partition.

use super::cursor::Cursor;
use super::progress::Progress;
use super::{OffsetReset, Point};
use crate::batch::Batches;
use crate::error::Error;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transaction that was aborted, as a read_committed answer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose transaction.
    pub producer_id: i64,
    /// The offset of its first record in this partition.
    pub first_offset: i64,
}

/// Where to begin in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Where [`Fetcher::start`](super::Fetcher::start) will say: the group's commit is being
    /// looked up.
    Awaited,
    /// At this offset; with the leader epoch of the record before it, where known.
    Offset(i64, Option<i32>),
    /// At a point that the leader has to be asked for.
    At(Point),
    /// Where the reset policy says.
    Policy,
}

/// What the partition awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::enum_variant_names,
    reason = "states are named by what they await"
)]
pub(super) enum Phase {
    /// Somebody shall say where to begin.
    AwaitingStart,
    /// The leader is to be asked for this point's offset.
    AwaitingOffset(Point),
    /// Records; this is the next offset to ask for.
    AwaitingRecords(i64),
    /// The user, to say where to go on.
    AwaitingSeek,
}

/// All that is kept of one partition.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) progress: Arc<Progress>,
    /// Another with every seek and reset: what was asked for before is of no use then.
    pub(super) incarnation: u64,
    pub(super) phase: Phase,
    pub(super) leader: Option<BrokerId>,
    pub(super) leader_epoch: Option<i32>,
    pub(super) topic_id: Option<TopicId>,
    /// The epoch of the last batch that was fetched: the leader compares it with its log and tells
    /// where they part (KIP-595).
    pub(super) last_fetched_epoch: Option<i32>,
    pub(super) in_flight: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) failures: u32,
    pub(super) paused: bool,
    /// Bytes in the ready queue.
    pub(super) queued_bytes: usize,
    /// Set aside while paused.
    pub(super) parked: VecDeque<Cursor>,
    /// The user holds a cursor.
    pub(super) opened: bool,
    /// What was fetched last ends in bytes that are no batch: nothing behind them can be asked for.
    pub(super) damaged: bool,
    /// Why only the user can say where to go on. Told again whenever the user asks for records.
    pub(super) lost: Option<Error>,
    /// An error waits for the user.
    pub(super) fault_queued: bool,
    /// Counts up; what was served longest ago is asked for first, so that the size limit of an
    /// answer starves nobody.
    pub(super) served: u64,
}

impl PartitionState {
    pub(super) fn new(partition: TopicPartition, incarnation: u64) -> Self {
        Self {
            progress: Arc::new(Progress::new(partition)),
            incarnation,
            phase: Phase::AwaitingStart,
            leader: None,
            leader_epoch: None,
            topic_id: None,
            last_fetched_epoch: None,
            in_flight: false,
            retry_at: None,
            failures: 0,
            paused: false,
            queued_bytes: 0,
            parked: VecDeque::new(),
            opened: false,
            damaged: false,
            lost: None,
            fault_queued: false,
            served: 0,
        }
    }

    /// Begins anew at `start`; what was asked for or fetched before is forgotten.
    pub(super) fn begin(&mut self, start: Start, policy: OffsetReset, incarnation: u64) {
        self.incarnation = incarnation;
        self.in_flight = false;
        self.retry_at = None;
        self.failures = 0;
        self.queued_bytes = 0;
        self.parked.clear();
        self.opened = false;
        self.damaged = false;
        self.lost = None;
        self.fault_queued = false;
        self.last_fetched_epoch = None;
        self.phase = match start {
            Start::Awaited => Phase::AwaitingStart,
            Start::Offset(offset, epoch) => {
                self.last_fetched_epoch = epoch;
                Phase::AwaitingRecords(offset)
            }
            Start::At(point) => Phase::AwaitingOffset(point),
            Start::Policy => match policy {
                OffsetReset::Earliest => Phase::AwaitingOffset(Point::Earliest),
                OffsetReset::Latest => Phase::AwaitingOffset(Point::Latest),
                OffsetReset::None => Phase::AwaitingSeek,
            },
        };
        match self.phase {
            Phase::AwaitingRecords(offset) => self.progress.place(offset, self.last_fetched_epoch),
            _ => self.progress.unplace(),
        }
    }

    /// Whether everything that was fetched is handed out and no error is waiting.
    pub(super) fn is_drained(&self) -> bool {
        self.queued_bytes == 0 && self.parked.is_empty() && !self.opened && !self.fault_queued
    }

    /// Whether the leader may be asked for something now.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        !self.in_flight && !self.fault_queued && self.retry_at.is_none_or(|at| now >= at)
    }

    pub(super) fn back_off(&mut self, now: Instant, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }

    pub(super) fn recovered(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }
}

/// What an answer's bytes hold, by their headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// The offset behind the last whole batch.
    pub(super) next_offset: i64,
    /// The leader epoch of the last whole batch.
    pub(super) leader_epoch: Option<i32>,
    /// Bytes follow that are no batch: whoever walks the records will come to them and say so.
    pub(super) is_damaged: bool,
}

/// Looks where `records`, asked for from `offset` on, will take the position.
pub(super) fn scan(records: &[u8], offset: i64) -> Scan {
    let mut scan = Scan {
        next_offset: offset,
        leader_epoch: None,
        is_damaged: false,
    };
    for batch in Batches::new(records) {
        match batch {
            Ok(batch) => {
                let after = batch.header.last_offset().saturating_add(1);
                scan.next_offset = scan.next_offset.max(after);
                scan.leader_epoch = Some(batch.header.partition_leader_epoch);
            }
            Err(_) => scan.is_damaged = true,
        }
    }
    scan.leader_epoch = scan.leader_epoch.filter(|epoch| *epoch >= 0);
    scan
}
