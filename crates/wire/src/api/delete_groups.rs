//! DeleteGroups.

use super::{ItemError, from_millis, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use ottla_proto::Result;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=2;

/// Groups to delete. They must have no member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Their ids; all of one coordinator.
    pub groups: Vec<Arc<str>>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each group: deleted, or why not.
    pub groups: Vec<(Arc<str>, Result<(), ItemError>)>,
}

/// Asks the groups' coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each group has
/// its own code.
///
/// Cancel safety: the groups may or may not be deleted.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::DeleteGroups, OURS)?;
    let names = request.groups.iter().map(|name| GroupId(text(name)));
    let body = DeleteGroupsRequest::default().with_groups_names(names.collect());
    let timeout = connection.request_timeout();
    let answer: DeleteGroupsResponse =
        super::call(connection, ApiKey::DeleteGroups, version, &body, timeout).await?;
    let groups = answer.results.iter().map(|group| {
        let deleted = ItemError::check(group.error_code, None);
        (shared(&group.group_id), deleted)
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        groups: groups.collect(),
    })
}
