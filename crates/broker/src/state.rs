//! What all nodes share: topics, nodes, groups, faults.

use crate::faults::FaultTable;
use crate::fetch_session::FetchSessions;
use crate::flag::Flag;
use crate::groups::Coordinator;
use crate::partition::Partition;
use crate::settings::{Settings, TopicConfig};
use crate::transactions::Transactions;
use ottla_proto::Code;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use tokio::sync::watch;

/// How many partitions the whole cluster may have: a client's CreateTopics must not be able to
/// take all memory.
const PARTITIONS_MAX: usize = 100_000;

/// An error code with the sentence that goes with it.
pub(crate) type Refused = (Code, String);

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: [u8; 16],
    pub(crate) config: RwLock<Arc<TopicConfig>>,
    partitions: RwLock<Vec<Arc<Partition>>>,
}

impl Topic {
    /// The partition of that number.
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        self.partitions.read().get(index).cloned()
    }

    /// All partitions, by number.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    /// How many partitions there are.
    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.read().len()
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it runs; its connections end when it does not.
    pub(crate) up: Flag,
    /// How many connections and listeners it has open.
    pub(crate) open: watch::Sender<usize>,
    /// Whether it takes connections and answers nothing, like a process that was stopped by a
    /// signal.
    pub(crate) frozen: Flag,
}

/// Leader and leader epoch by topic id and partition.
pub(crate) type Leaders = BTreeMap<([u8; 16], i32), (Option<i32>, i32)>;

impl Node {
    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: BTreeMap<[u8; 16], Arc<Topic>>,
}

/// What a topic is to be made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    /// `None` takes the cluster's default.
    pub(crate) partitions: Option<i32>,
    /// `None` takes the cluster's default.
    pub(crate) replication: Option<i16>,
    /// Replicas by partition; empty lets the cluster choose.
    pub(crate) assignments: Vec<Vec<i32>>,
    pub(crate) config: BTreeMap<String, String>,
}

/// The cluster's finalized features.
#[derive(Debug)]
pub(crate) struct Features {
    /// The level of `transaction.version`, and the epoch, which grows with every change.
    transaction_version: Mutex<(i16, i64)>,
}

impl Features {
    fn new(transaction_version: i16) -> Self {
        Self {
            transaction_version: Mutex::new((transaction_version, 0)),
        }
    }

    /// The level of `transaction.version`, and the features' epoch.
    pub(crate) fn transaction_version(&self) -> (i16, i64) {
        *self.transaction_version.lock()
    }

    /// Changes the level of `transaction.version`.
    pub(crate) fn set_transaction_version(&self, level: i16) {
        let mut current = self.transaction_version.lock();
        *current = (level, current.1 + 1);
    }
}

/// The state that all nodes share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) nodes: Vec<Node>,
    /// Whether the cluster as a whole runs.
    pub(crate) running: watch::Sender<bool>,
    pub(crate) groups: Coordinator,
    pub(crate) transactions: Transactions,
    pub(crate) features: Features,
    pub(crate) faults: FaultTable,
    /// Requests answered, by node and API key.
    pub(crate) requests: Mutex<BTreeMap<(i32, i16), u64>>,
    pub(crate) fetch_sessions: Mutex<FetchSessions>,
    /// What Metadata goes on to say of leaders, while it is frozen.
    pub(crate) frozen_leaders: Mutex<Option<Leaders>>,
    topics: RwLock<Topics>,
    next_producer_id: AtomicI64,
    coordinator_epoch: AtomicI32,
    /// Which node coordinates a key, where a test has moved it.
    moved: Mutex<BTreeMap<String, i32>>,
    random: Mutex<fastrand::Rng>,
}

impl fmt::Debug for Shared {
    /// Shows the nodes, not the gigabytes behind them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings, nodes: Vec<Node>) -> Self {
        let random = fastrand::Rng::with_seed(settings.seed);
        Self {
            groups: Coordinator::new(&settings),
            transactions: Transactions::new(settings.marker_delay),
            features: Features::new(settings.transaction_version),
            running: watch::Sender::new(true),
            faults: FaultTable::default(),
            requests: Mutex::default(),
            fetch_sessions: Mutex::default(),
            frozen_leaders: Mutex::default(),
            topics: RwLock::default(),
            next_producer_id: AtomicI64::new(1000),
            coordinator_epoch: AtomicI32::new(0),
            moved: Mutex::default(),
            random: Mutex::new(random),
            settings,
            nodes,
        }
    }

    /// Whether that node runs.
    pub(crate) fn is_up(&self, id: i32) -> bool {
        self.node(id).is_some_and(Node::is_up)
    }

    /// The node of that id.
    pub(crate) fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    /// The nodes that run, by id.
    pub(crate) fn up_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    /// The node that coordinates `key`: always the same one, or while that is down the next one up.
    pub(crate) fn coordinator(&self, key: &str) -> Option<&Node> {
        let moved = self.moved.lock().get(key).copied();
        if let Some(node) = moved.and_then(|id| self.node(id)).filter(|n| n.is_up()) {
            return Some(node);
        }
        // FNV-1a: stable from run to run, as the seed replays.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let count = self.nodes.len().max(1);
        let first = usize::try_from(hash % count as u64).unwrap_or(0);
        let mut order = self.nodes.iter().cycle().skip(first).take(count);
        order.find(|node| node.is_up())
    }

    /// Has another node coordinate `key`, for as long as it runs.
    pub(crate) fn move_coordinator(&self, key: &str, to: i32) {
        self.moved.lock().insert(key.to_owned(), to);
        self.coordinators_moved();
    }

    /// Says that coordinators may have moved.
    pub(crate) fn coordinators_moved(&self) {
        self.coordinator_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// The epoch that markers carry: it grows whenever coordinators may have moved.
    pub(crate) fn coordinator_epoch(&self) -> i32 {
        self.coordinator_epoch.load(Ordering::Relaxed)
    }

    /// Sixteen random bytes, from the seed.
    pub(crate) fn random_id(&self) -> [u8; 16] {
        self.random.lock().u128(1..).to_be_bytes()
    }

    /// A producer id that was not given before.
    pub(crate) fn next_producer_id(&self) -> i64 {
        self.next_producer_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A topic by name.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    /// A topic by id.
    pub(crate) fn topic_by_id(&self, id: [u8; 16]) -> Option<Arc<Topic>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// Every topic, by name.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// Makes a topic, or only checks whether it could be made.
    ///
    /// # Errors
    /// The code and sentence that CreateTopics answers.
    pub(crate) fn create_topic(
        &self,
        new: &NewTopic,
        check_only: bool,
    ) -> Result<Arc<Topic>, Refused> {
        check_name(&new.name)?;
        let config = TopicConfig::new(new.config.clone(), &self.settings)
            .map_err(|reason| (Code::INVALID_CONFIG, reason))?;
        let mut topics = self.topics.write();
        if topics.by_name.contains_key(new.name.as_str()) {
            let reason = format!("Topic '{}' already exists.", new.name);
            return Err((Code::TOPIC_ALREADY_EXISTS, reason));
        }
        let total = topics.by_name.values().map(|t| t.partition_count()).sum();
        let replicas = self.assign(new, total)?;
        let name: Arc<str> = new.name.as_str().into();
        let partitions = (0..).zip(replicas).map(|(index, replicas)| {
            let partition = Partition::new(index, replicas, |n| self.is_up(n));
            Arc::new(partition)
        });
        let topic = Arc::new(Topic {
            name: name.clone(),
            id: self.random_id(),
            config: RwLock::new(Arc::new(config)),
            partitions: RwLock::new(partitions.collect()),
        });
        if !check_only {
            topics.by_name.insert(name, topic.clone());
            topics.by_id.insert(topic.id, topic.clone());
        }
        Ok(topic)
    }

    /// The replicas of each new partition.
    fn assign(&self, new: &NewTopic, existing: usize) -> Result<Vec<Vec<i32>>, Refused> {
        if !new.assignments.is_empty() {
            let known = |nodes: &Vec<i32>| {
                !nodes.is_empty() && nodes.iter().all(|node| self.node(*node).is_some())
            };
            if new.assignments.iter().all(known) {
                return Ok(new.assignments.clone());
            }
            let reason = "the assignment names no node, or one that does not exist".to_owned();
            return Err((Code::INVALID_REPLICA_ASSIGNMENT, reason));
        }
        let count = new.partitions.unwrap_or(self.settings.default_partitions);
        check_count(count, existing)?;
        let replication = new.replication.unwrap_or(self.settings.default_replication);
        let live = self.up_nodes().count();
        let enough = usize::try_from(replication).is_ok_and(|r| r >= 1 && r <= live);
        if !enough {
            let reason = format!("Replication factor {replication} with {live} nodes running.");
            return Err((Code::INVALID_REPLICATION_FACTOR, reason));
        }
        // Topics start at different nodes, or every topic's partition 0 would be on node 0.
        let first = i32::try_from(existing).unwrap_or(0);
        Ok(self.spread(first, count, replication))
    }

    fn spread(&self, first: i32, count: i32, replication: i16) -> Vec<Vec<i32>> {
        let live: Vec<i32> = self.up_nodes().map(|node| node.id).collect();
        let at = |n: i32| {
            let index = n.unsigned_abs() as usize % live.len().max(1);
            live.get(index).copied().unwrap_or(0)
        };
        (0..count)
            .map(|p| {
                (0..i32::from(replication))
                    .map(|r| at(first + p + r))
                    .collect()
            })
            .collect()
    }

    /// Grows a topic to `count` partitions, or only checks whether it could.
    ///
    /// # Errors
    /// The code and sentence that CreatePartitions answers.
    pub(crate) fn add_partitions(
        &self,
        name: &str,
        count: i32,
        check_only: bool,
    ) -> Result<(), Refused> {
        let topic = self.topic(name).ok_or_else(|| unknown_topic(name))?;
        let total = self.topics().iter().map(|t| t.partition_count()).sum();
        check_count(count, total)?;
        let mut partitions = topic.partitions.write();
        let existing = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        if count <= existing {
            let reason = format!("Topic already has {existing} partition(s).");
            return Err((Code::INVALID_PARTITIONS, reason));
        }
        if check_only {
            return Ok(());
        }
        let first = partitions.first().map(|p| p.lock().replicas.clone());
        let replication = first.as_ref().map_or(1, Vec::len);
        let start = first.and_then(|r| r.first().copied()).unwrap_or(0) + existing;
        let replication = i16::try_from(replication).unwrap_or(1);
        let more = self.spread(start, count - existing, replication);
        for (index, replicas) in (existing..).zip(more) {
            let partition = Partition::new(index, replicas, |n| self.is_up(n));
            partitions.push(Arc::new(partition));
        }
        Ok(())
    }

    /// Deletes a topic with its committed offsets.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, Refused> {
        let topic = {
            let mut topics = self.topics.write();
            let topic = topics.by_name.remove(name);
            let topic = topic.ok_or_else(|| unknown_topic(name))?;
            topics.by_id.remove(&topic.id);
            topic
        };
        for partition in topic.partitions() {
            partition.lock().delete();
        }
        self.groups.forget_topic(name);
        Ok(topic)
    }

    /// Elects leaders where there are none.
    pub(crate) fn elect(&self) {
        self.each_partition(|partition| partition.lock().elect(|n| self.is_up(n)));
    }

    /// Who leads each partition now.
    pub(crate) fn leaders(&self) -> Leaders {
        let mut leaders = Leaders::new();
        for topic in self.topics() {
            for partition in topic.partitions() {
                let state = partition.lock();
                let now = (state.leader, state.leader_epoch);
                leaders.insert((topic.id, partition.index), now);
            }
        }
        leaders
    }

    /// Visits every partition.
    pub(crate) fn each_partition(&self, mut visit: impl FnMut(&Partition)) {
        for topic in self.topics() {
            topic.partitions().iter().for_each(|p| visit(p));
        }
    }
}

fn unknown_topic(name: &str) -> Refused {
    let reason = format!("Topic '{name}' does not exist.");
    (Code::UNKNOWN_TOPIC_OR_PARTITION, reason)
}

fn check_count(count: i32, existing: usize) -> Result<(), Refused> {
    let fits = usize::try_from(count)
        .is_ok_and(|count| count >= 1 && existing.saturating_add(count) <= PARTITIONS_MAX);
    if fits {
        return Ok(());
    }
    let reason = format!("{count} partitions: it must be from 1 to {PARTITIONS_MAX} in all.");
    Err((Code::INVALID_PARTITIONS, reason))
}

/// Kafka's rule for topic names.
pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fine = (1..=249).contains(&name.len()) && name != "." && name != "..";
    if fine && name.chars().all(letters) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let reason = format!("Topic name '{shown}' is not of 1 to 249 of [a-zA-Z0-9._-].");
    Err((Code::INVALID_TOPIC_EXCEPTION, reason))
}
