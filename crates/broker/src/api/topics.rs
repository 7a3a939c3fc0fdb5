//! Making and removing topics and records: CreateTopics, DeleteTopics, CreatePartitions,
//! DeleteRecords; and OffsetForLeaderEpoch.

use super::Context;
use crate::state::{NewTopic, Refused, Topic};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn forced(ctx: &Context<'_>) -> Result<(), Refused> {
    let refused = |code| Err((code, "a fault was ordered".to_owned()));
    ctx.forced().map_or(Ok(()), refused)
}

pub(super) fn create(ctx: &Context<'_>, request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.to_string()).or_default() += 1;
    }
    let topics = request.topics.iter().map(|topic| {
        let twice = named
            .get(topic.name.as_str())
            .is_some_and(|count| *count > 1);
        let made = forced(ctx)
            .and_then(|()| new_topic(topic, twice))
            .and_then(|new| ctx.shared().create_topic(&new, request.validate_only));
        created(ctx, topic.name.clone(), made)
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn new_topic(topic: &CreatableTopic, twice: bool) -> Result<NewTopic, Refused> {
    if twice {
        let reason = "the request names the topic more than once".to_owned();
        return Err((Code::INVALID_REQUEST, reason));
    }
    let mut assignments = BTreeMap::new();
    for assignment in &topic.assignments {
        let nodes: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        assignments.insert(assignment.partition_index, nodes);
    }
    let counted = (0..).zip(assignments.keys()).all(|(n, index)| n == *index);
    if !counted || assignments.len() != topic.assignments.len() {
        let reason = "partitions must be assigned from 0 without gaps".to_owned();
        return Err((Code::INVALID_REPLICA_ASSIGNMENT, reason));
    }
    let config = topic.configs.iter();
    let config = config.filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    Ok(NewTopic {
        name: topic.name.to_string(),
        partitions: Some(topic.num_partitions).filter(|n| *n != -1),
        replication: Some(topic.replication_factor).filter(|n| *n != -1),
        assignments: assignments.into_values().collect(),
        config: config.collect(),
    })
}

fn created(
    ctx: &Context<'_>,
    name: TopicName,
    made: Result<Arc<Topic>, Refused>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name);
    let topic = match made {
        Ok(topic) => topic,
        Err((code, reason)) => {
            return result
                .with_error_code(code.0)
                .with_error_message(Some(StrBytes::from_string(reason)));
        }
    };
    let result = match ctx.version {
        7.. => result.with_topic_id(Uuid::from_bytes(topic.id)),
        _ => result,
    };
    if ctx.version < 5 {
        return result;
    }
    let config = topic.config.read().clone();
    let configs = config.set.iter().map(|(name, value)| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
            .with_config_source(super::configs::SOURCE_TOPIC)
    });
    let replication = topic.partition(0).map_or(0, |p| p.lock().replicas.len());
    result
        .with_num_partitions(i32::try_from(topic.partition_count()).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(replication).unwrap_or(i16::MAX))
        .with_configs(Some(configs.collect()))
}

pub(super) fn delete(ctx: &Context<'_>, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    let names = request.topic_names.iter();
    let by_name = names.map(|name| (Some(name.clone()), Uuid::nil()));
    let topics = request.topics.iter();
    let either = topics.map(|topic| (topic.name.clone(), topic.topic_id));
    let responses = by_name.chain(either).map(|(name, id)| {
        let deleted = forced(ctx).and_then(|()| {
            let found = match &name {
                Some(name) => Some(name.to_string()),
                None => {
                    let topic = ctx.shared().topic_by_id(id.into_bytes());
                    topic.map(|topic| topic.name.to_string())
                }
            };
            let missing = || {
                (
                    Code::UNKNOWN_TOPIC_ID,
                    "This topic id is unknown.".to_owned(),
                )
            };
            ctx.shared().delete_topic(&found.ok_or_else(missing)?)
        });
        let id = deleted
            .as_ref()
            .map_or(id, |topic| Uuid::from_bytes(topic.id));
        let name = match &deleted {
            Ok(topic) => Some(TopicName(StrBytes::from_string(topic.name.to_string()))),
            Err(_) => name,
        };
        let (code, reason) = deleted
            .err()
            .map_or((Code::NONE, None), |(c, r)| (c, Some(r)));
        DeletableTopicResult::default()
            .with_name(name)
            .with_topic_id(if ctx.version >= 6 { id } else { Uuid::nil() })
            .with_error_code(code.0)
            .with_error_message(
                reason
                    .filter(|_| ctx.version >= 5)
                    .map(StrBytes::from_string),
            )
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

pub(super) fn create_partitions(
    ctx: &Context<'_>,
    request: &CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|topic| {
        let done = forced(ctx).and_then(|()| {
            let shared = ctx.shared();
            shared.add_partitions(&topic.name, topic.count, request.validate_only)
        });
        let (code, reason) = done.err().map_or((Code::NONE, None), |(c, r)| (c, Some(r)));
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.0)
            .with_error_message(reason.map(StrBytes::from_string))
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

pub(super) fn delete_records(
    ctx: &Context<'_>,
    request: &DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let done = delete_before(ctx, &topic.name, wanted.partition_index, wanted.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_low_watermark(done.unwrap_or(-1))
                .with_error_code(done.err().unwrap_or(Code::NONE).0)
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_before(ctx: &Context<'_>, topic: &str, index: i32, offset: i64) -> Result<i64, Code> {
    if let Some(code) = ctx.forced() {
        return Err(code);
    }
    let partition = ctx.shared().topic(topic).and_then(|t| t.partition(index));
    let partition = partition.ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let mut state = partition.lock();
    state.led_by(ctx.node())?;
    // -1 is "all that consumers can see".
    let offset = if offset == -1 {
        state.high_watermark
    } else {
        offset
    };
    if offset < 0 || offset > state.high_watermark {
        return Err(Code::OFFSET_OUT_OF_RANGE);
    }
    state.log.delete_before(offset);
    Ok(state.log.start())
}

pub(super) fn offset_for_leader_epoch(
    ctx: &Context<'_>,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let end = end_of_epoch(ctx, &topic.topic, wanted);
            let (epoch, end_offset) = end.unwrap_or((-1, -1));
            EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_error_code(end.err().unwrap_or(Code::NONE).0)
                .with_leader_epoch(epoch)
                .with_end_offset(end_offset)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of_epoch(
    ctx: &Context<'_>,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), Code> {
    if let Some(code) = ctx.forced() {
        return Err(code);
    }
    let partition = ctx
        .shared()
        .topic(topic)
        .and_then(|t| t.partition(wanted.partition));
    let partition = partition.ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    let state = partition.lock();
    state.led_by(ctx.node())?;
    state.check_epoch(wanted.current_leader_epoch)?;
    // The current epoch ends at the end of the log, written or not.
    if wanted.leader_epoch == state.leader_epoch {
        return Ok((wanted.leader_epoch, state.log.end()));
    }
    Ok(state
        .log
        .end_of_epoch(wanted.leader_epoch)
        .unwrap_or((-1, -1)))
}
