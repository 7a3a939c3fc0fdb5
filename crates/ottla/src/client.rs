//! The way in: one pool of connections for every role.

use crate::groups::Groups;
use crate::producer::ProducerBuilder;
use crate::properties::Properties;
use crate::topics::Topics;
use crate::transactions::TransactionalProducerBuilder;
use ottla_proto::Result;
use ottla_wire::{Cluster, Dial, Settings, Tcp};
use std::sync::Arc;

/// A client of one cluster. Clones share its connections and metadata.
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Cluster,
    properties: Arc<Properties>,
}

/// What a client needs to know before it connects.
#[derive(Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    properties: Properties,
    transport: Option<Transport>,
}

struct Transport(Arc<dyn Dial>);

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

impl Client {
    /// Begins with the addresses of one or more brokers, `host:port`, separated by commas.
    #[doc(alias = "bootstrap.servers")]
    pub fn builder(bootstrap: impl Into<String>) -> ClientBuilder {
        let mut builder = ClientBuilder::default();
        // Text of any shape fits this row; the addresses are checked when connecting.
        let _ = builder.properties.set("bootstrap.servers", bootstrap);
        builder
    }

    /// Begins with properties, `bootstrap.servers` among them.
    pub fn from_properties(properties: Properties) -> ClientBuilder {
        ClientBuilder {
            properties,
            transport: None,
        }
    }

    /// Begins with the process's environment: `KAFKA_BOOTSTRAP_SERVERS` and the like, for the prefix
    /// `KAFKA_`; see [`Properties::from_env`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Config`] when a value does not fit.
    pub fn from_env(prefix: &str) -> Result<ClientBuilder> {
        Properties::from_env(prefix).map(Self::from_properties)
    }

    /// Begins a producer with the client's properties.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), Arc::clone(&self.properties))
    }

    /// Begins a transactional producer with the client's properties, under this transactional id.
    pub fn transactional_producer(
        &self,
        transactional_id: impl Into<Arc<str>>,
    ) -> TransactionalProducerBuilder {
        TransactionalProducerBuilder::new(self.producer(), transactional_id.into())
    }

    /// Begins a consumer with the client's properties.
    pub fn consumer(&self) -> Result<ottla_consumer::Builder> {
        let mut config = ottla_consumer::Config::default();
        self.properties
            .apply(ottla_consumer::SETTINGS, |name, value| {
                config.set(name, value)
            })?;
        Ok(ottla_consumer::Consumer::builder(self.cluster.clone()).config(config))
    }

    /// Begins to watch the lag of a consumer group, with the client's properties.
    pub fn lag(&self, group: impl Into<Arc<str>>) -> ottla_lag::LagBuilder {
        let mut builder = ottla_lag::Lag::builder(self.cluster.clone(), group);
        // The table has checked every value when it was set.
        let _ = self.properties.apply(ottla_lag::SETTINGS, |name, value| {
            builder.set_in_place(name, value)
        });
        builder
    }

    /// The cluster's topics: list, describe, create, delete.
    pub fn topics(&self) -> Topics {
        Topics::new(self.cluster.clone())
    }

    /// The cluster's consumer groups: list, delete.
    pub fn groups(&self) -> Groups {
        Groups::new(self.cluster.clone())
    }

    /// The connections and metadata beneath, for what this crate has no word for.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The properties the client was built with.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }
}

impl ClientBuilder {
    /// Sets one of Kafka's properties; `linger.ms` and librdkafka's `queue.buffering.max.ms` are the
    /// same one. Properties of producers and consumers hold for all that this client makes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Config`]: an unknown name, or a value that does not fit.
    pub fn property(mut self, name: &str, value: impl Into<String>) -> Result<Self> {
        self.properties.set(name, value)?;
        Ok(self)
    }

    /// Adds properties, which win over those set before.
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties.merge(properties);
        self
    }

    /// Reaches brokers by this transport instead of TCP.
    pub fn transport(mut self, transport: Arc<dyn Dial>) -> Self {
        self.transport = Some(Transport(transport));
        self
    }

    /// Connects: tries the bootstrap addresses until one answers.
    ///
    /// # Errors
    /// Names each address and why it did not answer, or the property that is wrong.
    ///
    /// Cancel safety: dropping the future closes what it opened.
    pub async fn connect(self) -> Result<Client> {
        let Self {
            properties,
            transport,
        } = self;
        let mut settings = Settings::default();
        properties.apply(ottla_wire::SETTINGS, |name, value| {
            settings.set(name, value)
        })?;
        let ignored = properties.ignored();
        if !ignored.is_empty() {
            tracing::warn!(
                properties = ignored.join(", "),
                "known properties that have no effect"
            );
        }
        let dial = transport.map_or_else(
            || Arc::new(Tcp::from_settings(&settings)) as Arc<dyn Dial>,
            |transport| transport.0,
        );
        let cluster = Cluster::connect(settings, dial).await?;
        Ok(Client {
            cluster,
            properties: Arc::new(properties),
        })
    }
}
