//! CreatePartitions: more partitions for topics that exist.

use super::{ItemError, from_millis, shared, shared_option, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use ottla_proto::Result;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=3;

/// Topics to enlarge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Each topic with the number of partitions it shall have.
    pub topics: Vec<(Arc<str>, i32)>,
    /// Whether only to check what would happen.
    pub validate_only: bool,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each topic: enlarged, or why not.
    pub topics: Vec<(Arc<str>, Result<(), ItemError>)>,
}

/// Asks any broker (brokers before 2.8 must be the controller).
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; `Broker` with
/// `NOT_CONTROLLER`, when nothing was done. Each topic has its own code.
///
/// Cancel safety: the partitions may or may not be made.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::CreatePartitions, OURS)?;
    let timeout = connection.request_timeout();
    let topics = request.topics.iter().map(|(name, count)| {
        CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(*count)
            .with_assignments(None)
    });
    let body = CreatePartitionsRequest::default()
        .with_topics(topics.collect())
        .with_timeout_ms(to_millis(timeout))
        .with_validate_only(request.validate_only);
    let answer: CreatePartitionsResponse = super::call(
        connection,
        ApiKey::CreatePartitions,
        version,
        &body,
        timeout,
    )
    .await?;
    let topics = answer.results.iter().map(|topic| {
        let message = shared_option(topic.error_message.as_ref());
        (
            shared(&topic.name),
            ItemError::check(topic.error_code, message),
        )
    });
    let topics: Vec<_> = topics.collect();
    ItemError::check_controller(ApiKey::CreatePartitions, &topics)?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        topics,
    })
}
