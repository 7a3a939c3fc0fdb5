//! Jittered exponential backoff: pure, random bits are an argument.

use std::time::Duration;

/// How far a wait may differ from its nominal length, so that clients that failed together do not
/// come back together.
const JITTER: f64 = 0.2;
/// Doublings beyond this change nothing: the ceiling is reached long before.
const DOUBLINGS_MAX: u32 = 20;

/// Waits that double from a first one up to a ceiling, each off by up to 20 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait, before jitter.
    pub ceiling: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt` (0 is the first retry); `random` is fresh random bits.
    pub fn wait(&self, attempt: u32, random: u64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1u32 << attempt.min(DOUBLINGS_MAX));
        let nominal = doubled.min(self.ceiling.max(self.first));
        // 53 bits make a fraction in [0, 1).
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        nominal.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(100),
        ceiling: Duration::from_secs(1),
    };

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let middle = u64::MAX / 2;
        let near = |attempt, millis: f64| {
            let wait = BACKOFF.wait(attempt, middle).as_secs_f64() * 1e3;
            assert!(
                (wait - millis).abs() < 1.0,
                "attempt {attempt} waits {wait}"
            );
        };
        near(0, 100.0);
        near(1, 200.0);
        near(3, 800.0);
        near(4, 1000.0);
        near(u32::MAX, 1000.0);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(BACKOFF.wait(0, 0), Duration::from_millis(80));
        let longest = BACKOFF.wait(0, u64::MAX);
        assert!(longest > Duration::from_millis(119) && longest <= Duration::from_millis(120));
    }

    #[test]
    fn a_ceiling_below_the_first_wait_is_ignored() {
        let odd = Backoff {
            first: Duration::from_millis(100),
            ceiling: Duration::ZERO,
        };
        assert!(odd.wait(5, 0) >= Duration::from_millis(80));
    }
}
