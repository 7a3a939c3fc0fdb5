//! What is due when.

use super::Sender;
use super::answers::failed;
use crate::producer::batch::{Batch, Why};
use crate::producer::types::PartitionIndex;
use crate::producer::verdict::Attempt;
use std::time::Instant;

impl<T> Sender<T> {
    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let muted = self
            .brokers
            .values()
            .filter(|broker| broker.has_ready())
            .filter_map(|broker| broker.muted_until);
        let stalls = self
            .busy_lanes()
            .filter_map(|(broker, lane)| self.stalls_at(broker, lane));
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(muted).chain(stalls).min()
    }

    /// Does what is due: expires batches, ends waits, gives up lanes that stall.
    pub fn handle_timeout(&mut self, now: Instant) {
        for broker in self.brokers.values_mut() {
            broker.muted_until = broker.muted_until.filter(|&until| until > now);
        }
        while let Some(&(at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(partition) = self.at(index) {
                partition.timer = None;
            }
            self.expire(now, index);
            if let Some(partition) = self.at(index)
                && partition.blocked_until.is_some_and(|until| until <= now)
            {
                partition.blocked_until = None;
            }
            self.after_answer(now, index);
        }
        let stalled: Vec<_> = self
            .busy_lanes()
            .filter(|&(broker, lane)| self.stalls_at(broker, lane).is_some_and(|at| at <= now))
            .collect();
        for (broker, lane) in stalled {
            self.abandon(now, broker, lane);
        }
    }

    fn expire(&mut self, now: Instant, index: PartitionIndex) {
        let due = |batch: &Batch<T>| batch.deadline <= now;
        while let Some(batch) = self.at(index).and_then(|p| p.take_expired(now)) {
            self.fail(index, batch, Why::Expired);
        }
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        let mut last = None;
        for flight in partition
            .in_flight
            .iter_mut()
            .filter(|flight| due(&flight.batch))
        {
            flight.batch.note(Attempt::Unknown);
            if let Some(token) = flight.batch.token.take() {
                let error = flight.batch.failure(&partition.name, Why::Expired);
                last = Some(error.clone());
                self.events.push_back(failed(token, error, &flight.batch));
            }
        }
        if let Some(error) = last {
            self.break_transaction(&error);
        }
    }
}
