//! InitProducerId: an identity for an idempotent or transactional producer.

use super::{from_millis, text, to_millis};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId, TransactionalId,
};
use ottla_proto::producer::Identity;
use ottla_proto::{Code, Error, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The request's generated form ends at 5, the answer's at 6.
const OURS: RangeInclusive<i16> = 0..=5;
/// From here a producer may ask for a newer epoch of its own identity (KIP-360).
const KEEPS_IDENTITY_FROM: i16 = 3;

/// Asks for an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The transactional id; `None` for a producer that is only idempotent.
    pub transactional_id: Option<Arc<str>>,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
    /// The identity to go on with. Brokers before 2.5 give a fresh one instead, unless there is a
    /// transactional id: a fresh one would then fence whoever has fenced us.
    pub current: Option<Identity>,
}

/// The identity given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// The producer's id and epoch.
    pub identity: Identity,
}

/// Asks a broker; with a transactional id it must be the transaction's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; the
/// broker's code, such as COORDINATOR_LOAD_IN_PROGRESS, when it gives no identity.
///
/// Cancel safety: an identity that nobody hears of is harmless; a transactional one is fenced by
/// the next call.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let answer = ask(connection, request).await?;
    answer.map_err(|code| connection.name(Error::broker(code, "InitProducerId")))
}

/// As [`call`], but keeps the broker's code apart from what went wrong on the way.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker.
///
/// Cancel safety: as [`call`].
pub async fn ask(connection: &Connection, request: &Request) -> Result<Result<Response, Code>> {
    let ours = match (&request.transactional_id, request.current) {
        (Some(_), Some(_)) => KEEPS_IDENTITY_FROM..=*OURS.end(),
        _ => OURS,
    };
    let version = connection.version(ApiKey::InitProducerId, ours)?;
    let transactional_id = request.transactional_id.as_deref();
    let mut body = InitProducerIdRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_transaction_timeout_ms(to_millis(request.transaction_timeout));
    if let Some(current) = request.current.filter(|_| version >= KEEPS_IDENTITY_FROM) {
        body = body
            .with_producer_id(ProducerId(current.producer_id))
            .with_producer_epoch(current.epoch);
    }
    let timeout = connection.request_timeout();
    let answer: InitProducerIdResponse =
        super::call(connection, ApiKey::InitProducerId, version, &body, timeout).await?;
    let response = Response {
        throttle: from_millis(answer.throttle_time_ms),
        identity: Identity {
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        },
    };
    Ok(Code(answer.error_code).ok().map(|()| response))
}
