//! rskafka: it has no producer over partitions, so the caller fills one partition's batch after the other, as
//! a sticky partitioner would. Each record is a future that must be polled to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::producer::aggregator::RecordAggregator;
use rskafka::client::producer::{BatchProducer, BatchProducerBuilder};
use rskafka::record::Record;

use super::{Failure, block_on, each_caller, measure};
use crate::job::{BATCH_BYTES, BUFFER_BYTES, Codec, Job, LINGER};
use crate::measure::Cost;

/// Futures that one caller keeps, at most.
const IN_FLIGHT_MAX: usize = 200_000;

/// What one partition's batch takes, as the aggregator counts it: values alone.
const RUN_BYTES: usize = BATCH_BYTES * 9 / 10;

type Producers = Arc<Vec<BatchProducer<RecordAggregator>>>;

pub fn run(job: &Job) -> Result<Cost, Failure> {
    block_on(async {
        let client = ClientBuilder::new(vec![job.bootstrap.clone()])
            .build()
            .await?;
        let compression = match job.codec {
            Codec::None => Compression::NoCompression,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        };
        let mut producers = Vec::new();
        for partition in 0..job.partitions {
            let client = client
                .partition_client(job.topic, partition, UnknownTopicHandling::Error)
                .await?;
            producers.push(
                BatchProducerBuilder::new(Arc::new(client))
                    .with_linger(LINGER)
                    .with_compression(compression)
                    .build(RecordAggregator::new(RUN_BYTES)),
            );
        }
        let producers: Producers = Arc::new(producers);
        measure(job, async |range| {
            each_caller(job, range, |share| {
                send(Arc::clone(&producers), job.clone(), share)
            })
            .await
        })
        .await
    })
}

async fn send(
    producers: Producers,
    job: Job,
    range: std::ops::Range<usize>,
) -> Result<(), Failure> {
    let in_flight_max = (BUFFER_BYTES / job.size / job.callers).clamp(1, IN_FLIGHT_MAX);
    let run = (RUN_BYTES / job.size).max(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let timestamp = DateTime::<Utc>::from_timestamp_millis(now).unwrap_or_default();
    let mut in_flight = FuturesUnordered::new();
    for index in range {
        let record = Record {
            key: job.key(index).map(<[u8]>::to_vec),
            value: Some(job.value(index).to_vec()),
            headers: BTreeMap::new(),
            timestamp,
        };
        in_flight.push(producers[index / run % producers.len()].produce(record));
        if in_flight.len() >= in_flight_max
            && let Some(result) = in_flight.next().await
        {
            result?;
        }
    }
    while let Some(result) = in_flight.next().await {
        result?;
    }
    Ok(())
}
