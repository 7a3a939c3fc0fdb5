//! The task that looks at the lag of all its groups, round after round.

use crate::brokers::Brokers;
use crate::collect::{Asked, Pace, Resting, Standing, collect};
use crate::settings::REFRESH_MIN;
use crate::snapshot::Snapshot;
use crate::watch::Watch;
use fastrand::Rng;
use ottla_partitioner::{PlanReader, plan_channel};
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How many new groups may wait to be taken in. Calls of `start` fill it; a further one waits until
/// the round that is under way is over.
const NEW_WATCHES_MAX: usize = 16;

/// The shortest and the longest a round may take before what has not answered counts as unknown.
const ROUND_MIN: Duration = Duration::from_secs(1);
const ROUND_MAX: Duration = Duration::from_secs(10);

/// How far an interval may differ from the configured one, so that producers that began together do
/// not choose by the same figures together.
const JITTER: f64 = 0.25;

/// Looks at the lag of any number of groups of one cluster, all in the same round: one request to a
/// coordinator and two to a leader serve them all. Clones share the task; it ends when no clone, no
/// [`Lag`](crate::Lag) and no plan of it is left.
#[derive(Debug, Clone)]
pub struct Collector {
    new: mpsc::Sender<Watch>,
    refresh: Duration,
}

/// The reading ends of a new watch.
pub(crate) struct Watching {
    pub(crate) plan: PlanReader,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Collector {
    /// Starts the task. `refresh` is the time between two rounds, each time up to a quarter shorter
    /// or longer as `seed` has it.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn start(cluster: ottla_wire::Cluster, refresh: Duration, seed: u64) -> Self {
        Self::spawn(cluster, refresh, seed)
    }

    pub(crate) fn spawn<B: Brokers>(brokers: B, refresh: Duration, seed: u64) -> Self {
        let refresh = refresh.max(REFRESH_MIN);
        let (new, incoming) = mpsc::channel(NEW_WATCHES_MAX);
        let task = Task {
            brokers,
            refresh,
            rng: Rng::with_seed(seed),
            incoming,
            watches: Vec::new(),
            resting: Resting::default(),
        };
        tokio::spawn(task.run());
        Self { new, refresh }
    }

    /// The time between two rounds.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    /// Hands a new watch to the task and waits for its first round.
    pub(crate) async fn watch(&self, group: Arc<str>, topics: Vec<Arc<str>>) -> Result<Watching> {
        let (publisher, plan) = plan_channel();
        let taken_at = Instant::now().into_std();
        let empty = Snapshot::new(Arc::clone(&group), taken_at, &[], None);
        let (sender, mut snapshots) = watch::channel(Arc::new(empty));
        let watch = Watch::new(Asked { group, topics }, self.refresh, publisher, sender);
        let ended = |()| Error::new(ErrorKind::Closed, "the lag collector has ended");
        self.new.send(watch).await.map_err(|_| ended(()))?;
        snapshots.changed().await.map_err(|_| ended(()))?;
        Ok(Watching { plan, snapshots })
    }
}

struct Task<B> {
    brokers: B,
    refresh: Duration,
    rng: Rng,
    incoming: mpsc::Receiver<Watch>,
    watches: Vec<Watch>,
    resting: Resting,
}

impl<B: Brokers> Task<B> {
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
        let deadline = Instant::now() + ROUND_MIN;
        self.brokers.watch_topics(watch.topics(), deadline).await;
        self.watches.push(watch);
    }

    fn drop_unwanted(&mut self) {
        let brokers = &self.brokers;
        self.watches.retain(|watch| {
            let wanted = watch.is_wanted();
            if !wanted {
                brokers.unwatch_topics(watch.topics());
            }
            wanted
        });
    }

    async fn round(&mut self, began: Instant) -> Round {
        // Stamped before anything is asked, so that age is never understated.
        let taken_at = began.into_std();
        let questions = self.watches.iter().map(|watch| watch.question(taken_at));
        let questions: Vec<Option<Asked>> = questions.collect();
        let asked: Vec<Asked> = questions.iter().flatten().cloned().collect();
        if asked.is_empty() {
            return Round::Done;
        }
        let pace = Pace {
            deadline: began + self.refresh.clamp(ROUND_MIN, ROUND_MAX),
            refresh: self.refresh,
        };
        let found = collect(&self.brokers, &asked, pace, &mut self.resting).await;
        if found.iter().any(|found| found.standing == Standing::Closed) {
            return Round::Last;
        }
        let view = self.brokers.view();
        let answered = self.watches.iter_mut().zip(&questions);
        let answered = answered.filter(|(_, question)| question.is_some());
        for ((watch, _), found) in answered.zip(&found) {
            watch.take(taken_at, found, &view);
        }
        Round::Done
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
