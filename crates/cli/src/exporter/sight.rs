//! One look at a cluster: its topics, its groups, and how each group gets on.

use super::GROUPS_MAX;
use super::filter::Filter;
use super::published::now;
use ottla::lag::snapshot::End;
use ottla::lag::{Collector, Lag, LagBuilder, LagStatus, SETTINGS, Snapshot, Standing, log_ends};
use ottla::partitioner::Explanation;
use ottla::{BrokerId, Client, ClusterView, Code, Error, GroupMember, ListedGroup, Properties};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long the leaders of topics that no group reads may take to tell their ends.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// How long a group is kept that nobody lists while a broker is gone or does not tell: until it has
/// moved to another coordinator, which has to read its commits first.
const MOVE_MAX: Duration = Duration::from_secs(30);

/// The properties of steering that the exporter's weights go by, so that it tells what a producer with the
/// same properties does.
const SCORING: [&str; 4] = [
    "lag.scorer",
    "lag.health.threshold",
    "lag.health.lag.max",
    "lag.health.drain.ms",
];

/// The codes by which a broker says that the user may not see something.
const REFUSALS: [Code; 3] = [
    Code::TOPIC_AUTHORIZATION_FAILED,
    Code::GROUP_AUTHORIZATION_FAILED,
    Code::CLUSTER_AUTHORIZATION_FAILED,
];

/// What was seen.
#[derive(Debug)]
pub(super) struct Sight {
    /// When the look began.
    pub(super) began: Instant,
    pub(super) view: Arc<ClusterView>,
    /// End and start of each log, by topic and partition.
    pub(super) ends: BTreeMap<Arc<str>, Vec<Edges>>,
    /// By name, ascending.
    pub(super) groups: Vec<GroupSight>,
    /// How many groups there were beyond the bound.
    pub(super) groups_left_out: usize,
    /// When lag was last heard of, of any group; when the look began where there is nothing to hear,
    /// as every broker says.
    pub(super) heard_at: Option<Instant>,
    /// How many brokers did not list their groups.
    pub(super) brokers_missing: usize,
}

/// Where a log ends and begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Edges {
    pub(super) end: Option<i64>,
    pub(super) start: Option<i64>,
}

/// One group.
#[derive(Debug)]
pub(super) struct GroupSight {
    pub(super) group: Arc<str>,
    /// `None` where the coordinator does not tell them.
    pub(super) members: Option<Vec<GroupMember>>,
    /// What may not be seen of it: one of its topics, or with an empty name the group or its members.
    pub(super) refused: Vec<(Arc<str>, Code)>,
    pub(super) snapshot: Arc<Snapshot>,
    /// By topic, as in the snapshot.
    pub(super) explained: Vec<Option<Explanation>>,
}

/// Watches every group of the cluster that the filters let through.
#[derive(Debug)]
pub(super) struct Looker {
    client: Client,
    collector: Collector,
    groups: Filter,
    topics: Filter,
    lags: BTreeMap<Arc<str>, Watched>,
    heard_at: Instant,
    /// Brokers that do not list their groups and groups that cannot be watched, as far as that was said.
    silent: BTreeSet<BrokerId>,
    unwatched: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Watched {
    coordinator: BrokerId,
    /// When it was listed last.
    listed_at: Instant,
    lag: Lag,
}

impl Looker {
    pub(super) fn new(client: Client, refresh: Duration, groups: Filter, topics: Filter) -> Self {
        let seed = client.cluster().settings().seed;
        let collector = Collector::start(client.cluster().clone(), refresh, seed);
        Self {
            client,
            collector,
            groups,
            topics,
            lags: BTreeMap::new(),
            heard_at: now(),
            silent: BTreeSet::new(),
            unwatched: BTreeSet::new(),
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// When no broker tells of topics, or none of groups.
    pub(super) async fn look(&mut self) -> ottla::Result<Sight> {
        let began = now();
        let groups = self.client.groups();
        let (view, listing) = tokio::try_join!(self.client.cluster().all_topics(), groups.list())?;
        let wanted = listing.groups.into_iter();
        let mut wanted: Vec<ListedGroup> = wanted.filter(|g| self.groups.takes(&g.group)).collect();
        let groups_left_out = wanted.len().saturating_sub(GROUPS_MAX);
        wanted.truncate(GROUPS_MAX);
        let missing: BTreeSet<BrokerId> = listing.missing.iter().map(|(id, _)| *id).collect();
        self.note_silent(&listing.missing, &view);
        let (mut members, are_watched) = tokio::join!(
            groups.members(&wanted),
            self.follow(&wanted, &missing, &view)
        );
        let groups = self.lags.iter().map(|(group, watched)| {
            let snapshot = self.filtered(&watched.lag.snapshot());
            let explained = snapshot.topics.iter();
            let explained = explained.map(|topic| watched.lag.explain(&topic.topic));
            let (members, untold) = match members.remove(group) {
                Some(Ok(members)) => (Some(members), None),
                Some(Err(error)) => (None, error.code()),
                None => (None, None),
            };
            GroupSight {
                group: Arc::clone(group),
                members,
                refused: refused(&snapshot, untold),
                explained: explained.collect(),
                snapshot: Arc::new(snapshot),
            }
        });
        let groups: Vec<GroupSight> = groups.collect();
        let awaited = groups.iter().map(|group| &group.snapshot);
        let awaited = awaited.filter(|snapshot| is_awaited(snapshot));
        let heard = awaited.map(|snapshot| heard_at(snapshot).unwrap_or(self.heard_at));
        // Groups that nobody lists, or that cannot be watched, are not heard.
        let is_nothing = missing.is_empty() && are_watched;
        let otherwise = if is_nothing { began } else { self.heard_at };
        self.heard_at = self.heard_at.max(heard.max().unwrap_or(otherwise));
        let ends = self.ends(&view, &groups).await;
        Ok(Sight {
            began,
            view,
            ends,
            groups,
            groups_left_out,
            heard_at: Some(self.heard_at),
            brokers_missing: missing.len(),
        })
    }

    /// Says once that a broker does not list its groups, and once that it does again.
    fn note_silent(&mut self, missing: &[(BrokerId, Error)], view: &ClusterView) {
        for (broker, error) in missing {
            if self.silent.insert(*broker) {
                tracing::warn!(%broker, %error, "a broker does not list its groups");
            }
        }
        self.silent.retain(|broker| {
            let is_silent = missing.iter().any(|(id, _)| id == broker);
            if !is_silent && view.brokers.contains_key(broker) {
                tracing::info!(%broker, "the broker lists its groups again");
            }
            is_silent
        });
    }

    /// Describes how a group is watched.
    fn builder(&self, group: &Arc<str>) -> LagBuilder {
        let properties = self.client.properties();
        let mut lag = Lag::with_collector(&self.collector, Arc::clone(group)).topics_committed();
        for name in SCORING {
            if let Some(value) = properties.get(name) {
                // Every value was checked when it was set.
                let _ = lag.set_in_place(name, value);
            }
        }
        lag
    }

    pub(super) fn takes_topic(&self, topic: &str) -> bool {
        self.topics.takes(topic)
    }

    fn filtered(&self, snapshot: &Snapshot) -> Snapshot {
        let mut snapshot = snapshot.clone();
        snapshot
            .topics
            .retain(|topic| self.takes_topic(&topic.topic));
        snapshot
    }

    /// Begins to watch groups that are new and lets go of those that are gone. A group whose broker
    /// does not answer is not gone, and one whose broker is gone may be on its way to another. Says
    /// whether all that are wanted are watched.
    async fn follow(
        &mut self,
        wanted: &[ListedGroup],
        missing: &BTreeSet<BrokerId>,
        view: &ClusterView,
    ) -> bool {
        let now = now();
        let names: BTreeSet<&Arc<str>> = wanted.iter().map(|listed| &listed.group).collect();
        self.lags.retain(|group, watched| {
            let home = &watched.coordinator;
            let may_move = !missing.is_empty() || !view.brokers.contains_key(home);
            let moves = may_move && now.saturating_duration_since(watched.listed_at) < MOVE_MAX;
            names.contains(group) || missing.contains(home) || moves
        });
        self.unwatched.retain(|group| names.contains(group));
        let mut starts = JoinSet::new();
        for listed in wanted {
            if listed.group.is_empty() {
                // Kafka takes commits under an empty name too, but nobody steers by such a group.
                if self.unwatched.insert(Arc::clone(&listed.group)) {
                    tracing::warn!("the group with an empty name is passed over");
                }
                continue;
            }
            if let Some(watched) = self.lags.get_mut(&listed.group) {
                watched.coordinator = listed.coordinator;
                watched.listed_at = now;
                continue;
            }
            let group = Arc::clone(&listed.group);
            let lag = self.builder(&group);
            let coordinator = listed.coordinator;
            starts.spawn(async move { (group, coordinator, lag.start().await) });
        }
        let mut are_watched = true;
        while let Some(started) = starts.join_next().await {
            match started {
                Ok((group, coordinator, Ok(lag))) => {
                    let watched = Watched {
                        coordinator,
                        listed_at: now,
                        lag,
                    };
                    if self.unwatched.remove(&group) {
                        tracing::info!(%group, "the group is watched now");
                    }
                    self.lags.insert(group, watched);
                }
                Ok((group, _, Err(error))) => {
                    are_watched = false;
                    if self.unwatched.insert(Arc::clone(&group)) {
                        tracing::warn!(%group, %error, "a group cannot be watched");
                    }
                }
                Err(_) => are_watched = false,
            }
        }
        are_watched
    }

    /// The ends of all logs: as the groups' snapshots have them, and asked for where no group reads.
    async fn ends(
        &self,
        view: &ClusterView,
        groups: &[GroupSight],
    ) -> BTreeMap<Arc<str>, Vec<Edges>> {
        let mut known: BTreeMap<Arc<str>, Vec<Edges>> = BTreeMap::new();
        for topic in groups.iter().flat_map(|group| &group.snapshot.topics) {
            known.entry(Arc::clone(&topic.topic)).or_insert_with(|| {
                let edges = topic.partitions.iter().map(|partition| Edges {
                    end: partition.end,
                    start: partition.log_start,
                });
                edges.collect()
            });
        }
        let names = view.topics.keys().filter(|topic| self.takes_topic(topic));
        let rest = names.filter(|topic| !known.contains_key(*topic)).cloned();
        let told = log_ends(self.client.cluster(), view, rest.collect(), ENDS_WITHIN).await;
        known.extend(told.into_iter().map(|(topic, ends)| {
            let edges = ends.into_iter().map(Edges::from);
            (topic, edges.collect())
        }));
        known
    }
}

/// The properties of lag that were set and that the exporter does not go by.
pub(super) fn unused(properties: &Properties) -> Vec<&'static str> {
    let names = SETTINGS.iter().map(|row| row.name);
    let names = names.filter(|name| !SCORING.contains(name) && properties.get(name).is_some());
    names.collect()
}

/// When the lag of a group was last heard of; the coordinator's word where there is no partition.
fn heard_at(snapshot: &Snapshot) -> Option<Instant> {
    let topics = snapshot.topics.iter();
    let topics = topics.filter(|topic| topic.refused.is_none());
    let mut partitions = topics.flat_map(|topic| &topic.partitions).peekable();
    if partitions.peek().is_none() {
        return (snapshot.standing == Standing::Told).then_some(snapshot.taken_at);
    }
    let heard = partitions.filter(|lag| !matches!(lag.status, LagStatus::Unknown(_)));
    heard.map(|lag| lag.taken_at).max()
}

/// Whether there is anything to be heard of a group: not of one that may not be seen, and not of a
/// share group whose broker does not tell where it reads.
fn is_awaited(snapshot: &Snapshot) -> bool {
    match snapshot.standing {
        Standing::Denied => false,
        Standing::Share => heard_at(snapshot).is_some(),
        Standing::Told | Standing::Unknown(_) | Standing::Closed => true,
    }
}

/// What may not be seen of a group; `members` is why its members are not told. A topic that is gone
/// and a coordinator that is busy refuse nothing.
pub(super) fn refused(snapshot: &Snapshot, members: Option<Code>) -> Vec<(Arc<str>, Code)> {
    let denied = Code::GROUP_AUTHORIZATION_FAILED;
    let whole = (snapshot.standing == Standing::Denied).then_some(denied);
    let whole = whole.or(members).map(|code| (Arc::from(""), code));
    let topics = snapshot.topics.iter();
    let topics = topics.filter_map(|topic| Some((Arc::clone(&topic.topic), topic.refused?)));
    let all = whole.into_iter().chain(topics);
    all.filter(|(_, code)| REFUSALS.contains(code)).collect()
}

impl From<End> for Edges {
    fn from(end: End) -> Self {
        match end {
            End::At {
                high_watermark,
                log_start,
                ..
            } => Self {
                end: (high_watermark >= 0).then_some(high_watermark),
                start: log_start.filter(|start| *start >= 0),
            },
            End::Unknown(_) => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::look_on;
    use crate::exporter::published::Published;
    use crate::exporter::testing::{InMemory, commit, in_memory, logged, looker};
    use ottla::lag::{Asked, Found, LagSource, Pace};
    use ottla::partitioner::Method;
    use ottla_broker::Cluster;
    use tokio::sync::watch;

    /// A source that was closed: the collector that asks it ends.
    struct Ended;

    impl LagSource for Ended {
        fn look<'a>(
            &'a mut self,
            asked: &'a [Asked],
            pace: Pace,
        ) -> ottla::BoxFuture<'a, Vec<Found>> {
            let began = pace.began.into_std();
            let nothing = |one| Found::nothing(one, Standing::Closed, began);
            Box::pin(std::future::ready(asked.iter().map(nothing).collect()))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shares_are_told_by_the_scorer_that_producers_use_and_the_rest_is_named() {
        let (cluster, client) = crate::exporter::testing::cluster().await;
        for (partition, offset) in [(0, 4), (1, 20)] {
            commit(&client, "billing", partition, offset).await;
        }
        let mut scoring = Client::builder(cluster.bootstrap());
        for (name, value) in [
            ("lag.scorer", "linear"),
            ("max_lag_for_health", "10"),
            ("lag.key.policy", "sticky"),
            ("refresh_interval", "5"),
        ] {
            scoring = scoring.property(name, value).unwrap();
        }
        let scoring = scoring.connect().await.unwrap();
        let names = unused(scoring.properties());
        assert_eq!(names, ["refresh_interval", "lag.key.policy"]);
        assert!(unused(client.properties()).is_empty());
        let seen = looker(&scoring, ".*").look().await.unwrap();
        let told = seen.groups[0].explained[0].as_ref().unwrap();
        assert_eq!(told.method, Method::Weighted);
        // Scores of 0.4 and 1.
        let first = told.partitions[0].weight;
        assert!((first - 0.4 / 1.4).abs() < 0.01, "{first}");
        cluster.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_with_a_cluster_is_said_once_and_its_end_once() {
        let (lines, _guard) = logged();
        let cluster = Cluster::builder().nodes(2).replication(2).in_memory();
        let cluster = cluster.topic("orders", 2).start().await.unwrap();
        let mut client = Client::builder(cluster.bootstrap());
        for (name, value) in crate::exporter::PATIENCE {
            client = client.property(name, value).unwrap();
        }
        let client = client.transport(Arc::new(InMemory(cluster.clone())));
        let client = client.connect().await.unwrap();
        commit(&client, "billing", 0, 0).await;
        let (publisher, published) = watch::channel(Arc::new(Published::default()));
        let looker = looker(&client, ".*");
        let looks = tokio::spawn(async move { look_on(looker, &publisher).await });
        let failures = || published.borrow().own().failures;
        let minute = Duration::from_secs(60);
        let nodes = |are_frozen: bool, nodes: &[i32]| {
            for node in nodes {
                let done = match are_frozen {
                    true => cluster.freeze_node(*node),
                    false => cluster.thaw_node(*node),
                };
                done.unwrap();
            }
        };
        for (some, trouble, end) in [
            (&[1][..], "a broker does not list", "lists its groups again"),
            (&[0, 1], "cannot be looked at", "can be looked at again"),
            (&[0, 1], "metadata could not", "metadata is refreshed again"),
        ] {
            let before = (lines(trouble), lines(end));
            nodes(true, some);
            tokio::time::sleep(5 * minute).await;
            let during = (lines(trouble) - before.0, lines(end) - before.1);
            assert_eq!(during, (1, 0), "{trouble}");
            nodes(false, some);
            tokio::time::sleep(minute).await;
            let after = (lines(trouble) - before.0, lines(end) - before.1);
            assert_eq!(after, (1, 1), "{end}");
        }
        assert!(failures() > 4, "trouble that lasts");
        looks.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_cannot_be_watched_is_not_heard_and_told_of_once() {
        let (lines, _guard) = logged();
        let second = Duration::from_secs(1);
        let (_cluster, client) = in_memory(2).await;
        let mut looker = looker(&client, ".*");
        let watches = looker.collector.clone();
        tokio::time::sleep(second).await;
        let seen = looker.look().await.unwrap();
        assert_eq!(seen.heard_at, Some(seen.began), "there is nothing to hear");
        commit(&client, "billing", 0, 0).await;
        looker.collector = Collector::with_source(Ended, second, 1);
        tokio::time::sleep(second).await;
        for _ in 0..2 {
            let unwatched = looker.look().await.unwrap();
            assert!(unwatched.groups.is_empty());
            assert_eq!(unwatched.heard_at, seen.heard_at);
        }
        let told = || [lines("group cannot be watched"), lines("is watched now")];
        assert_eq!(told(), [1, 0]);
        looker.collector = watches;
        for _ in 0..2 {
            let watched = looker.look().await.unwrap();
            assert_eq!(watched.groups.len(), 1);
            assert!(watched.heard_at >= Some(watched.began));
        }
        assert_eq!(told(), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_with_an_empty_name_is_passed_over_and_told_of_once() {
        let (lines, _guard) = logged();
        let second = Duration::from_secs(1);
        let (_cluster, client) = in_memory(2).await;
        commit(&client, "", 0, 0).await;
        assert_eq!(client.groups().list().await.unwrap().groups.len(), 1);
        let mut looker = looker(&client, ".*");
        for _ in 0..2 {
            tokio::time::sleep(second).await;
            let seen = looker.look().await.unwrap();
            assert!(seen.groups.is_empty());
            assert_eq!(seen.heard_at, Some(seen.began), "there is nothing to hear");
        }
        assert_eq!([lines("passed over"), lines("cannot be watched")], [1, 0]);
    }
}
