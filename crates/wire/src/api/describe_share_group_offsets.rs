//! DescribeShareGroupOffsets: where share groups read on (KIP-932, brokers from 4.1).
//!
//! In the words of [`offset_fetch`]: what is called committed is the share partition's start offset,
//! below which every record is done with. Records above it may be done with too.

use super::offset_fetch::{self, GroupAnswer, PartitionAnswer};
use super::{from_millis, non_negative, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
};
use kafka_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, GroupId, TopicName,
};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;

const OURS: RangeInclusive<i16> = 0..=0;

/// Asks the coordinator of some share groups. `require_stable` has no meaning here.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group and
/// each partition has its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(
    connection: &Connection,
    request: &offset_fetch::Request,
) -> Result<offset_fetch::Response> {
    let version = connection.version(ApiKey::DescribeShareGroupOffsets, OURS)?;
    let groups = request.groups.iter().map(|group| {
        let topics = group.topics.as_ref().map(|topics| {
            let topics = topics.iter().map(|(name, partitions)| {
                DescribeShareGroupOffsetsRequestTopic::default()
                    .with_topic_name(TopicName(text(name)))
                    .with_partitions(partitions.clone())
            });
            topics.collect()
        });
        DescribeShareGroupOffsetsRequestGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_topics(topics)
    });
    let body = DescribeShareGroupOffsetsRequest::default().with_groups(groups.collect());
    let timeout = connection.request_timeout();
    let api = ApiKey::DescribeShareGroupOffsets;
    let answer: DescribeShareGroupOffsetsResponse =
        super::call(connection, api, version, &body, timeout).await?;
    Ok(offset_fetch::Response {
        throttle: from_millis(answer.throttle_time_ms),
        groups: answer.groups.iter().map(translate).collect(),
    })
}

fn translate(group: &DescribeShareGroupOffsetsResponseGroup) -> GroupAnswer {
    let topics = group.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(partition);
        (shared(&topic.topic_name), partitions.collect())
    });
    GroupAnswer {
        group: shared(&group.group_id),
        code: Code(group.error_code),
        topics: topics.collect(),
    }
}

fn partition(answer: &DescribeShareGroupOffsetsResponsePartition) -> PartitionAnswer {
    let code = Code(answer.error_code);
    // A partition that no member was given yet has -1 as its start.
    let start = non_negative(answer.start_offset).filter(|_| code == Code::NONE);
    PartitionAnswer {
        partition: answer.partition_index,
        code,
        committed: start,
        leader_epoch: non_negative(answer.leader_epoch),
        metadata: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_offset_is_where_the_group_reads_on() {
        let answer = |start, code| {
            let answer = DescribeShareGroupOffsetsResponsePartition::default();
            partition(&answer.with_start_offset(start).with_error_code(code)).committed
        };
        assert_eq!(answer(7, 0), Some(7));
        assert_eq!(answer(-1, 0), None, "no member was given it yet");
        assert_eq!(answer(0, Code::UNKNOWN_TOPIC_OR_PARTITION.0), None);
    }
}
