//! The choice by what waits in the producer (KIP-794).
//!
//! The weight of a partition is the longest queue plus one, minus its own: queues of 0, 3 and 1 give
//! 4, 1 and 3. Java counts batches; here a queue counts in runs, since batches differ in size. Java makes a table of weights over all partitions on each turn of its sender. Here a choice looks
//! at the queues itself, at no more than [`WINDOW`] of them: exact for topics of so many partitions,
//! and for larger ones from a window that begins at random, which holds partitions of every broker.

use crate::TopicView;
use crate::sticky::{Sticky, below};
use std::time::Instant;

/// How many partitions one choice compares. A lookup costs a few nanoseconds and a run serves some
/// hundred records, so a choice stays far below a nanosecond a record.
const WINDOW: usize = 32;

/// Partitions with their queues, as far as they may be chosen.
struct Compared {
    partitions: [(i32, u64); WINDOW],
    len: usize,
    longest: u64,
    /// Whether all queues are as long, and none was left out.
    alike: bool,
}

impl Compared {
    /// Looks at the window of `available` that begins at `from`.
    fn look(sticky: Sticky, view: &TopicView<'_>, now: Instant, from: usize, len: usize) -> Self {
        let run_bytes = u64::from(sticky.bytes(view));
        let mut seen = Self {
            partitions: [(0, 0); WINDOW],
            len: 0,
            longest: 0,
            alike: true,
        };
        for partition in window(view.available, from, len) {
            if sticky.masks(view, partition, now) {
                seen.alike = false;
                continue;
            }
            let waiting = view.queued.waiting_bytes(partition);
            // Most often nothing waits: then there is nothing to divide.
            let queue = if waiting < run_bytes {
                0
            } else {
                (waiting / run_bytes).min(QUEUE_MAX)
            };
            seen.alike &= seen.len == 0 || queue == seen.longest;
            seen.longest = seen.longest.max(queue);
            if let Some(place) = seen.partitions.get_mut(seen.len) {
                *place = (partition, queue);
                seen.len += 1;
            }
        }
        seen
    }

    fn weights(&self) -> impl Iterator<Item = (i32, u64)> {
        let top = self.longest + 1;
        let compared = self.partitions.iter().take(self.len);
        compared.map(move |(partition, queue)| (*partition, top - queue))
    }

    /// A partition by weight: the longest queue plus one, minus its own.
    fn draw(&self, bits: u32) -> Option<i32> {
        let sum: u64 = self.weights().map(|(_, weight)| weight).sum();
        // The product fits: 32 bits, and WINDOW queues of at most QUEUE_MAX.
        let mut drawn = (u64::from(bits) * sum) >> 32;
        for (partition, weight) in self.weights() {
            if drawn < weight {
                return Some(partition);
            }
            drawn -= weight;
        }
        None
    }
}

/// No queue counts as longer than this many runs; so the sum of all weights fits 32 bits.
const QUEUE_MAX: u64 = (1 << 26) - 2;

/// Whether no partition of the window has a run waiting: most often so, and quickly seen.
fn nothing_waits(sticky: Sticky, view: &TopicView<'_>, from: usize, len: usize) -> bool {
    let run_bytes = u64::from(sticky.bytes(view));
    window(view.available, from, len)
        .all(|partition| view.queued.waiting_bytes(partition) < run_bytes)
}

fn window(available: &[i32], from: usize, len: usize) -> impl Iterator<Item = i32> {
    let (before, behind) = available.split_at(from.min(available.len()));
    behind.iter().chain(before).take(len).copied()
}

/// A partition by what waits for each; `None` when they are all alike, or none may be chosen.
pub(crate) fn choose(
    sticky: Sticky,
    view: &TopicView<'_>,
    now: Instant,
    random: u64,
) -> Option<i32> {
    let count = view.available.len();
    let (low, high) = (random as u32, (random >> 32) as u32);
    let first = if count <= WINDOW {
        0
    } else {
        below(low, count)
    };
    // A second window is looked at only when the timeout speaks against every partition of the
    // first.
    for at in (0..count).step_by(WINDOW) {
        let len = WINDOW.min(count - at);
        if at == 0 && !sticky.may_mask() && nothing_waits(sticky, view, first, len) {
            return None;
        }
        let seen = Compared::look(sticky, view, now, (first + at) % count, len);
        // What stands outside of the window may still be refused.
        if seen.alike && (count <= WINDOW || !sticky.may_mask()) {
            return None;
        }
        if seen.len > 0 {
            return seen.draw(high);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bits, Brokers, view};
    use crate::{Partitioner, RUN_BYTES, TopicView};
    use proptest::prelude::*;
    use std::time::Duration;

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// How many of so many runs each partition gets.
    fn shares(sticky: Sticky, view: &TopicView<'_>, runs: u32) -> Vec<u32> {
        let mut counts = vec![0; view.partition_count as usize];
        let (mut bits, mut previous) = (Bits(9), None);
        for _ in 0..runs {
            let run = sticky.begin_run(view, Instant::now(), bits.next(), previous);
            previous = Some(run.partition);
            counts[run.partition as usize] += 1;
        }
        counts
    }

    fn queued(runs: &[u64]) -> Brokers {
        let bytes = |runs: &u64| runs * u64::from(RUN_BYTES);
        Brokers {
            waiting: runs.iter().map(bytes).collect(),
            refused: vec![Duration::ZERO; runs.len()],
        }
    }

    fn near(shares: &[u32], weights: &[u32]) {
        let (runs, sum) = (shares.iter().sum::<u32>(), weights.iter().sum::<u32>());
        for (share, weight) in shares.iter().zip(weights) {
            let expected = runs * weight / sum;
            let off = share.abs_diff(expected);
            assert!(off <= expected / 15 + 20, "{shares:?} for {weights:?}");
        }
    }

    #[test]
    fn the_weight_is_the_longest_queue_plus_one_minus_its_own() {
        // The example in Java's source.
        let brokers = queued(&[0, 3, 1]);
        let view = TopicView {
            queued: &brokers,
            ..view(3, &[0, 1, 2])
        };
        near(&shares(Sticky::default(), &view, 16_000), &[4, 1, 3]);
        near(
            &shares(Sticky::default().adaptive(false), &view, 16_000),
            &[1, 1, 1],
        );
    }

    #[test]
    fn less_than_a_run_counts_as_nothing() {
        let mut brokers = queued(&[0, 0, 0]);
        brokers.waiting = vec![0, u64::from(RUN_BYTES) - 1, 7];
        let view = TopicView {
            queued: &brokers,
            ..view(3, &[0, 1, 2])
        };
        assert_eq!(choose(Sticky::default(), &view, Instant::now(), 7), None);
    }

    #[test]
    fn a_partition_whose_leader_takes_nothing_gets_no_run_after_the_timeout() {
        let mut brokers = queued(&[0; 4]);
        brokers.refused[2] = TIMEOUT;
        let sticky = Sticky::default().availability_timeout(TIMEOUT);
        let all = view(4, &[0, 1, 2, 3]);
        let at = |brokers: &Brokers, sticky| {
            let view = TopicView {
                queued: brokers,
                ..all
            };
            shares(sticky, &view, 4_000)
        };
        near(&at(&brokers, sticky), &[1, 1, 1, 1]);
        brokers.refused[2] += Duration::from_millis(1);
        near(&at(&brokers, sticky), &[1, 1, 0, 1]);
        near(&at(&brokers, sticky.adaptive(false)), &[1, 1, 1, 1]);
        near(&at(&brokers, Sticky::default()), &[1, 1, 1, 1]);
        brokers.refused = vec![2 * TIMEOUT; 4];
        near(&at(&brokers, sticky), &[1, 1, 1, 1]);
    }

    #[test]
    fn a_topic_larger_than_the_window_still_follows_its_queues() {
        let mut runs = vec![0; 600];
        // Every third partition is led by a slow broker.
        runs.iter_mut().step_by(3).for_each(|queue| *queue = 9);
        let brokers = queued(&runs);
        let all: Vec<i32> = (0..600).collect();
        let view = TopicView {
            queued: &brokers,
            ..view(600, &all)
        };
        let shares = shares(Sticky::default(), &view, 60_000);
        let slow: u32 = shares.iter().step_by(3).sum();
        let others: u32 = shares.iter().sum::<u32>() - slow;
        // 200 of weight 1 and 400 of weight 10.
        assert!(slow.abs_diff(60_000 / 21) < 300, "{slow} {others}");
        for share in shares.iter().skip(1).step_by(3) {
            assert!(share.abs_diff(143) < 60, "{share}");
        }
    }

    proptest! {
        /// Whatever waits and whoever refuses: a partition with a leader is chosen if there is one,
        /// and none that refuses while another does not.
        #[test]
        fn what_refuses_is_never_chosen_while_another_does_not(
            seed in any::<u64>(),
            count in 1usize..200,
            led in 0.0..1.0f64,
            refusing in 0.0..1.0f64,
            senseless in any::<bool>(),
        ) {
            let mut bits = Bits(seed);
            let mut chance = |of: f64| (bits.next() >> 11) as f64 / (1u64 << 53) as f64 <= of;
            let available: Vec<i32> = (0..count as i32).filter(|_| chance(led)).collect();
            let refused = (0..count).map(|_| if chance(refusing) { 2 * TIMEOUT } else { TIMEOUT });
            let refused: Vec<Duration> = refused.collect();
            let waiting = (0..count).map(|_| bits.next() >> if senseless { 0 } else { 44 });
            let brokers = Brokers { waiting: waiting.collect(), refused };
            let view = TopicView { queued: &brokers, ..view(count as i32, &available) };
            let sticky = Sticky::default().availability_timeout(TIMEOUT);
            let good = |p: &i32| brokers.refused[*p as usize] <= TIMEOUT;
            let some_good = available.iter().any(good);
            for _ in 0..50 {
                let run = sticky.begin_run(&view, Instant::now(), bits.next(), None);
                prop_assert!((0..count as i32).contains(&run.partition));
                prop_assert!(available.is_empty() || available.contains(&run.partition));
                prop_assert!(!some_good || good(&run.partition));
            }
        }
    }
}
