//! What a test may see and change of a cluster's transactions.

use crate::Cluster;
use crate::records::{self, StoredRecord};
use crate::transactions::Protocol;
use ottla_proto::{Error, ErrorKind, Result};
use std::time::Duration;

/// A transactional id as its coordinator has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionView {
    /// Kafka's name of the state: `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`,
    /// `CompleteCommit` or `CompleteAbort`.
    pub state: &'static str,
    /// The producer id.
    pub producer_id: i64,
    /// The producer epoch; an older one is fenced.
    pub epoch: i16,
    /// Which protocol its last transaction spoke: 2 for the one of KIP-890, else 1.
    pub protocol: u8,
    /// The partitions that were added to the open transaction.
    pub partitions: Vec<(String, i32)>,
    /// The groups whose offsets the transaction commits.
    pub groups: Vec<String>,
}

/// The end of a transaction in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// Its offset.
    pub offset: i64,
    /// The producer id.
    pub producer_id: i64,
    /// The producer epoch: the one that wrote, or the next one where the end bumped it.
    pub epoch: i16,
    /// Whether the transaction was committed.
    pub committed: bool,
    /// Grows whenever the coordinator may have moved.
    pub coordinator_epoch: i32,
}

impl Cluster {
    /// The level of the feature `transaction.version` from now on; see
    /// [`Builder::transaction_version`](crate::Builder::transaction_version).
    pub fn set_transaction_version(&self, level: i16) {
        self.shared().features.set_transaction_version(level);
    }

    /// How long markers wait from now on, also those of transactions that are decided already; see
    /// [`Builder::marker_delay`](crate::Builder::marker_delay).
    pub fn set_marker_delay(&self, delay: Duration) {
        self.shared().transactions.set_marker_delay(delay);
    }

    /// The node that coordinates a group or a transactional id; `None` when none is up.
    pub fn coordinator(&self, key: &str) -> Option<i32> {
        self.shared().coordinator(key).map(|node| node.id)
    }

    /// Has another node coordinate a group or a transactional id. While that node is stopped,
    /// another one does.
    ///
    /// # Errors
    /// `Config` if there is no such node.
    pub fn move_coordinator(&self, key: &str, to: i32) -> Result<()> {
        if self.shared().node(to).is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("there is no node {to}"),
            ));
        }
        self.shared().move_coordinator(key, to);
        Ok(())
    }

    /// A transactional id; `None` if nobody initialised it.
    pub fn transaction(&self, id: &str) -> Option<TransactionView> {
        let inner = self.shared().transactions.lock();
        let (_, transaction) = inner.all().find(|(known, _)| *known == id)?;
        let partitions = transaction.partitions.iter();
        Some(TransactionView {
            state: transaction.state.name(),
            producer_id: transaction.producer_id,
            epoch: transaction.epoch,
            protocol: match transaction.protocol {
                Protocol::V1 => 1,
                Protocol::V2 => 2,
            },
            partitions: partitions
                .map(|(topic, index)| (topic.to_string(), *index))
                .collect(),
            groups: transaction.groups.iter().cloned().collect(),
        })
    }

    /// The end of what a consumer sees that reads only what is committed.
    pub fn last_stable(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.partition(topic, partition)?.lock().last_stable())
    }

    /// The records that a consumer sees that reads only what is committed, oldest first.
    pub fn committed_log(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let Some(partition) = self.partition(topic, partition) else {
            return Vec::new();
        };
        let (batches, start) = {
            let state = partition.lock();
            let batches = state.log.committed(state.last_stable());
            (batches, state.log.start())
        };
        let records = batches.iter().flat_map(records::stored);
        records.filter(|record| record.offset >= start).collect()
    }

    /// Every end of a transaction in a partition's log, oldest first.
    pub fn markers(&self, topic: &str, partition: i32) -> Vec<EndMarker> {
        let Some(partition) = self.partition(topic, partition) else {
            return Vec::new();
        };
        let state = partition.lock();
        let markers = state.log.batches().filter_map(|batch| {
            let marker = batch.marker()?;
            Some(EndMarker {
                offset: batch.base_offset,
                producer_id: marker.producer_id,
                epoch: marker.producer_epoch,
                committed: marker.committed,
                coordinator_epoch: marker.coordinator_epoch,
            })
        });
        markers.collect()
    }
}
