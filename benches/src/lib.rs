//! What the benchmarks share: a clock around a closure, text to send, and a model of producers and
//! consumers to steer in.

pub mod steering;

use std::time::Instant;

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
