//! What the command line takes.

mod demo;
mod records;
mod watching;

pub(crate) use demo::DemoArguments;
pub(crate) use records::{ConsumeArguments, Delimiter, ProduceArguments};
pub(crate) use watching::{ExporterArguments, HealthArguments, MetricNames};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// A Kafka client whose producer steers records away from partitions whose consumers fall behind.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok, 1 error, 2 wrong usage, 3 lag over the limit, or topics not as asked for."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the lag-aware producer beside the default one, without needing a cluster.
    Demo(DemoArguments),
    /// Send each line of a file or of standard input as a record.
    Produce(ProduceArguments),
    /// Print records.
    Consume(ConsumeArguments),
    /// Show what a consumer group has still to read.
    Lag(LagArguments),
    /// Show why each partition gets its share of new records from a lag-aware producer.
    #[command(visible_alias = "explain")]
    Health(HealthArguments),
    /// Serve lag and more to Prometheus, under kafka_exporter's names.
    Exporter(ExporterArguments),
    /// Create, ensure, list, describe and delete topics.
    Topic(TopicArguments),
    /// Run a cluster in this process, in memory, for tests and for trying things out.
    Broker(BrokerArguments),
}

/// How to reach a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connect {
    /// Brokers to begin with, host:port, separated by commas [default: the environment's
    /// KAFKA_BOOTSTRAP_SERVERS, else localhost:9092]
    #[arg(short = 'b', long, value_name = "HOST:PORT,...")]
    pub(crate) brokers: Option<String>,
    /// Set one of Kafka's properties, in Java's or librdkafka's spelling; may be repeated
    #[arg(short = 'X', long = "property", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) properties: Vec<(String, String)>,
    /// Read properties from a Java .properties file
    #[arg(short = 'F', long = "properties", value_name = "FILE")]
    pub(crate) properties_file: Option<PathBuf>,
    /// Say more on standard error; -vv and -vvv say more still
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LagArguments {
    /// The consumer group
    #[arg(value_name = "GROUP")]
    pub(crate) group: String,
    /// Only these topics, with every partition [default: those the group has to do with]
    #[arg(value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Look again every so many seconds, until Ctrl-C
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
    /// Show how far the group is behind in time, too; with > before it where that was longer ago than the
    /// group was watched, which --watch goes on doing
    #[arg(long)]
    pub(crate) seconds: bool,
    /// Show how the group gets on in Burrow's words, too; WAITING until it was watched for a minute, which
    /// takes --watch
    #[arg(long)]
    pub(crate) status: bool,
    /// Print JSON, one object a look
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 3 when the group has more than N records to read in all, with 1 when a partition's
    /// lag cannot be told
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[derive(Debug, Args)]
pub(crate) struct TopicArguments {
    #[command(subcommand)]
    pub(crate) command: TopicCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic.
    Create(CreateArguments),
    /// Create the topics of a file that are missing, and tell what differs of the others.
    Ensure(EnsureArguments),
    /// List the topics, Kafka's own left out.
    #[command(alias = "ls")]
    List(ListArguments),
    /// Show a topic's partitions and the settings that are its own.
    Describe(DescribeArguments),
    /// Delete topics with all they hold.
    Delete(DeleteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// The topic's name
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// How many partitions [default: the cluster's]
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// How many copies of each [default: the cluster's]
    #[arg(short = 'r', long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replication: Option<i16>,
    /// Set one of the topic's settings, such as retention.ms; may be repeated
    #[arg(short = 'c', long = "config", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) configs: Vec<(String, String)>,
    /// Keep the latest record of each key (cleanup.policy=compact)
    #[arg(long)]
    pub(crate) compact: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[derive(Debug, Args)]
#[command(after_help = ENSURE_HELP)]
pub(crate) struct EnsureArguments {
    /// The topics, in TOML; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = Shape::Table)]
    pub(crate) output: Shape,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

const ENSURE_HELP: &str = "\
The file has an entry for each topic; what is not said is left to the cluster:

  [[topic]]
  name = \"orders\"
  partitions = 12
  replication = 3
  cleanup.policy = \"compact\"
  config = { retention.ms = 604800000 }

A topic that is there stays as it is. Exit codes: 0 every topic is as asked for, 1 one could not be \
made, 2 wrong usage or a wrong file, 3 one that is there differs.";

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = Shape::Table)]
    pub(crate) output: Shape,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArguments {
    /// The topic's name
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = Shape::Table)]
    pub(crate) output: Shape,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// The topics' names
    #[arg(value_name = "TOPIC", required = true)]
    pub(crate) topics: Vec<String>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// Columns for people
    Table,
    /// JSON for programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArguments {
    /// How many nodes
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: u16,
    /// The first node's port on 127.0.0.1; the others take the following ones. 0 takes free ports
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 9092)]
    pub(crate) port: u16,
    /// Create a topic; may be repeated
    #[arg(short = 't', long = "topic", value_name = "NAME:PARTITIONS", value_parser = topic)]
    pub(crate) topics: Vec<(String, i32)>,
    /// Copies of each partition [default: one a node, at most 3]
    #[arg(short = 'r', long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replication: Option<i16>,
    /// Create a topic when a client asks for one that is not there
    #[arg(long)]
    pub(crate) auto_create: bool,
    /// Partitions of topics that are created without saying how many
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: i32,
    /// MiB of records that a topic keeps in memory; the oldest go first
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) topic_mib: u32,
    /// Say more on standard error; -vv and -vvv say more still
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `NAME=VALUE`; the value may hold further equal signs.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("it must look like NAME=VALUE".to_owned()),
    }
}

/// `NAME:PARTITIONS`, or a name alone for one partition.
fn topic(text: &str) -> Result<(String, i32), String> {
    let (name, partitions) = text.split_once(':').unwrap_or((text, "1"));
    match partitions.parse() {
        Ok(partitions) if partitions > 0 && !name.is_empty() => Ok((name.to_owned(), partitions)),
        _ => Err("it must look like NAME:PARTITIONS".to_owned()),
    }
}

/// A time in seconds, such as `2` or `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "it must be a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time >= Duration::from_millis(10) => Ok(time),
        _ => Err("it must be at least 0.01 s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_value_may_hold_equal_signs_and_a_name_may_not_be_missing() {
        let (name, value) = pair("sasl.jaas.config=a b=\"c\";").unwrap();
        assert_eq!((&*name, &*value), ("sasl.jaas.config", "a b=\"c\";"));
        assert!(pair("linger.ms").is_err());
        assert!(pair("=5").is_err());
    }

    #[test]
    fn topics_are_a_name_and_a_number() {
        assert_eq!(topic("orders:12"), Ok(("orders".to_owned(), 12)));
        assert_eq!(topic("orders"), Ok(("orders".to_owned(), 1)));
        for wrong in ["orders:0", "orders:-1", "orders:many", ":3"] {
            assert!(topic(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_may_be_fractions_but_not_nothing() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "soon", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
