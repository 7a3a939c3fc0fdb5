//! Pauses that grow, with a little chance in them so that many clients do not knock at once.

use std::time::Duration;

/// A jittered exponential pause, +-20 %. The chance comes from a seed, so that a run replays.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    state: u64,
}

impl Backoff {
    pub(crate) fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self {
            base,
            max: max.max(base),
            state: seed,
        }
    }

    /// The pause before attempt number `failures + 1`.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX);
        let plain = self.base.saturating_mul(factor).min(self.max);
        let percent = 80 + u32::try_from(self.random() % 41).unwrap_or(20);
        plain.saturating_mul(percent) / 100
    }

    /// SplitMix64: good enough to spread clients out.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_within_a_fifth() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(base, max, 7);
        for (failures, expected) in [(0, 100), (1, 200), (3, 800), (4, 1000), (90, 1000)] {
            let pause = backoff.pause(failures).as_millis();
            assert!(pause >= expected * 80 / 100, "{failures}: {pause}");
            assert!(pause <= expected * 120 / 100, "{failures}: {pause}");
        }
    }
}
