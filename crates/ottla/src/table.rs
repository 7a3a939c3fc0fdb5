//! The one table of settings: every crate's rows together, and the facade's own.

use ottla_proto::setting::{Kind, Setting};
use ottla_proto::{Error, ErrorKind, Result};

const JAVAS: &str = "Java client 4.x (KIP-480, KIP-794)";

/// The facade's own rows.
const OWN: &[Setting] = &[
    Setting::of(
        JAVAS,
        "partitioner",
        &["partitioner.class"],
        Kind::Text,
        "sticky",
        "Which partition a record goes to, by name; a partitioner set in code wins.",
    ),
    Setting::of(
        JAVAS,
        "partitioner.adaptive.partitioning.enable",
        &[],
        Kind::Bool,
        "true",
        "Runs of keyless records go less often where more waits for a slow broker.",
    ),
    Setting::of(
        JAVAS,
        "partitioner.availability.timeout.ms",
        &[],
        Kind::Millis(0, i64::MAX),
        "0",
        "A partition whose leader took nothing for longer gets no keyless records; 0 is off.",
    ),
    Setting::of(
        JAVAS,
        "partitioner.ignore.keys",
        &[],
        Kind::Bool,
        "false",
        "The sticky partitioner places keyed records as if they had no key.",
    ),
    // Of every role. Ours are hooks in code, and the `metrics` facade; nothing is pushed to brokers.
    Setting::ignored("enable.metrics.push", Kind::Bool, "true"),
    Setting::ignored("interceptor.classes", Kind::List, ""),
    Setting::ignored("metric.reporters", Kind::List, ""),
    Setting::ignored("metrics.num.samples", Kind::Int(1, i32::MAX as i64), "2"),
    Setting::ignored("metrics.recording.level", Kind::Text, "INFO"),
    Setting::ignored(
        "metrics.sample.window.ms",
        Kind::Millis(0, i64::MAX),
        "30000",
    ),
];

/// Every setting, each crate's rows in turn.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    [
        ottla_wire::SETTINGS,
        ottla_producer::SETTINGS,
        ottla_consumer::SETTINGS,
        ottla_lag::SETTINGS,
        OWN,
    ]
    .into_iter()
    .flatten()
}

/// The row of a name or an alias.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    settings().find(|row| row.name == name || row.aliases.contains(&name))
}

/// The row of a name or an alias, or an error that suggests the nearest name.
pub(crate) fn find_or_suggest(name: &str) -> Result<&'static Setting> {
    find(name).ok_or_else(|| {
        let names = settings().flat_map(|row| row.aliases.iter().copied().chain([row.name]));
        let hint = nearest(name, names);
        Error::new(
            ErrorKind::Config,
            format!("there is no property {name}{hint}"),
        )
    })
}

/// The end of a message about an unknown name: which known one may be meant, if one is near.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    match known.map(|known| (distance(name, known), known)).min() {
        Some((far, known)) if far <= 1 + name.len() / 3 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// How many letters must change to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = change.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Checks a value against its row.
pub(crate) fn check(row: &Setting, value: &str) -> Result<()> {
    let wrong = |wanted: String| {
        let shown = if row.kind == Kind::Secret {
            "(hidden)"
        } else {
            value
        };
        let message = format!("{} must be {wanted}, not {shown}", row.name);
        Err(Error::new(ErrorKind::Config, message))
    };
    let whole = |from: i64, to: i64, unit: &str| match value.parse::<i64>() {
        Ok(number) if (from..=to).contains(&number) => Ok(()),
        _ => wrong(format!("a whole number{unit} from {from} to {to}")),
    };
    match row.kind {
        Kind::Text | Kind::List | Kind::Secret => Ok(()),
        Kind::Bool if matches!(value, "true" | "false") => Ok(()),
        Kind::Bool => wrong("true or false".to_owned()),
        Kind::Int(from, to) => whole(from, to, ""),
        Kind::Millis(from, to) => whole(from, to, " of milliseconds"),
        Kind::Bytes(from, to) => whole(from, to, " of bytes"),
        Kind::Float(from, to) => match value.parse::<f64>() {
            Ok(number) if (from..=to).contains(&number) => Ok(()),
            _ => wrong(format!("a number from {from} to {to}")),
        },
        Kind::OneOf(words) if words.contains(&value) => Ok(()),
        Kind::OneOf(words) => wrong(format!("one of {}", words.join(", "))),
    }
}

#[cfg(test)]
mod known;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_and_alias_stands_once_in_the_table() {
        let mut seen = BTreeSet::new();
        for row in settings() {
            for name in row.aliases.iter().chain([&row.name]) {
                assert!(seen.insert(*name), "{name} stands twice in the table");
            }
        }
    }

    #[test]
    fn every_default_fits_its_own_row() {
        for row in settings().filter(|row| !row.default.is_empty()) {
            check(row, row.default).unwrap();
            assert!(
                !row.doc.is_empty() && !row.default_source.is_empty(),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn a_misspelt_name_is_an_error_that_suggests_the_nearest() {
        let error = find_or_suggest("linger.sm").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no property linger.sm; did you mean linger.ms?"
        );
        let error = find_or_suggest("zzzzzzzzzzzzzz").unwrap_err();
        assert_eq!(error.to_string(), "there is no property zzzzzzzzzzzzzz");
    }

    #[test]
    fn a_librdkafka_name_finds_the_same_row() {
        assert_eq!(
            find("queue.buffering.max.ms").map(|row| row.name),
            Some("linger.ms")
        );
    }

    #[test]
    fn a_value_that_does_not_fit_names_the_property_and_what_it_wants() {
        let row = find("acks").unwrap();
        let error = check(row, "2").unwrap_err().to_string();
        assert_eq!(error, "acks must be one of all, -1, 1, 0, not 2");
        let row = find("linger.ms").unwrap();
        assert!(
            check(row, "-1")
                .unwrap_err()
                .to_string()
                .starts_with("linger.ms must be")
        );
    }
}
