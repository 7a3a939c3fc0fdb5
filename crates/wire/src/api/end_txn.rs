//! EndTxn: commits or aborts a transaction.

use super::{from_millis, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId, TransactionalId};
use ottla_proto::producer::Identity;
use ottla_proto::producer::transaction::{Decision, Protocol};
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// From here the epoch grows with every transaction, and the answer carries it (KIP-890).
const NEW_EPOCH_FROM: i16 = 5;
/// What a client speaks in the older protocol.
const OURS: RangeInclusive<i16> = 0..=4;

/// How a transaction is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer's id and epoch.
    pub identity: Identity,
    /// The transaction's protocol; it decides the version.
    pub protocol: Protocol,
    /// Commit or abort.
    pub decision: Decision,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Whether the decision is written.
    pub code: Code,
    /// The identity of the next transaction, in the newer protocol. The producer id is a new one when
    /// the epochs of the old one are used up.
    pub next: Option<Identity>,
}

/// Asks the transaction's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. An error code is
/// inside the answer.
///
/// Cancel safety: the transaction may or may not have ended.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let ours = match request.protocol {
        Protocol::One => OURS,
        Protocol::Two => NEW_EPOCH_FROM..=NEW_EPOCH_FROM,
    };
    let version = connection.version(ApiKey::EndTxn, ours)?;
    let body = EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text(&request.transactional_id)))
        .with_producer_id(ProducerId(request.identity.producer_id))
        .with_producer_epoch(request.identity.epoch)
        .with_committed(request.decision == Decision::Commit);
    let timeout = connection.request_timeout();
    let answer: EndTxnResponse =
        super::call(connection, ApiKey::EndTxn, version, &body, timeout).await?;
    let next = Identity {
        producer_id: answer.producer_id.0,
        epoch: answer.producer_epoch,
    };
    let told = version >= NEW_EPOCH_FROM && next.producer_id >= 0 && next.epoch >= 0;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
        next: told.then_some(next),
    })
}
