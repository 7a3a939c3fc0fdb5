//! What a broker answered for one partition of a Produce request, in our words.

use crate::code::Code;
use crate::topic::{BrokerId, TopicId};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One record of a batch that the broker found wrong (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Index within the batch.
    pub index: u32,
    /// What the broker said of it.
    pub message: Option<Arc<str>>,
}

/// The new leader that an answer names (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// The new leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub leader_epoch: i32,
}

/// How an answer names a topic: brokers from 4.1 on answer with ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnsweredTopic {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(TopicId),
}

impl AnsweredTopic {
    /// Whether this is the topic of that name and id.
    pub fn is(&self, name: &str, id: Option<TopicId>) -> bool {
        match self {
            Self::Name(own) => &**own == name,
            Self::Id(own) => Some(*own) == id,
        }
    }
}

/// One partition's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// The topic, as the answer names it.
    pub topic: AnsweredTopic,
    /// Partition number.
    pub partition: i32,
    /// Kafka's code.
    pub code: Code,
    /// The offset of the batch's first record; `None` when the broker gave -1.
    pub base_offset: Option<i64>,
    /// The time the broker gave the batch, when the topic uses log-append time.
    pub log_append_time: Option<i64>,
    /// The partition's first offset, when told.
    pub log_start: Option<i64>,
    /// Records found wrong.
    pub record_errors: Vec<RecordError>,
    /// The broker's own words.
    pub message: Option<Arc<str>>,
    /// The new leader, when the answer names one.
    pub leader_hint: Option<LeaderHint>,
}

impl PartitionAnswer {
    /// The same of some of the records, which then count from the first of them; `None` if the broker
    /// finds none of those wrong.
    pub(super) fn of_records(&self, records: Range<u32>) -> Option<Box<Self>> {
        let within = self
            .record_errors
            .iter()
            .filter(|e| records.contains(&e.index));
        let within = within.map(|error| RecordError {
            index: error.index - records.start,
            message: error.message.clone(),
        });
        let record_errors: Vec<RecordError> = within.collect();
        (!record_errors.is_empty()).then(|| {
            Box::new(Self {
                record_errors,
                ..self.clone()
            })
        })
    }
}

/// A whole Produce answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProduceAnswer {
    /// How long the broker asks us to send nothing further (KIP-219).
    pub throttle: Duration,
    /// One entry a partition that the broker answered, in its order.
    pub partitions: Vec<PartitionAnswer>,
}
