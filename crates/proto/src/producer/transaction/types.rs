//! What goes in and out of the transaction's core.

use super::super::identity::Identity;
use super::super::types::PartitionIndex;
use crate::code::Code;
use crate::error::Error;
use crate::group::{Committed, GroupMetadata};
use crate::topic::TopicPartition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How clients and brokers speak of transactions. The cluster decides by its finalized feature
/// `transaction.version`, which can change while a producer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The client adds each partition and group to the transaction itself, and keeps its epoch from
    /// one transaction to the next.
    One,
    /// Brokers add what is written to, and each transaction has an epoch of its own (KIP-890): what
    /// comes late can never become part of the next one.
    Two,
}

impl Protocol {
    /// The protocol at a level of `transaction.version`.
    pub fn at_level(level: i16) -> Self {
        if level >= 2 { Self::Two } else { Self::One }
    }
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Everything counts.
    Commit,
    /// Nothing counts.
    Abort,
}

/// What the core must know of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct TransactionConfig {
    /// First wait before a retry.
    pub retry_backoff: Duration,
    /// Longest wait before a retry.
    pub retry_backoff_max: Duration,
    /// Seeds the jitter.
    pub seed: u64,
}

/// Names a request in [`Transactions::handle_outcome`](super::Transactions::handle_outcome).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) u64);

/// What to ask a broker. All but two go to the transaction's coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Any broker: the level of the finalized feature `transaction.version`.
    FindProtocol,
    /// InitProducerId; with `current` only the epoch is to change.
    Identify {
        /// The identity to go on with.
        current: Option<Identity>,
    },
    /// AddPartitionsToTxn.
    AddPartitions {
        /// Who writes.
        identity: Identity,
        /// Where to.
        partitions: Vec<TopicPartition>,
    },
    /// AddOffsetsToTxn.
    AddOffsets {
        /// Who commits.
        identity: Identity,
        /// The group's id.
        group: Arc<str>,
    },
    /// The group's coordinator: TxnOffsetCommit.
    CommitOffsets {
        /// Who commits.
        identity: Identity,
        /// Bounds the version.
        protocol: Protocol,
        /// On behalf of which member.
        group: GroupMetadata,
        /// The next record to read, by partition.
        offsets: BTreeMap<TopicPartition, Committed>,
    },
    /// EndTxn.
    End {
        /// Whose transaction.
        identity: Identity,
        /// Bounds the version.
        protocol: Protocol,
        /// How.
        decision: Decision,
    },
}

/// What a broker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::FindProtocol`].
    Feature {
        /// The level of `transaction.version`, 0 when the cluster has not agreed on one.
        level: i16,
        /// Grows with each change of any feature; `None` when the broker tells none.
        epoch: Option<i64>,
    },
    /// To [`Request::Identify`].
    Identity(Identity),
    /// To [`Request::AddPartitions`] and [`Request::CommitOffsets`]: each partition with its code.
    Partitions(Vec<(TopicPartition, Code)>),
    /// To [`Request::AddOffsets`].
    Added(Code),
    /// To [`Request::End`].
    Ended {
        /// Whether the decision is written.
        code: Code,
        /// The identity of the next transaction, in the newer protocol.
        next: Option<Identity>,
    },
}

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The broker answered.
    Answered(Answer),
    /// The broker refused the whole request with a code.
    Refused(Code),
    /// It never left.
    NotSent(Error),
    /// It may have arrived, and may still be carried out later.
    Lost(Error),
}

/// What the driver is to do or to tell.
#[derive(Debug, Clone)]
pub enum Event {
    /// The producer's identity from now on; sequences start again.
    Identified(Identity),
    /// Records of the transaction that was asked for may come.
    Begun,
    /// The partition's batches may be sent, under this protocol.
    Admitted(PartitionIndex),
    /// The oldest of the offsets given ended so.
    Offsets(Result<(), Error>),
    /// The transaction can only be aborted.
    Broken(Error),
    /// The commit was refused; the transaction can only be aborted.
    Refused(Error),
    /// The transaction has ended.
    Ended(Decision),
    /// Nothing further is possible under this identity.
    Dead(Error),
    /// The transaction's coordinator is another one by now.
    FindCoordinator,
    /// The group's coordinator is another one by now.
    FindGroupCoordinator(Arc<str>),
}
