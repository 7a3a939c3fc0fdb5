//! One partition: its log, who leads it, and how far its replicas are. Replicas are simulated:
//! there is one log, and a frozen follower holds the high watermark back.

use crate::batch::Head;
use crate::log::{AppendAs, Appended, Log};
use bytes::BytesMut;
use ottla_proto::Code;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// One partition of one topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    state: Mutex<PartitionState>,
}

/// The end of a transaction, as a partition's log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) committed: bool,
    /// The epoch of the coordinator that wrote it.
    pub(crate) coordinator_epoch: i32,
}

/// What changes of a partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    /// The node that takes writes; `None` while an election is due.
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    /// Every node with a copy, the preferred leader first.
    pub(crate) replicas: Vec<i32>,
    /// The copies in step. Never empty: the last one in step stays although its node is down.
    pub(crate) in_sync: Vec<i32>,
    pub(crate) log: Log,
    pub(crate) high_watermark: i64,
    pub(crate) deleted: bool,
    followers_frozen: bool,
    /// Connections that wait for a change here: at most one entry a connection, dropped when it is
    /// woken or gone.
    waiters: Vec<Weak<Notify>>,
}

impl Partition {
    /// A new, empty partition. `replicas` must name a node; `up` says which run.
    pub(crate) fn new(index: i32, replicas: Vec<i32>, up: impl Fn(i32) -> bool) -> Self {
        let mut in_sync: Vec<i32> = replicas.iter().copied().filter(|n| up(*n)).collect();
        let leader = in_sync.first().copied();
        if in_sync.is_empty() {
            in_sync.extend(replicas.first());
        }
        Self {
            index,
            state: Mutex::new(PartitionState {
                leader,
                leader_epoch: 0,
                replicas,
                in_sync,
                log: Log::default(),
                high_watermark: 0,
                deleted: false,
                followers_frozen: false,
                waiters: Vec::new(),
            }),
        }
    }

    /// The state, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock()
    }
}

impl PartitionState {
    /// Whether `node` may serve this partition now.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION` when it was deleted, `NOT_LEADER_OR_FOLLOWER` when another
    /// node leads it.
    pub(crate) fn led_by(&self, node: i32) -> Result<(), Code> {
        if self.deleted {
            Err(Code::UNKNOWN_TOPIC_OR_PARTITION)
        } else if self.leader == Some(node) {
            Ok(())
        } else {
            Err(Code::NOT_LEADER_OR_FOLLOWER)
        }
    }

    /// Compares the epoch a client believes in; -1 is no belief.
    ///
    /// # Errors
    /// `FENCED_LEADER_EPOCH` for an older one, `UNKNOWN_LEADER_EPOCH` for a newer one.
    pub(crate) fn check_epoch(&self, believed: i32) -> Result<(), Code> {
        match believed {
            -1 => Ok(()),
            epoch if epoch < self.leader_epoch => Err(Code::FENCED_LEADER_EPOCH),
            epoch if epoch > self.leader_epoch => Err(Code::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }

    /// Appends a checked batch and moves the high watermark as far as the followers allow.
    ///
    /// # Errors
    /// The code of the sequence rules.
    pub(crate) fn append(
        &mut self,
        bytes: BytesMut,
        head: Head,
        how: AppendAs,
    ) -> Result<Appended, Code> {
        let appended = self.log.append(bytes, head, how)?;
        self.advance();
        Ok(appended)
    }

    /// Appends the end of a transaction; its offset.
    pub(crate) fn append_marker(&mut self, marker: Marker, millis: i64) -> i64 {
        let offset = self.log.append_marker(marker, self.leader_epoch, millis);
        self.advance();
        offset
    }

    /// The end of what a consumer sees that reads only what is committed.
    pub(crate) fn last_stable(&self) -> i64 {
        self.log.last_stable(self.high_watermark)
    }

    /// Appends a batch that no follower copies, and loses it to a new leader at once.
    ///
    /// # Errors
    /// The code of the sequence rules.
    pub(crate) fn append_and_lose(
        &mut self,
        bytes: BytesMut,
        head: Head,
        how: AppendAs,
    ) -> Result<Appended, Code> {
        let end = self.log.end();
        let appended = self.log.append(bytes, head, how)?;
        self.log.truncate(end);
        let heir = self.in_sync.iter().find(|n| Some(**n) != self.leader);
        self.lead(heir.copied().or(self.leader));
        Ok(appended)
    }

    /// Moves the high watermark to the end of the log unless a frozen follower holds it back, and
    /// wakes who waits.
    pub(crate) fn advance(&mut self) {
        let follower = self.in_sync.iter().any(|n| Some(*n) != self.leader);
        if !(self.followers_frozen && follower) {
            self.high_watermark = self.log.end();
        }
        self.log.replicated(self.high_watermark);
        self.wake();
    }

    fn lead(&mut self, leader: Option<i32>) {
        self.leader = leader;
        self.leader_epoch += 1;
        if leader.is_some() {
            // The new leader has only what was copied; the rest of the log is lost with the old.
            self.log.truncate(self.high_watermark);
        }
        self.high_watermark = self.high_watermark.min(self.log.end());
        self.advance();
    }

    /// Gives the leadership to `node`.
    pub(crate) fn move_leader(&mut self, node: i32) {
        if self.leader != Some(node) {
            self.lead(Some(node));
        }
    }

    /// Lets an in-sync node that runs take over, if there is no leader.
    pub(crate) fn elect(&mut self, up: impl Fn(i32) -> bool) {
        if self.leader.is_none() && !self.deleted {
            let heir = self
                .replicas
                .iter()
                .find(|n| self.in_sync.contains(n) && up(**n));
            if let Some(heir) = heir.copied() {
                self.lead(Some(heir));
            }
        }
    }

    /// Takes a stopped node out; its leadership is vacant until [`PartitionState::elect`].
    pub(crate) fn node_stopped(&mut self, node: i32) {
        if self.leader == Some(node) {
            self.leader = None;
        }
        if self.in_sync.len() > 1 {
            self.in_sync.retain(|n| *n != node);
        }
        if self.leader.is_some() {
            self.advance();
        } else {
            self.wake();
        }
    }

    /// Takes a started node back in step, unless followers are frozen.
    pub(crate) fn node_started(&mut self, node: i32) {
        let holds = self.replicas.contains(&node) && !self.in_sync.contains(&node);
        if holds && !self.followers_frozen {
            self.in_sync.push(node);
        }
    }

    /// Stops the followers from copying.
    pub(crate) fn freeze(&mut self) {
        self.followers_frozen = true;
    }

    /// Lets the followers copy everything again.
    pub(crate) fn thaw(&mut self, up: impl Fn(i32) -> bool) {
        self.followers_frozen = false;
        for node in self.replicas.clone() {
            if up(node) {
                self.node_started(node);
            }
        }
        self.advance();
    }

    /// Ends the partition: its topic is deleted.
    pub(crate) fn delete(&mut self) {
        self.deleted = true;
        self.log = Log::default();
        self.high_watermark = 0;
        self.wake();
    }

    /// Has `waiter` notified once at the next change.
    pub(crate) fn notify_later(&mut self, waiter: &Arc<Notify>) {
        let known = self
            .waiters
            .iter()
            .any(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(waiter)));
        if !known {
            self.waiters.retain(|w| w.strong_count() > 0);
            self.waiters.push(Arc::downgrade(waiter));
        }
    }

    fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch;
    use crate::settings::FirstSequence;
    use crate::testing::batch_bytes;

    fn partition(replicas: &[i32]) -> Partition {
        Partition::new(0, replicas.to_vec(), |_| true)
    }

    fn write(state: &mut PartitionState) -> Appended {
        let bytes = batch_bytes(&["a"], 0, None);
        let head = batch::check(&bytes, usize::MAX, 13).unwrap();
        let how = AppendAs {
            leader_epoch: state.leader_epoch,
            append_time: None,
            first_sequence: FirstSequence::Any,
            retained_bytes_max: usize::MAX,
        };
        state.append(BytesMut::from(&bytes[..]), head, how).unwrap()
    }

    #[test]
    fn a_frozen_follower_holds_the_high_watermark_until_it_thaws() {
        let partition = partition(&[0, 1]);
        let mut state = partition.lock();
        write(&mut state);
        state.freeze();
        write(&mut state);
        assert_eq!((state.high_watermark, state.log.end()), (1, 2));
        state.thaw(|_| true);
        assert_eq!(state.high_watermark, 2);
    }

    #[test]
    fn a_frozen_follower_that_becomes_leader_loses_what_it_had_not_copied() {
        let partition = partition(&[0, 1]);
        let mut state = partition.lock();
        write(&mut state);
        state.freeze();
        write(&mut state);
        state.node_stopped(0);
        assert_eq!(state.led_by(0), Err(Code::NOT_LEADER_OR_FOLLOWER));
        state.elect(|n| n == 1);
        assert_eq!((state.leader, state.leader_epoch), (Some(1), 1));
        assert_eq!((state.high_watermark, state.log.end()), (1, 1));
    }

    #[test]
    fn the_last_replica_in_step_is_the_only_heir() {
        let partition = partition(&[0, 1]);
        let mut state = partition.lock();
        state.node_stopped(1);
        state.node_stopped(0);
        state.elect(|n| n == 1);
        assert_eq!(state.leader, None, "node 1 was not in step");
        state.elect(|n| n == 0);
        state.node_started(1);
        assert_eq!((state.leader, state.in_sync.len()), (Some(0), 2));
    }

    #[test]
    fn a_lost_append_leaves_the_log_as_it_was_under_another_leader() {
        let partition = partition(&[0, 1]);
        let mut state = partition.lock();
        write(&mut state);
        let bytes = batch_bytes(&["b"], 0, Some((4, 0, 0)));
        let head = batch::check(&bytes, usize::MAX, 13).unwrap();
        let how = AppendAs {
            leader_epoch: 0,
            append_time: None,
            first_sequence: FirstSequence::Any,
            retained_bytes_max: usize::MAX,
        };
        let lost = state.append_and_lose(BytesMut::from(&bytes[..]), head, how);
        assert_eq!(lost.unwrap().base_offset, 1);
        assert_eq!(
            (state.log.end(), state.leader, state.leader_epoch),
            (1, Some(1), 1)
        );
    }

    #[test]
    fn waiters_are_kept_once_and_woken_by_a_write() {
        let partition = partition(&[0]);
        let waiter = Arc::new(Notify::new());
        let mut state = partition.lock();
        state.notify_later(&waiter);
        state.notify_later(&waiter);
        assert_eq!(state.waiters.len(), 1);
        write(&mut state);
        assert!(state.waiters.is_empty());
        state.notify_later(&Arc::new(Notify::new()));
        state.notify_later(&waiter);
        assert_eq!(
            state.waiters.len(),
            1,
            "a connection that is gone is dropped"
        );
    }
}
