//! Sends a million records as fast as they go, and says how fast that was.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --release --example throughput`

use ottla::{Client, Preset, Record};
use std::time::Instant;

const RECORDS: u32 = 1_000_000;
const RECORD_BYTES: usize = 100;

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let producer = client.producer().preset(Preset::Throughput).build()?;
    producer.prepare("orders").await?;
    let value = [b'x'; RECORD_BYTES];
    let start = Instant::now();
    for _ in 0..RECORDS {
        drop(producer.enqueue(Record::to("orders").value(&value)).await?);
    }
    producer.flush().await?;
    let rate = f64::from(RECORDS) / start.elapsed().as_secs_f64();
    let metrics = producer.metrics();
    println!(
        "{rate:.0} records a second, {} lost",
        metrics.records_unknown
    );
    println!(
        "batches of {} records in the mean",
        metrics.batch_records.mean
    );
    println!(
        "{:?} in the queue, {:?} a request",
        metrics.queue_time.p50, metrics.request_latency.p50
    );
    producer.close().await
}
