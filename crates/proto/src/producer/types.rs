//! What goes in and out of the sender.

use super::answer::LeaderHint;
use crate::batch::HEADER_BYTES;
use crate::error::Error;
use crate::topic::{BrokerId, TopicPartition};
use bytes::Bytes;
use std::time::Duration;

/// A partition's place in the sender, given by [`Sender::add_partition`](super::Sender::add_partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionIndex(pub u32);

/// A request that the driver sends for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the sender must know of the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Stamp batches so that brokers drop repeated ones.
    pub idempotent: bool,
    /// `acks=all`.
    pub acks_all: bool,
    /// Attempts after the first.
    pub retries: u32,
    /// First wait before a retry.
    pub retry_backoff: Duration,
    /// Longest wait before a retry.
    pub retry_backoff_max: Duration,
    /// A request takes no further batch when it holds so many bytes.
    pub request_bytes_max: usize,
    /// Requests in flight a broker.
    pub requests_max: usize,
    /// Seeds the jitter.
    pub seed: u64,
}

/// The batch of one partition in a request.
#[derive(Debug)]
pub struct TransmitBatch {
    /// Which partition.
    pub partition: PartitionIndex,
    /// The batch header, stamped.
    pub header: [u8; HEADER_BYTES],
    /// The records section.
    pub segments: Vec<Bytes>,
}

/// A request to be sent now.
#[derive(Debug)]
pub struct Transmit {
    /// Names the request in `handle_answer`.
    pub request: RequestId,
    /// Where to.
    pub broker: BrokerId,
    /// At most one batch a partition.
    pub batches: Vec<TransmitBatch>,
}

/// Where a batch came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Offset of the first record; `None` when the broker could not say (acks=0, or a batch that it
    /// knew already).
    pub base_offset: Option<i64>,
    /// The broker's time for the batch, when the topic uses log-append time.
    pub log_append_time: Option<i64>,
}

/// What the driver is to do or to tell.
#[derive(Debug)]
pub enum Event<T> {
    /// A batch is in the log.
    Acknowledged {
        /// The batch's token.
        token: T,
        /// Where it lies.
        ack: Ack,
    },
    /// A batch ended without acknowledgement.
    Failed {
        /// The batch's token.
        token: T,
        /// Why, where, and whether it may have been written.
        error: Error,
    },
    /// The partition could send a batch if one were sealed.
    Room(PartitionIndex),
    /// A connection to this broker is wanted.
    Connect(BrokerId),
    /// The view of the cluster is old.
    Refresh,
    /// A producer id is wanted.
    NeedIdentity,
    /// A broker named a partition's new leader.
    Moved(TopicPartition, LeaderHint),
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It never left.
    NotSent,
    /// It may have arrived.
    Lost,
}
