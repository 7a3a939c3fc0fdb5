//! Ottla: `enqueue` and `flush`; the deliveries are dropped, as for the other Rust clients.

use std::sync::Arc;

use ottla::{Acks, Bytes, Client, Compression, KEPT_VALUE_BYTES_MIN, Producer, Record};

use super::{Failure, block_on, each_caller, measure};
use crate::job::{BATCH_BYTES, BUFFER_BYTES, Codec, Job, LINGER, Tuning};
use crate::measure::Cost;

pub fn run(job: &Job) -> Result<Cost, Failure> {
    block_on(async {
        let client = Client::builder(job.bootstrap.as_str()).connect().await?;
        let mut builder = client.producer().acks(Acks::All).idempotence(true);
        if job.tuning == Tuning::Same {
            builder = builder
                .compression(match job.codec {
                    Codec::None => Compression::None,
                    Codec::Lz4 => Compression::Lz4,
                    Codec::Zstd => Compression::Zstd,
                })
                .batch_bytes(BATCH_BYTES)
                .linger(LINGER)
                .buffer_bytes(BUFFER_BYTES);
        }
        let producer = Arc::new(builder.build()?);
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
    let text = Bytes::from_owner(job.text);
    for index in range {
        // Shared bytes, as all clients are given that can send them from where they are.
        let shared;
        let mut record = Record::to(job.topic);
        if job.size >= KEPT_VALUE_BYTES_MIN {
            shared = text.slice_ref(job.value(index));
            record = record.value_bytes(&shared);
        } else {
            record = record.value(job.value(index));
        }
        if let Some(key) = job.key(index) {
            record = record.key(key);
        }
        drop(producer.enqueue(record).await?);
    }
    Ok(())
}
