//! How a quantity is spread, at the cost of three atomic adds a batch.

use std::sync::atomic::{AtomicU64, Ordering};

/// Each power of two is cut in so many equal parts: a percentile is off by 6 % at most.
const PARTS_BITS: u32 = 3;
const PARTS: usize = 1 << PARTS_BITS;
/// Values from here on count as the largest one: 2^40 microseconds are twelve days.
const LIMIT_BITS: u32 = 40;
const BUCKETS: usize = (LIMIT_BITS - PARTS_BITS + 1) as usize * PARTS;

/// What was seen of a quantity since the producer was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary<T> {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub mean: T,
    /// Half of them were at most this, give or take 6 %.
    pub p50: T,
    /// 95 % of them were at most this, give or take 6 %.
    pub p95: T,
    /// 99 % of them were at most this, give or take 6 %.
    pub p99: T,
    /// The largest.
    pub max: T,
}

/// Counts values by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn record(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    pub(crate) fn summary<T>(&self, as_unit: impl Fn(u64) -> T) -> Summary<T> {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let counts: Vec<u64> = counts.collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut below = 0;
            let found = counts.iter().position(|held| {
                below += held;
                below >= rank
            });
            found.map_or(0, |bucket| middle_of(bucket).min(max))
        };
        let sum = self.sum.load(Ordering::Relaxed);
        Summary {
            count,
            mean: as_unit(sum.checked_div(count).unwrap_or(0)),
            p50: as_unit(percentile(50)),
            p95: as_unit(percentile(95)),
            p99: as_unit(percentile(99)),
            max: as_unit(max),
        }
    }
}

/// Values below `PARTS` have a bucket each; then each power of two has `PARTS`.
fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << LIMIT_BITS) - 1);
    let Some(power) = value.checked_ilog2().filter(|power| *power >= PARTS_BITS) else {
        return value as usize;
    };
    let part = (value >> (power - PARTS_BITS)) as usize & (PARTS - 1);
    (power - PARTS_BITS + 1) as usize * PARTS + part
}

fn middle_of(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let (power, part) = (bucket / PARTS - 1, bucket % PARTS);
    let from = ((PARTS + part) as u64) << power;
    from + (1u64 << power) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_six_percent_at_every_size() {
        for scale in [1u64, 30, 1_000, 1_000_000, 10_000_000] {
            let histogram = Histogram::default();
            for value in 1..=1000 {
                histogram.record(value * scale);
            }
            let summary = histogram.summary(|value| value as f64);
            let near = |found: f64, wanted: u64| {
                let wanted = (wanted * scale) as f64;
                assert!((found / wanted - 1.0).abs() < 0.065, "{found} for {wanted}");
            };
            near(summary.p50, 500);
            near(summary.p95, 950);
            near(summary.p99, 990);
            near(summary.mean, 500);
            near(summary.max, 1000);
            assert_eq!(summary.count, 1000);
        }
    }

    #[test]
    fn nothing_seen_is_zero_and_the_largest_value_has_a_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(|v| v), Summary::default());
        histogram.record(u64::MAX >> 1);
        assert_eq!(histogram.summary(|v| v).count, 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for value in (0..10_000).chain([1 << 20, (1 << 39) + 1]) {
            let middle = middle_of(bucket_of(value)) as f64;
            assert!(
                (middle - value as f64).abs() <= value as f64 / 15.0,
                "{value}"
            );
        }
    }
}
