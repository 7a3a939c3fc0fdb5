//! The table, row by row.

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

/// What every code of Kafka's means as the answer to InitProducerId.
const INIT_PRODUCER_ID: [(TransactionVerdict, &[Code]); 5] = [
    (Done, &[Code::NONE]),
    (
        FindCoordinator,
        &[Code::COORDINATOR_NOT_AVAILABLE, Code::NOT_COORDINATOR],
    ),
    (
        Fenced,
        &[Code::INVALID_PRODUCER_EPOCH, Code::PRODUCER_FENCED],
    ),
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
            Code::NOT_CONTROLLER,
            Code::CONCURRENT_TRANSACTIONS,
            Code::KAFKA_STORAGE_ERROR,
            Code::FETCH_SESSION_ID_NOT_FOUND,
            Code::INVALID_FETCH_SESSION_EPOCH,
            Code::LISTENER_NOT_FOUND,
            Code::FENCED_LEADER_EPOCH,
            Code::UNKNOWN_LEADER_EPOCH,
            Code::OFFSET_NOT_AVAILABLE,
            Code::PREFERRED_LEADER_NOT_AVAILABLE,
            Code::ELIGIBLE_LEADERS_NOT_AVAILABLE,
            Code::ELECTION_NOT_NEEDED,
            Code::UNSTABLE_OFFSET_COMMIT,
            Code::THROTTLING_QUOTA_EXCEEDED,
            Code::UNKNOWN_TOPIC_ID,
            Code::INCONSISTENT_TOPIC_ID,
            Code::FETCH_SESSION_TOPIC_ID_ERROR,
            Code::TRANSACTION_ABORTABLE,
            Code::SHARE_SESSION_NOT_FOUND,
            Code::INVALID_SHARE_SESSION_EPOCH,
            Code::SHARE_SESSION_LIMIT_REACHED,
        ],
    ),
    (
        Fatal,
        &[
            Code::UNKNOWN_SERVER_ERROR,
            Code::OFFSET_OUT_OF_RANGE,
            Code::INVALID_FETCH_SIZE,
            Code::BROKER_NOT_AVAILABLE,
            Code::MESSAGE_TOO_LARGE,
            Code::STALE_CONTROLLER_EPOCH,
            Code::OFFSET_METADATA_TOO_LARGE,
            Code::INVALID_TOPIC_EXCEPTION,
            Code::RECORD_LIST_TOO_LARGE,
            Code::INVALID_REQUIRED_ACKS,
            Code::ILLEGAL_GENERATION,
            Code::INCONSISTENT_GROUP_PROTOCOL,
            Code::INVALID_GROUP_ID,
            Code::UNKNOWN_MEMBER_ID,
            Code::INVALID_SESSION_TIMEOUT,
            Code::REBALANCE_IN_PROGRESS,
            Code::INVALID_COMMIT_OFFSET_SIZE,
            Code::TOPIC_AUTHORIZATION_FAILED,
            Code::GROUP_AUTHORIZATION_FAILED,
            Code::CLUSTER_AUTHORIZATION_FAILED,
            Code::INVALID_TIMESTAMP,
            Code::UNSUPPORTED_SASL_MECHANISM,
            Code::ILLEGAL_SASL_STATE,
            Code::UNSUPPORTED_VERSION,
            Code::TOPIC_ALREADY_EXISTS,
            Code::INVALID_PARTITIONS,
            Code::INVALID_REPLICATION_FACTOR,
            Code::INVALID_REPLICA_ASSIGNMENT,
            Code::INVALID_CONFIG,
            Code::INVALID_REQUEST,
            Code::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            Code::POLICY_VIOLATION,
            Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Code::DUPLICATE_SEQUENCE_NUMBER,
            Code::INVALID_TXN_STATE,
            Code::INVALID_PRODUCER_ID_MAPPING,
            Code::INVALID_TRANSACTION_TIMEOUT,
            Code::TRANSACTION_COORDINATOR_FENCED,
            Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            Code::SECURITY_DISABLED,
            Code::OPERATION_NOT_ATTEMPTED,
            Code::LOG_DIR_NOT_FOUND,
            Code::SASL_AUTHENTICATION_FAILED,
            Code::UNKNOWN_PRODUCER_ID,
            Code::REASSIGNMENT_IN_PROGRESS,
            Code::DELEGATION_TOKEN_AUTH_DISABLED,
            Code::DELEGATION_TOKEN_NOT_FOUND,
            Code::DELEGATION_TOKEN_OWNER_MISMATCH,
            Code::DELEGATION_TOKEN_REQUEST_NOT_ALLOWED,
            Code::DELEGATION_TOKEN_AUTHORIZATION_FAILED,
            Code::DELEGATION_TOKEN_EXPIRED,
            Code::INVALID_PRINCIPAL_TYPE,
            Code::NON_EMPTY_GROUP,
            Code::GROUP_ID_NOT_FOUND,
            Code::TOPIC_DELETION_DISABLED,
            Code::UNSUPPORTED_COMPRESSION_TYPE,
            Code::STALE_BROKER_EPOCH,
            Code::MEMBER_ID_REQUIRED,
            Code::GROUP_MAX_SIZE_REACHED,
            Code::FENCED_INSTANCE_ID,
            Code::NO_REASSIGNMENT_IN_PROGRESS,
            Code::GROUP_SUBSCRIBED_TO_TOPIC,
            Code::INVALID_RECORD,
            Code::RESOURCE_NOT_FOUND,
            Code::DUPLICATE_RESOURCE,
            Code::UNACCEPTABLE_CREDENTIAL,
            Code::INCONSISTENT_VOTER_SET,
            Code::INVALID_UPDATE_VERSION,
            Code::FEATURE_UPDATE_FAILED,
            Code::PRINCIPAL_DESERIALIZATION_FAILURE,
            Code::SNAPSHOT_NOT_FOUND,
            Code::POSITION_OUT_OF_RANGE,
            Code::DUPLICATE_BROKER_REGISTRATION,
            Code::BROKER_ID_NOT_REGISTERED,
            Code::INCONSISTENT_CLUSTER_ID,
            Code::TRANSACTIONAL_ID_NOT_FOUND,
            Code::INELIGIBLE_REPLICA,
            Code::NEW_LEADER_ELECTED,
            Code::OFFSET_MOVED_TO_TIERED_STORAGE,
            Code::FENCED_MEMBER_EPOCH,
            Code::UNRELEASED_INSTANCE_ID,
            Code::UNSUPPORTED_ASSIGNOR,
            Code::STALE_MEMBER_EPOCH,
            Code::MISMATCHED_ENDPOINT_TYPE,
            Code::UNSUPPORTED_ENDPOINT_TYPE,
            Code::UNKNOWN_CONTROLLER_ID,
            Code::UNKNOWN_SUBSCRIPTION_ID,
            Code::TELEMETRY_TOO_LARGE,
            Code::INVALID_REGISTRATION,
            Code::INVALID_RECORD_STATE,
            Code::FENCED_STATE_EPOCH,
            Code::INVALID_VOTER_KEY,
            Code::DUPLICATE_VOTER,
            Code::VOTER_NOT_FOUND,
            Code::INVALID_REGULAR_EXPRESSION,
            Code::REBOOTSTRAP_REQUIRED,
            Code::STREAMS_INVALID_TOPOLOGY,
            Code::STREAMS_INVALID_TOPOLOGY_EPOCH,
            Code::STREAMS_TOPOLOGY_FENCED,
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
