//! JoinGroup: a classic member asks to be part of the next generation.

use super::{from_millis, shared, shared_option, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, JoinGroupResponse};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// From the first version with a rebalance timeout.
const OURS: RangeInclusive<i16> = 1..=9;
const INSTANCE_FROM: i16 = 5;
const REASON_FROM: i16 = 8;
/// What the answer may take beyond the rebalance timeout, as in Java.
const GRACE: Duration = Duration::from_secs(5);

/// Asks to join.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The group's id.
    pub group: Arc<str>,
    /// How long the member may stay silent.
    pub session_timeout: Duration,
    /// How long members have to join a rebalance.
    pub rebalance_timeout: Duration,
    /// The member's id; empty the first time.
    pub member_id: Arc<str>,
    /// The static member's name (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// `consumer` for consumers.
    pub protocol_type: Arc<str>,
    /// The assignors, best first, each with the member's subscription.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// Why it joins, for the broker's log.
    pub reason: Option<Arc<str>>,
}

/// A member as its group's leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Its subscription.
    pub metadata: Bytes,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Kafka's code. MEMBER_ID_REQUIRED comes with a member id to join again with.
    pub code: Code,
    /// The new generation.
    pub generation: i32,
    /// The protocol type chosen, when told.
    pub protocol_type: Option<Arc<str>>,
    /// The assignor chosen.
    pub protocol_name: Option<Arc<str>>,
    /// The member that makes the assignment.
    pub leader: Arc<str>,
    /// Whether the leader must not make an assignment: the old one stands (KIP-814).
    pub skip_assignment: bool,
    /// Our id.
    pub member_id: Arc<str>,
    /// Every member; only the leader gets them.
    pub members: Vec<JoinedMember>,
}

/// Asks the group's coordinator, which may take as long as the rebalance timeout to answer.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: the member may have joined; it is expelled after its session timeout.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::JoinGroup, OURS)?;
    let protocols = request.protocols.iter().map(|(name, metadata)| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(metadata.clone())
    });
    let mut body = JoinGroupRequest::default()
        .with_group_id(GroupId(text(&request.group)))
        .with_session_timeout_ms(to_millis(request.session_timeout))
        .with_rebalance_timeout_ms(to_millis(request.rebalance_timeout))
        .with_member_id(text(&request.member_id))
        .with_protocol_type(text(&request.protocol_type))
        .with_protocols(protocols.collect());
    if version >= INSTANCE_FROM {
        body = body.with_group_instance_id(request.instance_id.as_deref().map(text));
    }
    if version >= REASON_FROM {
        body = body.with_reason(request.reason.as_deref().map(text));
    }
    let timeout = connection
        .request_timeout()
        .max(request.rebalance_timeout + GRACE);
    let answer: JoinGroupResponse =
        super::call(connection, ApiKey::JoinGroup, version, &body, timeout).await?;
    let members = answer.members.iter().map(|member| JoinedMember {
        member_id: shared(&member.member_id),
        instance_id: shared_option(member.group_instance_id.as_ref()),
        metadata: member.metadata.clone(),
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
        generation: answer.generation_id,
        protocol_type: shared_option(answer.protocol_type.as_ref()),
        protocol_name: shared_option(answer.protocol_name.as_ref()),
        leader: shared(&answer.leader),
        skip_assignment: answer.skip_assignment,
        member_id: shared(&answer.member_id),
        members: members.collect(),
    })
}
