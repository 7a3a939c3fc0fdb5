//! From lag to a plan: what each partition's consumer manages, what it is behind by, and where new
//! records should go. Pure: the time is an argument.
//!
//! Raw lag is the wrong measure: between two commits a fast partition looks worse than a slow one,
//! and the figures are always old. So the observer learns rates over windows longer than the timing
//! error of commits, finds out how much lag commits alone explain, and counts only the rest. There
//! is no rule for a stalled consumer: an honest backlog is enough, also where a consumer drains one
//! of its partitions before the next.
//!
//! The study's VQ-4 with five changes that the steering benchmark finds better:
//!
//! - Steering begins with the first commit seen, not with the second. VQ-4 needs two commits of a
//!   partition for a rate, which takes a minute where commits are 30 s apart, and until then a slow
//!   consumer gets what the others get. But the lag left after the first one is a backlog already,
//!   and what that commit took bounds the rate from above. So until a rate is known, what is written
//!   to a middle partition stands for it: consumers that keep up read just that. With a commit every
//!   30 s the slowest hundredth of the records waits a tenth as long beside one slow consumer, and a
//!   sixth where consumers differ.
//! - A consumer counts as idle, and what it read as a lower bound only, when what a commit left is
//!   within a part of what commits may explain that is smaller the more often we look. Within all of
//!   it, rates of busy consumers were hardly ever learnt anew. With commits every 0.1 s and looks
//!   every second the slowest hundredth waits half as long beside a slow consumer, and where
//!   consumers differ.
//! - What an idle consumer read says that it is faster than thought only if it is more than chance
//!   sends. Records go by rates, and an idle consumer reads what it is sent: so with every commit
//!   the luckiest partition was taken for a little faster, was sent a little more, and after minutes
//!   had more than its consumer could read. A healthy group with a commit every 30 s and twenty
//!   producers that look together waited up to five times as long as without steering.
//! - The rate in the middle is at least what is written to a middle partition of those that are
//!   caught up, for they read that. First rates come from few commits seen late, and most were taken
//!   too low; the few that were not then stayed high beside them, for an idle consumer never shows
//!   that it is slower, and got more than their consumers could read.
//! - What the other producers send meanwhile is what their choice makes of the shares, not the shares
//!   themselves. It matters where few partitions are well and producers are many: each of a hundred
//!   left the two of twelve that were well to the others, and with ten consumers five times slower and
//!   commits every 0.1 s the slowest hundredth waited four times as long. Four producers choose as
//!   before.

mod drawn;
mod groups;
mod lane;
mod observed;
mod scorer;
mod silence;
mod smoothed;
mod waterfill;

pub use observed::Observed;
pub use scorer::{DrainScore, HealthScorer, Linear, SHARE_MAX, Threshold};

use crate::snapshot::TopicLag;
use lane::{Explained, FirstSample, Lane, Step};
use ottla_partitioner::{Drain, DrainPartition, Fallback, PartitionHealth, Status, TopicPlan};
use smoothed::Smoothed;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waterfill::waterfill;

/// The edge of the saw that commits cut into the lag is this many times the lower quartile of the
/// lag left just after a commit. It works while under three quarters of the group lag.
const SAW_EDGE: f64 = 3.5;

/// How fast a smaller edge is believed, in seconds, and a larger: congestion grows it too and must
/// not be taken for a commit interval.
const EDGE_FALLS_SECONDS: f64 = 10.0;
const EDGE_RISES_SECONDS: f64 = 60.0;

/// At this time between observations, in seconds, a consumer counts as idle within all that commits
/// explain; at shorter ones within as much less. A rate taken too low acts until the next look, and
/// with twenty producers that look every 5 s it made a healthy group wait three times as long.
const IDLE_WHOLE_SECONDS: f64 = 5.0;

/// The share of partitions that, when observations see no commit where one was due, makes commits
/// explain a whole refresh of lag.
const MISSED_SHARE: f64 = 1.0 / 6.0;

/// A backlog that is drained sooner than this counts as none, in seconds: a transaction's marker or
/// a compacted record leaves a lag of 1 for ever.
const BACKLOG_MIN_SECONDS: f64 = 0.02;

/// A partition without a commit counts as stalled when others commit and it has grown for this many
/// refreshes.
const NO_COMMIT_REFRESHES: f64 = 10.0;

/// A partition that was not heard of for as long, in seconds and refreshes, is taken for the middle
/// of the others: no figure steers for longer than a plan does.
const SILENCE_MAX_SECONDS: f64 = 60.0;
const SILENCE_MAX_REFRESHES: f64 = 4.0;

/// The least time that new records are shared out over, in seconds.
const HORIZON_MIN_SECONDS: f64 = 0.25;

/// What an observation led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// By partition.
    pub partitions: Vec<PartitionHealth>,
    /// How to place records, or why they cannot be steered.
    pub choice: Result<Placing, Fallback>,
}

/// How to place records.
#[derive(Debug, Clone, PartialEq)]
pub enum Placing {
    /// By drain time, with own sends counted.
    Drain(Drain),
    /// By a scorer's weights, one a partition, which sum to 1.
    Weights(Vec<f64>),
}

impl Health {
    /// Makes the topic's part of a plan. What it tells as weights is what the choice makes of them.
    pub fn into_plan(mut self, topic: Arc<str>, taken_at: Instant, refresh: Duration) -> TopicPlan {
        let plan = match self.choice {
            Ok(Placing::Drain(mut drain)) => {
                let shares = drawn::drawn(&drain);
                for (partition, share) in self.partitions.iter_mut().zip(&shares) {
                    partition.weight = *share;
                }
                // The others choose among a few as well: that is what comes from them meanwhile.
                for (partition, share) in drain.partitions.iter_mut().zip(&shares) {
                    partition.share = *share;
                }
                TopicPlan::drain(topic, taken_at, refresh, &drain)
            }
            Ok(Placing::Weights(weights)) => {
                TopicPlan::weighted(topic, taken_at, refresh, &weights)
            }
            Err(reason) => {
                let count = self.partitions.len();
                TopicPlan::uniform(topic, taken_at, refresh, count, reason)
            }
        };
        plan.with_health(self.partitions)
    }
}

/// Watches one topic of one group from observation to observation.
///
/// A topic made anew under the same name needs a new observer.
#[derive(Debug)]
pub struct Observer {
    refresh: f64,
    scorer: Option<Arc<dyn HealthScorer>>,
    began: Option<Instant>,
    last: f64,
    observations: u64,
    lanes: Vec<Lane>,
    ends: Vec<Option<i64>>,
    /// What is written to each partition; stands for its rate while no partition has one.
    written: Vec<Smoothed>,
    /// For partitions without a commit: since when, and the end then.
    uncommitted: Vec<Option<(f64, i64)>>,
    arrival: Smoothed,
    own: Smoothed,
    sent: u64,
    explained: Explained,
    edge: Option<f64>,
    median: Option<f64>,
}

impl Observer {
    /// Begins to watch. `refresh` is the interval between observations.
    pub fn new(refresh: Duration) -> Self {
        // A refresh of nothing would divide by zero.
        let refresh = refresh.as_secs_f64().max(1e-3);
        Self {
            refresh,
            scorer: None,
            began: None,
            last: 0.0,
            observations: 0,
            lanes: Vec::new(),
            ends: Vec::new(),
            written: Vec::new(),
            uncommitted: Vec::new(),
            arrival: Smoothed::default(),
            own: Smoothed::default(),
            sent: 0,
            explained: Explained {
                delta: refresh,
                delta_backlog: refresh,
                delta_idle: refresh,
            },
            edge: None,
            median: None,
        }
    }

    /// Places records by these scores instead of by drain time.
    #[must_use]
    pub fn with_scorer(mut self, scorer: Arc<dyn HealthScorer>) -> Self {
        self.scorer = Some(scorer);
        self
    }

    /// Takes in one topic of a snapshot; see [`observe`](Self::observe).
    pub fn observe_topic(&mut self, taken_at: Instant, topic: &TopicLag, sent: u64) -> Health {
        let observed = topic.partitions.iter().map(|p| Observed::of(p, taken_at));
        let mut health = self.observe(taken_at, &observed.collect::<Vec<_>>(), sent);
        for (health, partition) in health.partitions.iter_mut().zip(&topic.partitions) {
            health.taken_at = Some(partition.taken_at);
        }
        health
    }

    /// Takes in the offsets of every partition, as of `taken_at`. `sent` counts the keyless records
    /// that the producers steered by this observer have sent since it began.
    pub fn observe(&mut self, taken_at: Instant, observed: &[Observed], sent: u64) -> Health {
        let began = *self.began.get_or_insert(taken_at);
        let now = taken_at.saturating_duration_since(began).as_secs_f64();
        let elapsed = if self.observations > 0 {
            now - self.last
        } else {
            0.0
        };
        self.observations += 1;
        self.last = now;
        self.lanes.resize_with(observed.len(), Lane::default);
        self.uncommitted.resize(observed.len(), None);
        self.learn_arrivals(observed, elapsed, sent);
        let cap = self.refresh.max(elapsed.min(3.0 * self.refresh));

        let steps = self.learn_commits(now, observed);
        self.first_rates(&steps, elapsed, cap);
        self.median = self.middle_rate().or(self.median);
        self.learn_explained(&steps, elapsed, cap);
        let health = match self.median.or_else(|| self.presumed()).filter(|m| *m > 0.0) {
            None => self.unsteered(observed),
            Some(median) => {
                self.learn_backlogs(now, elapsed, observed, &steps, median);
                self.health(now, observed, &steps, median)
            }
        };
        self.scored(health, observed)
    }

    /// The rate in the middle, and at least what is written to a middle partition of those that are
    /// caught up: who keeps up reads that.
    fn middle_rate(&self) -> Option<f64> {
        let rate = median(self.lanes.iter().filter_map(|lane| lane.rate))?;
        let lanes = self.lanes.iter().zip(&self.written);
        let caught_up = lanes.filter(|(lane, _)| lane.has_commit() && lane.backlog == 0.0);
        let written: Vec<f64> = caught_up
            .filter_map(|(_, written)| written.known())
            .collect();
        if written.len() * 2 <= self.lanes.len() {
            return Some(rate);
        }
        Some(median(written.into_iter()).map_or(rate, |written| rate.max(written)))
    }

    /// Before any consumer's rate is known: what is written to a partition in the middle. Consumers
    /// that keep up read just that, and the lag that is left after a first commit already tells who
    /// does not; a rate needs a second one.
    fn presumed(&self) -> Option<f64> {
        let committed = self.lanes.iter().any(Lane::has_jumped);
        let written = self.written.iter().filter_map(|written| written.known());
        median(written).filter(|_| committed)
    }

    fn learn_arrivals(&mut self, observed: &[Observed], elapsed: f64, sent: u64) {
        self.ends.resize(observed.len(), None);
        self.written.resize_with(observed.len(), Smoothed::default);
        let mut grown = 0.0;
        for ((known, seen), written) in self.ends.iter_mut().zip(observed).zip(&mut self.written) {
            if let (Some(old), Some(new)) = (*known, seen.end()) {
                // A log that was cut did not receive less than nothing.
                let records = new.saturating_sub(old).max(0) as f64;
                grown += records;
                if elapsed > 0.0 {
                    written.learn(records / elapsed, elapsed);
                }
            }
            *known = seen.end().or(*known);
        }
        let own = sent.saturating_sub(self.sent) as f64;
        self.sent = sent;
        if elapsed > 0.0 {
            self.arrival.learn(grown / elapsed, elapsed);
            self.own.learn(own / elapsed, elapsed);
        }
    }

    fn learn_commits(&mut self, now: f64, observed: &[Observed]) -> Vec<Step> {
        let (explained, median) = (self.explained, self.median);
        let too_old = SILENCE_MAX_SECONDS.max(SILENCE_MAX_REFRESHES * self.refresh);
        let lanes = self.lanes.iter_mut().zip(&mut self.uncommitted);
        let steps = lanes.zip(observed).map(|((lane, uncommitted), seen)| {
            if let Observed::NoCommit { end } = *seen {
                uncommitted.get_or_insert((now, end));
            } else if *seen != Observed::Missing {
                *uncommitted = None;
            }
            match *seen {
                Observed::Lag {
                    committed,
                    lag,
                    lost,
                    ..
                } => lane.observe(now, committed, lag as f64, lost > 0, explained, median),
                Observed::NoCommit { .. } | Observed::BeyondEnd { .. } => {
                    lane.lose_commit();
                    Step::default()
                }
                Observed::Missing => {
                    lane.miss(now, too_old);
                    Step::default()
                }
            }
        });
        steps.collect()
    }

    /// Gives first rates to lanes whose first sample came before there was a median.
    fn first_rates(&mut self, steps: &[Step], elapsed: f64, cap: f64) {
        let of = |sample: FirstSample| sample.records / sample.seconds;
        if let Some(median) = median(steps.iter().filter_map(|s| s.first_sample).map(of)) {
            for (lane, step) in self.lanes.iter_mut().zip(steps) {
                if let Some(sample) = step.first_sample {
                    lane.set_first_rate(sample, self.explained, median);
                }
            }
        }
        if self.observations != 2 || elapsed <= 0.0 {
            return;
        }
        // When nearly every partition committed between the first two observations, commits are
        // frequent, and what was consumed in between is a rate already.
        let jumped = steps.iter().filter(|step| step.jumped.is_some()).count();
        if jumped == 0 || jumped * 4 < self.lanes.len() * 3 {
            return;
        }
        let rates = || {
            steps
                .iter()
                .map(|s| s.first_jump.map(|moved| moved / elapsed))
        };
        let ages = self.lanes.iter().zip(rates());
        let ages = ages.filter_map(|(lane, rate)| Some(lane.lag_after_commit(rate?)));
        // The middle one, not the quartile: a few young lags are no sign of frequent commits where
        // they come about as often as we look.
        let Some(age) = median(ages) else {
            return;
        };
        let delta = (2.0 * (SAW_EDGE * age).min(cap)).min(cap);
        if elapsed < 0.9 * f64::max(1.0, 2.0 * delta) {
            return;
        }
        for (lane, rate) in self.lanes.iter_mut().zip(rates()) {
            lane.rate = lane.rate.or(rate);
        }
    }

    fn learn_explained(&mut self, steps: &[Step], elapsed: f64, cap: f64) {
        for (lane, step) in self.lanes.iter_mut().zip(steps) {
            if step.jumped.is_some() {
                lane.learn_lag_age(cap);
            }
        }
        let known = self.lanes.iter().filter(|lane| lane.has_commit()).count();
        let ages = || self.lanes.iter().filter_map(Lane::lag_age);
        let mut delta = cap;
        if ages().count() * 2 >= known.max(1)
            && let Some(quartile) = lower_quartile(ages())
        {
            let target = (SAW_EDGE * quartile).min(cap);
            let edge = match self.edge {
                None => (2.0 * target).min(cap),
                Some(edge) => {
                    let seconds = if target < edge {
                        EDGE_FALLS_SECONDS
                    } else {
                        EDGE_RISES_SECONDS
                    };
                    edge + (1.0 - (-elapsed / seconds).exp()) * (target - edge)
                }
            };
            self.edge = Some(edge);
            delta = edge.min(cap);
        }
        let missed = self.lanes.iter().filter(|lane| lane.missed > 0.5).count();
        if missed > 0 && missed as f64 >= MISSED_SHARE * known as f64 {
            delta = cap;
        }
        let delta_backlog = delta * delta / cap;
        let cautious = delta * (cap / IDLE_WHOLE_SECONDS).min(1.0);
        self.explained = Explained {
            delta,
            delta_backlog,
            delta_idle: delta_backlog.max(cautious),
        };
    }

    fn learn_backlogs(
        &mut self,
        now: f64,
        elapsed: f64,
        observed: &[Observed],
        steps: &[Step],
        median_rate: f64,
    ) {
        let explained = self.explained;
        let gap = median(self.lanes.iter().filter_map(Lane::gap));
        for ((lane, seen), step) in self.lanes.iter_mut().zip(observed).zip(steps) {
            match *seen {
                Observed::Lag { lag, .. } => {
                    lane.learn_backlog(now, lag as f64, step.jumped, explained, median_rate, gap);
                }
                Observed::Missing if lane.has_commit() => {
                    // What is known of it goes on to drain, at half speed as the choice has it.
                    let drained = 0.5 * lane.rate_or(median_rate) * elapsed;
                    lane.backlog = (lane.backlog - drained).max(0.0);
                }
                Observed::Missing | Observed::NoCommit { .. } | Observed::BeyondEnd { .. } => {}
            }
            if lane.backlog < BACKLOG_MIN_SECONDS * lane.rate_or(median_rate) {
                lane.backlog = 0.0;
            }
        }
        // Partitions that say nothing are taken to be as far behind as the middle of the others.
        let known = self.lanes.iter().filter(|lane| lane.has_commit());
        let drain_times = known.map(|lane| lane.backlog / lane.rate_or(median_rate));
        let neutral = median(drain_times).unwrap_or(0.0);
        let others_commit = steps
            .iter()
            .any(|step| step.first_jump.is_some() || step.jumped.is_some());
        for ((lane, seen), uncommitted) in
            self.lanes.iter_mut().zip(observed).zip(&self.uncommitted)
        {
            if lane.has_commit() {
                continue;
            }
            lane.rate = None;
            lane.backlog = neutral * median_rate;
            if let (Some(end), Some((since, end_then))) = (seen.end(), *uncommitted)
                && others_commit
                && now - since > NO_COMMIT_REFRESHES * self.refresh
            {
                let grown = end.saturating_sub(end_then).max(0) as f64;
                lane.backlog = lane.backlog.max(grown);
            }
        }
    }

    fn health(&self, now: f64, observed: &[Observed], steps: &[Step], median_rate: f64) -> Health {
        let rate = |lane: &Lane| lane.rate_or(median_rate);
        let parts: Vec<(f64, f64)> = self.lanes.iter().map(|l| (rate(l), l.backlog)).collect();
        let horizon = f64::max(0.5 * self.refresh, HORIZON_MIN_SECONDS);
        // With nothing arriving, the shares of a first record are still worth showing.
        let shares = waterfill(&parts, (self.arrival.get() * horizon).max(1.0));
        let partitions = (0i32..)
            .zip(&self.lanes)
            .zip(observed)
            .zip(steps)
            .zip(&shares);
        let partitions = partitions.map(|((((partition, lane), seen), step), share)| {
            let (status, reason) = self.status(now, lane, *seen, *step);
            PartitionHealth {
                partition,
                lag: seen.lag(),
                backlog: lane.has_commit().then_some(lane.backlog),
                rate: lane.rate,
                drain_time: lane
                    .has_commit()
                    .then(|| Duration::try_from_secs_f64(lane.backlog / rate(lane)).ok())
                    .flatten(),
                weight: *share,
                status,
                reason,
                group: None,
                taken_at: None,
            }
        });
        let lanes = parts.iter().zip(&shares);
        Health {
            partitions: partitions.collect(),
            choice: Ok(Placing::Drain(Drain {
                partitions: lanes
                    .map(|((rate, backlog), share)| DrainPartition {
                        rate: *rate,
                        backlog: *backlog,
                        share: *share,
                    })
                    .collect(),
                arrival_rate: self.arrival.get(),
                own_rate: self.own.get(),
            })),
        }
    }

    fn status(&self, now: f64, lane: &Lane, seen: Observed, step: Step) -> (Status, &'static str) {
        match seen {
            Observed::Missing if lane.has_commit() => (
                Status::Unknown,
                "not heard of this time: drained on from its last figures",
            ),
            Observed::Missing => (
                Status::Unknown,
                "not heard of: taken as the middle of the others",
            ),
            Observed::BeyondEnd { .. } => (
                Status::BeyondEnd,
                "commit beyond the end: taken as the middle of the others",
            ),
            Observed::NoCommit { .. } => (
                Status::NoCommit,
                "no commit: taken as the middle of the others",
            ),
            Observed::Lag { .. } if step.rewound => (
                Status::Rewound,
                "the commit went back: its rate is kept, its backlog found anew",
            ),
            Observed::Lag { lag, .. } if lane.rate.is_none() && lane.backlog == 0.0 => (
                match lag {
                    0 => Status::CaughtUp,
                    _ => Status::Measuring,
                },
                "its rate is not known yet: taken as the median",
            ),
            Observed::Lag { .. } if lane.backlog == 0.0 => {
                (Status::CaughtUp, "commits explain its lag")
            }
            Observed::Lag { .. } => {
                let patience = |gap: f64| 2.5 * gap.max(self.refresh);
                if lane
                    .quiet(now)
                    .is_some_and(|(quiet, gap)| quiet > patience(gap))
                {
                    (
                        Status::Stalled,
                        "its commits stand still while records wait",
                    )
                } else {
                    (Status::Lagging, "more waits than commits explain")
                }
            }
        }
    }

    /// Before any rate is known: what is known, and no choice.
    fn unsteered(&self, observed: &[Observed]) -> Health {
        let committed = self.lanes.iter().any(Lane::has_commit);
        let missing = observed.iter().all(|seen| *seen == Observed::Missing);
        let reason = if committed || missing {
            Fallback::NoRates
        } else {
            Fallback::NoCommits
        };
        let weight = 1.0 / observed.len().max(1) as f64;
        let partitions = (0i32..).zip(&self.lanes).zip(observed);
        let partitions = partitions.map(|((partition, lane), seen)| {
            let (status, _) = self.status(self.last, lane, *seen, Step::default());
            PartitionHealth {
                partition,
                lag: seen.lag(),
                backlog: None,
                rate: None,
                drain_time: None,
                weight,
                status,
                reason: "no consumption rate is known yet: all partitions alike",
                group: None,
                taken_at: None,
            }
        });
        Health {
            partitions: partitions.collect(),
            choice: Err(reason),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values = sorted(values);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(0.5 * (lower + upper))
}

fn lower_quartile(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values = sorted(values);
    values.get(values.len() / 4).copied()
}

#[cfg(test)]
mod failures;
#[cfg(test)]
mod tests;
