//! Consumer lag: what a group has still to read, how its consumers are doing, and where a producer
//! should send new records.

pub mod health;
pub mod snapshot;

pub use snapshot::{LagStatus, PartitionLag, Snapshot, TopicLag};
