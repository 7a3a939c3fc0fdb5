//! A Kafka client in pure Rust whose producer steers records away from partitions whose consumers
//! fall behind.
//!
//! ```no_run
//! # async fn example() -> ottla::Result<()> {
//! use ottla::{Client, LagAware, Record};
//!
//! let client = Client::builder("localhost:9092").connect().await?;
//! let lag = client.lag("billing").topics(["orders"]).start().await?;
//! let producer = client.producer().partitioner(LagAware::new(lag.plan())).build()?;
//! let metadata = producer.send(Record::to("orders").value("hello")).await?;
//! println!("partition {} offset {:?}", metadata.partition, metadata.offset);
//! producer.close().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod groups;
mod placement;
mod producer;
mod properties;
mod table;
mod topics;
mod transactions;

pub use bytes::Bytes;
pub use client::{Client, ClientBuilder};
pub use groups::{GroupListing, GroupMember, GroupMembers, Groups, ListedGroup};
pub use ottla_consumer as consumer;
pub use ottla_lag as lag;
pub use ottla_partitioner as partitioner;
pub use ottla_partitioner::{LagAware, Partitioner};
pub use ottla_producer::{
    Acks, DeadLetterFormat, DeadLetters, Delivered, Delivery, DeliveryHook, DeliveryLog, Failed,
    Interceptor, Metrics, Preset, Producer, RecordMetadata, Scratch, metrics,
};
pub use ottla_producer::{Decision, GroupMetadata, Transaction, TransactionalProducer};
pub use ottla_proto::batch::Compression;
pub use ottla_proto::cluster;
pub use ottla_proto::group::Committed;
pub use ottla_proto::setting::Setting;
pub use ottla_proto::{
    BrokerId, ClusterView, Code, Error, ErrorKind, Header, KEPT_VALUE_BYTES_MIN, Place, Record,
    Remedy, Result, TopicId, TopicPartition, WriteOutcome,
};
pub use ottla_wire::{BoxFuture, BoxStream, Cluster, Dial};
pub use producer::ProducerBuilder;
pub use properties::Properties;
pub use table::settings;
pub use topics::{CleanupPolicy, Ensured, NewTopic, TopicDescription, Topics};
pub use transactions::TransactionalProducerBuilder;
