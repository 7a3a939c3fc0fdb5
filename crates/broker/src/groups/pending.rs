//! Offsets that a group was given in transactions that are still open: nobody sees them before
//! the commit.

use super::Committed;
use std::collections::BTreeMap;

/// An offset with its place in the order of all commits: the later one stands, whichever
/// transaction ends first.
pub(crate) type Ordered = (u64, Committed);

/// A group's pending offsets.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By producer id, topic and partition.
    by_producer: BTreeMap<i64, BTreeMap<(String, i32), Ordered>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    /// Keeps an offset until its producer's transaction ends.
    pub(super) fn add(&mut self, producer_id: i64, topic: &str, partition: i32, offset: Ordered) {
        let of_producer = self.by_producer.entry(producer_id).or_default();
        of_producer.insert((topic.to_owned(), partition), offset);
    }

    /// What a producer's transaction held, which has ended.
    pub(super) fn take(&mut self, producer_id: i64) -> BTreeMap<(String, i32), Ordered> {
        self.by_producer.remove(&producer_id).unwrap_or_default()
    }

    /// Whether a partition's committed offset may yet change by a transaction that is open.
    pub(super) fn holds(&self, topic: &str, partition: i32) -> bool {
        let mut producers = self.by_producer.values();
        producers.any(|held| held.keys().any(|(t, p)| t == topic && *p == partition))
    }

    /// Drops what is held for a topic that was deleted.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.by_producer.retain(|_, held| {
            held.retain(|(t, _), _| t != topic);
            !held.is_empty()
        });
    }
}
