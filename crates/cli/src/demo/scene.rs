//! What happens in the demo, and when: the same for both sides. Pure.

use crate::arguments::DemoArguments;
use fastrand::Rng;
use std::time::Duration;

/// Partitions of each topic, and consumers of each group.
pub(super) const PARTITIONS: usize = 12;
/// The partition whose consumer is slower all the time.
pub(super) const SLOW: usize = 3;
/// How much slower.
const SLOWNESS: f64 = 5.0;
/// The partition whose consumer stalls for a while.
pub(super) const STALLING: usize = 7;
/// The load, as a share of what all consumers can take while none is stalled.
const LOAD: f64 = 0.8;
/// The stall as a share of the time that counts, its longest, and when it begins.
const STALL_SHARE: f64 = 1.0 / 6.0;
const STALL_MAX: Duration = Duration::from_secs(5);
const STALL_FROM: f64 = 0.4;

/// Who does what when. Times are counted from the beginning of the load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    /// Records that are due before do not count.
    pub(super) warm_up: Duration,
    /// When the load ends.
    pub(super) end: Duration,
    /// Records a second to each topic.
    pub(super) rate: f64,
    /// Records a second that an ordinary consumer can take.
    pub(super) service_rate: f64,
    pub(super) stall_from: Duration,
    pub(super) stall_until: Duration,
    pub(super) record_bytes: usize,
    pub(super) seed: u64,
}

impl Scene {
    pub(super) fn new(arguments: &DemoArguments) -> Self {
        let length = Duration::from_secs(arguments.seconds.into());
        let rate = f64::from(arguments.rate);
        // All but one consumer count once, the slow one a fifth.
        let consumers = PARTITIONS as f64 - 1.0 + 1.0 / SLOWNESS;
        let warm_up = Duration::from_secs(arguments.warm_up.into());
        let stall_from = warm_up + length.mul_f64(STALL_FROM);
        Self {
            warm_up,
            end: warm_up + length,
            rate,
            service_rate: rate / (LOAD * consumers),
            stall_from,
            stall_until: stall_from + length.mul_f64(STALL_SHARE).min(STALL_MAX),
            record_bytes: usize::try_from(arguments.size).unwrap_or(usize::MAX),
            seed: arguments.seed,
        }
    }

    /// The records' moments: a Poisson process, the same for every caller.
    pub(super) fn arrivals(&self) -> Arrivals {
        Arrivals {
            rng: Rng::with_seed(self.seed),
            mean_seconds: 1.0 / self.rate,
            next_seconds: 0.0,
            end: self.end,
        }
    }

    /// How long the consumer of each partition takes for its records, the same for every caller.
    pub(super) fn services(&self) -> Vec<Service> {
        let service = |partition| Service {
            // Another stream of chance than the arrivals and the other partitions.
            rng: Rng::with_seed(self.seed ^ ((partition as u64 + 1) << 32)),
            mean_seconds: match partition {
                SLOW => SLOWNESS / self.service_rate,
                _ => 1.0 / self.service_rate,
            },
        };
        (0..PARTITIONS).map(service).collect()
    }

    /// How long records count.
    pub(super) fn length(&self) -> Duration {
        self.end.saturating_sub(self.warm_up)
    }

    /// When the consumer of `partition` can begin with a record at the earliest, if it is free and
    /// the record is there at `at`.
    pub(super) fn begins(&self, partition: usize, at: Duration) -> Duration {
        let stalls = partition == STALLING && self.is_stalling(at);
        if stalls { self.stall_until } else { at }
    }

    pub(super) fn is_stalling(&self, at: Duration) -> bool {
        (self.stall_from..self.stall_until).contains(&at)
    }
}

/// When records are due.
#[derive(Debug)]
pub(super) struct Arrivals {
    rng: Rng,
    mean_seconds: f64,
    next_seconds: f64,
    end: Duration,
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next_seconds += exponential(&mut self.rng) * self.mean_seconds;
        let due = Duration::from_secs_f64(self.next_seconds);
        (due < self.end).then_some(due)
    }
}

/// How long a consumer takes for a record: half of its mean always, the other half by chance.
#[derive(Debug, Clone)]
pub(super) struct Service {
    rng: Rng,
    mean_seconds: f64,
}

impl Service {
    pub(super) fn next(&mut self) -> Duration {
        let units = 0.5 + 0.5 * exponential(&mut self.rng);
        Duration::from_secs_f64(units * self.mean_seconds)
    }
}

/// Exponentially distributed with the mean 1.
fn exponential(rng: &mut Rng) -> f64 {
    // Never 0: the logarithm must be finite.
    -(1.0 - rng.f64()).ln()
}

#[cfg(test)]
pub(super) fn scene_for_tests() -> Scene {
    Scene {
        warm_up: Duration::ZERO,
        end: Duration::from_secs(30),
        rate: 896.0,
        service_rate: 100.0,
        stall_from: Duration::from_secs(12),
        stall_until: Duration::from_secs(17),
        record_bytes: 1024,
        seed: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn scene(flags: &[&str]) -> Scene {
        let words = ["ottla", "demo"].iter().chain(flags);
        match Arguments::parse_from(words).command {
            Command::Demo(arguments) => Scene::new(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_load_is_four_fifths_of_what_the_consumers_take() {
        let mut scene = scene(&["--rate", "896", "--warm-up", "0"]);
        assert!((scene.service_rate - 100.0).abs() < 1e-9);
        scene.service_rate = 100.0;
        assert_eq!(scene, scene_for_tests());
    }

    #[test]
    fn the_stall_is_a_sixth_of_a_short_run_and_five_seconds_of_a_long_one() {
        let stall = |seconds| {
            let scene = scene(&["--seconds", seconds, "--warm-up", "1"]);
            (scene.stall_from, scene.stall_until - scene.stall_from)
        };
        let whole = Duration::from_secs;
        assert_eq!(stall("12"), (Duration::from_millis(5800), whole(2)));
        assert_eq!(stall("600"), (whole(241), whole(5)));
    }

    #[test]
    fn arrivals_have_their_rate_and_are_the_same_for_both_sides() {
        let scene = scene_for_tests();
        let arrivals: Vec<Duration> = scene.arrivals().collect();
        let expected = 896.0 * 30.0;
        let count = arrivals.len() as f64;
        assert!((count - expected).abs() < 4.0 * expected.sqrt(), "{count}");
        assert!(arrivals.is_sorted());
        assert!(scene.arrivals().eq(arrivals));
    }

    #[test]
    fn one_consumer_takes_five_times_as_long() {
        let mut services = scene_for_tests().services();
        for (partition, service) in services.iter_mut().enumerate() {
            let times: f64 = (0..20_000).map(|_| service.next().as_secs_f64()).sum();
            let mean = if partition == SLOW { 0.05 } else { 0.01 };
            let found = times / 20_000.0;
            assert!((found / mean - 1.0).abs() < 0.02, "{partition}: {found}");
        }
    }

    #[test]
    fn a_stalled_consumer_begins_again_when_the_stall_is_over() {
        let scene = scene_for_tests();
        let at = Duration::from_secs(13);
        assert_eq!(scene.begins(STALLING, at), scene.stall_until);
        assert_eq!(scene.begins(SLOW, at), at);
        assert_eq!(scene.begins(STALLING, scene.stall_until), scene.stall_until);
    }
}
