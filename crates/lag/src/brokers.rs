//! What the collector needs of a cluster, so that its rules can be tested without one.

use ottla_proto::{BrokerId, ClusterView, Result};
use ottla_wire::api::{describe_share_group_offsets, list_groups, list_offsets, offset_fetch};
use ottla_wire::{Class, Cluster, CoordinatorKind};
use std::future::Future;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// A cluster as the collector sees it. Every call can be dropped at any time.
pub(crate) trait Brokers: Send + Sync + 'static {
    /// Keeps these topics in the view and waits until each is there or refused, or the deadline.
    fn watch_topics(
        &self,
        topics: &[Arc<str>],
        deadline: Instant,
    ) -> impl Future<Output = ()> + Send;

    /// Undoes one [`watch_topics`](Self::watch_topics).
    fn unwatch_topics(&self, topics: &[Arc<str>]);

    /// What is known of the cluster now.
    fn view(&self) -> Arc<ClusterView>;

    /// An answer showed that the view of this generation is old.
    fn mark_stale(&self, generation: u64);

    /// The broker that keeps the group's offsets.
    fn coordinator(
        &self,
        group: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<BrokerId>> + Send;

    /// The group's coordinator is not `was` any more.
    fn forget_coordinator(&self, group: &str, was: BrokerId);

    /// Asks a coordinator for committed offsets.
    fn offset_fetch(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> impl Future<Output = Result<offset_fetch::Response>> + Send;

    /// Asks a coordinator where share groups read on.
    fn share_offsets(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> impl Future<Output = Result<offset_fetch::Response>> + Send;

    /// The names of all topics but Kafka's own.
    fn topic_names(&self) -> impl Future<Output = Result<Vec<Arc<str>>>> + Send;

    /// Asks a coordinator for its groups.
    fn list_groups(
        &self,
        broker: BrokerId,
        request: list_groups::Request,
    ) -> impl Future<Output = Result<list_groups::Response>> + Send;

    /// Asks a leader for the ends of its logs.
    fn list_offsets(
        &self,
        broker: BrokerId,
        request: list_offsets::Request,
    ) -> impl Future<Output = Result<list_offsets::Response>> + Send;
}

impl Brokers for Cluster {
    async fn watch_topics(&self, topics: &[Arc<str>], deadline: Instant) {
        let mut changes = self.changes();
        Cluster::watch_topics(self, topics.iter().cloned());
        loop {
            let view = Cluster::view(self);
            let is_known =
                |name: &Arc<str>| view.topics.contains_key(name) || view.refused.contains_key(name);
            if topics.iter().all(is_known) {
                return;
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn unwatch_topics(&self, topics: &[Arc<str>]) {
        for topic in topics {
            self.unwatch_topic(topic);
        }
    }

    fn view(&self) -> Arc<ClusterView> {
        Cluster::view(self)
    }

    fn mark_stale(&self, generation: u64) {
        Cluster::mark_stale(self, generation);
    }

    async fn coordinator(&self, group: &str, deadline: Instant) -> Result<BrokerId> {
        Cluster::coordinator(self, CoordinatorKind::Group, group, deadline).await
    }

    fn forget_coordinator(&self, group: &str, was: BrokerId) {
        Cluster::forget_coordinator(self, CoordinatorKind::Group, group, was);
    }

    async fn offset_fetch(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> Result<offset_fetch::Response> {
        // Not on the group connection: a JoinGroup there can hold everything behind it for minutes.
        let connection = self.connection(broker, Class::Control).await?;
        offset_fetch::call(&connection, &request).await
    }

    async fn share_offsets(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> Result<offset_fetch::Response> {
        let connection = self.connection(broker, Class::Control).await?;
        describe_share_group_offsets::call(&connection, &request).await
    }

    async fn topic_names(&self) -> Result<Vec<Arc<str>>> {
        let view = self.all_topics().await?;
        let topics = view.topics.values().filter(|topic| !topic.internal);
        Ok(topics.map(|topic| Arc::clone(&topic.name)).collect())
    }

    async fn list_groups(
        &self,
        broker: BrokerId,
        request: list_groups::Request,
    ) -> Result<list_groups::Response> {
        let connection = self.connection(broker, Class::Control).await?;
        list_groups::call(&connection, &request).await
    }

    async fn list_offsets(
        &self,
        broker: BrokerId,
        request: list_offsets::Request,
    ) -> Result<list_offsets::Response> {
        let connection = self.connection(broker, Class::Control).await?;
        list_offsets::call(&connection, &request).await
    }
}
