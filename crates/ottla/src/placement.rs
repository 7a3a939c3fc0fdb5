//! The partitioner that the properties ask for.

use crate::properties::Properties;
use crate::table;
use ottla_partitioner::{NAMES, Partitioner, Sticky, by_name};
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// What `partitioner` and its companions name; sticky runs if they say nothing.
pub(crate) fn by_properties(properties: &Properties) -> Result<Arc<dyn Partitioner>> {
    let runs = runs(properties);
    match properties.get("partitioner") {
        None | Some("") => Ok(Arc::new(runs)),
        Some(name) => by_name(name, runs).ok_or_else(|| unknown(name)),
    }
}

/// How runs are placed. The values were checked against their rows when they were set.
fn runs(properties: &Properties) -> Sticky {
    let switch = |name: &str| properties.get(name).map(|value| value == "true");
    let mut runs = Sticky::default();
    if let Some(adaptive) = switch("partitioner.adaptive.partitioning.enable") {
        runs = runs.adaptive(adaptive);
    }
    if let Some(ignore) = switch("partitioner.ignore.keys") {
        runs = runs.ignore_keys(ignore);
    }
    let timeout = properties.get("partitioner.availability.timeout.ms");
    if let Some(millis) = timeout.and_then(|millis| millis.parse().ok()) {
        runs = runs.availability_timeout(Duration::from_millis(millis));
    }
    runs
}

fn unknown(name: &str) -> Error {
    let message = if matches!(name, "lag_aware" | "lag-aware") {
        format!(
            "the partitioner {name} needs a group's lag: give the builder \
             LagAware::new(lag.plan())"
        )
    } else {
        let hint = table::nearest(name, NAMES.iter().copied());
        let names = NAMES.join(", ");
        format!("partitioner must be one of {names}, not {name}{hint}")
    };
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(pairs: &[(&str, &str)]) -> Result<Arc<dyn Partitioner>> {
        let mut properties = Properties::new();
        for (name, value) in pairs {
            properties.set(name, *value)?;
        }
        by_properties(&properties)
    }

    fn shown(pairs: &[(&str, &str)]) -> String {
        format!("{:?}", chosen(pairs).unwrap())
    }

    #[test]
    fn nothing_and_javas_null_are_sticky_runs() {
        let sticky = format!("{:?}", Sticky::default());
        assert_eq!(shown(&[]), sticky);
        assert_eq!(shown(&[("partitioner.class", "")]), sticky);
    }

    #[test]
    fn java_class_names_and_librdkafkas_names_choose() {
        let class = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
        assert_eq!(shown(&[("partitioner.class", class)]), "RoundRobin");
        assert!(shown(&[("partitioner", "fnv1a_random")]).contains("Fnv1a"));
    }

    #[test]
    fn the_runs_obey_javas_properties() {
        let asked = Sticky::default()
            .adaptive(false)
            .ignore_keys(true)
            .availability_timeout(Duration::from_millis(1500));
        let pairs = [
            ("partitioner.adaptive.partitioning.enable", "false"),
            ("partitioner.ignore.keys", "true"),
            ("partitioner.availability.timeout.ms", "1500"),
        ];
        assert_eq!(shown(&pairs), format!("{asked:?}"));
    }

    #[test]
    fn a_misspelt_name_is_an_error_that_suggests_the_nearest() {
        let error = |name: &str| chosen(&[("partitioner", name)]).unwrap_err();
        let message = error("murmur2-random").to_string();
        assert!(
            message.ends_with("did you mean murmur2_random?"),
            "{message}"
        );
        assert_eq!(*error("zzzzzzzzzzzz").kind(), ErrorKind::Config);
        assert!(error("lag_aware").to_string().contains("LagAware::new"));
    }
}
