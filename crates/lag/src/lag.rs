//! The lag of one group, as a user holds it.

use crate::collector::{Collector, Watching, kafka_source};
use crate::fleet::{Store, fleet_source};
use crate::health::HealthScorer;
use crate::joint::Steered;
use crate::pattern::Wanted;
use crate::settings::{Options, REFRESH};
use crate::snapshot::Snapshot;
use crate::source::Origin;
use ottla_partitioner::{Counters, Explanation, KeyPolicy, PlanReader};
use ottla_proto::{Error, ErrorKind, Result};
use ottla_wire::Cluster;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Watches the lag of one group, or of several that read the same, in some topics. Clones share the watch; it goes on while one of
/// them, or a plan of it, is alive.
#[derive(Debug, Clone)]
pub struct Lag {
    group: Arc<str>,
    plan: PlanReader,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    others: Vec<watch::Receiver<Arc<Snapshot>>>,
}

impl Lag {
    /// Begins to describe what to watch; ends with [`LagBuilder::start`].
    pub fn builder(cluster: Cluster, group: impl Into<Arc<str>>) -> LagBuilder {
        LagBuilder {
            source: Source::Own(cluster),
            group: group.into(),
            topics: Vec::new(),
            patterns: Vec::new(),
            committed: false,
            options: Options::default(),
            refresh: None,
            groups: Vec::new(),
            scorer: None,
            keys: None,
            store: None,
            seed: None,
        }
    }

    /// The same with a collector that watches other groups of the cluster too.
    pub fn with_collector(collector: &Collector, group: impl Into<Arc<str>>) -> LagBuilder {
        LagBuilder {
            source: Source::Shared(collector.clone()),
            group: group.into(),
            topics: Vec::new(),
            patterns: Vec::new(),
            committed: false,
            options: Options::default(),
            refresh: None,
            groups: Vec::new(),
            scorer: None,
            keys: None,
            store: None,
            seed: None,
        }
    }

    fn of(groups: Vec<Arc<str>>, watching: Watching) -> Result<Self> {
        let mut snapshots = watching.snapshots.into_iter();
        // There is one for each of the groups, and one group at least.
        let (Some(group), Some(first)) = (groups.into_iter().next(), snapshots.next()) else {
            return Err(Error::new(ErrorKind::State, "no group is watched"));
        };
        Ok(Self {
            group,
            plan: watching.plan,
            snapshots: first,
            others: snapshots.collect(),
        })
    }

    /// The group; the first one if there are several.
    pub fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// The plan for [`LagAware`](ottla_partitioner::LagAware).
    pub fn plan(&self) -> PlanReader {
        self.plan.clone()
    }

    /// The lag of every group as last seen, that of the first one first.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let all = [&self.snapshots].into_iter().chain(&self.others);
        all.map(|of| Arc::clone(&of.borrow())).collect()
    }

    /// The lag as last seen, of the first group if there are several.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Every snapshot as it comes; a slow reader sees the newest only.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Why the partitions of a topic have their shares of new records; `None` for a topic that is
    /// not watched.
    pub fn explain(&self, topic: &str) -> Option<Explanation> {
        self.plan.explain(topic)
    }

    /// Where the last figures come from, and whether a store that a fleet shares fails us.
    pub fn origin(&self) -> Origin {
        self.snapshots.borrow().origin
    }

    /// What was chosen so far by all producers that use the plan.
    pub fn counters(&self) -> Counters {
        self.plan.counters()
    }
}

#[derive(Debug)]
enum Source {
    Own(Cluster),
    Shared(Collector),
}

/// Describes what to watch.
#[derive(Debug)]
#[must_use = "nothing is watched until `start`"]
pub struct LagBuilder {
    source: Source,
    group: Arc<str>,
    topics: Vec<Arc<str>>,
    patterns: Vec<String>,
    committed: bool,
    options: Options,
    refresh: Option<Duration>,
    groups: Vec<Arc<str>>,
    scorer: Option<Arc<dyn HealthScorer>>,
    keys: Option<KeyPolicy>,
    store: Option<Fleet>,
    seed: Option<u64>,
}

/// The store that a fleet shares.
struct Fleet(Box<dyn Store>);

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

/// A collector of one's own, or one that shares with a fleet.
fn own_collector(
    cluster: Cluster,
    store: Option<Box<dyn Store>>,
    refresh: Duration,
    look_max: Duration,
    seed: u64,
) -> Collector {
    let Some(store) = store else {
        return Collector::with_patience(kafka_source(cluster), refresh, look_max, seed);
    };
    // Brokers too old to name their cluster share a store with their like only.
    let name = cluster.view().cluster_id.clone();
    let name = name.map_or_else(|| "-".to_owned(), |name| name.to_string());
    let source = fleet_source(kafka_source(cluster), store, name);
    Collector::with_patience(source, refresh, look_max, seed)
}

impl LagBuilder {
    /// The topics to watch; may be called repeatedly.
    pub fn topics<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Topics by pattern, beside those by name: a regular expression that must match the whole name.
    /// Topics that come to be are taken in within ten seconds. Kafka's own topics never match.
    pub fn topics_matching(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Every topic in which the group has committed an offset, beside those by name and pattern.
    /// Topics in which it begins to are taken in within ten seconds.
    pub fn topics_committed(mut self) -> Self {
        self.committed = true;
        self
    }

    /// How often to look, each time up to a quarter sooner or later; a second unless set. Keep it at
    /// a third of the interval at which the group commits or below, or far above it. A collector
    /// that is shared keeps its own interval.
    #[doc(alias = "lag.refresh.interval.ms")]
    pub fn refresh(mut self, refresh: Duration) -> Self {
        self.refresh = Some(refresh);
        self
    }

    /// Further groups that read the same topics, beside `lag.groups`. Each partition then counts as
    /// its slowest group has it; while one of the groups cannot be steered by, none is.
    #[doc(alias = "lag.groups")]
    pub fn and_groups<T: Into<Arc<str>>>(mut self, groups: impl IntoIterator<Item = T>) -> Self {
        self.groups.extend(groups.into_iter().map(Into::into));
        self
    }

    /// Places keyless records by these scores instead of by drain time:
    /// [`Threshold`](crate::health::Threshold), [`Linear`](crate::health::Linear),
    /// [`DrainScore`](crate::health::DrainScore) or one's own.
    #[doc(alias = "lag.scorer")]
    pub fn scorer(mut self, scorer: impl HealthScorer) -> Self {
        self.scorer = Some(Arc::new(scorer));
        self
    }

    /// How the producers that this plan steers place keyed records; [`KeyPolicy::Keep`].
    #[doc(alias = "lag.key.policy")]
    pub fn keys(mut self, policy: KeyPolicy) -> Self {
        self.keys = Some(policy);
        self
    }

    /// Sets a property of this crate's [`SETTINGS`](crate::SETTINGS) by its name. What is set by a
    /// method of its own wins.
    ///
    /// # Errors
    /// `Config`, naming the property, when it is none of them or its value is out of bounds.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        self.options.set(name, value)?;
        Ok(self)
    }

    /// As [`set`](Self::set), for who holds the builder.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_in_place(&mut self, name: &str, value: &str) -> Result<()> {
        self.options.set(name, value)
    }

    /// Shares the asking with a fleet: of all processes that watch the same topics of a group through
    /// this store one asks the brokers, and the others read what it heard. Whatever is wrong with the
    /// store, this process asks by itself, and [`Lag::origin`] says so. `RedisStore` is one (feature
    /// `redis`), and what the properties `lag.fleet.redis.url` and its companions ask for. A collector
    /// that is shared keeps its own source.
    #[doc(alias = "lag.fleet.redis.url")]
    pub fn fleet(mut self, store: impl Store) -> Self {
        self.store = Some(Fleet(Box::new(store)));
        self
    }

    /// Where the jitter of the interval comes from; the cluster's own seed unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Begins to watch and waits for the first look, at most ten seconds after it has begun. A
    /// group or a topic that is unknown, or that we may not see, is no error: it may come to be.
    ///
    /// # Errors
    /// `Config` without a group, without a topic, or with a pattern that cannot be read; `Closed` when the collector has ended.
    ///
    /// Cancel safety: dropped, it watches nothing.
    pub async fn start(self) -> Result<Lag> {
        if self.group.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "lag needs the name of a consumer group",
            ));
        }
        let wanted = Wanted::new(self.topics, &self.patterns)?.and_committed(self.committed);
        if wanted.is_nothing() {
            let what = format!("lag of the group {} needs at least one topic", self.group);
            return Err(Error::new(ErrorKind::Config, what));
        }
        let options = &self.options;
        let refresh = self.refresh.or(options.refresh()).unwrap_or(REFRESH);
        let mut groups = vec![self.group];
        for group in self.groups.iter().chain(options.groups()) {
            if !groups.contains(group) {
                groups.push(Arc::clone(group));
            }
        }
        let steered = Steered {
            scorer: self.scorer.or_else(|| options.scorer()),
            keys: self.keys.unwrap_or_else(|| options.keys()),
        };
        let collector = match self.source {
            Source::Shared(collector) => collector,
            Source::Own(cluster) => {
                let seed = self.seed.unwrap_or(cluster.settings().seed);
                let store = match self.store {
                    Some(Fleet(store)) => Some(store),
                    None => options.fleet().store()?,
                };
                own_collector(cluster, store, refresh, options.look(), seed)
            }
        };
        let watching = collector.watch(&groups, &wanted, &steered).await?;
        Lag::of(groups, watching)
    }
}
