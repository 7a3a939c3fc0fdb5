//! What an answer, or the lack of one, does to the batches of its request.

use super::Sender;
use crate::producer::answer::{PartitionAnswer, ProduceAnswer};
use crate::producer::batch::{Batch, Failure, Flight, Why};
use crate::producer::partition::Partition;
use crate::producer::types::{Ack, Event, PartitionIndex, RequestId, Unanswered};
use crate::producer::verdict::{Attempt, Facts, Verdict, verdict};
use std::time::{Duration, Instant};

impl<T> Sender<T> {
    /// Takes in the answer to a request.
    pub fn handle_answer(&mut self, now: Instant, request: RequestId, answer: &ProduceAnswer) {
        let Some((broker, indices)) = self.requests.remove(&request) else {
            return;
        };
        let state = self.brokers.entry(broker).or_default();
        state.in_flight = state.in_flight.saturating_sub(1);
        if !answer.throttle.is_zero() {
            state.muted_until = Some(now + answer.throttle);
        }
        for index in indices {
            let found = self.partitions.get(index.0 as usize).and_then(|p| {
                answer.partitions.iter().find(|a| {
                    a.partition == p.name.partition && a.topic.is(&p.name.topic, p.topic_id)
                })
            });
            match found {
                Some(answer) => self.handle_partition(now, index, request, answer),
                // The broker passed the partition over: nothing is certain.
                None => self.handle_lost(now, index, request, Unanswered::Lost),
            }
            self.after_answer(now, index);
        }
    }

    /// Takes in that a request will not be answered.
    pub fn handle_unanswered(&mut self, now: Instant, request: RequestId, why: Unanswered) {
        let Some((broker, indices)) = self.requests.remove(&request) else {
            return;
        };
        let state = self.brokers.entry(broker).or_default();
        state.in_flight = state.in_flight.saturating_sub(1);
        self.refresh = true;
        for index in indices {
            self.handle_lost(now, index, request, why);
            self.after_answer(now, index);
        }
    }

    /// Takes in that a request of a producer with `acks=0` was written to the socket.
    pub fn handle_written(&mut self, now: Instant, request: RequestId) {
        let Some((broker, indices)) = self.requests.remove(&request) else {
            return;
        };
        let state = self.brokers.entry(broker).or_default();
        state.in_flight = state.in_flight.saturating_sub(1);
        for index in indices {
            if let Some((_, flight)) = self.land(index, request) {
                let ack = Ack {
                    base_offset: None,
                    log_append_time: None,
                };
                self.acknowledge(now, index, flight, ack);
            }
            self.after_answer(now, index);
        }
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
            self.events.push_back(Event::Acknowledged { token, ack });
        }
    }

    fn handle_partition(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        request: RequestId,
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
            hole: partition
                .hole
                .is_some_and(|first| first <= flight.batch.ordinal),
        };
        flight.batch.last_failure = Some(Failure::Code(answer.code));
        match verdict(answer.code, facts) {
            Verdict::Acknowledged => {
                let ack = Ack {
                    base_offset: answer.base_offset,
                    log_append_time: answer.log_append_time,
                };
                self.acknowledge(now, index, flight, ack);
            }
            Verdict::Retry { attempt, refresh } => {
                flight.batch.note(attempt);
                // Only a newer leader is worth no wait: an old hint would be followed in circles.
                let hinted = answer
                    .leader_hint
                    .is_some_and(|hint| Some(hint.leader_epoch) > partition.leader_epoch);
                if let Some(hint) = answer.leader_hint {
                    self.events
                        .push_back(Event::Moved(partition.name.clone(), hint));
                }
                if refresh {
                    self.refresh = true;
                }
                // Behind another batch a refused sequence says nothing of the partition's health.
                let wait = head_of_line && !hinted;
                self.retry(now, index, flight, wait);
            }
            Verdict::Restamp => {
                partition.open_hole(flight.batch.ordinal);
                flight.batch.maybe_written = false;
                self.retry(now, index, flight, true);
            }
            Verdict::Fail { attempt } => {
                flight.batch.note(attempt);
                self.fail(
                    index,
                    flight.batch,
                    Why::Answered(answer.message.as_deref()),
                );
            }
        }
        if let Some(hint) = answer.leader_hint {
            let topic_id = self.topic_id(index);
            self.set_leader(
                now,
                index,
                Some(hint.leader),
                Some(hint.leader_epoch),
                topic_id,
            );
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
        if why == Unanswered::Lost {
            flight.batch.note(Attempt::Unknown);
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
        if batch.stamp.is_some() {
            // A failed stamped batch spends its range: with the same sequences, new records could
            // be taken for the old ones (KIP-360).
            partition.open_hole(batch.ordinal);
        }
        if let Some(token) = batch.token.take() {
            let error = batch.failure(&partition.name, why);
            self.events.push_back(Event::Failed { token, error });
        }
    }

    pub(super) fn settle(&mut self, index: PartitionIndex) {
        let used_up = self.at(index).and_then(Partition::settle);
        if used_up.is_some_and(|old| {
            self.identity
                .is_some_and(|i| i.producer_id == old.producer_id)
        }) {
            // The others keep theirs; whoever is stamped for the first time gets the new one.
            self.identity = None;
        }
    }

    pub(super) fn after_answer(&mut self, now: Instant, index: PartitionIndex) {
        let idempotent = self.config.idempotent;
        if self
            .at(index)
            .is_some_and(|partition| partition.in_flight.is_empty())
        {
            self.settle(index);
        }
        if self
            .at(index)
            .is_some_and(|partition| partition.has_room(idempotent))
        {
            self.events.push_back(Event::Room(index));
        }
        self.list(now, index);
        self.retime(index);
    }
}
