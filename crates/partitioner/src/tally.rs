//! What was chosen, counted by partition.

use crate::striped::{Share, Striped, count};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs and records by partition. It outlives the plans of its topic, so no count is lost when one
/// is replaced.
#[derive(Debug)]
pub(crate) struct Tally(Striped<PartitionTally>);

#[derive(Debug, Default)]
pub(crate) struct PartitionTally {
    runs: AtomicU64,
    records: AtomicU64,
}

impl Share<'_, PartitionTally> {
    #[inline]
    pub(crate) fn count_run(self, partition: i32) {
        if let Some(tally) = self.partition(partition) {
            count(&tally.runs, 1);
        }
    }

    #[inline]
    pub(crate) fn add_records(self, partition: i32, records: u32) {
        if let Some(tally) = self.partition(partition) {
            count(&tally.records, u64::from(records));
        }
    }
}

impl Tally {
    pub(crate) fn new(partition_count: usize) -> Self {
        Self(Striped::new(partition_count))
    }

    /// Goes on counting what `old` counted, for more partitions.
    pub(crate) fn grown_from(old: &Self, partition_count: usize) -> Self {
        let new = Self::new(partition_count);
        for (partition, (runs, records)) in (0i32..).zip(old.runs().zip(old.records())) {
            if let Some(tally) = new.0.own(0, partition) {
                tally.runs.store(runs, Ordering::Relaxed);
                tally.records.store(records, Ordering::Relaxed);
            }
        }
        new
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.0.partition_count()
    }

    /// What a stripe counts.
    #[inline]
    pub(crate) fn of(&self, stripe: usize) -> Option<Share<'_, PartitionTally>> {
        self.0.share(stripe)
    }

    fn sums(&self, of: fn(&PartitionTally) -> &AtomicU64) -> impl Iterator<Item = u64> {
        (0..self.0.partition_count()).map(move |at| {
            let counts = self
                .0
                .all(at)
                .map(|tally| of(tally).load(Ordering::Relaxed));
            counts.fold(0, u64::wrapping_add)
        })
    }

    /// By partition.
    pub(crate) fn runs(&self) -> impl Iterator<Item = u64> {
        self.sums(|tally| &tally.runs)
    }

    /// By partition.
    pub(crate) fn records(&self) -> impl Iterator<Item = u64> {
        self.sums(|tally| &tally.records)
    }
}
