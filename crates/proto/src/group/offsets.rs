//! What is committed, and what a refused commit means.

use crate::code::Code;
use crate::topic::TopicPartition;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A committed offset: the next record to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch of the last record read, where known; lets the next reader notice that the
    /// log was truncated below it (KIP-320).
    pub leader_epoch: Option<i32>,
    /// The committer's own words.
    pub metadata: Option<Arc<str>>,
}

impl Committed {
    /// An offset alone.
    pub fn at(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: None,
            metadata: None,
        }
    }
}

/// On whose behalf offsets are committed inside a transaction: a member that was put out of its
/// group is then refused (KIP-447).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupMetadata {
    /// The group's id.
    pub group: Arc<str>,
    /// The generation the member is in; `None` for a commit from outside.
    pub generation: Option<i32>,
    /// The id that the coordinator gave the member; empty for a commit from outside.
    pub member_id: Arc<str>,
    /// The static member's name (KIP-345).
    pub instance_id: Option<Arc<str>>,
}

impl GroupMetadata {
    /// A commit from outside the group's membership: no zombie is noticed.
    pub fn outside(group: impl Into<Arc<str>>) -> Self {
        Self {
            group: group.into(),
            ..Self::default()
        }
    }
}

/// What the coordinator holds, as far as this member knows: the automatic commit sends only what
/// moved since.
#[derive(Debug, Clone, Default)]
pub struct OffsetLedger {
    committed: BTreeMap<TopicPartition, i64>,
}

impl OffsetLedger {
    /// Takes note of an acknowledged or fetched commit.
    pub fn record(&mut self, partition: TopicPartition, offset: i64) {
        self.committed.insert(partition, offset);
    }

    /// Forgets a partition that is no longer this member's: another member may commit it.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.committed.remove(partition);
    }

    /// Of `positions`, those that differ from what is committed.
    pub fn moved(
        &self,
        positions: impl IntoIterator<Item = (TopicPartition, Committed)>,
    ) -> BTreeMap<TopicPartition, Committed> {
        let moved = |(partition, position): &(TopicPartition, Committed)| {
            self.committed.get(partition) != Some(&position.offset)
        };
        positions.into_iter().filter(moved).collect()
    }
}

/// What to do about one partition's answer to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitVerdict {
    /// It is committed.
    Done,
    /// Send it again after a pause.
    Retry,
    /// Find the coordinator anew, then send it again.
    FindCoordinator,
    /// The group is between two generations: commit again once this member has joined.
    AfterRebalance,
    /// This member is no longer in the group: the partitions may be another's by now, so the
    /// commit must not be repeated.
    NotAMember,
    /// Another instance took over this member's `group.instance.id`.
    Fenced,
    /// It will never be taken.
    Fail,
}

/// The one table of what the codes of OffsetCommit and OffsetFetch mean.
pub fn commit_verdict(code: Code) -> CommitVerdict {
    match code {
        Code::NONE => CommitVerdict::Done,
        Code::NOT_COORDINATOR | Code::COORDINATOR_NOT_AVAILABLE => CommitVerdict::FindCoordinator,
        Code::REBALANCE_IN_PROGRESS => CommitVerdict::AfterRebalance,
        Code::UNKNOWN_MEMBER_ID | Code::ILLEGAL_GENERATION | Code::STALE_MEMBER_EPOCH => {
            CommitVerdict::NotAMember
        }
        Code::FENCED_INSTANCE_ID => CommitVerdict::Fenced,
        code if code.is_retriable() => CommitVerdict::Retry,
        _ => CommitVerdict::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_moved_is_committed_again() {
        let a = TopicPartition::new("t", 0);
        let b = TopicPartition::new("t", 1);
        let mut ledger = OffsetLedger::default();
        ledger.record(a.clone(), 5);
        let positions = || [(a.clone(), Committed::at(5)), (b.clone(), Committed::at(0))];
        let moved: Vec<_> = ledger.moved(positions()).into_keys().collect();
        assert_eq!(moved, std::slice::from_ref(&b));
        ledger.forget(&a);
        assert_eq!(ledger.moved(positions()).len(), 2);
    }

    #[test]
    fn a_commit_is_repeated_only_where_that_is_safe() {
        use CommitVerdict::{AfterRebalance, Fail, FindCoordinator, NotAMember, Retry};
        for (code, verdict) in [
            (Code::COORDINATOR_LOAD_IN_PROGRESS, Retry),
            (Code::UNKNOWN_TOPIC_OR_PARTITION, Retry),
            (Code::UNSTABLE_OFFSET_COMMIT, Retry),
            (Code::NOT_COORDINATOR, FindCoordinator),
            (Code::REBALANCE_IN_PROGRESS, AfterRebalance),
            (Code::ILLEGAL_GENERATION, NotAMember),
            (Code::UNKNOWN_MEMBER_ID, NotAMember),
            (Code::OFFSET_METADATA_TOO_LARGE, Fail),
            (Code::GROUP_AUTHORIZATION_FAILED, Fail),
        ] {
            assert_eq!(commit_verdict(code), verdict, "{code}");
        }
    }
}
