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
mod tests {
    use super::*;
    use TransactionVerdict::*;

    const APIS: [Api; 6] = [
        Api::InitProducerId,
        Api::AddPartitionsToTxn,
        Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit,
        Api::Commit,
        Api::Abort,
    ];

    /// The codes that brokers answer to these APIs, with what each means to each API in the order
    /// of [`APIS`].
    #[rustfmt::skip]
    const TABLE: &[(Code, [TransactionVerdict; 6])] = &[
        (Code::NONE, [Done, Done, Done, Done, Done, Done]),
        (Code::NOT_COORDINATOR, [FindCoordinator; 6]),
        (Code::COORDINATOR_NOT_AVAILABLE, [FindCoordinator; 6]),
        (Code::COORDINATOR_LOAD_IN_PROGRESS, [Retry; 6]),
        (Code::CONCURRENT_TRANSACTIONS, [Retry; 6]),
        (Code::PRODUCER_FENCED, [Fenced; 6]),
        (Code::INVALID_PRODUCER_EPOCH, [Fenced; 6]),
        (Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, [Fatal; 6]),
        (Code::TRANSACTION_ABORTABLE, [Retry, Abort, Abort, Abort, Abort, Renew]),
        (Code::INVALID_TXN_STATE, [Fatal, Fatal, Fatal, Abort, Fatal, Renew]),
        (Code::INVALID_PRODUCER_ID_MAPPING, [Fatal, Abort, Abort, Abort, Abort, Renew]),
        (Code::UNKNOWN_PRODUCER_ID, [Fatal, Abort, Abort, Abort, Abort, Renew]),
        (Code::UNKNOWN_SERVER_ERROR, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code(9999), [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::REQUEST_TIMED_OUT, [Retry, Retry, Retry, FindCoordinator, Doubt, Doubt]),
        (Code::NETWORK_EXCEPTION, [Retry, Retry, Retry, Retry, Doubt, Doubt]),
        (Code::NOT_ENOUGH_REPLICAS, [Retry; 6]),
        (Code::THROTTLING_QUOTA_EXCEEDED, [Retry; 6]),
        (Code::UNKNOWN_TOPIC_OR_PARTITION, [Retry; 6]),
        (Code::OPERATION_NOT_ATTEMPTED, [Fatal, Retry, Fatal, Abort, Doubt, Doubt]),
        (Code::TOPIC_AUTHORIZATION_FAILED, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::GROUP_AUTHORIZATION_FAILED, [Fatal, Abort, Abort, Abort, Doubt, Doubt]),
        (Code::CLUSTER_AUTHORIZATION_FAILED, [Fatal, Abort, Fatal, Abort, Fatal, Fatal]),
        (Code::INVALID_GROUP_ID, [Fatal, Abort, Abort, Abort, Doubt, Doubt]),
        (Code::INVALID_TRANSACTION_TIMEOUT, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::UNSUPPORTED_VERSION, [Fatal, Abort, Fatal, Fatal, Fatal, Fatal]),
        (Code::INVALID_REQUEST, [Fatal, Abort, Fatal, Fatal, Fatal, Fatal]),
        (Code::UNSUPPORTED_FOR_MESSAGE_FORMAT, [Fatal, Abort, Fatal, Fatal, Doubt, Doubt]),
        (Code::ILLEGAL_GENERATION, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::UNKNOWN_MEMBER_ID, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::FENCED_INSTANCE_ID, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::STALE_MEMBER_EPOCH, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::OFFSET_METADATA_TOO_LARGE, [Fatal, Abort, Fatal, Abort, Doubt, Doubt]),
        (Code::UNSTABLE_OFFSET_COMMIT, [Retry; 6]),
    ];

    #[test]
    fn each_code_means_to_each_api_what_the_table_says() {
        for (code, wanted) in TABLE {
            let found = APIS.map(|api| transaction_verdict(api, *code));
            assert_eq!(found, *wanted, "{code}");
        }
    }

    #[test]
    fn nothing_but_none_is_a_success() {
        for number in -1..200 {
            for api in APIS {
                let done = transaction_verdict(api, Code(number)) == Done;
                assert_eq!(done, number == 0, "{api:?} {}", Code(number));
            }
        }
    }

    #[test]
    fn a_fencing_code_outweighs_all_but_the_fatal() {
        assert!(Fatal > Fenced && Fenced > Abort && Abort > FindCoordinator);
        assert!(FindCoordinator > Doubt && Doubt > Retry && Retry > Done);
    }
}
