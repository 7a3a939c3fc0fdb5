//! A consumer's own connections.
//!
//! A broker answers one connection strictly in order. Two consumers of one client on one connection
//! would wait for each other: the second one's JoinGroup, which the first one's is waiting for,
//! would not even be read.

use ottla_wire::{Class, Cluster};

/// The connection classes of one consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes {
    /// Fetches, which wait at the broker.
    pub(crate) fetch: Class,
    /// The membership; a JoinGroup can wait for minutes.
    pub(crate) group: Class,
}

impl Lanes {
    /// Lanes that no other consumer of the cluster has.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let number = cluster.lane();
        Self {
            fetch: Class::Fetch(number),
            group: Class::Group(number),
        }
    }
}
