//! How long each broker is waited for, and which are left alone until they answer again. Pure.
//!
//! A cluster that is slow must not look like one that is gone: figures that are a second old steer
//! well, and no figures at all do not. So a broker is given four times what it took lately. One that
//! stays silent longer than that is asked nothing more in the rounds, which it would hold up, and is
//! probed beside them; when it answers it is asked again, and how long it took is known.

use crate::source::Pace;
use ottla_proto::BrokerId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The least and the longest time that a broker has for an answer.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
pub(crate) const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A broker has this many times what it took lately.
const PATIENCE_FACTOR: u32 = 4;

/// What is left, an answer, of the longest time that one took.
const MEMORY: f64 = 0.9;

/// The longest time between two probes. A broker that restarts is missed for at most this long after
/// it is back.
const PROBE_EVERY_MAX: Duration = Duration::from_secs(10);

/// What is known of the brokers' answers.
#[derive(Debug, Default)]
pub(crate) struct Resting(BTreeMap<BrokerId, Manner>);

#[derive(Debug, Default)]
struct Manner {
    /// How long its slowest answer of late took.
    took: Duration,
    silence: Option<Silence>,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    probes: u32,
    /// When to probe it next; `None` while a probe is under way.
    next_probe: Option<Instant>,
}

/// The time that any broker has at least.
pub(crate) fn patience_min(pace: Pace) -> Duration {
    let whole = pace.deadline.saturating_duration_since(pace.began);
    pace.refresh.clamp(PATIENCE_MIN, PATIENCE_MAX).min(whole)
}

impl Resting {
    /// Whether the broker is left alone.
    pub(crate) fn rests(&self, broker: BrokerId) -> bool {
        let manner = self.0.get(&broker);
        manner.is_some_and(|manner| manner.silence.is_some())
    }

    /// How long it has for an answer.
    pub(crate) fn patience(&self, broker: BrokerId, pace: Pace) -> Duration {
        let took = self.0.get(&broker).map_or(Duration::ZERO, |m| m.took);
        let patience = took.saturating_mul(PATIENCE_FACTOR).min(PATIENCE_MAX);
        patience.max(patience_min(pace))
    }

    /// It answered, after this time.
    pub(crate) fn answered(&mut self, broker: BrokerId, took: Duration) {
        let manner = self.0.entry(broker).or_default();
        manner.took = manner.took.mul_f64(MEMORY).max(took);
        manner.silence = None;
    }

    /// It did not answer.
    pub(crate) fn failed(&mut self, broker: BrokerId, now: Instant) {
        let manner = self.0.entry(broker).or_default();
        manner.silence.get_or_insert(Silence {
            probes: 0,
            next_probe: Some(now),
        });
    }

    /// The brokers to probe now; each is expected to be told of by [`answered`](Self::answered) or
    /// [`probe_failed`](Self::probe_failed).
    pub(crate) fn begin_probes(&mut self, now: Instant) -> Vec<BrokerId> {
        let mut due = Vec::new();
        for (broker, manner) in &mut self.0 {
            if let Some(silence) = &mut manner.silence
                && silence.next_probe.is_some_and(|at| at <= now)
            {
                silence.next_probe = None;
                silence.probes = silence.probes.saturating_add(1);
                due.push(*broker);
            }
        }
        due
    }

    /// A probe was not answered either, when rounds come every `refresh`.
    pub(crate) fn probe_failed(&mut self, broker: BrokerId, now: Instant, refresh: Duration) {
        let silence = self.0.get_mut(&broker).and_then(|m| m.silence.as_mut());
        if let Some(silence) = silence {
            let rest = refresh.saturating_mul(1 << silence.probes.min(10));
            silence.next_probe = Some(now + rest.min(PROBE_EVERY_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BROKER: BrokerId = BrokerId(1);

    #[test]
    fn a_broker_that_is_silent_is_probed_less_and_less_and_asked_when_it_answers() {
        let mut resting = Resting::default();
        let start = Instant::now();
        resting.failed(BROKER, start);
        assert!(resting.rests(BROKER) && !resting.rests(BrokerId(2)));
        assert_eq!(resting.begin_probes(start), [BROKER], "at once");
        assert_eq!(
            resting.begin_probes(start + 60 * SECOND),
            [],
            "one at a time"
        );
        resting.probe_failed(BROKER, start, SECOND);
        assert_eq!(resting.begin_probes(start + SECOND), []);
        assert_eq!(resting.begin_probes(start + 2 * SECOND), [BROKER]);
        for _ in 0..50 {
            resting.probe_failed(BROKER, start, SECOND);
            resting.begin_probes(start + 10 * SECOND);
        }
        resting.probe_failed(BROKER, start, SECOND);
        assert_eq!(resting.begin_probes(start + 9 * SECOND), []);
        assert_eq!(resting.begin_probes(start + 10 * SECOND), [BROKER]);
        resting.answered(BROKER, SECOND);
        assert!(!resting.rests(BROKER));
        assert_eq!(resting.begin_probes(start + 60 * SECOND), []);
    }

    #[test]
    fn a_slow_broker_has_four_times_what_it_took_lately() {
        let mut resting = Resting::default();
        let began = Instant::now();
        let pace = |refresh| Pace {
            began,
            deadline: began + PATIENCE_MAX,
            refresh,
        };
        let often = pace(SECOND / 4);
        assert_eq!(resting.patience(BROKER, often), SECOND);
        resting.answered(BROKER, SECOND * 7 / 10);
        assert_eq!(resting.patience(BROKER, often), SECOND * 28 / 10);
        resting.answered(BROKER, 60 * SECOND);
        assert_eq!(resting.patience(BROKER, often), PATIENCE_MAX);
        for _ in 0..60 {
            resting.answered(BROKER, SECOND / 100);
        }
        assert_eq!(resting.patience(BROKER, often), SECOND);
        assert_eq!(resting.patience(BROKER, pace(5 * SECOND)), 5 * SECOND);
    }

    #[test]
    fn a_probe_of_a_broker_that_answered_meanwhile_changes_nothing() {
        let mut resting = Resting::default();
        let start = Instant::now();
        resting.failed(BROKER, start);
        resting.begin_probes(start);
        resting.answered(BROKER, SECOND);
        resting.probe_failed(BROKER, start, SECOND);
        assert!(!resting.rests(BROKER));
    }
}
