//! One round of collecting from the brokers: what groups committed, then where the logs end.
//!
//! In this order, so that a committed offset is never newer than the end it is held against. So a
//! round is two round trips in sequence, however many groups and partitions there are, and three with
//! share groups.

mod commits;
mod committed;
mod ends;
mod kinds;
mod resting;
#[cfg(test)]
mod tests;
mod verdict;

use crate::brokers::Brokers;
use crate::snapshot::{Offsets, TopicOffsets};
use crate::source::{Asked, Found, LagSource, Origin, Pace, Standing};
use commits::{Commits, Question};
pub(crate) use ends::{Ends, ends, is_stale};
use kinds::Kinds;
pub(crate) use kinds::is_share;
use ottla_proto::{BrokerId, ClusterView, Result};
use ottla_wire::BoxFuture;
use ottla_wire::api::list_offsets;
use resting::{PATIENCE_MAX, Role};
pub(crate) use resting::{Resting, patience_min};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What is known of each group.
type ByGroup = BTreeMap<Arc<str>, Commits>;

/// How many brokers, or coordinator look-ups, are waited for at the same time.
const ASKED_AT_ONCE_MAX: usize = 16;

/// How often what may be asked again is asked within one round.
const ATTEMPTS: usize = 2;

/// How long to wait before that, at most; Kafka's `retry.backoff.ms`.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The brokers themselves as a source of lag: one OffsetFetch to a coordinator and three
/// ListOffsets to a leader serve all groups.
#[derive(Debug)]
pub(crate) struct Collected<B> {
    brokers: Arc<B>,
    resting: Resting,
    /// Of brokers that rest, and how long each took.
    probes: JoinSet<(Role, BrokerId, Option<Duration>)>,
    kinds: Kinds,
    told: committed::Told,
}

impl<B> Collected<B> {
    pub(crate) fn new(brokers: B) -> Self {
        Self {
            brokers: Arc::new(brokers),
            resting: Resting::default(),
            probes: JoinSet::new(),
            kinds: Kinds::default(),
            told: committed::Told::new(),
        }
    }
}

impl<B: Brokers> LagSource for Collected<B> {
    fn watch_topics<'a>(
        &'a mut self,
        topics: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, ()> {
        Box::pin(self.brokers.watch_topics(topics, deadline))
    }

    fn unwatch_topics(&mut self, topics: &[Arc<str>]) {
        self.brokers.unwatch_topics(topics);
    }

    fn topic_names(&mut self) -> BoxFuture<'_, Result<Vec<Arc<str>>>> {
        Box::pin(self.brokers.topic_names())
    }

    fn committed_topics<'a>(
        &'a mut self,
        groups: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Option<Vec<Arc<str>>>>> {
        Box::pin(async move {
            let view = self.brokers.view();
            let (brokers, resting, last) = (&*self.brokers, &self.resting, &self.told);
            let ask = async |question, groups: &[Arc<str>]| {
                let asked = committed::committed;
                asked(brokers, &view, question, groups, last, resting, deadline).await
            };
            let mut told = ask(Question::Commits, groups).await;
            let is_share = |group: &&Arc<str>| self.kinds.is_share(group);
            let shares: Vec<Arc<str>> = groups.iter().filter(is_share).cloned().collect();
            if !shares.is_empty() {
                let mut of_shares = ask(Question::Shares, &shares).await.into_iter();
                for (group, told) in groups.iter().zip(&mut told) {
                    if is_share(&group) {
                        *told = of_shares.next().flatten();
                    }
                }
            }
            self.remember(groups, &told);
            told
        })
    }

    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        Box::pin(self.collect(asked, pace))
    }
}

impl<B: Brokers> Collected<B> {
    /// Keeps what groups told of their topics; of one that did not tell, what it told before.
    fn remember(&mut self, groups: &[Arc<str>], told: &[Option<Vec<Arc<str>>>]) {
        let mut last = std::mem::take(&mut self.told);
        for (group, told) in groups.iter().zip(told) {
            if let Some(topics) = told.clone().or_else(|| last.remove(group)) {
                self.told.insert(Arc::clone(group), topics);
            }
        }
    }

    /// Asks for everything once. Whatever does not answer in time is unknown, and holds up nothing
    /// else.
    async fn collect(&mut self, asked: &[Asked], pace: Pace) -> Vec<Found> {
        self.probe(pace);
        let brokers = &*self.brokers;
        let view = brokers.view();
        let resting = &mut self.resting;
        let groups = groups(asked);
        let question = Question::Commits;
        let commits = commits::commits(brokers, &view, question, &groups, pace, resting).await;
        // Share groups were asked for commits too, at no cost, so that one made anew as another type
        // is noticed. Where they read on is asked before the ends, as commits are.
        let shares = groups.iter().filter(|one| self.kinds.is_share(&one.group));
        let shares: Vec<Asked> = shares.cloned().collect();
        let question = Question::Shares;
        let shares = commits::commits(brokers, &view, question, &shares, pace, resting).await;
        let (ends, ()) = tokio::join!(
            ends(brokers, &view, asked, pace, &mut self.resting),
            self.kinds.learn(brokers, &commits, pace),
        );
        let commits = self.with_shares(commits, shares);
        let unknown = Commits::default();
        let found = asked.iter().map(|asked| {
            let commits = commits.get(&asked.group).unwrap_or(&unknown);
            found(&view, asked, commits, &ends, pace)
        });
        let found = found.collect();
        // One whose connection broke has a new one when the next round begins.
        self.probe(pace);
        found
    }

    /// What stands for the commits of each group: of share groups, where they read on.
    fn with_shares(&self, mut commits: ByGroup, mut shares: ByGroup) -> ByGroup {
        for (group, commits) in &mut commits {
            if self.kinds.is_share(group) {
                let hidden = std::mem::take(commits).hidden();
                *commits = shares.remove(group).unwrap_or(hidden);
                commits.standing = Standing::Share;
            }
        }
        commits
    }

    /// Hears what the probes of resting brokers brought, and begins new ones. Rounds do not wait for
    /// them.
    fn probe(&mut self, pace: Pace) {
        let now = Instant::now();
        while let Some(probed) = self.probes.try_join_next() {
            match probed {
                Ok((role, broker, _)) if !self.resting.knows(role, broker) => {}
                Ok((role, broker, Some(took))) => self.resting.probe_answered(role, broker, took),
                Ok((role, broker, None)) => self.resting.failed(role, broker, now, pace.refresh),
                // Only at the end of the runtime.
                Err(_) => {}
            }
        }
        let view = self.brokers.view();
        self.resting
            .keep(|broker| view.brokers.contains_key(&broker));
        for (role, broker) in self.resting.begin_probes(now) {
            let brokers = Arc::clone(&self.brokers);
            self.probes.spawn(async move {
                // About nothing: the cheapest question that every broker answers.
                let question = brokers.list_offsets(broker, list_offsets::Request::default());
                let answer = timeout(PATIENCE_MAX, question).await;
                (
                    role,
                    broker,
                    matches!(answer, Ok(Ok(_))).then(|| now.elapsed()),
                )
            });
        }
    }
}

/// Each group once, with all topics that are asked about for it: a group may be watched more than
/// once, and its coordinator answers for it once.
fn groups(asked: &[Asked]) -> Cow<'_, [Asked]> {
    let mut topics: BTreeMap<&Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
    for one in asked {
        let topics = topics.entry(&one.group).or_default();
        topics.extend(one.topics.iter().cloned());
    }
    if topics.len() == asked.len() {
        return Cow::Borrowed(asked);
    }
    let groups = topics.into_iter().map(|(group, mut topics)| {
        topics.sort();
        topics.dedup();
        let group = Arc::clone(group);
        Asked { group, topics }
    });
    Cow::Owned(groups.collect())
}

fn found(view: &ClusterView, asked: &Asked, commits: &Commits, ends: &Ends, pace: Pace) -> Found {
    let topics = asked.topics.iter().map(|name| {
        let ends = ends.get(name).map_or(&[][..], Vec::as_slice);
        let told = commits.topic(name);
        let partitions = ends.iter().enumerate().map(|(at, end)| Offsets {
            committed: commits.of(told, at),
            end: *end,
        });
        TopicOffsets {
            topic: Arc::clone(name),
            id: view.topic(name).and_then(|topic| topic.id),
            refused: view.refused.get(name).copied(),
            partitions: partitions.collect(),
        }
    });
    Found {
        group: Arc::clone(&asked.group),
        standing: commits.standing,
        taken_at: pace.began.into_std(),
        origin: Origin::Asked,
        topics: topics.collect(),
    }
}
