//! The handle on a running cluster.

use crate::builder::Builder;
use crate::faults::Faults;
use crate::net;
use crate::partition::Partition;
use crate::records::{self, StoredRecord};
use crate::state::{NewTopic, Node, Shared};
use kafka_protocol::messages::ApiKey;
use ottla_proto::{Error, ErrorKind, Result};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;

/// A running cluster. Clones share it; it stops when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Cluster {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    tcp: bool,
}

impl Running {
    fn stop(&self) {
        self.shared.running.send_replace(false);
        for node in &self.shared.nodes {
            node.up.set(false);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn unknown_node(id: i32) -> Error {
    Error::new(ErrorKind::Config, format!("there is no node {id}"))
}

impl Cluster {
    /// Begins a cluster: one node on a free port, no topics, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>, tcp: bool) -> Self {
        Self {
            running: Arc::new(Running { shared, tcp }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.running.shared
    }

    /// Every node's address, as `bootstrap.servers` takes them.
    pub fn bootstrap(&self) -> String {
        let address = |node: &Node| format!("{}:{}", node.host, node.port);
        let addresses: Vec<String> = self.shared().nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// Connects to a node in memory, without a socket, under the address that metadata shows.
    ///
    /// # Errors
    /// `NotFound` for an address that is no node's, `ConnectionRefused` while the node is stopped.
    ///
    /// # Cancel safety
    /// It never waits.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        net::dial(self.shared(), host, port)
    }

    /// Orders faults.
    pub fn faults(&self) -> Faults {
        Faults {
            shared: self.shared().clone(),
        }
    }

    /// How many requests of an API have arrived, at all nodes together.
    pub fn requests(&self, api: ApiKey) -> u64 {
        let requests = self.shared().requests.lock();
        let of_api = requests.iter().filter(|((_, key), _)| *key == api as i16);
        of_api.map(|(_, count)| count).sum()
    }

    /// How many requests of an API have arrived at one node.
    pub fn requests_at(&self, node: i32, api: ApiKey) -> u64 {
        let requests = self.shared().requests.lock();
        requests.get(&(node, api as i16)).copied().unwrap_or(0)
    }

    /// Makes a topic with the default replication.
    ///
    /// # Errors
    /// `Config`, with the reason that a client would be given.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Makes a topic with settings, as (name, value).
    ///
    /// # Errors
    /// `Config`, with the reason that a client would be given.
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let set = settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let new = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            config: set.collect(),
            ..NewTopic::default()
        };
        let made = self.shared().create_topic(&new, false);
        made.map(drop).map_err(refused)
    }

    /// Deletes a topic with its records and committed offsets.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.shared().delete_topic(name).map(drop).map_err(refused)
    }

    /// Grows a topic to `count` partitions in all.
    ///
    /// # Errors
    /// `Config`, with the reason that a client would be given.
    pub fn add_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let grown = self.shared().add_partitions(topic, count, false);
        grown.map_err(refused)
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        self.shared().topic(topic)?.partition(partition)
    }

    fn known_partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>> {
        self.partition(topic, partition).ok_or_else(|| {
            let reason = format!("there is no partition {topic}-{partition}");
            Error::new(ErrorKind::UnknownTopicOrPartition, reason)
        })
    }

    /// The node that leads a partition; `None` while there is none, or no such partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.partition(topic, partition)?.lock().leader
    }

    /// A partition's leader epoch.
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Option<i32> {
        Some(self.partition(topic, partition)?.lock().leader_epoch)
    }

    /// Gives a partition's leadership to another node, as an election does: the epoch grows, and
    /// what frozen followers have not copied is lost.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `Config` when the node holds no copy or is stopped.
    pub fn move_leader(&self, topic: &str, partition: i32, to: i32) -> Result<()> {
        let partition = self.known_partition(topic, partition)?;
        let mut state = partition.lock();
        if !state.replicas.contains(&to) || !self.shared().is_up(to) {
            let reason = format!("node {to} has no copy or is stopped");
            return Err(Error::new(ErrorKind::Config, reason));
        }
        state.move_leader(to);
        Ok(())
    }

    /// Stops a partition's followers from copying: writes with acks=all wait, and consumers see
    /// nothing new. Without effect on a partition with one replica.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn freeze_follower(&self, topic: &str, partition: i32) -> Result<()> {
        self.known_partition(topic, partition)?.lock().freeze();
        Ok(())
    }

    /// Lets a partition's followers copy again, everything at once.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn thaw(&self, topic: &str, partition: i32) -> Result<()> {
        let partition = self.known_partition(topic, partition)?;
        partition.lock().thaw(|node| self.shared().is_up(node));
        Ok(())
    }

    /// Stops a node: its port and its connections close, and its partitions get new leaders after
    /// the builder's election delay. Returns when everything is closed.
    ///
    /// # Errors
    /// `Config` if there is no such node.
    ///
    /// # Cancel safety
    /// The node is stopped even when the future is dropped.
    pub async fn stop_node(&self, id: i32) -> Result<()> {
        let shared = self.shared();
        let node = shared.node(id).ok_or_else(|| unknown_node(id))?;
        node.up.set(false);
        shared.fetch_sessions.lock().end_node(id);
        shared.coordinators_moved();
        shared.each_partition(|partition| partition.lock().node_stopped(id));
        if shared.settings.election_delay == Duration::ZERO {
            shared.elect();
        } else {
            let shared = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(shared.settings.election_delay).await;
                shared.elect();
            });
        }
        net::wait_until_closed(node).await;
        Ok(())
    }

    /// Starts a stopped node on the port it had. It follows its old partitions again, and leads
    /// those that no other node could.
    ///
    /// # Errors
    /// `Config` if there is no such node, `Connection` if its port is taken.
    ///
    /// # Cancel safety
    /// The node stays stopped when the future is dropped.
    pub async fn start_node(&self, id: i32) -> Result<()> {
        let shared = self.shared();
        let node = shared.node(id).ok_or_else(|| unknown_node(id))?;
        if node.is_up() {
            return Ok(());
        }
        net::wait_until_closed(node).await;
        if self.running.tcp {
            let bound = net::bind(node.port).await;
            let listener = bound.map_err(|error| {
                let reason = format!("port {} of 127.0.0.1 cannot be bound: {error}", node.port);
                Error::new(ErrorKind::Connection, reason).caused_by(error)
            })?;
            node.up.set(true);
            net::listen(shared, node, listener);
        } else {
            node.up.set(true);
        }
        shared.coordinators_moved();
        shared.each_partition(|partition| partition.lock().node_started(id));
        shared.elect();
        Ok(())
    }

    /// Freezes a node: it goes on to take connections and requests, and answers none, as a process
    /// does that was stopped by a signal. It keeps what it leads; see [`Cluster::move_leader`].
    ///
    /// # Errors
    /// `Config` if there is no such node.
    pub fn freeze_node(&self, id: i32) -> Result<()> {
        let node = self.shared().node(id).ok_or_else(|| unknown_node(id))?;
        node.frozen.set(true);
        Ok(())
    }

    /// Lets a frozen node go on with what it has received.
    ///
    /// # Errors
    /// `Config` if there is no such node.
    pub fn thaw_node(&self, id: i32) -> Result<()> {
        let node = self.shared().node(id).ok_or_else(|| unknown_node(id))?;
        node.frozen.set(false);
        Ok(())
    }

    /// Has Metadata go on to name the leaders and epochs of now, whatever happens, until
    /// [`Cluster::thaw_metadata`]. Partitions made later are shown as they are.
    pub fn freeze_metadata(&self) {
        let leaders = self.shared().leaders();
        *self.shared().frozen_leaders.lock() = Some(leaders);
    }

    /// Has Metadata name the leaders as they are.
    pub fn thaw_metadata(&self) {
        *self.shared().frozen_leaders.lock() = None;
    }

    /// Every record of a partition up to its log end, replicated or not, oldest first.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let Some(partition) = self.partition(topic, partition) else {
            return Vec::new();
        };
        let (batches, start): (Vec<_>, i64) = {
            let state = partition.lock();
            let batches = state.log.batches().map(|b| b.bytes.clone());
            (batches.collect(), state.log.start())
        };
        let records = batches.iter().flat_map(records::stored);
        records.filter(|record| record.offset >= start).collect()
    }

    /// The offset the next record gets; `None` if there is no such partition.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.partition(topic, partition)?.lock().log.end())
    }

    /// The first offset that can be read.
    pub fn start_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.partition(topic, partition)?.lock().log.start())
    }

    /// The end of what consumers see.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.partition(topic, partition)?.lock().high_watermark)
    }

    /// What a group has committed for a partition; `None` if nothing.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let committed = self.shared().groups.committed(group, topic, partition);
        committed.map(|committed| committed.offset)
    }

    /// How many members a group has; 0 for an unknown one.
    pub fn member_count(&self, group: &str) -> usize {
        let count = self
            .shared()
            .groups
            .look(group, |group| group.members.len());
        count.unwrap_or(0)
    }

    /// Stops every node, and returns when every port and connection is closed.
    ///
    /// # Cancel safety
    /// The nodes are stopped even when the future is dropped.
    pub async fn shutdown(&self) {
        self.running.stop();
        for node in &self.shared().nodes {
            net::wait_until_closed(node).await;
        }
    }
}

fn refused((code, reason): (ottla_proto::Code, String)) -> Error {
    Error::new(ErrorKind::Config, format!("{code}: {reason}"))
}
