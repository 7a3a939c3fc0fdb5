//! Builds transactional producers.

use crate::producer::ProducerBuilder;
use ottla_partitioner::Partitioner;
use ottla_producer::{DeliveryHook, Interceptor, Preset, TransactionalProducer};
use ottla_proto::batch::Compression;
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// A transactional producer in the making. Typed settings win over properties.
#[derive(Debug)]
#[must_use]
pub struct TransactionalProducerBuilder {
    producer: ProducerBuilder,
    id: Arc<str>,
    transaction_timeout: Option<Duration>,
}

impl TransactionalProducerBuilder {
    pub(crate) fn new(producer: ProducerBuilder, id: Arc<str>) -> Self {
        Self {
            producer,
            id,
            transaction_timeout: None,
        }
    }

    /// Sets one of Kafka's properties for this producer alone.
    ///
    /// # Errors
    /// As [`ProducerBuilder::property`].
    pub fn property(mut self, name: &str, value: impl Into<String>) -> Result<Self> {
        self.producer = match name.trim() {
            "transactional.id" => {
                let what = "transactional.id is what Client::transactional_producer is called with";
                return Err(Error::new(ErrorKind::Config, what));
            }
            name if name.starts_with("transaction.") => self.producer.own(name, value)?,
            name => self.producer.property(name, value)?,
        };
        Ok(self)
    }

    /// How long a transaction may stay open before its coordinator aborts it; 60 s.
    #[doc(alias = "transaction.timeout.ms")]
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = Some(timeout);
        self
    }

    /// As [`ProducerBuilder::linger`].
    #[doc(alias = "linger.ms")]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.producer = self.producer.linger(linger);
        self
    }

    /// As [`ProducerBuilder::batch_bytes`].
    #[doc(alias = "batch.size")]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.producer = self.producer.batch_bytes(bytes);
        self
    }

    /// As [`ProducerBuilder::buffer_bytes`].
    #[doc(alias = "buffer.memory")]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.producer = self.producer.buffer_bytes(bytes);
        self
    }

    /// As [`ProducerBuilder::compression`].
    #[doc(alias = "compression.type")]
    pub fn compression(mut self, codec: Compression) -> Self {
        self.producer = self.producer.compression(codec);
        self
    }

    /// As [`ProducerBuilder::delivery_timeout`].
    #[doc(alias = "delivery.timeout.ms")]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.producer = self.producer.delivery_timeout(timeout);
        self
    }

    /// As [`ProducerBuilder::preset`].
    pub fn preset(mut self, preset: Preset) -> Self {
        self.producer = self.producer.preset(preset);
        self
    }

    /// As [`ProducerBuilder::delivery_hook`]. A delivered record is in the log, and is read only
    /// when its transaction is committed.
    pub fn delivery_hook(mut self, hook: impl DeliveryHook) -> Self {
        self.producer = self.producer.delivery_hook(hook);
        self
    }

    /// As [`ProducerBuilder::interceptor`].
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.producer = self.producer.interceptor(interceptor);
        self
    }

    /// As [`ProducerBuilder::partitioner`].
    #[doc(alias = "partitioner.class")]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.producer = self.producer.partitioner(partitioner);
        self
    }

    /// Builds the producer: it takes over its transactional id, fences whoever had it, and waits
    /// until what that one left open has ended. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names the property at fault; why the
    /// coordinator refuses the id; `Timeout` after `max.block.ms`.
    ///
    /// Cancel safety: the earlier producer may be fenced already.
    pub async fn build(self) -> Result<TransactionalProducer> {
        let (cluster, mut config, partitioner) = self.producer.parts()?;
        config.transactional_id = Some(self.id);
        if let Some(timeout) = self.transaction_timeout {
            config.transaction_timeout = timeout;
        }
        TransactionalProducer::new(cluster, config, partitioner).await
    }
}
