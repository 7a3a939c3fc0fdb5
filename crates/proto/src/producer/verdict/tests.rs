//! The table, row by row.

use super::Attempt::{Refused, Unknown};
use super::*;
use crate::producer::tests::strange;

const PLAIN: Facts = Facts {
    acks_all: true,
    idempotent: true,
    head_of_line: true,
    maybe_written: false,
    asked_again: false,
    hole: false,
    records: 10,
    transactional: false,
};

#[test]
fn codes_that_can_follow_the_append_are_unknown_only_with_acks_all() {
    for code in [
        Code::NOT_LEADER_OR_FOLLOWER,
        Code::UNKNOWN_TOPIC_OR_PARTITION,
    ] {
        let retry = |attempt| Verdict::Retry {
            attempt,
            refresh: true,
        };
        assert_eq!(verdict(code, PLAIN), retry(Attempt::Unknown), "{code}");
        let leader_only = Facts {
            acks_all: false,
            ..PLAIN
        };
        assert_eq!(
            verdict(code, leader_only),
            retry(Attempt::Refused),
            "{code}"
        );
    }
}

#[test]
fn a_sequence_refused_behind_another_batch_waits_its_turn() {
    let facts = Facts {
        head_of_line: false,
        maybe_written: true,
        ..PLAIN
    };
    let retry = Verdict::Retry {
        attempt: Attempt::Refused,
        refresh: false,
    };
    assert_eq!(verdict(Code::OUT_OF_ORDER_SEQUENCE_NUMBER, facts), retry);
}

#[test]
fn a_sequence_refused_at_the_head_restamps_only_what_is_proven_unwritten() {
    for code in [
        Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
        Code::UNKNOWN_PRODUCER_ID,
        Code::INVALID_PRODUCER_EPOCH,
    ] {
        assert_eq!(verdict(code, PLAIN), Verdict::Restamp);
        let lost = Facts {
            maybe_written: true,
            ..PLAIN
        };
        assert_eq!(
            verdict(code, lost),
            Verdict::Fail {
                attempt: Attempt::Unknown
            }
        );
        let proof = code == Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
        let behind_hole = Facts { hole: true, ..lost };
        let asked_once = Verdict::Retry {
            attempt: Attempt::Refused,
            refresh: false,
        };
        assert_eq!(verdict(code, behind_hole) == asked_once, proof, "{code}");
        let behind_hole = Facts {
            asked_again: true,
            ..behind_hole
        };
        assert_eq!(
            verdict(code, behind_hole) == Verdict::Restamp,
            proof,
            "{code}"
        );
        let in_transaction = Facts {
            transactional: true,
            ..PLAIN
        };
        assert_eq!(
            verdict(code, in_transaction),
            Verdict::Fail {
                attempt: Attempt::Refused
            },
            "{code}: an epoch is never bumped in the middle of a transaction"
        );
        let plain = Facts {
            idempotent: false,
            ..PLAIN
        };
        assert_eq!(
            verdict(code, plain),
            Verdict::Fail {
                attempt: Attempt::Refused
            }
        );
    }
}

#[test]
fn a_batch_too_large_is_cut_only_when_no_attempt_can_have_written_it() {
    for code in [Code::MESSAGE_TOO_LARGE, Code::RECORD_LIST_TOO_LARGE] {
        assert_eq!(verdict(code, PLAIN), Verdict::Split);
        let refused = Verdict::Fail {
            attempt: Attempt::Refused,
        };
        let single = Facts {
            records: 1,
            ..PLAIN
        };
        assert_eq!(verdict(code, single), refused);
        let in_doubt = Facts {
            maybe_written: true,
            ..PLAIN
        };
        assert_eq!(verdict(code, in_doubt), refused);
    }
}

#[test]
fn a_code_of_the_future_never_claims_that_nothing_was_written() {
    assert_eq!(
        verdict(Code(9999), PLAIN),
        Verdict::Fail {
            attempt: Attempt::Unknown
        }
    );
    assert_eq!(
        verdict(Code::UNKNOWN_SERVER_ERROR, PLAIN),
        Verdict::Fail {
            attempt: Attempt::Unknown
        }
    );
}

/// What a fresh batch at the head of its partition is told by every code that a Produce answer may
/// carry, with acks=all and idempotence: what to do, what is known, whether to look for the leader.
#[test]
fn the_verdict_of_every_code_is_the_one_in_this_table() {
    let retry = |attempt, refresh| Verdict::Retry { attempt, refresh };
    let fail = |attempt| Verdict::Fail { attempt };
    let rows: &[(Code, Verdict)] = &[
        (Code::NONE, Verdict::Acknowledged),
        (Code::DUPLICATE_SEQUENCE_NUMBER, Verdict::Acknowledged),
        (Code::CORRUPT_MESSAGE, retry(Refused, false)),
        (Code::UNKNOWN_TOPIC_OR_PARTITION, retry(Unknown, true)),
        (Code::LEADER_NOT_AVAILABLE, retry(Refused, true)),
        (Code::NOT_LEADER_OR_FOLLOWER, retry(Unknown, true)),
        (Code::REQUEST_TIMED_OUT, retry(Unknown, false)),
        (Code::REPLICA_NOT_AVAILABLE, retry(Refused, true)),
        (Code::MESSAGE_TOO_LARGE, Verdict::Split),
        (Code::NETWORK_EXCEPTION, retry(Unknown, true)),
        (Code::COORDINATOR_LOAD_IN_PROGRESS, retry(Refused, false)),
        (Code::INVALID_TOPIC_EXCEPTION, fail(Refused)),
        (Code::RECORD_LIST_TOO_LARGE, Verdict::Split),
        (Code::NOT_ENOUGH_REPLICAS, retry(Refused, false)),
        (
            Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            retry(Unknown, false),
        ),
        (Code::INVALID_REQUIRED_ACKS, fail(Refused)),
        (Code::TOPIC_AUTHORIZATION_FAILED, fail(Refused)),
        (Code::CLUSTER_AUTHORIZATION_FAILED, fail(Refused)),
        (Code::INVALID_TIMESTAMP, fail(Refused)),
        (Code::UNSUPPORTED_VERSION, fail(Refused)),
        (Code::INVALID_REQUEST, fail(Refused)),
        (Code::UNSUPPORTED_FOR_MESSAGE_FORMAT, fail(Refused)),
        (Code::POLICY_VIOLATION, fail(Refused)),
        (Code::OUT_OF_ORDER_SEQUENCE_NUMBER, Verdict::Restamp),
        (Code::INVALID_PRODUCER_EPOCH, Verdict::Restamp),
        (Code::INVALID_TXN_STATE, fail(Refused)),
        (Code::INVALID_PRODUCER_ID_MAPPING, fail(Refused)),
        (Code::CONCURRENT_TRANSACTIONS, retry(Refused, false)),
        (Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fail(Refused)),
        (Code::SECURITY_DISABLED, fail(Refused)),
        (Code::KAFKA_STORAGE_ERROR, retry(Unknown, true)),
        (Code::UNKNOWN_PRODUCER_ID, Verdict::Restamp),
        (Code::FENCED_LEADER_EPOCH, retry(Refused, true)),
        (Code::UNKNOWN_LEADER_EPOCH, retry(Refused, true)),
        (Code::UNSUPPORTED_COMPRESSION_TYPE, fail(Refused)),
        (Code::INVALID_RECORD, fail(Refused)),
        (Code::THROTTLING_QUOTA_EXCEEDED, retry(Refused, false)),
        (Code::PRODUCER_FENCED, fail(Refused)),
        (Code::UNKNOWN_TOPIC_ID, retry(Refused, true)),
        (Code::INCONSISTENT_TOPIC_ID, retry(Refused, true)),
        (Code::TRANSACTION_ABORTABLE, fail(Refused)),
        // A leader answers neither of these; Kafka calls them passing.
        (Code::COORDINATOR_NOT_AVAILABLE, retry(Unknown, true)),
        (Code::NOT_COORDINATOR, retry(Unknown, true)),
    ];
    for code in (i16::MIN..=i16::MAX).map(Code) {
        let row = rows.iter().find(|(row, _)| *row == code);
        let places = [
            row.is_some(),
            strange::PASSING.contains(&code),
            strange::FINAL.contains(&code),
        ];
        let places = places.into_iter().filter(|stands| *stands).count();
        assert_eq!(places, usize::from(code.name().is_some()), "{code}");
        let expected = match row {
            Some((_, expected)) => *expected,
            None if strange::PASSING.contains(&code) => retry(Unknown, true),
            // Numbers without a name too: a code of the future proves nothing.
            None => fail(Unknown),
        };
        assert_eq!(verdict(code, PLAIN), expected, "{code}");
    }
}
