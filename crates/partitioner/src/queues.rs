//! What waits in the producer: how a choice learns of a broker that is slow or does not answer.

use std::fmt;
use std::time::{Duration, Instant};

/// What waits in a producer for each partition of one topic. Asked only when a run begins, for a
/// few partitions; must not block.
pub trait Queues: fmt::Debug + Sync {
    /// Bytes of records that were taken for this partition and are not on their way to its leader:
    /// sealed batches, those that wait for a retry, and the open batch; what is in flight does not
    /// count. 0 when it is not known.
    ///
    /// It is compared in steps of a run's size, so a figure that is right to a chunk of memory, and
    /// as old as the last batch, is good enough.
    fn waiting_bytes(&self, partition: i32) -> u64;

    /// For how long this partition's leader has taken nothing although something was ready to be
    /// sent to it. Zero when it takes records, when nothing waits, or when it is not known.
    ///
    /// Asked only when an availability timeout is set.
    fn refused_for(&self, partition: i32, now: Instant) -> Duration {
        let _ = (partition, now);
        Duration::ZERO
    }
}

/// Nothing is known of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoQueues;

impl Queues for NoQueues {
    fn waiting_bytes(&self, _partition: i32) -> u64 {
        0
    }
}
