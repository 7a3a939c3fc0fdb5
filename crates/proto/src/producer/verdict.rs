//! What an answer to a Produce request means: one table.

use crate::code::Code;

/// What we know of the batch that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Every in-sync replica had to have the batch before the answer.
    pub acks_all: bool,
    /// The batch carries a producer id and a sequence.
    pub idempotent: bool,
    /// No earlier batch of the partition is unacknowledged.
    pub head_of_line: bool,
    /// An earlier attempt ended without proof that nothing was written.
    pub maybe_written: bool,
    /// Its sequence was refused behind the hole before, and nothing was lost since.
    pub asked_again: bool,
    /// An earlier batch of the partition failed for good, so the broker waits for a sequence that
    /// never comes.
    pub hole: bool,
    /// How many records it holds.
    pub records: u32,
    /// It belongs to a transaction.
    pub transactional: bool,
}

/// Whether the attempt that was answered may have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The broker did not append it.
    Refused,
    /// It may be in the log.
    Unknown,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the log.
    Acknowledged,
    /// Send it again under the same stamp.
    Retry {
        /// What the attempt left behind.
        attempt: Attempt,
        /// Whether our picture of the cluster is old.
        refresh: bool,
    },
    /// The broker's sequence state and ours differ, and this batch is proven unwritten: a new epoch
    /// for the partition, then send it again.
    Restamp,
    /// It is too large for the broker: cut it in two, under the same sequences.
    Split,
    /// It ends here.
    Fail {
        /// What the attempt left behind; earlier attempts count too.
        attempt: Attempt,
    },
}

/// How many batches were told what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerdictCounts {
    /// They were in the log.
    pub acknowledged: u64,
    /// To be sent again, and certainly not appended by this attempt.
    pub retried_refused: u64,
    /// To be sent again, and perhaps appended by this attempt.
    pub retried_unknown: u64,
    /// To be sent again under a new epoch.
    pub restamped: u64,
    /// Too large, to be cut in two.
    pub split: u64,
    /// Refused for good, and certainly not appended by this attempt.
    pub failed_refused: u64,
    /// Failed, and perhaps appended.
    pub failed_unknown: u64,
}

impl VerdictCounts {
    /// Counts one more batch.
    pub(super) fn count(&mut self, verdict: Verdict) {
        use Attempt::{Refused, Unknown};
        let place = match verdict {
            Verdict::Acknowledged => &mut self.acknowledged,
            Verdict::Retry {
                attempt: Refused, ..
            } => &mut self.retried_refused,
            Verdict::Retry {
                attempt: Unknown, ..
            } => &mut self.retried_unknown,
            Verdict::Restamp => &mut self.restamped,
            Verdict::Split => &mut self.split,
            Verdict::Fail { attempt: Refused } => &mut self.failed_refused,
            Verdict::Fail { attempt: Unknown } => &mut self.failed_unknown,
        };
        *place += 1;
    }

    /// Adds others.
    pub fn add(&mut self, more: &Self) {
        self.acknowledged += more.acknowledged;
        self.retried_refused += more.retried_refused;
        self.retried_unknown += more.retried_unknown;
        self.restamped += more.restamped;
        self.split += more.split;
        self.failed_refused += more.failed_refused;
        self.failed_unknown += more.failed_unknown;
    }

    /// The counts with the names that labels have for them.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("acknowledged", self.acknowledged),
            ("retried_refused", self.retried_refused),
            ("retried_unknown", self.retried_unknown),
            ("restamped", self.restamped),
            ("split", self.split),
            ("failed_refused", self.failed_refused),
            ("failed_unknown", self.failed_unknown),
        ]
    }
}

/// The table.
pub fn verdict(code: Code, facts: Facts) -> Verdict {
    use Attempt::{Refused, Unknown};
    // With acks=all these two can follow the append on the leader.
    let after_append = if facts.acks_all { Unknown } else { Refused };
    match code {
        // A duplicate is a batch that is in the log already.
        Code::NONE | Code::DUPLICATE_SEQUENCE_NUMBER => Verdict::Acknowledged,

        // A disk may fail in the middle of the append.
        Code::KAFKA_STORAGE_ERROR => Verdict::Retry {
            attempt: Unknown,
            refresh: true,
        },
        Code::NOT_LEADER_OR_FOLLOWER | Code::UNKNOWN_TOPIC_OR_PARTITION => Verdict::Retry {
            attempt: after_append,
            refresh: true,
        },
        Code::LEADER_NOT_AVAILABLE
        | Code::REPLICA_NOT_AVAILABLE
        | Code::UNKNOWN_TOPIC_ID
        | Code::INCONSISTENT_TOPIC_ID
        | Code::FENCED_LEADER_EPOCH
        | Code::UNKNOWN_LEADER_EPOCH => Verdict::Retry {
            attempt: Refused,
            refresh: true,
        },
        Code::NETWORK_EXCEPTION => Verdict::Retry {
            attempt: Unknown,
            refresh: true,
        },
        Code::REQUEST_TIMED_OUT | Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND => Verdict::Retry {
            attempt: Unknown,
            refresh: false,
        },
        Code::NOT_ENOUGH_REPLICAS
        | Code::CORRUPT_MESSAGE
        | Code::COORDINATOR_LOAD_IN_PROGRESS
        | Code::CONCURRENT_TRANSACTIONS
        | Code::THROTTLING_QUOTA_EXCEEDED => Verdict::Retry {
            attempt: Refused,
            refresh: false,
        },

        Code::OUT_OF_ORDER_SEQUENCE_NUMBER
        | Code::UNKNOWN_PRODUCER_ID
        | Code::INVALID_PRODUCER_EPOCH
            if facts.idempotent =>
        {
            sequence_refused(code, facts)
        }

        // A broker knows a repeated batch only by its first and last sequence: what may be written
        // is never cut.
        Code::MESSAGE_TOO_LARGE | Code::RECORD_LIST_TOO_LARGE
            if facts.records > 1 && !facts.maybe_written =>
        {
            Verdict::Split
        }

        code if is_refusal(code) => Verdict::Fail { attempt: Refused },

        // A code that says nothing certain proves nothing.
        code if code.is_retriable() => Verdict::Retry {
            attempt: Unknown,
            refresh: true,
        },
        _ => Verdict::Fail { attempt: Unknown },
    }
}

/// Codes that a broker answers before it appends anything, and that waiting does not mend.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::MESSAGE_TOO_LARGE
            | Code::RECORD_LIST_TOO_LARGE
            | Code::INVALID_RECORD
            | Code::INVALID_TIMESTAMP
            | Code::INVALID_TOPIC_EXCEPTION
            | Code::INVALID_REQUIRED_ACKS
            | Code::INVALID_REQUEST
            | Code::TOPIC_AUTHORIZATION_FAILED
            | Code::CLUSTER_AUTHORIZATION_FAILED
            | Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | Code::UNSUPPORTED_FOR_MESSAGE_FORMAT
            | Code::UNSUPPORTED_COMPRESSION_TYPE
            | Code::UNSUPPORTED_VERSION
            | Code::POLICY_VIOLATION
            | Code::SECURITY_DISABLED
            | Code::OUT_OF_ORDER_SEQUENCE_NUMBER
            | Code::UNKNOWN_PRODUCER_ID
            | Code::INVALID_PRODUCER_EPOCH
            | Code::INVALID_PRODUCER_ID_MAPPING
            | Code::INVALID_TXN_STATE
            | Code::TRANSACTION_ABORTABLE
            | Code::PRODUCER_FENCED
    )
}

/// The broker expected another sequence. Behind an unacknowledged batch, or behind a hole, that is
/// what must happen, and it proves that this batch is not in the log: were it there, the broker
/// would have called it a duplicate.
///
/// A batch that was lost on its way is asked about twice, with a wait between: a broker that was
/// frozen may read our new connection before the one we gave up, and would write then what it has
/// just called out of order.
///
/// Twice is not a certain proof either: a broker that has left the old connection unread for all that
/// time, reads it then, before the first batch of the next epoch, and finds there both what was lost
/// and what was asked about, appends the latter, and once more under the new epoch. From the new
/// epoch's first batch on it refuses whatever is older. Nothing short of such a batch tells the broker
/// of the new epoch, so the window cannot be closed without records to send.
fn sequence_refused(code: Code, facts: Facts) -> Verdict {
    // The other two codes say that the broker forgot us, or heard of a later epoch: no proof.
    let refused = facts.hole && code == Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
    let proven = refused && (facts.asked_again || !facts.maybe_written);
    if refused && !proven && !facts.transactional {
        return Verdict::Retry {
            attempt: Attempt::Refused,
            refresh: false,
        };
    }
    if !facts.head_of_line {
        // Batches behind a hole would wait for each other's proof for ever.
        if proven && !facts.transactional {
            return Verdict::Restamp;
        }
        return Verdict::Retry {
            attempt: Attempt::Refused,
            refresh: false,
        };
    }
    if facts.maybe_written && !proven {
        // The broker lost our state: whether it also held the batch, nobody can tell.
        return Verdict::Fail {
            attempt: Attempt::Unknown,
        };
    }
    if facts.transactional {
        // A new epoch in the middle of a transaction would silently begin another one.
        return Verdict::Fail {
            attempt: Attempt::Refused,
        };
    }
    Verdict::Restamp
}

#[cfg(test)]
mod tests;
