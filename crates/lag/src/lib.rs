//! Consumer lag: what a group has still to read, how its consumers are doing, and where a producer
//! should send new records.
//!
//! [`Lag`] watches a group. Its plan steers a producer through
//! [`LagAware`](ottla_partitioner::LagAware); its snapshots are for people. [`collect_once`] looks
//! a single time.

mod brokers;
mod collect;
mod collector;
#[cfg(test)]
mod fake;
pub mod health;
mod lag;
mod once;
mod settings;
pub mod snapshot;
mod watch;

pub use collector::Collector;
pub use lag::{Lag, LagBuilder};
pub use once::{GroupLag, Owner, Topics, collect_once};
pub use settings::{REFRESH, REFRESH_MIN, SETTINGS};
pub use snapshot::{LagStatus, PartitionLag, Snapshot, TopicLag};
