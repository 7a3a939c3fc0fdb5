//! OffsetFetch: what groups have committed.

use super::{from_millis, non_negative, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// From the first version that can ask for every partition and has a code of its own.
const OURS: RangeInclusive<i16> = 2..=9;
/// From here only stable offsets can be asked for.
const STABLE_FROM: i16 = 7;
/// From here a request may ask for many groups.
const MANY_GROUPS_FROM: i16 = 8;

/// One group to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRequest {
    /// The group's id.
    pub group: Arc<str>,
    /// The partitions, by topic; `None` asks for all that have a commit.
    pub topics: Option<Vec<(Arc<str>, Vec<i32>)>>,
}

/// Asks a coordinator about some of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The groups.
    pub groups: Vec<GroupRequest>,
    /// Whether a partition with an open transaction's commit must be answered with
    /// UNSTABLE_OFFSET_COMMIT (brokers before 2.5 do not know this).
    pub require_stable: bool,
}

/// What a group committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Number.
    pub partition: i32,
    /// Kafka's code.
    pub code: Code,
    /// The next offset to read; `None` without a commit, or on an error.
    pub committed: Option<i64>,
    /// The epoch of the leader that wrote the last record read.
    pub leader_epoch: Option<i32>,
    /// What the committer wrote beside the offset; `None` when empty.
    pub metadata: Option<Arc<str>>,
}

/// What a coordinator answered for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAnswer {
    /// The group's id.
    pub group: Arc<str>,
    /// Kafka's code for the group as a whole.
    pub code: Code,
    /// The partitions, by topic.
    pub topics: Vec<(Arc<str>, Vec<PartitionAnswer>)>,
}

/// What a coordinator answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// The groups, in the broker's order.
    pub groups: Vec<GroupAnswer>,
}

/// Asks one coordinator; one request a group where the broker takes no more (before 3.0), pipelined.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group and
/// each partition has its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::OffsetFetch, OURS)?;
    if version >= MANY_GROUPS_FROM {
        return many(connection, version, request).await;
    }
    let asked = request.groups.iter();
    let singles = asked.map(|group| single(connection, version, group, request.require_stable));
    let answers = futures_util::future::try_join_all(singles).await?;
    let throttle = answers.iter().map(|(throttle, _)| *throttle).max();
    Ok(Response {
        throttle: throttle.unwrap_or_default(),
        groups: answers.into_iter().map(|(_, group)| group).collect(),
    })
}

async fn many(connection: &Connection, version: i16, request: &Request) -> Result<Response> {
    let groups = request.groups.iter().map(|group| {
        let topics = group.topics.as_ref().map(|topics| {
            let topics = topics.iter().map(|(name, partitions)| {
                OffsetFetchRequestTopics::default()
                    .with_name(TopicName(text(name)))
                    .with_partition_indexes(partitions.clone())
            });
            topics.collect()
        });
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_topics(topics)
    });
    let body = OffsetFetchRequest::default()
        .with_groups(groups.collect())
        .with_require_stable(request.require_stable);
    let timeout = connection.request_timeout();
    let answer: OffsetFetchResponse =
        super::call(connection, ApiKey::OffsetFetch, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        groups: answer.groups.iter().map(translate_group).collect(),
    })
}

async fn single(
    connection: &Connection,
    version: i16,
    group: &GroupRequest,
    require_stable: bool,
) -> Result<(Duration, GroupAnswer)> {
    let topics = group.topics.as_ref().map(|topics| {
        let topics = topics.iter().map(|(name, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(text(name)))
                .with_partition_indexes(partitions.clone())
        });
        topics.collect()
    });
    let body = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(&group.group)))
        .with_topics(topics)
        .with_require_stable(require_stable && version >= STABLE_FROM);
    let timeout = connection.request_timeout();
    let answer: OffsetFetchResponse =
        super::call(connection, ApiKey::OffsetFetch, version, &body, timeout).await?;
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|one| {
            let place = (one.partition_index, one.error_code);
            let metadata = one.metadata.as_deref();
            partition(
                place,
                one.committed_offset,
                one.committed_leader_epoch,
                metadata,
            )
        });
        (shared(&topic.name), partitions.collect())
    });
    let answered = GroupAnswer {
        group: Arc::clone(&group.group),
        code: Code(answer.error_code),
        topics: topics.collect(),
    };
    Ok((from_millis(answer.throttle_time_ms), answered))
}

fn translate_group(group: &OffsetFetchResponseGroup) -> GroupAnswer {
    let topics = group.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|one| {
            let place = (one.partition_index, one.error_code);
            let metadata = one.metadata.as_deref();
            partition(
                place,
                one.committed_offset,
                one.committed_leader_epoch,
                metadata,
            )
        });
        (shared(&topic.name), partitions.collect())
    });
    GroupAnswer {
        group: shared(&group.group_id),
        code: Code(group.error_code),
        topics: topics.collect(),
    }
}

fn partition(
    (number, code): (i32, i16),
    offset: i64,
    epoch: i32,
    metadata: Option<&str>,
) -> PartitionAnswer {
    let code = Code(code);
    PartitionAnswer {
        partition: number,
        code,
        committed: non_negative(offset).filter(|_| code == Code::NONE),
        leader_epoch: non_negative(epoch),
        metadata: metadata.filter(|text| !text.is_empty()).map(shared),
    }
}
