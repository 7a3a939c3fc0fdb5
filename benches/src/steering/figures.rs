//! What a person wants to know of a run.

/// Where the records of a run waited, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Mean wait from being written to being read, in seconds.
    pub mean: f64,
    /// The wait that half of the records stay below, in seconds.
    pub p50: f64,
    /// As p50, for 99 % of the records.
    pub p99: f64,
    /// As p50, for 99.9 % of the records.
    pub p999: f64,
    /// The share of records that waited for more than 10 s.
    pub late: f64,
    /// How many records are unread, averaged over time.
    pub lag: f64,
    /// The standard deviation of the partitions' unread records, averaged over time.
    pub oscillation: f64,
}

impl Figures {
    /// `delays` in seconds; lag and oscillation are left at zero.
    pub(super) fn of_delays(mut delays: Vec<f32>) -> Self {
        let count = delays.len().max(1) as f64;
        let sum: f64 = delays.iter().map(|delay| f64::from(*delay)).sum();
        let late = delays.iter().filter(|delay| **delay > 10.0).count() as f64;
        let mut quantile = |share: f64| {
            let at = (delays.len() as f64 * share) as usize;
            if at >= delays.len() {
                return 0.0;
            }
            let (_, delay, _) = delays.select_nth_unstable_by(at, f32::total_cmp);
            f64::from(*delay)
        };
        Self {
            mean: sum / count,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            late: late / count,
            ..Self::default()
        }
    }

    /// The mean of several runs, each figure for itself.
    pub fn mean_of(runs: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        Self {
            mean: mean(|run| run.mean),
            p50: mean(|run| run.p50),
            p99: mean(|run| run.p99),
            p999: mean(|run| run.p999),
            late: mean(|run| run.late),
            lag: mean(|run| run.lag),
            oscillation: mean(|run| run.oscillation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_delays() {
        let delays = (0..1_000).rev().map(|at| at as f32 / 50.0).collect();
        let figures = Figures::of_delays(delays);
        assert_eq!((figures.p50, figures.p99.round()), (10.0, 20.0));
        assert!((figures.late - 0.499).abs() < 1e-9);
        assert!((figures.mean - 9.99).abs() < 1e-6);
        assert_eq!(Figures::of_delays(Vec::new()).p99, 0.0);
    }
}
