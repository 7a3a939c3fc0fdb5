//! The producer's core: open batches, sequences, what is in flight, retries, verdicts.

mod answer;

pub use answer::{LeaderHint, PartitionAnswer, ProduceAnswer, RecordError};
