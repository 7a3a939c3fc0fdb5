//! Counts of durations, for percentiles.

use std::time::Duration;

/// Below this many microseconds every value has a bucket of its own; above, each doubling has half
/// as many, so that a value is known to 1 part in 128.
const EXACT: u64 = 256;
const HALF: u64 = EXACT / 2;

/// Durations by size, from a microsecond to centuries, each known to within 0.8 %.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    /// Grows to what the longest duration needs: at most 7,424 buckets.
    buckets: Vec<u64>,
    count: u64,
    sum_micros: u128,
    max: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum_micros += u128::from(micros);
        self.max = self.max.max(duration);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// The mean; zero when nothing was counted.
    pub(crate) fn mean(&self) -> Duration {
        let mean = self.sum_micros.checked_div(u128::from(self.count));
        Duration::from_micros(u64::try_from(mean.unwrap_or(0)).unwrap_or(u64::MAX))
    }

    /// The duration that `share` (0 to 1) of all durations do not exceed: the nearest-rank
    /// percentile. Zero when nothing was counted.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil() as u64;
        let rank = rank.clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_end(bucket)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket_of(micros: u64) -> usize {
    let bits = u64::from(64 - micros.leading_zeros());
    let shift = bits.saturating_sub(u64::from(EXACT.trailing_zeros()));
    // The top bits of the value lie in HALF..EXACT once it is shifted.
    let bucket = shift * HALF + (micros >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The largest number of microseconds in a bucket.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket - HALF) / HALF;
    let top = bucket - shift * HALF;
    ((top + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_a_bucket_that_ends_within_a_hundredth_of_it() {
        let mut micros = 0u64;
        while micros < 1 << 62 {
            let end = upper_end(bucket_of(micros));
            assert!(end >= micros, "{micros} is above its bucket's end {end}");
            assert!(end - micros <= micros / 128, "{micros} is far below {end}");
            micros = micros + micros / 100 + 1;
        }
        assert_eq!(upper_end(bucket_of(u64::MAX)), u64::MAX);
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 1..2000 {
            let first = upper_end(bucket - 1) + 1;
            assert_eq!(bucket_of(first), bucket, "{first} begins bucket {bucket}");
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut histogram = Histogram::default();
        for millis in 1..=100 {
            histogram.record(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)] {
            let found = histogram.quantile(share).as_secs_f64() * 1000.0;
            let expected = f64::from(millis);
            assert!(
                (found - expected).abs() / expected < 0.01,
                "{share}: {found}"
            );
        }
        assert_eq!(histogram.mean(), Duration::from_micros(50_500));
        assert_eq!(histogram.max(), Duration::from_millis(100));
    }

    #[test]
    fn nothing_counted_is_zero() {
        let empty = Histogram::default();
        assert_eq!(empty.quantile(0.99), Duration::ZERO);
        assert_eq!(empty.mean(), Duration::ZERO);
    }
}
