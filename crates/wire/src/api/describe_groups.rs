//! DescribeGroups: the state and the members of classic groups.

use super::{ItemError, from_millis, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use bytes::Bytes;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use ottla_proto::Result;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=6;

/// Groups to describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The groups' ids.
    pub groups: Vec<Arc<str>>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub host: Arc<str>,
    /// Its subscription, as it wrote it.
    pub metadata: Bytes,
    /// Its part, as the leader wrote it.
    pub assignment: Bytes,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Kafka's word for its state; `Dead` for a group that does not exist (brokers before 4.0).
    pub state: Arc<str>,
    /// `consumer` for consumers.
    pub protocol_type: Arc<str>,
    /// The assignor in force.
    pub protocol: Arc<str>,
    /// The members.
    pub members: Vec<Member>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each group by its id: what it is, or why not. GROUP_ID_NOT_FOUND: it does not exist.
    pub groups: Vec<(Arc<str>, Result<Group, ItemError>)>,
}

/// Asks the groups' coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group has
/// its own code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::DescribeGroups, OURS)?;
    let groups = request.groups.iter().map(|group| GroupId(text(group)));
    let body = DescribeGroupsRequest::default().with_groups(groups.collect());
    let timeout = connection.request_timeout();
    let answer: DescribeGroupsResponse =
        super::call(connection, ApiKey::DescribeGroups, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        groups: answer.groups.iter().map(described).collect(),
    })
}

fn described(group: &DescribedGroup) -> (Arc<str>, Result<Group, ItemError>) {
    let message = shared_option(group.error_message.as_ref()).filter(|text| !text.is_empty());
    let described = ItemError::check(group.error_code, message).map(|()| Group {
        state: shared(&group.group_state),
        protocol_type: shared(&group.protocol_type),
        protocol: shared(&group.protocol_data),
        members: group.members.iter().map(member).collect(),
    });
    (shared(&group.group_id), described)
}

fn member(member: &DescribedGroupMember) -> Member {
    Member {
        member_id: shared(&member.member_id),
        instance_id: shared_option(member.group_instance_id.as_ref()),
        client_id: shared(&member.client_id),
        host: shared(&member.client_host),
        metadata: member.member_metadata.clone(),
        assignment: member.member_assignment.clone(),
    }
}
