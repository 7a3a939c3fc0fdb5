//! Where keyed records go under steering: what each policy promises, and what it keeps for that.

mod away;
mod outlook;
mod slots;

pub(crate) use away::Away;
pub use outlook::{Committed, KeyOffsets};
pub(crate) use outlook::{Fence, Outlook};
pub use slots::{KeyTicket, Written};
pub(crate) use slots::{Moving, Slots};

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

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
    /// newer records may be processed before older ones. Producers with a plan of their own each
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
    /// The promise holds for one writer a key. Producers that share a plan share its slots and count
    /// as one; those of other processes know nothing of each other's records, and the order among
    /// what several of them write under one key is lost when it moves. It needs idempotence, a
    /// group that commits what it has processed and not before, and a topic whose partitions stay as
    /// many and are not compacted.
    ///
    /// After a start nothing is known of where earlier records lie. A record whose key may have some
    /// unread in both its places waits, within `max.block.ms`, until the group has committed what
    /// was there at the first look. So does every keyed record while there are no lag figures at all,
    /// and one whose two partitions end in a transaction's marker that the group, as some clients
    /// do, never commits beyond: order comes before progress here.
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

/// What the producers that read one plan know of the keys of a topic. It outlives the topic's plans.
#[derive(Debug)]
pub(crate) struct TopicKeys {
    fence: Fence,
    slots: OnceLock<Arc<Slots>>,
    away: OnceLock<Away>,
}

impl TopicKeys {
    pub(crate) fn new(partition_count: usize) -> Self {
        Self::fenced_by(Fence::new(partition_count))
    }

    /// For a topic that has grown: its keys hash to other partitions now, and what was promised of
    /// them ends there, as with every partitioner by hash.
    pub(crate) fn grown(partition_count: usize) -> Self {
        Self::fenced_by(Fence::open(partition_count))
    }

    fn fenced_by(fence: Fence) -> Self {
        Self {
            fence,
            slots: OnceLock::new(),
            away: OnceLock::new(),
        }
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.fence.partition_count()
    }

    pub(crate) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The slots, made by the first who asks.
    pub(crate) fn slots(&self, count: usize) -> &Arc<Slots> {
        let make = || Arc::new(Slots::new(self.partition_count(), count));
        self.slots.get_or_init(make)
    }

    /// The table of keys away from home, made by the first who asks.
    pub(crate) fn away(&self, entries: usize) -> &Away {
        self.away.get_or_init(|| Away::new(entries))
    }

    /// How often a slot moved.
    pub(crate) fn moves(&self) -> u64 {
        self.slots.get().map_or(0, |slots| slots.moves())
    }

    /// How many slots, or keys, are away from the partition of their hash.
    pub(crate) fn away_count(&self) -> usize {
        let slots = self.slots.get().map_or(0, |slots| slots.away_count());
        slots + self.away.get().map_or(0, Away::count)
    }
}

#[cfg(test)]
mod tests;
