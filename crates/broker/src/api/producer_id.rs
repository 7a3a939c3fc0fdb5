//! InitProducerId: a fresh id, or the next epoch of a transactional one.

use super::Context;
use super::groups::coordinates;
use super::transactions::known_since;
use crate::transactions::Identity;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use ottla_proto::Code;
use std::time::Duration;

/// The first version that knows `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 4;

pub(super) fn handle(ctx: &Context<'_>, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    match initialised(ctx, request) {
        Ok(identity) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .with_throttle_time_ms(ctx.throttle_millis()),
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(known_since(code, ctx.version, FENCED_SINCE).0)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

fn initialised(ctx: &Context<'_>, request: &InitProducerIdRequest) -> Result<Identity, Code> {
    if let Some(code) = ctx.forced() {
        return Err(code);
    }
    let shared = ctx.shared();
    let (producer_id, epoch) = (request.producer_id.0, request.producer_epoch);
    let known = match (producer_id, epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(Code::INVALID_REQUEST),
        _ => Some(Identity { producer_id, epoch }),
    };
    let Some(id) = request.transactional_id.as_deref() else {
        // As Kafka does: without a transactional id the id the client had is of no interest.
        return Ok(Identity {
            producer_id: shared.next_producer_id(),
            epoch: 0,
        });
    };
    if id.is_empty() {
        return Err(Code::INVALID_REQUEST);
    }
    coordinates(ctx, id)?;
    let timeout = u64::try_from(request.transaction_timeout_ms).unwrap_or(0);
    let timeout = Duration::from_millis(timeout);
    if timeout.is_zero() || timeout > shared.settings.transaction_timeout_max {
        return Err(Code::INVALID_TRANSACTION_TIMEOUT);
    }
    shared.transactions.init(shared, id, known, timeout)
}
