//! Steering: keyless records go where the consumers will read them first.

use crate::drain::{Age, Lanes, Seen, When, first_of};
use crate::explain::{Counters, Fallback};
use crate::hashes::{fnv1a, java_partition, murmur2};
use crate::keys::{Asking, KeyPolicy, KeyTicket, Moving};
use crate::plan::{Choice, PlanReader, TopicPlan};
use crate::sticky::{Sticky, below};
use crate::striped::Share;
use crate::tally::PartitionTally;
use crate::weights::Weights;
use crate::{KeyChoice, Partitioner, Run, TopicView};
use places::{candidates, few_places, places};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// How much of a partition's drain one run may be. The study: longer runs cost a healthy group up
/// to 2.7 times the wait of a uniform choice.
pub const RUN_DRAIN: Duration = Duration::from_millis(50);

/// A run is no longer than what the producers write in this time either: a slow producer would hold
/// to an old choice for many seconds.
pub(crate) const RUN_SPAN: Duration = Duration::from_millis(100);

/// The records in a run that no rate bounds: enough that a choice a run costs little, few enough
/// that a plan is followed soon after it is there.
const UNSURE_RUN_RECORDS: u32 = 16;

/// How many random partitions are compared. Two or three are enough to leave a slow one alone; all
/// of them would make every producer choose the same one.
pub const CANDIDATES: usize = 3;

/// Where there are no more partitions than candidates, so that the best one would be chosen each time,
/// one run in so many goes to any of them: no partition gets everything, and none nothing.
pub const CHANCE_RUNS: usize = 10;

/// A candidate with more waiting for its broker than twice what waits for the shortest one, and so
/// many runs or a batch more, is passed over: its broker is in trouble, whatever its consumer does.
const QUEUE_SLACK_RUNS: u64 = 8;

/// Whether steering acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Steering {
    /// Records are steered.
    On,
    /// Choices are made and counted, but records are placed as [`Sticky`] does.
    Watch,
    /// Records are placed as [`Sticky`] does.
    Off,
}

/// Keyed records as [`Sticky`], unless a [`KeyPolicy`] lets them move; keyless ones by a plan, and as
/// [`Sticky`] while there is none.
///
/// By drain time, the usual plan: of three random partitions with a leader the one whose next
/// record will be read first, with what was sent since the plan was taken counted in. A run is at
/// most [`RUN_DRAIN`] of what that partition's consumer reads. With two or three partitions one run in
/// [`CHANCE_RUNS`] goes to any of them.
///
/// One serves one producer.
#[derive(Debug)]
pub struct LagAware {
    plan: PlanReader,
    /// Which of the producers that read the plan this is; it ends with the producer.
    writer: Arc<()>,
    sticky: Sticky,
    run_drain_seconds: f32,
    keys: KeyPolicy,
    steering: AtomicU8,
}

impl LagAware {
    /// Steers by this plan, and places keyed records as it says.
    pub fn new(plan: PlanReader) -> Self {
        Self {
            keys: plan.key_policy(),
            writer: Arc::new(()),
            plan,
            sticky: Sticky::default(),
            run_drain_seconds: RUN_DRAIN.as_secs_f32(),
            steering: AtomicU8::new(Steering::On as u8),
        }
    }

    /// Ends a run after this many bytes instead of [`RUN_BYTES`](crate::RUN_BYTES).
    #[must_use]
    pub fn run_bytes(mut self, run_bytes: u32) -> Self {
        self.sticky = self.sticky.run_bytes(run_bytes);
        self
    }

    /// `partitioner.availability.timeout.ms`; zero, which is off. As
    /// [`Sticky::availability_timeout`].
    #[must_use]
    pub fn availability_timeout(mut self, timeout: Duration) -> Self {
        self.sticky = self.sticky.availability_timeout(timeout);
        self
    }

    /// Ends a run after this much of the partition's drain instead of [`RUN_DRAIN`]. Zero makes
    /// runs of one record.
    #[must_use]
    pub fn run_drain(mut self, run_drain: Duration) -> Self {
        self.run_drain_seconds = run_drain.as_secs_f32();
        self
    }

    /// Places keyed records by this policy instead of by the plan's; [`KeyPolicy::Keep`] unless
    /// either says otherwise. Producers that share a plan also share what the policy keeps, and
    /// should share the policy.
    #[doc(alias = "lag.key.policy")]
    #[must_use]
    pub fn keys(mut self, policy: KeyPolicy) -> Self {
        self.plan.set_key_policy(policy);
        self.keys = policy;
        self
    }

    /// Begins with steering as given.
    #[must_use]
    pub fn steering(self, steering: Steering) -> Self {
        self.set_steering(steering);
        self
    }

    /// Switches steering while producing.
    pub fn set_steering(&self, steering: Steering) {
        self.steering.store(steering as u8, Ordering::Relaxed);
    }

    /// The plan that steers.
    pub fn plan(&self) -> &PlanReader {
        &self.plan
    }

    /// What was chosen so far, by everyone who reads this plan.
    pub fn counters(&self) -> Counters {
        self.plan.counters()
    }

    /// The next run by a plan.
    #[inline]
    fn steered(
        &self,
        topic: &TopicPlan,
        tally: Share<'_, PartitionTally>,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> Result<Run, Fallback> {
        let mode = self.asked(view)?;
        let (age_seconds, age) = topic.age(now).ok_or(Fallback::TooOld)?;
        let run = match topic.choice() {
            Choice::Drain(lanes) => {
                let seen = lanes.seen(When::new(age_seconds, age), view.stripe);
                let seen = seen.ok_or(Fallback::NoRates)?;
                let counts = mode == Steering::On as u8;
                self.by_drain(lanes, seen, counts, view, now, random)
            }
            Choice::Weighted(weights) => self.by_weight(weights, view, now, random)?,
            Choice::Uniform(reason) => return Err(*reason),
        };
        tally.count_run(run.partition);
        if mode == Steering::Watch as u8 {
            return Err(Fallback::Off);
        }
        if age == Age::Stale {
            self.plan.count_stale();
        }
        Ok(run)
    }

    /// Whether steering acts, or why no plan is asked.
    #[inline]
    fn asked(&self, view: &TopicView<'_>) -> Result<u8, Fallback> {
        let mode = self.steering.load(Ordering::Relaxed);
        if mode == Steering::Off as u8 {
            return Err(Fallback::Off);
        }
        if view.available.is_empty() {
            return Err(Fallback::NoLeader);
        }
        Ok(mode)
    }

    #[inline(never)]
    fn unsteered(
        &self,
        reason: Fallback,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        self.plan.count_fallback(reason);
        let run = self.sticky.begin_run(view, now, random, previous);
        match reason {
            Fallback::Off => run,
            // Whatever is missing may come at any moment.
            _ => Run {
                records: UNSURE_RUN_RECORDS,
                ..run
            },
        }
    }

    #[inline]
    fn by_drain(
        &self,
        lanes: &Lanes,
        seen: Seen<'_>,
        counts: bool,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> Run {
        let bytes = self.sticky.bytes(view);
        let partition = self.soonest(lanes, seen, slack(bytes, view), view, now, random);
        let length = lanes.run_length(self.run_drain_seconds, RUN_SPAN.as_secs_f32());
        Run {
            partition,
            bytes,
            // Counted as sent when the run begins, so that the next choice knows of it.
            records: seen.reserve(partition, length, counts),
        }
    }

    #[inline(never)]
    fn by_weight(
        &self,
        weights: &Weights,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> Result<Run, Fallback> {
        let may = |partition| {
            let is_led = view.available.binary_search(&partition).is_ok();
            is_led && !self.sticky.masks(view, partition, now)
        };
        let partition = weights.choose(may, random).ok_or(Fallback::NoWeights)?;
        Ok(Run {
            partition,
            bytes: self.sticky.bytes(view),
            records: UNSURE_RUN_RECORDS,
        })
    }

    /// Of a few random partitions with a leader, the one that will read a new record first.
    #[inline]
    fn soonest(
        &self,
        lanes: &Lanes,
        seen: Seen<'_>,
        slack: u64,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> i32 {
        let [a, b, c] = candidates(view.available.len(), random);
        let led = |at: usize| view.available.get(at).copied().unwrap_or(0);
        let drawn = [led(a), led(b), led(c)];
        let best = seen.soonest(drawn);
        let best = best.unwrap_or_else(|| soonest_new(lanes, seen, drawn, random));
        let queued = view.queued.waiting_bytes(best);
        // What is within the slack is within every bound on queues: most often that is all to ask.
        if queued <= slack && !self.sticky.masks(view, best, now) {
            return best;
        }
        self.soonest_free(lanes, seen, drawn, view, now, random)
    }

    /// The soonest of the candidates whose leaders take records.
    #[inline(never)]
    fn soonest_free(
        &self,
        lanes: &Lanes,
        seen: Seen<'_>,
        drawn: [i32; CANDIDATES],
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> i32 {
        // One that chance alone chose among few must be as good for its broker as the others are.
        let led = |at: usize| view.available.get(at).copied().unwrap_or(0);
        let count = view.available.len();
        let all = (count <= CANDIDATES).then(|| few_places(count, random, 1).map(led));
        let queue_max = self.queue_max(all.unwrap_or(drawn), view);
        let best = |of| {
            let waits = waits_of_new(lanes, seen, of, random);
            self.best_free(of, waits, queue_max, view, now)
        };
        // When the leaders of all of them take nothing, any other is better.
        best(drawn)
            .or_else(|| best(all?))
            .unwrap_or_else(|| self.sticky.choose(view, now, random, None))
    }

    /// Of partitions that wait so long, the soonest whose broker takes records.
    #[inline]
    fn best_free(
        &self,
        drawn: [i32; CANDIDATES],
        waits: [f32; CANDIDATES],
        queue_max: u64,
        view: &TopicView<'_>,
        now: Instant,
    ) -> Option<i32> {
        let is_free = |at: &usize| {
            let partition = drawn.get(*at).copied().unwrap_or(0);
            view.queued.waiting_bytes(partition) <= queue_max
                && !self.sticky.masks(view, partition, now)
        };
        let wait = |at: &usize| waits.get(*at).copied().unwrap_or(f32::MAX);
        let free = (0..CANDIDATES).filter(is_free);
        let best = free.min_by(|a, b| wait(a).total_cmp(&wait(b)));
        best.and_then(|at| drawn.get(at).copied())
    }

    /// The most that may wait for a candidate's broker.
    fn queue_max(&self, drawn: [i32; CANDIDATES], view: &TopicView<'_>) -> u64 {
        let waiting = drawn.map(|partition| view.queued.waiting_bytes(partition));
        let shortest = waiting.into_iter().min().unwrap_or(0);
        let slack = slack(self.sticky.bytes(view), view);
        shortest.saturating_mul(2).saturating_add(slack)
    }

    /// Whether keys may leave the partitions where they are. A key's records carry no time to measure
    /// a plan's age by: figures that are too old are replaced by the one who publishes, and when that
    /// one is gone, they are the last.
    fn may_move(&self) -> bool {
        let is_on = self.steering.load(Ordering::Relaxed) == Steering::On as u8;
        is_on && !self.plan.is_over()
    }

    /// Where a keyed record goes under a policy that may move it.
    #[inline(never)]
    fn moved(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        let is_on = self.steering.load(Ordering::Relaxed) == Steering::On as u8;
        let by_hash = || self.sticky.keyed(view, key);
        let entries = match self.keys {
            KeyPolicy::Blind if is_on => return KeyChoice::Run,
            KeyPolicy::Keep | KeyPolicy::Blind => return by_hash(),
            KeyPolicy::Migrate { .. } => return self.migrated(view, key),
            KeyPolicy::Sticky { entries } => entries,
        };
        let plan = self.plan.load();
        let Some(topic) = plan.as_deref().and_then(|plan| plan.topic(view.topic)) else {
            return by_hash();
        };
        let home = java_partition(key, view.partition_count);
        let hash = u64::from(murmur2(key)) << 32 | u64::from(fnv1a(key));
        let away = topic.keys().away(entries);
        topic.keys().used();
        let may_move = self.may_move();
        let is_good = |partition| {
            partition < view.partition_count && (!may_move || !topic.outlook().is_ill(partition))
        };
        let choose = || healthiest(topic, view, hash).unwrap_or(home);
        KeyChoice::Partition(away.place(hash, home, is_good, choose))
    }

    /// Whether a key goes by the slots; by its hash where nothing is known that could move it.
    fn migrated(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        let plan = self.plan.load();
        let Some(plan) = plan.as_deref() else {
            // Where the key's records lie that were written before the start, nobody has said yet.
            return KeyChoice::Tracked;
        };
        let Some(topic) = plan.topic(view.topic) else {
            return self.sticky.keyed(view, key);
        };
        let known = topic.keys().partition_count();
        let is_unheard = known == 0 && !topic.outlook().is_denied;
        match usize::try_from(view.partition_count) == Ok(known) || is_unheard {
            true => KeyChoice::Tracked,
            // It grows, and its keys hash to other partitions; or nobody may see it, and so none was
            // moved.
            false => self.sticky.keyed(view, key),
        }
    }

    fn tracked(
        &self,
        view: &TopicView<'_>,
        key: &[u8],
        slots: usize,
        now: Instant,
    ) -> Option<Box<KeyTicket>> {
        let plan = self.plan.load();
        let topic = plan.as_deref()?.topic(view.topic)?;
        let keys = topic.keys();
        if usize::try_from(view.partition_count) != Ok(keys.partition_count()) {
            return None;
        }
        let moving = if self.may_move() {
            Moving::Allowed
        } else {
            Moving::Stopped
        };
        let slots = keys.slots(slots, now);
        let asking = Asking {
            writer: &self.writer,
            moving,
            now,
            taken_at: topic.taken_at(),
        };
        let ticket = slots.place(view, topic.outlook(), keys.fence(), key, asking)?;
        keys.used();
        Some(ticket)
    }
}

/// Of a few partitions by a key's hash, the healthy one with the least to read; if all of them are
/// ill, the next healthy one, if there is any.
fn healthiest(topic: &TopicPlan, view: &TopicView<'_>, hash: u64) -> Option<i32> {
    let outlook = topic.outlook();
    let drawn = places(view.available.len(), hash).map(|at| view.available.get(at).copied());
    let healthy = |at: &i32| !outlook.is_ill(*at);
    let few = drawn.into_iter().flatten().filter(healthy);
    let best = few.min_by(|a, b| outlook.drain(*a).total_cmp(&outlook.drain(*b)));
    best.or_else(|| {
        let turn = below(hash as u32, view.available.len());
        let turned = view.available.iter().cycle().skip(turn);
        turned.take(view.available.len()).copied().find(healthy)
    })
}

/// What may wait for any candidate's broker, where a run has so many bytes.
#[inline]
fn slack(run_bytes: u32, view: &TopicView<'_>) -> u64 {
    // A batch that is still filled up is no trouble.
    (QUEUE_SLACK_RUNS * u64::from(run_bytes)).max(u64::from(view.batch_bytes))
}

/// The waits where not all candidates may be in the plan.
fn waits_of_new(
    lanes: &Lanes,
    seen: Seen<'_>,
    drawn: [i32; CANDIDATES],
    random: u64,
) -> [f32; CANDIDATES] {
    // A partition made since the plan was taken looks empty to everyone, and own sends to it are not
    // counted: taken in two of three cases it gets at most twice its fair share.
    let wait_when_new = match (random >> 16).is_multiple_of(3) {
        true => f32::MAX,
        false => lanes.wait_when_new(),
    };
    drawn.map(|partition| seen.wait(partition).unwrap_or(wait_when_new))
}

/// The soonest where not all candidates are in the plan.
#[cold]
fn soonest_new(lanes: &Lanes, seen: Seen<'_>, drawn: [i32; CANDIDATES], random: u64) -> i32 {
    first_of(drawn, waits_of_new(lanes, seen, drawn, random))
}

impl Partitioner for LagAware {
    #[inline]
    fn keyed(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        match self.keys {
            KeyPolicy::Keep => self.sticky.keyed(view, key),
            _ => self.moved(view, key),
        }
    }

    fn track(&self, view: &TopicView<'_>, key: &[u8], now: Instant) -> Option<Box<KeyTicket>> {
        match self.keys {
            KeyPolicy::Migrate { slots } => self.tracked(view, key, slots, now),
            _ => None,
        }
    }

    fn needs_idempotence(&self) -> bool {
        matches!(self.keys, KeyPolicy::Migrate { .. })
    }

    /// Until the look after the first record.
    fn placing_time(&self) -> Duration {
        match self.keys {
            KeyPolicy::Migrate { .. } => self.plan.refresh(),
            _ => Duration::ZERO,
        }
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        // A run that took nothing and reserved nothing counts for nothing.
        let nothing = |partition| Run {
            partition,
            bytes: 0,
            records: 0,
        };
        self.next_run(view, now, random, previous.map(|at| (nothing(at), 0)))
    }

    fn end_run(&self, view: &TopicView<'_>, reserved: Run, records: u32) {
        self.plan.with(view.topic, |topic| {
            let tally = topic.ok().and_then(|topic| topic.tally().of(view.stripe));
            if let (Ok(topic), Some(tally)) = (topic, tally) {
                end(topic, tally, view.stripe, &reserved, records);
            }
        });
    }

    fn next_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        ended: Option<(Run, u32)>,
    ) -> Run {
        let ended = &ended;
        // Owned, so that nothing must have an address for the rare case that a plan is looked up.
        self.plan.with(view.topic, move |topic| {
            let next = |topic: &TopicPlan| {
                let tally = topic.tally().of(view.stripe).ok_or(Fallback::NoPlan)?;
                if let Some((run, records)) = ended {
                    end(topic, tally, view.stripe, run, *records);
                }
                self.steered(topic, tally, view, now, random)
            };
            topic.and_then(next).unwrap_or_else(|reason| {
                let reason = self.asked(view).err().unwrap_or(reason);
                let previous = ended.as_ref().map(|(run, _)| run.partition);
                self.unsteered(reason, view, now, random, previous)
            })
        })
    }
}

/// Counts a run that has ended, and takes back what it did not use.
#[inline]
fn end(
    topic: &TopicPlan,
    tally: Share<'_, PartitionTally>,
    stripe: usize,
    reserved: &Run,
    records: u32,
) {
    tally.add_records(reserved.partition, records);
    let unused = reserved.records.saturating_sub(records);
    if reserved.records == Run::UNLIMITED || unused == 0 {
        return;
    }
    if let Choice::Drain(lanes) = topic.choice() {
        // A run that began without this plan was not counted in it; the estimate never falls below
        // nothing, and the next plan corrects it.
        lanes.take_back(reserved.partition, stripe, unused);
    }
}

mod places;

#[cfg(test)]
mod tests;
