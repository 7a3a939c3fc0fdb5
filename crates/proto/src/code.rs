//! Kafka's error codes: one table with each code's number, name and whether a retry may help.

use std::fmt;

/// An error code as a broker sends it. Codes that this version does not know keep their number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub i16);

macro_rules! retriable {
    (yes) => {
        true
    };
    (no) => {
        false
    };
}

macro_rules! codes {
    ($($name:ident = $number:literal, $retriable:ident;)*) => {
        #[expect(missing_docs, reason = "the names are Kafka's, documented in its protocol guide")]
        impl Code {
            $(pub const $name: Code = Code($number);)*
        }

        /// Every known code with its name and whether Kafka calls it retriable.
        const TABLE: &[(i16, &str, bool)] =
            &[$(($number, stringify!($name), retriable!($retriable)),)*];
    };
}

codes! {
    UNKNOWN_SERVER_ERROR = -1, no;
    NONE = 0, no;
    OFFSET_OUT_OF_RANGE = 1, no;
    CORRUPT_MESSAGE = 2, yes;
    UNKNOWN_TOPIC_OR_PARTITION = 3, yes;
    INVALID_FETCH_SIZE = 4, no;
    LEADER_NOT_AVAILABLE = 5, yes;
    NOT_LEADER_OR_FOLLOWER = 6, yes;
    REQUEST_TIMED_OUT = 7, yes;
    BROKER_NOT_AVAILABLE = 8, no;
    REPLICA_NOT_AVAILABLE = 9, yes;
    MESSAGE_TOO_LARGE = 10, no;
    STALE_CONTROLLER_EPOCH = 11, no;
    OFFSET_METADATA_TOO_LARGE = 12, no;
    NETWORK_EXCEPTION = 13, yes;
    COORDINATOR_LOAD_IN_PROGRESS = 14, yes;
    COORDINATOR_NOT_AVAILABLE = 15, yes;
    NOT_COORDINATOR = 16, yes;
    INVALID_TOPIC_EXCEPTION = 17, no;
    RECORD_LIST_TOO_LARGE = 18, no;
    NOT_ENOUGH_REPLICAS = 19, yes;
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, yes;
    INVALID_REQUIRED_ACKS = 21, no;
    ILLEGAL_GENERATION = 22, no;
    INCONSISTENT_GROUP_PROTOCOL = 23, no;
    INVALID_GROUP_ID = 24, no;
    UNKNOWN_MEMBER_ID = 25, no;
    INVALID_SESSION_TIMEOUT = 26, no;
    REBALANCE_IN_PROGRESS = 27, no;
    INVALID_COMMIT_OFFSET_SIZE = 28, no;
    TOPIC_AUTHORIZATION_FAILED = 29, no;
    GROUP_AUTHORIZATION_FAILED = 30, no;
    CLUSTER_AUTHORIZATION_FAILED = 31, no;
    INVALID_TIMESTAMP = 32, no;
    UNSUPPORTED_SASL_MECHANISM = 33, no;
    ILLEGAL_SASL_STATE = 34, no;
    UNSUPPORTED_VERSION = 35, no;
    TOPIC_ALREADY_EXISTS = 36, no;
    INVALID_PARTITIONS = 37, no;
    INVALID_REPLICATION_FACTOR = 38, no;
    INVALID_REPLICA_ASSIGNMENT = 39, no;
    INVALID_CONFIG = 40, no;
    NOT_CONTROLLER = 41, yes;
    INVALID_REQUEST = 42, no;
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, no;
    POLICY_VIOLATION = 44, no;
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, no;
    DUPLICATE_SEQUENCE_NUMBER = 46, no;
    INVALID_PRODUCER_EPOCH = 47, no;
    INVALID_TXN_STATE = 48, no;
    INVALID_PRODUCER_ID_MAPPING = 49, no;
    INVALID_TRANSACTION_TIMEOUT = 50, no;
    CONCURRENT_TRANSACTIONS = 51, yes;
    TRANSACTION_COORDINATOR_FENCED = 52, no;
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, no;
    SECURITY_DISABLED = 54, no;
    OPERATION_NOT_ATTEMPTED = 55, no;
    KAFKA_STORAGE_ERROR = 56, yes;
    LOG_DIR_NOT_FOUND = 57, no;
    SASL_AUTHENTICATION_FAILED = 58, no;
    UNKNOWN_PRODUCER_ID = 59, no;
    REASSIGNMENT_IN_PROGRESS = 60, no;
    DELEGATION_TOKEN_AUTH_DISABLED = 61, no;
    DELEGATION_TOKEN_NOT_FOUND = 62, no;
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, no;
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, no;
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, no;
    DELEGATION_TOKEN_EXPIRED = 66, no;
    INVALID_PRINCIPAL_TYPE = 67, no;
    NON_EMPTY_GROUP = 68, no;
    GROUP_ID_NOT_FOUND = 69, no;
    FETCH_SESSION_ID_NOT_FOUND = 70, yes;
    INVALID_FETCH_SESSION_EPOCH = 71, yes;
    LISTENER_NOT_FOUND = 72, yes;
    TOPIC_DELETION_DISABLED = 73, no;
    FENCED_LEADER_EPOCH = 74, yes;
    UNKNOWN_LEADER_EPOCH = 75, yes;
    UNSUPPORTED_COMPRESSION_TYPE = 76, no;
    STALE_BROKER_EPOCH = 77, no;
    OFFSET_NOT_AVAILABLE = 78, yes;
    MEMBER_ID_REQUIRED = 79, no;
    PREFERRED_LEADER_NOT_AVAILABLE = 80, yes;
    GROUP_MAX_SIZE_REACHED = 81, no;
    FENCED_INSTANCE_ID = 82, no;
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, yes;
    ELECTION_NOT_NEEDED = 84, yes;
    NO_REASSIGNMENT_IN_PROGRESS = 85, no;
    GROUP_SUBSCRIBED_TO_TOPIC = 86, no;
    INVALID_RECORD = 87, no;
    UNSTABLE_OFFSET_COMMIT = 88, yes;
    THROTTLING_QUOTA_EXCEEDED = 89, yes;
    PRODUCER_FENCED = 90, no;
    RESOURCE_NOT_FOUND = 91, no;
    DUPLICATE_RESOURCE = 92, no;
    UNACCEPTABLE_CREDENTIAL = 93, no;
    INCONSISTENT_VOTER_SET = 94, no;
    INVALID_UPDATE_VERSION = 95, no;
    FEATURE_UPDATE_FAILED = 96, no;
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, no;
    SNAPSHOT_NOT_FOUND = 98, no;
    POSITION_OUT_OF_RANGE = 99, no;
    UNKNOWN_TOPIC_ID = 100, yes;
    DUPLICATE_BROKER_REGISTRATION = 101, no;
    BROKER_ID_NOT_REGISTERED = 102, no;
    INCONSISTENT_TOPIC_ID = 103, yes;
    INCONSISTENT_CLUSTER_ID = 104, no;
    TRANSACTIONAL_ID_NOT_FOUND = 105, no;
    FETCH_SESSION_TOPIC_ID_ERROR = 106, yes;
    INELIGIBLE_REPLICA = 107, no;
    NEW_LEADER_ELECTED = 108, no;
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, no;
    FENCED_MEMBER_EPOCH = 110, no;
    UNRELEASED_INSTANCE_ID = 111, no;
    UNSUPPORTED_ASSIGNOR = 112, no;
    STALE_MEMBER_EPOCH = 113, no;
    MISMATCHED_ENDPOINT_TYPE = 114, no;
    UNSUPPORTED_ENDPOINT_TYPE = 115, no;
    UNKNOWN_CONTROLLER_ID = 116, no;
    UNKNOWN_SUBSCRIPTION_ID = 117, no;
    TELEMETRY_TOO_LARGE = 118, no;
    INVALID_REGISTRATION = 119, no;
    TRANSACTION_ABORTABLE = 120, no;
    INVALID_RECORD_STATE = 121, no;
    SHARE_SESSION_NOT_FOUND = 122, yes;
    INVALID_SHARE_SESSION_EPOCH = 123, yes;
    FENCED_STATE_EPOCH = 124, no;
    INVALID_VOTER_KEY = 125, no;
    DUPLICATE_VOTER = 126, no;
    VOTER_NOT_FOUND = 127, no;
    INVALID_REGULAR_EXPRESSION = 128, no;
    REBOOTSTRAP_REQUIRED = 129, no;
    STREAMS_INVALID_TOPOLOGY = 130, no;
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, no;
    STREAMS_TOPOLOGY_FENCED = 132, no;
    SHARE_SESSION_LIMIT_REACHED = 133, yes;
}

impl Code {
    fn row(self) -> Option<&'static (i16, &'static str, bool)> {
        // The table starts at -1 and has no gaps, which a test holds.
        usize::try_from(i32::from(self.0) + 1)
            .ok()
            .and_then(|index| TABLE.get(index))
    }

    /// Kafka's name for the code, if it has one that we know.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.1)
    }

    /// Whether Kafka's own client retries an answer with this code. A code that we do not know is
    /// not retriable.
    pub fn is_retriable(self) -> bool {
        self.row().is_some_and(|row| row.2)
    }

    /// `Ok` for [`Code::NONE`], else the code as the error.
    pub fn ok(self) -> Result<(), Code> {
        if self == Code::NONE {
            Ok(())
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_under_its_own_number() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(
                i64::from(row.0),
                index as i64 - 1,
                "{} is out of place",
                row.1
            );
        }
        assert_eq!(Code(45).name(), Some("OUT_OF_ORDER_SEQUENCE_NUMBER"));
        assert_eq!(Code(-1).name(), Some("UNKNOWN_SERVER_ERROR"));
        assert!(Code::NOT_LEADER_OR_FOLLOWER.is_retriable());
        assert!(!Code::MESSAGE_TOO_LARGE.is_retriable());
    }

    #[test]
    fn an_unknown_code_keeps_its_number_and_is_final() {
        assert_eq!(Code(999).to_string(), "error code 999");
        assert!(!Code(999).is_retriable());
        assert!(!Code(i16::MIN).is_retriable());
    }
}
