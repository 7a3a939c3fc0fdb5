//! ListOffsets: the log's ends, and offsets by time.

use super::Context;
use crate::partition::PartitionState;
use crate::records;
use crate::state::Topic;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use ottla_proto::Code;
use std::collections::BTreeMap;
use std::sync::Arc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The isolation level of a consumer that reads only what is committed.
pub(super) const READ_COMMITTED: i8 = 1;

/// An offset, the time of the record there (-1 where none is meant), the epoch that wrote it.
type Found = (i64, i64, Option<i32>);
const NOTHING: Found = (-1, -1, None);

pub(super) fn handle(ctx: &Context<'_>, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let mut asked: BTreeMap<(String, i32), usize> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.to_string(), partition.partition_index);
            *asked.entry(key).or_default() += 1;
        }
    }
    let committed = request.isolation_level == READ_COMMITTED;
    let topics = request.topics.iter().map(|topic| {
        let known = ctx.shared().topic(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let key = (topic.name.to_string(), partition.partition_index);
            // As in Kafka, a partition may stand only once.
            let repeated = asked.get(&key).is_some_and(|count| *count > 1);
            one(ctx, known.as_ref(), partition, committed, repeated)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn one(
    ctx: &Context<'_>,
    topic: Option<&Arc<Topic>>,
    asked: &ListOffsetsPartition,
    committed: bool,
    repeated: bool,
) -> ListOffsetsPartitionResponse {
    let found = match ctx.forced() {
        Some(code) => Err(code),
        None if repeated => Err(Code::INVALID_REQUEST),
        None => look_up(ctx, topic, asked, committed),
    };
    let code = found.err().unwrap_or(Code::NONE);
    let (offset, timestamp, epoch) = found.unwrap_or(NOTHING);
    let epoch = epoch.filter(|_| ctx.version >= 4).unwrap_or(-1);
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(code.0)
        .with_offset(offset)
        .with_timestamp(timestamp)
        .with_leader_epoch(epoch)
}

fn look_up(
    ctx: &Context<'_>,
    topic: Option<&Arc<Topic>>,
    asked: &ListOffsetsPartition,
    committed: bool,
) -> Result<Found, Code> {
    let partition = topic.and_then(|topic| topic.partition(asked.partition_index));
    let partition = partition.ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let state = partition.lock();
    state.led_by(ctx.node())?;
    state.check_epoch(asked.current_leader_epoch)?;
    let end = if committed {
        state.last_stable()
    } else {
        state.high_watermark
    };
    let start = state.log.start();
    let by_time = match asked.timestamp {
        LATEST => return Ok((end, -1, Some(state.leader_epoch))),
        EARLIEST | EARLIEST_LOCAL => return Ok((start, -1, state.log.epoch_at(start))),
        LATEST_TIERED => return Ok(NOTHING),
        MAX_TIMESTAMP => state.log.batch_of_latest_time(end).map(|b| b.max_timestamp),
        time if time >= 0 => Some(time),
        _ => return Err(Code::UNSUPPORTED_VERSION),
    };
    Ok(by_time.map_or(NOTHING, |time| at_time(&state, time, end)))
}

fn at_time(state: &PartitionState, time: i64, end: i64) -> Found {
    let Some(batch) = state.log.batch_at_time(time, end) else {
        return NOTHING;
    };
    let start = state.log.start();
    match records::first_at_time(&batch.bytes, time, start) {
        Some((offset, timestamp)) => (offset, timestamp, state.log.epoch_at(offset)),
        None => NOTHING,
    }
}
