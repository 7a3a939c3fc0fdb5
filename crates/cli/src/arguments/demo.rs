//! What `demo` takes.

use super::Connect;
use clap::Args;

/// Show the lag-aware producer beside the default one, without needing a cluster.
///
/// Two topics of 12 partitions get the same records at the same moments, one by the default
/// partitioner and one by the lag-aware one. Each is read by a group of 12 consumers, of which one
/// is five times slower than the others and one stalls for a while in mid-run; the groups are the
/// same, and commit every 0.1 s. The load is 80 % of what the consumers can take. At the end a table
/// compares how long records took from the moment they were due to be sent until a consumer was done
/// with them; records still unread count with their age, for both alike.
///
/// Before that a few records go through both topics, uncounted, until the cluster answers quickly,
/// for at most 30 s: brokers that have just started are slow for a while.
///
/// A producer that has just started knows nothing of the consumers and chooses as the default one
/// does, until it has seen for a second or two how they read. With --warm-up the load begins before
/// the records count, for both alike; what is unread then stays unread. Without it every record
/// counts.
///
/// What lies in a partition when its consumer stalls waits for it under any partitioner, and so does
/// what is sent until the lag shows, about a second later. The stall is a sixth of the run but at
/// most 5 s, of one partition in twelve, so that what nobody could have steered stays below the 1 %
/// that p99 leaves out.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// For how long records count
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(3..=86_400))]
    pub(crate) seconds: u32,
    /// Seconds of the same load before the records count
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub(crate) warm_up: u32,
    /// Records a second to each topic; the consumers are made to take a quarter more
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(50..=50_000))]
    pub(crate) rate: u32,
    /// Bytes in each record
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(16..=100_000))]
    pub(crate) size: u32,
    /// The partitioner to compare with: sticky (the default one of Java and of this client),
    /// round_robin or random
    #[arg(long, value_name = "NAME", default_value = "sticky",
          value_parser = ["sticky", "round_robin", "random"])]
    pub(crate) against: String,
    /// What chance begins with: the same seed gives the same load and the same service times
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print lines even on a terminal
    #[arg(long)]
    pub(crate) no_tui: bool,
    /// Copies of each partition on a real cluster [default: the cluster's]
    #[arg(long, value_name = "N", requires = "brokers",
          value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replication: Option<i16>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}
