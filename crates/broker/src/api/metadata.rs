//! Metadata: nodes, topics, leaders; and the automatic creation of topics.

use super::Context;
use crate::partition::Partition;
use crate::state::{NewTopic, Node, Shared, Topic, check_name};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;
use uuid::Uuid;

pub(super) fn handle(ctx: &Context<'_>, request: &MetadataRequest) -> MetadataResponse {
    let shared = ctx.shared();
    // Before version 4 creation is always meant; an empty list meant "all" in version 0.
    let create = request.allow_auto_topic_creation || ctx.version < 4;
    let wanted = request
        .topics
        .as_ref()
        .filter(|topics| ctx.version > 0 || !topics.is_empty());
    let topics = match wanted {
        Some(topics) => topics
            .iter()
            .map(|t| wanted_topic(ctx, t, create))
            .collect(),
        None => {
            let known = shared.topics();
            known.iter().map(|t| known_topic(ctx, t)).collect()
        }
    };
    let brokers = shared.up_nodes().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node.id))
            .with_host(StrBytes::from_string(node.host.clone()))
            .with_port(i32::from(node.port))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(
            shared.settings.cluster_id.clone(),
        )))
        .with_controller_id(controller(shared))
        .with_topics(topics)
        .with_throttle_time_ms(if ctx.version >= 3 {
            ctx.throttle_millis()
        } else {
            0
        })
}

/// Any node takes administrative requests; the first one up is named.
pub(super) fn controller(shared: &Shared) -> BrokerId {
    BrokerId(shared.up_nodes().next().map_or(-1, |node: &Node| node.id))
}

fn wanted_topic(
    ctx: &Context<'_>,
    wanted: &MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    let shared = ctx.shared();
    let refuse = |code: Code| {
        let name = match (&wanted.name, ctx.version) {
            // Only the versions that can ask by id can leave the name out of the answer.
            (None, ..12) => Some(TopicName::default()),
            (name, _) => name.clone(),
        };
        MetadataResponseTopic::default()
            .with_error_code(code.0)
            .with_name(name)
            .with_topic_id(if ctx.version >= 10 {
                wanted.topic_id
            } else {
                Uuid::nil()
            })
    };
    if let Some(code) = ctx.forced() {
        return refuse(code);
    }
    let Some(name) = &wanted.name else {
        return match shared.topic_by_id(wanted.topic_id.into_bytes()) {
            Some(topic) => known_topic(ctx, &topic),
            None => refuse(Code::UNKNOWN_TOPIC_ID),
        };
    };
    if let Some(topic) = shared.topic(name) {
        return known_topic(ctx, &topic);
    }
    if let Err((code, _)) = check_name(name) {
        return refuse(code);
    }
    if create && shared.settings.auto_create_topics {
        let new = NewTopic {
            name: name.to_string(),
            ..NewTopic::default()
        };
        if let Err((code, reason)) = shared.create_topic(&new, false) {
            tracing::debug!(%code, reason, "a topic was not created automatically");
        }
    }
    // Also for a topic that was made just now: as in Kafka, the next request finds it.
    refuse(Code::UNKNOWN_TOPIC_OR_PARTITION)
}

fn known_topic(ctx: &Context<'_>, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions();
    let partitions = partitions.iter().map(|p| partition(ctx, topic, p));
    let code = ctx.forced().unwrap_or(Code::NONE);
    let told = ctx.version >= 10 && ctx.shared().settings.topic_ids;
    let id = if told { topic.id } else { [0; 16] };
    MetadataResponseTopic::default()
        .with_error_code(code.0)
        .with_name(Some(TopicName(StrBytes::from_string(
            topic.name.to_string(),
        ))))
        .with_topic_id(Uuid::from_bytes(id))
        .with_partitions(partitions.collect())
}

fn partition(ctx: &Context<'_>, topic: &Topic, partition: &Partition) -> MetadataResponsePartition {
    let state = partition.lock();
    let frozen = ctx.shared().frozen_leaders.lock();
    let shown = frozen
        .as_ref()
        .and_then(|f| f.get(&(topic.id, partition.index)));
    let (leader, leader_epoch) = shown.copied().unwrap_or((state.leader, state.leader_epoch));
    drop(frozen);
    let ids = |nodes: &[i32]| nodes.iter().map(|n| BrokerId(*n)).collect::<Vec<_>>();
    let offline: Vec<i32> = state
        .replicas
        .iter()
        .copied()
        .filter(|n| !ctx.shared().is_up(*n))
        .collect();
    let code = match leader {
        Some(_) => Code::NONE,
        None => Code::LEADER_NOT_AVAILABLE,
    };
    MetadataResponsePartition::default()
        .with_error_code(code.0)
        .with_partition_index(partition.index)
        .with_leader_id(BrokerId(leader.unwrap_or(-1)))
        .with_leader_epoch(if ctx.version >= 7 { leader_epoch } else { -1 })
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.in_sync))
        .with_offline_replicas(if ctx.version >= 5 {
            ids(&offline)
        } else {
            Vec::new()
        })
}
