//! Talking to the group's coordinator about offsets.

use ottla_proto::group::{CommitVerdict, Committed, Identity, commit_verdict};
use ottla_proto::{BrokerId, Code, Error, Result, TopicPartition};
use ottla_wire::retry::Backoff;
use ottla_wire::{Class, Cluster, Connection, CoordinatorKind, api};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<TopicPartition, Committed>;

/// One group's coordinator, whoever it is at the moment.
#[derive(Debug)]
pub(crate) struct Office {
    cluster: Cluster,
    group: Arc<str>,
    random: Mutex<fastrand::Rng>,
    /// The broker asked last.
    last: Mutex<Option<BrokerId>>,
}

impl Office {
    pub(crate) fn new(cluster: Cluster, group: Arc<str>) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(cluster.settings().seed));
        Self {
            cluster,
            group,
            random,
            last: Mutex::new(None),
        }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// A connection to the coordinator.
    pub(crate) async fn connection(&self, class: Class, deadline: Instant) -> Result<Connection> {
        let kind = CoordinatorKind::Group;
        let broker = self
            .cluster
            .coordinator(kind, &self.group, deadline)
            .await?;
        *self.last.lock() = Some(broker);
        self.cluster.connection(broker, class).await
    }

    /// The broker asked last is not the coordinator, or is gone.
    pub(crate) fn forget(&self) {
        if let Some(broker) = self.last.lock().take() {
            let kind = CoordinatorKind::Group;
            self.cluster.forget_coordinator(kind, &self.group, broker);
        }
    }

    /// Waits before the next attempt; `false` when the deadline comes first.
    async fn pause(&self, attempt: u32, deadline: Instant) -> bool {
        let settings = self.cluster.settings();
        let backoff = Backoff {
            first: settings.retry_backoff,
            ceiling: settings.retry_backoff_max,
        };
        let wait = backoff.wait(attempt, self.random.lock().u64(..));
        let until = Instant::now() + wait;
        if until >= deadline {
            return false;
        }
        sleep_until(until).await;
        true
    }

    /// Commits, asking again while that may help. `identity` is the member's when it commits, so
    /// that a member of an earlier generation is refused.
    ///
    /// Cancel safety: the offsets may or may not be committed.
    pub(crate) async fn commit(
        &self,
        identity: &Identity,
        offsets: &Offsets,
        deadline: Instant,
    ) -> Result<()> {
        let mut left = offsets.clone();
        let attempt = async |left: &mut Offsets| {
            let connection = self.connection(Class::Control, deadline).await?;
            let request = self.commit_request(identity, left);
            let answer = api::offset_commit::call(&connection, &request).await?;
            let mut refusal = None;
            for (topic, partitions) in answer.topics {
                for (partition, code) in partitions {
                    let partition = TopicPartition::new(Arc::clone(&topic), partition);
                    if code == Code::NONE {
                        left.remove(&partition);
                    } else {
                        refusal = Some(worse(refusal, (code, partition)));
                    }
                }
            }
            Ok((refusal, connection.broker()))
        };
        for number in 0.. {
            let outcome = attempt(&mut left).await;
            let error = match self.judge("OffsetCommit", outcome) {
                ControlFlow::Break(result) => return result,
                ControlFlow::Continue(error) => error,
            };
            if !self.pause(number, deadline).await {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What the group has committed for these partitions; `None` where it has nothing.
    ///
    /// Cancel safety: nothing changes.
    pub(crate) async fn committed(
        &self,
        partitions: &[TopicPartition],
        deadline: Instant,
    ) -> Result<BTreeMap<TopicPartition, Option<Committed>>> {
        let mut found = BTreeMap::new();
        let attempt = async |found: &mut BTreeMap<TopicPartition, Option<Committed>>| {
            let connection = self.connection(Class::Control, deadline).await?;
            let request = self.committed_request(partitions);
            let answer = api::offset_fetch::call(&connection, &request).await?;
            let mut refusal = None;
            for group in answer.groups {
                if group.code != Code::NONE {
                    let partition = partitions.first().cloned();
                    refusal = partition.map(|partition| worse(None, (group.code, partition)));
                }
                for (topic, answers) in group.topics {
                    for one in answers {
                        let partition = TopicPartition::new(Arc::clone(&topic), one.partition);
                        if one.code != Code::NONE {
                            refusal = Some(worse(refusal, (one.code, partition)));
                            continue;
                        }
                        let committed = one.committed.map(|offset| Committed {
                            offset,
                            leader_epoch: one.leader_epoch,
                            metadata: one.metadata,
                        });
                        found.insert(partition, committed);
                    }
                }
            }
            Ok((refusal, connection.broker()))
        };
        for number in 0.. {
            let outcome = attempt(&mut found).await;
            let error = match self.judge("OffsetFetch", outcome) {
                ControlFlow::Break(result) => return result.map(|()| found),
                ControlFlow::Continue(error) => error,
            };
            if !self.pause(number, deadline).await {
                return Err(error);
            }
        }
        Ok(found)
    }

    /// Ends with the result, or goes on with why another attempt is due.
    fn judge(
        &self,
        api: &str,
        outcome: Result<(Option<(Code, TopicPartition)>, BrokerId)>,
    ) -> ControlFlow<Result<()>, Error> {
        match outcome {
            Ok((None, _)) => ControlFlow::Break(Ok(())),
            Ok((Some((code, partition)), broker)) => {
                let error = Error::broker(code, &format!("{api} of group {}", self.group))
                    .at_broker(broker)
                    .at_partition(partition);
                match commit_verdict(code) {
                    CommitVerdict::Retry | CommitVerdict::Done => ControlFlow::Continue(error),
                    CommitVerdict::FindCoordinator => {
                        self.forget();
                        ControlFlow::Continue(error)
                    }
                    _ => ControlFlow::Break(Err(error)),
                }
            }
            Err(error) if error.is_retriable() => {
                self.forget();
                ControlFlow::Continue(error)
            }
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }

    fn commit_request(
        &self,
        identity: &Identity,
        offsets: &Offsets,
    ) -> api::offset_commit::Request {
        let mut topics: Vec<(Arc<str>, Vec<api::offset_commit::PartitionCommit>)> = Vec::new();
        for (partition, committed) in offsets {
            let one = api::offset_commit::PartitionCommit {
                partition: partition.partition,
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata: committed.metadata.clone(),
            };
            match topics.last_mut() {
                Some((topic, of_topic)) if *topic == partition.topic => of_topic.push(one),
                _ => topics.push((Arc::clone(&partition.topic), vec![one])),
            }
        }
        api::offset_commit::Request {
            member: api::offset_commit::Member {
                group: Arc::clone(&self.group),
                generation: identity.generation,
                member_id: Arc::clone(&identity.member_id),
                instance_id: identity.instance.clone(),
            },
            topics,
        }
    }

    fn committed_request(&self, partitions: &[TopicPartition]) -> api::offset_fetch::Request {
        let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            let numbers = topics.entry(Arc::clone(&partition.topic)).or_default();
            numbers.push(partition.partition);
        }
        api::offset_fetch::Request {
            groups: vec![api::offset_fetch::GroupRequest {
                group: Arc::clone(&self.group),
                topics: Some(topics.into_iter().collect()),
            }],
            require_stable: true,
        }
    }
}

/// Of two refusals the one that leaves less hope.
fn worse(
    one: Option<(Code, TopicPartition)>,
    other: (Code, TopicPartition),
) -> (Code, TopicPartition) {
    let rank = |code: Code| match commit_verdict(code) {
        CommitVerdict::Done => 0,
        CommitVerdict::Retry => 1,
        CommitVerdict::FindCoordinator => 2,
        CommitVerdict::AfterRebalance => 3,
        CommitVerdict::Fail => 4,
        CommitVerdict::NotAMember => 5,
        CommitVerdict::Fenced => 6,
    };
    match one {
        Some(one) if rank(one.0) >= rank(other.0) => one,
        _ => other,
    }
}
