//! Producers, partitions and consumers as a model, and in it the project's real code: what observes
//! lag, what scores it and what chooses, beside other rules of choice.
//!
//! Arrivals are random and independent (Poisson), each partition has its consumer, and whoever
//! chooses sees only offsets that are old: committed now and then, looked at now and then. The model
//! leaves out the network, batching, fetch batches and the reassignment of partitions.

mod choice;
mod figures;
mod play;
mod scenario;
mod vq3;
mod world;

pub use choice::Rule;
pub use figures::Figures;
pub use play::{Outcome, play};
pub use scenario::{Scenario, Setup};

#[cfg(test)]
mod tests;
