//! Who we are to the brokers, and what belongs to the present transaction.

use super::Sender;
use super::answers::failed;
use crate::error::Error;
use crate::producer::batch::{Batch, Why};
use crate::producer::identity::Identity;
use crate::producer::partition::{Admission, Partition};
use crate::producer::types::{Event, PartitionIndex};
use std::collections::VecDeque;
use std::time::Instant;

impl<T> Sender<T> {
    /// Gives the producer id for partitions that have none yet.
    pub fn set_identity(&mut self, now: Instant, identity: Identity) {
        self.identity = Some(identity);
        self.identity_asked = false;
        for index in self.indices() {
            self.list(now, index);
        }
    }

    /// Takes in that no producer id is to be had, for a reason that waiting does not mend: what
    /// waits for one fails. The next batch asks again.
    pub fn refuse_identity(&mut self, error: &Error) {
        self.identity_asked = false;
        for index in self.indices() {
            let waits = |p: &Partition<T>| p.identity.is_none() && p.in_flight.is_empty();
            while let Some(partition) = self.at(index).filter(|p| waits(p))
                && let Some(mut batch) = partition.queue.pop_front()
            {
                let error = error
                    .clone()
                    .at_partition(partition.name.clone())
                    .with_outcome(batch.outcome());
                if let Some(token) = batch.token.take() {
                    self.events.push_back(failed(token, error, &batch));
                }
            }
            self.tell_room(index);
            self.retime(index);
        }
    }

    /// Whoever is stamped for the first time from now on gets a later epoch than this one. A
    /// partition that was forgotten begins at sequence 0 when it comes back, and under its old epoch
    /// the broker would take its new records for its first ones.
    pub(super) fn leave_behind(&mut self, spent: Identity) {
        let reached =
            |ours: Identity| ours.producer_id == spent.producer_id && ours.epoch <= spent.epoch;
        if self.identity.is_some_and(reached) {
            self.identity = spent.bumped();
        }
    }

    /// Takes an epoch that the transaction coordinator gave: every partition's sequences start at 0.
    /// To be called when nothing is in flight.
    pub fn begin_epoch(&mut self, now: Instant, identity: Identity) {
        self.identity = Some(identity);
        self.identity_asked = false;
        for partition in &mut self.partitions {
            partition.begin_epoch(identity);
        }
        for index in self.indices() {
            self.list(now, index);
        }
    }

    /// The partition is part of the transaction now.
    pub fn admit(&mut self, now: Instant, index: PartitionIndex) {
        if let Some(partition) = self.at(index) {
            partition.admission = Admission::Granted;
        }
        self.list(now, index);
    }

    /// The transaction has ended: the next one begins without partitions.
    pub fn close_admissions(&mut self) {
        self.broken = false;
        for index in self.indices() {
            let leader = self.at(index).and_then(|partition| partition.leader);
            // Left in the list, it would be sent to in the next transaction before it is part of it.
            self.unlist(index, leader);
            if let Some(partition) = self.at(index) {
                partition.admission = Admission::None;
            }
        }
    }

    /// Says, once, that the present transaction cannot be committed.
    pub(super) fn break_transaction(&mut self, error: &Error) {
        if self.config.transactional && !std::mem::replace(&mut self.broken, true) {
            self.events
                .push_back(Event::TransactionBroken(error.clone()));
        }
    }

    /// Fails everything that waits to be sent: the transaction will be aborted. What may be written
    /// stays, unless the abort comes with an epoch that fences it: sent again it is answered, and
    /// then it cannot come after the abort, where the next transaction would take it along.
    pub fn fail_waiting(&mut self, error: &Error, fenced: bool) {
        // Whatever waits has a deadline. It is asked again and again while an abort waits, and most
        // partitions have nothing.
        let waiting: Vec<_> = self.timers.iter().map(|(_, index)| *index).collect();
        for index in waiting {
            let Some(partition) = self.at(index).filter(|p| !p.queue.is_empty()) else {
                continue;
            };
            // Also those behind a batch that stays.
            let queue = std::mem::take(&mut partition.queue);
            let goes = |batch: &Batch<T>| fenced || !batch.maybe_written;
            let (going, staying): (VecDeque<_>, _) = queue.into_iter().partition(goes);
            partition.queue = staying;
            for batch in going {
                self.fail(index, batch, Why::Aborted(error));
            }
            self.tell_room(index);
            self.retime(index);
        }
    }

    /// Whether a sent batch awaits its end.
    pub fn is_in_flight(&self) -> bool {
        self.partitions
            .iter()
            .any(|p| !p.in_flight.is_empty() || !p.queue.is_empty())
    }
}
