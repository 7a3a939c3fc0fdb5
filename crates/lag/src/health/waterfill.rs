//! Sharing out new records so that all partitions are drained at the same time.

/// The share of each partition when `amount` records are poured so that the drain times of those
/// that get any become equal. `parts` are (rate, backlog), rates above zero. The shares sum to 1;
/// all are 0 if there is nothing to share out.
pub(crate) fn waterfill(parts: &[(f64, f64)], amount: f64) -> Vec<f64> {
    if amount <= 0.0 || parts.is_empty() {
        return vec![0.0; parts.len()];
    }
    let mut drain_times: Vec<(f64, f64, f64)> =
        parts.iter().map(|(m, b)| (b / m, *m, *b)).collect();
    drain_times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rates, mut backlogs, mut level) = (0.0, 0.0, 0.0);
    for (at, (_, rate, backlog)) in drain_times.iter().enumerate() {
        rates += rate;
        backlogs += backlog;
        level = (amount + backlogs) / rates;
        // The level stays below the next partition's: that one and all after it get nothing.
        if drain_times.get(at + 1).is_none_or(|next| level <= next.0) {
            break;
        }
    }
    let share = |(rate, backlog): &(f64, f64)| ((level * rate - backlog) / amount).clamp(0.0, 1.0);
    parts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_partitions_share_by_rate() {
        assert_eq!(waterfill(&[(1.0, 0.0), (3.0, 0.0)], 100.0), [0.25, 0.75]);
    }

    #[test]
    fn a_partition_far_behind_gets_nothing() {
        let shares = waterfill(&[(10.0, 0.0), (10.0, 1_000.0), (10.0, 2.0)], 8.0);
        assert_eq!(shares[1], 0.0);
        // Level 0.5 s: 5 records to the first, 3 to the third.
        assert!((shares[0] - 0.625).abs() < 1e-9 && (shares[2] - 0.375).abs() < 1e-9);
    }

    #[test]
    fn nothing_to_share_gives_no_shares() {
        assert_eq!(waterfill(&[(1.0, 0.0)], 0.0), [0.0]);
        assert!(waterfill(&[], 5.0).is_empty());
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_levels_are_equal(
            parts in proptest::collection::vec((0.1..1e4f64, 0.0..1e5f64), 1..40),
            amount in 0.1..1e6f64,
        ) {
            let shares = waterfill(&parts, amount);
            let sum: f64 = shares.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-6, "{}", sum);
            let level = |at: usize| (parts[at].1 + shares[at] * amount) / parts[at].0;
            let got: Vec<f64> =
                (0..parts.len()).filter(|at| shares[*at] > 1e-9).map(level).collect();
            let (low, high) = (got.iter().copied().fold(f64::MAX, f64::min),
                got.iter().copied().fold(0.0, f64::max));
            prop_assert!(high - low <= 1e-3 * high, "{low} {high}");
            for at in (0..parts.len()).filter(|at| shares[*at] <= 1e-9) {
                prop_assert!(parts[at].1 / parts[at].0 >= high * 0.999 - 1e-3);
            }
        }
    }
}
