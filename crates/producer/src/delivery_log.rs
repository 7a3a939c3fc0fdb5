//! A hook that writes deliveries to the program's log.

use crate::hooks::{Delivered, DeliveryHook, Failed};

/// Says in the program's log how every batch ended, one event of `tracing` a batch under the target
/// `ottla::delivery`: at level `info` where the records came to lie, at level `error` why they did not.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliveryLog;

impl DeliveryHook for DeliveryLog {
    fn on_delivered(&self, batch: &Delivered<'_>) {
        tracing::info!(
            target: "ottla::delivery",
            topic = &**batch.topic,
            partition = batch.partition,
            offset = batch.base_offset,
            records = batch.record_count,
            latency = ?batch.latency,
            "delivered"
        );
    }

    fn on_failed(&self, batch: &Failed<'_>) {
        tracing::error!(
            target: "ottla::delivery",
            topic = &**batch.topic,
            partition = batch.partition,
            records = batch.record_count,
            latency = ?batch.latency,
            error = %batch.error,
            "failed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::{Error, ErrorKind, WriteOutcome};
    use parking_lot::Mutex;
    use std::fmt::{Debug, Write};
    use std::sync::Arc;
    use std::time::Duration;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line<'l>(&'l mut String);

    impl Visit for Line<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, event: &Event<'_>) {
            let metadata = event.metadata();
            let mut line = format!("{} {}", metadata.level(), metadata.target());
            event.record(&mut Line(&mut line));
            self.0.lock().push(line);
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_line_says_where_records_lie_or_why_they_do_not() {
        let lines = Lines::default();
        let topic = Arc::from("orders");
        let latency = Duration::from_millis(7);
        tracing::subscriber::with_default(lines.clone(), || {
            DeliveryLog.on_delivered(&Delivered {
                topic: &topic,
                partition: 2,
                base_offset: Some(41),
                record_count: 20,
                latency,
            });
            let late = Error::new(ErrorKind::Timeout, "too late");
            DeliveryLog.on_failed(&Failed {
                topic: &topic,
                partition: 3,
                record_count: 1,
                latency,
                error: &late.with_outcome(WriteOutcome::Unknown),
            });
        });
        let lines = std::mem::take(&mut *lines.0.lock());
        assert_eq!(lines.len(), 2);
        for part in [
            "INFO ottla::delivery",
            "\"orders\"",
            "partition=2",
            "offset=41",
            "records=20",
        ] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        for part in ["ERROR ottla::delivery", "partition=3", "too late"] {
            assert!(lines[1].contains(part), "{part}: {}", lines[1]);
        }
    }
}
