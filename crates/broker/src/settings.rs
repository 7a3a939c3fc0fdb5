//! What the cluster and its topics are set to.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a broker does with a producer's first batch on a partition when its sequence is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstSequence {
    /// It is accepted, as by Kafka up to 4.4.
    #[default]
    Any,
    /// It is refused with `OUT_OF_ORDER_SEQUENCE_NUMBER` where nothing was ever written
    /// (KAFKA-15591).
    Zero,
}

/// Settings of the whole cluster; the builder fills them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node_count: i32,
    pub(crate) cluster_id: String,
    pub(crate) seed: u64,
    pub(crate) auto_create_topics: bool,
    pub(crate) topic_ids: bool,
    pub(crate) default_partitions: i32,
    pub(crate) default_replication: i16,
    pub(crate) min_insync_replicas: i16,
    pub(crate) first_sequence: FirstSequence,
    pub(crate) election_delay: Duration,
    pub(crate) topic_bytes_max: usize,
    pub(crate) request_bytes_max: usize,
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) session_timeout_min: Duration,
    pub(crate) session_timeout_max: Duration,
    pub(crate) validate_records: bool,
    pub(crate) transaction_version: i16,
    pub(crate) transaction_timeout_max: Duration,
    pub(crate) marker_delay: Duration,
    pub(crate) first_producer_epoch: i16,
    pub(crate) clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_count: 1,
            cluster_id: "b3R0bGEtYnJva2VyLTAwMQ".to_owned(),
            seed: 0,
            auto_create_topics: false,
            topic_ids: true,
            default_partitions: 1,
            default_replication: 1,
            min_insync_replicas: 1,
            first_sequence: FirstSequence::Any,
            election_delay: Duration::ZERO,
            topic_bytes_max: 256 * 1024 * 1024,
            // Kafka's socket.request.max.bytes.
            request_bytes_max: 100 * 1024 * 1024,
            initial_rebalance_delay: Duration::ZERO,
            // Kafka's group.min.session.timeout.ms and group.max.session.timeout.ms.
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            validate_records: true,
            transaction_version: 2,
            // Kafka's transaction.max.timeout.ms.
            transaction_timeout_max: Duration::from_secs(15 * 60),
            marker_delay: Duration::ZERO,
            first_producer_epoch: 0,
            clock: Clock::starting_at(None),
        }
    }
}

/// Wall time as tokio's clock plus a start, so that a paused clock stops it too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    begun: Instant,
    begun_millis: i64,
}

impl Clock {
    /// A clock that shows `millis` (Unix epoch) now; the system's time if `None`.
    pub(crate) fn starting_at(millis: Option<i64>) -> Self {
        let begun_millis = millis.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_millis()).ok())
                .unwrap_or(0)
        });
        Self {
            begun: Instant::now(),
            begun_millis,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn millis(&self) -> i64 {
        let passed = Instant::now().saturating_duration_since(self.begun);
        self.begun_millis
            .saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// One topic setting that this broker knows.
pub(crate) struct TopicSetting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    /// Kafka's number for the type: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list.
    pub(crate) kind: i8,
    pub(crate) doc: &'static str,
}

/// Topic settings, in the order in which DescribeConfigs lists them. Those that do nothing here
/// are kept so that tools that set or read them work.
pub(crate) const TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        default: "delete",
        kind: 7,
        doc: "With compact every record needs a key; nothing is compacted here.",
    },
    TopicSetting {
        name: "compression.type",
        default: "producer",
        kind: 2,
        doc: "Kept and shown; batches stay as the producer sent them.",
    },
    TopicSetting {
        name: "max.message.bytes",
        default: "1048588",
        kind: 3,
        doc: "The largest record batch, in bytes.",
    },
    TopicSetting {
        name: "message.timestamp.type",
        default: "CreateTime",
        kind: 2,
        doc: "CreateTime, or LogAppendTime for the broker's own time.",
    },
    TopicSetting {
        name: "min.insync.replicas",
        default: "1",
        kind: 3,
        doc: "How many replicas must be in step for a write with acks=all.",
    },
    TopicSetting {
        name: "retention.bytes",
        default: "-1",
        kind: 5,
        doc: "Bytes kept a partition; the cluster's own memory cap holds as well.",
    },
    TopicSetting {
        name: "retention.ms",
        default: "604800000",
        kind: 5,
        doc: "Kept and shown; only size limits what is kept here.",
    },
    TopicSetting {
        name: "segment.bytes",
        default: "1073741824",
        kind: 3,
        doc: "Kept and shown; there are no segments here.",
    },
];

/// One topic's settings: what was set, and the values that the hot path reads.
#[derive(Debug, Clone)]
pub(crate) struct TopicConfig {
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) batch_bytes_max: usize,
    pub(crate) log_append_time: bool,
    pub(crate) min_insync_replicas: usize,
    pub(crate) retention_bytes: Option<usize>,
    /// Records without a key are refused.
    pub(crate) compacted: bool,
}

impl TopicConfig {
    /// Reads what was set over the cluster's defaults. The error says which setting is wrong.
    pub(crate) fn new(set: BTreeMap<String, String>, settings: &Settings) -> Result<Self, String> {
        let mut config = Self {
            batch_bytes_max: 1_048_588,
            log_append_time: false,
            min_insync_replicas: usize::try_from(settings.min_insync_replicas).unwrap_or(1),
            retention_bytes: None,
            compacted: false,
            set,
        };
        for (name, value) in &config.set {
            let wrong = || format!("Invalid value {value} for configuration {name}");
            match name.as_str() {
                "cleanup.policy" => {
                    config.compacted = value.split(',').any(|policy| policy.trim() == "compact");
                }
                "max.message.bytes" => {
                    config.batch_bytes_max = value.parse().map_err(|_| wrong())?;
                }
                "message.timestamp.type" => {
                    config.log_append_time = match value.as_str() {
                        "LogAppendTime" => true,
                        "CreateTime" => false,
                        _ => return Err(wrong()),
                    };
                }
                "min.insync.replicas" => {
                    config.min_insync_replicas =
                        value.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
                }
                "retention.bytes" => {
                    let bytes: i64 = value.parse().map_err(|_| wrong())?;
                    config.retention_bytes = usize::try_from(bytes).ok();
                }
                _ if TOPIC_SETTINGS.iter().any(|row| row.name == name) => {}
                // Kafka has more topic settings than this table: those we do not know are kept and
                // shown, so that any client's create call works.
                _ => {}
            }
        }
        Ok(config)
    }
}
