//! What a plan says to those who place keys.

use crate::explain::PartitionHealth;
use std::sync::atomic::{AtomicI64, Ordering};

/// Below this drain time no partition is left for another one, in seconds.
const SLOW_SECONDS: f32 = 1.0;

/// A partition counts as unhealthy only when it needs so many times what the middle one needs: when
/// all are behind, moving helps nobody.
const SLOW_TIMES: f32 = 2.0;

/// And only when it was slow at so many looks in a row, and its consumer's speed is known: what is
/// estimated of a group that was just begun to watch swings, and each swing would move keys.
const SLOW_LOOKS: u8 = 3;

/// A key goes home when the partition there needs less than this, in seconds.
const HOME_SECONDS: f32 = 0.2;

/// Where a group reads on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Committed {
    /// It is not known.
    #[default]
    Unknown,
    /// The group has never committed there.
    Nothing,
    /// Everything before this offset is processed.
    At(i64),
    /// Of several groups, some have never committed there; the others have processed everything
    /// before this offset.
    Partly(i64),
}

impl Committed {
    /// As of two groups.
    fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::Nothing, Self::At(offset) | Self::Partly(offset))
            | (Self::At(offset) | Self::Partly(offset), Self::Nothing) => Self::Partly(offset),
            (Self::At(one) | Self::Partly(one), Self::At(other) | Self::Partly(other)) => {
                Self::Partly(one.min(other))
            }
        }
    }
}

/// What moving a key rests on, of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyOffsets {
    /// Where the group reads on.
    pub committed: Committed,
    /// Where the log ends, asked for when the plan's figures were taken or later; `None` when
    /// unknown.
    pub end: Option<i64>,
}

impl KeyOffsets {
    /// As of two groups that both read the partition.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self {
            committed: self.committed.joined(other.committed),
            end: self.end.or(other.end),
        }
    }
}

/// Where each partition ended at the first look after we began to write keys: what was written
/// before, by whoever wrote our keys then, lies below.
#[derive(Debug)]
pub(crate) struct Fence(Box<[AtomicI64]>);

/// The end is not known yet.
const UNSEEN: i64 = -1;

impl Fence {
    pub(crate) fn new(partition_count: usize) -> Self {
        Self(
            (0..partition_count)
                .map(|_| AtomicI64::new(UNSEEN))
                .collect(),
        )
    }

    /// A fence that holds nothing back.
    pub(crate) fn open(partition_count: usize) -> Self {
        Self((0..partition_count).map(|_| AtomicI64::new(0)).collect())
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.0.len()
    }

    /// Takes in the first end seen of each partition, and every lower one: what was there before and
    /// still is lies below that.
    pub(crate) fn note(&self, offsets: &[KeyOffsets]) {
        for (fence, seen) in self.0.iter().zip(offsets) {
            let known = fence.load(Ordering::Relaxed);
            if let Some(end) = seen.end.map(|end| end.max(0))
                && (known == UNSEEN || end < known)
            {
                fence.store(end, Ordering::Relaxed);
            }
        }
    }

    /// `None` while unseen.
    pub(crate) fn end(&self, partition: i32) -> Option<i64> {
        let fence = self.0.get(usize::try_from(partition).ok()?)?;
        Some(fence.load(Ordering::Relaxed)).filter(|end| *end != UNSEEN)
    }
}

/// One partition as those who place keys see it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    offsets: KeyOffsets,
    /// In seconds; `None` when unknown.
    drain: Option<f32>,
    /// At how many looks in a row it was slow; enough of them at once if its weight says so.
    slow_looks: u8,
}

/// What a plan says of every partition.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    places: Box<[Place]>,
    /// Whether a group may not be seen: then no key can have been moved by it.
    pub(crate) is_denied: bool,
}

impl Outlook {
    /// `by_weight` says that a weight of nothing is what makes a partition unhealthy, and not its
    /// drain time.
    pub(crate) fn new(
        health: &[PartitionHealth],
        offsets: &[KeyOffsets],
        by_weight: bool,
        is_denied: bool,
    ) -> Self {
        let drain = |p: &PartitionHealth| p.drain_time.map(|time| time.as_secs_f32());
        let mut drains: Vec<f32> = health.iter().filter_map(drain).collect();
        drains.sort_by(f32::total_cmp);
        let middle = drains
            .get(drains.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or(0.0);
        let is_slow = |drain: f32| drain > SLOW_SECONDS && drain > SLOW_TIMES * middle;
        let count = health.len().max(offsets.len());
        let place = |at: usize| {
            let health = health.get(at);
            let drain = health.and_then(drain);
            Place {
                offsets: offsets.get(at).copied().unwrap_or_default(),
                drain,
                slow_looks: match health {
                    Some(health) if by_weight && health.weight <= 0.0 => SLOW_LOOKS,
                    Some(health) if !by_weight && health.rate.is_some() => {
                        u8::from(drain.is_some_and(is_slow))
                    }
                    _ => 0,
                },
            }
        };
        Self {
            places: (0..count).map(place).collect(),
            is_denied,
        }
    }

    /// Goes on with how often partitions were slow; `is_new` when this is another look than the last.
    pub(crate) fn follow(&mut self, last: &Self, is_new: bool) {
        for (place, last) in self.places.iter_mut().zip(&last.places) {
            if place.slow_looks > 0 {
                let looks = last.slow_looks.saturating_add(u8::from(is_new));
                place.slow_looks = place.slow_looks.max(looks);
            }
        }
    }

    fn place(&self, partition: i32) -> Place {
        let at = usize::try_from(partition).ok();
        at.and_then(|at| self.places.get(at))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn committed(&self, partition: i32) -> Committed {
        self.place(partition).offsets.committed
    }

    /// The partition's end at the look, or after it.
    pub(crate) fn end(&self, partition: i32) -> Option<i64> {
        self.place(partition).offsets.end
    }

    pub(crate) fn is_ill(&self, partition: i32) -> bool {
        self.place(partition).slow_looks >= SLOW_LOOKS
    }

    /// In seconds; of a partition of which nothing is known, none.
    pub(crate) fn drain(&self, partition: i32) -> f32 {
        self.place(partition).drain.unwrap_or(0.0)
    }

    /// Whether it is worth while to go from one partition to another.
    pub(crate) fn favours(&self, from: i32, to: i32) -> bool {
        let is_known = |p: i32| matches!(self.committed(p), Committed::At(_));
        let (Some(here), Some(there)) = (self.place(from).drain, self.place(to).drain) else {
            return false;
        };
        is_known(to) && !self.is_ill(to) && here > SLOW_SECONDS && there < 0.5 * here
    }

    /// Whether a key that is away may go back to this partition.
    pub(crate) fn welcomes(&self, home: i32) -> bool {
        !self.is_ill(home)
            && self
                .place(home)
                .drain
                .is_some_and(|drain| drain < HOME_SECONDS)
    }
}
