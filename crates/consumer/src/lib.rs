//! The consumer: reads records by assignment or as a member of a group, and commits how far it is.
//!
//! A thin driver around two pure cores: [`ottla_proto::fetch`] decides what to fetch, and
//! [`ottla_proto::group`] lives the member's life. Two tasks run beside the user: one fetches ahead
//! within a bound, one keeps the membership alive however long the user takes.

mod commit;
mod config;
mod consumer;
mod driver;
mod fetcher;
mod lanes;
mod shared;

pub use config::{Config, SETTINGS};
pub use consumer::{Builder, Consumer};
pub use ottla_proto::fetch::{
    FetchedRecord as ConsumerRecord, Isolation, OffsetReset, Point, Start, TimestampKind,
};
pub use ottla_proto::group::{Assignor, Committed};
pub use shared::Rebalance;
