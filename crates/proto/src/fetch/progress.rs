//! How far the user is in one partition: written by whoever hands records out, read by whoever
//! commits. Plain atomics, so that handing out a record takes no lock.

use crate::topic::TopicPartition;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

const UNKNOWN: i64 = -1;

/// One partition's progress, from its assignment to its revocation.
#[derive(Debug)]
pub struct Progress {
    partition: TopicPartition,
    position: AtomicI64,
    handled: AtomicI64,
    leader_epoch: AtomicI32,
    high_watermark: AtomicI64,
    revoked: AtomicBool,
}

impl Progress {
    pub(super) fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            position: AtomicI64::new(UNKNOWN),
            handled: AtomicI64::new(UNKNOWN),
            leader_epoch: AtomicI32::new(-1),
            high_watermark: AtomicI64::new(UNKNOWN),
            revoked: AtomicBool::new(false),
        }
    }

    /// The partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The offset of the next record to hand out; `None` while it is being looked up.
    pub fn position(&self) -> Option<i64> {
        known(&self.position)
    }

    /// Everything below this offset was handed out before the user's latest call: an automatic
    /// commit may say that it is done with.
    pub fn handled(&self) -> Option<i64> {
        known(&self.handled)
    }

    /// The leader epoch of the last batch handed out from.
    pub fn leader_epoch(&self) -> Option<i32> {
        Some(self.leader_epoch.load(Ordering::Acquire)).filter(|epoch| *epoch >= 0)
    }

    /// The log's end as the last answer said.
    pub fn high_watermark(&self) -> Option<i64> {
        known(&self.high_watermark)
    }

    /// Whether the partition was taken away: nothing of it may be handed out any more.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// The user came back: what was handed out so far is done with.
    pub fn settle(&self) {
        let position = self.position.load(Ordering::Relaxed);
        self.handled.store(position, Ordering::Release);
    }

    /// Moves both to `offset`: nothing below it was, or will be, handed out. The epoch goes with it:
    /// one that is older than the offset's would make the next reader of a commit believe that the
    /// log was truncated.
    pub(super) fn place(&self, offset: i64, leader_epoch: Option<i32>) {
        self.enter_batch(leader_epoch.unwrap_or(-1));
        self.position.store(offset, Ordering::Release);
        self.handled.store(offset, Ordering::Release);
    }

    /// After [`Progress::place`] at the same position: what was handed out there is not done with.
    pub(super) fn reopen(&self, handled: Option<i64>) {
        self.handled
            .store(handled.unwrap_or(UNKNOWN), Ordering::Release);
    }

    pub(super) fn unplace(&self) {
        self.place(UNKNOWN, None);
    }

    /// Called before the positions within the batch are set, so that the epoch is never the older.
    pub(super) fn enter_batch(&self, leader_epoch: i32) {
        self.leader_epoch.store(leader_epoch, Ordering::Release);
    }

    pub(super) fn hand_out_to(&self, position: i64) {
        self.position.store(position, Ordering::Release);
    }

    pub(super) fn note_high_watermark(&self, offset: i64) {
        self.high_watermark.store(offset, Ordering::Release);
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }
}

fn known(offset: &AtomicI64) -> Option<i64> {
    Some(offset.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
}
