//! What each error code of OffsetFetch and ListOffsets means for the collector: one table an API.

use ottla_proto::Code;

/// What to do with a group's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupVerdict {
    /// Its offsets stand in the answer.
    Use,
    /// This broker is not its coordinator (any more): look for it and ask again.
    Elsewhere,
    /// The coordinator is not ready: ask it again.
    Later,
    /// It has committed nothing: brokers from 4.0 say that the group does not exist.
    Nothing,
    /// We may not see the group.
    Denied,
    /// Anything else: unknown.
    Refused,
}

/// Judges a group's code in an OffsetFetch answer.
pub(crate) fn of_group(code: Code) -> GroupVerdict {
    match code {
        Code::NONE => GroupVerdict::Use,
        Code::NOT_COORDINATOR | Code::COORDINATOR_NOT_AVAILABLE => GroupVerdict::Elsewhere,
        Code::COORDINATOR_LOAD_IN_PROGRESS => GroupVerdict::Later,
        Code::GROUP_ID_NOT_FOUND => GroupVerdict::Nothing,
        Code::GROUP_AUTHORIZATION_FAILED => GroupVerdict::Denied,
        _ => GroupVerdict::Refused,
    }
}

/// What to do with a partition's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndVerdict {
    /// Its offset stands in the answer.
    Use,
    /// The leader has only just become one and does not know its high watermark yet.
    Later,
    /// Our view of the cluster is old.
    Stale,
    /// Anything else: unknown.
    Refused,
}

/// Judges a partition's code in a ListOffsets answer.
pub(crate) fn of_end(code: Code) -> EndVerdict {
    match code {
        Code::NONE => EndVerdict::Use,
        Code::OFFSET_NOT_AVAILABLE => EndVerdict::Later,
        Code::NOT_LEADER_OR_FOLLOWER
        | Code::LEADER_NOT_AVAILABLE
        | Code::REPLICA_NOT_AVAILABLE
        | Code::FENCED_LEADER_EPOCH
        | Code::UNKNOWN_LEADER_EPOCH
        | Code::UNKNOWN_TOPIC_OR_PARTITION
        | Code::KAFKA_STORAGE_ERROR => EndVerdict::Stale,
        _ => EndVerdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_rule() {
        let groups = [
            (Code::NONE, GroupVerdict::Use),
            (Code::NOT_COORDINATOR, GroupVerdict::Elsewhere),
            (Code::COORDINATOR_NOT_AVAILABLE, GroupVerdict::Elsewhere),
            (Code::COORDINATOR_LOAD_IN_PROGRESS, GroupVerdict::Later),
            (Code::GROUP_ID_NOT_FOUND, GroupVerdict::Nothing),
            (Code::GROUP_AUTHORIZATION_FAILED, GroupVerdict::Denied),
            (Code::INVALID_GROUP_ID, GroupVerdict::Refused),
            (Code(9_999), GroupVerdict::Refused),
        ];
        for (code, verdict) in groups {
            assert_eq!(of_group(code), verdict, "{code}");
        }
        let ends = [
            (Code::NONE, EndVerdict::Use),
            (Code::OFFSET_NOT_AVAILABLE, EndVerdict::Later),
            (Code::NOT_LEADER_OR_FOLLOWER, EndVerdict::Stale),
            (Code::FENCED_LEADER_EPOCH, EndVerdict::Stale),
            (Code::UNKNOWN_LEADER_EPOCH, EndVerdict::Stale),
            (Code::UNKNOWN_TOPIC_OR_PARTITION, EndVerdict::Stale),
            (Code::TOPIC_AUTHORIZATION_FAILED, EndVerdict::Refused),
            (Code(9_999), EndVerdict::Refused),
        ];
        for (code, verdict) in ends {
            assert_eq!(of_end(code), verdict, "{code}");
        }
    }
}
