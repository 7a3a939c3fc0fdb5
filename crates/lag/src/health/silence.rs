//! What a topic leads to of which nothing has been heard for too long.

use super::Health;
use ottla_partitioner::{Fallback, Status};

impl Health {
    /// The same when its figures are too old for anything: all partitions alike.
    pub(crate) fn too_old(mut self) -> Self {
        let weight = 1.0 / self.partitions.len().max(1) as f64;
        for partition in &mut self.partitions {
            (partition.lag, partition.backlog) = (None, None);
            (partition.rate, partition.drain_time) = (None, None);
            partition.weight = weight;
            partition.status = Status::Unknown;
            partition.reason = "nothing was heard for too long: all partitions alike";
        }
        self.choice = Err(Fallback::TooOld);
        self
    }
}
