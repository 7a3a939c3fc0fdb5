//! The default: keys by Java's hash, keyless records in runs to one random partition after another.

use crate::hashes::java_partition;
use crate::{KeyChoice, Partitioner, Run, TopicView, adaptive};
use std::time::{Duration, Instant};

/// Queues of partitions are compared in pieces of so many bytes, and a lag-aware run ends after them,
/// unless a batch is smaller. franz-go's default for a run.
pub const RUN_BYTES: u32 = 64 * 1024;

/// Keyed records go by murmur2 as in the Java client. Keyless ones go in runs, each to a partition
/// chosen at random among those with a leader (KIP-480, KIP-794).
///
/// While nothing waits for a slow broker all partitions are alike, and none is chosen twice in a
/// row. When more waits for some than for others, the choice follows what waits: see
/// [`adaptive`](Self::adaptive).
#[derive(Debug, Clone, Copy)]
pub struct Sticky {
    run_bytes: Option<u32>,
    adaptive: bool,
    availability_timeout: Option<Duration>,
    ignore_keys: bool,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            run_bytes: None,
            adaptive: true,
            availability_timeout: None,
            ignore_keys: false,
        }
    }
}

impl Sticky {
    /// Ends a run after this many bytes instead of with its batch. The size of a batch stays an
    /// upper bound.
    #[must_use]
    pub fn run_bytes(mut self, run_bytes: u32) -> Self {
        self.run_bytes = Some(run_bytes);
        self
    }

    /// `partitioner.adaptive.partitioning.enable`; true. Partitions for which less waits in the
    /// producer get more runs: the weight of each is the longest queue plus one minus its own, where
    /// a queue counts in whole runs. So a slow broker gets less, and one that stands still next to
    /// nothing.
    #[must_use]
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// `partitioner.availability.timeout.ms`; zero, which is off. A partition whose leader has taken
    /// nothing for longer than this, although something was ready, gets no run while another
    /// partition can have it. Like Java's, it acts only while the choice is adaptive.
    #[must_use]
    pub fn availability_timeout(mut self, timeout: Duration) -> Self {
        self.availability_timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// `partitioner.ignore.keys`; false. Places keyed records as if they had none: records of one key
    /// then have no order among them.
    #[must_use]
    pub fn ignore_keys(mut self, ignore: bool) -> Self {
        self.ignore_keys = ignore;
        self
    }

    pub(crate) fn bytes(self, view: &TopicView<'_>) -> u32 {
        let run_bytes = self.run_bytes.unwrap_or(RUN_BYTES);
        run_bytes.min(view.batch_bytes).max(1)
    }

    /// A keyless run lasts until the batch it fills is full, or has lingered: the producer ends it
    /// then. A batch that holds one run compresses better than one of many pieces, and thousands of
    /// partitions do not get a small batch each. Records are counted by the most they may take, so
    /// twice the batch is never too little.
    fn longest(self, view: &TopicView<'_>) -> u32 {
        match self.run_bytes {
            Some(_) => self.bytes(view),
            None => view.batch_bytes.saturating_mul(2).max(1),
        }
    }

    /// Whether there is an availability timeout.
    pub(crate) fn may_mask(self) -> bool {
        self.availability_timeout.is_some()
    }

    /// Whether the availability timeout speaks against this partition.
    pub(crate) fn masks(self, view: &TopicView<'_>, partition: i32, now: Instant) -> bool {
        self.availability_timeout
            .is_some_and(|timeout| view.queued.refused_for(partition, now) > timeout)
    }

    pub(crate) fn choose(
        self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> i32 {
        let by_queue = || {
            self.adaptive
                .then(|| adaptive::choose(self, view, now, random))?
        };
        by_queue().unwrap_or_else(|| uniform(view, random, previous))
    }
}

impl Partitioner for Sticky {
    fn keyed(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        if self.ignore_keys {
            return KeyChoice::Run;
        }
        KeyChoice::Partition(java_partition(key, view.partition_count))
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        Run {
            partition: self.choose(view, now, random, previous),
            bytes: self.longest(view),
            records: Run::UNLIMITED,
        }
    }
}

/// A number below `bound` from 32 random bits; 0 if `bound` is 0.
pub(crate) fn below(random: u32, bound: usize) -> usize {
    // The high half of the product of a fraction and the bound: even to one part in four billion
    // over the bound, without a division.
    ((u64::from(random) * bound as u64) >> 32) as usize
}

/// A partition at random among those with a leader, not `previous` if there is another. When no
/// partition has a leader: any of the topic, as Java does; its records wait for an election.
pub(crate) fn uniform(view: &TopicView<'_>, random: u64, previous: Option<i32>) -> i32 {
    let bits = (random >> 32) as u32;
    let available = view.available;
    if available.is_empty() {
        let count = usize::try_from(view.partition_count).unwrap_or(0);
        return i32::try_from(below(bits, count)).unwrap_or(0);
    }
    let skipped = previous
        .filter(|_| available.len() > 1)
        .and_then(|p| available.binary_search(&p).ok());
    let at = match skipped {
        None => below(bits, available.len()),
        Some(skipped) => {
            let at = below(bits, available.len() - 1);
            at + usize::from(at >= skipped)
        }
    };
    available.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bits, view};

    #[test]
    fn keyed_records_go_where_java_puts_them_even_without_a_leader() {
        let view = TopicView {
            available: &[],
            ..view(12, &[])
        };
        let murmur = 0x5ec1_9395u32;
        assert_eq!(
            Sticky::default().keyed(&view, b"hejsan"),
            KeyChoice::Partition(i32::try_from(murmur % 12).unwrap())
        );
    }

    #[test]
    fn runs_are_even_over_the_available_partitions_and_never_repeat() {
        let available = [0, 2, 3, 7];
        let view = view(8, &available);
        let (sticky, now) = (Sticky::default(), Instant::now());
        let mut counts = [0u32; 8];
        let (mut previous, mut bits) = (None, Bits(1));
        for _ in 0..40_000 {
            let run = sticky.begin_run(&view, now, bits.next(), previous);
            assert_ne!(Some(run.partition), previous);
            previous = Some(run.partition);
            counts[run.partition as usize] += 1;
        }
        for partition in 0..8 {
            let expected = if available.contains(&partition) {
                10_000
            } else {
                0
            };
            let count = counts[partition as usize];
            assert!(
                count.abs_diff(expected) <= expected / 20,
                "{partition}: {count}"
            );
        }
    }

    #[test]
    fn one_available_partition_is_taken_again() {
        let view = view(3, &[1]);
        let run = Sticky::default().begin_run(&view, Instant::now(), 99, Some(1));
        assert_eq!(run.partition, 1);
    }

    #[test]
    fn a_previous_partition_that_lost_its_leader_does_not_disturb() {
        let view = view(4, &[0, 3]);
        let mut bits = Bits(5);
        let mut seen = [false; 4];
        for _ in 0..64 {
            let at = uniform(&view, bits.next(), Some(2));
            seen[at as usize] = true;
        }
        assert_eq!(seen, [true, false, false, true]);
    }

    #[test]
    fn without_any_leader_every_partition_is_possible() {
        let view = view(3, &[]);
        let mut bits = Bits(3);
        let mut seen = [false; 3];
        for _ in 0..64 {
            seen[uniform(&view, bits.next(), None) as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        let none = TopicView {
            partition_count: 0,
            ..view
        };
        assert_eq!(uniform(&none, u64::MAX, None), 0);
    }

    #[test]
    fn a_run_outlasts_the_batch_it_fills_unless_it_has_a_size_of_its_own() {
        let view = TopicView {
            batch_bytes: 16_384,
            ..view(3, &[0, 1, 2])
        };
        let now = Instant::now();
        let sticky = Sticky::default();
        assert_eq!(sticky.begin_run(&view, now, 1, None).bytes, 32_768);
        let large = TopicView {
            batch_bytes: 1_000_000,
            ..view
        };
        assert_eq!(sticky.begin_run(&large, now, 1, None).bytes, 2_000_000);
        let own = |bytes, view| sticky.run_bytes(bytes).begin_run(view, now, 1, None).bytes;
        assert_eq!(own(100, &large), 100);
        assert_eq!(own(100_000, &view), 16_384, "the batch is an upper bound");
    }
}
