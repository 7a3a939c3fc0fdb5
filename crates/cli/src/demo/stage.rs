//! Where the demo runs: on a cluster of its own, or on the user's.

use super::scene::Scene;
use super::side::{Begun, Delete, Names, Side, Way};
use crate::arguments::DemoArguments;
use crate::failure::Result;
use crate::session;
use ottla::Client;
use ottla_broker::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// Nodes of the cluster that is started when none is named.
const NODES: u16 = 3;
/// Members join at about the same time: waiting for them all spares rebalances.
const REBALANCE_DELAY: Duration = Duration::from_millis(300);

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

    pub(super) fn delete(&self) -> Delete {
        match self {
            Self::Own(_) => Delete::Nothing,
            Self::Given(_) => Delete::Topic,
        }
    }

    /// Opens both sides, each with connections of its own.
    pub(super) async fn sides(
        &self,
        arguments: &DemoArguments,
        scene: &Arc<Scene>,
        begun: &Begun,
    ) -> Result<[Side; 2]> {
        let left = match arguments.against.as_str() {
            "sticky" => ("default", "sticky"),
            other => (other, other),
        };
        let ways = [
            (left.0, Way::Named(left.1.to_owned())),
            ("lag-aware", Way::LagAware),
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
        if let Self::Own(cluster) = self {
            connect.brokers = Some(cluster.bootstrap());
        }
        session::connect(&connect, &[]).await
    }

    pub(super) async fn clear(self) {
        if let Self::Own(cluster) = self {
            cluster.shutdown().await;
        }
    }
}
