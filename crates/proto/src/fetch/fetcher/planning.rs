//! What to ask of which broker now.

use super::{
    FetchQuery, FetchRequest, Fetcher, InFlight, OffsetQuery, OffsetsRequest, Ticket, Transmit,
};
use crate::fetch::partition::{PartitionState, Phase};
use crate::topic::{BrokerId, TopicPartition};
use std::collections::BTreeMap;
use std::time::Instant;

/// One broker's partitions, looked at for a Fetch.
#[derive(Default)]
struct Share<'a> {
    /// Those that may be asked for now.
    askable: Vec<(&'a TopicPartition, &'a PartitionState, i64)>,
    /// Bytes that wait for the user, of all of the broker's partitions.
    queued_bytes: usize,
    /// One holds enough for the user to be busy with.
    is_busy: bool,
}

impl Fetcher {
    /// Fills the outbox.
    pub(super) fn plan(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (partition, state) in &mut self.partitions {
            // A pause that is over must not be a timeout any more, whatever else holds it back.
            if state.retry_at.is_some_and(|at| now >= at) {
                state.retry_at = None;
            }
            if let (Some(error), None) = (&state.lost, state.retry_at) {
                lost.push((partition.clone(), error.clone()));
            }
        }
        for (partition, error) in lost {
            self.fault(&partition, error);
        }
        self.plan_offsets(now);
        self.plan_fetches(now);
    }

    fn plan_offsets(&mut self, now: Instant) {
        let mut wanted: BTreeMap<BrokerId, Vec<OffsetQuery>> = BTreeMap::new();
        for (partition, state) in &self.partitions {
            if let Phase::AwaitingOffset(point) = state.phase
                && let Some(leader) = state.leader
                && state.may_ask(now)
                && !self.lookups.contains_key(&leader)
            {
                wanted.entry(leader).or_default().push(OffsetQuery {
                    partition: partition.clone(),
                    leader_epoch: state.leader_epoch,
                    point,
                    incarnation: state.incarnation,
                });
            }
        }
        for (broker, partitions) in wanted {
            let ticket = Ticket(self.next_number());
            let asked = partitions
                .iter()
                .map(|q| (q.partition.clone(), q.incarnation));
            let in_flight = InFlight {
                ticket,
                partitions: asked.collect(),
                reserved_bytes: 0,
            };
            self.mark_in_flight(&in_flight);
            self.lookups.insert(broker, in_flight);
            let request = OffsetsRequest { broker, partitions };
            self.outbox.push_back(Transmit::Offsets(ticket, request));
        }
    }

    fn plan_fetches(&mut self, now: Instant) {
        for request in self.fetch_requests(now) {
            let ticket = Ticket(self.next_number());
            let asked = request.partitions.iter();
            let in_flight = InFlight {
                ticket,
                partitions: asked
                    .map(|q| (q.partition.clone(), q.incarnation))
                    .collect(),
                reserved_bytes: request.max_bytes,
            };
            self.mark_in_flight(&in_flight);
            self.fetches.insert(request.broker, in_flight);
            self.outbox.push_back(Transmit::Fetch(ticket, request));
        }
    }

    fn fetch_requests(&self, now: Instant) -> Vec<FetchRequest> {
        let shares = self.shares(now);
        let reserved: usize = self.fetches.values().map(|one| one.reserved_bytes).sum();
        // What waits for the user and what is under way, of all brokers: a share left by a broker
        // that is gone counts too.
        let queued: usize = self
            .partitions
            .values()
            .map(|state| state.queued_bytes)
            .sum();
        let mut free = self
            .config
            .buffer_max_bytes
            .saturating_sub(reserved + queued);
        let share_bytes = self.config.buffer_max_bytes / shares.len().max(1);
        let mut requests = Vec::new();
        for (broker, mut share) in shares {
            if share.is_busy || share.askable.is_empty() || self.fetches.contains_key(&broker) {
                continue;
            }
            // A broker whose partitions hold nothing is always asked for something, or a small
            // buffer would stop everything.
            let least = if share.queued_bytes == 0 {
                self.config.partition_max_bytes
            } else {
                0
            };
            let room = share_bytes
                .saturating_sub(share.queued_bytes)
                .min(free)
                .max(least);
            let wanted = share
                .askable
                .len()
                .saturating_mul(self.config.partition_max_bytes);
            let max_bytes = wanted.min(self.config.max_bytes).min(room);
            if max_bytes < self.config.partition_max_bytes.min(self.config.max_bytes) {
                continue;
            }
            free = free.saturating_sub(max_bytes);
            share.askable.sort_by_key(|(_, state, _)| state.served);
            requests.push(FetchRequest {
                broker,
                max_bytes,
                partition_max_bytes: self.config.partition_max_bytes.min(max_bytes),
                partitions: share.askable.into_iter().map(query).collect(),
            });
        }
        requests
    }

    fn shares(&self, now: Instant) -> BTreeMap<BrokerId, Share<'_>> {
        let low_water = self.config.partition_max_bytes / 2;
        let mut shares: BTreeMap<BrokerId, Share<'_>> = BTreeMap::new();
        for (partition, state) in &self.partitions {
            let (Phase::AwaitingRecords(offset), Some(leader)) = (state.phase, state.leader) else {
                continue;
            };
            if state.paused {
                continue;
            }
            let share = shares.entry(leader).or_default();
            share.queued_bytes += state.queued_bytes;
            share.is_busy |= state.queued_bytes > low_water;
            if state.may_ask(now) && !state.is_at_damage() {
                share.askable.push((partition, state, offset));
            }
        }
        shares
    }

    fn mark_in_flight(&mut self, request: &InFlight) {
        for (partition, _) in &request.partitions {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.in_flight = true;
                state.retry_at = None;
            }
        }
    }
}

fn query((partition, state, offset): (&TopicPartition, &PartitionState, i64)) -> FetchQuery {
    FetchQuery {
        partition: partition.clone(),
        topic_id: state.topic_id,
        offset,
        leader_epoch: state.leader_epoch,
        last_fetched_epoch: state.last_fetched_epoch,
        incarnation: state.incarnation,
    }
}
