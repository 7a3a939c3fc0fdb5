//! What an answer, or the lack of one, does to the batches of its request.

use super::Sender;
use crate::code::Code;
use crate::error::Error;
use crate::producer::answer::{LeaderHint, PartitionAnswer, ProduceAnswer};
use crate::producer::batch::{Batch, Failure, Flight, Why};
use crate::producer::partition::Partition;
use crate::producer::types::{Ack, Event, Lane, PartitionIndex, RequestId, Unanswered};
use crate::producer::verdict::{Attempt, Facts, Verdict, verdict};
use crate::topic::TopicId;
use std::time::{Duration, Instant};

impl<T> Sender<T> {
    /// Takes in the answer to a request.
    pub fn handle_answer(&mut self, now: Instant, request: RequestId, answer: &ProduceAnswer) {
        let well_again = self.is_well_again(now, request);
        let Some(done) = self.finish(now, request, true) else {
            return;
        };
        let broker = self.brokers.entry(done.broker).or_default();
        if !answer.throttle.is_zero() {
            broker.mute(done.lane, now + answer.throttle);
        }
        let mut at = 0;
        for &(index, topic_id) in &done.batches {
            match self.find(index, topic_id, answer, &mut at) {
                Some(found) => self.handle_partition(now, index, (request, topic_id), found),
                // The broker passed the partition over: nothing is certain.
                None => self.handle_lost(now, index, request, Unanswered::Lost),
            }
            if well_again {
                self.move_to(index, Lane::Main);
            }
            self.after_answer(now, index);
        }
        self.reuse_named(done.batches);
    }

    /// A partition's part of an answer. Brokers mostly answer in the order of the request, so the
    /// search goes on behind the last find.
    fn find<'a>(
        &self,
        index: PartitionIndex,
        topic_id: Option<TopicId>,
        answer: &'a ProduceAnswer,
        at: &mut usize,
    ) -> Option<&'a PartitionAnswer> {
        let name = &self.partitions.get(index.0 as usize)?.name;
        let is = |a: &PartitionAnswer| {
            a.partition == name.partition && a.topic.is(&name.topic, topic_id)
        };
        let (before, behind) = answer.partitions.split_at_checked(*at)?;
        let found = match behind.iter().position(is) {
            Some(place) => *at + place,
            None => before.iter().position(is)?,
        };
        *at = found + 1;
        answer.partitions.get(found)
    }

    /// Takes in that a request will not be answered.
    pub fn handle_unanswered(&mut self, now: Instant, request: RequestId, why: Unanswered) {
        let Some(done) = self.finish(now, request, false) else {
            return;
        };
        self.refresh = true;
        for &(index, _) in &done.batches {
            self.handle_lost(now, index, request, why);
            self.after_answer(now, index);
        }
        self.reuse_named(done.batches);
    }

    /// Takes in that a request of a producer with `acks=0` was written to the socket.
    pub fn handle_written(&mut self, now: Instant, request: RequestId) {
        let Some(done) = self.finish(now, request, false) else {
            return;
        };
        for &(index, _) in &done.batches {
            if let Some((_, flight)) = self.land(index, request) {
                let ack = Ack {
                    base_offset: None,
                    log_append_time: None,
                };
                self.acknowledge(now, index, flight, ack);
            }
            self.after_answer(now, index);
        }
        self.reuse_named(done.batches);
    }

    /// Takes the batch of that request out of flight.
    fn land(&mut self, index: PartitionIndex, request: RequestId) -> Option<(bool, Flight<T>)> {
        let partition = self.at(index)?;
        let at = partition
            .in_flight
            .iter()
            .position(|flight| flight.request == request.0)?;
        let flight = partition.in_flight.remove(at)?;
        let head = partition.is_head(at, flight.batch.ordinal);
        Some((head, flight))
    }

    fn acknowledge(&mut self, now: Instant, index: PartitionIndex, flight: Flight<T>, ack: Ack) {
        if let Some(partition) = self.at(index) {
            partition.acknowledged(now, flight.batch.stamp);
        }
        if let Some(token) = flight.batch.token {
            let attempts = flight.batch.attempts;
            self.events.push_back(Event::Acknowledged {
                token,
                ack,
                attempts,
            });
        }
    }

    fn handle_partition(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        (request, asked_id): (RequestId, Option<TopicId>),
        answer: &PartitionAnswer,
    ) {
        let Some((head_of_line, mut flight)) = self.land(index, request) else {
            return;
        };
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        let facts = Facts {
            acks_all: self.config.acks_all,
            idempotent: self.config.idempotent,
            head_of_line,
            maybe_written: flight.batch.maybe_written,
            asked_again: flight.batch.asked_again,
            hole: partition
                .hole
                .is_some_and(|first| first <= flight.batch.ordinal),
            records: flight.batch.count,
            transactional: self.config.transactional,
        };
        flight.batch.last_failure = Some(Failure::Code(answer.code));
        // Only a newer leader is news: an old hint would be followed in circles. One of a topic that
        // was made anew meanwhile counts epochs of another log.
        let hint = answer
            .leader_hint
            .filter(|hint| Some(hint.leader_epoch) > partition.leader_epoch)
            .filter(|_| asked_id.is_none() || asked_id == partition.topic_id);
        let verdict = verdict(answer.code, facts);
        self.verdicts.count(verdict);
        match verdict {
            Verdict::Acknowledged => {
                let ack = Ack {
                    base_offset: answer.base_offset,
                    log_append_time: answer.log_append_time,
                };
                self.acknowledge(now, index, flight, ack);
            }
            Verdict::Retry { attempt, refresh } => {
                flight.batch.note(attempt);
                if refresh {
                    self.refresh = true;
                }
                let refused = answer.code == Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
                flight.batch.asked_again = facts.hole && refused;
                // Behind another batch a refused sequence says nothing of the partition's health. A
                // proof is asked for again only after a while.
                let wait = (head_of_line || facts.hole) && hint.is_none();
                self.retry(now, index, flight, wait);
            }
            Verdict::Restamp => {
                partition.open_hole(flight.batch.ordinal);
                flight.batch.maybe_written = false;
                flight.batch.disproved = true;
                self.retry(now, index, flight, true);
            }
            Verdict::Split => self.split(now, index, flight.batch, None),
            Verdict::Fail { attempt } => {
                flight.batch.note(attempt);
                match self.wrong_records(&flight.batch, answer) {
                    Some(wrong) => self.cut_out(now, index, flight.batch, wrong),
                    None => self.fail(index, flight.batch, Why::Answered(answer)),
                }
            }
        }
        if let Some(hint) = hint {
            self.follow_hint(now, index, hint);
        }
    }

    /// Takes over a leader that is news, and has the cluster's view take it over too: later views
    /// are believed, so they must know of it.
    fn follow_hint(&mut self, now: Instant, index: PartitionIndex, hint: LeaderHint) {
        let Some(partition) = self.at(index) else {
            return;
        };
        let moved = Event::Moved(partition.name.clone(), partition.topic_id, hint);
        let topic_id = partition.topic_id;
        self.events.push_back(moved);
        let epoch = Some(hint.leader_epoch);
        self.set_leader(now, index, Some(hint.leader), epoch, topic_id);
    }

    /// Takes in that a batch's request was given up. That is our doing, so it counts as no attempt.
    pub(super) fn handle_stalled(&mut self, now: Instant, index: PartitionIndex, wait: bool) {
        while let Some(mut flight) = self.at(index).and_then(|p| p.in_flight.pop_back()) {
            flight.batch.note(Attempt::Unknown);
            flight.batch.last_failure = Some(Failure::Stalled);
            flight.batch.attempts = flight.batch.attempts.saturating_sub(1);
            self.retry(now, index, flight, wait);
        }
    }

    fn handle_lost(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        request: RequestId,
        why: Unanswered,
    ) {
        let Some((_, mut flight)) = self.land(index, request) else {
            return;
        };
        flight.batch.last_failure = Some(Failure::Connection);
        match why {
            Unanswered::Lost => flight.batch.note(Attempt::Unknown),
            // A broker that saw nothing was not tried.
            Unanswered::NotSent => flight.batch.attempts = flight.batch.attempts.saturating_sub(1),
        }
        self.retry(now, index, flight, true);
    }

    fn retry(&mut self, now: Instant, index: PartitionIndex, flight: Flight<T>, wait: bool) {
        if flight.batch.is_abandoned() || flight.batch.deadline <= now {
            self.fail(index, flight.batch, Why::Expired);
            return;
        }
        if flight.batch.attempts > self.config.retries {
            self.fail(index, flight.batch, Why::Retries);
            return;
        }
        let wait = if wait {
            Some(self.backoff(index))
        } else {
            None
        };
        let Some(partition) = self.at(index) else {
            return;
        };
        partition.put_back(flight.batch);
        // One lost connection fails every batch in flight, but it is one failure.
        let first = !std::mem::replace(&mut partition.draining, true);
        if let Some(wait) = wait.filter(|_| first) {
            partition.failures += 1;
            partition.blocked_until = Some(now + wait);
        }
    }

    /// A jittered exponential wait.
    fn backoff(&mut self, index: PartitionIndex) -> Duration {
        let failures = self
            .at(index)
            .map_or(0, |partition| partition.failures.min(16));
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let base = self.config.retry_backoff.saturating_mul(1 << failures);
        let base = base.min(self.config.retry_backoff_max);
        // Between 80 % and 120 %.
        base * u32::try_from(800 + self.random % 401).unwrap_or(1000) / 1000
    }

    pub(super) fn fail(&mut self, index: PartitionIndex, mut batch: Batch<T>, why: Why<'_>) {
        let Some(partition) = self.at(index) else {
            return;
        };
        let stamped = batch.stamp.is_some();
        if stamped {
            // A failed stamped batch spends its range: with the same sequences, new records could
            // be taken for the old ones (KIP-360).
            partition.open_hole(batch.ordinal);
        }
        let error = batch.failure(&partition.name, why);
        // An abort that drops what was never sent leaves nothing behind: the epoch is as good as ever.
        if stamped || !matches!(why, Why::Aborted(_)) {
            self.break_transaction(&error);
        }
        if let Some(token) = batch.token.take() {
            let record_errors = match why {
                Why::Answered(answer) => answer.record_errors.clone(),
                _ => Vec::new(),
            };
            self.events.push_back(Event::Failed {
                token,
                error,
                record_errors,
                attempts: batch.attempts,
                records: batch.records.take(),
            });
        }
    }

    pub(super) fn settle(&mut self, index: PartitionIndex) {
        let transactional = self.config.transactional;
        let settle = |partition: &mut Partition<T>| partition.settle(transactional);
        let used_up = self.at(index).and_then(settle);
        if used_up.is_some_and(|old| {
            self.identity
                .is_some_and(|i| i.producer_id == old.producer_id)
        }) {
            // The others keep theirs; whoever is stamped for the first time gets the new one.
            self.identity = None;
        }
    }

    pub(super) fn after_answer(&mut self, now: Instant, index: PartitionIndex) {
        if self
            .at(index)
            .is_some_and(|partition| partition.in_flight.is_empty())
        {
            self.settle(index);
        }
        self.tell_room(index);
        self.list(now, index);
        self.retime(index);
    }

    /// Says that the partition's window is open, if it is: what the driver holds back for as long as
    /// it is not waits for this word alone.
    pub(super) fn tell_room(&mut self, index: PartitionIndex) {
        if self.has_room(index) {
            self.events.push_back(Event::Room(index));
        }
    }
}

/// The event of a batch that failed as a whole.
pub(super) fn failed<T>(token: T, error: Error, batch: &Batch<T>) -> Event<T> {
    Event::Failed {
        token,
        error,
        record_errors: Vec::new(),
        attempts: batch.attempts,
        records: batch.records.clone(),
    }
}
