//! The batching, idempotent producer.
//!
//! A record is encoded once, on the caller's thread, into the open batch of its partition. A driver
//! task hears only of whole batches: it seals them when linger has passed, asks the pure core in
//! `ottla_proto::producer` what to send where, and tells the callers how each batch ended.

mod compressing;
mod config;
mod dead_letter;
mod delivery;
mod delivery_log;
mod driver;
mod histogram;
mod hooks;
mod inbox;
mod levels;
pub mod metrics;
mod pool;
mod preset;
mod producer;
mod runs;
mod slot;
mod spans;
mod table;
mod transaction;

pub use config::{Acks, Clock, CompressOn, Config, SETTINGS};
pub use dead_letter::{DeadLetterFormat, DeadLetters};
pub use delivery::{Delivery, RecordMetadata};
pub use delivery_log::DeliveryLog;
pub use histogram::Summary;
pub use hooks::{Delivered, DeliveryHook, Failed, Hooks, Interceptor, Scratch};
pub use levels::CompressionLevels;
pub use metrics::{ErrorCounts, Metrics};
pub use ottla_proto::producer::VerdictCounts;
pub use preset::Preset;
pub use producer::Producer;
pub use transaction::{Decision, GroupMetadata, Transaction, TransactionalProducer};
