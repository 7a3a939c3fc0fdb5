//! Consumer lag: what a group has still to read, how its consumers are doing, and where a producer
//! should send new records.
//!
//! [`Lag`] watches a group. Its plan steers a producer through
//! [`LagAware`](ottla_partitioner::LagAware); its snapshots are for people. [`collect_once`] looks
//! a single time. Figures come from the brokers unless a [`LagSource`] brings them.

mod brokers;
mod collect;
mod collector;
#[cfg(test)]
mod fake;
mod figures;
pub mod fleet;
pub mod health;
mod history;
mod joint;
mod lag;
mod once;
mod pattern;
#[cfg(feature = "prometheus")]
mod prometheus;
mod settings;
pub mod snapshot;
pub mod source;
mod watch;

pub use collector::{Collector, kafka_source};
pub use figures::CollectorFigures;
pub use lag::{Lag, LagBuilder};
pub use once::{GroupLag, Owner, Topics, collect_once, log_ends};
#[cfg(feature = "prometheus")]
pub use prometheus::PrometheusSource;
pub use settings::{REFRESH, REFRESH_MIN, SETTINGS};
pub use snapshot::{LagStatus, PartitionLag, Progress, Snapshot, TimeLag, TopicLag};
pub use source::{Asked, Found, LagSource, Origin, Pace, Standing, Trouble};
