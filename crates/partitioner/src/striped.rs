//! Counters that threads write without meeting: each stripe has its own for every partition.
//!
//! A producer never makes two calls for one stripe of a topic at the same time, so what belongs to a
//! stripe is counted by a load and a store: an atomic addition costs as much as all the rest of a
//! choice does for one candidate. Two producers that share a plan share the stripes too. Their calls
//! are a few nanoseconds long and milliseconds apart; when two meet, one of them is not counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// As many as a producer's stripes; a higher number shares with a lower one.
const STRIPES: usize = 8;

/// No two stripes may share a cache line, nor the pair of lines that some processors fetch at once.
const APART_BYTES: usize = 128;

/// One `T` for each stripe and partition. A stripe's share is allocated when it is first used.
#[derive(Debug)]
pub(crate) struct Striped<T> {
    stripes: [OnceLock<Box<[T]>>; STRIPES],
    /// How many of them are in use.
    used: AtomicU32,
    partition_count: usize,
}

impl<T: Default> Striped<T> {
    /// Unused elements after a stripe's share: the allocator may put two shares side by side.
    const PAD: usize = APART_BYTES / size_of::<T>();

    pub(crate) fn new(partition_count: usize) -> Self {
        Self {
            stripes: [const { OnceLock::new() }; STRIPES],
            used: AtomicU32::new(0),
            partition_count,
        }
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What belongs to this stripe alone.
    #[inline]
    pub(crate) fn share(&self, stripe: usize) -> Option<Share<'_, T>> {
        let stripe = self.stripes.get(stripe % STRIPES)?;
        let padded = match stripe.get() {
            Some(padded) => padded,
            None => self.allocate(stripe)?,
        };
        padded.get(..self.partition_count).map(Share)
    }

    /// This stripe's own for this partition; `None` if there is no such partition.
    #[inline]
    pub(crate) fn own(&self, stripe: usize, partition: i32) -> Option<&T> {
        self.share(stripe)?.partition(partition)
    }

    #[cold]
    fn allocate<'a>(&self, stripe: &'a OnceLock<Box<[T]>>) -> Option<&'a [T]> {
        let share = (0..self.partition_count + Self::PAD).map(|_| T::default());
        // Made before it is set, so that nobody waits for an allocation; who comes second drops
        // its own.
        if stripe.set(share.collect()).is_ok() {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        stripe.get().map(|share| &**share)
    }

    /// Whether more than one stripe is in use.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.used.load(Ordering::Relaxed) > 1
    }

    /// Allocates the shares of the stripes that used another one.
    pub(crate) fn make_room_as(&self, last: &Self) {
        let stripes = self.stripes.iter().zip(&last.stripes);
        for (stripe, _) in stripes.filter(|(_, last)| last.get().is_some()) {
            self.allocate(stripe);
        }
    }

    /// What the stripes in use have for this partition.
    pub(crate) fn all(&self, partition: usize) -> impl Iterator<Item = &T> {
        let used = self.stripes.iter().filter_map(OnceLock::get);
        used.filter_map(move |share| share.get(partition))
    }
}

/// Adds to a counter that only one stripe writes.
#[inline]
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(more);
    counter.store(sum, Ordering::Relaxed);
}

/// One stripe's share.
#[derive(Debug)]
pub(crate) struct Share<'s, T>(&'s [T]);

impl<T> Clone for Share<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Share<'_, T> {}

impl<'s, T> Share<'s, T> {
    /// `None` if there is no such partition.
    #[inline]
    pub(crate) fn partition(self, partition: i32) -> Option<&'s T> {
        // One below zero is far above any count.
        self.0.get(partition.cast_unsigned() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_count_apart_and_together() {
        let counts: Striped<AtomicU64> = Striped::new(3);
        assert_eq!(counts.all(1).count(), 0, "nothing is allocated yet");
        for stripe in [0, 8, 1, 7] {
            let own = counts.own(stripe, 1).unwrap();
            count(own, 1);
            assert_eq!(counts.is_shared(), ![0, 8].contains(&stripe));
        }
        let next: Striped<AtomicU64> = Striped::new(3);
        next.make_room_as(&counts);
        assert_eq!(next.all(1).count(), 3, "as many stripes have a share");
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!(counts.all(1).map(load).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(counts.all(2).map(load).sum::<u64>(), 0);
        assert!(counts.own(0, 3).is_none());
        assert!(counts.own(0, -1).is_none());
    }
}
