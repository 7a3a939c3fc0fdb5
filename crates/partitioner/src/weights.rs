//! A choice by fixed weights: a cumulative table and a binary search.

use crate::sticky::below;

/// How many weighted draws are tried for a partition with a leader before the choice is uniform.
const DRAWS_MAX: u32 = 4;

/// Cumulative weights of the partitions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    /// Sum of the weights up to and with each partition, scaled so that the last is 2^32.
    ends: Box<[u64]>,
}

impl Weights {
    /// Makes the table; a weight that is not a number, negative or infinite counts as zero. `None`
    /// if no weight is left.
    pub(crate) fn new(weights: &[f64]) -> Option<Self> {
        let clean = |w: &f64| if w.is_finite() { w.max(0.0) } else { 0.0 };
        // Scaled by the largest first, so that the sum cannot overflow.
        let largest = weights.iter().map(clean).fold(0.0, f64::max);
        if largest <= 0.0 {
            return None;
        }
        let sum: f64 = weights.iter().map(|w| clean(w) / largest).sum();
        let mut reached = 0.0;
        let mut ends: Box<[u64]> = weights
            .iter()
            .map(|w| {
                reached += clean(w) / largest / sum;
                // A float to integer cast saturates.
                (reached * (1u64 << 32) as f64) as u64
            })
            .collect();
        // Rounding must not leave a gap at the top: whoever reaches the last weight reaches it all.
        let last_weighted = weights.iter().rposition(|w| clean(w) > 0.0)?;
        for end in ends.iter_mut().skip(last_weighted) {
            *end = 1 << 32;
        }
        Some(Self { ends })
    }

    /// A partition by its weight among those that may be taken; `None` if a few draws found none.
    pub(crate) fn choose(&self, may: impl Fn(i32) -> bool, random: u64) -> Option<i32> {
        let mut bits = random;
        for _ in 0..DRAWS_MAX {
            let draw = below((bits >> 32) as u32, 1 << 32) as u64;
            let at = self.ends.partition_point(|end| *end <= draw);
            let partition = i32::try_from(at).ok()?;
            if may(partition) {
                return Some(partition);
            }
            bits = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ 0x94d0_49bb;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bits;

    fn counts(weights: &[f64], available: &[i32]) -> Vec<u32> {
        let table = Weights::new(weights).unwrap();
        let mut counts = vec![0; weights.len()];
        let mut bits = Bits(11);
        for _ in 0..100_000 {
            if let Some(at) = table.choose(|at| available.contains(&at), bits.next()) {
                counts[at as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        let counts = counts(&[1.0, 0.0, 3.0, 6.0], &[0, 1, 2, 3]);
        for (count, expected) in counts.iter().zip([10_000u32, 0, 30_000, 60_000]) {
            assert!(
                count.abs_diff(expected) <= expected / 20,
                "{count} {expected}"
            );
        }
    }

    #[test]
    fn a_partition_without_a_leader_is_never_chosen_and_its_share_goes_to_the_others() {
        let counts = counts(&[1.0, 1.0, 1.0, 1.0], &[0, 1, 3]);
        assert_eq!(counts[2], 0);
        for at in [0, 1, 3] {
            assert!(counts[at].abs_diff(33_333) < 2_000, "{counts:?}");
        }
    }

    #[test]
    fn senseless_weights_count_as_none() {
        assert!(Weights::new(&[]).is_none());
        assert!(Weights::new(&[0.0, -1.0, f64::NAN, f64::INFINITY]).is_none());
        let table = Weights::new(&[f64::NAN, f64::MAX, f64::MAX, 0.0]).unwrap();
        let mut seen = [false; 4];
        let mut bits = Bits(2);
        for _ in 0..64 {
            seen[table.choose(|_| true, bits.next()).unwrap() as usize] = true;
        }
        assert_eq!(seen, [false, true, true, false]);
        assert_eq!(table.choose(|_| true, u64::MAX), Some(2));
    }
}
