//! Which partition a record goes to.
//!
//! A keyed record goes by its key's hash. Keyless records go in *runs*: one choice serves many
//! records, so that batches fill and a choice may cost more than a few nanoseconds.
//!
//! Everything here is pure: no clock and no random source; both are arguments.

use std::fmt;
use std::time::{Duration, Instant};

mod adaptive;
mod drain;
mod explain;
mod hashed;
mod hashes;
mod keys;
mod lag_aware;
mod names;
mod plan;
mod queues;
mod round_robin;
mod same;
mod sticky;
mod striped;
mod tally;
#[cfg(test)]
mod testing;
mod weights;

pub use drain::{Drain, DrainPartition};
pub use explain::{
    Counters, Explanation, Fallback, Method, PartitionHealth, Status, TopicCounters,
};
pub use hashed::{Hashed, KeyHash, Keyless};
pub use hashes::{crc32, fnv1a, java_partition, murmur2, murmur3, uuid};
pub use keys::{
    Committed, KEYS_MAX, KeyOffsets, KeyPolicy, KeyTicket, MIGRATE_SLOTS, STICKY_ENTRIES,
    UnknownPolicy, Written,
};
pub use lag_aware::{CANDIDATES, CHANCE_RUNS, LagAware, RUN_DRAIN, Steering};
pub use names::{NAMES, by_name};
pub use plan::{PlanPublisher, PlanReader, TopicPlan, plan_channel};
pub use queues::{NoQueues, Queues};
pub use round_robin::RoundRobin;
pub use same::same_name;
pub use sticky::{RUN_BYTES, Sticky};

/// What a partitioner may look at when it chooses.
#[derive(Debug, Clone, Copy)]
pub struct TopicView<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// How many partitions the topic has.
    pub partition_count: i32,
    /// The partitions that have a leader, ascending.
    pub available: &'a [i32],
    /// What waits in the producer for each partition.
    pub queued: &'a dyn Queues,
    /// The configured size of a batch, in bytes.
    pub batch_bytes: u32,
    /// Which of the producer's stripes asks; calls for one stripe of a topic do not overlap. It
    /// keeps threads from writing the same memory and has no part in the choice.
    pub stripe: usize,
}

/// A choice that serves several keyless records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The partition.
    pub partition: i32,
    /// The run ends when this many bytes went to it,
    pub bytes: u32,
    /// or this many records, whichever comes first.
    pub records: u32,
}

impl Run {
    /// As `records`: the run is bounded by bytes alone.
    pub const UNLIMITED: u32 = u32::MAX;
}

/// What to do with a keyed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChoice {
    /// To this partition.
    Partition(i32),
    /// As if it had no key: with the current run.
    Run,
    /// Where [`Partitioner::track`] says: the partitioner wants to hear what becomes of the record.
    Tracked,
}

/// Chooses partitions. Called concurrently from every thread that produces; must not block.
///
/// A panic reaches whoever was sending a record, which is then not taken; the producer goes on.
pub trait Partitioner: fmt::Debug + Send + Sync + 'static {
    /// Where a record with this key goes. It may choose a partition that has no leader now: a
    /// keyed record waits rather than changes its place.
    fn keyed(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice;

    /// Places a record for whose key [`keyed`](Self::keyed) says [`KeyChoice::Tracked`]: to the
    /// ticket's partition. `None` is nowhere yet: ask again in a moment, from the beginning.
    fn track(&self, view: &TopicView<'_>, key: &[u8], now: Instant) -> Option<Box<KeyTicket>> {
        let _ = (view, key, now);
        None
    }

    /// Whether its choices rest on the records of a partition being written in the order in which
    /// they were given to it, and on the offsets that are acknowledged: a producer without
    /// idempotence is then refused.
    fn needs_idempotence(&self) -> bool {
        false
    }

    /// How long a keyed record may have to wait for its place while all is well, as it asks again and
    /// again by [`track`](Self::track): a producer that gives up sooner is refused.
    fn placing_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Begins a run for keyless records. `random` is fresh random bits. `previous` is the partition
    /// of the run that just ended on the same stripe.
    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run;

    /// Tells how a run ended: `reserved` is what [`begin_run`](Self::begin_run) gave and `records`
    /// how many records really went to it. Called once a run, when it has ended and before the next
    /// begins on that stripe. [`LagAware`] counts its own sends here; others ignore it.
    fn end_run(&self, view: &TopicView<'_>, reserved: Run, records: u32) {
        let _ = (view, reserved, records);
    }

    /// Ends a run, if there was one, and begins the next on the same stripe: `ended` is what the run
    /// was and how many records really went to it. The same as [`end_run`](Self::end_run) and
    /// [`begin_run`](Self::begin_run) one after the other, for partitioners that do both at once in
    /// less time.
    fn next_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        ended: Option<(Run, u32)>,
    ) -> Run {
        if let Some((run, records)) = ended {
            self.end_run(view, run, records);
        }
        self.begin_run(view, now, random, ended.map(|(run, _)| run.partition))
    }
}
