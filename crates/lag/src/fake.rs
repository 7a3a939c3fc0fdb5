//! A cluster in memory for this crate's tests: it answers at once, or never, or with an error.

use crate::brokers::Brokers;
use ottla_proto::cluster::{Broker, Partition, Topic};
use ottla_proto::{BrokerId, ClusterView, Code, Error, ErrorKind, Result, TopicId};
use ottla_wire::api::list_groups;
use ottla_wire::api::list_offsets::{self, Isolation, Timestamp};
use ottla_wire::api::offset_fetch::{self, GroupAnswer};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the fake cluster is and what was asked of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) view: ClusterView,
    pub(crate) coordinators: BTreeMap<String, BrokerId>,
    pub(crate) coordinator_error: Option<Error>,
    /// By group, topic, partition.
    pub(crate) committed: BTreeMap<(String, String, i32), i64>,
    /// What the next answers about any group say instead.
    pub(crate) group_codes: VecDeque<Code>,
    /// By topic and partition.
    pub(crate) ends: BTreeMap<(String, i32), i64>,
    /// Last stable offsets where an open transaction holds them, by topic and partition.
    pub(crate) stable: BTreeMap<(String, i32), i64>,
    /// Groups that are share groups.
    pub(crate) shares: BTreeSet<String>,
    /// Brokers before 4.1.
    pub(crate) knows_no_share_offsets: bool,
    /// Where they read on, by group, topic, partition.
    pub(crate) share_starts: BTreeMap<(String, String, i32), i64>,
    /// What the next answers for the end of a partition say instead.
    pub(crate) end_codes: BTreeMap<(String, i32), VecDeque<Code>>,
    /// Brokers that never answer.
    pub(crate) hung: BTreeSet<BrokerId>,
    /// Brokers that never answer what groups committed.
    pub(crate) hung_commits: BTreeSet<BrokerId>,
    /// How long brokers take for an answer.
    pub(crate) takes: Duration,
    /// Brokers that cannot be reached.
    pub(crate) down: BTreeSet<BrokerId>,
    /// What was asked, in order.
    pub(crate) calls: Vec<String>,
}

/// Group, topic, partition.
type Place = (String, String, i32);

impl State {
    /// Answers about whatever offsets `offset` finds.
    fn offsets(
        &mut self,
        request: offset_fetch::Request,
        offset: impl Fn(&Self, &Place) -> Option<i64>,
    ) -> offset_fetch::Response {
        let mut response = offset_fetch::Response::default();
        for asked in request.groups {
            let code = self.group_codes.pop_front().unwrap_or(Code::NONE);
            let topics = asked.topics.unwrap_or_else(|| self.every_topic());
            let topics = topics.into_iter();
            let topics = topics
                .filter(|_| code == Code::NONE)
                .map(|(topic, numbers)| {
                    let answers = numbers.into_iter().map(|partition| {
                        let key = (asked.group.to_string(), topic.to_string(), partition);
                        offset_fetch::PartitionAnswer {
                            partition,
                            code: Code::NONE,
                            committed: offset(self, &key),
                            leader_epoch: None,
                            metadata: None,
                        }
                    });
                    (Arc::clone(&topic), answers.collect())
                });
            let topics = topics.collect();
            response.groups.push(GroupAnswer {
                group: asked.group,
                code,
                topics,
            });
        }
        response
    }

    /// Every topic with all of its partitions, as one asks about them.
    fn every_topic(&self) -> Vec<(Arc<str>, Vec<i32>)> {
        let topics = self.view.topics.values().map(|topic| {
            let count = i32::try_from(topic.partitions.len()).unwrap();
            (Arc::clone(&topic.name), (0..count).collect())
        });
        topics.collect()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

impl Fake {
    /// A cluster with one topic whose partitions are led by broker 0, 1, 2, 0, ... and a group
    /// `billing` whose coordinator is broker 1, committed at 10 of 15 everywhere.
    pub(crate) fn with_topic(topic: &str, partition_count: i32) -> Self {
        let fake = Self::default();
        let mut state = fake.0.lock();
        let partitions = (0..partition_count).map(|number| Partition {
            leader: Some(BrokerId(number % 3)),
            leader_epoch: Some(7),
            ..Partition::default()
        });
        let name: Arc<str> = topic.into();
        let id = Some(TopicId([1; 16]));
        let made = Topic::new(Arc::clone(&name), id, false, partitions.collect());
        state.view.topics.insert(name, Arc::new(made));
        state.view.generation = 4;
        for id in [0, 1, 2, 9].map(BrokerId) {
            let broker = Broker {
                id,
                host: "localhost".into(),
                port: 9092,
                rack: None,
            };
            state.view.brokers.insert(id, broker);
        }
        state.coordinators.insert("billing".into(), BrokerId(1));
        for number in 0..partition_count {
            let key = ("billing".to_owned(), topic.to_owned(), number);
            state.committed.insert(key, 10);
            state.ends.insert((topic.to_owned(), number), 15);
        }
        drop(state);
        fake
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().calls)
    }

    /// How many calls begin like this, and forgets all calls.
    pub(crate) fn count(&self, begin: &str) -> usize {
        let calls = self.calls();
        calls.iter().filter(|call| call.starts_with(begin)).count()
    }

    async fn reach(&self, broker: BrokerId, what: String) -> Result<()> {
        let is_commits = what.starts_with("commits");
        let (hangs, takes, down) = {
            let mut state = self.0.lock();
            state.calls.push(what);
            let down = state.down.contains(&broker);
            let hangs =
                state.hung.contains(&broker) || is_commits && state.hung_commits.contains(&broker);
            (hangs, state.takes, down)
        };
        if !takes.is_zero() {
            sleep(takes).await;
        }
        if hangs {
            sleep(Duration::from_secs(3_600)).await;
        }
        if down {
            return Err(Error::new(ErrorKind::Connection, "refused").at_broker(broker));
        }
        Ok(())
    }
}

impl Brokers for Fake {
    async fn watch_topics(&self, topics: &[Arc<str>], _deadline: Instant) {
        self.0.lock().calls.push(format!("watch {topics:?}"));
    }

    fn unwatch_topics(&self, topics: &[Arc<str>]) {
        self.0.lock().calls.push(format!("unwatch {topics:?}"));
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::new(self.0.lock().view.clone())
    }

    fn mark_stale(&self, generation: u64) {
        self.0.lock().calls.push(format!("stale {generation}"));
    }

    async fn coordinator(&self, group: &str, _deadline: Instant) -> Result<BrokerId> {
        let state = self.0.lock();
        if let Some(error) = &state.coordinator_error {
            return Err(error.clone());
        }
        let none = || Error::new(ErrorKind::Timeout, "no coordinator");
        state.coordinators.get(group).copied().ok_or_else(none)
    }

    fn forget_coordinator(&self, group: &str, was: BrokerId) {
        self.0.lock().calls.push(format!("forget {group} {was}"));
    }

    async fn offset_fetch(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> Result<offset_fetch::Response> {
        let groups = request.groups.len();
        self.reach(broker, format!("commits {broker} {groups}"))
            .await?;
        let committed = |state: &State, key: &Place| state.committed.get(key).copied();
        Ok(self.0.lock().offsets(request, committed))
    }

    async fn share_offsets(
        &self,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> Result<offset_fetch::Response> {
        let groups = request.groups.len();
        self.reach(broker, format!("shares {broker} {groups}"))
            .await?;
        if self.0.lock().knows_no_share_offsets {
            return Err(Error::new(ErrorKind::UnsupportedVersion, "too old"));
        }
        let start = |state: &State, key: &Place| state.share_starts.get(key).copied();
        Ok(self.0.lock().offsets(request, start))
    }

    async fn topic_names(&self) -> Result<Vec<Arc<str>>> {
        let mut state = self.0.lock();
        state.calls.push("names".to_owned());
        Ok(state.view.topics.keys().cloned().collect())
    }

    async fn list_groups(
        &self,
        broker: BrokerId,
        request: list_groups::Request,
    ) -> Result<list_groups::Response> {
        assert_eq!(request.types, [Arc::<str>::from("share")]);
        self.reach(broker, format!("groups {broker}")).await?;
        let state = self.0.lock();
        let groups = state.shares.iter().map(|group| list_groups::Group {
            group: group.as_str().into(),
            protocol_type: "share".into(),
            state: None,
            group_type: Some("Share".into()),
        });
        Ok(list_groups::Response {
            throttle: Duration::ZERO,
            code: Code::NONE,
            groups: groups.collect(),
        })
    }

    async fn list_offsets(
        &self,
        broker: BrokerId,
        request: list_offsets::Request,
    ) -> Result<list_offsets::Response> {
        let mut latest = true;
        for partition in request.topics.iter().flat_map(|(_, partitions)| partitions) {
            latest = partition.timestamp == Timestamp::Latest;
            assert_eq!(
                partition.leader_epoch,
                Some(7),
                "the leader epoch goes with it"
            );
        }
        let stable = request.isolation == Isolation::ReadCommitted;
        let which = match (latest, stable) {
            (true, false) => "ends",
            (true, true) => "stables",
            (false, _) => "starts",
        };
        let which = if request.topics.is_empty() {
            "probe"
        } else {
            which
        };
        self.reach(broker, format!("{which} {broker}")).await?;
        let mut state = self.0.lock();
        let mut response = list_offsets::Response::default();
        for (topic, partitions) in request.topics {
            let answers = partitions.into_iter().map(|asked| {
                let key = (topic.to_string(), asked.partition);
                let codes = state.end_codes.get_mut(&key).filter(|_| latest && !stable);
                let code = codes.and_then(VecDeque::pop_front).unwrap_or(Code::NONE);
                let held = state.stable.get(&key).copied().filter(|_| stable);
                let offset = if held.is_some() {
                    held
                } else if latest {
                    state.ends.get(&key).copied()
                } else {
                    Some(0)
                };
                list_offsets::PartitionAnswer {
                    partition: asked.partition,
                    code,
                    offset: offset.filter(|_| code == Code::NONE),
                    timestamp: None,
                    leader_epoch: None,
                }
            });
            let answers = answers.collect();
            response.topics.push((topic, answers));
        }
        Ok(response)
    }
}
