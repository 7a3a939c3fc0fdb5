//! OffsetCommit: where a group goes on reading.

use super::{from_millis, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 2..=9;
const LEADER_EPOCH_FROM: i16 = 6;
const INSTANCE_FROM: i16 = 7;

/// Who commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The group's id.
    pub group: Arc<str>,
    /// The group's generation (or the member's epoch); `None` for a commit from outside.
    pub generation: Option<i32>,
    /// The member's id; empty for a commit from outside.
    pub member_id: Arc<str>,
    /// The static member's name (KIP-345).
    pub instance_id: Option<Arc<str>>,
}

/// One partition's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCommit {
    /// Number.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The epoch of the leader that wrote the last record read.
    pub leader_epoch: Option<i32>,
    /// Anything the committer wants to find again.
    pub metadata: Option<Arc<str>>,
}

/// A group's commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Who commits.
    pub member: Member,
    /// The partitions, by topic.
    pub topics: Vec<(Arc<str>, Vec<PartitionCommit>)>,
}

/// Partitions, each with its code.
pub type PartitionCodes = Vec<(i32, Code)>;

/// A coordinator's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each partition with its code, by topic.
    pub topics: Vec<(Arc<str>, PartitionCodes)>,
}

/// Asks the group's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each partition
/// has its own code.
///
/// Cancel safety: the commit may or may not be made.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::OffsetCommit, OURS)?;
    let topics = request.topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|commit| one(version, commit));
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions.collect())
    });
    let member = &request.member;
    let mut body = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&member.group)))
        .with_generation_id_or_member_epoch(member.generation.unwrap_or(-1))
        .with_member_id(text(&member.member_id))
        .with_topics(topics.collect());
    if version >= INSTANCE_FROM {
        body = body.with_group_instance_id(member.instance_id.as_deref().map(text));
    }
    let timeout = connection.request_timeout();
    let answer: OffsetCommitResponse =
        super::call(connection, ApiKey::OffsetCommit, version, &body, timeout).await?;
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let codes = partitions.map(|one| (one.partition_index, Code(one.error_code)));
        (shared(&topic.name), codes.collect())
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        topics: topics.collect(),
    })
}

fn one(version: i16, commit: &PartitionCommit) -> OffsetCommitRequestPartition {
    let one = OffsetCommitRequestPartition::default()
        .with_partition_index(commit.partition)
        .with_committed_offset(commit.offset)
        // Null is refused by some brokers; Java sends the empty text.
        .with_committed_metadata(Some(text(commit.metadata.as_deref().unwrap_or(""))));
    if version >= LEADER_EPOCH_FROM {
        one.with_committed_leader_epoch(commit.leader_epoch.unwrap_or(-1))
    } else {
        one
    }
}
