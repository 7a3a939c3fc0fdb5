//! ListOffsets: where partitions begin and end, and which offset belongs to a time.

use super::{from_millis, non_negative, shared, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use ottla_proto::{Code, Error, ErrorKind, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 1..=10;
/// From here an isolation level can be given.
const ISOLATION_FROM: i16 = 2;
/// From here the leader epoch can be given.
const LEADER_EPOCH_FROM: i16 = 4;
/// From here the record with the largest timestamp can be asked for.
const MAX_TIMESTAMP_FROM: i16 = 7;
/// From here the request carries its timeout.
const TIMEOUT_FROM: i16 = 10;

/// Which offset to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamp {
    /// The first one of the log.
    Earliest,
    /// The end: the high watermark, or the last stable offset when reading committed.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, in milliseconds since the Unix epoch.
    At(i64),
}

/// Which records count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// All.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions, up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn number(self) -> i8 {
        match self {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        }
    }
}

/// One partition to ask about. A partition may stand only once in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRequest {
    /// Number.
    pub partition: i32,
    /// The epoch we believe the leader has, or a demoted leader answers stale ends.
    pub leader_epoch: Option<i32>,
    /// Which offset.
    pub timestamp: Timestamp,
}

/// Asks a leader about some of its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Which records count.
    pub isolation: Isolation,
    /// The partitions, by topic.
    pub topics: Vec<(Arc<str>, Vec<PartitionRequest>)>,
}

/// What a leader answered for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Number.
    pub partition: i32,
    /// Kafka's code.
    pub code: Code,
    /// The offset; `None` when no record matches, or on an error.
    pub offset: Option<i64>,
    /// The record's time, when one was asked for by time.
    pub timestamp: Option<i64>,
    /// The epoch of the leader that wrote that record.
    pub leader_epoch: Option<i32>,
}

/// What a leader answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// The partitions, by topic.
    pub topics: Vec<(Arc<str>, Vec<PartitionAnswer>)>,
}

/// Asks one leader.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker: also when
/// [`Timestamp::MaxTimestamp`] or [`Isolation::ReadCommitted`] is asked of a broker that does not
/// know it. Each partition has its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::ListOffsets, OURS)?;
    let timeout = connection.request_timeout();
    let body = body(version, request, timeout).map_err(|error| connection.name(error))?;
    let answer: ListOffsetsResponse =
        super::call(connection, ApiKey::ListOffsets, version, &body, timeout).await?;
    let topics = answer.topics.iter().map(|topic| {
        (
            shared(&topic.name),
            topic.partitions.iter().map(translate).collect(),
        )
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        topics: topics.collect(),
    })
}

fn body(version: i16, request: &Request, timeout: Duration) -> Result<ListOffsetsRequest> {
    if request.isolation == Isolation::ReadCommitted && version < ISOLATION_FROM {
        return Err(too_old(version, "an isolation level"));
    }
    let topics = request.topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|partition| one(version, partition));
        Ok(ListOffsetsTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions.collect::<Result<_>>()?))
    });
    let mut body = ListOffsetsRequest::default()
        .with_replica_id(WireBrokerId(-1))
        .with_topics(topics.collect::<Result<_>>()?);
    if version >= ISOLATION_FROM {
        body = body.with_isolation_level(request.isolation.number());
    }
    if version >= TIMEOUT_FROM {
        body = body.with_timeout_ms(to_millis(timeout));
    }
    Ok(body)
}

fn one(version: i16, partition: &PartitionRequest) -> Result<ListOffsetsPartition> {
    let timestamp = match partition.timestamp {
        Timestamp::Latest => -1,
        Timestamp::Earliest => -2,
        Timestamp::MaxTimestamp if version < MAX_TIMESTAMP_FROM => {
            return Err(too_old(version, "the largest timestamp"));
        }
        Timestamp::MaxTimestamp => -3,
        // Negative times are Kafka's sentinels.
        Timestamp::At(millis) => millis.max(0),
    };
    let mut one = ListOffsetsPartition::default()
        .with_partition_index(partition.partition)
        .with_timestamp(timestamp);
    if version >= LEADER_EPOCH_FROM {
        one = one.with_current_leader_epoch(partition.leader_epoch.unwrap_or(-1));
    }
    Ok(one)
}

fn too_old(version: i16, what: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedVersion,
        format!("ListOffsets version {version} cannot ask for {what}"),
    )
}

fn translate(partition: &ListOffsetsPartitionResponse) -> PartitionAnswer {
    let code = Code(partition.error_code);
    PartitionAnswer {
        partition: partition.partition_index,
        code,
        offset: non_negative(partition.offset).filter(|_| code == Code::NONE),
        timestamp: non_negative(partition.timestamp),
        leader_epoch: non_negative(partition.leader_epoch),
    }
}
