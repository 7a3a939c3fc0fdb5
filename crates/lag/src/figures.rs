//! What a collector has done so far, for metrics.

use crate::source::{Found, Origin, Trouble};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a collector has done so far. Counters; they never fall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectorFigures {
    /// Rounds that are over.
    pub rounds: u64,
    /// Groups that were told of because we asked ourselves.
    pub asked: u64,
    /// Groups whose figures another process of the fleet shared.
    pub shared: u64,
    /// Groups that we asked for ourselves because the shared store failed us, by what was wrong, in
    /// the order of [`Trouble::ALL`].
    pub degraded: Vec<(Trouble, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    rounds: AtomicU64,
    asked: AtomicU64,
    shared: AtomicU64,
    degraded: [AtomicU64; Trouble::ALL.len()],
}

impl Counts {
    pub(crate) fn note(&self, found: &[Found]) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.rounds);
        for found in found {
            match found.origin {
                Origin::Asked => count(&self.asked),
                Origin::Shared => count(&self.shared),
                Origin::Degraded(trouble) => {
                    let mut counters = Trouble::ALL.iter().zip(&self.degraded);
                    let counter = counters.find(|(one, _)| **one == trouble);
                    counter.map_or(0, |(_, counter)| count(counter))
                }
            };
        }
    }

    pub(crate) fn figures(&self) -> CollectorFigures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let degraded = Trouble::ALL.iter().zip(&self.degraded);
        CollectorFigures {
            rounds: get(&self.rounds),
            asked: get(&self.asked),
            shared: get(&self.shared),
            degraded: degraded.map(|(one, count)| (*one, get(count))).collect(),
        }
    }
}
