//! Topics as callers find them: one atomic load, one hash.

use crate::runs::Runs;
use crate::slot::Slot;
use foldhash::fast::FixedState;
use ottla_partitioner::{NoQueues, TopicView};
use ottla_proto::topic::TopicId;
use std::collections::HashMap;
use std::sync::Arc;

/// What producing to a topic needs. Made anew when its metadata changes.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Option<TopicId>,
    pub(crate) slots: Vec<Arc<Slot>>,
    pub(crate) available: Vec<i32>,
    pub(crate) runs: Runs,
    pub(crate) batch_bytes: u32,
}

impl Topic {
    pub(crate) fn view(&self) -> TopicView<'_> {
        TopicView {
            topic: &self.name,
            partition_count: i32::try_from(self.slots.len()).unwrap_or(i32::MAX),
            available: &self.available,
            queued: &NoQueues,
            batch_bytes: self.batch_bytes,
            stripe: 0,
        }
    }

    pub(crate) fn slot(&self, partition: i32) -> Option<&Arc<Slot>> {
        usize::try_from(partition)
            .ok()
            .and_then(|partition| self.slots.get(partition))
    }
}

/// Every topic that was produced to.
pub(crate) type Table = HashMap<Arc<str>, Arc<Topic>, FixedState>;
