//! Scores by which records are placed instead of by drain time: a threshold, a straight line, drain
//! time as a weight, or the user's own.

use super::{Health, Observed, Observer, Placing};
use ottla_partitioner::{Fallback, PartitionHealth};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// No partition gets more than this share of the records by scores, while there is another: what
/// makes all producers send everything to one place makes it the next one to fall behind.
pub const SHARE_MAX: f64 = 0.9;

/// Says how well a partition is doing; records are then placed by these scores.
///
/// Without a scorer records are placed by drain time and with own sends counted, which the steering
/// benchmark finds better than any score: a score is as old as the last look, and every producer
/// follows it alike.
pub trait HealthScorer: fmt::Debug + Send + Sync + 'static {
    /// From 0, it should get nothing, to 1, all is well. What is no number, or below 0, counts as 0,
    /// and more than 1 as 1.
    ///
    /// Asked at every look for every partition whose lag is known. The others, without a commit or
    /// not heard of, get the median of the scores. A panic counts as 0.
    fn score(&self, partition: &PartitionHealth) -> f64;

    /// Partitions that score below it get nothing and the others share alike. Without one, which is
    /// the default, partitions share in proportion to their scores.
    fn threshold(&self) -> Option<f64> {
        None
    }
}

/// The score falls from 1 without lag to 0 at `max_lag_for_health`, and partitions share alike if
/// theirs is at least `health_threshold`: the rule of the Python library kafka-smart-producer,
/// under its names and with its defaults.
///
/// It takes a partition without a commit for one in the middle, where that library takes its whole
/// log for lag, and follows no figure older than a minute, where that library follows any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The least score that gets records, 0 to 1; 0.5.
    pub health_threshold: f64,
    /// The lag, in records, that scores 0; 1,000.
    pub max_lag_for_health: u64,
}

impl Threshold {
    /// That library's `refresh_interval`, its time between two looks.
    pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

    /// That library's `timeout_seconds`, its patience with one look.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            health_threshold: 0.5,
            max_lag_for_health: 1_000,
        }
    }
}

impl HealthScorer for Threshold {
    fn score(&self, partition: &PartitionHealth) -> f64 {
        linear(partition, self.max_lag_for_health)
    }

    fn threshold(&self) -> Option<f64> {
        Some(self.health_threshold)
    }
}

/// Partitions share in proportion to a score that falls from 1 without lag to 0 at
/// `max_lag_for_health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// The lag, in records, that scores 0; 1,000.
    pub max_lag_for_health: u64,
}

impl Default for Linear {
    fn default() -> Self {
        Self {
            max_lag_for_health: 1_000,
        }
    }
}

impl HealthScorer for Linear {
    fn score(&self, partition: &PartitionHealth) -> f64 {
        linear(partition, self.max_lag_for_health)
    }
}

fn linear(partition: &PartitionHealth, max_lag: u64) -> f64 {
    match partition.lag {
        None | Some(0) => 1.0,
        Some(lag) if lag >= max_lag => 0.0,
        Some(lag) => 1.0 - lag as f64 / max_lag as f64,
    }
}

/// Partitions share in proportion to `within / (within + drain time)`: the time that each one's
/// consumer needs for what is unread, commits allowed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainScore {
    /// The drain time that scores one half; 100 ms.
    pub within: Duration,
}

impl Default for DrainScore {
    fn default() -> Self {
        Self {
            within: Duration::from_millis(100),
        }
    }
}

impl HealthScorer for DrainScore {
    fn score(&self, partition: &PartitionHealth) -> f64 {
        // Without a rate of its own nothing is known against it.
        let drain = partition.drain_time.unwrap_or_default().as_secs_f64();
        let within = self.within.as_secs_f64().max(1e-6);
        within / (within + drain)
    }
}

impl Observer {
    /// Replaces the shares by the scorer's, if there is one.
    pub(super) fn scored(&self, mut health: Health, observed: &[Observed]) -> Health {
        let Some(scorer) = self.scorer.as_deref() else {
            return health;
        };
        let known = |partition: &PartitionHealth| partition.lag.is_some();
        let shares = shares(scorer, &health.partitions, known);
        if let Some(shares) = shares {
            for (partition, share) in health.partitions.iter_mut().zip(&shares) {
                (partition.weight, partition.reason) = (*share, "by its score");
            }
            health.choice = Ok(Placing::Weights(shares));
            return health;
        }
        // Nobody can score what nobody knows, and what was asked for is no choice by drain time.
        let (reason, why) = if health.partitions.iter().any(known) {
            let why = "no partition has a score: all alike";
            (Fallback::NoWeights, why)
        } else if observed.iter().all(|seen| *seen == Observed::Missing) {
            let why = "no partition was heard of: all alike";
            (Fallback::NoRates, why)
        } else {
            let why = "no partition has a commit: all alike";
            (Fallback::NoCommits, why)
        };
        let count = health.partitions.len().max(1) as f64;
        for partition in &mut health.partitions {
            (partition.weight, partition.reason) = (1.0 / count, why);
        }
        health.choice = Err(reason);
        health
    }
}

/// The share of every partition by its score; `None` when no score is above nothing. `known` says of
/// which partitions the lag is known.
pub(super) fn shares(
    scorer: &dyn HealthScorer,
    partitions: &[PartitionHealth],
    known: impl Fn(&PartitionHealth) -> bool,
) -> Option<Vec<f64>> {
    let clean = |score: f64| {
        if score > 0.0 { score.min(1.0) } else { 0.0 }
    };
    // A panic of the user's must not end the looks at every group: it is no score.
    let score = |partition: &PartitionHealth| {
        let score = catch_unwind(AssertUnwindSafe(|| scorer.score(partition)));
        score.map_or(0.0, clean)
    };
    let scores: Vec<Option<f64>> = partitions
        .iter()
        .map(|partition| known(partition).then(|| score(partition)))
        .collect();
    let threshold = catch_unwind(AssertUnwindSafe(|| scorer.threshold()));
    let threshold = threshold.unwrap_or_default();
    let neutral = super::median(scores.iter().flatten().copied())?;
    let weight = |score: Option<f64>| {
        let score = score.unwrap_or(neutral);
        match threshold {
            None => score,
            Some(threshold) if score >= threshold => 1.0,
            Some(_) => 0.0,
        }
    };
    let mut weights: Vec<f64> = scores.into_iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    // Scores so small that their shares cannot be told are none.
    if sum < f64::MIN_POSITIVE / f64::EPSILON {
        return None;
    }
    for weight in &mut weights {
        *weight /= sum;
    }
    spread(&mut weights);
    Some(weights)
}

/// Takes from a partition that has more than [`SHARE_MAX`] what is above, for all the others alike.
pub(super) fn spread(shares: &mut [f64]) {
    let others = shares.len().saturating_sub(1);
    let Some(largest) = (0..shares.len()).max_by(|a, b| {
        let share = |at: &usize| shares.get(*at).copied().unwrap_or(0.0);
        share(a).total_cmp(&share(b))
    }) else {
        return;
    };
    let above = shares.get(largest).map_or(0.0, |share| share - SHARE_MAX);
    if above <= 0.0 || others == 0 {
        return;
    }
    for (at, share) in shares.iter_mut().enumerate() {
        if at == largest {
            *share = SHARE_MAX;
        } else {
            *share += above / others as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_partitioner::Status;
    use proptest::prelude::*;

    fn partition(lag: Option<u64>) -> PartitionHealth {
        PartitionHealth {
            partition: 0,
            lag,
            backlog: lag.map(|lag| lag as f64),
            rate: Some(100.0),
            drain_time: lag.map(|lag| Duration::from_millis(lag * 10)),
            weight: 0.0,
            status: Status::CaughtUp,
            reason: "",
            group: None,
            taken_at: None,
        }
    }

    fn of(scorer: &dyn HealthScorer, lags: &[Option<u64>]) -> Option<Vec<f64>> {
        let partitions: Vec<_> = lags.iter().map(|lag| partition(*lag)).collect();
        shares(scorer, &partitions, |p| p.lag.is_some())
    }

    #[test]
    fn the_threshold_takes_500_records_and_not_501() {
        let shares = of(
            &Threshold::default(),
            &[Some(0), Some(500), Some(501), Some(9_999)],
        );
        assert_eq!(shares.unwrap(), [0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn when_no_partition_is_healthy_there_are_no_shares() {
        assert_eq!(of(&Threshold::default(), &[Some(600), Some(700)]), None);
        assert_eq!(of(&Linear::default(), &[Some(1_000); 3]), None);
        assert_eq!(of(&Linear::default(), &[]), None);
    }

    #[test]
    fn the_only_healthy_partition_does_not_get_everything() {
        let shares = of(&Threshold::default(), &[Some(0), Some(900), Some(900)]).unwrap();
        assert_eq!(shares[0], SHARE_MAX);
        assert!((shares[1] - 0.05).abs() < 1e-9, "{shares:?}");
        assert_eq!(of(&Threshold::default(), &[Some(0)]).unwrap(), [1.0]);
    }

    #[test]
    fn a_straight_line_shares_in_proportion() {
        let shares = of(&Linear::default(), &[Some(0), Some(500), Some(1_000)]).unwrap();
        assert!(
            (shares[0] - 2.0 / 3.0).abs() < 1e-9 && shares[2] == 0.0,
            "{shares:?}"
        );
    }

    #[test]
    fn drain_time_scores_one_half_within() {
        let shares = of(&DrainScore::default(), &[Some(0), Some(10)]).unwrap();
        assert!((shares[0] / shares[1] - 2.0).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn a_partition_without_a_commit_is_taken_as_the_middle() {
        let shares = of(&Linear::default(), &[Some(0), Some(500), Some(1_000), None]).unwrap();
        assert_eq!(shares[3], shares[1]);
    }

    /// Scores as they come, also senseless ones.
    #[derive(Debug)]
    struct Own(Vec<f64>, Option<f64>);

    impl HealthScorer for Own {
        fn score(&self, partition: &PartitionHealth) -> f64 {
            let at = usize::try_from(partition.partition).unwrap();
            self.0[at]
        }

        fn threshold(&self) -> Option<f64> {
            self.1
        }
    }

    /// Cannot stand a lag of seven.
    #[derive(Debug)]
    struct Touchy;

    impl HealthScorer for Touchy {
        fn score(&self, partition: &PartitionHealth) -> f64 {
            assert_ne!(partition.lag, Some(7));
            1.0
        }
    }

    #[test]
    fn a_score_that_panics_is_none() {
        assert_eq!(
            of(&Touchy, &[Some(1), Some(7), Some(1)]).unwrap(),
            [0.5, 0.0, 0.5]
        );
        assert_eq!(of(&Touchy, &[Some(7)]), None);
    }

    proptest! {
        #[test]
        fn never_all_weight_on_one_partition_and_never_none(
            scores in proptest::collection::vec(any::<f64>(), 1..20),
            lags in proptest::collection::vec(proptest::option::of(any::<u64>()), 20),
            threshold in proptest::option::of(0.0..1.0f64),
        ) {
            let count = scores.len();
            let partitions: Vec<_> = (0..count).map(|at| PartitionHealth {
                partition: at as i32,
                ..partition(lags[at].map(|lag| lag % 1_000_000))
            }).collect();
            let known = |p: &PartitionHealth| p.lag.is_some();
            if let Some(shares) = shares(&Own(scores, threshold), &partitions, known) {
                let sum: f64 = shares.iter().sum();
                prop_assert!((sum - 1.0).abs() < 1e-6, "{shares:?}");
                for share in shares {
                    prop_assert!(share >= 0.0);
                    prop_assert!(count == 1 || share <= SHARE_MAX + 1e-9, "{share}");
                }
            }
        }
    }
}
