//! The task that looks at the lag of all its groups, round after round.

use crate::collect::Collected;
use crate::figures::{CollectorFigures, Counts};
use crate::history::Growths;
use crate::joint::{Joint, Steered};
use crate::pattern::Wanted;
use crate::settings::{LOOK_MAX, REFRESH_MIN};
use crate::snapshot::Snapshot;
use crate::source::{Asked, Found, LagSource, Pace, Standing};
use crate::watch::Watch;
use fastrand::Rng;
use ottla_partitioner::{PlanReader, plan_channel};
use ottla_proto::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How many new groups may wait to be taken in. Calls of `start` fill it; a further one waits until
/// the round that is under way is over. So many, because an exporter finds all groups of a cluster at
/// once, and each round asks about every group that is there already.
const NEW_WATCHES_MAX: usize = 256;

/// How long looking for topics may hold up a round.
const LOOK_FOR_TOPICS: Duration = Duration::from_secs(1);

/// How much longer than it was told a source may take before it is given up: one that ends at its
/// deadline must still be heard.
const SOURCE_GRACE: Duration = Duration::from_secs(1);

/// How far an interval may differ from the configured one, so that producers that began together do
/// not choose by the same figures together.
const JITTER: f64 = 0.25;

/// How often topics are chosen anew, by pattern or by commit. A topic that comes to be is unknown for
/// that long.
const CHOOSE: Duration = Duration::from_secs(10);

/// Looks at the lag of any number of groups of one cluster, all in the same round: one request to a
/// coordinator and three to a leader serve them all. Clones share the task; it ends when no clone, no
/// [`Lag`](crate::Lag) and no plan of it is left.
#[derive(Debug, Clone)]
pub struct Collector {
    new: mpsc::Sender<Watch>,
    refresh: Duration,
    counts: Arc<Counts>,
}

/// The reading ends of a new watch.
pub(crate) struct Watching {
    pub(crate) plan: PlanReader,
    /// One a group.
    pub(crate) snapshots: Vec<watch::Receiver<Arc<Snapshot>>>,
}

impl Collector {
    /// Starts the task, which asks the brokers. `refresh` is the time between two rounds, each time
    /// up to a quarter shorter or longer as `seed` has it.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn start(cluster: ottla_wire::Cluster, refresh: Duration, seed: u64) -> Self {
        Self::with_source(kafka_source(cluster), refresh, seed)
    }

    /// The same with another source of figures: a store that a fleet shares, a metrics server, or
    /// the user's own.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn with_source(source: impl LagSource, refresh: Duration, seed: u64) -> Self {
        Self::with_patience(source, refresh, LOOK_MAX, seed)
    }

    /// The same with another limit to what one look may take.
    pub(crate) fn with_patience(
        source: impl LagSource,
        refresh: Duration,
        look_max: Duration,
        seed: u64,
    ) -> Self {
        let refresh = refresh.max(REFRESH_MIN);
        let (new, incoming) = mpsc::channel(NEW_WATCHES_MAX);
        let counts = Arc::new(Counts::default());
        let task = Task {
            source,
            refresh,
            look_max,
            rng: Rng::with_seed(seed),
            incoming,
            watches: Vec::new(),
            growths: Growths::default(),
            counts: Arc::clone(&counts),
            chosen_at: None,
        };
        tokio::spawn(task.run());
        Self {
            new,
            refresh,
            counts,
        }
    }

    /// The time between two rounds.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    /// What the task has done so far.
    pub fn figures(&self) -> CollectorFigures {
        self.counts.figures()
    }

    /// Hands the watches of these groups, which share a plan, to the task and waits for the first
    /// round of each.
    pub(crate) async fn watch(
        &self,
        groups: &[Arc<str>],
        wanted: &Wanted,
        steered: &Steered,
    ) -> Result<Watching> {
        let (publisher, plan) = plan_channel();
        let began = Instant::now().into_std();
        let ended = || Error::new(ErrorKind::Closed, "the lag collector has ended");
        let shares = Joint::shares(publisher, self.refresh, steered, groups.len());
        let mut snapshots = Vec::with_capacity(groups.len());
        for (group, share) in groups.iter().zip(shares) {
            let empty = Snapshot::new(Arc::clone(group), began, &[], None);
            let (sender, receiver) = watch::channel(Arc::new(empty));
            let (group, wanted) = (Arc::clone(group), wanted.clone());
            let watch = Watch::new(group, wanted, self.refresh, share, sender);
            self.new.send(watch).await.map_err(|_| ended())?;
            snapshots.push(receiver);
        }
        for receiver in &mut snapshots {
            receiver.changed().await.map_err(|_| ended())?;
        }
        Ok(Watching { plan, snapshots })
    }
}

/// The brokers themselves as a source of lag: what a collector asks unless told otherwise, and what a
/// [`LagSource`] of one's own may build upon.
pub fn kafka_source(cluster: ottla_wire::Cluster) -> impl LagSource {
    Collected::new(cluster)
}

struct Task<S> {
    source: S,
    refresh: Duration,
    /// The longest a round may take before what has not answered counts as unknown.
    look_max: Duration,
    rng: Rng,
    incoming: mpsc::Receiver<Watch>,
    watches: Vec<Watch>,
    growths: Growths,
    counts: Arc<Counts>,
    /// When topics were last chosen, by pattern or by commit; `None` when a new watch waits for it.
    chosen_at: Option<Instant>,
}

impl<S: LagSource> Task<S> {
    async fn run(mut self) {
        let mut next_round = Instant::now();
        loop {
            tokio::select! {
                biased;
                // A new group does not wait for the next round.
                new = self.incoming.recv(), if !self.incoming.is_closed() => match new {
                    Some(watch) => self.add(watch).await,
                    None => continue,
                },
                () = sleep_until(next_round) => {}
            }
            while let Ok(watch) = self.incoming.try_recv() {
                self.add(watch).await;
            }
            self.drop_unwanted();
            if self.watches.is_empty() && self.incoming.is_closed() {
                return;
            }
            self.choose().await;
            let began = Instant::now();
            if self.round(began).await == Round::Last {
                return;
            }
            let factor = 1.0 - JITTER + 2.0 * JITTER * self.rng.f64();
            // From begin to begin, but never without a pause: a round can take longer than that.
            next_round = (began + self.refresh.mul_f64(factor)).max(Instant::now() + REFRESH_MIN);
        }
    }

    async fn add(&mut self, watch: Watch) {
        self.watch_topics(watch.topics()).await;
        if watch.has_patterns() || watch.wants_committed() {
            self.chosen_at = None;
        }
        self.watches.push(watch);
    }

    async fn watch_topics(&mut self, topics: &[Arc<str>]) {
        let deadline = Instant::now() + LOOK_FOR_TOPICS;
        let watch = self.source.watch_topics(topics, deadline);
        // Whether their first figures can be had or not: looks go on.
        let _ = timeout_at(deadline + SOURCE_GRACE, watch).await;
    }

    fn drop_unwanted(&mut self) {
        let source = &mut self.source;
        self.watches.retain(|watch| {
            let wanted = watch.is_wanted();
            if !wanted {
                source.unwatch_topics(watch.topics());
            }
            wanted
        });
    }

    /// Chooses topics by pattern and by commit, where any watch wants that, once in a while.
    async fn choose(&mut self) {
        let now = Instant::now();
        let is_due = self.chosen_at.is_none_or(|at| now >= at + CHOOSE);
        let chooses = |watch: &Watch| watch.has_patterns() || watch.wants_committed();
        if !is_due || !self.watches.iter().any(chooses) {
            return;
        }
        self.chosen_at = Some(now);
        let names = self.topic_names().await;
        let committed = self.committed_topics().await;
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for watch in self.watches.iter_mut().filter(|watch| chooses(watch)) {
            let committed = committed.get(watch.group()).cloned().flatten();
            let names = names.as_deref().filter(|_| watch.has_patterns());
            let committed = committed.filter(|_| watch.wants_committed());
            let (begun, ended) = watch.choose(names, committed);
            new.extend(begun);
            gone.extend(ended);
        }
        if !new.is_empty() {
            self.watch_topics(&new).await;
        }
        self.source.unwatch_topics(&gone);
    }

    /// All topics there are, if any watch has a pattern for them.
    async fn topic_names(&mut self) -> Option<Vec<Arc<str>>> {
        if !self.watches.iter().any(Watch::has_patterns) {
            return None;
        }
        match timeout(LOOK_FOR_TOPICS, self.source.topic_names()).await {
            Ok(Ok(names)) => Some(names),
            Ok(Err(error)) => {
                tracing::warn!(%error, "topics cannot be listed: those chosen before stay");
                None
            }
            Err(_) => None,
        }
    }

    /// The topics in which groups have committed, of those watches that want it.
    async fn committed_topics(&mut self) -> BTreeMap<Arc<str>, Option<Vec<Arc<str>>>> {
        let watches = self.watches.iter().filter(|watch| watch.wants_committed());
        let mut groups: Vec<Arc<str>> = watches.map(|watch| Arc::clone(watch.group())).collect();
        groups.sort();
        groups.dedup();
        if groups.is_empty() {
            return BTreeMap::new();
        }
        let deadline = Instant::now() + self.refresh.clamp(LOOK_FOR_TOPICS, LOOK_MAX);
        let topics = self.source.committed_topics(&groups, deadline);
        let topics = timeout_at(deadline + SOURCE_GRACE, topics).await;
        groups.into_iter().zip(topics.unwrap_or_default()).collect()
    }

    async fn round(&mut self, began: Instant) -> Round {
        let questions = self.watches.iter();
        let questions = questions.map(|watch| watch.question(began.into_std()));
        let questions: Vec<Option<Asked>> = questions.collect();
        let asked: Vec<Asked> = questions.iter().flatten().cloned().collect();
        if asked.is_empty() {
            return Round::Done;
        }
        let pace = Pace {
            began,
            deadline: began + self.look_max,
            refresh: self.refresh,
        };
        let found = self.look(&asked, pace).await;
        if found.iter().any(|found| found.standing == Standing::Closed) {
            return Round::Last;
        }
        self.counts.note(&found);
        self.growths.note(&found);
        let answered = self.watches.iter_mut().zip(&questions);
        let answered = answered.filter(|(_, question)| question.is_some());
        for ((watch, question), found) in answered.zip(&found) {
            // A source of the user's own may mix up the order.
            if question
                .as_ref()
                .is_some_and(|asked| asked.group == found.group)
            {
                watch.take(began.into_std(), found, &self.growths);
            }
        }
        Round::Done
    }
}

impl<S: LagSource> Task<S> {
    /// What the source tells; nothing when it does not come back.
    async fn look(&mut self, asked: &[Asked], pace: Pace) -> Vec<Found> {
        let look = self.source.look(asked, pace);
        if let Ok(found) = timeout_at(pace.deadline + SOURCE_GRACE, look).await {
            return found;
        }
        tracing::warn!("the source of lag figures does not come back in time: nothing is known");
        let unknown = Standing::Unknown(None);
        let began = pace.began.into_std();
        let nothing = asked.iter().map(|one| Found::nothing(one, unknown, began));
        nothing.collect()
    }
}

/// Whether there is another round.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    Done,
    /// The cluster was closed.
    Last,
}

#[cfg(test)]
mod tests;
