//! One span a batch, named as OpenTelemetry's messaging conventions have it. At level `debug`:
//! where that is off, it costs one comparison a batch.

use crate::metrics::kind_name;
use ottla_proto::Error;
use ottla_proto::producer::Ack;
use tracing::Span;
use tracing::field::Empty;

/// From the moment a batch is full until its records are acknowledged or have failed.
pub(crate) fn batch(client_id: &str, topic: &str, partition: i32, record_count: u32) -> Span {
    tracing::debug_span!(
        target: "ottla::producer",
        parent: None,
        "send",
        otel.name = format_args!("send {topic}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        messaging.system = "kafka",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.destination.partition.id = format_args!("{partition}"),
        messaging.client.id = client_id,
        messaging.batch.message_count = record_count,
        messaging.kafka.offset = Empty,
        error.type = Empty,
    )
}

/// Notes how the batch ended.
pub(crate) fn end(span: &Span, outcome: Result<&Ack, &Error>) {
    match outcome {
        Ok(ack) => {
            if let Some(offset) = ack.base_offset {
                span.record("messaging.kafka.offset", offset);
            }
        }
        Err(error) => {
            let code = error.code().map(|code| code.to_string());
            let kind = code.as_deref().unwrap_or(kind_name(error.kind()));
            span.record("error.type", kind);
            span.record("otel.status_code", "ERROR");
        }
    }
}
