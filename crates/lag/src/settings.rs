//! This crate's properties.

mod rows;

use crate::fleet::FleetOptions;
use crate::health::{DrainScore, HealthScorer, Linear, Threshold};
use ottla_partitioner::KeyPolicy;
use ottla_proto::setting::{Kind, Setting, Support};
use ottla_proto::{Error, ErrorKind, Result};
pub use rows::SETTINGS;
use std::sync::Arc;
use std::time::Duration;

/// How often lag is looked at, unless told otherwise: the study's interval.
pub const REFRESH: Duration = Duration::from_secs(1);

/// The shortest interval: below it brokers are asked more often than the answers can change a choice.
pub const REFRESH_MIN: Duration = Duration::from_millis(50);

/// The longest one look may take unless told otherwise. A source has its own patience with each
/// broker, so that one that hangs does not make the others' figures this old.
pub(crate) const LOOK_MAX: Duration = Duration::from_secs(10);

/// What the properties of this crate say, as far as they were set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    refresh: Option<Duration>,
    refresh_seconds: Option<Duration>,
    look: Option<Duration>,
    look_seconds: Option<Duration>,
    groups: Vec<Arc<str>>,
    scorer: Option<Scorer>,
    threshold: Option<f64>,
    lag_max: Option<u64>,
    within: Option<Duration>,
    policy: Option<KeyPolicy>,
    is_sticky: bool,
    entries: Option<usize>,
    slots: Option<usize>,
    fleet: FleetOptions,
}

#[derive(Debug, Clone, Copy)]
enum Scorer {
    DrainTime,
    Threshold,
    Linear,
    DrainScore,
}

impl Options {
    /// Reads one property.
    ///
    /// # Errors
    /// `Config`, naming the property, when there is no such one or the value does not fit it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let known = |row: &&Setting| row.name == name || row.aliases.contains(&name);
        let Some(row) = SETTINGS.iter().find(known) else {
            let what = format!("{name} is no setting of lag collection");
            return Err(Error::new(ErrorKind::Config, what));
        };
        self.read(row, value.trim()).ok_or_else(|| {
            let shown = match row.kind {
                Kind::Secret => "(hidden)",
                _ => value,
            };
            let what = format!("{} must be {}, not {shown}", row.name, wanted(row.kind));
            Error::new(ErrorKind::Config, what)
        })
    }

    fn read(&mut self, row: &Setting, value: &str) -> Option<()> {
        if row.support == Support::Ignored {
            return Some(());
        }
        let millis = || Some(Duration::from_millis(number(row, value)?));
        let count = || usize::try_from(number(row, value)?).ok();
        match row.name {
            "lag.refresh.interval.ms" => self.refresh = Some(millis()?),
            "refresh_interval" => self.refresh_seconds = Some(seconds(row, value)?),
            "lag.look.timeout.ms" => self.look = Some(millis()?),
            "timeout_seconds" => self.look_seconds = Some(seconds(row, value)?),
            "lag.groups" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                self.groups = names.map(Arc::from).collect();
            }
            "lag.scorer" => self.scorer = Some(scorer(value)?),
            "lag.health.threshold" => {
                let threshold: f64 = value.parse().ok()?;
                self.threshold = Some(threshold).filter(|t| (0.0..=1.0).contains(t));
                self.threshold?;
            }
            "lag.health.lag.max" => self.lag_max = Some(number(row, value)?),
            "lag.health.drain.ms" => self.within = Some(millis()?),
            "lag.key.policy" => self.policy = Some(value.parse().ok()?),
            "key_stickiness" => self.is_sticky = value.parse().ok()?,
            "lag.key.entries" => self.entries = Some(count()?),
            "lag.key.slots" => self.slots = Some(count()?),
            name => self.fleet.read(name, value)?,
        }
        Some(())
    }

    /// The store that a fleet shares, as far as it was asked for.
    pub(crate) fn fleet(&self) -> &FleetOptions {
        &self.fleet
    }

    pub(crate) fn refresh(&self) -> Option<Duration> {
        self.refresh.or(self.refresh_seconds)
    }

    /// The longest one look may take.
    pub(crate) fn look(&self) -> Duration {
        self.look.or(self.look_seconds).unwrap_or(LOOK_MAX)
    }

    pub(crate) fn groups(&self) -> &[Arc<str>] {
        &self.groups
    }

    /// The scorer that was asked for.
    pub(crate) fn scorer(&self) -> Option<Arc<dyn HealthScorer>> {
        // Neither says anything by drain time.
        let implied = || match (self.threshold, self.lag_max) {
            (None, None) => Scorer::DrainTime,
            _ => Scorer::Threshold,
        };
        let (threshold, linear, drain) = (
            Threshold::default(),
            Linear::default(),
            DrainScore::default(),
        );
        match self.scorer.unwrap_or_else(implied) {
            Scorer::DrainTime => None,
            Scorer::Threshold => Some(Arc::new(Threshold {
                health_threshold: self.threshold.unwrap_or(threshold.health_threshold),
                max_lag_for_health: self.lag_max.unwrap_or(threshold.max_lag_for_health),
            })),
            Scorer::Linear => Some(Arc::new(Linear {
                max_lag_for_health: self.lag_max.unwrap_or(linear.max_lag_for_health),
            })),
            Scorer::DrainScore => Some(Arc::new(DrainScore {
                within: self.within.unwrap_or(drain.within),
            })),
        }
    }

    pub(crate) fn keys(&self) -> KeyPolicy {
        let implied = match self.is_sticky {
            true => KeyPolicy::STICKY,
            false => KeyPolicy::Keep,
        };
        match self.policy.unwrap_or(implied) {
            KeyPolicy::Sticky { entries } => KeyPolicy::Sticky {
                entries: self.entries.unwrap_or(entries),
            },
            KeyPolicy::Migrate { slots } => KeyPolicy::Migrate {
                slots: self.slots.unwrap_or(slots),
            },
            policy => policy,
        }
    }
}

fn scorer(name: &str) -> Option<Scorer> {
    match name {
        "drain_time" => Some(Scorer::DrainTime),
        "threshold" => Some(Scorer::Threshold),
        "linear" => Some(Scorer::Linear),
        "drain_score" => Some(Scorer::DrainScore),
        _ => None,
    }
}

/// A fraction of seconds within the row's bounds.
fn seconds(row: &Setting, value: &str) -> Option<Duration> {
    let Kind::Float(least, most) = row.kind else {
        return None;
    };
    let seconds: f64 = value.parse().ok()?;
    let seconds = Some(seconds).filter(|s| (least..=most).contains(s))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A whole number within the row's bounds.
fn number(row: &Setting, value: &str) -> Option<u64> {
    let (Kind::Int(least, most) | Kind::Millis(least, most)) = row.kind else {
        return None;
    };
    let number: i64 = value.parse().ok()?;
    u64::try_from(number)
        .ok()
        .filter(|_| (least..=most).contains(&number))
}

fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Millis(least, most) => format!("milliseconds from {least} to {most}"),
        Kind::Int(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Float(least, most) => format!("a number from {least} to {most}"),
        Kind::OneOf(words) => format!("one of {}", words.join(", ")),
        Kind::Bool => "true or false".to_owned(),
        _ => "text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> &'static Setting {
        SETTINGS.iter().find(|row| row.name == name).unwrap()
    }

    fn of(pairs: &[(&str, &str)]) -> Options {
        let mut options = Options::default();
        for (name, value) in pairs {
            options.set(name, value).unwrap();
        }
        options
    }

    fn shown(scorer: Option<Arc<dyn HealthScorer>>) -> String {
        scorer.map_or("drain time".to_owned(), |scorer| format!("{scorer:?}"))
    }

    #[test]
    fn the_table_tells_the_defaults_that_hold() {
        let refresh = row("lag.refresh.interval.ms");
        assert_eq!(refresh.default, REFRESH.as_millis().to_string());
        let least = REFRESH_MIN.as_millis() as i64;
        assert_eq!(refresh.kind, Kind::Millis(least, 3_600_000));
        let none = Options::default();
        let mut all = Options::default();
        for row in SETTINGS
            .iter()
            .filter(|row| !["lag.health.threshold", "lag.health.lag.max"].contains(&row.name))
        {
            all.set(row.name, row.default).unwrap();
        }
        assert_eq!((none.keys(), none.refresh()), (KeyPolicy::Keep, None));
        assert_eq!(
            (all.keys(), all.refresh()),
            (KeyPolicy::Keep, Some(REFRESH))
        );
        assert_eq!(shown(none.scorer()), shown(all.scorer()));
        assert_eq!((none.look(), all.look()), (LOOK_MAX, LOOK_MAX));
        assert!(all.groups().is_empty());
        for (policy, usual) in [
            ("sticky", KeyPolicy::STICKY),
            ("migrate", KeyPolicy::MIGRATE),
        ] {
            all.set("lag.key.policy", policy).unwrap();
            assert_eq!(all.keys(), usual);
        }
        let threshold = row("lag.health.threshold").default;
        let threshold = of(&[("lag.health.threshold", threshold)]).scorer();
        assert_eq!(shown(threshold), format!("{:?}", Threshold::default()));
    }

    #[test]
    fn a_value_is_read_within_its_bounds_and_a_wrong_one_is_named() {
        let refresh = |value: &str| of(&[("lag.refresh.interval.ms", value)]).refresh();
        assert_eq!(refresh("250"), Some(Duration::from_millis(250)));
        for (name, wrong) in [
            ("lag.refresh.interval.ms", "49"),
            ("lag.refresh.interval.ms", "-1"),
            ("lag.refresh.interval.ms", "1s"),
            ("lag.refresh.interval.ms", "99999999999999999999"),
            ("refresh_interval", "0.01"),
            ("refresh_interval", "NaN"),
            ("timeout_seconds", "0"),
            ("lag.look.timeout.ms", "60001"),
            ("lag.scorer", "random"),
            ("lag.health.threshold", "1.5"),
            ("lag.health.threshold", "NaN"),
            ("lag.health.lag.max", "0"),
            ("lag.key.policy", "murmur2"),
            ("lag.key.slots", "99999999999"),
            ("key_stickiness", "yes"),
        ] {
            let error = Options::default().set(name, wrong).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(Options::default().set("lag.refresh", "250").is_err());
    }

    #[test]
    fn the_names_of_the_python_library_choose_its_rule() {
        let pairs = [("health_threshold", "0.7"), ("max_lag_for_health", "2000")];
        let asked = Threshold {
            health_threshold: 0.7,
            max_lag_for_health: 2_000,
        };
        assert_eq!(shown(of(&pairs).scorer()), format!("{asked:?}"));
        for alone in [&pairs[..1], &pairs[1..]] {
            let shown = shown(of(alone).scorer());
            assert!(shown.starts_with("Threshold"), "{alone:?}: {shown}");
        }
        let refresh = of(&[("refresh_interval", "2.5")]).refresh();
        assert_eq!(refresh, Some(Duration::from_millis(2_500)));
        let look = of(&[("timeout_seconds", "2.5")]).look();
        assert_eq!(look, Duration::from_millis(2_500));
        let both = [
            ("lag.refresh.interval.ms", "250"),
            ("refresh_interval", "5"),
        ];
        assert_eq!(of(&both).refresh(), Some(Duration::from_millis(250)));
        let keys = of(&[("key_stickiness", "true"), ("local_max_size", "50")]).keys();
        assert_eq!(keys, KeyPolicy::Sticky { entries: 50 });
    }

    #[test]
    fn every_name_of_the_python_library_is_taken() {
        let named = [
            "health_threshold",
            "refresh_interval",
            "max_lag_for_health",
            "timeout_seconds",
            "key_stickiness",
            "smart_enabled",
            "consumer_group",
            "topics",
            "local_max_size",
            "local_ttl_seconds",
            "remote_enabled",
            "remote_ttl_seconds",
            "redis_url",
            "redis_host",
            "redis_port",
            "redis_db",
            "redis_password",
            "redis_ssl_enabled",
            "redis_ssl_ca_certs",
            "redis_ssl_certfile",
            "redis_ssl_keyfile",
            "redis_ssl_cert_reqs",
        ];
        for name in named {
            let known = |row: &&Setting| row.name == name || row.aliases.contains(&name);
            let row = SETTINGS.iter().find(known).unwrap();
            Options::default().set(name, row.default).unwrap();
        }
    }

    #[test]
    fn every_scorer_has_a_name_and_what_is_said_of_it_holds() {
        let linear = of(&[("lag.scorer", "linear"), ("lag.health.lag.max", "7")]);
        assert_eq!(shown(linear.scorer()), "Linear { max_lag_for_health: 7 }");
        let drain = of(&[("lag.health.drain.ms", "20"), ("lag.scorer", "drain_score")]);
        assert_eq!(shown(drain.scorer()), "DrainScore { within: 20ms }");
        let none = of(&[("lag.scorer", "drain_time"), ("health_threshold", "0.5")]);
        assert_eq!(shown(none.scorer()), "drain time", "the scorer's name wins");
        let groups = of(&[("lag.groups", "audit, search")]);
        assert_eq!(groups.groups(), [Arc::from("audit"), Arc::from("search")]);
    }
}
