//! What goes in and out of the sender.

use super::answer::{LeaderHint, RecordError};
use crate::batch::{HEADER_BYTES, SealedRecords, Segments};
use crate::error::Error;
use crate::topic::{BrokerId, TopicId, TopicPartition};
use std::time::{Duration, Instant};

/// A partition's place in the sender, given by [`Sender::add_partition`](super::Sender::add_partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionIndex(pub u32);

/// A request that the driver sends for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Which of a broker's produce connections. A broker answers a connection strictly in order, and an
/// answer with acks=all waits for the slowest partition of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Where all partitions begin.
    Main,
    /// Where partitions go that kept others waiting: one request at a time, with ever fewer of them,
    /// until the one that is stuck is alone.
    Apart,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Main, Self::Apart];
}

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
    /// Batches belong to transactions: an epoch is never bumped on our own account, and a partition
    /// is sent to only once it was admitted to the transaction.
    pub transactional: bool,
    /// A request that is unanswered for so long, while other partitions wait for it, is given up and
    /// its partitions are sent apart. Needs idempotence; `Duration::MAX` turns it off.
    pub stall_after: Duration,
    /// A request takes no further batch that would make it larger than this.
    pub request_bytes_max: usize,
    /// Requests in flight on a broker's main lane.
    pub requests_max: usize,
    /// When the broker names the records at fault (KIP-467), they are cut out of their batch and fail
    /// alone, and the others go on in their order. With more than 32 of them all fail.
    pub cut_out_wrong: bool,
    /// Seeds the jitter.
    pub seed: u64,
}

/// The batch of one partition in a request.
#[derive(Debug)]
pub struct TransmitBatch {
    /// Which partition.
    pub partition: PartitionIndex,
    /// The id of its topic, as the answer will be matched.
    pub topic_id: Option<TopicId>,
    /// The batch header, stamped.
    pub header: [u8; HEADER_BYTES],
    /// The records section.
    pub segments: Segments,
    /// How often it was sent, this time included.
    pub attempts: u32,
    /// When its delivery times out.
    pub deadline: Instant,
}

/// A request to be sent now.
#[derive(Debug)]
pub struct Transmit {
    /// Names the request in `handle_answer`.
    pub request: RequestId,
    /// Where to.
    pub broker: BrokerId,
    /// On which connection.
    pub lane: Lane,
    /// At most one batch a partition; those of a topic stand together. Give the list back by
    /// [`Sender::reuse`](super::Sender::reuse).
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
        /// How often it was sent.
        attempts: u32,
    },
    /// A batch ended without acknowledgement.
    Failed {
        /// The batch's token.
        token: T,
        /// Why, where, and whether it may have been written.
        error: Error,
        /// The records that the broker found wrong, when it named them (KIP-467); the others failed
        /// only for their sake.
        record_errors: Vec<RecordError>,
        /// How often it was sent.
        attempts: u32,
        /// The records, unless they were still being compressed.
        records: Option<SealedRecords>,
    },
    /// The broker finds the batch too large, or one of its records wrong: it waits for
    /// [`Sender::provide_halves`](super::Sender::provide_halves).
    Split(Box<Split<T>>),
    /// The partition could send a batch if one were sealed.
    Room(PartitionIndex),
    /// A connection to this broker is wanted.
    Connect(BrokerId, Lane),
    /// This connection to the broker is to be closed: a stalled request holds it up. What it carried
    /// is back in its queues already.
    Abandon(BrokerId, Lane),
    /// The view of the cluster is old.
    Refresh,
    /// A producer id is wanted.
    NeedIdentity,
    /// A broker named a partition's new leader, of the topic with this id.
    Moved(TopicPartition, Option<TopicId>, LeaderHint),
    /// The partition has something to send and is not yet part of the transaction.
    NeedAdmission(PartitionIndex),
    /// The transaction cannot be committed any more. Told once a transaction.
    TransactionBroken(Error),
}

/// A batch that is to be cut in two.
#[derive(Debug)]
pub struct Split<T> {
    /// Which partition.
    pub partition: PartitionIndex,
    /// Names the batch.
    pub ordinal: u128,
    /// The batch's token.
    pub token: T,
    /// Its records, at least two.
    pub records: SealedRecords,
    /// Behind how many of its records; `None` when it is too large and any half will do.
    pub cut_at: Option<u32>,
    /// When its caller stops waiting.
    pub deadline: Instant,
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It never left.
    NotSent,
    /// It may have arrived.
    Lost,
}
