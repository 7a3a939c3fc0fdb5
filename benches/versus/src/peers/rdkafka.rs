//! librdkafka. `BaseProducer` is its cheapest use from Rust: the caller serves the delivery reports itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message};

use super::Failure;
use crate::job::{BATCH_BYTES, BUFFER_BYTES, Job, LINGER, Tuning};
use crate::measure::Cost;

/// Records between two looks at the delivery reports.
const POLL_EVERY: usize = 1024;

#[derive(Default)]
struct Reports {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) if message.offset() >= 0 => self.acknowledged.fetch_add(1, Relaxed),
            _ => self.failed.fetch_add(1, Relaxed),
        };
    }
}

pub fn run(job: &Job) -> Result<super::Cost, Failure> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true");
    if job.tuning == Tuning::Same {
        config
            .set("compression.type", job.codec.name())
            .set("linger.ms", LINGER.as_millis().to_string())
            .set("batch.size", BATCH_BYTES.to_string())
            .set("batch.num.messages", "1000000")
            // It bounds the batch too, and is a little smaller than 1 MB by default.
            .set("message.max.bytes", (2 * BATCH_BYTES).to_string())
            .set("queue.buffering.max.messages", "10000000")
            .set(
                "queue.buffering.max.kbytes",
                (BUFFER_BYTES / 1024).to_string(),
            );
    }
    let producer: Arc<BaseProducer<Reports>> =
        Arc::new(config.create_with_context(Reports::default())?);
    let cost: Result<Cost, Failure> = job.measure(|range| {
        if job.callers == 1 {
            send(&producer, job, range)?;
        } else {
            thread::scope(|scope| {
                let callers: Vec<_> = (0..job.callers)
                    .map(|caller| {
                        let share = job.share(&range, caller);
                        scope.spawn(|| send(&producer, job, share))
                    })
                    .collect();
                callers.into_iter().try_for_each(|caller| {
                    caller
                        .join()
                        .map_err(|_| Failure::from("a caller panicked"))?
                })
            })?;
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(())
    });
    let reports = producer.context();
    let expected = (job.warm_up + job.records) as u64;
    let (acknowledged, failed) = (
        reports.acknowledged.load(Relaxed),
        reports.failed.load(Relaxed),
    );
    if acknowledged != expected {
        return Err(format!("{acknowledged} acknowledged, {failed} failed of {expected}").into());
    }
    cost
}

fn send(
    producer: &BaseProducer<Reports>,
    job: &Job,
    range: std::ops::Range<usize>,
) -> Result<(), Failure> {
    for index in range {
        let mut record = BaseRecord::<[u8], [u8]>::to(job.topic).payload(job.value(index));
        record.key = job.key(index);
        while let Err((error, back)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    producer.poll(Duration::from_millis(10));
                    record = back;
                }
                error => return Err(error.into()),
            }
        }
        if index % POLL_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    Ok(())
}
