//! What a Fetch or ListOffsets answer's code means for one partition.

use crate::code::Code;

/// What to do about one partition's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchVerdict {
    /// Take what came.
    Take,
    /// The log does not have our offset: begin anew where the policy says.
    Reset,
    /// Somebody else leads, or what we know of the topic is old: refresh the view, then ask again.
    Refresh,
    /// Ask again after a pause.
    Retry,
    /// Tell the user. The partition is asked again when the user comes back.
    Fail,
}

/// The one table of what the codes of Fetch and ListOffsets mean.
pub fn fetch_verdict(code: Code) -> FetchVerdict {
    match code {
        Code::NONE => FetchVerdict::Take,
        Code::OFFSET_OUT_OF_RANGE => FetchVerdict::Reset,
        Code::NOT_LEADER_OR_FOLLOWER
        | Code::LEADER_NOT_AVAILABLE
        | Code::REPLICA_NOT_AVAILABLE
        | Code::FENCED_LEADER_EPOCH
        | Code::UNKNOWN_TOPIC_OR_PARTITION
        | Code::UNKNOWN_TOPIC_ID
        | Code::INCONSISTENT_TOPIC_ID
        | Code::KAFKA_STORAGE_ERROR => FetchVerdict::Refresh,
        // Kafka calls it retriable; for a reader it means that the log holds damaged bytes.
        Code::CORRUPT_MESSAGE => FetchVerdict::Fail,
        // Transient at the broker, though Kafka does not call it retriable.
        Code::UNKNOWN_SERVER_ERROR => FetchVerdict::Retry,
        code if code.is_retriable() => FetchVerdict::Retry,
        _ => FetchVerdict::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_a_moving_leader_refresh_and_those_of_a_late_one_wait() {
        use FetchVerdict::{Fail, Refresh, Reset, Retry, Take};
        for (code, verdict) in [
            (Code::NONE, Take),
            (Code::OFFSET_OUT_OF_RANGE, Reset),
            (Code::NOT_LEADER_OR_FOLLOWER, Refresh),
            (Code::FENCED_LEADER_EPOCH, Refresh),
            (Code::UNKNOWN_TOPIC_ID, Refresh),
            // We know a newer epoch than the broker: it will learn.
            (Code::UNKNOWN_LEADER_EPOCH, Retry),
            (Code::OFFSET_NOT_AVAILABLE, Retry),
            (Code::UNKNOWN_SERVER_ERROR, Retry),
            (Code::TOPIC_AUTHORIZATION_FAILED, Fail),
            (Code::CORRUPT_MESSAGE, Fail),
            (Code(999), Fail),
        ] {
            assert_eq!(fetch_verdict(code), verdict, "{code}");
        }
    }
}
