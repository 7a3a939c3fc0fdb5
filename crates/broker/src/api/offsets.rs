//! Committed offsets: OffsetCommit and OffsetFetch.

use super::Context;
use super::groups::{check_group, text};
use crate::groups::Committed;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;

/// Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4096;

pub(super) fn commit(ctx: &Context<'_>, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let group = request.group_id.as_str();
    let allowed = check_group(ctx, group).and_then(|()| {
        ctx.shared().groups.check_commit(
            group,
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id_or_member_epoch,
        )
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let done = allowed.and_then(|()| commit_one(ctx, group, &topic.name, partition));
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(done.err().unwrap_or(Code::NONE).0)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn commit_one(
    ctx: &Context<'_>,
    group: &str,
    topic: &str,
    partition: &OffsetCommitRequestPartition,
) -> Result<(), Code> {
    let index = partition.partition_index;
    let metadata = partition.committed_metadata.as_deref();
    let (offset, epoch) = (partition.committed_offset, partition.committed_leader_epoch);
    let committed = offset_to_commit(ctx, topic, index, (offset, epoch), metadata)?;
    ctx.shared().groups.commit(group, topic, index, committed);
    Ok(())
}

/// An offset with its leader epoch as it is kept. Any offset is taken, also one beyond the end, as
/// in Kafka.
///
/// # Errors
/// `UNKNOWN_TOPIC_OR_PARTITION`, `OFFSET_METADATA_TOO_LARGE`.
pub(super) fn offset_to_commit(
    ctx: &Context<'_>,
    topic: &str,
    partition: i32,
    (offset, leader_epoch): (i64, i32),
    metadata: Option<&str>,
) -> Result<Committed, Code> {
    let topic = ctx.shared().topic(topic);
    if topic.and_then(|t| t.partition(partition)).is_none() {
        return Err(Code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let metadata = metadata.unwrap_or_default();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(Code::OFFSET_METADATA_TOO_LARGE);
    }
    Ok(Committed {
        offset,
        leader_epoch,
        metadata: metadata.to_owned(),
    })
}

/// Topics with the partitions asked for; `None` is everything that was committed.
type Asked = Option<Vec<(String, Vec<i32>)>>;

pub(super) fn fetch(ctx: &Context<'_>, request: &OffsetFetchRequest) -> OffsetFetchResponse {
    if ctx.version >= 8 {
        let groups = request.groups.iter();
        let groups = groups.map(|group| fetch_group(ctx, group, request.require_stable));
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let asked = request.topics.as_ref().map(|topics| {
        let topics = topics.iter();
        topics
            .map(|t| (t.name.to_string(), t.partition_indexes.clone()))
            .collect()
    });
    let (code, found) = look_up(ctx, &request.group_id, asked, request.require_stable);
    // Version 1 has no place for the group's own error.
    let of_group = if ctx.version < 2 { code } else { Code::NONE };
    let topics = found.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let code = committed.as_ref().err().copied().unwrap_or(of_group);
            let committed = committed.unwrap_or_else(|_| none());
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(if ctx.version >= 5 {
                    committed.leader_epoch
                } else {
                    -1
                })
                .with_metadata(Some(StrBytes::from_string(committed.metadata)))
                .with_error_code(code.0)
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic)))
            .with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    response.with_error_code(if ctx.version >= 2 { code.0 } else { 0 })
}

fn fetch_group(
    ctx: &Context<'_>,
    group: &OffsetFetchRequestGroup,
    stable: bool,
) -> OffsetFetchResponseGroup {
    let asked = group.topics.as_ref().map(|topics| {
        let topics = topics.iter();
        topics
            .map(|t| (t.name.to_string(), t.partition_indexes.clone()))
            .collect()
    });
    let (code, found) = look_up(ctx, &group.group_id, asked, stable);
    let topics = found.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let code = committed.as_ref().err().copied().unwrap_or(Code::NONE);
            let committed = committed.unwrap_or_else(|_| none());
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(committed.metadata)))
                .with_error_code(code.0)
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(&topic)))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(GroupId(text(&group.group_id)))
        .with_topics(if code == Code::NONE {
            topics.collect()
        } else {
            Vec::new()
        })
        .with_error_code(code.0)
}

type Offsets = Vec<(String, Vec<(i32, Result<Committed, Code>)>)>;

/// What is told where nothing was committed, which is no error.
fn none() -> Committed {
    Committed {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

/// The committed offsets. If only `stable` ones are wanted, one that an open transaction may yet
/// change is `UNSTABLE_OFFSET_COMMIT` (KIP-447).
fn look_up(ctx: &Context<'_>, group: &str, asked: Asked, stable: bool) -> (Code, Offsets) {
    let groups = &ctx.shared().groups;
    let code = check_group(ctx, group).err().unwrap_or(Code::NONE);
    let asked = match (asked, code) {
        (Some(asked), _) => asked,
        (None, Code::NONE) => groups.committed_partitions(group),
        (None, _) => Vec::new(),
    };
    let found = asked.into_iter().map(|(topic, partitions)| {
        let offsets = partitions.into_iter().map(|index| {
            if stable && code == Code::NONE && groups.holds(group, &topic, index) {
                return (index, Err(Code::UNSTABLE_OFFSET_COMMIT));
            }
            let committed = groups.committed(group, &topic, index);
            let shown = committed.filter(|_| code == Code::NONE);
            (index, Ok(shown.unwrap_or_else(none)))
        });
        let offsets = offsets.collect();
        (topic, offsets)
    });
    (code, found.collect())
}
