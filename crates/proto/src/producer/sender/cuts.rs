//! Batches that are cut in two: too large for the broker, or with wrong records among others.

use super::Sender;
use crate::batch::SealedRecords;
use crate::error::{Error, ErrorKind, WriteOutcome};
use crate::producer::answer::PartitionAnswer;
use crate::producer::batch::{Batch, CUTS_MAX, Why};
use crate::producer::types::{Event, PartitionIndex, Split};
use std::time::Instant;

impl<T> Sender<T> {
    /// Gives the two halves of a batch that was found too large, each with its token. If the batch
    /// has ended meanwhile, they fail: nobody else would tell whoever waits for them.
    pub fn provide_halves(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        ordinal: u128,
        first: (T, SealedRecords),
        second: (T, SealedRecords),
    ) {
        if let Some(partition) = self.at(index)
            && let Some(batch) = partition.queue.iter_mut().find(|b| b.ordinal == ordinal)
        {
            let half = batch.cut(first, second);
            let behind = half.ordinal;
            partition.put_half(half);
            self.weed(now, index, ordinal);
            self.weed(now, index, behind);
            self.after_answer(now, index);
            return;
        }
        let error = self.ended_uncut(index);
        for (token, records) in [first, second] {
            self.orphaned(token, error.clone(), Some(records));
        }
    }

    /// Takes in that a batch could not be cut: it fails.
    pub fn refuse_halves(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        ordinal: u128,
        token: T,
        error: &Error,
    ) {
        if let Some(partition) = self.at(index)
            && let Some(at) = partition.queue.iter().position(|b| b.ordinal == ordinal)
            && let Some(mut batch) = partition.queue.remove(at)
        {
            batch.token = Some(token);
            self.fail(index, batch, Why::Aborted(error));
            self.after_answer(now, index);
            return;
        }
        let error = self.ended_uncut(index);
        self.orphaned(token, error, None);
    }

    /// Why a batch ended that was to be cut. Its own end knew more, but it had no token to tell.
    fn ended_uncut(&self, index: PartitionIndex) -> Error {
        let error = Error::new(
            ErrorKind::Timeout,
            "the batch was too large, and its time was over before it was cut",
        );
        let error = match self.name(index) {
            Some(name) => error.at_partition(name.clone()),
            None => error,
        };
        error.with_outcome(WriteOutcome::Unknown)
    }

    fn orphaned(&mut self, token: T, error: Error, records: Option<SealedRecords>) {
        self.events.push_back(Event::Failed {
            token,
            error,
            record_errors: Vec::new(),
            attempts: 0,
            records,
        });
    }

    /// The records of a batch that the broker finds wrong, in their order, if they are to be cut out
    /// and others are well. What may be written is never cut.
    pub(super) fn wrong_records(
        &self,
        batch: &Batch<T>,
        answer: &PartitionAnswer,
    ) -> Option<Box<PartitionAnswer>> {
        if !self.config.cut_out_wrong || batch.maybe_written || answer.record_errors.is_empty() {
            return None;
        }
        let mut wrong = Box::new(answer.clone());
        wrong.record_errors.sort_by_key(|record| record.index);
        wrong.record_errors.dedup_by_key(|record| record.index);
        wrong
            .record_errors
            .retain(|record| record.index < batch.count);
        let count = u32::try_from(wrong.record_errors.len()).unwrap_or(u32::MAX);
        // From among others each takes two cuts.
        let cuts = count.saturating_mul(2).saturating_add(batch.cuts);
        (0 < count && count < batch.count && cuts <= CUTS_MAX).then_some(wrong)
    }

    /// Cuts wrong records out of a batch: one after another, but without asking the broker again, for
    /// it has named them all. So their sequences are lost together, and cost one epoch.
    pub(super) fn cut_out(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        mut batch: Batch<T>,
        wrong: Box<PartitionAnswer>,
    ) {
        let place = place_to_cut(&wrong);
        batch.wrong = Some(wrong);
        self.split(now, index, batch, Some(place));
    }

    /// Goes on with what a cut has left of a batch that has wrong records.
    fn weed(&mut self, now: Instant, index: PartitionIndex, ordinal: u128) {
        let Some(queue) = self.at(index).map(|partition| &mut partition.queue) else {
            return;
        };
        let has_wrong = |b: &Batch<T>| b.ordinal == ordinal && b.wrong.is_some();
        let Some(mut batch) = queue
            .iter()
            .position(has_wrong)
            .and_then(|at| queue.remove(at))
        else {
            return;
        };
        let Some(wrong) = batch.wrong.take() else {
            return;
        };
        if batch.count == 1 {
            self.fail(index, batch, Why::Answered(&wrong));
        } else {
            self.cut_out(now, index, batch, wrong);
        }
    }

    /// Hands a batch to the driver to be cut. Until the halves are there it holds its place, and
    /// nothing of the partition overtakes it.
    pub(super) fn split(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        mut batch: Batch<T>,
        cut_at: Option<u32>,
    ) {
        let expired = batch.deadline <= now;
        let Some((token, records)) = (!expired).then(|| batch.take_whole()).flatten() else {
            self.fail(index, batch, Why::Expired);
            return;
        };
        batch.cut_out = cut_at.is_some();
        let split = Split {
            partition: index,
            ordinal: batch.ordinal,
            token,
            records,
            cut_at,
            deadline: batch.deadline,
        };
        self.events.push_back(Event::Split(Box::new(split)));
        if let Some(partition) = self.at(index) {
            partition.put_back(batch);
            partition.draining = true;
        }
    }
}

/// Behind how many records to cut: before the first wrong one, or behind it. Each stands alone in the
/// end, so that it is told what is wrong with itself.
fn place_to_cut(wrong: &PartitionAnswer) -> u32 {
    let first = wrong.record_errors.first();
    first.map_or(1, |record| record.index.max(1))
}
