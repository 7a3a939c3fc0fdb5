//! Kafka's records, batches and client state machines.
//!
//! Everything here is pure: no socket, no clock, no random source. Time and random bits are always
//! arguments, so that every decision can be replayed from its inputs.

pub mod batch;
pub mod cluster;
pub mod code;
pub mod error;
pub mod fetch;
pub mod group;
pub mod producer;
pub mod record;
pub mod setting;
pub mod topic;

pub use cluster::ClusterView;
pub use code::Code;
pub use error::{Error, ErrorKind, Place, Remedy, Result, WriteOutcome};
pub use record::{Header, KEPT_VALUE_BYTES_MIN, Record};
pub use topic::{BrokerId, TopicId, TopicPartition};
