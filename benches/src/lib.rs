//! What the benchmarks share: a clock around a closure, text to send, a plan to go by, and a model of
//! producers and consumers to steer in.

pub mod steering;

use ottla_partitioner::{Drain, DrainPartition, TopicPlan};
use std::time::{Duration, Instant};

/// The topic of [`plan`].
pub const TOPIC: &str = "orders";

/// What each partition's consumer mostly reads, in records a second.
pub const RATE: f64 = 1_000.0;

/// Runs `work` `rounds` times and gives the best time of one of its `steps`, in nanoseconds.
pub fn best_ns(rounds: usize, steps: usize, mut work: impl FnMut()) -> f64 {
    let times = (0..rounds).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_nanos() as f64 / steps as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

/// A payload of so many bytes, made of words.
pub fn payload(bytes: usize) -> Vec<u8> {
    let words = b"order customer amount currency shipped pending berlin lisbon tromso ";
    words.iter().copied().cycle().take(bytes).collect()
}

/// A plan of [`TOPIC`] that is renewed every second, with a little unread in most partitions. `rate` is
/// what each partition's consumer reads, in records a second, `load` what all producers write, as a part
/// of what the consumers read, and `own` our part of that.
pub fn plan(partitions: usize, rate: f64, load: f64, own: f64) -> TopicPlan {
    let arrival_rate = rate * load * partitions as f64;
    let partition = |at: usize| DrainPartition {
        rate,
        backlog: (at % 7) as f64 * 10.0,
        share: 1.0 / partitions as f64,
    };
    let drain = Drain {
        partitions: (0..partitions).map(partition).collect(),
        arrival_rate,
        own_rate: arrival_rate * own,
    };
    TopicPlan::drain(TOPIC.into(), Instant::now(), Duration::from_secs(1), &drain)
}
