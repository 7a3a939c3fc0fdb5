//! Which partitions to ask which broker for, and what becomes of the answers.
//!
//! One Fetch is in flight a broker. A broker is asked when all its partitions that are not paused
//! hold little: a Fetch for the quiet ones alone would wait at the broker, and those drained
//! meanwhile would wait behind it. Records wait in one queue in the order they came, so that no
//! partition starves and an answer's memory is freed soon.

mod answers;
mod planning;
#[cfg(test)]
mod tests;

use super::backoff::Backoff;
use super::cursor::Cursor;
use super::partition::{Aborted, PartitionState, Phase, Start};
use super::progress::Progress;
use super::{Isolation, OffsetReset, Point};
use crate::cluster::ClusterView;
use crate::code::Code;
use crate::error::{Error, ErrorKind};
use crate::producer::LeaderHint;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a fetcher is given to work with.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// The most bytes an answer shall hold.
    pub max_bytes: usize,
    /// The most bytes an answer shall hold of one partition.
    pub partition_max_bytes: usize,
    /// The most bytes fetched, or asked for, and not handed out, of all partitions together. A
    /// partition whose next batch alone is larger is fetched all the same.
    pub buffer_max_bytes: usize,
    /// Which records may be seen.
    pub isolation: Isolation,
    /// Where to begin without an offset.
    pub reset: OffsetReset,
    /// Whether to verify each batch's checksum.
    pub check_crcs: bool,
    /// The most that one batch may inflate to.
    pub inflated_max_bytes: usize,
    /// The first pause before a partition is asked for again,
    pub retry_backoff: Duration,
    /// and the longest.
    pub retry_backoff_max: Duration,
    /// Where the chance in the pauses starts.
    pub seed: u64,
}

/// Marks a request; its answer comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// One partition in a Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchQuery {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic's id, where known.
    pub topic_id: Option<TopicId>,
    /// The first offset wanted.
    pub offset: i64,
    /// The leader epoch as we know it.
    pub leader_epoch: Option<i32>,
    /// The epoch of the last record that we have.
    pub last_fetched_epoch: Option<i32>,
    incarnation: u64,
}

/// A Fetch request to one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The broker.
    pub broker: BrokerId,
    /// The most bytes the answer shall hold.
    pub max_bytes: usize,
    /// The most bytes it shall hold of one partition.
    pub partition_max_bytes: usize,
    /// What to ask for, in this order.
    pub partitions: Vec<FetchQuery>,
}

/// One partition in a ListOffsets request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetQuery {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader epoch as we know it.
    pub leader_epoch: Option<i32>,
    /// What to look up.
    pub point: Point,
    incarnation: u64,
}

/// A ListOffsets request to one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsRequest {
    /// The broker.
    pub broker: BrokerId,
    /// What to ask for.
    pub partitions: Vec<OffsetQuery>,
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Fetch; answer with [`Fetcher::handle_fetch`].
    Fetch(Ticket, FetchRequest),
    /// ListOffsets; answer with [`Fetcher::handle_offsets`].
    Offsets(Ticket, OffsetsRequest),
}

/// One partition in a Fetch answer.
#[derive(Debug, Clone)]
pub struct FetchedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// Kafka's code.
    pub code: Code,
    /// The log's end as readers see it.
    pub high_watermark: Option<i64>,
    /// The transactions among the records that were aborted.
    pub aborted: Vec<Aborted>,
    /// Where our log and the leader's part: the end offset of the last epoch they share.
    pub diverges_at: Option<i64>,
    /// The leader, when it is another than the one asked.
    pub leader_hint: Option<LeaderHint>,
    /// Record batches; the last one may be cut off.
    pub records: Bytes,
}

/// One partition in a ListOffsets answer.
#[derive(Debug, Clone)]
pub struct Found {
    /// The partition.
    pub partition: TopicPartition,
    /// Kafka's code.
    pub code: Code,
    /// The offset; `None` when there is no record of that time or later.
    pub offset: Option<i64>,
    /// The epoch of the record at the offset.
    pub leader_epoch: Option<i32>,
}

/// What the driver shall do or pass on.
#[derive(Debug, Clone)]
pub enum Event {
    /// The view is old: refresh it.
    ViewStale,
    /// An answer named this partition's leader.
    Leader(TopicPartition, LeaderHint),
    /// The offset asked for was not in the log, which begins or ends elsewhere: the position moves
    /// as the policy says, and records may have been missed.
    OutOfRange {
        /// Where.
        partition: TopicPartition,
        /// The offset that the log does not have.
        offset: i64,
    },
    /// The leader's log lost records that were fetched: the position went back.
    Truncated {
        /// Where.
        partition: TopicPartition,
        /// The offset that was next.
        from: i64,
        /// The offset that is next now.
        to: i64,
    },
    /// The topic was deleted and made anew: this log is another one, and is read as the policy says.
    Recreated(TopicPartition),
}

/// What waits for the user.
#[derive(Debug)]
pub enum Ready {
    /// Records of one partition. Give it back with [`Fetcher::finish`] or [`Fetcher::put_back`].
    Records(Cursor),
    /// A partition cannot be read; it is tried again once the user knows.
    Fault(Error),
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    partitions: Vec<(TopicPartition, u64)>,
    reserved_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    partition: TopicPartition,
    ready: Ready,
}

/// The fetching side of one consumer. See the module's documentation.
#[derive(Debug)]
pub struct Fetcher {
    config: FetchConfig,
    partitions: BTreeMap<TopicPartition, PartitionState>,
    /// Also partitions that are not assigned now: a rebalance must not resume what the user paused.
    paused: BTreeSet<TopicPartition>,
    fetches: BTreeMap<BrokerId, InFlight>,
    lookups: BTreeMap<BrokerId, InFlight>,
    /// In the order they came. Bounded by `buffer_max_bytes` and one fault a partition.
    ready: VecDeque<Waiting>,
    last_number: u64,
    backoff: Backoff,
    outbox: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Fetcher {
    /// A fetcher without partitions.
    pub fn new(config: FetchConfig) -> Self {
        let backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max, config.seed);
        Self {
            config,
            partitions: BTreeMap::new(),
            paused: BTreeSet::new(),
            fetches: BTreeMap::new(),
            lookups: BTreeMap::new(),
            ready: VecDeque::new(),
            last_number: 0,
            backoff,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Adds a partition, or begins it anew.
    pub fn assign(&mut self, partition: &TopicPartition, start: Start) -> Arc<Progress> {
        self.unassign(partition);
        let incarnation = self.next_number();
        let mut state = PartitionState::new(partition.clone(), incarnation);
        state.paused = self.paused.contains(partition);
        let progress = Arc::clone(&state.progress);
        self.partitions.insert(partition.clone(), state);
        self.begin(partition, start);
        progress
    }

    /// Takes a partition away. Nothing of it is handed out from here on, not even by a cursor that
    /// the user holds, once it looks at [`Progress::is_revoked`].
    pub fn unassign(&mut self, partition: &TopicPartition) -> Option<Arc<Progress>> {
        let state = self.partitions.remove(partition)?;
        state.progress.revoke();
        self.ready.retain(|waiting| waiting.partition != *partition);
        Some(state.progress)
    }

    /// Says where a partition assigned with [`Start::Awaited`] begins. Does nothing if it begins
    /// somewhere already: the user has sought.
    pub fn start(&mut self, partition: &TopicPartition, start: Start) {
        let state = self.partitions.get(partition);
        if state.is_some_and(|state| state.phase == Phase::AwaitingStart) {
            self.begin(partition, start);
        }
    }

    /// Goes to another place in a partition; `false` if the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, start: Start) -> bool {
        self.begin(partition, start)
    }

    fn begin(&mut self, partition: &TopicPartition, start: Start) -> bool {
        let incarnation = self.next_number();
        let Some(state) = self.partitions.get_mut(partition) else {
            return false;
        };
        state.begin(start, self.config.reset, incarnation);
        if state.phase == Phase::AwaitingSeek {
            let error = Error::new(
                ErrorKind::State,
                "there is no offset to begin at and auto.offset.reset is none",
            );
            state.lost = Some(error.at_partition(partition.clone()));
        }
        self.ready.retain(|waiting| waiting.partition != *partition);
        true
    }

    /// Stops or resumes handing out a partition's records and asking for more. This outlives the
    /// assignment. `false` if the partition is not assigned.
    pub fn pause(&mut self, partition: &TopicPartition, pause: Pause) -> bool {
        match pause {
            Pause::On => self.paused.insert(partition.clone()),
            Pause::Off => self.paused.remove(partition),
        };
        let Some(state) = self.partitions.get_mut(partition) else {
            return false;
        };
        state.paused = pause == Pause::On;
        match pause {
            Pause::On => {
                let waiting = std::mem::take(&mut self.ready);
                for one in waiting {
                    match one.ready {
                        Ready::Records(mut cursor) if one.partition == *partition => {
                            cursor.detach();
                            state.parked.push_back(cursor);
                        }
                        _ => self.ready.push_back(one),
                    }
                }
                state.queued_bytes = 0;
            }
            Pause::Off => {
                for cursor in std::mem::take(&mut state.parked).into_iter().rev() {
                    state.queued_bytes += cursor.held_bytes();
                    self.ready.push_front(Waiting {
                        partition: partition.clone(),
                        ready: Ready::Records(cursor),
                    });
                }
            }
        }
        true
    }

    /// The partitions with their progress.
    pub fn assignment(&self) -> impl Iterator<Item = &Arc<Progress>> {
        self.partitions.values().map(|state| &state.progress)
    }

    /// One partition's progress.
    pub fn progress(&self, partition: &TopicPartition) -> Option<&Arc<Progress>> {
        self.partitions.get(partition).map(|state| &state.progress)
    }

    /// The partitions that are paused, assigned or not.
    pub fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        self.paused.iter()
    }

    /// Takes in what is known of the cluster.
    pub fn handle_view(&mut self, view: &ClusterView) {
        let mut recreated = Vec::new();
        for (partition, state) in &mut self.partitions {
            let Some(topic) = view.topic(&partition.topic) else {
                continue;
            };
            let known = topic.partition(partition.partition);
            let another =
                matches!((state.topic_id, topic.id), (Some(old), Some(new)) if old != new);
            if another {
                recreated.push(partition.clone());
            }
            let leader = known.and_then(|known| known.leader);
            let leader_epoch = known.and_then(|known| known.leader_epoch);
            if leader != state.leader || leader_epoch != state.leader_epoch || another {
                // Whatever the old leader refused, the new one may grant.
                state.recovered();
            }
            state.leader = leader;
            state.leader_epoch = leader_epoch;
            state.topic_id = topic.id.or(state.topic_id);
        }
        for partition in recreated {
            self.begin(&partition, Start::Policy);
            self.events.push_back(Event::Recreated(partition));
        }
    }

    /// Takes the next thing for the user, in the order it came.
    pub fn take(&mut self, now: Instant) -> Option<Ready> {
        let waiting = self.ready.pop_front()?;
        let state = self.partitions.get_mut(&waiting.partition)?;
        match &waiting.ready {
            Ready::Records(cursor) => {
                state.queued_bytes = state.queued_bytes.saturating_sub(cursor.held_bytes());
                state.opened = true;
            }
            Ready::Fault(_) => {
                state.fault_queued = false;
                let pause = self.backoff.pause(state.failures);
                state.back_off(now, pause);
            }
        }
        Some(waiting.ready)
    }

    /// Whether something waits for the user.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The user has come to a cursor's end.
    pub fn finish(&mut self, cursor: &Cursor) {
        let state = self.partitions.get_mut(cursor.progress.partition());
        if let Some(state) = state.filter(|state| state.incarnation == cursor.incarnation) {
            state.opened = false;
            state.recovered();
        }
    }

    /// The user gives back a cursor before its end: it comes first next time.
    pub fn put_back(&mut self, mut cursor: Cursor) {
        let partition = cursor.progress.partition().clone();
        let state = self.partitions.get_mut(&partition);
        let Some(state) = state.filter(|state| state.incarnation == cursor.incarnation) else {
            return;
        };
        state.opened = false;
        if state.paused {
            cursor.detach();
            state.parked.push_front(cursor);
            return;
        }
        state.queued_bytes += cursor.held_bytes();
        self.ready.push_front(Waiting {
            partition,
            ready: Ready::Records(cursor),
        });
    }

    /// The user came to bytes in this cursor that cannot be believed, and knows. What was fetched
    /// behind them is dropped: the partition is asked for them again after a pause, and goes no
    /// further until they are right or the user seeks.
    pub fn handle_corrupt(&mut self, now: Instant, cursor: &Cursor) {
        let partition = cursor.progress.partition().clone();
        let incarnation = self.next_number();
        let state = self.partitions.get_mut(&partition);
        let Some(state) = state.filter(|state| state.incarnation == cursor.incarnation) else {
            return;
        };
        let failures = state.failures;
        let handled = state.progress.handled();
        let at = Start::Offset(cursor.position(), state.progress.leader_epoch());
        state.begin(at, self.config.reset, incarnation);
        // The records before the damage are handed out, not done with.
        state.progress.reopen(handled);
        state.failures = failures;
        let pause = self.backoff.pause(failures);
        state.back_off(now, pause);
        self.ready.retain(|waiting| waiting.partition != partition);
    }

    /// The next request to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.outbox.is_empty() {
            self.plan(now);
        }
        self.outbox.pop_front()
    }

    /// When to call [`Fetcher::poll_transmit`] again; `None` when only an answer, the view or the
    /// user can change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.partitions.values().filter(|state| !state.in_flight);
        waits.filter_map(|state| state.retry_at).min()
    }

    /// The next thing to do or pass on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Has the user told; the partition rests until then.
    fn fault(&mut self, partition: &TopicPartition, error: Error) {
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        if std::mem::replace(&mut state.fault_queued, true) {
            return;
        }
        self.ready.push_back(Waiting {
            partition: partition.clone(),
            ready: Ready::Fault(error),
        });
    }
}

/// Whether a partition rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It rests.
    On,
    /// It does not.
    Off,
}
