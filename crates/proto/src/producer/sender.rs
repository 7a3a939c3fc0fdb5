//! Decides what goes out to whom, and what an answer means for each batch.
//!
//! The driver calls `push`, `set_leader`, `handle_*` and then drains `poll_transmit` and
//! `poll_event`; it calls `handle_timeout` when `poll_timeout` is due.

mod answers;
mod clock;
mod cuts;
mod epochs;
mod lanes;
mod leaders;

use super::batch::{Batch, SPAN, Why};
use super::identity::Identity;
use super::partition::{Admission, Partition};
use super::types::{Config, Event, PartitionIndex, RequestId};
use super::verdict::{Attempt, VerdictCounts};
use crate::batch::SealedRecords;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use lanes::{Broker, Request, Spare};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// The core of a producer. `T` is what the driver wants back with each batch's outcome.
#[derive(Debug)]
pub struct Sender<T> {
    config: Config,
    identity: Option<Identity>,
    identity_asked: bool,
    /// The transaction cannot be committed any more, and that was told.
    broken: bool,
    partitions: Vec<Partition<T>>,
    /// Places of forgotten partitions.
    vacant: Vec<PartitionIndex>,
    brokers: BTreeMap<BrokerId, Broker>,
    requests: BTreeMap<RequestId, Request>,
    timers: BTreeSet<(Instant, PartitionIndex)>,
    events: VecDeque<Event<T>>,
    refresh: bool,
    next_request: u64,
    next_ordinal: u128,
    random: u64,
    verdicts: VerdictCounts,
    spare: Spare,
}

impl<T> Sender<T> {
    /// A sender that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let random = config.seed | 1;
        Self {
            config,
            identity: None,
            identity_asked: false,
            broken: false,
            partitions: Vec::new(),
            vacant: Vec::new(),
            brokers: BTreeMap::new(),
            requests: BTreeMap::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            refresh: false,
            next_request: 0,
            next_ordinal: 0,
            random,
            verdicts: VerdictCounts::default(),
            spare: Spare::default(),
        }
    }

    /// What brokers' answers meant, since this was asked last.
    pub fn take_verdicts(&mut self) -> VerdictCounts {
        std::mem::take(&mut self.verdicts)
    }

    /// Registers a partition.
    pub fn add_partition(&mut self, name: TopicPartition) -> PartitionIndex {
        if let Some(index) = self.vacant.pop()
            && let Some(place) = self.at(index)
        {
            *place = Partition::new(name);
            return index;
        }
        let index = PartitionIndex(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        self.partitions.push(Partition::new(name));
        index
    }

    /// Whether the partition could be forgotten: it has nothing unfinished, is no part of a
    /// transaction, and does not [need an epoch](Self::needs_epoch) for that.
    pub fn is_idle(&self, index: PartitionIndex) -> bool {
        let partition = self.partitions.get(index.0 as usize);
        partition.is_none_or(Partition::is_idle) && !self.needs_epoch(index)
    }

    /// Whether a partition without anything unfinished must be kept for its sequences: those of a
    /// transactional producer go on from transaction to transaction, until its epoch changes.
    pub fn needs_epoch(&self, index: PartitionIndex) -> bool {
        let partition = self.partitions.get(index.0 as usize);
        let kept = |p: &Partition<T>| p.is_idle() && !p.is_unused();
        self.config.transactional && partition.is_some_and(kept)
    }

    /// Forgets a partition that nothing is written to any more; its index may be given out again.
    /// Does nothing, and says so by `false`, while it has anything unfinished.
    pub fn forget(&mut self, index: PartitionIndex) -> bool {
        let idle = self.is_idle(index);
        let transactional = self.config.transactional;
        let Some(partition) = self.at(index).filter(|_| idle) else {
            return false;
        };
        let leader = partition.leader;
        // In transactions it has used nothing of its epoch, which is everybody's.
        if let Some(spent) = partition.identity.take()
            && !transactional
        {
            self.leave_behind(spent);
        }
        self.unlist(index, leader);
        if let Some(partition) = self.at(index) {
            partition.leader = None;
            partition.blocked_until = None;
            // The place's next partition knows nothing of it.
            if let Some(timer) = partition.timer.take() {
                self.timers.remove(&(timer, index));
            }
        }
        self.vacant.push(index);
        true
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

    fn indices(&self) -> impl Iterator<Item = PartitionIndex> + use<T> {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        (0..count).map(PartitionIndex)
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

    /// Adds a sealed batch to its partition.
    pub fn push(&mut self, now: Instant, index: PartitionIndex, mut batch: Batch<T>) -> u128 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += SPAN;
        batch.ordinal = ordinal;
        if let Some(partition) = self.at(index) {
            partition.put_back(batch);
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
        ordinal: u128,
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
            if self.config.transactional && partition.awaits_epoch() {
                let error = leaders::made_anew(partition);
                self.break_transaction(&error);
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
        if self.config.transactional && partition.admission != Admission::Granted {
            if partition.admission == Admission::None {
                partition.admission = Admission::Asked;
                self.events.push_back(Event::NeedAdmission(index));
            }
            return;
        }
        if let Some(leader) = partition.leader {
            partition.listed = true;
            let lane = partition.lane;
            let broker = self.brokers.entry(leader).or_default();
            broker.lane_mut(lane).ready.push_back(index);
            self.want(leader, lane);
        }
    }

    fn retime(&mut self, index: PartitionIndex) {
        let Some(partition) = self.partitions.get_mut(index.0 as usize) else {
            return;
        };
        // One that has become too early is put right when it comes up, once in a delivery timeout,
        // and not at every batch.
        let Some(next) = partition.next_timer() else {
            return;
        };
        if partition.timer.is_some_and(|timer| timer <= next) {
            return;
        }
        if let Some(old) = partition.timer.replace(next) {
            self.timers.remove(&(old, index));
        }
        self.timers.insert((next, index));
    }

    /// Everything that has not been acknowledged fails: the producer closes without waiting.
    pub fn fail_all(&mut self) {
        for index in self.indices() {
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
