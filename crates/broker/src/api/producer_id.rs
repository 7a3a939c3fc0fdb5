//! InitProducerId: a fresh id, or the next epoch of one.

use super::Context;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use ottla_proto::Code;

pub(super) fn handle(ctx: &Context<'_>, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |code: Code| {
        InitProducerIdResponse::default()
            .with_error_code(code.0)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(code) = ctx.forced() {
        return refuse(code);
    }
    if request.transactional_id.is_some() {
        // There are no transactions here; a retriable code would have clients ask for ever.
        return refuse(Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    // As Kafka does: without a transactional id the id the client had is of no interest.
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(ctx.shared().next_producer_id()))
        .with_producer_epoch(0)
        .with_throttle_time_ms(ctx.throttle_millis())
}
