//! Making a consumer.

use super::Consumer;
use crate::commit::Office;
use crate::config::Config;
use crate::driver::{COMMANDS_MAX, Driver};
use crate::fetcher;
use crate::shared::{Listener, Rebalance, Shared, now};
use ottla_proto::fetch::{Isolation, OffsetReset, Start};
use ottla_proto::group::{Membership, MembershipConfig};
use ottla_proto::{Error, ErrorKind, Result, TopicPartition};
use ottla_wire::Cluster;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A consumer to be.
pub struct Builder {
    cluster: Cluster,
    config: Config,
    topics: Vec<Arc<str>>,
    partitions: Vec<(TopicPartition, Start)>,
    listener: Option<Listener>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("topics", &self.topics)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            config: Config::default(),
            topics: Vec::new(),
            partitions: Vec::new(),
            listener: None,
        }
    }

    /// Replaces all settings at once.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The group to consume in and to commit for.
    #[doc(alias = "group.id")]
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.config.group = Some(group.into());
        self
    }

    /// The member's own lasting name: it may restart without a rebalance.
    #[doc(alias = "group.instance.id")]
    #[must_use]
    pub fn instance(mut self, name: &str) -> Self {
        self.config.instance = Some(name.into());
        self
    }

    /// Where to begin without a commit, or when the log does not have the offset.
    #[doc(alias = "auto.offset.reset")]
    #[must_use]
    pub fn auto_offset_reset(mut self, reset: OffsetReset) -> Self {
        self.config.auto_offset_reset = reset;
        self
    }

    /// Whether records of open and aborted transactions are seen.
    #[doc(alias = "isolation.level")]
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.config.isolation = isolation;
        self
    }

    /// Commits so often what was handed out before the latest call; `None` leaves committing to
    /// the user.
    #[doc(alias = "enable.auto.commit")]
    #[doc(alias = "auto.commit.interval.ms")]
    #[must_use]
    pub fn auto_commit(mut self, every: Option<Duration>) -> Self {
        self.config.auto_commit = every.is_some();
        self.config.auto_commit_interval = every.unwrap_or(self.config.auto_commit_interval);
        self
    }

    /// Reads these topics as a member of the group, which shares their partitions out.
    #[must_use]
    pub fn topics<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics = topics
            .into_iter()
            .map(|topic| topic.as_ref().into())
            .collect();
        self
    }

    /// Reads these partitions, whatever others do. [`Start::Awaited`] begins where the group has
    /// committed, and where the policy says if it has not.
    #[must_use]
    pub fn assign(mut self, partitions: impl IntoIterator<Item = (TopicPartition, Start)>) -> Self {
        self.partitions = partitions.into_iter().collect();
        self
    }

    /// Is told of every change of what is read, within [`Consumer::next`] or [`Consumer::poll`].
    #[must_use]
    pub fn on_rebalance(mut self, listener: impl FnMut(&Rebalance) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Starts the consumer. A member joins its group in the background; partitions that are
    /// assigned are looked for first.
    ///
    /// # Errors
    /// `Config`, naming the property at fault; `UnknownTopicOrPartition` for an assigned partition
    /// that does not exist after `default.api.timeout.ms`, and what the brokers said if its topic
    /// may not be read.
    ///
    /// Cancel safety: dropping the future leaves nothing behind.
    pub async fn build(self) -> Result<Consumer> {
        self.check()?;
        let Self {
            cluster,
            config,
            topics,
            partitions,
            listener,
        } = self;
        find_partitions(&cluster, &partitions).await?;
        cluster.watch_topics(topics.iter().cloned());
        let group = config.group.clone();
        let office = group.map(|group| Arc::new(Office::new(cluster.clone(), group)));
        let shared = Arc::new(Shared::new(cluster, config));
        let membership = (!topics.is_empty()).then(|| membership(&shared, &topics));
        let is_member = membership.is_some();
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let mut driver = Driver::new(Arc::clone(&shared), office, membership, &topics, receiver);
        driver.assign(partitions);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(fetcher::run(Arc::clone(&shared), stopped));
        Ok(Consumer {
            shared,
            commands,
            stop,
            driver: Some(tokio::spawn(driver.run())),
            current: None,
            touched: Vec::new(),
            stashed: VecDeque::new(),
            is_member,
            identity: None,
            polls: 0,
            ended: false,
            listener: listener.map(Mutex::new),
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::Config, message));
        self.config.check()?;
        match (self.topics.is_empty(), self.partitions.is_empty()) {
            (true, true) => return refuse("a consumer needs topics or partitions to read"),
            (false, false) => {
                return refuse("a consumer reads topics or partitions, not both at once");
            }
            _ => {}
        }
        if self.config.group.is_some() {
            return Ok(());
        }
        if !self.topics.is_empty() {
            return refuse("subscribing to topics needs a group.id");
        }
        let awaited = self
            .partitions
            .iter()
            .find(|(_, start)| *start == Start::Awaited);
        match awaited {
            Some((partition, _)) => {
                let message = "beginning where the group has committed needs a group.id";
                Err(Error::new(ErrorKind::Config, message).at_partition(partition.clone()))
            }
            None => Ok(()),
        }
    }
}

/// Waits until the partitions are known. It borrows no builder, whose listener could not be shared
/// between threads while it waits.
async fn find_partitions(cluster: &Cluster, partitions: &[(TopicPartition, Start)]) -> Result<()> {
    let deadline = Instant::now() + cluster.settings().api_timeout;
    for (partition, _) in partitions {
        let topic = cluster.topic(&partition.topic, deadline).await?;
        if topic.partition(partition.partition).is_none() {
            let count = topic.partitions.len();
            let message = format!("there is no such partition, the topic has {count},");
            let error = Error::new(ErrorKind::UnknownTopicOrPartition, message);
            return Err(error.at_partition(partition.clone()));
        }
    }
    Ok(())
}

fn membership(shared: &Shared, topics: &[Arc<str>]) -> Membership {
    let config = &shared.config;
    let settings = shared.cluster.settings();
    let membership = MembershipConfig {
        group: config.group.clone().unwrap_or_default(),
        instance: config.instance.clone(),
        session_timeout: config.session_timeout,
        heartbeat_interval: config.heartbeat_interval,
        max_poll_interval: config.max_poll_interval,
        assignors: config.assignors.clone(),
        rack: config.rack.clone(),
        retry_backoff: settings.retry_backoff,
        retry_backoff_max: settings.retry_backoff_max,
        seed: settings.seed,
    };
    let mut membership = Membership::new(membership, now());
    membership.subscribe(now(), topics.iter().cloned());
    membership
}
