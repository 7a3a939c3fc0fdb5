//! The rules of choice that are compared: the project's own, run as it is, and others.

use super::scenario::Setup;
use super::vq3::Vq3;
use super::world::Offsets;
use fastrand::Rng;
use ottla_lag::health::{Observed, Observer, Threshold};
use ottla_partitioner::{
    LagAware, NoQueues, Partitioner, PlanPublisher, Run, Sticky, TopicView, plan_channel,
};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TOPIC: &str = "orders";

/// A rule of choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Kafka's own: any partition, here with no broker that is slow (KIP-794).
    Uniform,
    /// Any partition among those with a lag of 500 records or less.
    Threshold,
    /// The shorter lag of two random partitions.
    TwoChoices,
    /// The shortest lag of all.
    Shortest,
    /// The study's older algorithm.
    Vq3,
    /// This project's.
    LagAware,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 6] = [
        Self::Uniform,
        Self::Threshold,
        Self::TwoChoices,
        Self::Shortest,
        Self::Vq3,
        Self::LagAware,
    ];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Threshold => "threshold",
            Self::TwoChoices => "two-choices",
            Self::Shortest => "shortest",
            Self::Vq3 => "vq-3",
            Self::LagAware => "lag-aware",
        }
    }

    /// What a producer needs to choose by this rule.
    pub(super) fn chooser(self, setup: &Setup, start: Instant) -> Box<dyn Chooser> {
        let steered = |observer: Observer, watches: bool| {
            let (publisher, reader) = plan_channel();
            let mut steer = LagAware::new(reader);
            if setup.run == 1 {
                // The study's choice is one a record.
                steer = steer.run_drain(Duration::ZERO);
            }
            Box::new(Steered {
                observer: watches.then_some(observer),
                publisher,
                partitioner: if watches {
                    Box::new(steer)
                } else {
                    Box::new(Sticky::default())
                },
                partitions: (0..setup.partitions as i32).collect(),
                refresh: Duration::from_secs_f64(setup.refresh),
                start,
                observed: Vec::new(),
                last: None,
            })
        };
        let observer = || Observer::new(Duration::from_secs_f64(setup.refresh));
        match self {
            Self::Uniform => steered(observer(), false),
            Self::Threshold => {
                let threshold = Arc::new(Threshold::default());
                steered(observer().with_scorer(threshold), true)
            }
            Self::LagAware => steered(observer(), true),
            Self::TwoChoices => Box::new(Lags::new(setup, Among::Two)),
            Self::Shortest => Box::new(Lags::new(setup, Among::All)),
            Self::Vq3 => Box::new(Vq3::new(setup.partitions, setup.refresh)),
        }
    }
}

/// What one producer knows and how it chooses. Times are seconds since the run began.
pub(super) trait Chooser: fmt::Debug {
    /// Takes in what a look at `now` found.
    fn look(&mut self, now: f64, seen: &[Offsets]);

    /// The partition for the next records, and for how many, from one to `most`.
    fn choose(&mut self, now: f64, most: u32, rng: &mut Rng) -> (usize, u32);
}

/// The project's observer, plan and partitioner, as a producer has them.
#[derive(Debug)]
struct Steered {
    observer: Option<Observer>,
    publisher: PlanPublisher,
    partitioner: Box<dyn Partitioner>,
    partitions: Vec<i32>,
    refresh: Duration,
    start: Instant,
    observed: Vec<Observed>,
    /// The last run and how many records went with it.
    last: Option<(Run, u32)>,
}

impl Steered {
    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn view(&self) -> TopicView<'_> {
        TopicView {
            topic: TOPIC,
            partition_count: self.partitions.len() as i32,
            available: &self.partitions,
            queued: &NoQueues,
            batch_bytes: 1_000_000,
            stripe: 0,
        }
    }
}

impl Chooser for Steered {
    fn look(&mut self, now: f64, seen: &[Offsets]) {
        let at = self.at(now);
        let Some(observer) = &mut self.observer else {
            return;
        };
        self.observed.clear();
        self.observed
            .extend(seen.iter().map(|offsets| Observed::Lag {
                end: offsets.end as i64,
                committed: offsets.committed as i64,
                lag: offsets.lag() as u64,
                lost: 0,
            }));
        let sent = self.publisher.sent(TOPIC);
        let health = observer.observe(at, &self.observed, sent);
        let plan = health.into_plan(TOPIC.into(), at, self.refresh);
        self.publisher.publish(vec![plan]);
    }

    fn choose(&mut self, now: f64, most: u32, rng: &mut Rng) -> (usize, u32) {
        let (now, view) = (self.at(now), self.view());
        if let Some((run, records)) = self.last {
            self.partitioner.end_run(&view, run, records);
        }
        let run = self.partitioner.begin_run(&view, now, rng.u64(..), None);
        let records = run.records.min(most);
        self.last = Some((run, records));
        (usize::try_from(run.partition).unwrap_or(0), records)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Among {
    Two,
    All,
}

/// The shortest lag, as it was at the last look.
#[derive(Debug)]
struct Lags {
    lags: Vec<usize>,
    among: Among,
}

impl Lags {
    fn new(setup: &Setup, among: Among) -> Self {
        Self {
            lags: vec![0; setup.partitions],
            among,
        }
    }
}

impl Chooser for Lags {
    fn look(&mut self, _now: f64, seen: &[Offsets]) {
        self.lags.clear();
        self.lags.extend(seen.iter().map(|offsets| offsets.lag()));
    }

    fn choose(&mut self, _now: f64, most: u32, rng: &mut Rng) -> (usize, u32) {
        let count = self.lags.len();
        let lag = |at: &usize| self.lags.get(*at).copied().unwrap_or(0);
        let from = rng.usize(..count);
        let chosen = match self.among {
            Among::Two => {
                let other = (from + 1 + rng.usize(..count - 1)) % count;
                [from, other].into_iter().min_by_key(lag)
            }
            // Turned, so that of equal lags any may be the first.
            Among::All => (0..count).map(|at| (at + from) % count).min_by_key(lag),
        };
        (chosen.unwrap_or(0), most)
    }
}
