//! LeaveGroup: members go, so that the others need not wait for their session to end.

use super::{from_millis, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{GroupId, LeaveGroupRequest, LeaveGroupResponse};
use ottla_proto::{Code, Error, ErrorKind, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=5;
/// From here many members can leave at once, static ones too.
const MEMBERS_FROM: i16 = 3;
const REASON_FROM: i16 = 5;

/// A member that leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Why it leaves, for the broker's log.
    pub reason: Option<Arc<str>>,
}

/// Members that leave a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The group's id.
    pub group: Arc<str>,
    /// The members. Brokers before 2.4 take one a request, and no static one.
    pub members: Vec<Leaving>,
}

/// One member's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Kafka's code.
    pub code: Code,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Kafka's code for the whole.
    pub code: Code,
    /// Each member's; empty from brokers before 2.4.
    pub members: Vec<Left>,
}

/// Tells the group's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; `State` without
/// a member, or with several where the broker takes one.
///
/// Cancel safety: the members may or may not have left.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::LeaveGroup, OURS)?;
    let body = LeaveGroupRequest::default().with_group_id(GroupId(text(&request.group)));
    let body = match request.members.as_slice() {
        members if version >= MEMBERS_FROM => body.with_members(
            members
                .iter()
                .map(|member| identity(version, member))
                .collect(),
        ),
        [member] => body.with_member_id(text(&member.member_id)),
        _ => {
            let what = format!("LeaveGroup version {version} takes exactly one member");
            return Err(connection.name(Error::new(ErrorKind::State, what)));
        }
    };
    let timeout = connection.request_timeout();
    let answer: LeaveGroupResponse =
        super::call(connection, ApiKey::LeaveGroup, version, &body, timeout).await?;
    let members = answer.members.iter().map(|member| Left {
        member_id: shared(&member.member_id),
        instance_id: shared_option(member.group_instance_id.as_ref()),
        code: Code(member.error_code),
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
        members: members.collect(),
    })
}

fn identity(version: i16, member: &Leaving) -> MemberIdentity {
    let identity = MemberIdentity::default()
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(member.instance_id.as_deref().map(text));
    match member.reason.as_deref() {
        Some(reason) if version >= REASON_FROM => identity.with_reason(Some(text(reason))),
        _ => identity,
    }
}
