//! What each answer of a coordinator means: one table an API.

use crate::code::Code;

/// The APIs of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// InitProducerId.
    InitProducerId,
    /// AddPartitionsToTxn, one partition.
    AddPartitionsToTxn,
    /// AddOffsetsToTxn.
    AddOffsetsToTxn,
    /// TxnOffsetCommit, one partition.
    TxnOffsetCommit,
    /// EndTxn that commits.
    Commit,
    /// EndTxn that aborts.
    Abort,
}

impl Api {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitProducerId => "InitProducerId",
            Self::AddPartitionsToTxn => "AddPartitionsToTxn",
            Self::AddOffsetsToTxn => "AddOffsetsToTxn",
            Self::TxnOffsetCommit => "TxnOffsetCommit",
            Self::Commit | Self::Abort => "EndTxn",
        }
    }
}

/// What to do. In the order of weight: of several partitions' verdicts the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionVerdict {
    /// It is done.
    Done,
    /// Ask again after a pause.
    Retry,
    /// The answer says nothing certain: ask again after a pause, but what was asked may have been
    /// done, and may be done later.
    Doubt,
    /// Find the coordinator anew, then ask again.
    FindCoordinator,
    /// The transaction can only be aborted.
    Abort,
    /// The coordinator has nothing (any more) to abort under this epoch: ask for a new one.
    Renew,
    /// Another producer took over the transactional id, or the coordinator gave the transaction up.
    Fenced,
    /// Nothing further is possible.
    Fatal,
}

/// The table.
pub fn transaction_verdict(api: Api, code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Done, Fatal, Fenced, FindCoordinator, Retry};
    match code {
        Code::NONE => Done,
        Code::NOT_COORDINATOR | Code::COORDINATOR_NOT_AVAILABLE => FindCoordinator,
        Code::PRODUCER_FENCED | Code::INVALID_PRODUCER_EPOCH => Fenced,
        Code::COORDINATOR_LOAD_IN_PROGRESS | Code::CONCURRENT_TRANSACTIONS => Retry,
        Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Fatal,
        code => match api {
            Api::InitProducerId => identify(code),
            Api::AddPartitionsToTxn => add_partitions(code),
            Api::AddOffsetsToTxn => add_offsets(code),
            Api::TxnOffsetCommit => commit_offsets(code),
            Api::Commit => commit(code),
            Api::Abort => abort(code),
        },
    }
}

fn identify(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Fatal, Retry};
    match code {
        // It asks to abort, and that is what a new epoch does.
        Code::TRANSACTION_ABORTABLE => Retry,
        code if code.is_retriable() => Retry,
        _ => Fatal,
    }
}

fn add_partitions(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Abort, Fatal, Retry};
    match code {
        // Nothing is wrong with this partition, but with another of the same request.
        Code::OPERATION_NOT_ATTEMPTED => Retry,
        Code::INVALID_TXN_STATE => Fatal,
        code if code.is_retriable() => Retry,
        _ => Abort,
    }
}

fn add_offsets(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Abort, Fatal, Retry};
    match code {
        Code::UNKNOWN_PRODUCER_ID
        | Code::INVALID_PRODUCER_ID_MAPPING
        | Code::TRANSACTION_ABORTABLE
        | Code::INVALID_GROUP_ID
        | Code::GROUP_AUTHORIZATION_FAILED => Abort,
        code if code.is_retriable() => Retry,
        _ => Fatal,
    }
}

fn commit_offsets(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Abort, Fatal, FindCoordinator, Retry};
    match code {
        Code::REQUEST_TIMED_OUT => FindCoordinator,
        Code::UNSUPPORTED_FOR_MESSAGE_FORMAT
        | Code::UNSUPPORTED_VERSION
        | Code::INVALID_REQUEST => Fatal,
        code if code.is_retriable() => Retry,
        // The member was put out of its group, may not commit, or asks too much: the offsets are not
        // part of the transaction, which is therefore not whole.
        _ => Abort,
    }
}

fn commit(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Abort, Doubt, Fatal, Retry};
    match code {
        Code::UNKNOWN_PRODUCER_ID
        | Code::INVALID_PRODUCER_ID_MAPPING
        | Code::TRANSACTION_ABORTABLE => Abort,
        Code::INVALID_TXN_STATE
        | Code::INVALID_REQUEST
        | Code::UNSUPPORTED_VERSION
        | Code::CLUSTER_AUTHORIZATION_FAILED => Fatal,
        // The coordinator's own writing went wrong, it does not say how far.
        Code::REQUEST_TIMED_OUT | Code::NETWORK_EXCEPTION => Doubt,
        code if code.is_retriable() => Retry,
        // UNKNOWN_SERVER_ERROR above all: by no means a success.
        _ => Doubt,
    }
}

fn abort(code: Code) -> TransactionVerdict {
    use TransactionVerdict::{Abort, Renew};
    match code {
        Code::INVALID_TXN_STATE => Renew,
        code => match commit(code) {
            // What asks for an abort is not to be aborted again.
            Abort => Renew,
            verdict => verdict,
        },
    }
}

#[cfg(test)]
mod tests;
