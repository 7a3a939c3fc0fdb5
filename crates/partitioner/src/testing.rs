//! What the tests of this crate share.

use crate::{NoQueues, Queues, TopicView};
use std::time::{Duration, Instant};

/// Pseudo-random bits (splitmix64): the same for the same seed, everywhere.
pub(crate) struct Bits(pub(crate) u64);

impl Bits {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A view of the topic `orders`.
pub(crate) fn view(partition_count: i32, available: &[i32]) -> TopicView<'_> {
    TopicView {
        topic: "orders",
        partition_count,
        available,
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe: 0,
    }
}

/// What waits for each partition, and for how long its leader took nothing.
#[derive(Debug, Default)]
pub(crate) struct Brokers {
    pub(crate) waiting: Vec<u64>,
    pub(crate) refused: Vec<Duration>,
}

impl Queues for Brokers {
    fn waiting_bytes(&self, partition: i32) -> u64 {
        let at = usize::try_from(partition).ok();
        at.and_then(|at| self.waiting.get(at)).copied().unwrap_or(0)
    }

    fn refused_for(&self, partition: i32, _now: Instant) -> Duration {
        let at = usize::try_from(partition).ok();
        at.and_then(|at| self.refused.get(at))
            .copied()
            .unwrap_or_default()
    }
}
