//! What several test binaries share.

pub mod order;

use ottla::{BoxFuture, BoxStream, Client, ClientBuilder, Dial};
use ottla_broker::Cluster;
use std::io;
use std::sync::Arc;

/// Reaches the nodes of an embedded cluster in memory.
pub struct InMemory(pub Cluster);

impl Dial for InMemory {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move { self.0.dial(host, port).await.map(BoxStream::new) })
    }
}

/// A client of an in-memory cluster, ready to be configured.
pub fn client(cluster: &Cluster) -> ClientBuilder {
    Client::builder(cluster.bootstrap()).transport(Arc::new(InMemory(cluster.clone())))
}
