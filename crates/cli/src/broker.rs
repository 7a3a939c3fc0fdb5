//! `ottla broker`: the embedded cluster as a process.

use crate::arguments::BrokerArguments;
use crate::failure::Result;
use crate::interrupt::Interrupt;
use crate::session;
use ottla_broker::Cluster;
use std::io::{self, Write};

/// Copies of a partition, if there are nodes for them.
const REPLICATION_MAX: i16 = 3;

pub(crate) async fn run(arguments: BrokerArguments) -> Result<()> {
    session::log_level(session::level(arguments.verbose));
    let interrupt = Interrupt::listen();
    let nodes = i16::try_from(arguments.nodes).unwrap_or(i16::MAX);
    let replication = arguments.replication.unwrap_or(nodes.min(REPLICATION_MAX));
    let bytes = usize::try_from(arguments.topic_mib).unwrap_or(usize::MAX);
    let mut builder = Cluster::builder()
        .nodes(arguments.nodes)
        .replication(replication)
        .default_partitions(arguments.partitions)
        .auto_create_topics(arguments.auto_create)
        .topic_bytes_max(bytes.saturating_mul(1 << 20))
        .port(arguments.port);
    for (name, partitions) in arguments.topics {
        builder = builder.topic(name, partitions);
    }
    let cluster = builder.start().await?;
    writeln!(io::stdout(), "{}", cluster.bootstrap())?;
    interrupt.wait().await;
    cluster.shutdown().await;
    Ok(())
}
