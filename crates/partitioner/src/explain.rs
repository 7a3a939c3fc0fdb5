//! What a person wants to know of the choice: why each partition has its share, and what was chosen.

use crate::keys::KeyPolicy;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a partition's consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// There is lag, and nothing is known yet of what the consumer reads: it may be fine.
    Measuring,
    /// What lag there is, commits and a moment's records explain.
    CaughtUp,
    /// More is unread than commits explain, and the committed offset moves.
    Lagging,
    /// More is unread than commits explain, and the committed offset has stood still for longer
    /// than it usually does.
    Stalled,
    /// The committed offset went back.
    Rewound,
    /// The group has no committed offset for the partition.
    NoCommit,
    /// The committed offset lies beyond the end of the log: the topic was made anew or cut, or
    /// somebody committed a number of their own.
    BeyondEnd,
    /// Neither its end nor its committed offset could be had.
    Unknown,
}

impl Status {
    /// The name in output and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measuring => "measuring",
            Self::CaughtUp => "ok",
            Self::Lagging => "lagging",
            Self::Stalled => "stalled",
            Self::Rewound => "rewound",
            Self::NoCommit => "no_commit",
            Self::BeyondEnd => "beyond_end",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a choice was uniform although steering was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// Nothing was published yet.
    NoPlan,
    /// The plan does not speak of this topic.
    UnknownTopic,
    /// The plan is more than a minute old.
    TooOld,
    /// No consumption rate is known yet: the group was only just looked at, or consumes nothing.
    NoRates,
    /// The group has no committed offset in this topic, or does not exist.
    NoCommits,
    /// We may not see the group or the topic.
    Denied,
    /// Every weight is zero.
    NoWeights,
    /// No partition has a leader.
    NoLeader,
    /// Steering is switched off, or only watched.
    Off,
}

impl Fallback {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 9] = [
        Self::NoPlan,
        Self::UnknownTopic,
        Self::TooOld,
        Self::NoRates,
        Self::NoCommits,
        Self::Denied,
        Self::NoWeights,
        Self::NoLeader,
        Self::Off,
    ];

    /// The name in output and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPlan => "no_plan",
            Self::UnknownTopic => "unknown_topic",
            Self::TooOld => "too_old",
            Self::NoRates => "no_rates",
            Self::NoCommits => "no_commits",
            Self::Denied => "denied",
            Self::NoWeights => "no_weights",
            Self::NoLeader => "no_leader",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By what a topic's keyless records are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By the time each partition's consumer needs for what is unread.
    Drain,
    /// By given weights.
    Weighted,
    /// All partitions alike, for this reason.
    Uniform(Fallback),
}

/// One partition's figures behind a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionHealth {
    /// The partition.
    pub partition: i32,
    /// Records not yet committed; `None` when unknown.
    pub lag: Option<u64>,
    /// The part of the lag that the time between commits does not explain, in records.
    pub backlog: Option<f64>,
    /// What its consumer reads, in records a second; `None` until seen.
    pub rate: Option<f64>,
    /// Backlog over rate.
    pub drain_time: Option<Duration>,
    /// The share of new records it should get, 0 to 1.
    pub weight: f64,
    /// How its consumer is doing.
    pub status: Status,
    /// What the weight rests on, in a few words.
    pub reason: &'static str,
    /// Whose figures these are where several groups are watched: the one's that decides here.
    pub group: Option<Arc<str>>,
    /// When they were asked for; earlier than the others' if the partition could not be asked since.
    /// `None` where offsets came without a time.
    pub taken_at: Option<Instant>,
}

/// Why the partitions of a topic have their shares.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The topic.
    pub topic: Arc<str>,
    /// When the figures were asked for.
    pub taken_at: Instant,
    /// By what records are placed.
    pub method: Method,
    /// By partition; may be empty when nothing is known.
    pub partitions: Vec<PartitionHealth>,
    /// How keyed records are placed.
    pub key_policy: KeyPolicy,
    /// How many keys (under the sticky policy) or slots of keys (under the migrating one) are away
    /// from the partition of their hash.
    pub keys_away: usize,
}

/// What was chosen in one topic since it was first planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCounters {
    /// The topic.
    pub topic: Arc<str>,
    /// When the figures of its current plan were asked for.
    pub taken_at: Instant,
    /// Runs steered to each partition.
    pub runs: Vec<u64>,
    /// Records sent to each partition by steered and other keyless runs that have ended.
    pub records: Vec<u64>,
    /// How many keys, or slots of keys, are away from the partition of their hash.
    pub keys_away: usize,
    /// How often a slot of keys has moved, there or back, under the migrating policy.
    pub key_moves: u64,
}

/// What was chosen, by every producer that reads one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By topic, ascending.
    pub topics: Vec<TopicCounters>,
    /// Runs that were placed uniformly, by reason, in the order of [`Fallback::ALL`].
    pub fallbacks: Vec<(Fallback, u64)>,
    /// Runs placed by rates alone because the backlog was known too long ago.
    pub stale_runs: u64,
}
