//! ListGroups: the groups that one broker coordinates.

use super::{from_millis, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=5;
const STATES_FROM: i16 = 4;
const TYPES_FROM: i16 = 5;

/// Which groups to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Only groups in these states; empty lists all (and brokers before 2.6 list all).
    pub states: Vec<Arc<str>>,
    /// Only groups of these types; empty lists all (and brokers before 3.8 list all).
    pub types: Vec<Arc<str>>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's id.
    pub group: Arc<str>,
    /// `consumer` for consumers.
    pub protocol_type: Arc<str>,
    /// Its state, when told.
    pub state: Option<Arc<str>>,
    /// Its type (`Classic`, `Consumer`, `Share`), when told.
    pub group_type: Option<Arc<str>>,
}

/// One broker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Kafka's code.
    pub code: Code,
    /// The groups.
    pub groups: Vec<Group>,
}

/// Asks one broker; ask each to see every group.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::ListGroups, OURS)?;
    let mut body = ListGroupsRequest::default();
    if version >= STATES_FROM {
        body = body.with_states_filter(request.states.iter().map(|state| text(state)).collect());
    }
    if version >= TYPES_FROM {
        body = body.with_types_filter(request.types.iter().map(|kind| text(kind)).collect());
    }
    let timeout = connection.request_timeout();
    let answer: ListGroupsResponse =
        super::call(connection, ApiKey::ListGroups, version, &body, timeout).await?;
    let told = |word: &str| (!word.is_empty()).then(|| shared(word));
    let groups = answer.groups.iter().map(|group| Group {
        group: shared(&group.group_id),
        protocol_type: shared(&group.protocol_type),
        state: told(&group.group_state),
        group_type: told(&group.group_type),
    });
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
        groups: groups.collect(),
    })
}
