//! Decides what goes out to whom, and what an answer means for each batch.
//!
//! The driver calls `push`, `set_leader`, `handle_*` and then drains `poll_transmit` and
//! `poll_event`; it calls `handle_timeout` when `poll_timeout` is due.

mod answers;

use super::batch::{Batch, Flight, Why};
use super::identity::Identity;
use super::partition::Partition;
use super::types::{Config, Event, PartitionIndex, RequestId, Transmit, TransmitBatch};
use super::verdict::Attempt;
use crate::batch::{BatchStamp, SealedRecords};
use crate::error::Error;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

#[derive(Debug, Default)]
struct Broker {
    connected: bool,
    asked: bool,
    in_flight: usize,
    muted_until: Option<Instant>,
    ready: VecDeque<PartitionIndex>,
}

/// The core of a producer. `T` is what the driver wants back with each batch's outcome.
#[derive(Debug)]
pub struct Sender<T> {
    config: Config,
    identity: Option<Identity>,
    identity_asked: bool,
    partitions: Vec<Partition<T>>,
    brokers: BTreeMap<BrokerId, Broker>,
    requests: BTreeMap<RequestId, (BrokerId, Vec<PartitionIndex>)>,
    timers: BTreeSet<(Instant, PartitionIndex)>,
    events: VecDeque<Event<T>>,
    refresh: bool,
    next_request: u64,
    next_ordinal: u64,
    random: u64,
}

impl<T> Sender<T> {
    /// A sender that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let random = config.seed | 1;
        Self {
            config,
            identity: None,
            identity_asked: false,
            partitions: Vec::new(),
            brokers: BTreeMap::new(),
            requests: BTreeMap::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            refresh: false,
            next_request: 0,
            next_ordinal: 0,
            random,
        }
    }

    /// Registers a partition.
    pub fn add_partition(&mut self, name: TopicPartition) -> PartitionIndex {
        let index = PartitionIndex(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        self.partitions.push(Partition::new(name));
        index
    }

    fn at(&mut self, index: PartitionIndex) -> Option<&mut Partition<T>> {
        self.partitions.get_mut(index.0 as usize)
    }

    /// The partition's name.
    pub fn name(&self, index: PartitionIndex) -> Option<&TopicPartition> {
        self.partitions
            .get(index.0 as usize)
            .map(|partition| &partition.name)
    }

    /// The id of the partition's topic, if known.
    pub fn topic_id(&self, index: PartitionIndex) -> Option<TopicId> {
        self.partitions
            .get(index.0 as usize)
            .and_then(|partition| partition.topic_id)
    }

    /// Whether a batch sealed now would not wait behind another of its partition.
    pub fn has_room(&self, index: PartitionIndex) -> bool {
        let idempotent = self.config.idempotent;
        self.partitions
            .get(index.0 as usize)
            .is_some_and(|p| p.has_room(idempotent))
    }

    /// Batches that wait unsent in the partition.
    pub fn queued(&self, index: PartitionIndex) -> usize {
        self.partitions
            .get(index.0 as usize)
            .map_or(0, |partition| partition.queue.len())
    }

    /// Gives the producer id for partitions that have none yet.
    pub fn set_identity(&mut self, now: Instant, identity: Identity) {
        self.identity = Some(identity);
        self.identity_asked = false;
        for index in 0..self.partitions.len() {
            self.list(
                now,
                PartitionIndex(u32::try_from(index).unwrap_or(u32::MAX)),
            );
        }
    }

    /// Takes in that no producer id is to be had, for a reason that waiting does not mend: what
    /// waits for one fails. The next batch asks again.
    pub fn refuse_identity(&mut self, error: &Error) {
        self.identity_asked = false;
        for index in 0..self.partitions.len() {
            let index = PartitionIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let waits = |p: &Partition<T>| p.identity.is_none() && p.in_flight.is_empty();
            while let Some(partition) = self.at(index).filter(|p| waits(p))
                && let Some(mut batch) = partition.queue.pop_front()
            {
                let error = error
                    .clone()
                    .at_partition(partition.name.clone())
                    .with_outcome(batch.outcome());
                if let Some(token) = batch.token.take() {
                    self.events.push_back(Event::Failed { token, error });
                }
            }
            self.retime(index);
        }
    }

    /// Says who leads a partition now, and which topic it is of.
    pub fn set_leader(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        leader: Option<BrokerId>,
        leader_epoch: Option<i32>,
        topic_id: Option<TopicId>,
    ) {
        let Some(partition) = self.at(index) else {
            return;
        };
        let remade = partition.topic_id.is_some() && topic_id != partition.topic_id;
        if remade && topic_id.is_some() && partition.identity.is_some() {
            // Another log: its sequences start again.
            partition.open_hole(0);
            if partition.in_flight.is_empty() {
                self.settle(index);
            }
        }
        let Some(partition) = self.at(index) else {
            return;
        };
        partition.topic_id = topic_id.or(partition.topic_id);
        let older = !remade && leader_epoch.is_some() && leader_epoch < partition.leader_epoch;
        if older {
            return;
        }
        partition.leader_epoch = leader_epoch.or(partition.leader_epoch);
        if partition.leader != leader {
            if leader.is_some() {
                partition.blocked_until = None;
            }
            let old = std::mem::replace(&mut partition.leader, leader);
            let listed = std::mem::take(&mut partition.listed);
            // Left in the old leader's list, it could stand there twice when that broker leads it
            // again: two batches of one partition in a request.
            if let Some(old) = old.filter(|_| listed)
                && let Some(state) = self.brokers.get_mut(&old)
            {
                state.ready.retain(|&other| other != index);
            }
        }
        self.list(now, index);
        self.retime(index);
    }

    /// Says whether requests can be sent to a broker.
    pub fn set_connected(&mut self, broker: BrokerId, connected: bool) {
        let state = self.brokers.entry(broker).or_default();
        state.connected = connected;
        state.asked = false;
        if !connected
            && state
                .ready
                .iter()
                .any(|&i| self.partitions[i.0 as usize].leader == Some(broker))
        {
            self.want(broker);
        }
    }

    fn want(&mut self, broker: BrokerId) {
        let state = self.brokers.entry(broker).or_default();
        if !state.connected && !state.asked {
            state.asked = true;
            self.events.push_back(Event::Connect(broker));
        }
    }

    /// Adds a sealed batch to its partition.
    pub fn push(&mut self, now: Instant, index: PartitionIndex, mut batch: Batch<T>) -> u64 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        batch.ordinal = ordinal;
        if let Some(partition) = self.at(index) {
            partition.queue.push_back(batch);
        }
        self.list(now, index);
        self.retime(index);
        ordinal
    }

    /// Gives the compressed records of a batch that was pushed without them. A batch that has
    /// expired meanwhile is forgotten.
    pub fn provide(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        ordinal: u64,
        records: SealedRecords,
    ) {
        if let Some(partition) = self.at(index)
            && let Some(batch) = partition.queue.iter_mut().find(|b| b.ordinal == ordinal)
        {
            batch.records = Some(records);
            self.list(now, index);
        }
    }

    /// Puts the partition into its leader's list if it has something to send.
    fn list(&mut self, now: Instant, index: PartitionIndex) {
        let idempotent = self.config.idempotent;
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        if partition.listed || !partition.sendable(now, idempotent) {
            if partition.leader.is_none() && !partition.queue.is_empty() {
                self.refresh = true;
            }
            return;
        }
        if idempotent && self.identity.is_none() && partition.identity.is_none() {
            if !self.identity_asked {
                self.identity_asked = true;
                self.events.push_back(Event::NeedIdentity);
            }
            return;
        }
        if let Some(leader) = partition.leader {
            partition.listed = true;
            self.brokers
                .entry(leader)
                .or_default()
                .ready
                .push_back(index);
            self.want(leader);
        }
    }

    fn retime(&mut self, index: PartitionIndex) {
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        let next = partition.next_timer();
        if next == partition.timer {
            return;
        }
        if let Some(old) = partition.timer {
            self.timers.remove(&(old, index));
        }
        partition.timer = next;
        if let Some(next) = next {
            self.timers.insert((next, index));
        }
    }

    /// The next request to be sent, if any.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let limit = self.config.requests_max;
        let free = |state: &Broker| {
            state.connected
                && !state.ready.is_empty()
                && state.in_flight < limit
                && state.muted_until.is_none_or(|until| until <= now)
        };
        while let Some(broker) = self
            .brokers
            .iter()
            .find(|(_, s)| free(s))
            .map(|(id, _)| *id)
        {
            if let Some(transmit) = self.fill(now, broker) {
                return Some(transmit);
            }
        }
        None
    }

    /// Fills one request from the broker's list: one batch a partition, until it is large enough.
    fn fill(&mut self, now: Instant, broker: BrokerId) -> Option<Transmit> {
        let request = RequestId(self.next_request);
        let mut batches = Vec::new();
        let mut bytes = 0usize;
        while bytes < self.config.request_bytes_max
            && let Some(index) = self.brokers.get_mut(&broker)?.ready.pop_front()
        {
            let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
                continue;
            };
            partition.listed = false;
            if !partition.sendable(now, self.config.idempotent) {
                continue;
            }
            if self.config.idempotent && partition.identity.or(self.identity).is_none() {
                self.list(now, index); // which asks for an identity
                continue;
            }
            let ours = self.identity.filter(|_| self.config.idempotent);
            let Some(batch) = partition.take(now, ours) else {
                continue;
            };
            let Some(records) = &batch.records else {
                continue;
            };
            let stamp = batch.stamp.map(|stamp| BatchStamp {
                producer_id: stamp.identity.producer_id,
                epoch: stamp.identity.epoch,
                base_sequence: stamp.base_sequence.0,
                transactional: false,
            });
            bytes += records.size_bytes();
            batches.push(TransmitBatch {
                partition: index,
                header: records.header(stamp),
                segments: records.segments().to_vec(),
            });
            partition.in_flight.push_back(Flight {
                request: request.0,
                batch,
            });
            self.retime(index);
        }
        if batches.is_empty() {
            return None;
        }
        let indices: Vec<_> = batches.iter().map(|batch| batch.partition).collect();
        for &index in &indices {
            // Its next batch goes into another request.
            self.list(now, index);
            if self.has_room(index) {
                self.events.push_back(Event::Room(index));
            }
        }
        self.next_request += 1;
        self.brokers.entry(broker).or_default().in_flight += 1;
        self.requests.insert(request, (broker, indices));
        Some(Transmit {
            request,
            broker,
            batches,
        })
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let muted = self
            .brokers
            .values()
            .filter(|b| !b.ready.is_empty())
            .filter_map(|b| b.muted_until);
        self.timers
            .first()
            .map(|(at, _)| *at)
            .into_iter()
            .chain(muted)
            .min()
    }

    /// Does what is due: expires batches, ends waits.
    pub fn handle_timeout(&mut self, now: Instant) {
        for broker in self.brokers.values_mut() {
            broker.muted_until = broker.muted_until.filter(|&until| until > now);
        }
        while let Some(&(at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.expire(now, index);
            if let Some(partition) = self.at(index)
                && partition.blocked_until.is_some_and(|until| until <= now)
            {
                partition.blocked_until = None;
            }
            self.after_answer(now, index);
        }
    }

    fn expire(&mut self, now: Instant, index: PartitionIndex) {
        let due = |batch: &Batch<T>| batch.deadline <= now;
        while let Some(batch) = self.at(index).and_then(|partition| {
            let first = partition.queue.front().is_some_and(due);
            if first {
                partition.queue.pop_front()
            } else {
                None
            }
        }) {
            self.fail(index, batch, Why::Expired);
        }
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        for flight in partition
            .in_flight
            .iter_mut()
            .filter(|flight| due(&flight.batch))
        {
            flight.batch.note(Attempt::Unknown);
            if let Some(token) = flight.batch.token.take() {
                let error = flight.batch.failure(&partition.name, Why::Expired);
                self.events.push_back(Event::Failed { token, error });
            }
        }
    }

    /// Everything that has not been acknowledged fails: the producer closes without waiting.
    pub fn fail_all(&mut self) {
        for index in 0..self.partitions.len() {
            let index = PartitionIndex(u32::try_from(index).unwrap_or(u32::MAX));
            while let Some(batch) = self.at(index).and_then(|p| p.queue.pop_front()) {
                self.fail(index, batch, Why::Closed);
            }
            while let Some(mut flight) = self.at(index).and_then(|p| p.in_flight.pop_front()) {
                flight.batch.note(Attempt::Unknown);
                self.fail(index, flight.batch, Why::Closed);
            }
            self.retime(index);
        }
        self.requests.clear();
    }

    /// The next thing to do or to tell.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        if std::mem::take(&mut self.refresh) {
            return Some(Event::Refresh);
        }
        self.events.pop_front()
    }
}
