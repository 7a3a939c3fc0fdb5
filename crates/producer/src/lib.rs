//! The batching, idempotent producer.
//!
//! A record is encoded once, on the caller's thread, into the open batch of its partition. A driver
//! task hears only of whole batches: it seals them when linger has passed, asks the pure core in
//! `ottla_proto::producer` what to send where, and tells the callers how each batch ended.

mod config;
mod delivery;
mod driver;
mod inbox;
mod metrics;
mod pool;
mod producer;
mod runs;
mod slot;
mod table;
mod transaction;

pub use config::{Acks, Clock, CompressOn, CompressionLevels, Config, SETTINGS};
pub use delivery::{Delivery, RecordMetadata};
pub use metrics::Metrics;
pub use producer::Producer;
pub use transaction::{Decision, GroupMetadata, Transaction, TransactionalProducer};
