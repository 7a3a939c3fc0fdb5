//! DeleteTopics.

use super::{ItemError, from_millis, shared, shared_option, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use ottla_proto::Result;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 1..=6;
/// From here topics may go by id, and names move into a struct.
const STATES_FROM: i16 = 6;

/// Topics to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Names.
    pub topics: Vec<Arc<str>>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each topic: deleted, or why not.
    pub topics: Vec<(Arc<str>, Result<(), ItemError>)>,
}

/// Asks any broker (brokers before 2.8 must be the controller).
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; `Broker` with
/// `NOT_CONTROLLER`, when nothing was done. Each topic has its own code.
///
/// Cancel safety: the topics may or may not be deleted.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::DeleteTopics, OURS)?;
    let timeout = connection.request_timeout();
    let names = request.topics.iter().map(|name| TopicName(text(name)));
    let body = DeleteTopicsRequest::default().with_timeout_ms(to_millis(timeout));
    let body = if version >= STATES_FROM {
        let states = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
        body.with_topics(states.collect())
    } else {
        body.with_topic_names(names.collect())
    };
    let answer: DeleteTopicsResponse =
        super::call(connection, ApiKey::DeleteTopics, version, &body, timeout).await?;
    let topics = answer.responses.iter().filter_map(|topic| {
        let message = shared_option(topic.error_message.as_ref());
        let name = topic.name.as_ref()?;
        Some((shared(name), ItemError::check(topic.error_code, message)))
    });
    let topics: Vec<_> = topics.collect();
    ItemError::check_controller(ApiKey::DeleteTopics, &topics)?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        topics,
    })
}
