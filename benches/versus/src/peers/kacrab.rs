//! kacrab: `send` and `flush`; the futures are dropped, which spares it their wake-ups.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kacrab::producer::{Producer, ProducerError, ProducerRecord};

use super::{Failure, block_on, each_caller, measure};
use crate::job::{BATCH_BYTES, BUFFER_BYTES, Job, LINGER, Tuning};
use crate::measure::Cost;

/// `send` spins on the worker thread while the buffer is full, and the task that would empty it may be queued
/// behind it. So a caller looks at the buffer every so many records, and sleeps while it is over half full.
const LOOK_EVERY: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);

pub fn run(job: &Job) -> Result<Cost, Failure> {
    block_on(async {
        let mut builder = Producer::builder()
            .set("bootstrap.servers", job.bootstrap.as_str())
            .set("acks", "all")
            .set("enable.idempotence", "true");
        if job.tuning == Tuning::Same {
            builder = builder
                .set("compression.type", job.codec.name())
                .set("linger.ms", LINGER.as_millis().to_string())
                .set("batch.size", BATCH_BYTES.to_string())
                .set("max.request.size", (16 * BATCH_BYTES).to_string())
                .set("buffer.memory", BUFFER_BYTES.to_string());
        }
        let producer = Arc::new(builder.build().await?);
        measure(job, async |range| {
            each_caller(job, range, |share| {
                send(Arc::clone(&producer), job.clone(), share)
            })
            .await?;
            producer.flush().await?;
            Ok(())
        })
        .await
    })
}

async fn send(
    producer: Arc<Producer>,
    job: Job,
    range: std::ops::Range<usize>,
) -> Result<(), Failure> {
    let topic: Arc<str> = job.topic.into();
    let half = producer_buffer_bytes(&job) / 2;
    for index in range {
        while index % LOOK_EVERY == 0 && producer.buffered_bytes() > half {
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            let value = Bytes::from_static(job.value(index));
            let mut record = ProducerRecord::topic_value(Arc::clone(&topic), value);
            if let Some(key) = job.key(index) {
                record = record.key(Bytes::from_static(key));
            }
            match producer.send(record) {
                Ok(delivery) => break drop(delivery),
                Err(ProducerError::Backpressure) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Java's default where the job leaves the buffer to the client.
fn producer_buffer_bytes(job: &Job) -> usize {
    match job.tuning {
        Tuning::Same => BUFFER_BYTES,
        Tuning::OwnDefaults => 32 << 20,
    }
}
