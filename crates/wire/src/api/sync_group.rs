//! SyncGroup: the leader gives the assignment, every member gets its part.

use super::{from_millis, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use bytes::Bytes;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, SyncGroupRequest, SyncGroupResponse};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=5;
const INSTANCE_FROM: i16 = 3;
const PROTOCOL_FROM: i16 = 5;

/// Asks for our part of the assignment, and gives the whole as the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The group's id.
    pub group: Arc<str>,
    /// The generation joined.
    pub generation: i32,
    /// Our id.
    pub member_id: Arc<str>,
    /// The static member's name (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// The protocol type joined with.
    pub protocol_type: Option<Arc<str>>,
    /// The assignor that the join chose.
    pub protocol_name: Option<Arc<str>>,
    /// Each member's part; empty unless we lead.
    pub assignments: Vec<(Arc<str>, Bytes)>,
    /// How long members have to sync.
    pub rebalance_timeout: Duration,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Kafka's code.
    pub code: Code,
    /// The protocol type, when told.
    pub protocol_type: Option<Arc<str>>,
    /// The assignor, when told.
    pub protocol_name: Option<Arc<str>>,
    /// Our part.
    pub assignment: Bytes,
}

/// Asks the group's coordinator, which waits for the leader's assignment.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: the assignment may have been given; sync again or rejoin.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::SyncGroup, OURS)?;
    let assignments = request.assignments.iter().map(|(member, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(assignment.clone())
    });
    let mut body = SyncGroupRequest::default()
        .with_group_id(GroupId(text(&request.group)))
        .with_generation_id(request.generation)
        .with_member_id(text(&request.member_id))
        .with_assignments(assignments.collect());
    if version >= INSTANCE_FROM {
        body = body.with_group_instance_id(request.instance_id.as_deref().map(text));
    }
    if version >= PROTOCOL_FROM {
        body = body
            .with_protocol_type(request.protocol_type.as_deref().map(text))
            .with_protocol_name(request.protocol_name.as_deref().map(text));
    }
    let timeout = connection.request_timeout().max(request.rebalance_timeout);
    let answer: SyncGroupResponse =
        super::call(connection, ApiKey::SyncGroup, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
        protocol_type: shared_option(answer.protocol_type.as_ref()),
        protocol_name: shared_option(answer.protocol_name.as_ref()),
        assignment: answer.assignment,
    })
}
