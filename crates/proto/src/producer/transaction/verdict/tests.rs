//! The table, row by row.

use super::*;
use crate::producer::tests::strange;
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

/// What every code of Kafka's means as the answer to InitProducerId.
const INIT_PRODUCER_ID: [(TransactionVerdict, &[Code]); 7] = [
    (Done, &[Code::NONE]),
    (
        FindCoordinator,
        &[Code::COORDINATOR_NOT_AVAILABLE, Code::NOT_COORDINATOR],
    ),
    (
        Fenced,
        &[Code::INVALID_PRODUCER_EPOCH, Code::PRODUCER_FENCED],
    ),
    (Retry, &strange::PASSING),
    (
        Retry,
        &[
            Code::CORRUPT_MESSAGE,
            Code::UNKNOWN_TOPIC_OR_PARTITION,
            Code::LEADER_NOT_AVAILABLE,
            Code::NOT_LEADER_OR_FOLLOWER,
            Code::REQUEST_TIMED_OUT,
            Code::REPLICA_NOT_AVAILABLE,
            Code::NETWORK_EXCEPTION,
            Code::COORDINATOR_LOAD_IN_PROGRESS,
            Code::NOT_ENOUGH_REPLICAS,
            Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            Code::CONCURRENT_TRANSACTIONS,
            Code::KAFKA_STORAGE_ERROR,
            Code::FENCED_LEADER_EPOCH,
            Code::UNKNOWN_LEADER_EPOCH,
            Code::THROTTLING_QUOTA_EXCEEDED,
            Code::UNKNOWN_TOPIC_ID,
            Code::INCONSISTENT_TOPIC_ID,
            Code::TRANSACTION_ABORTABLE,
        ],
    ),
    (Fatal, &strange::FINAL),
    (
        Fatal,
        &[
            Code::MESSAGE_TOO_LARGE,
            Code::INVALID_TOPIC_EXCEPTION,
            Code::RECORD_LIST_TOO_LARGE,
            Code::INVALID_REQUIRED_ACKS,
            Code::TOPIC_AUTHORIZATION_FAILED,
            Code::CLUSTER_AUTHORIZATION_FAILED,
            Code::INVALID_TIMESTAMP,
            Code::UNSUPPORTED_VERSION,
            Code::INVALID_REQUEST,
            Code::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            Code::POLICY_VIOLATION,
            Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Code::DUPLICATE_SEQUENCE_NUMBER,
            Code::INVALID_TXN_STATE,
            Code::INVALID_PRODUCER_ID_MAPPING,
            Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            Code::SECURITY_DISABLED,
            Code::UNKNOWN_PRODUCER_ID,
            Code::UNSUPPORTED_COMPRESSION_TYPE,
            Code::INVALID_RECORD,
        ],
    ),
];

#[test]
fn every_code_has_one_verdict_as_the_answer_to_init_producer_id() {
    for code in (i16::MIN..=i16::MAX).map(Code) {
        let rows = INIT_PRODUCER_ID
            .iter()
            .filter(|(_, row)| row.contains(&code));
        let wanted: Vec<_> = rows.map(|(verdict, _)| *verdict).collect();
        assert_eq!(wanted.len(), usize::from(code.name().is_some()), "{code}");
        // A code of the future is no reason to go on.
        let wanted = wanted.first().copied().unwrap_or(Fatal);
        let found = transaction_verdict(Api::InitProducerId, code);
        assert_eq!(found, wanted, "{code}");
    }
}
