//! Connections to Kafka brokers: dialling, framing, versions, metadata, coordinators, and one
//! adapter an API that translates between Kafka's wire format and our words.
//!
//! This is the only client crate that names a socket or Kafka's generated messages. An answer is
//! untrusted: frames are limited by API, buffers grow as bytes arrive, and no generated decoder
//! sees an answer before its bounds walk.

pub mod api;
mod api_key;
mod cluster;
mod connection;
mod dial;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod hedge;
pub mod retry;
mod schema;
mod settings;
#[cfg(test)]
mod testing;
mod throttle;
mod versions;
mod walk;

pub use api_key::ApiKey;
pub use cluster::{Class, Cluster, CoordinatorKind};
pub use connection::{Asked, Connection, OnAnswer, Pending};
pub use dial::{BoxFuture, BoxStream, Dial, Tcp};
pub use frame::{Frame, REQUEST_MAX_BYTES};
pub use settings::{MetadataRecovery, SETTINGS, Settings, setting};
pub use versions::{Feature, Versions};
