//! What a row of observations tells that one alone does not: how many seconds a group is behind, and
//! whether it gets on. Pure.

use crate::snapshot::{PartitionLag, Progress, TimeLag, TopicLag, TopicOffsets};
use crate::source::Found;
use ottla_proto::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many points of a log's growth are kept: close together for the last minutes, further and
/// further apart before, so that a lag of days has a time too. About 1.5 KiB a partition.
const POINTS_MAX: usize = 64;

/// A group that has not got on for this long, or for ten looks if that is longer, is judged by it.
/// Burrow's window is ten commits, which is 50 s at Kafka's `auto.commit.interval.ms`.
const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_REFRESHES: u32 = 10;

/// For how many looks an open transaction must have held a group before it counts as blocked; every
/// transaction holds its readers for a moment.
const BLOCKED_REFRESHES: u32 = 3;
const BLOCKED_MIN: Duration = Duration::from_secs(3);

/// Records that a group may leave unread for ever: a transaction ends with a marker that takes an
/// offset and is no record, and some clients commit what stands before it.
const MARKERS: u64 = 1;

/// When a log had which end.
#[derive(Debug, Default)]
pub(crate) struct Growth(Vec<(Instant, i64)>);

impl Growth {
    /// The log ended at `end` at this time.
    fn note(&mut self, at: Instant, end: i64) {
        if let Some((last_at, last_end)) = self.0.last().copied() {
            if at <= last_at {
                return;
            }
            if end < last_end {
                // It was cut: what we knew is of records that are gone.
                self.0.clear();
            }
        }
        // Of a time without growth the first and the last moment say all.
        if let [.., (_, first), (last_at, last)] = &mut *self.0
            && *first == end
            && *last == end
        {
            *last_at = at;
            return;
        }
        self.0.push((at, end));
        if self.0.len() > POINTS_MAX {
            self.thin(at);
        }
    }

    /// Gives up the point whose neighbours are closest together for their age.
    fn thin(&mut self, now: Instant) {
        let gaps = self.0.windows(3).enumerate().filter_map(|(at, points)| {
            let [(before, _), (here, _), (after, _)] = points else {
                return None;
            };
            let age = now.saturating_duration_since(*here).as_secs_f64();
            let gap = after.saturating_duration_since(*before).as_secs_f64();
            Some((gap / (age + 1.0), at + 1))
        });
        if let Some((_, at)) = gaps.min_by(|a, b| a.0.total_cmp(&b.0)) {
            self.0.remove(at);
        }
    }

    /// How long ago the record at this offset was written.
    fn behind(&self, committed: i64, now: Instant) -> Option<TimeLag> {
        let after = self.0.partition_point(|(_, end)| *end <= committed);
        let (end_at, end) = *self.0.get(after)?;
        let Some((start_at, start)) = after.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return Some(TimeLag::AtLeast(now.saturating_duration_since(end_at)));
        };
        let share = committed.saturating_sub(*start) as f64 / end.saturating_sub(*start) as f64;
        let span = end_at.saturating_duration_since(*start_at);
        let written = *start_at + span.mul_f64(share.clamp(0.0, 1.0));
        Some(TimeLag::About(now.saturating_duration_since(written)))
    }
}

/// The growth of every watched log. It is the same for all groups.
#[derive(Debug, Default)]
pub(crate) struct Growths(BTreeMap<Arc<str>, (Option<TopicId>, Vec<Growth>)>);

impl Growths {
    /// Takes in the ends that a round found, and forgets topics that nobody asked about.
    pub(crate) fn note(&mut self, found: &[Found]) {
        let topics = found.iter().flat_map(|found| &found.topics);
        let asked: std::collections::BTreeSet<&Arc<str>> = topics.map(|t| &t.topic).collect();
        self.0.retain(|topic, _| asked.contains(topic));
        for found in found {
            for topic in &found.topics {
                self.note_topic(found.taken_at, topic);
            }
        }
    }

    fn note_topic(&mut self, taken_at: Instant, topic: &TopicOffsets) {
        if topic.partitions.is_empty() {
            // Not heard of for this group: that takes nothing from what was heard for another.
            return;
        }
        let new = || (topic.id, Vec::new());
        let known = self.0.entry(Arc::clone(&topic.topic)).or_insert_with(new);
        if known.0 != topic.id {
            *known = new();
        }
        let (_, growths) = known;
        // A source may have measured fewer partitions for one group than for another.
        let count = topic.partitions.len().max(growths.len());
        growths.resize_with(count, Growth::default);
        for (growth, offsets) in growths.iter_mut().zip(&topic.partitions) {
            if let Some(end) = offsets.end.high_watermark() {
                growth.note(taken_at, end);
            }
        }
    }

    fn of(&self, topic: &TopicLag) -> &[Growth] {
        let known = self.0.get(&topic.topic).filter(|(id, _)| *id == topic.id);
        known.map_or(&[], |(_, growths)| growths.as_slice())
    }
}

/// How one group gets on in one partition.
#[derive(Debug, Clone, Copy)]
struct Track {
    since: Instant,
    committed: i64,
    moved_at: Instant,
    /// When the lag was last no more than a marker.
    caught_up_at: Option<Instant>,
    lag: u64,
    fell_at: Option<Instant>,
    /// Where the group stood before it went back, and when it did.
    rewound: Option<(i64, Instant)>,
    last_stable: Option<i64>,
    last_stable_moved_at: Instant,
}

impl Track {
    fn new(now: Instant, committed: i64, lag: u64, last_stable: Option<i64>) -> Self {
        Self {
            since: now,
            committed,
            moved_at: now,
            caught_up_at: None,
            lag,
            fell_at: None,
            rewound: None,
            last_stable,
            last_stable_moved_at: now,
        }
    }

    fn note(&mut self, now: Instant, committed: i64, lag: u64, last_stable: Option<i64>) {
        if committed < self.committed && self.rewound.is_none() {
            self.rewound = Some((self.committed, now));
        }
        if self.rewound.is_some_and(|(peak, _)| committed >= peak) {
            self.rewound = None;
        }
        if committed != self.committed {
            self.committed = committed;
            self.moved_at = now;
        }
        if lag < self.lag {
            self.fell_at = Some(now);
        }
        self.lag = lag;
        if lag <= MARKERS {
            self.caught_up_at = Some(now);
        }
        if last_stable != self.last_stable {
            self.last_stable = last_stable;
            self.last_stable_moved_at = now;
        }
    }

    fn judge(&self, now: Instant, end: i64, refresh: Duration) -> Progress {
        let within = |at: Option<Instant>, window: Duration| {
            at.is_some_and(|at| now.saturating_duration_since(at) < window)
        };
        let window = WINDOW.max(refresh.saturating_mul(WINDOW_REFRESHES));
        if self.lag <= MARKERS {
            return Progress::Ok;
        }
        if self.is_held(end) {
            let patience = BLOCKED_MIN.max(refresh.saturating_mul(BLOCKED_REFRESHES));
            if !within(Some(self.moved_at), patience)
                && !within(Some(self.last_stable_moved_at), patience)
            {
                return Progress::Blocked;
            }
        }
        if within(self.rewound.map(|(_, at)| at), window) {
            return Progress::Rewound;
        }
        if within(self.caught_up_at, window) || within(self.fell_at, window) {
            return Progress::Ok;
        }
        match (
            within(Some(self.since), window),
            within(Some(self.moved_at), window),
        ) {
            (true, _) => Progress::Waiting,
            (false, true) => Progress::Behind,
            (false, false) => Progress::Stalled,
        }
    }

    /// Whether the group has read everything that an open transaction does not hold back.
    fn is_held(&self, end: i64) -> bool {
        self.last_stable.is_some_and(|last_stable| {
            let unread = last_stable.saturating_sub(self.committed);
            last_stable < end && unread >= 0 && unread.unsigned_abs() <= MARKERS
        })
    }
}

/// How one group gets on.
#[derive(Debug, Default)]
pub(crate) struct Tracks(BTreeMap<Arc<str>, TopicTracks>);

/// A topic's tracks, which hold for that id only.
type TopicTracks = (Option<TopicId>, Vec<Option<Track>>);

impl Tracks {
    /// Fills in what a row of observations tells of a topic. Figures that were carried over from an
    /// earlier look keep what was told then.
    pub(crate) fn fill(
        &mut self,
        topic: &mut TopicLag,
        taken_at: Instant,
        refresh: Duration,
        growths: &Growths,
    ) {
        let known = self.0.entry(Arc::clone(&topic.topic)).or_default();
        if known.0 != topic.id {
            *known = (topic.id, Vec::new());
        }
        known.1.resize(topic.partitions.len(), None);
        let growths = growths.of(topic);
        for (at, (lag, track)) in topic.partitions.iter_mut().zip(&mut known.1).enumerate() {
            if lag.taken_at == taken_at {
                fill(lag, track, refresh, growths.get(at));
            }
        }
    }

    /// Forgets the topics that are not watched any more.
    pub(crate) fn keep(&mut self, topics: &[TopicLag]) {
        self.0
            .retain(|name, _| topics.iter().any(|topic| topic.topic == *name));
    }
}

fn fill(
    lag: &mut PartitionLag,
    track: &mut Option<Track>,
    refresh: Duration,
    growth: Option<&Growth>,
) {
    let now = lag.taken_at;
    let (Some(end), Some(committed), Some(records)) = (lag.end, lag.committed, lag.lag) else {
        return;
    };
    lag.time_lag = match records {
        0 => Some(TimeLag::About(Duration::ZERO)),
        // What was deleted unread is not waited for any more.
        _ => {
            growth.and_then(|growth| growth.behind(committed.max(lag.log_start.unwrap_or(0)), now))
        }
    };
    let stable = lag.last_stable;
    let track = track.get_or_insert_with(|| Track::new(now, committed, records, stable));
    track.note(now, committed, records, stable);
    lag.progress = track.judge(now, end, refresh);
}

#[cfg(test)]
mod tests;
