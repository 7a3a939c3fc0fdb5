//! The rows themselves.

use ottla_partitioner::KEYS_MAX;
use ottla_proto::setting::{Kind, Setting, Support};

const OURS: &str = "ours: the study of steering";
const THEIRS: &str = "kafka-smart-producer's";

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[
    Setting::of(
        OURS,
        "lag.refresh.interval.ms",
        &["refresh_interval_ms"],
        Kind::Millis(50, 3_600_000),
        "1000",
        "How often committed offsets and log ends are looked at, each time up to a quarter sooner or \
         later. Keep it at a third of the group's commit interval or below, or far above it.",
    ),
    Setting::of(
        THEIRS,
        "refresh_interval",
        &[],
        Kind::Float(0.05, 3_600.0),
        "1",
        "As lag.refresh.interval.ms, which wins, but in seconds. Theirs is 5; ours is the study's.",
    ),
    Setting::of(
        OURS,
        "lag.look.timeout.ms",
        &[],
        Kind::Millis(50, 60_000),
        "10000",
        "The longest one look may take: what has not answered by then is unknown until the next. A \
         broker that hangs is left out of the looks sooner.",
    ),
    Setting::of(
        THEIRS,
        "timeout_seconds",
        &[],
        Kind::Float(0.05, 60.0),
        "10",
        "As lag.look.timeout.ms, which wins, but in seconds. Theirs is 5.",
    ),
    Setting::of(
        OURS,
        "lag.groups",
        &[],
        Kind::List,
        "",
        "Groups that read the same topics beside the one that is watched: each partition counts as \
         its slowest group has it.",
    ),
    Setting::of(
        OURS,
        "lag.scorer",
        &[],
        Kind::OneOf(&["drain_time", "threshold", "linear", "drain_score"]),
        "drain_time",
        "What keyless records are placed by: the time that each consumer needs for what is unread, \
         with own sends counted; or a score, which is followed until the next look.",
    ),
    Setting::of(
        THEIRS,
        "lag.health.threshold",
        &["health_threshold"],
        Kind::Float(0.0, 1.0),
        "0.5",
        "The least score that gets records. To set it chooses the threshold scorer, unless lag.scorer \
         says otherwise.",
    ),
    Setting::of(
        THEIRS,
        "lag.health.lag.max",
        &["max_lag_for_health"],
        Kind::Int(1, i64::MAX),
        "1000",
        "The lag, in records, at which a partition scores 0 by the scorers threshold and linear. To \
         set it chooses the threshold scorer, unless lag.scorer says otherwise.",
    ),
    Setting::of(
        OURS,
        "lag.health.drain.ms",
        &[],
        Kind::Millis(1, 3_600_000),
        "100",
        "The drain time at which a partition scores one half by the scorer drain_score.",
    ),
    Setting::of(
        OURS,
        "lag.key.policy",
        &[],
        Kind::OneOf(&["keep", "blind", "sticky", "migrate"]),
        "keep",
        "Where keyed records go: always by their hash, as keyless ones and without any order, away \
         from an unhealthy partition, or away once the group has committed all earlier ones.",
    ),
    Setting::of(
        THEIRS,
        "key_stickiness",
        &[],
        Kind::Bool,
        "false",
        "True is lag.key.policy=sticky, unless lag.key.policy says otherwise. Theirs is true; ours \
         keeps the order of keys unless asked.",
    ),
    Setting::of(
        THEIRS,
        "lag.key.entries",
        &["local_max_size"],
        Kind::Int(1, KEYS_MAX as i64),
        "1000",
        "How many keys the sticky policy remembers for a topic.",
    ),
    Setting::of(
        OURS,
        "lag.key.slots",
        &[],
        Kind::Int(1, KEYS_MAX as i64),
        "16384",
        "How many slots of keys the migrating policy keeps for a topic, in some fifty bytes each.",
    ),
    Setting::of(
        OURS,
        "lag.fleet.redis.url",
        &["redis_url"],
        Kind::Secret,
        "",
        "The Redis that a fleet of producers shares, redis://USER:PASSWORD@HOST:PORT/DATABASE or \
         rediss: for TLS: one of them asks the brokers, the others read what it heard.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.enable",
        &["remote_enabled"],
        Kind::Bool,
        "false",
        "True takes the Redis of the host, port, database and password that follow, unless \
         lag.fleet.redis.url names one, which needs nothing else.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.host",
        &["redis_host"],
        Kind::Text,
        "localhost",
        "The Redis server's host.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.port",
        &["redis_port"],
        Kind::Int(1, 65_535),
        "6379",
        "The Redis server's port.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.database",
        &["redis_db"],
        Kind::Int(0, 65_535),
        "0",
        "The number of the database in it.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.password",
        &["redis_password"],
        Kind::Secret,
        "",
        "The password for it.",
    ),
    Setting::of(
        OURS,
        "lag.fleet.redis.ca.location",
        &["redis_ssl_ca_certs"],
        Kind::Text,
        "",
        "A file with the authority (PEM) to trust in place of the system's; with it TLS is spoken.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.tls.enable",
        &["redis_ssl_enabled"],
        Kind::Bool,
        "false",
        "Whether TLS is spoken to the Redis of host and port.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.certificate.location",
        &["redis_ssl_certfile"],
        Kind::Text,
        "",
        "A file with our own certificate (PEM), for a Redis that asks for one.",
    ),
    Setting::of(
        THEIRS,
        "lag.fleet.redis.key.location",
        &["redis_ssl_keyfile"],
        Kind::Text,
        "",
        "A file with the private key (PEM) of that certificate.",
    ),
    needless(
        "redis_ssl_cert_reqs",
        Kind::Text,
        "required",
        "The server's certificate is always required, and checked.",
    ),
    needless(
        "smart_enabled",
        Kind::Bool,
        "true",
        "A producer is steered when it is given a plan; a plan can be switched off while it runs.",
    ),
    needless(
        "consumer_group",
        Kind::Text,
        "",
        "The group is named where its watch begins: `client.lag(GROUP)`.",
    ),
    needless(
        "topics",
        Kind::List,
        "",
        "The topics are named where their watch begins: `client.lag(GROUP).topics(TOPICS)`.",
    ),
    needless(
        "local_ttl_seconds",
        Kind::Float(0.0, 1e9),
        "300",
        "Figures expire by their age: their backlog after three refreshes, all else after a minute.",
    ),
    needless(
        "remote_ttl_seconds",
        Kind::Float(0.0, 1e9),
        "900",
        "What is shared lives ten refreshes.",
    ),
];

/// A row of kafka-smart-producer's that needs nothing done here.
const fn needless(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    let row = Setting::of(THEIRS, name, &[], kind, default, doc);
    Setting {
        support: Support::Ignored,
        ..row
    }
}
