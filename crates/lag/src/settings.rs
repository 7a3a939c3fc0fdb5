//! The rows of this crate's properties.

use ottla_proto::setting::{Kind, Setting, Support};
use ottla_proto::{Error, ErrorKind, Result};
use std::time::Duration;

/// How often lag is looked at, unless told otherwise: the study's interval.
pub const REFRESH: Duration = Duration::from_secs(1);

/// The shortest interval: below it brokers are asked more often than the answers can change a choice.
pub const REFRESH_MIN: Duration = Duration::from_millis(50);

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[Setting {
    name: "lag.refresh.interval.ms",
    aliases: &["refresh_interval_ms"],
    kind: Kind::Millis(50, 3_600_000),
    default: "1000",
    default_source: "ours: the study's interval; keep it at a third of the group's commit \
                         interval or below, or far above it",
    doc: "How often committed offsets and log ends are looked at, each time up to a quarter \
              sooner or later.",
    support: Support::Acted,
}];

/// Reads the interval as the table has it.
///
/// # Errors
/// `Config`, naming the property, when it is no number of milliseconds within its bounds.
pub(crate) fn refresh_from(name: &str, value: &str) -> Result<Duration> {
    let fault = |what: String| Error::new(ErrorKind::Config, what);
    let row = SETTINGS
        .iter()
        .find(|row| row.name == name || row.aliases.contains(&name))
        .ok_or_else(|| fault(format!("{name} is no setting of lag collection")))?;
    let millis: Option<i64> = value.trim().parse().ok();
    let within = |millis: &i64| matches!(row.kind, Kind::Millis(least, most) if (least..=most).contains(millis));
    let millis = millis
        .filter(within)
        .and_then(|millis| u64::try_from(millis).ok());
    let millis = millis.ok_or_else(|| {
        let bounds = match row.kind {
            Kind::Millis(least, most) => format!(" from {least} to {most}"),
            _ => String::new(),
        };
        fault(format!(
            "{} must be milliseconds{bounds}, not {value}",
            row.name
        ))
    })?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_the_defaults_that_hold() {
        let row = SETTINGS
            .iter()
            .find(|row| row.name == "lag.refresh.interval.ms")
            .unwrap();
        assert_eq!(row.default, REFRESH.as_millis().to_string());
        assert_eq!(
            row.kind,
            Kind::Millis(REFRESH_MIN.as_millis() as i64, 3_600_000)
        );
    }

    #[test]
    fn an_interval_is_read_within_its_bounds_and_a_wrong_one_is_named() {
        let read = |value| refresh_from("lag.refresh.interval.ms", value);
        assert_eq!(read("250").unwrap(), Duration::from_millis(250));
        for wrong in ["49", "-1", "1s", "", "99999999999999999999"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("lag.refresh.interval.ms"), "{error}");
        }
        assert!(refresh_from("lag.refresh", "250").is_err());
    }
}
