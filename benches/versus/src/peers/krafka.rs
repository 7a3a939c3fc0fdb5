//! krafka: `enqueue` and `flush`; the delivery handles are dropped, which spares it their wake-ups.

use std::sync::Arc;

use bytes::Bytes;
use krafka::Compression;
use krafka::producer::{Acks, Producer};
use krafka::{Kafka, Record};

use super::{Failure, block_on, each_caller, measure};
use crate::job::{BATCH_BYTES, BUFFER_BYTES, Codec, Job, LINGER, Tuning};
use crate::measure::Cost;

pub fn run(job: &Job) -> Result<Cost, Failure> {
    block_on(async {
        let kafka = Kafka::builder(&job.bootstrap).connect().await?;
        let mut builder = kafka.producer().acks(Acks::All).idempotent(true);
        if job.tuning == Tuning::Same {
            builder = builder
                .compression(match job.codec {
                    Codec::None => Compression::None,
                    Codec::Lz4 => Compression::Lz4,
                    Codec::Zstd => Compression::Zstd,
                })
                .batch_size(BATCH_BYTES)
                .linger(LINGER)
                .buffer_memory(BUFFER_BYTES);
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
    for index in range {
        let mut record = Record::new(job.topic, Bytes::from_static(job.value(index)));
        if let Some(key) = job.key(index) {
            record = record.key(Bytes::from_static(key));
        }
        drop(producer.enqueue(record).await?);
    }
    Ok(())
}
