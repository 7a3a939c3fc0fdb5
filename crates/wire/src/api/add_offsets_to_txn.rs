//! AddOffsetsToTxn: tells the coordinator that a transaction is going to commit a group's offsets.

use super::{from_millis, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, GroupId, ProducerId, TransactionalId,
};
use ottla_proto::producer::Identity;
use ottla_proto::{Code, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const OURS: RangeInclusive<i16> = 0..=4;

/// A group for the open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer's id and epoch.
    pub identity: Identity,
    /// The group's id.
    pub group: Arc<str>,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Whether the group was added.
    pub code: Code,
}

/// Asks the transaction's coordinator (not the group's).
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. An error code is
/// inside the answer.
///
/// Cancel safety: the group may or may not have been added.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::AddOffsetsToTxn, OURS)?;
    let body = AddOffsetsToTxnRequest::default()
        .with_transactional_id(TransactionalId(text(&request.transactional_id)))
        .with_producer_id(ProducerId(request.identity.producer_id))
        .with_producer_epoch(request.identity.epoch)
        .with_group_id(GroupId(text(&request.group)));
    let timeout = connection.request_timeout();
    let answer: AddOffsetsToTxnResponse =
        super::call(connection, ApiKey::AddOffsetsToTxn, version, &body, timeout).await?;
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        code: Code(answer.error_code),
    })
}
