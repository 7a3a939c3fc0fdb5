//! One partition of the producer: what waits, what is in flight, where the sequence stands.

use super::batch::{Batch, Flight};
use super::identity::{Identity, Sequence, Stamp};
use super::types::Lane;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A broker remembers the last five batches of a producer in a partition; with more of them
/// unacknowledged it could not recognise a repeated one.
pub(super) const WINDOW: usize = 5;

/// A partition that was silent for so long starts again with one batch, in case the broker has
/// forgotten the producer (`producer.id.expiration.ms` is a day by default).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(12 * 3600);

/// Where a partition stands in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    None,
    Asked,
    Granted,
}

/// State of one partition.
#[derive(Debug)]
pub(super) struct Partition<T> {
    pub(super) name: TopicPartition,
    pub(super) topic_id: Option<TopicId>,
    pub(super) leader: Option<BrokerId>,
    pub(super) leader_epoch: Option<i32>,
    /// Where it is sent.
    pub(super) lane: Lane,
    /// Whether it is part of the transaction, and whether that was asked for.
    pub(super) admission: Admission,
    /// In order; batches with a stamp come first.
    pub(super) queue: VecDeque<Batch<T>>,
    /// A batch of the queue may have a later deadline than one behind it: it is sent once more after
    /// it had failed.
    deadlines_mixed: bool,
    /// Sent and unanswered, in the order of sending.
    pub(super) in_flight: VecDeque<Flight<T>>,
    pub(super) identity: Option<Identity>,
    next_sequence: Sequence,
    /// A batch was acknowledged under the present identity.
    pub(super) proven: bool,
    /// A stamped batch ended without being written, so its sequences are missing.
    /// By the ordinal of the first such batch: it explains a refused sequence only behind it.
    pub(super) hole: Option<u128>,
    /// Counts the batches that were stamped.
    stamped: u64,
    /// A batch waits for its retry: nothing is sent until all that is in flight is answered, so
    /// that the order stays.
    pub(super) draining: bool,
    pub(super) blocked_until: Option<Instant>,
    pub(super) failures: u32,
    last_answer: Option<Instant>,
    /// It stands in its leader's list of partitions with something to send.
    pub(super) listed: bool,
    /// The timer that is set for it.
    pub(super) timer: Option<Instant>,
}

impl<T> Partition<T> {
    pub(super) fn new(name: TopicPartition) -> Self {
        Self {
            name,
            topic_id: None,
            leader: None,
            leader_epoch: None,
            lane: Lane::Main,
            admission: Admission::None,
            queue: VecDeque::new(),
            deadlines_mixed: false,
            in_flight: VecDeque::new(),
            identity: None,
            next_sequence: Sequence::default(),
            proven: false,
            hole: None,
            stamped: 0,
            draining: false,
            blocked_until: None,
            failures: 0,
            last_answer: None,
            listed: false,
            timer: None,
        }
    }

    /// How many batches may be in flight. One until the first is acknowledged: brokers up to 4.4
    /// accept any first sequence on a fresh partition, so a second batch that overtakes a lost
    /// first one would take its place.
    fn window(&self, idempotent: bool) -> usize {
        if idempotent && self.proven { WINDOW } else { 1 }
    }

    /// Whether the front of the queue may go out now.
    pub(super) fn sendable(&self, now: Instant, idempotent: bool) -> bool {
        self.leader.is_some()
            && !self.draining
            && self.in_flight.len() < self.window(idempotent)
            && self.blocked_until.is_none_or(|until| until <= now)
            && self.next().is_some_and(|batch| batch.records.is_some())
            && (!self.front_is_unstamped() || self.hole.is_none())
            && self.is_remembered()
    }

    /// The place of the batch that goes out next: the first, but behind a hole not one whose
    /// sequence the broker has refused. It waits for the new epoch, and the others must be asked
    /// about before that. One that was refused for another reason keeps its turn: on a fresh log
    /// the first to come would be taken, and it would stand behind its successor.
    fn next_place(&self) -> usize {
        let asked = |batch: &Batch<T>| batch.stamp.is_some() && !batch.disproved;
        let place = || self.queue.iter().position(asked);
        self.hole.and_then(|_| place()).unwrap_or(0)
    }

    /// The batch that goes out next.
    pub(super) fn next(&self) -> Option<&Batch<T>> {
        self.queue.get(self.next_place())
    }

    /// Whether the broker will still remember our oldest unacknowledged batch when one more is
    /// appended. Acknowledged ones behind it count too: they push it out of the last five.
    fn is_remembered(&self) -> bool {
        let next = self
            .next()
            .filter(|batch| batch.stamp.is_some())
            .map_or(self.stamped, |batch| batch.number);
        let flying = self.in_flight.iter().map(|flight| &flight.batch);
        let oldest = flying
            .filter(|batch| batch.stamp.is_some())
            .map(|batch| batch.number)
            .min();
        oldest.is_none_or(|oldest| next.saturating_sub(oldest) < WINDOW as u64)
    }

    /// A batch ended although its sequences were not used.
    pub(super) fn open_hole(&mut self, ordinal: u128) {
        self.hole = Some(self.hole.map_or(ordinal, |first| first.min(ordinal)));
    }

    /// Whether it has nothing unfinished, and is no part of a transaction.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.admission == Admission::None
    }

    /// Whether no sequence of its epoch was ever given out.
    pub(super) fn is_unused(&self) -> bool {
        self.next_sequence == Sequence::default() && !self.proven && self.hole.is_none()
    }

    /// Whether a batch sealed now would not wait behind another.
    pub(super) fn has_room(&self, idempotent: bool) -> bool {
        self.queue.is_empty()
            && !self.draining
            && self.in_flight.len() < self.window(idempotent)
            && self.is_remembered()
    }

    /// Whether what waits can be stamped by a new epoch only.
    pub(super) fn awaits_epoch(&self) -> bool {
        self.hole.is_some() && self.in_flight.is_empty() && self.front_is_unstamped()
    }

    fn front_is_unstamped(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|batch| batch.stamp.is_none())
    }

    /// Takes the front of the queue to be sent, stamped.
    pub(super) fn take(&mut self, now: Instant, ours: Option<Identity>) -> Option<Batch<T>> {
        let silent = self
            .last_answer
            .is_some_and(|last| now >= last + FORGOTTEN_AFTER);
        if silent && self.in_flight.is_empty() {
            self.proven = false;
        }
        let mut batch = self.queue.remove(self.next_place())?;
        batch.attempts += 1;
        // The partition's own identity first: the producer's may be gone while a new one is asked for.
        if batch.stamp.is_none()
            && let Some(identity) = self.identity.or(ours)
        {
            self.identity = Some(identity);
            batch.stamp = Some(Stamp {
                identity,
                base_sequence: self.next_sequence,
            });
            self.next_sequence = self.next_sequence.advance(batch.count);
            batch.number = self.stamped;
            self.stamped += 1;
        }
        Some(batch)
    }

    /// Puts a batch back where its order wants it.
    pub(super) fn put_back(&mut self, batch: Batch<T>) {
        let at = self
            .queue
            .partition_point(|other| other.ordinal < batch.ordinal);
        let before = at.checked_sub(1).and_then(|at| self.queue.get(at));
        let mixed = before.is_some_and(|before| before.deadline > batch.deadline)
            || (self.queue.get(at)).is_some_and(|behind| behind.deadline < batch.deadline);
        self.deadlines_mixed = mixed || (self.deadlines_mixed && !self.queue.is_empty());
        self.queue.insert(at, batch);
    }

    /// Takes out a queued batch whose time is over, wherever it stands.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Batch<T>> {
        let at = self.queue.iter().position(|batch| batch.deadline <= now)?;
        self.queue.remove(at)
    }

    /// Puts the second half of a batch behind its first. What was stamped behind it is one batch
    /// further from it now.
    pub(super) fn put_half(&mut self, half: Batch<T>) {
        if half.stamp.is_some() {
            self.stamped += 1;
            let flying = self.in_flight.iter_mut().map(|flight| &mut flight.batch);
            for batch in self.queue.iter_mut().chain(flying) {
                if batch.stamp.is_some() && batch.ordinal > half.ordinal {
                    batch.number += 1;
                }
            }
        }
        self.put_back(half);
    }

    /// A new log under the old name: it knows nothing of us.
    pub(super) fn remade(&mut self) {
        self.proven = false;
        self.leader_epoch = None;
        if self.identity.is_some() {
            self.open_hole(0);
        }
    }

    /// Takes an epoch that the coordinator gave: its sequences start at 0.
    pub(super) fn begin_epoch(&mut self, identity: Identity) {
        self.hole = None;
        self.proven = false;
        self.next_sequence = Sequence::default();
        self.identity = Some(identity);
        for batch in &mut self.queue {
            batch.stamp = None;
            batch.disproved = false;
            batch.asked_again = false;
        }
    }

    /// Whether no earlier batch is unacknowledged.
    pub(super) fn is_head(&self, index_in_flight: usize, ordinal: u128) -> bool {
        index_in_flight == 0
            && self
                .queue
                .front()
                .is_none_or(|front| front.ordinal > ordinal)
    }

    pub(super) fn acknowledged(&mut self, now: Instant, stamp: Option<Stamp>) {
        self.last_answer = Some(now);
        self.failures = 0;
        if stamp.map(|stamp| stamp.identity) == self.identity {
            self.proven = true;
        }
    }

    /// Called when nothing is in flight: closes a hole by a new epoch once every stamped batch is
    /// proven unwritten. Until then those that may be written go out again under their old stamp:
    /// the answer tells. Returns the identity whose epochs this used up, if it did.
    pub(super) fn settle(&mut self, transactional: bool) -> Option<Identity> {
        self.draining = false;
        self.hole?;
        if transactional {
            return None; // the abort brings a new epoch
        }
        let stamped = self.queue.iter().take_while(|batch| batch.stamp.is_some());
        if stamped.into_iter().any(|batch| batch.maybe_written) {
            return None;
        }
        self.renew()
    }

    /// A new epoch: sequences start again at 0 and the first batch goes alone. When the epochs are
    /// used up the identity is dropped, and the producer's next one is taken.
    fn renew(&mut self) -> Option<Identity> {
        self.hole = None;
        self.proven = false;
        self.next_sequence = Sequence::default();
        for batch in &mut self.queue {
            batch.stamp = None;
            batch.disproved = false;
            batch.asked_again = false;
        }
        let old = self.identity?;
        self.identity = old.bumped();
        if self.identity.is_none() {
            Some(old)
        } else {
            None
        }
    }

    /// When something must happen by itself: a batch expires, or a wait ends.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        // Mostly the first is the earliest, and a long queue is not looked through at each change.
        let looked_at = if self.deadlines_mixed {
            self.queue.len()
        } else {
            1
        };
        let queued = self.queue.iter().take(looked_at);
        let queued = queued.map(|batch| batch.deadline).min();
        let flying = self
            .in_flight
            .iter()
            .filter(|f| !f.batch.is_abandoned())
            .map(|f| f.batch.deadline)
            .min();
        [queued, flying, self.blocked_until]
            .into_iter()
            .flatten()
            .min()
    }
}
