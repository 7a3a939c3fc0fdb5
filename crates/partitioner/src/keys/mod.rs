//! Where keyed records go under steering: what each policy promises, and what it keeps for that.

mod away;
mod outlook;
mod slots;

pub(crate) use away::Away;
pub use outlook::{Committed, KeyOffsets};
pub(crate) use outlook::{Fence, Outlook};
pub(crate) use slots::{Asking, Moving, Slots};
pub use slots::{KeyTicket, Written};

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How many keys the sticky policy remembers unless told otherwise.
pub const STICKY_ENTRIES: usize = 1_000;

/// How many slots the migrating policy keeps for a topic unless told otherwise.
pub const MIGRATE_SLOTS: usize = 16_384;

/// The most slots or entries for a topic: a table of some 50 MB.
pub const KEYS_MAX: usize = 1 << 20;

/// Where keyed records go under steering, and what becomes of the order of one key's records.
///
/// Order here is the order in which the consumer group *processes* the records of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyPolicy {
    /// The records of a key are processed in the order in which they were sent: a key never leaves
    /// the partition of its hash, which is that of the Java client, whoever writes it.
    #[default]
    Keep,
    /// The records of a key have no order: they are steered as if they had no key.
    Blind,
    /// The records of a key keep their order while its partition is healthy, its entry is among the
    /// last so many used, and the producer lives.
    ///
    /// A key begins at the partition of its hash. When that is unhealthy it goes to a healthy one,
    /// and stays there until that one is unhealthy too, or until its entry gives way to others; then
    /// newer records may be processed before older ones. While no figures come, what was unhealthy
    /// stays so until a plan is too old to steer by, a minute or four refreshes; from then on, and at
    /// once when nobody collects figures any more, keys stay where they are and new ones go by their
    /// hash. Producers with a plan of their own each
    /// have their own table, and may place one key differently. It is kafka-smart-producer's
    /// `key_stickiness`, but entries do not expire, and keys whose partition is healthy need none.
    Sticky {
        /// How many keys are remembered for a topic, in sixteen bytes each; [`STICKY_ENTRIES`].
        entries: usize,
    },
    /// The records of a key are processed in the order in which they were sent, and yet the key moves
    /// away from a partition that falls behind: once all its earlier records are acknowledged and the
    /// group has committed them.
    ///
    /// Keys move in slots: all keys of one slot together, and only between the partition of their
    /// hash and one other. A slot whose records never rest for as long as the group takes to read
    /// them does not move.
    ///
    /// The promise holds while one process at a time writes the topic's keyed records, and writes
    /// none again once another has taken over, until it begins with a new plan; who takes over
    /// begins when the last records of the one before are readable. Producers that share a plan count as
    /// one process. It is for the groups that the plan watches, for those of the key's records that
    /// were sent while they were watched, and for the first time that they read them: a group that
    /// goes back reads what moved from two partitions in no order.
    ///
    /// It needs idempotence, a group that commits what it has processed and not before, and a
    /// topic that is not compacted and that the plan speaks of from the first record on: topics by
    /// name always, those chosen by pattern or by commit once they are seen. When a topic gets more
    /// partitions, is made anew, or is left out of 600 plans while no key is sent to it, the
    /// promise ends for what was sent before and begins anew.
    ///
    /// After a start nothing is known of where earlier records lie. The first keyed record waits,
    /// within `max.block.ms`, for the next look (a producer that gives up before one comes is refused);
    /// one whose key may have unread records in both its
    /// places until the groups have committed what was there at that look. So does every keyed
    /// record while there are no lag figures at all, and one whose two partitions end in a
    /// transaction's marker that the group, as some clients do, never commits beyond: order comes
    /// before progress here. For the same reason keys stay where they are while it is not known
    /// whether a record of theirs, or of another key of their slot, was written: until the producer
    /// that sent it has a later one acknowledged, or, when it was dropped, until the partition's leader
    /// has answered for two minutes after that, with at least `min.insync.replicas` in sync: while
    /// fewer are, a leader since Kafka 3.7 answers and yet lets nobody read what it took last, and a
    /// key may move past a record that a dropped producer left there. A group that may not be seen
    /// counts as one that has never committed.
    Migrate {
        /// How many slots a topic has, in some fifty bytes each; [`MIGRATE_SLOTS`]. At least one a
        /// partition.
        slots: usize,
    },
}

impl KeyPolicy {
    /// The sticky policy with its usual table.
    pub const STICKY: Self = Self::Sticky {
        entries: STICKY_ENTRIES,
    };

    /// The migrating policy with its usual table.
    pub const MIGRATE: Self = Self::Migrate {
        slots: MIGRATE_SLOTS,
    };

    /// The name in properties and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Blind => "blind",
            Self::Sticky { .. } => "sticky",
            Self::Migrate { .. } => "migrate",
        }
    }
}

impl fmt::Display for KeyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No policy has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key policy is keep, blind, sticky or migrate")
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for KeyPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        match name {
            "keep" => Ok(Self::Keep),
            "blind" => Ok(Self::Blind),
            "sticky" => Ok(Self::STICKY),
            "migrate" => Ok(Self::MIGRATE),
            _ => Err(UnknownPolicy),
        }
    }
}

/// How many plans may leave a topic out, with no key placed there, before what is known
/// of its keys is let go: ten minutes at the usual refresh. One look may miss a topic that is there;
/// one that is gone must not be kept for ever.
const ABSENT_PLANS: u32 = 600;

/// What the producers that read one plan know of the keys of a topic. It outlives the topic's plans.
#[derive(Debug)]
pub(crate) struct TopicKeys {
    fence: Fence,
    slots: OnceLock<Migrating>,
    away: OnceLock<Away>,
    /// Plans without the topic since a key was last placed.
    absent_plans: AtomicU32,
}

/// Slots, and when the first key asked for them.
#[derive(Debug)]
struct Migrating {
    began: Instant,
    slots: Arc<Slots>,
}

impl TopicKeys {
    pub(crate) fn new(partition_count: usize) -> Self {
        Self::fenced_by(Fence::new(partition_count))
    }

    /// For a topic that has grown, whose keys hash to other partitions now, or that was made anew: what
    /// was promised of its keys ends there and begins anew.
    pub(crate) fn anew(&self, partition_count: usize) -> Self {
        match self.slots.get() {
            // Whatever is written from now on is written here.
            Some(_) => Self::fenced_by(Fence::open(partition_count)),
            // We write no keys yet; somebody else may.
            None => Self::new(partition_count),
        }
    }

    fn fenced_by(fence: Fence) -> Self {
        Self {
            fence,
            slots: OnceLock::new(),
            away: OnceLock::new(),
            absent_plans: AtomicU32::new(0),
        }
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.fence.partition_count()
    }

    pub(crate) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Takes in what was asked for at `taken_at` or later. Before a key was asked for, somebody else
    /// may be writing them: how far says only a later look.
    pub(crate) fn note(&self, taken_at: Instant, offsets: &[KeyOffsets]) {
        if self.slots.get().is_some_and(|keys| taken_at >= keys.began) {
            self.fence.note(offsets);
        }
    }

    /// The slots, made by the first who asks.
    pub(crate) fn slots(&self, count: usize, now: Instant) -> &Arc<Slots> {
        let make = || Migrating {
            began: now,
            slots: Arc::new(Slots::new(self.partition_count(), count)),
        };
        &self.slots.get_or_init(make).slots
    }

    /// The table of keys away from home, made by the first who asks.
    pub(crate) fn away(&self, entries: usize) -> &Away {
        self.away.get_or_init(|| Away::new(entries))
    }

    /// A key was placed.
    pub(crate) fn used(&self) {
        // Seldom anything but 0: read alone, it is nobody's cache line to fight for.
        if self.absent_plans.load(Ordering::Relaxed) != 0 {
            self.absent_plans.store(0, Ordering::Relaxed);
        }
    }

    /// Whether what is known must outlive one more plan that does not speak of the topic. For a policy
    /// that waits for the lag figures that is also that there will be some.
    pub(crate) fn outlives_plan(&self, policy: KeyPolicy) -> bool {
        let is_used = self.slots.get().is_some() || self.away.get().is_some();
        let is_kept = is_used || matches!(policy, KeyPolicy::Migrate { .. });
        is_kept && self.absent_plans.fetch_add(1, Ordering::Relaxed) < ABSENT_PLANS
    }

    /// How often a slot moved.
    pub(crate) fn moves(&self) -> u64 {
        self.slots.get().map_or(0, |keys| keys.slots.moves())
    }

    /// How many slots, or keys, are away from the partition of their hash.
    pub(crate) fn away_count(&self) -> usize {
        let of_slots = |keys: &Migrating| keys.slots.away_count();
        let slots = self.slots.get().map_or(0, of_slots);
        slots + self.away.get().map_or(0, Away::count)
    }
}

#[cfg(test)]
mod tests;
