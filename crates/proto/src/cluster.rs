//! What we know of the cluster: an immutable view, replaced whole when metadata changes.

use crate::code::Code;
use crate::topic::{BrokerId, TopicId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One broker's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Node id.
    pub id: BrokerId,
    /// Advertised host name or address.
    pub host: Arc<str>,
    /// Advertised port.
    pub port: u16,
    /// Rack, where the broker has one.
    pub rack: Option<Arc<str>>,
}

/// One partition as metadata shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// The broker that takes writes now; `None` while an election runs.
    pub leader: Option<BrokerId>,
    /// Grows with each election; compare it only within one topic id.
    pub leader_epoch: Option<i32>,
    /// Every broker that holds a copy.
    pub replicas: Vec<BrokerId>,
    /// The copies that are in step.
    pub in_sync: Vec<BrokerId>,
    /// The copies whose broker is down.
    pub offline: Vec<BrokerId>,
    /// What the broker said of this partition, if not "fine".
    pub error: Option<Code>,
    /// Leader and epoch are what an answer named beside an error (KIP-951), and metadata has not
    /// shown them yet.
    pub hinted: bool,
}

/// One topic as metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: Arc<str>,
    /// Id; `None` from brokers older than 2.8.
    pub id: Option<TopicId>,
    /// Whether Kafka itself owns the topic.
    pub internal: bool,
    /// By partition number; every number from 0 is there.
    pub partitions: Vec<Partition>,
    /// The numbers of the partitions that have a leader, ascending.
    pub available: Vec<i32>,
}

impl Topic {
    /// Makes a topic and works out which partitions are available.
    pub fn new(
        name: Arc<str>,
        id: Option<TopicId>,
        internal: bool,
        partitions: Vec<Partition>,
    ) -> Self {
        let available = (0i32..)
            .zip(&partitions)
            .filter(|(_, p)| p.leader.is_some())
            .map(|(i, _)| i)
            .collect();
        Self {
            name,
            id,
            internal,
            partitions,
            available,
        }
    }

    /// The partition of that number.
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        usize::try_from(number)
            .ok()
            .and_then(|i| self.partitions.get(i))
    }
}

/// The cluster at one moment. Cheap to share: topics are behind `Arc`s.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// Grows by one with every change; a failure seen under an older generation says nothing about
    /// this view.
    pub generation: u64,
    /// The cluster's id, if told.
    pub cluster_id: Option<Arc<str>>,
    /// The active controller (or a broker that stands for it), if told.
    pub controller: Option<BrokerId>,
    /// Live brokers.
    pub brokers: BTreeMap<BrokerId, Broker>,
    /// Topics we asked about and that exist.
    pub topics: HashMap<Arc<str>, Arc<Topic>>,
    /// Topics we asked about and that the brokers refused, with the reason.
    pub refused: HashMap<Arc<str>, Code>,
}

impl ClusterView {
    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The leader of a partition with its epoch, if there is one.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(BrokerId, Option<i32>)> {
        let partition = self.topics.get(topic)?.partition(partition)?;
        Some((partition.leader?, partition.leader_epoch))
    }
}
