//! Builds producers from properties and typed settings.

use crate::placement;
use crate::properties::Properties;
use crate::table;
use crate::topics::{NewTopic, Topics};
use ottla_partitioner::Partitioner;
use ottla_producer::{
    Acks, Config, DeadLetters, DeliveryHook, Hooks, Interceptor, Preset, Producer, SETTINGS,
};
use ottla_proto::batch::Compression;
use ottla_proto::setting::{Setting, Support};
use ottla_proto::{Error, ErrorKind, Result};
use ottla_wire::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// A producer in the making. Typed settings win over properties.
#[derive(Debug)]
#[must_use]
pub struct ProducerBuilder {
    cluster: Cluster,
    properties: Properties,
    partitioner: Option<Arc<dyn Partitioner>>,
    typed: Vec<Change>,
    hooks: Hooks,
    topics: Vec<NewTopic>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Preset(Preset),
    Linger(Duration),
    BatchBytes(usize),
    BufferBytes(usize),
    Acks(Acks),
    Idempotence(bool),
    Compression(Compression),
    DeliveryTimeout(Duration),
    StallAfter(Duration),
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Cluster, properties: Arc<Properties>) -> Self {
        let properties = Arc::unwrap_or_clone(properties);
        Self {
            cluster,
            properties,
            partitioner: None,
            typed: Vec::new(),
            hooks: Hooks::default(),
            topics: Vec::new(),
        }
    }

    /// Sets one of Kafka's properties for this producer alone.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: an unknown name, a value that does not fit, or a property that belongs
    /// elsewhere; the error says where.
    pub fn property(self, name: &str, value: impl Into<String>) -> Result<Self> {
        let row = table::find_or_suggest(name.trim())?;
        if let Some(place) = elsewhere(row.name) {
            let name = row.name;
            let message = format!("{name} has no place in a producer: {place}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.own(name, value)
    }

    /// Sets a property that is known to have its place here.
    pub(crate) fn own(mut self, name: &str, value: impl Into<String>) -> Result<Self> {
        let row = table::find_or_suggest(name.trim())?;
        if row.support == Support::Ignored {
            tracing::warn!(property = row.name, "a known property that has no effect");
        }
        self.properties.set(name, value)?;
        Ok(self)
    }

    /// How long a batch waits for more records; 5 ms.
    #[doc(alias = "linger.ms")]
    pub fn linger(self, linger: Duration) -> Self {
        self.with(Change::Linger(linger))
    }

    /// A batch is sent when it holds so many bytes before compression; 1,000,000.
    #[doc(alias = "batch.size")]
    pub fn batch_bytes(self, bytes: usize) -> Self {
        self.with(Change::BatchBytes(bytes))
    }

    /// Memory for records that are not acknowledged yet; 32 MiB.
    #[doc(alias = "buffer.memory")]
    pub fn buffer_bytes(self, bytes: usize) -> Self {
        self.with(Change::BufferBytes(bytes))
    }

    /// How many copies a record needs before it counts as acknowledged; all. With fewer,
    /// idempotence is off, also that of a [`preset`](Self::preset), and the log says so; asked for by
    /// name, it makes an error instead.
    #[doc(alias = "request.required.acks")]
    pub fn acks(self, acks: Acks) -> Self {
        self.with(Change::Acks(acks))
    }

    /// Whether brokers drop repeated batches and keep their order; true.
    #[doc(alias = "enable.idempotence")]
    pub fn idempotence(self, on: bool) -> Self {
        self.with(Change::Idempotence(on))
    }

    /// How batches are compressed; not at all.
    #[doc(alias = "compression.type")]
    pub fn compression(self, codec: Compression) -> Self {
        self.with(Change::Compression(codec))
    }

    /// When a batch that was not acknowledged fails; 120 s.
    #[doc(alias = "delivery.timeout.ms")]
    pub fn delivery_timeout(self, timeout: Duration) -> Self {
        self.with(Change::DeliveryTimeout(timeout))
    }

    /// How long a request may keep the partitions of others waiting before it is given up and its
    /// partitions are sent apart; 500 ms. See
    /// [`Config::stall_after`](ottla_producer::Config::stall_after).
    pub fn stall_after(self, time: Duration) -> Self {
        self.with(Change::StallAfter(time))
    }

    /// Chooses the partition of each record; sticky runs, and Java's murmur2 for keys.
    #[doc(alias = "partitioner.class")]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// Settings that belong together, to begin from; every other setting wins over it.
    pub fn preset(self, preset: Preset) -> Self {
        self.with(Change::Preset(preset))
    }

    /// Adds a hook that hears how every batch ends.
    #[doc(alias = "interceptor.classes")]
    pub fn delivery_hook(mut self, hook: impl DeliveryHook) -> Self {
        self.hooks.delivery.push(Arc::new(hook));
        self
    }

    /// Adds an interceptor, which sees every record before its partition is chosen.
    #[doc(alias = "interceptor.classes")]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.hooks.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Writes records that failed for good to dead letter topics; nowhere unless set.
    pub fn dead_letters(mut self, policy: DeadLetters) -> Self {
        self.hooks.dead_letters = Some(policy);
        self
    }

    /// Makes a topic when the producer [starts](Self::start), unless it is there; see
    /// [`Topics::ensure`].
    pub fn ensure_topic(mut self, topic: NewTopic) -> Self {
        self.topics.push(topic);
        self
    }

    fn with(mut self, change: Change) -> Self {
        self.typed.push(change);
        self
    }

    /// Makes the topics of [`ensure_topic`](Self::ensure_topic) that are not there, then builds the
    /// producer.
    ///
    /// # Errors
    /// As [`Topics::ensure`] and [`build`](Self::build).
    ///
    /// Cancel safety: topics may or may not be made.
    pub async fn start(mut self) -> Result<Producer> {
        let topics = Topics::new(self.cluster.clone());
        for topic in std::mem::take(&mut self.topics) {
            topics.ensure(topic).await?;
        }
        self.build()
    }

    /// Builds the producer. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names the property at fault;
    /// [`ErrorKind::State`](crate::ErrorKind::State) when there are topics to ensure, which takes
    /// [`start`](Self::start).
    pub fn build(self) -> Result<Producer> {
        let (cluster, config, partitioner) = self.parts()?;
        Producer::new(cluster, config, partitioner)
    }

    /// What a producer is built from.
    pub(crate) fn parts(self) -> Result<(Cluster, Config, Arc<dyn Partitioner>)> {
        if !self.topics.is_empty() {
            let what = "topics to ensure take ProducerBuilder::start instead of build";
            return Err(Error::new(ErrorKind::State, what));
        }
        let mut config = self.preset_config()?;
        let typed = |change: &Change| matches!(change, Change::Idempotence(_));
        let asked =
            self.properties.get("enable.idempotence").is_some() || self.typed.iter().any(typed);
        self.properties
            .apply(SETTINGS, |name, value| config.set(name, value))?;
        if let Some(format) = self.properties.get("dead.letter.format") {
            // Only now is it certain whether there are dead letters.
            config.set("dead.letter.format", format)?;
        }
        config.hooks = Hooks {
            dead_letters: self.hooks.dead_letters.or(config.hooks.dead_letters),
            ..self.hooks
        };
        for change in self.typed {
            match change {
                Change::Preset(_) => {} // begun from
                Change::Linger(linger) => config.linger = linger,
                Change::BatchBytes(bytes) => config.batch_bytes = bytes,
                Change::BufferBytes(bytes) => config.buffer_bytes = bytes,
                Change::Acks(acks) => config.acks = acks,
                Change::Idempotence(on) => config.idempotence = on,
                Change::Compression(codec) => config.compression = codec,
                Change::DeliveryTimeout(timeout) => config.delivery_timeout = timeout,
                Change::StallAfter(timeout) => config.stall_after = timeout,
            }
        }
        // Fewer copies than all cannot be idempotent. Who asks for them and does not speak of
        // idempotence does without it, as with the Java client.
        if config.acks != Acks::All && !asked {
            tracing::warn!(acks = ?config.acks, "acks below all: a record may be lost or written twice, for enable.idempotence is off");
            config.idempotence = false;
        }
        let partitioner = match self.partitioner {
            Some(own) => own,
            None => placement::by_properties(&self.properties)?,
        };
        Ok((self.cluster, config, partitioner))
    }

    /// What the other settings change: the last preset, or the defaults.
    fn preset_config(&self) -> Result<Config> {
        let typed = self.typed.iter().rev().find_map(|change| match change {
            Change::Preset(preset) => Some(*preset),
            _ => None,
        });
        match (typed, self.properties.get("preset")) {
            (Some(preset), _) => Ok(preset.config()),
            (None, Some(name)) => Preset::by_name(name).map(Preset::config),
            (None, None) => Ok(Config::default()),
        }
    }
}

/// Where a property belongs that one producer cannot have for itself.
fn elsewhere(name: &str) -> Option<&'static str> {
    let is_row_of = |rows: &[Setting]| rows.iter().any(|row| row.name == name);
    if name.starts_with("transaction") {
        return Some("it belongs to Client::transactional_producer");
    }
    if is_row_of(ottla_wire::SETTINGS) {
        return Some("connections belong to the client, set it with ClientBuilder::property");
    }
    if is_row_of(ottla_consumer::SETTINGS) {
        return Some("it belongs to consumers");
    }
    if is_row_of(ottla_lag::SETTINGS) {
        return Some("it belongs to Client::lag");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_belong_elsewhere_say_where() {
        for (name, place) in [
            ("request.timeout.ms", "ClientBuilder::property"),
            ("socket.timeout.ms", "ClientBuilder::property"),
            ("group.id", "consumers"),
            ("lag.refresh.interval.ms", "Client::lag"),
            ("transactional.id", "Client::transactional_producer"),
        ] {
            let row = table::find(name).unwrap();
            let told = elsewhere(row.name).unwrap();
            assert!(told.contains(place), "{name}: {told}");
        }
        for row in SETTINGS.iter().filter(|row| row.support == Support::Acted) {
            let transactional = row.name.starts_with("transaction");
            assert_eq!(elsewhere(row.name).is_some(), transactional, "{}", row.name);
        }
    }
}
