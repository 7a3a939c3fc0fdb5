//! Where lag figures come from: the brokers themselves, a store that a fleet shares, a metrics
//! server, or the user's own.

use crate::snapshot::TopicOffsets;
use ottla_proto::{Code, Error, ErrorKind, Result};
use ottla_wire::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Gives the offsets of groups, round after round. The collector is its only caller, one call at a
/// time.
///
/// Its answers may be old, and it may fail: what it does not tell is unknown, ages, and in the end
/// steers nothing. It cannot hold up a producer, which reads only what was published last.
pub trait LagSource: Send + 'static {
    /// A watch of these topics begins; returns when the first figures can be had, or at the
    /// deadline. Every call is undone by one [`unwatch_topics`](Self::unwatch_topics), also one whose
    /// future is dropped.
    fn watch_topics<'a>(
        &'a mut self,
        topics: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, ()> {
        let _ = (topics, deadline);
        Box::pin(std::future::ready(()))
    }

    /// A watch of these topics has ended.
    fn unwatch_topics(&mut self, topics: &[Arc<str>]) {
        let _ = topics;
    }

    /// The names of all topics that a pattern may choose from.
    ///
    /// # Errors
    /// Why they cannot be had; the topics that were chosen before stay.
    fn topic_names(&mut self) -> BoxFuture<'_, Result<Vec<Arc<str>>>> {
        Box::pin(std::future::ready(Err(Error::new(
            ErrorKind::Config,
            "this source of lag cannot list topics: name them",
        ))))
    }

    /// The topics in which each of these groups has committed, for watches of whatever that is: one
    /// answer a group, in the order asked. `None` where it cannot be had: the topics that were known
    /// before stay.
    fn committed_topics<'a>(
        &'a mut self,
        groups: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Option<Vec<Arc<str>>>>> {
        let _ = deadline;
        Box::pin(std::future::ready(vec![None; groups.len()]))
    }

    /// Looks at every group once, and tells of each in the order asked; a group that is watched more
    /// than once is asked about more than once. It should be done at `pace.deadline`, and is dropped
    /// a second later: dropping the future must leave the source fit for the next call.
    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>>;
}

/// A group and the topics to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The group.
    pub group: Arc<str>,
    /// Ascending, each once.
    pub topics: Vec<Arc<str>>,
}

/// When a round must be over, and how often there is one.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Taken before the round began: figures that were asked for in it are at least this fresh.
    pub began: Instant,
    /// What has not answered by then counts as unknown.
    pub deadline: Instant,
    /// The time between two rounds, about.
    pub refresh: Duration,
}

/// How a group's coordinator took the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answered.
    Told,
    /// We may not see the group.
    Denied,
    /// It is a share group, which commits no offsets. What stands for them is where it reads on in
    /// each partition, below which every record is done with; what its members have done beyond that
    /// counts as lag still. Known from brokers from 4.1 on, and from the second look on.
    Share,
    /// It could not be asked, or refused with this code.
    Unknown(Option<Code>),
    /// The source was closed: nothing will ever be told again.
    Closed,
}

/// What a round brought for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The group.
    pub group: Arc<str>,
    /// How its coordinator took the question.
    pub standing: Standing,
    /// When the figures were asked for. What is not later than the last time is no news.
    pub taken_at: std::time::Instant,
    /// Where the figures come from.
    pub origin: Origin,
    /// One for each topic asked for, in that order.
    pub topics: Vec<TopicOffsets>,
}

impl Found {
    /// Nothing but the reason why nothing is known.
    pub fn nothing(asked: &Asked, standing: Standing, taken_at: std::time::Instant) -> Self {
        let topics = asked.topics.iter().map(TopicOffsets::nothing);
        Self {
            group: Arc::clone(&asked.group),
            standing,
            taken_at,
            origin: Origin::Asked,
            topics: topics.collect(),
        }
    }
}

/// Where a group's figures come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// We asked ourselves.
    #[default]
    Asked,
    /// Another process of the fleet asked and shared what it heard.
    Shared,
    /// We asked ourselves because the store that the fleet shares failed us.
    Degraded(Trouble),
}

/// What is wrong with the store that a fleet shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It cannot be reached.
    Unreachable,
    /// It does not answer in time.
    Slow,
    /// It answers with an error: no memory left, no permission, a key of another type.
    Refused,
    /// It holds what is not ours to read.
    Garbage,
    /// Whoever collects for the fleet has stopped to do so.
    Stale,
}

impl Trouble {
    /// Every trouble, in the order of the counters.
    pub const ALL: [Self; 5] = [
        Self::Unreachable,
        Self::Slow,
        Self::Refused,
        Self::Garbage,
        Self::Stale,
    ];

    /// The name in output and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Slow => "slow",
            Self::Refused => "refused",
            Self::Garbage => "garbage",
            Self::Stale => "stale",
        }
    }
}

impl Origin {
    /// The name in output and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Shared => "shared",
            Self::Degraded(trouble) => trouble.name(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degraded(trouble) => {
                write!(f, "asked (the shared store is {})", trouble.name())
            }
            origin => f.write_str(origin.name()),
        }
    }
}
