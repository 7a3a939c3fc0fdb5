//! A broker's two lanes: what is ready to be sent on each, and what is in flight.

use super::Sender;
use crate::batch::BatchStamp;
use crate::producer::batch::Flight;
use crate::producer::partition::Admission;
use crate::producer::types::{Event, Lane, PartitionIndex, RequestId, Transmit, TransmitBatch};
use crate::topic::{BrokerId, TopicId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A request may take so much longer than those before it.
const LATENCY_FACTOR: u32 = 8;
/// The stall time is doubled at most so often.
const STRIKES_MAX: u32 = 6;

/// What is known of a broker.
#[derive(Debug, Default)]
pub(super) struct Broker {
    main: LaneState,
    apart: LaneState,
    pub(super) muted_until: Option<Instant>,
    /// A moving average of how long an answer takes on the main lane.
    latency: Duration,
    /// How many partitions a request on the lane apart may have, one if 0. Half of the suspects
    /// first, then half of those, until the one that is stuck is alone.
    apart_max: usize,
    /// Requests given up in a row. If giving up did not help, the broker is slow as a whole, and
    /// sending again what it has in hand already would make it slower.
    strikes: u32,
}

/// One connection's state.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    pub(super) connected: bool,
    pub(super) asked: bool,
    /// In the order of sending, which is the order of the answers.
    pub(super) in_flight: VecDeque<RequestId>,
    /// Since when the oldest request is the oldest.
    head_since: Option<Instant>,
    pub(super) ready: VecDeque<PartitionIndex>,
}

/// A request that was sent and is unanswered.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) broker: BrokerId,
    pub(super) lane: Lane,
    pub(super) batches: Named,
    bytes: usize,
}

/// The partitions of a request, and the topic ids that it names them by.
pub(super) type Named = Vec<(PartitionIndex, Option<TopicId>)>;

/// Lists that requests are made of, to be used again. There are never more of them than requests were
/// in flight at once.
#[derive(Debug, Default)]
pub(super) struct Spare {
    batches: Vec<TransmitBatch>,
    named: Vec<Named>,
}

impl Request {
    fn concerns_only(&self, index: PartitionIndex) -> bool {
        self.batches.iter().all(|(other, _)| *other == index)
    }
}

impl Broker {
    pub(super) fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Main => &self.main,
            Lane::Apart => &self.apart,
        }
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Main => &mut self.main,
            Lane::Apart => &mut self.apart,
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        Lane::ALL
            .iter()
            .any(|&lane| !self.lane(lane).ready.is_empty())
    }

    /// The broker reads nothing from the lane that it answered until then, which is no stall.
    pub(super) fn mute(&mut self, lane: Lane, until: Instant) {
        self.muted_until = self.muted_until.max(Some(until));
        let lane = self.lane_mut(lane);
        lane.head_since = lane.head_since.map(|since| since.max(until));
    }

    fn has_room(&self, lane: Lane, requests_max: usize) -> bool {
        let state = self.lane(lane);
        let most = match lane {
            Lane::Main => requests_max,
            Lane::Apart => 1,
        };
        state.connected && !state.ready.is_empty() && state.in_flight.len() < most
    }

    /// Takes in how long the oldest answer of a lane took.
    fn note_latency(&mut self, lane: Lane, took: Duration, usual: Duration) {
        if lane == Lane::Main {
            self.latency = (self.latency * 7 + took) / 8;
        }
        if took < usual {
            self.strikes = 0;
        }
    }
}

/// A request's list of batches grows beyond these.
const USUAL_BATCHES: usize = 16;

impl<T> Sender<T> {
    /// The next request to be sent, if any.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        while let Some((broker, lane)) = self.free_lane(now) {
            if let Some(transmit) = self.fill(now, broker, lane) {
                return Some(transmit);
            }
        }
        None
    }

    fn free_lane(&self, now: Instant) -> Option<(BrokerId, Lane)> {
        let most = self.config.requests_max;
        self.brokers
            .iter()
            .filter(|(_, broker)| broker.muted_until.is_none_or(|until| until <= now))
            .find_map(|(id, broker)| {
                let free = |lane: &&Lane| broker.has_room(**lane, most);
                Lane::ALL.iter().find(free).map(|&lane| (*id, lane))
            })
    }

    /// Fills one request from the lane's list: one batch a partition, until it is large enough.
    fn fill(&mut self, now: Instant, broker: BrokerId, lane: Lane) -> Option<Transmit> {
        let request = RequestId(self.next_request);
        let ready = self.brokers.get(&broker)?.lane(lane).ready.len();
        let mut batches = std::mem::take(&mut self.spare.batches);
        batches.reserve(ready.min(USUAL_BATCHES));
        let mut bytes = 0usize;
        let most_apart = self.brokers.get(&broker)?.apart_max.max(1);
        while let Some(&index) = self.brokers.get(&broker)?.lane(lane).ready.front() {
            let size = self.front_bytes(index);
            let large = !batches.is_empty() && bytes + size > self.config.request_bytes_max;
            if large || (lane == Lane::Apart && batches.len() >= most_apart) {
                break;
            }
            self.brokers
                .get_mut(&broker)?
                .lane_mut(lane)
                .ready
                .pop_front();
            if let Some(batch) = self.take(now, index, request) {
                bytes += size;
                batches.push(batch);
            }
        }
        if batches.is_empty() {
            self.spare.batches = batches;
            return None;
        }
        self.join_topics(&mut batches);
        self.next_request += 1;
        let state = self.brokers.entry(broker).or_default().lane_mut(lane);
        state.in_flight.push_back(request);
        state.head_since.get_or_insert(now);
        let mut named = self.spare.named.pop().unwrap_or_default();
        named.extend(batches.iter().map(|b| (b.partition, b.topic_id)));
        let sent = Request {
            broker,
            lane,
            batches: named,
            bytes,
        };
        self.requests.insert(request, sent);
        for batch in &batches {
            // Its next batch goes into another request.
            self.list(now, batch.partition);
            self.tell_room(batch.partition);
        }
        Some(Transmit {
            request,
            broker,
            lane,
            batches,
        })
    }

    /// Brings the batches of each topic together, as a request wants them.
    fn join_topics(&self, batches: &mut [TransmitBatch]) {
        let place = |batch: &TransmitBatch| {
            let name = self.name(batch.partition);
            name.map(|name| (&*name.topic, batch.topic_id.map(|id| id.0), name.partition))
        };
        let topic = |batch: &TransmitBatch| place(batch).map(|(topic, id, _)| (topic, id));
        // Mostly there is but one; its partitions stay in their order.
        if !batches.is_sorted_by_key(topic) {
            batches.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        }
    }

    /// Takes back the list of a request that has gone out, to make the next one of it.
    pub fn reuse(&mut self, mut batches: Vec<TransmitBatch>) {
        batches.clear();
        self.spare.batches = batches;
    }

    pub(super) fn reuse_named(&mut self, mut named: Named) {
        named.clear();
        self.spare.named.push(named);
    }

    fn front_bytes(&self, index: PartitionIndex) -> usize {
        self.partitions
            .get(index.0 as usize)
            .and_then(|partition| partition.next()?.records.as_ref())
            .map_or(0, |records| records.size_bytes())
    }

    /// Takes a partition's next batch into flight.
    fn take(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        request: RequestId,
    ) -> Option<TransmitBatch> {
        let idempotent = self.config.idempotent;
        let partition = self.partitions.get_mut(index.0 as usize)?;
        partition.listed = false;
        if !partition.sendable(now, idempotent) {
            return None;
        }
        if idempotent && partition.identity.or(self.identity).is_none() {
            self.list(now, index); // which asks for an identity
            return None;
        }
        if self.config.transactional && partition.admission != Admission::Granted {
            // It was listed in an earlier transaction, for a batch that has ended meanwhile.
            self.list(now, index);
            return None;
        }
        let ours = self.identity.filter(|_| idempotent);
        let batch = partition.take(now, ours)?;
        let records = batch.records.as_ref()?;
        let stamp = batch.stamp.map(|stamp| BatchStamp {
            producer_id: stamp.identity.producer_id,
            epoch: stamp.identity.epoch,
            base_sequence: stamp.base_sequence.0,
            transactional: self.config.transactional,
        });
        let transmit = TransmitBatch {
            partition: index,
            topic_id: partition.topic_id,
            header: records.header(stamp),
            segments: records.segments().clone(),
            attempts: batch.attempts,
            deadline: batch.deadline,
        };
        partition.in_flight.push_back(Flight {
            request: request.0,
            batch,
        });
        self.retime(index);
        Some(transmit)
    }

    /// Takes a request out of flight, however it ended. Only an answer says how long the broker takes.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        request: RequestId,
        answered: bool,
    ) -> Option<Request> {
        let done = self.requests.remove(&request)?;
        let usual = self.usual(done.bytes);
        let broker = self.brokers.entry(done.broker).or_default();
        let lane = broker.lane_mut(done.lane);
        let was_head = lane.in_flight.front() == Some(&request);
        lane.in_flight.retain(|other| *other != request);
        if !was_head {
            return Some(done);
        }
        let next = (!lane.in_flight.is_empty()).then_some(now);
        if let Some(since) = std::mem::replace(&mut lane.head_since, next).filter(|_| answered) {
            let took = now.saturating_duration_since(since);
            broker.note_latency(done.lane, took, usual);
        }
        Some(done)
    }

    /// What a request of so many bytes may take before anyone wonders: a slow line is no stall.
    fn usual(&self, bytes: usize) -> Duration {
        let line = Duration::from_micros(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.config.stall_after.saturating_add(line)
    }

    /// When the lane's oldest request keeps the others waiting too long; `None` while nobody waits.
    pub(super) fn stalls_at(&self, broker: BrokerId, lane: Lane) -> Option<Instant> {
        if !self.config.idempotent {
            return None; // what may be written could not be sent again
        }
        let state = self.brokers.get(&broker)?;
        let since = state.lane(lane).head_since?;
        let mut in_flight = state.lane(lane).in_flight.iter();
        let head = self.requests.get(in_flight.next()?)?;
        let (first, _) = head.batches.first()?;
        let others_wait = !head.concerns_only(*first)
            || in_flight.any(|r| {
                self.requests
                    .get(r)
                    .is_some_and(|r| !r.concerns_only(*first))
            })
            || state.lane(lane).ready.iter().any(|other| other != first);
        if !others_wait {
            return None;
        }
        since.checked_add(self.patience(state, head.bytes))
    }

    /// How long a broker's answer to a request of so many bytes is waited for while others wait.
    fn patience(&self, broker: &Broker, bytes: usize) -> Duration {
        let slow = broker.latency.saturating_mul(LATENCY_FACTOR);
        let wait = self.usual(bytes).max(slow);
        wait.saturating_mul(1 << broker.strikes.min(STRIKES_MAX))
    }

    /// Every lane with something in flight.
    pub(super) fn busy_lanes(&self) -> impl Iterator<Item = (BrokerId, Lane)> + '_ {
        self.brokers.iter().flat_map(|(id, broker)| {
            let busy = |lane: &Lane| !broker.lane(*lane).in_flight.is_empty();
            Lane::ALL.into_iter().filter(busy).map(|lane| (*id, lane))
        })
    }

    /// Gives up a lane whose oldest request stalls. Its partitions go apart, one at a time, so that
    /// the one whose follower is stuck shows itself and holds up no other.
    pub(super) fn abandon(&mut self, now: Instant, broker: BrokerId, lane: Lane) {
        let Some(state) = self.brokers.get_mut(&broker) else {
            return;
        };
        state.strikes += 1;
        let head = state.lane(lane).in_flight.front();
        let suspects = head.and_then(|head| self.requests.get(head));
        state.apart_max = suspects.map_or(1, |head| head.batches.len() / 2);
        let state = state.lane_mut(lane);
        state.connected = false;
        state.asked = false;
        state.head_since = None;
        let requests = std::mem::take(&mut state.in_flight);
        self.events.push_back(Event::Abandon(broker, lane));
        for (place, request) in requests.into_iter().enumerate() {
            let Some(request) = self.requests.remove(&request) else {
                continue;
            };
            for &(index, _) in &request.batches {
                let stalled = place == 0;
                if stalled {
                    self.move_to(index, Lane::Apart);
                }
                self.handle_stalled(now, index, stalled && lane == Lane::Apart);
                self.after_answer(now, index);
            }
            self.reuse_named(request.batches);
        }
        // Those that stood in the list already do not ask for the new connection themselves.
        let ready = |broker: &Broker| !broker.lane(lane).ready.is_empty();
        if self.brokers.get(&broker).is_some_and(ready) {
            self.want(broker, lane);
        }
    }

    /// Whether that request went apart and was answered, as far as the broker's patience goes, in
    /// good time: then its partition goes back to the others. On a broker that is slow as a whole
    /// the patience grows, so that not all of its partitions stay apart.
    pub(super) fn is_well_again(&self, now: Instant, request: RequestId) -> bool {
        let well = || {
            let sent = self.requests.get(&request)?;
            let broker = self.brokers.get(&sent.broker)?;
            let since = broker.lane(sent.lane).head_since?;
            let took = now.saturating_duration_since(since);
            Some(sent.lane == Lane::Apart && took < self.patience(broker, sent.bytes))
        };
        well().unwrap_or(false)
    }

    pub(super) fn move_to(&mut self, index: PartitionIndex, lane: Lane) {
        let leader = self.at(index).and_then(|partition| partition.leader);
        self.unlist(index, leader);
        if let Some(partition) = self.at(index) {
            partition.lane = lane;
        }
    }
}
