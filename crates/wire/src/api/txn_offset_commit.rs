//! TxnOffsetCommit: a group's offsets, which count once the transaction is committed.

use super::{from_millis, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    GroupId, ProducerId, TopicName, TransactionalId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use ottla_proto::group::{Committed, GroupMetadata};
use ottla_proto::producer::Identity;
use ottla_proto::producer::transaction::Protocol;
use ottla_proto::{Code, Result, TopicPartition};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const LEADER_EPOCH_FROM: i16 = 2;
/// From here the request says which member commits (KIP-447).
const MEMBER_FROM: i16 = 3;

/// Offsets for the open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer's id and epoch.
    pub identity: Identity,
    /// The transaction's protocol; it bounds the version.
    pub protocol: Protocol,
    /// Who commits.
    pub group: GroupMetadata,
    /// The next record to read, by partition.
    pub offsets: BTreeMap<TopicPartition, Committed>,
}

/// The coordinator's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each partition with its code.
    pub partitions: Vec<(TopicPartition, Code)>,
}

/// Version 5 adds the group to the transaction by itself, which brokers do only in the newer
/// protocol; a member can be named only from version 3 on.
fn ours(request: &Request) -> RangeInclusive<i16> {
    let newest = match request.protocol {
        Protocol::One => 4,
        Protocol::Two => 5,
    };
    let oldest = match (request.protocol, &request.group.generation) {
        (Protocol::Two, _) => newest,
        (Protocol::One, Some(_)) => MEMBER_FROM,
        (Protocol::One, None) => 0,
    };
    oldest..=newest
}

/// Asks the group's coordinator (not the transaction's).
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each partition
/// has its own code.
///
/// Cancel safety: the offsets may or may not be part of the transaction.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::TxnOffsetCommit, ours(request))?;
    let mut topics: BTreeMap<&Arc<str>, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in &request.offsets {
        let one = one(version, partition.partition, committed);
        topics.entry(&partition.topic).or_default().push(one);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TxnOffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    let group = &request.group;
    let mut body = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text(&request.transactional_id)))
        .with_group_id(GroupId(text(&group.group)))
        .with_producer_id(ProducerId(request.identity.producer_id))
        .with_producer_epoch(request.identity.epoch)
        .with_topics(topics.collect());
    if version >= MEMBER_FROM {
        body = body
            .with_generation_id(group.generation.unwrap_or(-1))
            .with_member_id(text(&group.member_id))
            .with_group_instance_id(group.instance_id.as_deref().map(text));
    }
    let timeout = connection.request_timeout();
    let answer: TxnOffsetCommitResponse =
        super::call(connection, ApiKey::TxnOffsetCommit, version, &body, timeout).await?;
    let mut partitions = Vec::new();
    for topic in &answer.topics {
        let name = shared(&topic.name);
        for one in &topic.partitions {
            let partition = TopicPartition::new(Arc::clone(&name), one.partition_index);
            partitions.push((partition, Code(one.error_code)));
        }
    }
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        partitions,
    })
}

fn one(version: i16, partition: i32, committed: &Committed) -> TxnOffsetCommitRequestPartition {
    let one = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(committed.offset)
        // Null is refused by some brokers; Java sends the empty text.
        .with_committed_metadata(Some(text(committed.metadata.as_deref().unwrap_or(""))));
    if version >= LEADER_EPOCH_FROM {
        one.with_committed_leader_epoch(committed.leader_epoch.unwrap_or(-1))
    } else {
        one
    }
}
