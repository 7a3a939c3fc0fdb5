//! What a user may set about consuming.

use ottla_proto::fetch::{Isolation, OffsetReset};
use ottla_proto::group::Assignor;
use ottla_proto::setting::{Kind, Setting};
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// The consumer's settings. The defaults are Java's, except for `assignors`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `group.id`; none. Without a group nothing can be subscribed to or committed.
    pub group: Option<Arc<str>>,
    /// `group.instance.id`; none. Makes the member a static one (KIP-345).
    pub instance: Option<Arc<str>>,
    /// `partition.assignment.strategy`; cooperative-sticky.
    pub assignors: Vec<Assignor>,
    /// `session.timeout.ms`; 45 s.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`; 3 s.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`; 5 min. A user who asks for no records for this long loses the
    /// partitions.
    pub max_poll_interval: Duration,
    /// `enable.auto.commit`; on.
    pub auto_commit: bool,
    /// `auto.commit.interval.ms`; 5 s.
    pub auto_commit_interval: Duration,
    /// `auto.offset.reset`; latest.
    pub auto_offset_reset: OffsetReset,
    /// `isolation.level`; read_uncommitted.
    pub isolation: Isolation,
    /// `fetch.min.bytes`; 1. A broker answers once it has so much, or `fetch_max_wait` has passed.
    pub fetch_min_bytes: usize,
    /// `fetch.max.wait.ms`; 500 ms.
    pub fetch_max_wait: Duration,
    /// `fetch.max.bytes`; 50 MiB.
    pub fetch_max_bytes: usize,
    /// `max.partition.fetch.bytes`; 1 MiB.
    pub partition_max_bytes: usize,
    /// `queued.max.messages.kbytes`; 64 MiB. The most that is fetched ahead of the user.
    pub buffer_max_bytes: usize,
    /// 256 MiB. The most that one compressed batch may inflate to.
    pub inflated_max_bytes: usize,
    /// `check.crcs`; on.
    pub check_crcs: bool,
    /// `client.rack`; none. Told to the group's leader and to the brokers.
    pub rack: Option<Arc<str>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group: None,
            instance: None,
            assignors: vec![Assignor::CooperativeSticky],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            auto_offset_reset: OffsetReset::Latest,
            isolation: Isolation::ReadUncommitted,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            buffer_max_bytes: 64 << 20,
            inflated_max_bytes: 256 << 20,
            check_crcs: true,
            rack: None,
        }
    }
}

const INT_MAX: i64 = i32::MAX as i64;

const RESETS: &[&str] = &[
    "earliest",
    "latest",
    "none",
    "beginning",
    "smallest",
    "end",
    "largest",
    "error",
];

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[
    Setting::java(
        "group.id",
        &[],
        Kind::Text,
        "",
        "The group to consume in and to commit for.",
    ),
    Setting::java(
        "group.instance.id",
        &[],
        Kind::Text,
        "",
        "The member's own lasting name: it may restart without a rebalance.",
    ),
    Setting::java(
        "group.protocol",
        &[],
        Kind::OneOf(&["classic"]),
        "classic",
        "How members and coordinator agree; only classic so far.",
    ),
    Setting {
        default_source: "ours: a rebalance stops nobody (KIP-429)",
        ..Setting::java(
            "partition.assignment.strategy",
            &[],
            Kind::List,
            "cooperative-sticky",
            "How partitions are shared out: cooperative-sticky, range, roundrobin; best first.",
        )
    },
    Setting::java(
        "session.timeout.ms",
        &[],
        Kind::Millis(1, INT_MAX),
        "45000",
        "Without a heartbeat for this long a member is counted out.",
    ),
    Setting::java(
        "heartbeat.interval.ms",
        &[],
        Kind::Millis(1, INT_MAX),
        "3000",
        "The pause between two heartbeats.",
    ),
    Setting::java(
        "max.poll.interval.ms",
        &[],
        Kind::Millis(1, INT_MAX),
        "300000",
        "A user who asks for no records for this long loses the partitions.",
    ),
    Setting::java(
        "enable.auto.commit",
        &[],
        Kind::Bool,
        "true",
        "Commit in the background what was handed out before the latest call.",
    ),
    Setting::java(
        "auto.commit.interval.ms",
        &[],
        Kind::Millis(1, INT_MAX),
        "5000",
        "The pause between two automatic commits.",
    ),
    Setting::java(
        "auto.offset.reset",
        &[],
        Kind::OneOf(RESETS),
        "latest",
        "Where to begin without a commit, or when the log does not have the offset.",
    ),
    Setting::java(
        "isolation.level",
        &[],
        Kind::OneOf(&["read_uncommitted", "read_committed"]),
        "read_uncommitted",
        "Whether records of open and aborted transactions are seen.",
    ),
    Setting::java(
        "fetch.min.bytes",
        &[],
        Kind::Bytes(0, INT_MAX),
        "1",
        "A broker answers once it has so much, or fetch.max.wait.ms has passed.",
    ),
    Setting::java(
        "fetch.max.wait.ms",
        &["fetch.wait.max.ms"],
        Kind::Millis(0, INT_MAX),
        "500",
        "How long a broker may wait for fetch.min.bytes.",
    ),
    Setting::java(
        "fetch.max.bytes",
        &[],
        Kind::Bytes(1, INT_MAX),
        "52428800",
        "The most that one answer shall hold; a single larger batch comes all the same.",
    ),
    Setting::java(
        "max.partition.fetch.bytes",
        &["fetch.message.max.bytes"],
        Kind::Bytes(1, INT_MAX),
        "1048576",
        "The most that one answer shall hold of one partition.",
    ),
    Setting {
        default_source: "librdkafka 2.x; Java has none",
        ..Setting::java(
            "queued.max.messages.kbytes",
            &[],
            Kind::Int(1, 2_097_151),
            "65536",
            "The most KiB that are fetched ahead of the user.",
        )
    },
    Setting {
        default_source: "ours: bounds what a damaged or hostile batch can cost",
        ..Setting::java(
            "fetch.batch.inflated.max.bytes",
            &[],
            Kind::Bytes(1, INT_MAX),
            "268435456",
            "The most that one compressed batch may inflate to.",
        )
    },
    Setting::java(
        "check.crcs",
        &[],
        Kind::Bool,
        "true",
        "Verify the checksum of every batch.",
    ),
    Setting::java(
        "client.rack",
        &[],
        Kind::Text,
        "",
        "This client's rack, told to the group's leader.",
    ),
    Setting::ignored("max.poll.records", Kind::Int(1, INT_MAX), "500"),
    Setting::ignored("group.remote.assignor", Kind::Text, ""),
    Setting::ignored("exclude.internal.topics", Kind::Bool, "true"),
    Setting::ignored("key.deserializer", Kind::Text, ""),
    Setting::ignored("value.deserializer", Kind::Text, ""),
    Setting::ignored("enable.auto.offset.store", Kind::Bool, "true"),
    Setting::ignored("enable.partition.eof", Kind::Bool, "false"),
    Setting::ignored("queued.min.messages", Kind::Int(1, 10_000_000), "100000"),
];

impl Config {
    /// Sets one property by its name in [`SETTINGS`] (not by an alias).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the property when it is unknown or its value does not fit.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let value = value.trim();
        match name {
            "group.id" => self.group = text(value),
            "group.instance.id" => self.instance = text(value),
            "group.protocol" if value.eq_ignore_ascii_case("classic") => {}
            "partition.assignment.strategy" => self.assignors = assignors(name, value)?,
            "session.timeout.ms" => self.session_timeout = millis(name, value)?,
            "heartbeat.interval.ms" => self.heartbeat_interval = millis(name, value)?,
            "max.poll.interval.ms" => self.max_poll_interval = millis(name, value)?,
            "enable.auto.commit" => self.auto_commit = parsed(name, value)?,
            "auto.commit.interval.ms" => self.auto_commit_interval = millis(name, value)?,
            "auto.offset.reset" => self.auto_offset_reset = reset(name, value)?,
            "isolation.level" => self.isolation = isolation(name, value)?,
            "fetch.min.bytes" => self.fetch_min_bytes = parsed(name, value)?,
            "fetch.max.wait.ms" => self.fetch_max_wait = millis(name, value)?,
            "fetch.max.bytes" => self.fetch_max_bytes = parsed(name, value)?,
            "max.partition.fetch.bytes" => self.partition_max_bytes = parsed(name, value)?,
            "queued.max.messages.kbytes" => {
                self.buffer_max_bytes = parsed::<usize>(name, value)?.saturating_mul(1024);
            }
            "fetch.batch.inflated.max.bytes" => self.inflated_max_bytes = parsed(name, value)?,
            "check.crcs" => self.check_crcs = parsed(name, value)?,
            "client.rack" => self.rack = text(value),
            "group.protocol" => return Err(unfit(name, value)),
            _ if SETTINGS.iter().any(|row| row.name == name) => {}
            _ => return Err(config(format!("{name} is not a property of the consumer"))),
        }
        Ok(())
    }

    /// Checks how the settings fit together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the property at fault.
    pub fn check(&self) -> Result<()> {
        if self.heartbeat_interval >= self.session_timeout {
            return Err(config(format!(
                "heartbeat.interval.ms ({} ms) must be below session.timeout.ms ({} ms)",
                self.heartbeat_interval.as_millis(),
                self.session_timeout.as_millis()
            )));
        }
        if self.assignors.is_empty() {
            return Err(config("partition.assignment.strategy is empty".to_owned()));
        }
        for (name, bytes) in [
            ("fetch.max.bytes", self.fetch_max_bytes),
            ("max.partition.fetch.bytes", self.partition_max_bytes),
            ("fetch.batch.inflated.max.bytes", self.inflated_max_bytes),
        ] {
            if bytes == 0 {
                return Err(config(format!("{name} must be at least 1")));
            }
        }
        Ok(())
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn unfit(name: &str, value: &str) -> Error {
    config(format!("{name} does not take the value {value}"))
}

fn text(value: &str) -> Option<Arc<str>> {
    (!value.is_empty()).then(|| value.into())
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| unfit(name, value))
}

fn millis(name: &str, value: &str) -> Result<Duration> {
    parsed(name, value).map(Duration::from_millis)
}

fn assignors(name: &str, value: &str) -> Result<Vec<Assignor>> {
    let names = value
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    names
        .map(|one| Assignor::from_name(one).ok_or_else(|| unfit(name, one)))
        .collect()
}

fn reset(name: &str, value: &str) -> Result<OffsetReset> {
    match value {
        "earliest" | "beginning" | "smallest" => Ok(OffsetReset::Earliest),
        "latest" | "end" | "largest" => Ok(OffsetReset::Latest),
        "none" | "error" => Ok(OffsetReset::None),
        other => Err(unfit(name, other)),
    }
}

fn isolation(name: &str, value: &str) -> Result<Isolation> {
    match value {
        "read_uncommitted" => Ok(Isolation::ReadUncommitted),
        "read_committed" => Ok(Isolation::ReadCommitted),
        other => Err(unfit(name, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::setting::Support;

    #[test]
    fn every_row_that_we_act_on_takes_its_own_default() {
        let mut config = Config::default();
        for row in SETTINGS.iter().filter(|row| row.support == Support::Acted) {
            config.set(row.name, row.default).unwrap();
        }
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        config.check().unwrap();
    }

    #[test]
    fn a_value_that_does_not_fit_names_the_property() {
        for (name, value) in [
            ("partition.assignment.strategy", "range,nearest"),
            ("auto.offset.reset", "middle"),
            ("isolation.level", "serializable"),
            ("session.timeout.ms", "soon"),
            ("group.protocol", "consumer"),
            ("linger.ms", "5"),
        ] {
            let error = Config::default().set(name, value).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Config);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_name_the_property() {
        let config = Config {
            heartbeat_interval: Duration::from_secs(45),
            ..Config::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("heartbeat.interval.ms")
        );
    }

    #[test]
    fn java_class_names_and_old_reset_names_are_known() {
        let mut config = Config::default();
        let classes = "org.apache.kafka.clients.consumer.RangeAssignor, roundrobin";
        config
            .set("partition.assignment.strategy", classes)
            .unwrap();
        assert_eq!(config.assignors, [Assignor::Range, Assignor::RoundRobin]);
        config.set("auto.offset.reset", "smallest").unwrap();
        assert_eq!(config.auto_offset_reset, OffsetReset::Earliest);
    }
}
