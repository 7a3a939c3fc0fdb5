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

/// What a broker is asked as. One may be well as a leader and hang as a coordinator, whose offsets
/// lie elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Coordinator,
    Leader,
}

/// What is known of the brokers' answers.
#[derive(Debug, Default)]
pub(crate) struct Resting(BTreeMap<(Role, BrokerId), Manner>);

#[derive(Debug, Default)]
struct Manner {
    /// How long its slowest answer of late took.
    took: Duration,
    /// How many questions and probes failed since it last answered a question.
    failures: u32,
    silence: Option<Silence>,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When to probe it next; `None` while a probe is under way.
    next_probe: Option<Instant>,
}

impl Manner {
    /// How long it is left alone. After a first failure not at all: most often it is a connection
    /// that broke, and the probe makes a new one.
    fn rest(&self, refresh: Duration) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => refresh
                .saturating_mul(1 << (more - 1).min(10))
                .min(PROBE_EVERY_MAX),
        }
    }
}

/// The time that any broker has at least.
pub(crate) fn patience_min(pace: Pace) -> Duration {
    let whole = pace.deadline.saturating_duration_since(pace.began);
    pace.refresh.clamp(PATIENCE_MIN, PATIENCE_MAX).min(whole)
}

impl Resting {
    /// Whether the broker is left alone.
    pub(crate) fn rests(&self, role: Role, broker: BrokerId) -> bool {
        let manner = self.0.get(&(role, broker));
        manner.is_some_and(|manner| manner.silence.is_some())
    }

    /// How long it has for an answer: to the end of the round at most, but never less than any broker
    /// has, or the last ones asked would look silent.
    pub(crate) fn patience(
        &self,
        role: Role,
        broker: BrokerId,
        pace: Pace,
        now: Instant,
    ) -> Duration {
        let took = self.0.get(&(role, broker)).map(|manner| manner.took);
        let patience = took.unwrap_or_default().saturating_mul(PATIENCE_FACTOR);
        let left = pace.deadline.saturating_duration_since(now);
        patience.min(PATIENCE_MAX).min(left).max(patience_min(pace))
    }

    /// It answered, after this time.
    pub(crate) fn answered(&mut self, role: Role, broker: BrokerId, took: Duration) {
        self.note(role, broker, took).failures = 0;
    }

    /// It answered a probe after this time: it is asked again.
    pub(crate) fn probe_answered(&mut self, role: Role, broker: BrokerId, took: Duration) {
        self.note(role, broker, took);
    }

    fn note(&mut self, role: Role, broker: BrokerId, took: Duration) -> &mut Manner {
        let manner = self.0.entry((role, broker)).or_default();
        manner.took = manner.took.mul_f64(MEMORY).max(took);
        manner.silence = None;
        manner
    }

    /// It did not answer, when rounds come every `refresh`.
    pub(crate) fn failed(&mut self, role: Role, broker: BrokerId, now: Instant, refresh: Duration) {
        let manner = self.0.entry((role, broker)).or_default();
        manner.failures = manner.failures.saturating_add(1);
        let next_probe = Some(now + manner.rest(refresh));
        manner.silence = Some(Silence { next_probe });
    }

    /// Those to probe now; each is expected to be told of by
    /// [`probe_answered`](Self::probe_answered) or [`failed`](Self::failed).
    pub(crate) fn begin_probes(&mut self, now: Instant) -> Vec<(Role, BrokerId)> {
        let mut due = Vec::new();
        for (key, manner) in &mut self.0 {
            if let Some(silence) = &mut manner.silence
                && silence.next_probe.is_some_and(|at| at <= now)
            {
                silence.next_probe = None;
                due.push(*key);
            }
        }
        due
    }

    /// Forgets brokers that are in the cluster no more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(BrokerId) -> bool) {
        self.0.retain(|(_, broker), _| is_there(*broker));
    }

    /// Whether anything is known of this one; a probe of a forgotten one says nothing.
    pub(crate) fn knows(&self, role: Role, broker: BrokerId) -> bool {
        self.0.contains_key(&(role, broker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BROKER: BrokerId = BrokerId(1);
    const ROLE: Role = Role::Leader;

    #[test]
    fn a_broker_that_is_silent_is_probed_less_and_less_and_asked_when_it_answers() {
        let mut resting = Resting::default();
        let start = Instant::now();
        let fail = |resting: &mut Resting| resting.failed(ROLE, BROKER, start, SECOND);
        fail(&mut resting);
        assert!(resting.rests(ROLE, BROKER));
        assert!(!resting.rests(ROLE, BrokerId(2)));
        assert!(!resting.rests(Role::Coordinator, BROKER));
        let key = (ROLE, BROKER);
        assert_eq!(resting.begin_probes(start), [key], "at once");
        let later = start + 60 * SECOND;
        assert_eq!(resting.begin_probes(later), [], "one at a time");
        fail(&mut resting);
        assert_eq!(resting.begin_probes(start + SECOND), []);
        assert_eq!(resting.begin_probes(start + 2 * SECOND), [key]);
        for _ in 0..50 {
            fail(&mut resting);
        }
        assert_eq!(resting.begin_probes(start + 9 * SECOND), []);
        assert_eq!(resting.begin_probes(start + 10 * SECOND), [key]);
        resting.probe_answered(ROLE, BROKER, SECOND);
        assert!(!resting.rests(ROLE, BROKER));
        assert_eq!(resting.begin_probes(later), []);
    }

    #[test]
    fn one_that_answers_probes_and_no_questions_is_asked_less_and_less() {
        let mut resting = Resting::default();
        let start = Instant::now();
        for _ in 0..20 {
            resting.failed(ROLE, BROKER, start, SECOND);
            resting.probe_answered(ROLE, BROKER, Duration::ZERO);
        }
        resting.failed(ROLE, BROKER, start, SECOND);
        assert_eq!(resting.begin_probes(start + 9 * SECOND), []);
        resting.answered(ROLE, BROKER, Duration::ZERO);
        resting.failed(ROLE, BROKER, start, SECOND);
        assert_eq!(resting.begin_probes(start).len(), 1, "all is forgiven");
    }

    #[test]
    fn a_slow_broker_has_four_times_what_it_took_lately() {
        let mut resting = Resting::default();
        let began = Instant::now();
        let patience = |resting: &Resting, refresh, now| {
            let deadline = began + PATIENCE_MAX;
            let pace = Pace {
                began,
                deadline,
                refresh,
            };
            resting.patience(ROLE, BROKER, pace, now)
        };
        let often = SECOND / 4;
        assert_eq!(patience(&resting, often, began), SECOND);
        resting.answered(ROLE, BROKER, SECOND * 7 / 10);
        assert_eq!(patience(&resting, often, began), SECOND * 28 / 10);
        resting.answered(ROLE, BROKER, 60 * SECOND);
        assert_eq!(patience(&resting, often, began), PATIENCE_MAX);
        let late = began + 8 * SECOND;
        assert_eq!(patience(&resting, often, late), 2 * SECOND, "a round ends");
        let later = began + 20 * SECOND;
        assert_eq!(patience(&resting, often, later), SECOND);
        for _ in 0..60 {
            resting.answered(ROLE, BROKER, SECOND / 100);
        }
        assert_eq!(patience(&resting, often, began), SECOND);
        assert_eq!(patience(&resting, 5 * SECOND, began), 5 * SECOND);
    }

    #[test]
    fn brokers_that_left_are_forgotten() {
        let mut resting = Resting::default();
        resting.failed(ROLE, BROKER, Instant::now(), SECOND);
        resting.keep(|broker| broker != BROKER);
        assert!(!resting.knows(ROLE, BROKER) && !resting.rests(ROLE, BROKER));
    }
}
