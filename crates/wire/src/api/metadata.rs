//! Metadata: brokers, topics, partitions and who leads them.

use super::{
    broker_option, from_millis, non_negative, shared, shared_option, text, topic_id_option,
};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use ottla_proto::cluster::{Broker, Partition};
use ottla_proto::topic::TopicId;
use ottla_proto::{BrokerId, Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// From the first version that can forbid making topics.
const OURS: RangeInclusive<i16> = 4..=13;

/// What to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Every topic of the cluster.
    All,
    /// These; an empty list asks about the brokers alone.
    Named(Vec<Arc<str>>),
}

/// A metadata request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What to ask about.
    pub topics: Topics,
    /// Whether asking for an unknown topic may make it.
    pub allow_auto_create: bool,
}

/// What one broker knows of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Live brokers.
    pub brokers: Vec<Broker>,
    /// The cluster's id.
    pub cluster_id: Option<Arc<str>>,
    /// The controller, or a broker that stands for it.
    pub controller: Option<BrokerId>,
    /// The topics asked about.
    pub topics: Vec<TopicAnswer>,
    /// An error of the whole answer (from version 13: REBOOTSTRAP_REQUIRED).
    pub code: Option<Code>,
}

/// What one broker knows of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicAnswer {
    /// Name.
    pub name: Arc<str>,
    /// Id; `None` from brokers older than 2.8.
    pub id: Option<TopicId>,
    /// What is wrong with the topic as a whole.
    pub code: Option<Code>,
    /// Whether Kafka itself owns the topic.
    pub internal: bool,
    /// By number. A number that the broker left out has no leader here.
    pub partitions: Vec<Partition>,
}

/// Asks one broker.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::Metadata, OURS)?;
    let topics = match &request.topics {
        Topics::All => None,
        Topics::Named(names) => Some(names.iter().map(|name| named(name)).collect()),
    };
    let body = MetadataRequest::default()
        .with_topics(topics)
        .with_allow_auto_topic_creation(request.allow_auto_create);
    let timeout = connection.request_timeout();
    let answer: MetadataResponse =
        super::call(connection, ApiKey::Metadata, version, &body, timeout).await?;
    Ok(translate(&answer))
}

/// Reads an answer; it begins after the correlation id.
pub(crate) fn read(version: i16, answer: Bytes) -> Result<Response> {
    super::decode(ApiKey::Metadata, version, answer).map(|answer| translate(&answer))
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(TopicName(text(name))))
}

fn translate(answer: &MetadataResponse) -> Response {
    Response {
        throttle: from_millis(answer.throttle_time_ms),
        brokers: answer.brokers.iter().filter_map(broker).collect(),
        cluster_id: shared_option(answer.cluster_id.as_ref()),
        controller: broker_option(answer.controller_id.0),
        topics: answer.topics.iter().filter_map(topic).collect(),
        code: Code(answer.error_code).ok().err(),
    }
}

/// A broker without a usable address is none.
fn broker(broker: &MetadataResponseBroker) -> Option<Broker> {
    Some(Broker {
        id: broker_option(broker.node_id.0)?,
        host: shared(&broker.host),
        port: u16::try_from(broker.port).ok()?,
        rack: shared_option(broker.rack.as_ref()),
    })
}

fn topic(topic: &MetadataResponseTopic) -> Option<TopicAnswer> {
    // The list is as long as what came, whatever numbers the broker gives.
    let mut partitions = vec![Partition::default(); topic.partitions.len()];
    for partition in &topic.partitions {
        let index = usize::try_from(partition.partition_index).ok();
        if let Some(slot) = index.and_then(|index| partitions.get_mut(index)) {
            *slot = translate_partition(partition);
        }
    }
    Some(TopicAnswer {
        name: shared(topic.name.as_ref()?),
        id: topic_id_option(*topic.topic_id.as_bytes()),
        code: Code(topic.error_code).ok().err(),
        internal: topic.is_internal,
        partitions,
    })
}

fn translate_partition(partition: &MetadataResponsePartition) -> Partition {
    let brokers =
        |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| BrokerId(id.0)).collect();
    Partition {
        leader: broker_option(partition.leader_id.0),
        leader_epoch: non_negative(partition.leader_epoch),
        replicas: brokers(&partition.replica_nodes),
        in_sync: brokers(&partition.isr_nodes),
        offline: brokers(&partition.offline_replicas),
        error: Code(partition.error_code).ok().err(),
        hinted: false,
    }
}
