//! How a cluster is put together.

use crate::cluster::Cluster;
use crate::flag::Flag;
use crate::groups;
use crate::net;
use crate::settings::{Clock, FirstSequence, Settings};
use crate::state::{NewTopic, Node, Shared};
use crate::transactions;
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Memory,
    /// Ports from this one up; 0 takes free ones.
    Tcp(u16),
}

/// Puts a cluster together; see [`Cluster::builder`].
#[derive(Debug, Clone)]
#[must_use = "a cluster runs only once it is started"]
pub struct Builder {
    settings: Settings,
    transport: Transport,
    topics: Vec<NewTopic>,
    start_millis: Option<i64>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            transport: Transport::Tcp(0),
            topics: Vec::new(),
            start_millis: None,
        }
    }

    /// How many nodes; 1 unless set. Their ids count from 0.
    pub fn nodes(mut self, count: u16) -> Self {
        self.settings.node_count = i32::from(count);
        self
    }

    /// Adds a topic with the default replication.
    pub fn topic(mut self, name: impl Into<String>, partitions: i32) -> Self {
        self.topics.push(NewTopic {
            name: name.into(),
            partitions: Some(partitions),
            ..NewTopic::default()
        });
        self
    }

    /// Sets a Kafka topic setting (`max.message.bytes`, `message.timestamp.type`, ...) of the
    /// topic added last.
    pub fn topic_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(topic) = self.topics.last_mut() {
            topic.config.insert(name.into(), value.into());
        }
        self
    }

    /// Replicas of topics that do not say; 1 unless set.
    pub fn replication(mut self, replicas: i16) -> Self {
        self.settings.default_replication = replicas;
        self
    }

    /// Partitions of topics that do not say; 1 unless set, as in Kafka.
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.settings.default_partitions = partitions;
        self
    }

    /// Kafka's `min.insync.replicas`; 1 unless set.
    pub fn min_insync_replicas(mut self, replicas: i16) -> Self {
        self.settings.min_insync_replicas = replicas;
        self
    }

    /// Kafka's `auto.create.topics.enable`; off unless set.
    pub fn auto_create_topics(mut self, on: bool) -> Self {
        self.settings.auto_create_topics = on;
        self
    }

    /// Whether Metadata tells the ids of topics; on unless set. Off, they are unknown to clients, as
    /// with brokers before 2.8.
    pub fn topic_ids(mut self, on: bool) -> Self {
        self.settings.topic_ids = on;
        self
    }

    /// What becomes of a producer's first batch when its sequence is not 0.
    pub fn first_sequence(mut self, rule: FirstSequence) -> Self {
        self.settings.first_sequence = rule;
        self
    }

    /// How long partitions are without a leader when its node stops; none unless set.
    pub fn election_delay(mut self, delay: Duration) -> Self {
        self.settings.election_delay = delay;
        self
    }

    /// How many bytes of batches a topic keeps in memory, shared out evenly among its partitions;
    /// the oldest batches go first. 256 MiB unless set.
    pub fn topic_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.topic_bytes_max = bytes;
        self
    }

    /// Kafka's `socket.request.max.bytes`: a larger request ends the connection. 100 MiB unless
    /// set, as in Kafka.
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.request_bytes_max = bytes;
        self
    }

    /// Kafka's `group.initial.rebalance.delay.ms`; 0 unless set (Kafka: 3 s).
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.settings.initial_rebalance_delay = delay;
        self
    }

    /// Kafka's `group.min.session.timeout.ms`; 6 s unless set, as in Kafka.
    pub fn session_timeout_min(mut self, timeout: Duration) -> Self {
        self.settings.session_timeout_min = timeout;
        self
    }

    /// Whether the records inside a produced batch are read through before it is taken; on unless
    /// set. Off, only the batch's header and checksum are checked, which is faster.
    pub fn validate_records(mut self, on: bool) -> Self {
        self.settings.validate_records = on;
        self
    }

    /// The level of Kafka's feature `transaction.version`: 0 or 1 have clients speak the first
    /// protocol of transactions, 2 the one of KIP-890. 2 unless set, as in a fresh Kafka 4.
    pub fn transaction_version(mut self, level: i16) -> Self {
        self.settings.transaction_version = level;
        self
    }

    /// Kafka's `transaction.max.timeout.ms`: the longest timeout a transactional producer may ask
    /// for. 15 minutes unless set, as in Kafka.
    pub fn transaction_timeout_max(mut self, timeout: Duration) -> Self {
        self.settings.transaction_timeout_max = timeout;
        self
    }

    /// How long the markers of a decided transaction wait; until they are written, its producer is
    /// answered `CONCURRENT_TRANSACTIONS`. None unless set.
    pub fn marker_delay(mut self, delay: Duration) -> Self {
        self.settings.marker_delay = delay;
        self
    }

    /// The epoch that a new transactional id begins with; 0 unless set. Near 32766 the epochs are
    /// soon used up, and the id gets another producer id.
    pub fn first_producer_epoch(mut self, epoch: i16) -> Self {
        self.settings.first_producer_epoch = epoch.clamp(0, i16::MAX - 1);
        self
    }

    /// The seed of everything random (topic ids, member ids); 0 unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// The wall time at the start, in milliseconds since the Unix epoch; the system's unless set.
    /// It goes on with tokio's clock.
    pub fn start_millis(mut self, millis: i64) -> Self {
        self.start_millis = Some(millis);
        self
    }

    /// Nodes are reached by [`Cluster::dial`] only, under the names `node-0.memory:1` and so on.
    pub fn in_memory(mut self) -> Self {
        self.transport = Transport::Memory;
        self
    }

    /// Node 0 listens on this port of 127.0.0.1, node 1 on the next, and so on. Without this or
    /// [`Builder::in_memory`] the nodes listen on free ports.
    pub fn port(mut self, first: u16) -> Self {
        self.transport = Transport::Tcp(first);
        self
    }

    /// Starts the cluster on the current tokio runtime.
    ///
    /// # Errors
    /// `Connection` when a port cannot be bound, `Config` when a topic cannot be made or there is
    /// no node.
    ///
    /// # Cancel safety
    /// Nothing runs unless it completes.
    pub async fn start(mut self) -> Result<Cluster> {
        if self.settings.node_count == 0 {
            return Err(Error::new(ErrorKind::Config, "a cluster needs a node"));
        }
        self.settings.clock = Clock::starting_at(self.start_millis);
        let mut nodes = Vec::new();
        let mut listeners = Vec::new();
        for id in 0..self.settings.node_count {
            let (node, listener) = self.node(id).await?;
            nodes.push(node);
            listeners.push(listener);
        }
        let shared = Arc::new(Shared::new(self.settings, nodes));
        for topic in &self.topics {
            let made = shared.create_topic(topic, false);
            made.map_err(|(_, reason)| Error::new(ErrorKind::Config, reason))?;
        }
        for (node, listener) in shared.nodes.iter().zip(listeners) {
            if let Some(listener) = listener {
                net::listen(&shared, node, listener);
            }
        }
        groups::spawn_timer(&shared);
        transactions::spawn_timer(&shared);
        Ok(Cluster::new(shared, self.transport != Transport::Memory))
    }

    async fn node(&self, id: i32) -> Result<(Node, Option<TcpListener>)> {
        let (host, port, listener) = match self.transport {
            Transport::Memory => (format!("node-{id}.memory"), 1, None),
            Transport::Tcp(first) => {
                let offset = u16::try_from(id).unwrap_or(u16::MAX);
                let port = match first {
                    0 => 0,
                    first => first.saturating_add(offset),
                };
                let bound = match net::bind(port).await {
                    Ok(listener) => listener.local_addr().map(|at| (at.port(), listener)),
                    Err(error) => Err(error),
                };
                let (port, listener) = bound.map_err(|error| {
                    let reason = format!("port {port} of 127.0.0.1 cannot be bound: {error}");
                    Error::new(ErrorKind::Connection, reason).caused_by(error)
                })?;
                ("127.0.0.1".to_owned(), port, Some(listener))
            }
        };
        let node = Node {
            id,
            host,
            port,
            up: Flag::new(true),
            open: watch::Sender::new(0),
            frozen: Flag::new(false),
        };
        Ok((node, listener))
    }
}
