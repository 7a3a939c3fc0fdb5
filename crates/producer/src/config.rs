//! What a user may set about producing.

use crate::dead_letter::DeadLetterFormat;
use crate::hooks::Hooks;
use crate::levels::{CompressionLevels, GZIP_LEVELS, LZ4_LEVELS, ZSTD_LEVELS};
use crate::preset::Preset;
use ottla_proto::batch::Compression;
use ottla_proto::setting::{Kind, Setting};
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// How many copies a record needs before it counts as acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Every in-sync replica.
    All,
    /// The leader alone: a record can be lost with it.
    Leader,
    /// None: the record is taken as sent once it is written to the socket. Errors are not seen.
    None,
}

impl Acks {
    pub(crate) fn on_wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// Where batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressOn {
    /// On the runtime's blocking threads, off the path that takes records in.
    BlockingThreads,
    /// On the driver's own task: one thread, always in the same order.
    Driver,
}

/// Where a record's time comes from when it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The system's clock.
    System,
    /// The runtime's clock, counted from these milliseconds since the Unix epoch: under a paused
    /// clock, time then stands still.
    Runtime {
        /// Milliseconds since the Unix epoch when the producer is built.
        start: i64,
    },
}

/// The producer's settings. The defaults are Java's, except for `batch_bytes`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `acks`; all.
    pub acks: Acks,
    /// `enable.idempotence`; true.
    pub idempotence: bool,
    /// `linger.ms`; 5 ms. How long a batch waits for more records.
    pub linger: Duration,
    /// `batch.size`; 1,000,000 bytes before compression. Batches are lists of small chunks, so a
    /// large limit costs no memory.
    pub batch_bytes: usize,
    /// `max.request.size`; 1,048,576 bytes. The largest batch, and so the largest record.
    pub batch_bytes_max: usize,
    /// 8 MiB. A request takes no further batch when it holds so many bytes.
    pub request_bytes_max: usize,
    /// 500 ms, and more for large requests and slow brokers. A request that is unanswered for so long
    /// while other partitions wait for it is given up, and its partitions are sent apart: one whose
    /// follower is stuck then holds up no other. Acts only with idempotence; `Duration::MAX` turns it
    /// off.
    pub stall_after: Duration,
    /// `buffer.memory`; 32 MiB.
    pub buffer_bytes: usize,
    /// `max.block.ms`; 60 s. How long a call may wait for metadata and for a place in the buffer.
    pub max_block: Duration,
    /// `metadata.max.idle.ms`; 5 minutes. A topic that nothing was written to for so long is
    /// forgotten; the next record for it asks for it again.
    pub metadata_max_idle: Duration,
    /// `delivery.timeout.ms`; 120 s from the moment a batch is begun.
    pub delivery_timeout: Duration,
    /// `retries`; as many as fit into the delivery timeout.
    pub retries: u32,
    /// `max.in.flight.requests.per.connection`; 5.
    pub in_flight_max: usize,
    /// `compression.type`; none.
    pub compression: Compression,
    /// How hard each codec tries.
    pub compression_levels: CompressionLevels,
    /// Where batches are compressed.
    pub compress_on: CompressOn,
    /// Where timestamps come from.
    pub clock: Clock,
    /// `transactional.id`; none. The name under which transactions are written, and under which
    /// an earlier producer is fenced.
    pub transactional_id: Option<Arc<str>>,
    /// `transaction.timeout.ms`; 60 s. A transaction that stays open for longer is aborted by its
    /// coordinator.
    pub transaction_timeout: Duration,
    /// What users hung in.
    pub hooks: Hooks,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            linger: Duration::from_millis(5),
            batch_bytes: 1_000_000,
            batch_bytes_max: 1 << 20,
            request_bytes_max: 8 << 20,
            stall_after: Duration::from_millis(500),
            buffer_bytes: 32 << 20,
            max_block: Duration::from_secs(60),
            metadata_max_idle: Duration::from_secs(300),
            delivery_timeout: Duration::from_secs(120),
            retries: u32::MAX,
            in_flight_max: 5,
            compression: Compression::None,
            compression_levels: CompressionLevels::default(),
            compress_on: CompressOn::BlockingThreads,
            clock: Clock::System,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
            hooks: Hooks::default(),
        }
    }
}

const INT_MAX: i64 = i32::MAX as i64;

const fn ours(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting::java(name, &[], kind, default, doc).sourced("ours")
}

const CODECS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[
    Setting::java(
        "acks",
        &["request.required.acks"],
        Kind::OneOf(&["all", "-1", "1", "0"]),
        "all",
        "How many copies a record needs before it counts as acknowledged.",
    ),
    Setting::java(
        "enable.idempotence",
        &[],
        Kind::Bool,
        "true",
        "Brokers drop repeated batches and keep their order.",
    ),
    Setting::java(
        "linger.ms",
        &["queue.buffering.max.ms"],
        Kind::Millis(0, INT_MAX),
        "5",
        "How long a batch waits for more records.",
    ),
    Setting {
        default_source: "ours: batches are lists of small chunks, a large limit costs nothing",
        ..Setting::java(
            "batch.size",
            &[],
            Kind::Bytes(0, INT_MAX),
            "1000000",
            "A batch is sent when it holds so many bytes, before compression.",
        )
    },
    Setting::java(
        "max.request.size",
        &["message.max.bytes"],
        Kind::Bytes(1_024, INT_MAX),
        "1048576",
        "The largest batch, and so the largest record.",
    ),
    Setting::java(
        "buffer.memory",
        &[],
        Kind::Bytes(65_536, i64::MAX),
        "33554432",
        "Memory for records that are not acknowledged yet.",
    ),
    Setting::java(
        "max.block.ms",
        &[],
        Kind::Millis(0, i64::MAX),
        "60000",
        "How long a call may wait for metadata and for a place in the buffer.",
    ),
    Setting::java(
        "metadata.max.idle.ms",
        &[],
        Kind::Millis(5000, INT_MAX),
        "300000",
        "A topic that nothing was written to for so long is forgotten.",
    ),
    Setting::java(
        "delivery.timeout.ms",
        &["message.timeout.ms"],
        Kind::Millis(1, INT_MAX),
        "120000",
        "When a batch that was not acknowledged fails.",
    ),
    Setting::java(
        "retries",
        &["message.send.max.retries"],
        Kind::Int(0, INT_MAX),
        "2147483647",
        "Attempts after the first, within the delivery timeout.",
    ),
    Setting::java(
        "max.in.flight.requests.per.connection",
        &["max.in.flight"],
        Kind::Int(1, 1_000_000),
        "5",
        "Unanswered Produce requests a broker.",
    ),
    Setting::java(
        "compression.type",
        &["compression.codec"],
        Kind::OneOf(CODECS),
        "none",
        "How batches are compressed.",
    ),
    Setting::java(
        "compression.gzip.level",
        &[],
        Kind::Int(GZIP_LEVELS.0, GZIP_LEVELS.1),
        "-1",
        "How hard gzip tries; -1 is its own default, 6.",
    ),
    Setting::java(
        "compression.lz4.level",
        &[],
        Kind::Int(LZ4_LEVELS.0, LZ4_LEVELS.1),
        "9",
        "Taken for lz4, which is written in one way here: it changes nothing.",
    ),
    Setting::java(
        "compression.zstd.level",
        &[],
        Kind::Int(ZSTD_LEVELS.0, ZSTD_LEVELS.1),
        "3",
        "How hard zstd tries; negative levels are faster.",
    ),
    Setting {
        default_source: "librdkafka",
        ..Setting::java(
            "compression.level",
            &[],
            Kind::Int(ZSTD_LEVELS.0, ZSTD_LEVELS.1),
            "",
            "The level of the codec in use, where its own is not set.",
        )
    },
    Setting::java(
        "transactional.id",
        &[],
        Kind::Text,
        "",
        "The name under which transactions are written; an earlier producer of that name is fenced.",
    ),
    Setting::java(
        "transaction.timeout.ms",
        &[],
        Kind::Millis(1, INT_MAX),
        "60000",
        "When the coordinator aborts a transaction that is still open.",
    ),
    ours(
        "preset",
        Kind::OneOf(&["production", "throughput", "latency"]),
        "",
        "Settings that belong together, to begin from; every other property wins over it.",
    ),
    ours(
        "dead.letter.topic",
        Kind::Text,
        "",
        "Where failed records go, such as {topic}.dlq; nowhere when not set.",
    ),
    ours(
        "dead.letter.format",
        Kind::OneOf(&["kafka", "spring", "connect", "json"]),
        "kafka",
        "How a dead letter says what happened to it.",
    ),
    Setting::ignored("transaction.two.phase.commit.enable", Kind::Bool, "false"),
    Setting::ignored("key.serializer", Kind::Text, ""),
    Setting::ignored("value.serializer", Kind::Text, ""),
    Setting::ignored(
        "queue.buffering.max.kbytes",
        Kind::Int(1, INT_MAX),
        "1048576",
    ),
    Setting::ignored(
        "queue.buffering.max.messages",
        Kind::Int(0, INT_MAX),
        "100000",
    ),
    Setting::ignored("batch.num.messages", Kind::Int(1, INT_MAX), "10000"),
    Setting::ignored(
        "sticky.partitioning.linger.ms",
        Kind::Millis(0, INT_MAX),
        "10",
    ),
];

impl Config {
    /// Sets one property by its name in [`SETTINGS`] (not by an alias).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the property when it is unknown or its value does not fit.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let value = value.trim();
        match name {
            "acks" => self.acks = acks(value)?,
            "enable.idempotence" => self.idempotence = number::<bool>(name, value)?,
            "linger.ms" => self.linger = millis(name, value)?,
            "batch.size" => self.batch_bytes = number(name, value)?,
            "max.request.size" => self.batch_bytes_max = number(name, value)?,
            "buffer.memory" => self.buffer_bytes = number(name, value)?,
            "max.block.ms" => self.max_block = millis(name, value)?,
            "metadata.max.idle.ms" => self.metadata_max_idle = millis(name, value)?,
            "delivery.timeout.ms" => self.delivery_timeout = millis(name, value)?,
            "retries" => self.retries = number(name, value)?,
            "max.in.flight.requests.per.connection" => self.in_flight_max = number(name, value)?,
            "compression.type" => self.compression = value.parse()?,
            "compression.gzip.level" => self.compression_levels.gzip = Some(number(name, value)?),
            "compression.lz4.level" => self.compression_levels.lz4 = Some(number(name, value)?),
            "compression.zstd.level" => self.compression_levels.zstd = Some(number(name, value)?),
            // What to begin from: `Preset::config`, before any other property.
            "preset" => drop(Preset::by_name(value)?),
            "dead.letter.topic" => {
                let letters = self.hooks.dead_letters.take().unwrap_or_default();
                let letters = Some(letters.topic(value));
                self.hooks.dead_letters = letters.filter(|_| !value.is_empty());
            }
            "dead.letter.format" => self.dead_letter_format(name, value)?,
            // librdkafka's way to say "its own default".
            "compression.level" if value == "-1" => self.compression_levels.any = None,
            "compression.level" => self.compression_levels.any = Some(number(name, value)?),
            "transactional.id" => {
                self.transactional_id = Some(value).filter(|id| !id.is_empty()).map(Arc::from);
            }
            "transaction.timeout.ms" => self.transaction_timeout = millis(name, value)?,
            _ if SETTINGS.iter().any(|row| row.name == name) => {}
            _ => return Err(config(format!("{name} is not a property of the producer"))),
        }
        Ok(())
    }

    /// A format alone asks for no dead letters.
    fn dead_letter_format(&mut self, name: &str, value: &str) -> Result<()> {
        let format = named(name, &DeadLetterFormat::NAMES, value)?;
        if let Some(letters) = self.hooks.dead_letters.take() {
            self.hooks.dead_letters = Some(letters.format(format));
        }
        Ok(())
    }

    /// Checks how the settings fit together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the property at fault.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(config(message));
        if self.transactional_id.is_some() && self.acks != Acks::All {
            let acks = self.acks.on_wire();
            return refuse(format!("transactional.id needs acks=all, not acks={acks}"));
        }
        if self.idempotence && self.acks != Acks::All {
            return refuse("enable.idempotence=true needs acks=all".to_owned());
        }
        if self.transactional_id.is_some() && !self.idempotence {
            return refuse("transactional.id needs enable.idempotence=true".to_owned());
        }
        if self.idempotence && self.in_flight_max > 5 {
            return refuse(format!(
                "enable.idempotence=true allows at most 5 for \
                 max.in.flight.requests.per.connection, not {}",
                self.in_flight_max
            ));
        }
        if self.idempotence && self.retries == 0 {
            return refuse("enable.idempotence=true needs retries above 0".to_owned());
        }
        if self.in_flight_max == 0 {
            return refuse("max.in.flight.requests.per.connection must be at least 1".to_owned());
        }
        if self.batch_bytes_max < 1_024 {
            return refuse("max.request.size must be at least 1024 bytes".to_owned());
        }
        if self.buffer_bytes < 65_536 {
            return refuse("buffer.memory must be at least 65536 bytes".to_owned());
        }
        self.compression_levels.check(self.compression)?;
        if let Some(letters) = &self.hooks.dead_letters {
            letters.check()?;
            if self.transactional_id.is_some() {
                let what = "dead letters do not go with transactional.id: a record that fails aborts its transaction";
                return refuse(what.to_owned());
            }
        }
        if self.delivery_timeout <= self.linger {
            return refuse(format!(
                "delivery.timeout.ms ({} ms) must be above linger.ms ({} ms)",
                self.delivery_timeout.as_millis(),
                self.linger.as_millis()
            ));
        }
        Ok(())
    }
}

pub(crate) fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

pub(crate) fn named<T: Copy>(property: &str, all: &[(&'static str, T)], name: &str) -> Result<T> {
    let found = all.iter().find(|(own, _)| *own == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(own, _)| *own).collect();
        let names = names.join(", ");
        config(format!("{property} must be one of {names}, not {name}"))
    })
}

fn acks(value: &str) -> Result<Acks> {
    match value {
        "all" | "-1" => Ok(Acks::All),
        "1" => Ok(Acks::Leader),
        "0" => Ok(Acks::None),
        other => Err(config(format!("acks must be all, 1 or 0, not {other}"))),
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N> {
    value
        .parse()
        .map_err(|_| config(format!("{name} does not take the value {value}")))
}

fn millis(name: &str, value: &str) -> Result<Duration> {
    number(name, value).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_we_act_on_takes_its_own_default() {
        let mut config = Config::default();
        for row in SETTINGS.iter().filter(|row| !row.default.is_empty()) {
            config.set(row.name, row.default).unwrap();
        }
        let levels = std::mem::take(&mut config.compression_levels);
        assert_eq!(
            (levels.gzip, levels.lz4, levels.zstd),
            (Some(-1), Some(9), Some(3))
        );
        let (set, default) = (format!("{config:?}"), format!("{:?}", Config::default()));
        let retries = |text: &str| text.replace("2147483647", "4294967295");
        assert_eq!(retries(&set), default);
    }

    #[test]
    fn settings_that_contradict_each_other_name_the_property() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refused(|c| c.acks = Acks::Leader).contains("acks=all"));
        assert!(refused(|c| c.in_flight_max = 6).contains("max.in.flight"));
        assert!(refused(|c| c.linger = Duration::from_secs(121)).contains("delivery.timeout.ms"));
        assert!(refused(|c| c.buffer_bytes = 1).contains("buffer.memory"));
    }

    #[test]
    fn dead_letters_by_property() {
        let mut config = Config::default();
        config.set("dead.letter.format", "spring").unwrap();
        assert_eq!(
            config.hooks.dead_letters, None,
            "a format alone asks for none"
        );
        config.set("dead.letter.topic", "{topic}-dlq").unwrap();
        config.set("dead.letter.format", "json").unwrap();
        let letters = config.hooks.dead_letters.clone().unwrap();
        assert_eq!(letters.topic_of("orders"), "orders-dlq");
        config.set("dead.letter.topic", "{topic}").unwrap();
        assert!(config.check().is_err());
        config.set("dead.letter.topic", "").unwrap();
        assert_eq!(config.hooks.dead_letters, None, "empty is not set");
    }
}
