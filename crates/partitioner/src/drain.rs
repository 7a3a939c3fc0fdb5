//! The choice by drain time: which of a few random partitions will have its next record read first.
//!
//! A plan gives each partition's consumption rate and backlog as the collector saw them. Between
//! two plans each partition's queue is carried on: the backlog drains at half its consumer's speed
//! (half, because the speed was seen a while ago and may have gone down), own sends add to it, and
//! what the other producers send is added as a flow. So many producers with the same old figures do
//! not all run to the same partition.

use crate::striped::{Share, Striped};
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a scaled-up own send may be, in seconds of a median partition's drain. Own sends stand
/// for the other producers' too; beyond this the others are taken as a flow, or a hundred producers
/// would make each choice a jump.
const SCALE_DRAIN_SECONDS: f64 = 0.25;

/// The share of its consumer's speed at which an observed backlog is taken to drain.
const BACKLOG_DRAIN: f32 = 0.5;

/// How often a lost race for one partition's estimate is tried again before the update is given up:
/// the estimate is corrected by the next plan anyway, and the caller must not be held.
const RACE_MAX: u32 = 4;

/// How long a stripe keeps its sends to one partition for itself, in seconds, before it adds them to
/// the estimate that all stripes look at. Threads that begin many runs in a millisecond would
/// otherwise take the estimates' cache lines from each other at every one; at the usual pace, a run
/// in some milliseconds, nothing is kept back.
const SETTLE_SECONDS: f32 = 0.001;

/// No rate, and no count of records, is taken to be higher than this: so no figure, however senseless,
/// overflows the arithmetic of a choice.
const FIGURE_MAX: f64 = 1e12;

/// No rate is taken to be lower than this, in records a second.
const RATE_MIN: f64 = 1e-3;

/// One partition in a plan by drain time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrainPartition {
    /// What its consumer reads, in records a second. One that is not above zero counts as unknown:
    /// the median is taken.
    pub rate: f64,
    /// Unread records that commits do not explain.
    pub backlog: f64,
    /// The share of all new records that it should get, 0 to 1.
    pub share: f64,
}

/// A plan by drain time for one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    /// By partition.
    pub partitions: Vec<DrainPartition>,
    /// What all producers write to the topic, in records a second.
    pub arrival_rate: f64,
    /// What the producers that read this plan write to it, in records a second.
    pub own_rate: f64,
}

/// One partition's queue as estimated, in seconds of what its consumer reads. The constant part and
/// the estimate stand together, so that looking at a candidate costs one cache line.
#[derive(Debug)]
#[repr(align(32))]
struct Lane {
    /// What its consumer reads, in records a second.
    rate: f32,
    /// What one own record adds: it stands for `scale` of all producers.
    own_record: f32,
    /// What was there when the plan was taken.
    backlog: f32,
    /// What other producers add in a second.
    inflow: f32,
    /// When `sent` was last brought up to date, and `sent`: what was added since the plan was taken
    /// and is still unread.
    state: AtomicU64,
}

/// As `f32::max`, which takes several instructions more to see to what is not a number; nothing here
/// is not.
#[inline]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// A time, in seconds since the plan was taken, and what was there then, in one atomic word. Both are
/// floats, because turning integers into floats takes a good part of a look at a candidate.
fn pack(since: f32, what: f32) -> u64 {
    u64::from(since.to_bits()) << 32 | u64::from(what.to_bits())
}

fn unpack(word: u64) -> (f32, f32) {
    (
        f32::from_bits((word >> 32) as u32),
        f32::from_bits(word as u32),
    )
}

/// What one stripe sent to a partition and did not add to its lane yet: since when it keeps it, and
/// the records, below zero when a reservation that was added is taken back.
#[derive(Debug, Default)]
struct Unsettled(AtomicU64);

impl Unsettled {
    #[inline]
    fn load(&self) -> (f32, f32) {
        unpack(self.0.load(Ordering::Relaxed))
    }

    /// Whether nothing is kept.
    #[inline]
    fn is_empty(&self) -> bool {
        // Without a branch and without a float: the records are the low half.
        self.0.load(Ordering::Relaxed) as u32 == 0
    }

    #[inline]
    fn store(&self, since: f32, records: f32) {
        // Only this stripe writes here: see `Striped`.
        self.0.store(pack(since, records), Ordering::Relaxed);
    }

    #[inline]
    fn add(&self, records: f32) {
        let (since, kept) = self.load();
        self.store(since, kept + records);
    }
}

impl Lane {
    /// What was sent since the plan was taken and is still unread.
    #[inline]
    fn sent_at(&self, state: u64, when: When) -> f32 {
        let (since, sent) = unpack(state);
        // The consumer reads what was there before what was sent since; so the backlog needs no
        // state of its own, only the moment at which it will be gone.
        let clear_at = when.believed * self.backlog * BACKLOG_DRAIN.recip();
        let read = larger(when.seconds - larger(clear_at, since), 0.0);
        let arrived = self.inflow * larger(when.seconds - since, 0.0);
        larger(sent + arrived - read, 0.0)
    }

    #[inline]
    fn backlog_at(&self, when: When) -> f32 {
        let drained = BACKLOG_DRAIN * when.seconds;
        larger(when.believed * self.backlog - drained, 0.0)
    }

    #[inline]
    fn add(&self, when: When, records: f32) {
        let own = self.own_record * records;
        let mut state = self.state.load(Ordering::Relaxed);
        for _ in 0..RACE_MAX {
            // Another thread may have been here a moment later than us: time only goes forward.
            let (since, _) = unpack(state);
            let at = when.at(larger(when.seconds, since));
            let sent = larger(self.sent_at(state, at) + own, 0.0);
            let new = pack(at.seconds, sent);
            let order = Ordering::Relaxed;
            match self.state.compare_exchange_weak(state, new, order, order) {
                Ok(_) => return,
                Err(newer) => state = newer,
            }
        }
    }
}

/// Whether a plan's backlog still says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Yes.
    Fresh,
    /// No, only its rates.
    Stale,
}

/// The lanes of a topic.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Box<[Lane]>,
    unsettled: Striped<Unsettled>,
    /// How many records of all producers one own record stands for.
    scale: f32,
    /// What the producers that read the plan write, in records a second.
    own_rate: f32,
    median_rate: f32,
}

impl Lanes {
    /// Makes the lanes; `None` if no partition has a rate.
    pub(crate) fn new(drain: &Drain) -> Option<Self> {
        let usable = |rate: f64| rate.is_finite() && rate > 0.0;
        let mut rates: Vec<f64> = drain.partitions.iter().map(|p| p.rate).collect();
        rates.retain(|rate| usable(*rate));
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2)?.clamp(RATE_MIN, FIGURE_MAX);
        let clean = |x: f64| {
            if x.is_finite() {
                x.clamp(0.0, FIGURE_MAX)
            } else {
                0.0
            }
        };
        let (all, own) = (clean(drain.arrival_rate), clean(drain.own_rate));
        let most = (SCALE_DRAIN_SECONDS * median).max(1.0);
        let scale = if own > 0.0 {
            (all / own).clamp(1.0, most)
        } else {
            most
        };
        let others = (all - scale * own).max(0.0);
        let lane = |p: &DrainPartition| {
            let rate = if usable(p.rate) { p.rate } else { median };
            let rate = rate.clamp(RATE_MIN, FIGURE_MAX);
            Lane {
                rate: rate as f32,
                own_record: (scale / rate) as f32,
                backlog: (clean(p.backlog) / rate) as f32,
                inflow: (others * clean(p.share).min(1.0) / rate) as f32,
                state: AtomicU64::new(pack(0.0, 0.0)),
            }
        };
        Some(Self {
            unsettled: Striped::new(drain.partitions.len()),
            lanes: drain.partitions.iter().map(lane).collect(),
            scale: scale as f32,
            own_rate: own as f32,
            median_rate: median as f32,
        })
    }

    /// Goes on with what was sent under the lanes of a plan whose figures are as old as these: nobody
    /// has heard anything since that would tell of it.
    pub(crate) fn follow(&mut self, last: &Self) {
        for (at, (lane, was)) in self.lanes.iter_mut().zip(&last.lanes).enumerate() {
            let (since, sent) = unpack(was.state.load(Ordering::Relaxed));
            let kept: f32 = last.unsettled.all(at).map(|own| own.load().1).sum();
            // What a stripe kept for itself is as good as new.
            let records = (sent + was.own_record * kept) * was.rate;
            *lane.state.get_mut() = pack(since, larger(records / lane.rate, 0.0));
        }
    }

    fn lane(&self, partition: i32) -> Option<&Lane> {
        self.lanes.get(usize::try_from(partition).ok()?)
    }

    /// The lanes as one stripe sees them.
    #[inline]
    pub(crate) fn seen(&self, when: When, stripe: usize) -> Option<Seen<'_>> {
        Some(Seen {
            lanes: &self.lanes,
            unsettled: self.unsettled.share(stripe)?.first(self.lanes.len())?,
            when,
        })
    }

    /// In how many seconds a record will be read that is sent to a partition newer than the plan:
    /// empty, at the median's speed.
    pub(crate) fn wait_when_new(&self) -> f32 {
        self.scale / self.median_rate
    }

    /// How many records a run to this partition may have: `drain_seconds` of what its consumer
    /// reads, and no more than the producers write in `span_seconds`. At least one.
    pub(crate) fn run_records(&self, partition: i32, drain_seconds: f32, span_seconds: f32) -> u32 {
        let drained = self.rate(partition) * drain_seconds;
        let written = self.own_rate * span_seconds;
        // Neither is not a number, and `f32::min` takes twice as many instructions to see to that.
        let records = if drained < written { drained } else { written };
        (records as u32).max(1)
    }

    /// What its consumer reads, in records a second.
    fn rate(&self, partition: i32) -> f32 {
        self.lane(partition)
            .map_or(self.median_rate, |lane| lane.rate)
    }

    /// Counts records as not sent after all.
    pub(crate) fn take_back(&self, partition: i32, stripe: usize, records: u32) {
        let own = self.unsettled.share(stripe);
        if let Some(unsettled) = own.and_then(|own| own.partition(partition)) {
            unsettled.add(-(records as f32));
        }
    }
}

/// When the lanes are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    /// Since the plan was taken.
    seconds: f32,
    /// 1 while the plan's backlog is believed, 0 after.
    believed: f32,
}

impl When {
    pub(crate) fn new(micros: u32, age: Age) -> Self {
        let believed = match age {
            Age::Fresh => 1.0,
            Age::Stale => 0.0,
        };
        Self {
            seconds: micros as f32 * 1e-6,
            believed,
        }
    }

    fn at(self, seconds: f32) -> Self {
        Self { seconds, ..self }
    }
}

/// The lanes as one stripe sees them at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'l> {
    lanes: &'l [Lane],
    unsettled: Share<'l, Unsettled>,
    when: When,
}

impl<'l> Seen<'l> {
    #[inline]
    fn lane(self, partition: i32) -> Option<(&'l Lane, &'l Unsettled)> {
        // One below zero is far above any count.
        let lane = self.lanes.get(partition.cast_unsigned() as usize)?;
        Some((lane, self.unsettled.partition(partition)?))
    }

    /// In how many seconds a record that this stripe sends now will be read; `None` for a partition
    /// that the plan does not know.
    pub(crate) fn wait(self, partition: i32) -> Option<f32> {
        Some(self.settled_wait(self.lane(partition)?))
    }

    /// The same for three at once; `None` when the plan does not know all of them.
    #[inline]
    pub(crate) fn waits(self, [a, b, c]: &[i32; 3]) -> Option<[f32; 3]> {
        let lanes = [self.lane(*a)?, self.lane(*b)?, self.lane(*c)?];
        let [a, b, c] = lanes;
        // At the usual pace nothing is kept: that is seen at one look.
        if a.1.is_empty() & b.1.is_empty() & c.1.is_empty() {
            let wait = |lane| self.wait_behind(self.sent(lane), lane);
            return Some([wait(a.0), wait(b.0), wait(c.0)]);
        }
        Some(self.settled_waits(lanes))
    }

    #[inline(never)]
    fn settled_waits(self, lanes: [(&Lane, &Unsettled); 3]) -> [f32; 3] {
        let [a, b, c] = lanes;
        let wait = |lane| self.settled_wait(lane);
        [wait(a), wait(b), wait(c)]
    }

    #[inline]
    fn settled_wait(self, (lane, unsettled): (&Lane, &Unsettled)) -> f32 {
        let (since, mut kept) = unsettled.load();
        // Both are asked, so that the branch is almost never taken.
        if (kept != 0.0) & self.is_due(since) {
            self.settle(lane, unsettled);
            kept = 0.0;
        }
        let sent = larger(self.sent(lane) + lane.own_record * kept, 0.0);
        self.wait_behind(sent, lane)
    }

    #[inline]
    fn sent(self, lane: &Lane) -> f32 {
        lane.sent_at(lane.state.load(Ordering::Relaxed), self.when)
    }

    /// Behind what was sent, and the backlog; the record itself is read last.
    #[inline]
    fn wait_behind(self, sent: f32, lane: &Lane) -> f32 {
        sent + lane.backlog_at(self.when) + lane.own_record
    }

    /// Counts records as sent.
    #[inline]
    pub(crate) fn add(self, partition: i32, records: u32) {
        let Some((lane, unsettled)) = self.lane(partition) else {
            return;
        };
        let (since, kept) = unsettled.load();
        if !self.is_due(since) {
            unsettled.store(since, kept + records as f32);
            return;
        }
        if kept != 0.0 {
            self.settle(lane, unsettled);
        } else {
            unsettled.store(self.when.seconds, 0.0);
        }
        lane.add(self.when, records as f32);
    }

    /// Adds what the stripe kept for itself to the lane that all look at.
    #[cold]
    fn settle(self, lane: &Lane, unsettled: &Unsettled) {
        let (since, kept) = unsettled.load();
        unsettled.store(self.when.seconds, 0.0);
        // As of the time when it was sent, or it would not have drained since.
        lane.add(self.when.at(since), kept);
    }

    fn is_due(self, since: f32) -> bool {
        self.when.seconds - since >= SETTLE_SECONDS
    }
}

#[cfg(test)]
mod tests;
