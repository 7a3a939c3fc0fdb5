//! The producer's core: sequences, what is in flight, retries, verdicts. It opens no socket, reads
//! no clock and starts no task: a driver feeds it and carries out what it asks for.

mod answer;
mod batch;
mod identity;
mod partition;
mod sender;
#[cfg(test)]
mod tests;
pub mod transaction;
mod types;
mod verdict;

pub use answer::{AnsweredTopic, LeaderHint, PartitionAnswer, ProduceAnswer, RecordError};
pub use batch::Batch;
pub use identity::{Identity, Sequence, Stamp};
pub use sender::Sender;
pub use types::{
    Ack, Config, Event, Lane, PartitionIndex, RequestId, Split, Transmit, TransmitBatch, Unanswered,
};
pub use verdict::{Attempt, Facts, Verdict, VerdictCounts, verdict};
