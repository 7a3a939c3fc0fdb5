//! An embedded Kafka cluster: several nodes in one process, over TCP ports of 127.0.0.1 or in
//! memory, for tests, demos, and people without Kafka.
//!
//! It speaks Kafka's protocol well enough for foreign clients, transactions in both of their
//! protocols included, keeps its records in memory, and lets a test order what is to go wrong. Replicas are simulated: there is one log a partition.
//! It shares no framing with the client crates on purpose: a mistake made on both sides would not
//! show.
//!
//! ```
//! # async fn example() -> ottla_proto::Result<()> {
//! use ottla_broker::{ApiKey, Cluster, Code};
//!
//! let cluster = Cluster::builder().nodes(3).replication(3).topic("orders", 12).start().await?;
//! println!("bootstrap.servers={}", cluster.bootstrap());
//! cluster.faults().on(ApiKey::Produce).times(2).error(Code::NOT_LEADER_OR_FOLLOWER);
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod api;
mod batch;
mod builder;
mod cluster;
mod faults;
mod fetch_session;
mod flag;
mod frame;
mod groups;
mod inspect;
mod log;
mod net;
mod partition;
mod records;
mod sequence;
mod server;
mod settings;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction_index;
mod transactions;
mod walk;

pub use builder::Builder;
pub use cluster::Cluster;
pub use faults::{Fault, FaultRule, Faults};
pub use inspect::{EndMarker, TransactionView};
pub use kafka_protocol::messages::ApiKey;
pub use ottla_proto::Code;
pub use records::StoredRecord;
pub use settings::FirstSequence;
