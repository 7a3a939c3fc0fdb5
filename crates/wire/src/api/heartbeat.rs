//! Heartbeat: a classic member says that it lives and hears of rebalances.

use super::{from_millis, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, HeartbeatResponse};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=4;
const INSTANCE_FROM: i16 = 3;

/// Says that a member lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The group's id.
    pub group: Arc<str>,
    /// Our generation.
    pub generation: i32,
    /// Our id.
    pub member_id: Arc<str>,
    /// The static member's name (KIP-345).
    pub instance_id: Option<Arc<str>>,
}

/// The coordinator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Kafka's code; REBALANCE_IN_PROGRESS asks us to join again.
    pub code: Code,
}

/// Tells the group's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: the heartbeat may or may not have been heard.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::Heartbeat, OURS)?;
    let mut body = HeartbeatRequest::default()
        .with_group_id(GroupId(text(&request.group)))
        .with_generation_id(request.generation)
        .with_member_id(text(&request.member_id));
    if version >= INSTANCE_FROM {
        body = body.with_group_instance_id(request.instance_id.as_deref().map(text));
    }
    let timeout = connection.request_timeout();
    let answer: HeartbeatResponse =
        super::call(connection, ApiKey::Heartbeat, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
    })
}
