//! DescribeConfigs: the settings of topics and brokers.

use super::{ItemError, from_millis, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use ottla_proto::{BrokerId, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 1..=4;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// `DEFAULT_CONFIG` among the sources.
const SOURCE_DEFAULT: i8 = 5;

/// What has settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(Arc<str>),
    /// A broker; the request must go to that broker.
    Broker(BrokerId),
}

/// Resources to describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Each with the settings wanted; `None` wants all.
    pub resources: Vec<(Resource, Option<Vec<Arc<str>>>)>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name.
    pub name: Arc<str>,
    /// Value; `None` when it is not set, or secret.
    pub value: Option<Arc<str>>,
    /// Whether it is the default.
    pub is_default: bool,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether its value is withheld.
    pub sensitive: bool,
}

/// A resource's settings, or why they are not told.
pub type Described = Result<Vec<Config>, ItemError>;

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each resource by its name.
    pub resources: Vec<(Arc<str>, Described)>,
}

/// Asks a broker.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each resource
/// has its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::DescribeConfigs, OURS)?;
    let resources = request.resources.iter().map(|(resource, keys)| {
        let (kind, name) = match resource {
            Resource::Topic(name) => (TOPIC, text(name)),
            Resource::Broker(id) => (BROKER, text(&id.to_string())),
        };
        let keys = keys
            .as_ref()
            .map(|keys| keys.iter().map(|key| text(key)).collect());
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configuration_keys(keys)
    });
    let body = DescribeConfigsRequest::default().with_resources(resources.collect());
    let timeout = connection.request_timeout();
    let answer: DescribeConfigsResponse =
        super::call(connection, ApiKey::DescribeConfigs, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        resources: answer.results.iter().map(described).collect(),
    })
}

fn described(result: &DescribeConfigsResult) -> (Arc<str>, Described) {
    let message = shared_option(result.error_message.as_ref());
    let configs = ItemError::check(result.error_code, message)
        .map(|()| result.configs.iter().map(config).collect());
    (shared(&result.resource_name), configs)
}

fn config(config: &DescribeConfigsResourceResult) -> Config {
    Config {
        name: shared(&config.name),
        value: shared_option(config.value.as_ref()),
        is_default: config.config_source == SOURCE_DEFAULT,
        read_only: config.read_only,
        sensitive: config.is_sensitive,
    }
}
