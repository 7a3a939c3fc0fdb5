//! CreateTopics.

use super::{
    ItemError, from_millis, non_negative, shared, shared_option, text, to_millis, topic_id_option,
};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, CreateTopicsRequest, CreateTopicsResponse, TopicName,
};
use ottla_proto::topic::TopicId;
use ottla_proto::{BrokerId, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 2..=7;

/// A topic to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: Arc<str>,
    /// How many partitions; `None` takes the cluster's default (brokers from 2.4).
    pub partitions: Option<i32>,
    /// How many copies; `None` takes the cluster's default (brokers from 2.4).
    pub replication: Option<i16>,
    /// The brokers of each partition, the preferred leader first; empty lets the cluster choose.
    pub assignments: Vec<(i32, Vec<BrokerId>)>,
    /// Settings by name; `None` takes the default.
    pub configs: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// Topics to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The topics.
    pub topics: Vec<NewTopic>,
    /// Whether only to check what would happen.
    pub validate_only: bool,
}

/// A topic that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its id, when told (brokers from 2.8).
    pub id: Option<TopicId>,
    /// How many partitions it has, when told.
    pub partitions: Option<i32>,
    /// How many copies it has, when told.
    pub replication: Option<i16>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each topic: what was made, or why not.
    pub topics: Vec<(Arc<str>, Result<Made, ItemError>)>,
}

/// Asks any broker (brokers before 2.8 must be the controller).
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; `Broker` with
/// `NOT_CONTROLLER`, when nothing was done. Each topic has its own code.
///
/// Cancel safety: the topics may or may not be made.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::CreateTopics, OURS)?;
    let timeout = connection.request_timeout();
    let body = CreateTopicsRequest::default()
        .with_topics(request.topics.iter().map(new_topic).collect())
        .with_timeout_ms(to_millis(timeout))
        .with_validate_only(request.validate_only);
    let answer: CreateTopicsResponse =
        super::call(connection, ApiKey::CreateTopics, version, &body, timeout).await?;
    let topics: Vec<_> = answer.topics.iter().map(made).collect();
    ItemError::check_controller(ApiKey::CreateTopics, &topics)?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        topics,
    })
}

fn new_topic(topic: &NewTopic) -> CreatableTopic {
    let assignments = topic.assignments.iter().map(|(partition, brokers)| {
        let brokers = brokers.iter().map(|broker| WireBrokerId(broker.0));
        CreatableReplicaAssignment::default()
            .with_partition_index(*partition)
            .with_broker_ids(brokers.collect())
    });
    let configs = topic.configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(value.as_deref().map(text))
    });
    CreatableTopic::default()
        .with_name(TopicName(text(&topic.name)))
        .with_num_partitions(topic.partitions.unwrap_or(-1))
        .with_replication_factor(topic.replication.unwrap_or(-1))
        .with_assignments(assignments.collect())
        .with_configs(configs.collect())
}

fn made(topic: &CreatableTopicResult) -> (Arc<str>, Result<Made, ItemError>) {
    let message = shared_option(topic.error_message.as_ref());
    let made = ItemError::check(topic.error_code, message).map(|()| Made {
        id: topic_id_option(*topic.topic_id.as_bytes()),
        partitions: non_negative(topic.num_partitions),
        replication: non_negative(topic.replication_factor),
    });
    (shared(&topic.name), made)
}
