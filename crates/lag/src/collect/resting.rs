//! Which brokers are left alone for a while because they did not answer. Pure.

use ottla_proto::BrokerId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The longest rest. A broker that restarts is missed for at most this long after it is back.
const REST_MAX: Duration = Duration::from_secs(10);

/// Brokers that failed, and until when they rest. The first failure costs no rest: most often it is
/// a connection that broke and is made anew.
#[derive(Debug, Default)]
pub(crate) struct Resting(BTreeMap<BrokerId, (u32, Instant)>);

impl Resting {
    /// Whether the broker is left alone now.
    pub(crate) fn rests(&self, broker: BrokerId, now: Instant) -> bool {
        self.0.get(&broker).is_some_and(|(_, until)| now < *until)
    }

    /// It answered.
    pub(crate) fn answered(&mut self, broker: BrokerId) {
        self.0.remove(&broker);
    }

    /// It did not answer, when asked every `refresh`.
    pub(crate) fn failed(&mut self, broker: BrokerId, now: Instant, refresh: Duration) {
        let (failures, until) = self.0.entry(broker).or_insert((0, now));
        let rest = match *failures {
            0 => Duration::ZERO,
            n => refresh
                .saturating_mul(1 << n.min(10))
                .min(REST_MAX.max(refresh)),
        };
        *failures = failures.saturating_add(1);
        *until = now + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_stays_away_is_asked_less_and_less_and_at_once_after_it_answered() {
        let (mut resting, broker) = (Resting::default(), BrokerId(1));
        let second = Duration::from_secs(1);
        let start = Instant::now();
        resting.failed(broker, start, second);
        assert!(!resting.rests(broker, start), "one failure is a restart");
        resting.failed(broker, start, second);
        assert!(resting.rests(broker, start + second));
        assert!(!resting.rests(broker, start + 2 * second));
        for _ in 0..50 {
            resting.failed(broker, start, second);
        }
        assert!(resting.rests(broker, start + 9 * second));
        assert!(!resting.rests(broker, start + 10 * second));
        assert!(!resting.rests(BrokerId(2), start));
        resting.answered(broker);
        assert!(!resting.rests(broker, start));
    }
}
