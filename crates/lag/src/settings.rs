//! The rows of this crate's properties.

use ottla_proto::setting::{Kind, Setting, Support};
use std::time::Duration;

/// How often lag is looked at, unless told otherwise: the study's interval.
pub const REFRESH: Duration = Duration::from_secs(1);

/// The shortest interval: below it brokers are asked more often than the answers can change a choice.
pub const REFRESH_MIN: Duration = Duration::from_millis(50);

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "lag.group",
        aliases: &[],
        kind: Kind::Text,
        default: "",
        default_source: "ours",
        doc: "The consumer group whose lag steers keyless records; without one nothing is steered.",
        support: Support::Acted,
    },
    Setting {
        name: "lag.refresh.interval.ms",
        aliases: &["refresh_interval_ms"],
        kind: Kind::Millis(50, 3_600_000),
        default: "1000",
        default_source: "ours: the study's interval; keep it at a third of the group's commit \
                         interval or below, or far above it",
        doc: "How often committed offsets and log ends are looked at, each time up to a quarter \
              sooner or later.",
        support: Support::Acted,
    },
];

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
}
