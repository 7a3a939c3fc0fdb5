//! FindCoordinator: which broker keeps a group's or a transaction's state.

use super::{ItemError, broker_option, shared, shared_option, text};
use crate::api_key::ApiKey;
use crate::cluster::CoordinatorKind;
use crate::connection::Connection;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use ottla_proto::cluster::Broker;
use ottla_proto::{Error, ErrorKind, Result};
use std::ops::RangeInclusive;

/// From the first version with a kind of key.
const OURS: RangeInclusive<i16> = 1..=6;
/// From here a request may ask for many keys.
const MANY_KEYS_FROM: i16 = 4;

/// Which coordinator to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Of what.
    pub kind: CoordinatorKind,
    /// The group's id or the transactional id.
    pub key: String,
}

/// The coordinator, or why there is none now.
pub type Response = Result<Broker, ItemError>;

/// Asks any broker.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. An error code is
/// inside the answer.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::FindCoordinator, OURS)?;
    let kind = match request.kind {
        CoordinatorKind::Group => 0,
        CoordinatorKind::Transaction => 1,
    };
    let body = FindCoordinatorRequest::default().with_key_type(kind);
    let body = if version >= MANY_KEYS_FROM {
        body.with_coordinator_keys(vec![text(&request.key)])
    } else {
        body.with_key(text(&request.key))
    };
    let timeout = connection.request_timeout();
    let answer: FindCoordinatorResponse =
        super::call(connection, ApiKey::FindCoordinator, version, &body, timeout).await?;
    let one = if version >= MANY_KEYS_FROM {
        let found = answer
            .coordinators
            .iter()
            .find(|one| *one.key == *request.key);
        found.map(read_one)
    } else {
        Some(read_single(&answer))
    };
    one.ok_or_else(|| {
        let what = format!("brought a FindCoordinator answer without {}", request.key);
        connection.error(ErrorKind::Protocol, &what)
    })?
    .map_or_else(
        |answer| match answer {
            Fault::Item(item) => Ok(Err(item)),
            Fault::Whole(error) => Err(connection.name(error)),
        },
        |broker| Ok(Ok(broker)),
    )
}

enum Fault {
    Item(ItemError),
    Whole(Error),
}

fn read_one(one: &Coordinator) -> Result<Broker, Fault> {
    let message = shared_option(one.error_message.as_ref());
    ItemError::check(one.error_code, message).map_err(Fault::Item)?;
    broker(one.node_id.0, &one.host, one.port)
}

fn read_single(answer: &FindCoordinatorResponse) -> Result<Broker, Fault> {
    let message = shared_option(answer.error_message.as_ref());
    ItemError::check(answer.error_code, message).map_err(Fault::Item)?;
    broker(answer.node_id.0, &answer.host, answer.port)
}

fn broker(id: i32, host: &str, port: i32) -> Result<Broker, Fault> {
    let wrong = || {
        let what = "FindCoordinator named a coordinator without an id or a port";
        Fault::Whole(Error::new(ErrorKind::Protocol, what))
    };
    Ok(Broker {
        id: broker_option(id).ok_or_else(wrong)?,
        host: shared(host),
        port: u16::try_from(port).map_err(|_| wrong())?,
        rack: None,
    })
}
