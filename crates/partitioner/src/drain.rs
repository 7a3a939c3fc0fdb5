//! The choice by drain time: which of a few random partitions will have its next record read first.
//!
//! A plan gives each partition's consumption rate and backlog as the collector saw them. Between
//! two plans each partition's queue is carried on: the backlog drains at half its consumer's speed
//! (half, because the speed was seen a while ago and may have gone down), own sends add to it, and
//! what the other producers send is added as a flow. So many producers with the same old figures do
//! not all run to the same partition.

use crate::lag_aware::{RUN_DRAIN, RUN_SPAN};
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
/// in some milliseconds, nothing is kept back, nor while there is but one stripe.
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
    /// The share of all new records that it should get, 0 to 1; in a plan, the one that it does get
    /// when all choose by the plan.
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

impl Drain {
    /// How many records a run of the usual length has, to a partition that is read at this rate.
    pub fn run_records(&self, rate: f64) -> u32 {
        let length = RunLength {
            drain_seconds: RUN_DRAIN.as_secs_f32(),
            records_max: self.own_rate as f32 * RUN_SPAN.as_secs_f32(),
            median_rate: 0.0,
        };
        length.records(rate as f32)
    }
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
/// the records, below zero when a reservation that was added is taken back. All zero when it keeps
/// nothing.
#[derive(Debug, Default)]
struct Unsettled(AtomicU64);

impl Unsettled {
    #[inline]
    fn load(&self) -> (f32, f32) {
        unpack(self.0.load(Ordering::Relaxed))
    }

    /// The same as one number, which is zero when nothing is kept.
    #[inline]
    fn word(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

    #[inline]
    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
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
        // Below nothing by what another thread is ahead of us, which is as good.
        let arrived = self.inflow * (when.seconds - since);
        larger(sent + arrived - read, 0.0)
    }

    #[inline]
    fn backlog_at(&self, when: When) -> f32 {
        let drained = BACKLOG_DRAIN * when.seconds;
        larger(when.believed * self.backlog - drained, 0.0)
    }

    /// Adds own records to what was found in `state`, unless another thread has just changed it.
    #[inline]
    fn try_add(&self, state: u64, when: When, records: f32) -> Result<u64, u64> {
        // Another thread may have been here a moment later than us: time only goes forward.
        let (since, _) = unpack(state);
        let at = when.at(larger(when.seconds, since));
        let sent = self.sent_at(state, at) + self.own_record * records;
        let new = pack(at.seconds, larger(sent, 0.0));
        let order = Ordering::Relaxed;
        self.state.compare_exchange_weak(state, new, order, order)
    }

    /// Adds own records to what was found in `state`, or to what another thread put in its place.
    #[cold]
    fn add(&self, mut state: u64, when: When, records: f32) {
        for _ in 0..RACE_MAX {
            match self.try_add(state, when, records) {
                Ok(_) => return,
                Err(newer) => state = newer,
            }
        }
    }

    /// Counts own records as not sent after all.
    fn take_back(&self, records: f32) {
        // As of when it was last brought up to date.
        let start = When::new(0.0, Age::Fresh);
        self.add(self.state.load(Ordering::Relaxed), start, -records);
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

    /// The lanes as one stripe sees them.
    #[inline]
    pub(crate) fn seen(&self, when: When, stripe: usize) -> Option<Seen<'_>> {
        // Asked for first, so that the stripe is counted.
        let own = self.unsettled.share(stripe)?;
        let unsettled = self.unsettled.is_shared().then_some(own);
        Some(Seen {
            lanes: &self.lanes,
            unsettled,
            when,
        })
    }

    /// Makes room for the stripes that went by the last lanes, so that none of them must.
    pub(crate) fn make_room_as(&self, last: &Self) {
        self.unsettled.make_room_as(&last.unsettled);
    }

    /// In how many seconds a record will be read that is sent to a partition newer than the plan:
    /// empty, at the median's speed.
    pub(crate) fn wait_when_new(&self) -> f32 {
        self.scale / self.median_rate
    }

    /// How long a run may be: so many seconds of what its partition's consumer reads, and no more
    /// than the producers write in `span_seconds`.
    #[inline]
    pub(crate) fn run_length(&self, drain_seconds: f32, span_seconds: f32) -> RunLength {
        RunLength {
            drain_seconds,
            records_max: self.own_rate * span_seconds,
            median_rate: self.median_rate,
        }
    }

    /// Counts records as not sent after all.
    pub(crate) fn take_back(&self, partition: i32, stripe: usize, records: u32) {
        let records = records as f32;
        if !self.unsettled.is_shared() {
            let lane = self.lanes.get(partition.cast_unsigned() as usize);
            lane.into_iter().for_each(|lane| lane.take_back(records));
        } else if let Some(unsettled) = self.unsettled.own(stripe, partition) {
            unsettled.add(-records);
        }
    }
}

/// How long a run may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLength {
    drain_seconds: f32,
    records_max: f32,
    /// For a partition that the plan does not know.
    median_rate: f32,
}

impl RunLength {
    /// In records, at least one; for a consumer that reads so many a second.
    #[inline]
    fn records(self, rate: f32) -> u32 {
        let drained = rate * self.drain_seconds;
        // Neither is not a number, and `f32::min` takes twice as many instructions to see to that.
        let records = if drained < self.records_max {
            drained
        } else {
            self.records_max
        };
        (records as u32).max(1)
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
    /// So many seconds after the plan was taken.
    #[inline]
    pub(crate) fn new(seconds: f32, age: Age) -> Self {
        let believed = match age {
            Age::Fresh => 1.0,
            Age::Stale => 0.0,
        };
        Self { seconds, believed }
    }

    #[inline]
    fn at(self, seconds: f32) -> Self {
        Self { seconds, ..self }
    }
}

/// The lanes as one stripe sees them at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'l> {
    lanes: &'l [Lane],
    /// What this stripe keeps, if it is not the only one.
    unsettled: Option<Share<'l, Unsettled>>,
    when: When,
}

impl<'l> Seen<'l> {
    #[inline]
    fn lane(self, partition: i32) -> Option<&'l Lane> {
        // One below zero is far above any count.
        self.lanes.get(partition.cast_unsigned() as usize)
    }

    /// In how many seconds a record that this stripe sends now will be read; `None` for a partition
    /// that the plan does not know.
    pub(crate) fn wait(self, partition: i32) -> Option<f32> {
        let lane = self.lane(partition)?;
        Some(match self.unsettled {
            None => self.when.wait(lane),
            Some(own) => self.when.settled_wait(lane, own.partition(partition)?),
        })
    }

    /// The one of three that will read a record first; `None` when the plan does not know all of them.
    #[inline]
    pub(crate) fn soonest(self, drawn: [i32; 3]) -> Option<i32> {
        let [a, b, c] = drawn;
        let lanes = [self.lane(a)?, self.lane(b)?, self.lane(c)?];
        match self.unsettled {
            None => Some(self.when.soonest(drawn, lanes)),
            Some(own) => self.when.soonest_shared(drawn, lanes, own),
        }
    }

    /// How many records a run to this partition has; with `counts` they count as sent.
    #[inline]
    pub(crate) fn reserve(self, partition: i32, length: RunLength, counts: bool) -> u32 {
        let Some(lane) = self.lane(partition) else {
            return length.records(length.median_rate);
        };
        let records = length.records(lane.rate);
        if counts {
            self.add(partition, lane, records);
        }
        records
    }

    /// Counts records as sent.
    #[inline]
    fn add(self, partition: i32, lane: &Lane, records: u32) {
        let records = records as f32;
        if let Some(own) = self.unsettled {
            self.when.add_shared(partition, lane, own, records);
            return;
        }
        let state = lane.state.load(Ordering::Relaxed);
        if let Err(newer) = lane.try_add(state, self.when, records) {
            lane.add(newer, self.when, records);
        }
    }
}

/// What has the least wait; of equal waits, the first. Without a branch on what is random.
#[inline]
pub(crate) fn first_of<T: Copy>([a, b, c]: [T; 3], waits: [f32; 3]) -> T {
    let [wait_a, wait_b, wait_c] = waits;
    let is_later = wait_b < wait_a;
    let (best, wait) = if is_later { (b, wait_b) } else { (a, wait_a) };
    if wait_c < wait { c } else { best }
}

impl When {
    #[inline]
    fn soonest(self, drawn: [i32; 3], [a, b, c]: [&Lane; 3]) -> i32 {
        first_of(drawn, [self.wait(a), self.wait(b), self.wait(c)])
    }

    /// The same where several stripes look at the lanes.
    #[inline(never)]
    fn soonest_shared(
        self,
        drawn: [i32; 3],
        lanes: [&Lane; 3],
        own: Share<'_, Unsettled>,
    ) -> Option<i32> {
        let ([a, b, c], [at_a, at_b, at_c]) = (drawn, lanes);
        let (own_a, own_b, own_c) = (own.partition(a)?, own.partition(b)?, own.partition(c)?);
        // At the usual pace nothing is kept: that is seen at one look.
        if own_a.word() | own_b.word() | own_c.word() == 0 {
            return Some(self.soonest(drawn, lanes));
        }
        let waits = [
            self.settled_wait(at_a, own_a),
            self.settled_wait(at_b, own_b),
            self.settled_wait(at_c, own_c),
        ];
        Some(first_of(drawn, waits))
    }

    #[inline]
    fn settled_wait(self, lane: &Lane, unsettled: &Unsettled) -> f32 {
        let (since, mut kept) = unsettled.load();
        // Both are asked, so that the branch is almost never taken.
        if (kept != 0.0) & self.is_due(since) {
            self.settle(lane, unsettled);
            kept = 0.0;
        }
        self.wait_behind(larger(self.sent(lane) + lane.own_record * kept, 0.0), lane)
    }

    #[inline]
    fn sent(self, lane: &Lane) -> f32 {
        lane.sent_at(lane.state.load(Ordering::Relaxed), self)
    }

    #[inline]
    fn wait(self, lane: &Lane) -> f32 {
        self.wait_behind(self.sent(lane), lane)
    }

    /// Behind what was sent, and the backlog; the record itself is read last.
    #[inline]
    fn wait_behind(self, sent: f32, lane: &Lane) -> f32 {
        sent + lane.backlog_at(self) + lane.own_record
    }

    /// Counts records as sent, now or in a moment.
    #[inline(never)]
    fn add_shared(self, partition: i32, lane: &Lane, own: Share<'_, Unsettled>, records: f32) {
        let Some(unsettled) = own.partition(partition) else {
            return;
        };
        let (mut since, mut kept) = unsettled.load();
        if kept == 0.0 {
            let state = lane.state.load(Ordering::Relaxed);
            let (written, _) = unpack(state);
            if self.is_due(written) && lane.try_add(state, self, records).is_ok() {
                return;
            }
            since = self.seconds;
        } else if self.is_due(since) {
            self.settle(lane, unsettled);
            (since, kept) = (self.seconds, 0.0);
        }
        unsettled.store(since, kept + records);
    }

    /// Adds what the stripe kept for itself to the lane that all look at.
    #[cold]
    fn settle(self, lane: &Lane, unsettled: &Unsettled) {
        let (since, kept) = unsettled.load();
        unsettled.clear();
        // As of the time when it was sent, or it would not have drained since.
        let state = lane.state.load(Ordering::Relaxed);
        lane.add(state, self.at(since), kept);
    }

    #[inline]
    fn is_due(self, since: f32) -> bool {
        self.seconds - since >= SETTLE_SECONDS
    }
}

#[cfg(test)]
mod tests;
