//! One round of collecting from the brokers: what groups committed, then where the logs end.
//!
//! In this order, so that a committed offset is never newer than the end it is held against. So a
//! round is two round trips in sequence, however many groups and partitions there are.

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
use commits::{Commits, commits};
pub(crate) use ends::{Ends, ends, is_stale};
use kinds::Kinds;
use ottla_proto::{ClusterView, Result};
use ottla_wire::BoxFuture;
pub(crate) use resting::Resting;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
    brokers: B,
    resting: Resting,
    kinds: Kinds,
}

impl<B> Collected<B> {
    pub(crate) fn new(brokers: B) -> Self {
        Self {
            brokers,
            resting: Resting::default(),
            kinds: Kinds::default(),
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
            committed::committed(&self.brokers, &view, groups, deadline).await
        })
    }

    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        Box::pin(self.collect(asked, pace))
    }
}

impl<B: Brokers> Collected<B> {
    /// Asks for everything once. Whatever does not answer in time is unknown, and holds up nothing
    /// else.
    async fn collect(&mut self, asked: &[Asked], pace: Pace) -> Vec<Found> {
        let brokers = &self.brokers;
        let view = brokers.view();
        let now = Instant::now();
        // A coordinator that hangs must leave the leaders time to answer.
        let halfway = now + pace.deadline.saturating_duration_since(now) / 2;
        let mut commits = commits(brokers, &view, asked, halfway).await;
        let (ends, ()) = tokio::join!(
            ends(brokers, &view, asked, pace, &mut self.resting),
            self.kinds.learn(brokers, &commits, pace),
        );
        let found = asked.iter().map(|asked| {
            let mut commits = commits.remove(&asked.group).unwrap_or_default();
            if self.kinds.is_share(&asked.group) {
                commits.standing = Standing::Share;
            }
            found(&view, asked, &commits, &ends, pace)
        });
        found.collect()
    }
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
