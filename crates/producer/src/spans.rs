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

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::{Code, ErrorKind};
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::fmt;
    use std::sync::Arc;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    type Fields = BTreeMap<&'static str, String>;

    /// Keeps the fields of every span.
    #[derive(Clone, Default)]
    struct Spans(Arc<Mutex<Fields>>);

    struct Keep<'f>(&'f mut Fields);

    impl Visit for Keep<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.insert(
                field.name(),
                format!("{value:?}").trim_matches('"').to_owned(),
            );
        }
    }

    struct Subscribed(Spans, Level);

    impl Subscriber for Subscribed {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= self.1
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut Keep(&mut self.0.0.lock()));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Keep(&mut self.0.0.lock()));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn fields_of(level: Level, outcome: Result<&Ack, &Error>) -> Fields {
        let spans = Spans::default();
        tracing::subscriber::with_default(Subscribed(spans.clone(), level), || {
            end(&batch("billing", "orders", 3, 20), outcome);
        });
        std::mem::take(&mut *spans.0.lock())
    }

    #[test]
    fn a_span_has_the_names_of_opentelemetrys_messaging_conventions() {
        let ack = Ack {
            base_offset: Some(41),
            log_append_time: None,
        };
        let fields = fields_of(Level::DEBUG, Ok(&ack));
        let expected = [
            ("messaging.batch.message_count", "20"),
            ("messaging.client.id", "billing"),
            ("messaging.destination.name", "orders"),
            ("messaging.destination.partition.id", "3"),
            ("messaging.kafka.offset", "41"),
            ("messaging.operation.name", "send"),
            ("messaging.operation.type", "send"),
            ("messaging.system", "kafka"),
            ("otel.kind", "producer"),
            ("otel.name", "send orders"),
        ];
        let found: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        assert_eq!(found, expected);
        assert!(
            fields_of(Level::INFO, Ok(&ack)).is_empty(),
            "off, it is not made"
        );
    }

    #[test]
    fn a_span_of_a_failed_batch_says_why() {
        let refused = Error::broker(Code::TOPIC_AUTHORIZATION_FAILED, "produce");
        let fields = fields_of(Level::DEBUG, Err(&refused));
        assert!(fields["error.type"].contains("TOPIC_AUTHORIZATION_FAILED"));
        assert_eq!(fields["otel.status_code"], "ERROR");
        let late = Error::new(ErrorKind::Timeout, "late");
        assert_eq!(fields_of(Level::DEBUG, Err(&late))["error.type"], "timeout");
    }
}
