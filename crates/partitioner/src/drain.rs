//! The choice by drain time: which of a few random partitions will have its next record read first.
//!
//! A plan gives each partition's consumption rate and backlog as the collector saw them. Between
//! two plans each partition's queue is carried on: the backlog drains at half its consumer's speed
//! (half, because the speed was seen a while ago and may have gone down), own sends add to it, and
//! what the other producers send is added as a flow. So many producers with the same old figures do
//! not all run to the same partition.

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

/// One partition's queue as estimated. The constant part and the estimate stand together, so that
/// looking at a candidate costs one cache line.
#[derive(Debug)]
#[repr(align(32))]
struct Lane {
    rate: f32,
    seconds_a_record: f32,
    backlog: f32,
    /// Records a second that other producers send here.
    inflow: f32,
    /// When the backlog will be gone, in seconds since the plan was taken.
    clear_at: f32,
    /// High half: when `sent` was last brought up to date, in microseconds since the plan was
    /// taken. Low half: the bits of `sent` (f32), what was added since the plan and is still unread.
    state: AtomicU64,
}

fn pack(micros: u32, sent: f32) -> u64 {
    u64::from(micros) << 32 | u64::from(sent.to_bits())
}

impl Lane {
    /// What was sent since the plan was taken and is still unread at `micros`.
    fn sent_at(&self, state: u64, micros: u32, age: Age) -> f32 {
        let since = (state >> 32) as u32;
        let sent = f32::from_bits(state as u32);
        let seconds = micros.saturating_sub(since) as f32 * 1e-6;
        // The consumer reads what was there before what was sent since; so the backlog needs no
        // state of its own, only the moment at which it will be gone.
        let busy_until = match age {
            Age::Fresh => self.clear_at,
            Age::Stale => 0.0,
        };
        let reading = (micros as f32 * 1e-6 - busy_until.max(since as f32 * 1e-6)).max(0.0);
        (sent + self.inflow * seconds - self.rate * reading).max(0.0)
    }

    fn backlog_at(&self, micros: u32, age: Age) -> f32 {
        match age {
            Age::Fresh => {
                (self.backlog - BACKLOG_DRAIN * self.rate * micros as f32 * 1e-6).max(0.0)
            }
            Age::Stale => 0.0,
        }
    }

    fn add(&self, micros: u32, age: Age, records: f32) {
        let mut state = self.state.load(Ordering::Relaxed);
        for _ in 0..RACE_MAX {
            // Another thread may have been here a moment later than us: time only goes forward.
            let at = micros.max((state >> 32) as u32);
            let sent = (self.sent_at(state, at, age) + records).max(0.0);
            match self.state.compare_exchange_weak(
                state,
                pack(at, sent),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
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
            let rate = rate.clamp(RATE_MIN, FIGURE_MAX) as f32;
            let backlog = clean(p.backlog) as f32;
            Lane {
                rate,
                seconds_a_record: rate.recip(),
                backlog,
                inflow: (others * clean(p.share).min(1.0)) as f32,
                clear_at: backlog / (BACKLOG_DRAIN * rate),
                state: AtomicU64::new(pack(0, 0.0)),
            }
        };
        Some(Self {
            lanes: drain.partitions.iter().map(lane).collect(),
            scale: scale as f32,
            own_rate: own as f32,
            median_rate: median as f32,
        })
    }

    fn lane(&self, partition: i32) -> Option<&Lane> {
        self.lanes.get(usize::try_from(partition).ok()?)
    }

    /// Whether the plan speaks of this partition.
    pub(crate) fn knows(&self, partition: i32) -> bool {
        self.lane(partition).is_some()
    }

    /// In how many seconds a record sent now will be read. A partition that the plan does not know
    /// is new: empty, at the median's speed.
    pub(crate) fn wait(&self, partition: i32, micros: u32, age: Age) -> f32 {
        match self.lane(partition) {
            Some(lane) => {
                let sent = lane.sent_at(lane.state.load(Ordering::Relaxed), micros, age);
                (sent + lane.backlog_at(micros, age) + self.scale) * lane.seconds_a_record
            }
            None => self.scale / self.median_rate,
        }
    }

    /// How many records a run to this partition may have: `drain_seconds` of what its consumer
    /// reads, and no more than the producers write in `span_seconds`. At least one.
    pub(crate) fn run_records(&self, partition: i32, drain_seconds: f32, span_seconds: f32) -> u32 {
        let drained = self.rate(partition) * drain_seconds;
        let written = self.own_rate * span_seconds;
        (drained.min(written) as u32).max(1)
    }

    /// What its consumer reads, in records a second.
    fn rate(&self, partition: i32) -> f32 {
        self.lane(partition)
            .map_or(self.median_rate, |lane| lane.rate)
    }

    /// Counts records as sent (or, if negative, as not sent after all).
    pub(crate) fn add(&self, partition: i32, micros: u32, age: Age, records: i64) {
        if let Some(lane) = self.lane(partition) {
            lane.add(micros, age, self.scale * records as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lanes(partitions: &[(f64, f64)], arrival_rate: f64, own_rate: f64) -> Lanes {
        let share = 1.0 / partitions.len() as f64;
        let partitions = partitions
            .iter()
            .map(|(rate, backlog)| DrainPartition {
                rate: *rate,
                backlog: *backlog,
                share,
            })
            .collect();
        Lanes::new(&Drain {
            partitions,
            arrival_rate,
            own_rate,
        })
        .unwrap()
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() <= 1e-3 * b.abs().max(1.0)
    }

    const FRESH: Age = Age::Fresh;

    #[test]
    fn a_lane_is_half_a_cache_line() {
        assert_eq!(size_of::<Lane>(), 32);
    }

    #[test]
    fn a_backlog_drains_at_half_speed_and_own_sends_after_it_at_full_speed() {
        let lanes = lanes(&[(100.0, 50.0)], 80.0, 80.0);
        assert!(close(lanes.wait(0, 0, FRESH), 0.51));
        assert!(close(lanes.wait(0, 500_000, FRESH), 0.26));
        lanes.add(0, 500_000, FRESH, 100);
        assert!(close(lanes.wait(0, 500_000, FRESH), 1.26));
        // The backlog is gone at 1 s; then the 100 drain in another second.
        assert!(close(lanes.wait(0, 1_000_000, FRESH), 1.01));
        assert!(close(lanes.wait(0, 1_500_000, FRESH), 0.51));
        assert!(close(lanes.wait(0, 3_000_000, FRESH), 0.01));
    }

    #[test]
    fn an_unused_reservation_is_taken_back() {
        let lanes = lanes(&[(100.0, 0.0)], 80.0, 80.0);
        lanes.add(0, 0, FRESH, 50);
        lanes.add(0, 0, FRESH, -40);
        assert!(close(lanes.wait(0, 0, FRESH), 0.11));
        lanes.add(0, 0, FRESH, -1_000);
        assert!(close(lanes.wait(0, 0, FRESH), 0.01), "never below nothing");
    }

    #[test]
    fn other_producers_count_as_a_flow_and_by_the_scale() {
        // One of four alike producers: one own record stands for four, nothing is left as a flow.
        let lanes_of_four = lanes(&[(100.0, 0.0), (100.0, 0.0)], 160.0, 40.0);
        lanes_of_four.add(0, 0, FRESH, 1);
        assert!(close(lanes_of_four.wait(0, 0, FRESH), 0.08));
        // One of a thousand: the scale stops at a quarter of a second of drain; 0.975 is a flow.
        let lanes_of_many = lanes(&[(100.0, 0.0), (100.0, 0.0)], 1_000.0, 1.0);
        assert!(close(lanes_of_many.wait(0, 0, FRESH), 0.25));
        // 975 records a second over two partitions, against 100 read: 387.5 more a second.
        assert!(close(lanes_of_many.wait(0, 1_000_000, FRESH), 4.125));
    }

    #[test]
    fn a_stale_backlog_is_dropped_and_the_rates_stay() {
        let lanes = lanes(&[(100.0, 1e6), (20.0, 0.0)], 80.0, 80.0);
        assert!(lanes.wait(0, 4_000_000, FRESH) > 1_000.0);
        assert!(close(lanes.wait(0, 4_000_000, Age::Stale), 0.01));
        assert!(close(lanes.wait(1, 4_000_000, Age::Stale), 0.05));
    }

    #[test]
    fn a_partition_without_a_rate_has_the_median() {
        let lanes = lanes(
            &[
                (f64::NAN, 0.0),
                (10.0, 0.0),
                (20.0, 0.0),
                (30.0, 0.0),
                (0.0, 0.0),
            ],
            0.0,
            0.0,
        );
        assert!(close(lanes.rate(0), 20.0));
        assert!(close(lanes.rate(4), 20.0));
        assert!(close(lanes.rate(99), 20.0));
        let none = Drain {
            partitions: vec![],
            arrival_rate: 1.0,
            own_rate: 1.0,
        };
        assert!(Lanes::new(&none).is_none());
    }

    proptest! {
        /// The estimate does not depend on how often it is looked at and brought up to date.
        #[test]
        fn looking_often_changes_nothing(
            backlog in 0.0..500.0f64,
            inflow in 0.0..300.0f64,
            sent in 0i64..200,
            steps in proptest::collection::vec(0u32..400_000, 1..20),
        ) {
            let make = || lanes(&[(100.0, backlog)], inflow + 100.0, 100.0);
            let (often, once) = (make(), make());
            // No scale: all others are a flow.
            often.add(0, 0, FRESH, sent);
            once.add(0, 0, FRESH, sent);
            let mut micros = 0;
            for step in steps {
                micros += step;
                often.add(0, micros, FRESH, 0);
            }
            let (a, b) = (often.wait(0, micros, FRESH), once.wait(0, micros, FRESH));
            prop_assert!((a - b).abs() <= 1e-2 * b.max(1.0), "{a} {b}");
        }

        #[test]
        fn any_figures_give_finite_waits(
            rate in any::<f64>(), backlog in any::<f64>(), share in any::<f64>(),
            all in any::<f64>(), own in any::<f64>(), micros in any::<u32>(),
        ) {
            let drain = Drain {
                partitions: vec![
                    DrainPartition { rate, backlog, share },
                    DrainPartition { rate: 100.0, backlog: 0.0, share: 0.5 },
                ],
                arrival_rate: all,
                own_rate: own,
            };
            let lanes = Lanes::new(&drain).unwrap();
            for partition in 0..3 {
                lanes.add(partition, micros, FRESH, 7);
                prop_assert!(lanes.wait(partition, micros, FRESH).is_finite());
            }
        }
    }
}
