//! Lag arithmetic: from offsets as brokers tell them to lag as people mean it. Pure.
//!
//! What is unknown stays unknown: it is `None`, never 0 and never -1.

use crate::source::{Origin, Standing};
use ottla_proto::{Code, TopicId};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long the last known figures of a partition that cannot be asked are still shown, with
/// their age. The same minute after which a plan steers nothing any more.
pub const CARRIED_MAX: Duration = Duration::from_secs(60);

/// For so long it is not believed that a group has no commit where it had one. A broker that has just
/// become its coordinator can say so for a moment: from Kafka 4.0 on it tells what is below its log's
/// high watermark, which it may have to learn anew. As long as `replica.lag.time.max.ms`, after which
/// a broker no longer waits for a follower.
const UNSAID_MAX: Duration = Duration::from_secs(30);

/// What the group's coordinator said of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The group reads on from this offset.
    At(i64),
    /// The group has no committed offset there.
    Nothing,
    /// It could not be asked, or refused.
    Unknown(Option<Code>),
}

/// What the partition's leader said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The high watermark; the log start where that was told too.
    At {
        /// Exclusive end of what a consumer can read.
        high_watermark: i64,
        /// The first offset that is still there.
        log_start: Option<i64>,
        /// Exclusive end of what a consumer of committed records can read: where the first
        /// transaction begins that is still open.
        last_stable: Option<i64>,
    },
    /// It could not be asked, or refused.
    Unknown(Option<Code>),
}

impl End {
    pub(crate) fn high_watermark(self) -> Option<i64> {
        match self {
            Self::At { high_watermark, .. } => (high_watermark >= 0).then_some(high_watermark),
            Self::Unknown(_) => None,
        }
    }
}

/// What was collected of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// From the coordinator.
    pub committed: Committed,
    /// From the leader.
    pub end: End,
}

/// What was collected of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Name.
    pub topic: Arc<str>,
    /// Id, where the brokers have ids.
    pub id: Option<TopicId>,
    /// Why the topic as a whole is not to be seen, if the brokers said so.
    pub refused: Option<Code>,
    /// By partition number from 0.
    pub partitions: Vec<Offsets>,
}

impl TopicOffsets {
    /// A topic of which nothing is known.
    pub fn nothing(topic: &Arc<str>) -> Self {
        Self {
            topic: Arc::clone(topic),
            id: None,
            refused: None,
            partitions: Vec::new(),
        }
    }

    /// Why the topic is not to be seen, as metadata says or every one of its partitions: metadata
    /// may be from before.
    pub(crate) fn refusal(&self) -> Option<Code> {
        let denied = Code::TOPIC_AUTHORIZATION_FAILED;
        let refuses = |offsets: &Offsets| {
            offsets.committed == Committed::Unknown(Some(denied))
                || offsets.end == End::Unknown(Some(denied))
        };
        let all = !self.partitions.is_empty() && self.partitions.iter().all(refuses);
        self.refused.or(all.then_some(denied))
    }
}

/// What a lag figure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagStatus {
    /// End and committed offset are known and fit together.
    Known,
    /// The group has no committed offset.
    NoCommit,
    /// The committed offset lies beyond the end: the topic was made anew or cut, or somebody
    /// committed a number of their own, which brokers accept. The lag is unknown.
    BeyondEnd,
    /// A broker could not be asked or refused, with its code if it gave one.
    Unknown(Option<Code>),
}

impl fmt::Display for LagStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known"),
            Self::NoCommit => f.write_str("no commit"),
            Self::BeyondEnd => f.write_str("commit beyond the end"),
            Self::Unknown(None) => f.write_str("unknown"),
            Self::Unknown(Some(code)) => write!(f, "unknown ({code})"),
        }
    }
}

/// How far a group is behind in time: how long ago the record that it reads next was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLag {
    /// Worked out from when the log had which end.
    About(Duration),
    /// The record was there when we first looked, this long ago.
    AtLeast(Duration),
}

impl TimeLag {
    /// The time, whether it is all or the least.
    pub fn duration(self) -> Duration {
        match self {
            Self::About(time) | Self::AtLeast(time) => time,
        }
    }
}

/// How a group gets on in a partition, as Burrow calls it. A committed offset as brokers tell it
/// carries no time, so Burrow's STOP and STALL are one here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Caught up within the last minute, or catching up. A lag of 1 is none: it can be the marker
    /// of a transaction, which nobody reads.
    Ok,
    /// It commits, and its lag has only grown for a minute.
    Behind,
    /// It has unread records and has not committed for a minute.
    Stalled,
    /// Its committed offset went back within the last minute and has not recovered.
    Rewound,
    /// It has read all that it may: an open transaction holds back the rest.
    Blocked,
    /// It has unread records, and was not yet watched for a minute: whether it gets on cannot be
    /// told so soon. Burrow says OK meanwhile, with less than 1 as `complete`.
    Waiting,
    /// Its lag is unknown, or it was looked at only once.
    #[default]
    Unknown,
}

impl Progress {
    /// Every one, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Behind,
        Self::Stalled,
        Self::Rewound,
        Self::Blocked,
        Self::Waiting,
        Self::Unknown,
    ];

    /// How bad it is, for the worst of many: what says nothing counts least.
    fn severity(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Ok => 1,
            Self::Waiting => 2,
            Self::Blocked => 3,
            Self::Behind => 4,
            Self::Rewound => 5,
            Self::Stalled => 6,
        }
    }

    /// Burrow's word where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Behind => "WARN",
            Self::Stalled => "STALL",
            Self::Rewound => "REWIND",
            Self::Blocked => "BLOCKED",
            Self::Waiting => "WAITING",
            Self::Unknown => "NOTFOUND",
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Behind => "falling behind",
            Self::Stalled => "stalled",
            Self::Rewound => "rewound",
            Self::Blocked => "blocked by an open transaction",
            Self::Waiting => "not watched long enough",
            Self::Unknown => "unknown",
        })
    }
}

/// One partition's lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// The high watermark: steering and lag use it also for groups that read committed records
    /// only, because one open transaction holds the last stable offset still and would show lag 0.
    pub end: Option<i64>,
    /// Where the group reads on.
    pub committed: Option<i64>,
    /// The first offset that is still there.
    pub log_start: Option<i64>,
    /// Where the first open transaction begins, or the end: what a group that reads committed
    /// records only can see. Shown, never steered by.
    pub last_stable: Option<i64>,
    /// Records between the committed offset and the end; `None` when unknown.
    pub lag: Option<u64>,
    /// Records that were deleted before the group read them.
    pub lost: u64,
    /// What the figures rest on.
    pub status: LagStatus,
    /// How far the group is behind in time; `None` when unknown, and from a single look.
    pub time_lag: Option<TimeLag>,
    /// How the group gets on; unknown from a single look.
    pub progress: Progress,
    /// When the figures were asked for; earlier than the snapshot's own time if this partition
    /// could not be asked then, or nothing was heard of it. End, log start and last stable offset
    /// may be newer.
    pub taken_at: Instant,
}

impl PartitionLag {
    /// How old the figures are. Never understated: it counts from before the brokers were asked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.taken_at)
    }

    /// How many records may still be deleted from the log before the group loses one: from the log
    /// start to the committed offset. 0 when it has lost some.
    pub fn retention_margin(&self) -> Option<u64> {
        let margin = self.committed?.saturating_sub(self.log_start?).max(0);
        u64::try_from(margin).ok()
    }

    /// The lag up to the last stable offset: what a group that reads committed records only could
    /// read now. Never to be steered by: an open transaction makes it 0.
    pub fn stable_lag(&self) -> Option<u64> {
        self.lag?;
        let from = self.committed?.max(self.log_start.unwrap_or(0));
        u64::try_from(self.last_stable?.saturating_sub(from).max(0)).ok()
    }
}

/// One topic's lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLag {
    /// Name.
    pub topic: Arc<str>,
    /// Id, where the brokers have ids. A topic made anew under the same name has another, and
    /// nothing that was known of the old one holds for it.
    pub id: Option<TopicId>,
    /// Why the topic is not to be seen, if the brokers said so. What was known of it before is carried
    /// on for [`CARRIED_MAX`].
    pub refused: Option<Code>,
    /// By partition number from 0.
    pub partitions: Vec<PartitionLag>,
}

impl TopicLag {
    /// The sum of the known lags; `None` if none is known.
    pub fn lag(&self) -> Option<u64> {
        let known = self.partitions.iter().filter_map(|p| p.lag);
        known.fold(None, |sum, lag| {
            Some(sum.unwrap_or(0u64).saturating_add(lag))
        })
    }
}

/// A group's lag at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The group.
    pub group: Arc<str>,
    /// Taken before the first broker was asked.
    pub taken_at: Instant,
    /// Whom the figures were asked of, and whether a shared store failed us.
    pub origin: Origin,
    /// How the group's coordinator took the question; `Told` says that the figures are its own.
    pub standing: Standing,
    /// By name, ascending.
    pub topics: Vec<TopicLag>,
}

impl Snapshot {
    /// Works out the lag of what was collected. What `previous` knew of a partition that could not
    /// be asked this time is carried on with its own time, for at most [`CARRIED_MAX`].
    pub fn new(
        group: Arc<str>,
        taken_at: Instant,
        collected: &[TopicOffsets],
        previous: Option<&Self>,
    ) -> Self {
        let mut topics: Vec<TopicLag> = collected
            .iter()
            .map(|topic| {
                let previous = previous
                    .and_then(|previous| previous.topic(&topic.topic))
                    .filter(|previous| previous.id == topic.id);
                topic_lag(topic, taken_at, previous)
            })
            .collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Self {
            group,
            taken_at,
            origin: Origin::Asked,
            standing: Standing::Told,
            topics,
        }
    }

    /// How the group gets on where it does worst. Partitions of which nothing is known, such as those
    /// it has not committed in, count only if there is no other.
    pub fn progress(&self) -> Progress {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        let progress = partitions.map(|partition| partition.progress);
        progress
            .max_by_key(|one| one.severity())
            .unwrap_or_default()
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&TopicLag> {
        let at = self
            .topics
            .binary_search_by(|t| (*t.topic).cmp(name))
            .ok()?;
        self.topics.get(at)
    }

    /// A partition's lag.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionLag> {
        let at = usize::try_from(partition).ok()?;
        self.topic(topic)?.partitions.get(at)
    }

    /// The sum of the known lags; `None` if none is known.
    pub fn lag(&self) -> Option<u64> {
        let known = self.topics.iter().filter_map(TopicLag::lag);
        known.fold(None, |sum, lag| {
            Some(sum.unwrap_or(0u64).saturating_add(lag))
        })
    }
}

fn topic_lag(topic: &TopicOffsets, taken_at: Instant, previous: Option<&TopicLag>) -> TopicLag {
    let partitions = (0i32..).zip(&topic.partitions).map(|(partition, offsets)| {
        let lag = partition_lag(partition, *offsets, taken_at);
        let most = match lag.status {
            LagStatus::Unknown(_) => CARRIED_MAX,
            LagStatus::NoCommit => UNSAID_MAX,
            _ => return lag,
        };
        let previous =
            previous.and_then(|previous| previous.partitions.get(usize::try_from(partition).ok()?));
        let had_none = |previous: &&PartitionLag| previous.status == LagStatus::NoCommit;
        let previous = previous.filter(|previous| most == CARRIED_MAX || !had_none(previous));
        previous.map_or(lag, |previous| carried(lag, previous, most))
    });
    TopicLag {
        topic: Arc::clone(&topic.topic),
        id: topic.id,
        refused: topic.refusal(),
        partitions: partitions.collect(),
    }
}

/// What stands for a partition that is unknown this time: what was known of it last, unless that is
/// too old, as old as it is. How its log grows is shown as fresh as it is heard.
fn carried(lag: PartitionLag, previous: &PartitionLag, most: Duration) -> PartitionLag {
    let is_known = !matches!(previous.status, LagStatus::Unknown(_));
    let mut carried = match lag.end {
        _ if is_known && previous.age(lag.taken_at) <= most => *previous,
        Some(_) => lag,
        None => PartitionLag {
            taken_at: previous.taken_at,
            ..lag
        },
    };
    if lag.end.is_some() {
        carried.end = lag.end;
        carried.log_start = lag.log_start;
        carried.last_stable = lag.last_stable;
    }
    carried
}

pub(crate) fn partition_lag(partition: i32, offsets: Offsets, taken_at: Instant) -> PartitionLag {
    // A broker's numbers are not to be trusted: a negative offset is no offset.
    let sane = |offset: i64| (offset >= 0).then_some(offset);
    let (log_start, last_stable, end_code) = match offsets.end {
        End::At {
            log_start,
            last_stable,
            ..
        } => (log_start.and_then(sane), last_stable.and_then(sane), None),
        End::Unknown(code) => (None, None, code),
    };
    let end = offsets.end.high_watermark();
    let (committed, commit_status) = match offsets.committed {
        Committed::At(offset) => (sane(offset), LagStatus::Unknown(None)),
        Committed::Nothing => (None, LagStatus::NoCommit),
        Committed::Unknown(code) => (None, LagStatus::Unknown(code)),
    };
    let mut lag = PartitionLag {
        partition,
        end,
        committed,
        log_start,
        // Asked for beside the end, it can be a little newer; beyond the end it says nothing more.
        last_stable: last_stable.zip(end).map(|(stable, end)| stable.min(end)),
        lag: None,
        lost: 0,
        status: commit_status,
        time_lag: None,
        progress: Progress::Unknown,
        taken_at,
    };
    let Some(end) = end else {
        lag.status = LagStatus::Unknown(end_code);
        return lag;
    };
    let Some(committed) = committed else {
        return lag;
    };
    if committed > end {
        lag.status = LagStatus::BeyondEnd;
        return lag;
    }
    // A log start beyond the end is nonsense and says nothing.
    let log_start = log_start.filter(|start| *start <= end).unwrap_or(0);
    lag.lost = u64::try_from(log_start.saturating_sub(committed)).unwrap_or(0);
    lag.lag = u64::try_from(end.saturating_sub(committed.max(log_start))).ok();
    lag.status = LagStatus::Known;
    lag
}

#[cfg(test)]
mod tests;
