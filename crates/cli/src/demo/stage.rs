//! Where the demo runs: on a cluster of its own, or on the user's.

use super::scene::Scene;
use super::side::{Begun, Names, Side, Way};
use crate::arguments::DemoArguments;
use crate::failure::Result;
use crate::session;
use ottla::{Client, ErrorKind};
use ottla_broker::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// Nodes of the cluster that is started when none is named.
const NODES: u16 = 3;
/// Members join at about the same time: waiting for them all spares rebalances.
const REBALANCE_DELAY: Duration = Duration::from_millis(300);

const LAG_AWARE: &str = "lag-aware";

pub(super) enum Stage {
    Own(Cluster),
    /// The user's; topics get a name that is nobody else's.
    Given(String),
}

impl Stage {
    pub(super) async fn set(arguments: &DemoArguments) -> Result<Self> {
        if arguments.connect.brokers.is_some() {
            let suffix = format!("-{:08x}", fastrand::u32(..));
            return Ok(Self::Given(suffix));
        }
        let cluster = Cluster::builder()
            .nodes(NODES)
            .replication(i16::try_from(NODES).unwrap_or(1))
            .initial_rebalance_delay(REBALANCE_DELAY)
            .start();
        Ok(Self::Own(cluster.await?))
    }

    /// Opens both sides, each with connections of its own.
    pub(super) async fn sides(
        &self,
        arguments: &DemoArguments,
        scene: &Arc<Scene>,
        begun: &Begun,
    ) -> Result<[Side; 2]> {
        let ways = [
            (
                default_title(arguments),
                Way::Named(arguments.against.clone()),
            ),
            (LAG_AWARE, Way::LagAware),
        ];
        let [left, right] = ways.map(|(title, way)| {
            let names = self.names(title);
            async move {
                let client = self.client(arguments).await?;
                let replication = arguments.replication;
                Side::open(client, names, &way, scene, replication, begun).await
            }
        });
        let (left, right) = tokio::try_join!(left, right)?;
        Ok([left, right])
    }

    fn names(&self, title: &str) -> Names {
        let suffix = match self {
            Self::Own(_) => "",
            Self::Given(suffix) => suffix,
        };
        Names {
            title: title.to_owned(),
            topic: format!("demo-{title}{suffix}").into(),
            group: format!("demo-{title}-readers{suffix}").into(),
        }
    }

    async fn client(&self, arguments: &DemoArguments) -> Result<Client> {
        let mut connect = arguments.connect.clone();
        // Warnings would be written across the picture.
        connect.quiet = connect.verbose == 0;
        if let Self::Own(cluster) = self {
            connect.brokers = Some(cluster.bootstrap());
        }
        session::connect(&connect, &[]).await
    }

    /// Leaves nothing behind, however far the demo came.
    pub(super) async fn clear(self, arguments: &DemoArguments) -> Result<()> {
        if let Self::Own(cluster) = self {
            cluster.shutdown().await;
            return Ok(());
        }
        let client = self.client(arguments).await?;
        for title in [default_title(arguments), LAG_AWARE] {
            let names = self.names(title);
            // A group that cannot go goes when its offsets expire: nothing to stop for.
            if let Err(error) = client.groups().delete(&names.group).await {
                tracing::debug!(%error, "a group of the demo stays");
            }
            match client.topics().delete(&names.topic).await {
                Err(error) if *error.kind() != ErrorKind::UnknownTopicOrPartition => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the side that is not lag-aware is called.
fn default_title(arguments: &DemoArguments) -> &str {
    match arguments.against.as_str() {
        "sticky" => "default",
        other => other,
    }
}
