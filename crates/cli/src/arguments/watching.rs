//! What `health` and `exporter` take.

use super::{Connect, seconds};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Serve lag and more to Prometheus, under kafka_exporter's names.
///
/// Every group of the cluster is watched in the topics it commits in; groups that come and go are
/// followed. /metrics has kafka_exporter's metrics under its names and labels, so that its dashboards
/// and alerts work, and ours beside them: lag in seconds, status, drain time, the share of new
/// records that a lag-aware producer gives, records lost, and how far retention is. An unknown figure
/// is left out: a partition without a commit has no lag here, and -1 there. /healthz answers 503
/// with the reason in one line when for three refreshes, and 20 seconds at least, no look at the
/// cluster succeeded, or none of the groups' lag could be had; 200 otherwise.
///
/// The shares are a producer's by drain time, or by the scorer that -X lag.scorer and lag.health.* name;
/// other properties of lag have no effect here, which is said.
///
/// The address it listens on is printed. Nothing asks for a password there: let nobody in who may not
/// see the names of groups and topics.
#[derive(Debug, Args)]
pub(crate) struct ExporterArguments {
    /// Where to listen, host:port; port 0 takes a free one
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9308",
        alias = "web.listen-address"
    )]
    pub(crate) listen: String,
    /// Only groups whose name holds this regular expression
    #[arg(
        long,
        value_name = "REGEX",
        default_value = ".*",
        alias = "group.filter"
    )]
    pub(crate) group_filter: String,
    /// No groups whose name holds this
    #[arg(
        long,
        value_name = "REGEX",
        default_value = "^$",
        alias = "group.exclude"
    )]
    pub(crate) group_exclude: String,
    /// Only topics whose name holds this regular expression
    #[arg(
        long,
        value_name = "REGEX",
        default_value = ".*",
        alias = "topic.filter"
    )]
    pub(crate) topic_filter: String,
    /// No topics whose name holds this
    #[arg(
        long,
        value_name = "REGEX",
        default_value = "^$",
        alias = "topic.exclude"
    )]
    pub(crate) topic_exclude: String,
    /// Look at the cluster every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) refresh: Duration,
    /// Whose names topics and groups are told under
    #[arg(
        long,
        value_enum,
        value_name = "EXPORTER",
        default_value = "kafka-exporter"
    )]
    pub(crate) metrics: MetricNames,
    /// The label cluster_name of kafka-lag-exporter's metrics [default: the cluster's id]
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_name: Option<String>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Whose names of metrics and labels are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricNames {
    /// danielqsj's kafka_exporter
    KafkaExporter,
    /// seglo's kafka-lag-exporter
    LagExporter,
}

/// Show why each partition gets its share of new records from a lag-aware producer.
///
/// Watches the group until it is known what its consumers read a second, which shows only from one
/// commit to the next, and prints for each partition: its lag in records and, behind it, in time; the
/// rate of its consumer; how long that needs for what is unread beyond what commits explain; the
/// share of new keyless records; how old the figures are; the status that steers, and the group's in
/// Burrow's words; and why.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// The topics [default: all in which the group commits]
    #[arg(value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// The consumer group; of several each partition counts as its slowest group has it
    #[arg(short = 'g', long = "group", value_name = "GROUP", required = true)]
    pub(crate) groups: Vec<String>,
    /// The same as a TOPIC alone; may be repeated
    #[arg(short = 't', long = "topic", value_name = "TOPIC")]
    pub(crate) more_topics: Vec<String>,
    /// Watch for so many seconds at most before the first answer; twice the commit interval is enough
    #[arg(short = 's', long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Look at the group every so many seconds [default: lag.refresh.interval.ms, which is 1 s]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) refresh: Option<Duration>,
    /// Answer again every so many seconds, until Ctrl-C
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
    /// Print JSON, one object an answer
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}
