//! Three ways to hear of deliveries without waiting for each: a record's own callback, a hook that
//! hears whole batches, and an interceptor that also changes what is sent.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example callbacks`

use ottla::{Client, Delivered, DeliveryHook, Failed, Interceptor, Record, Scratch};

/// Prints every batch, a line each.
struct Report;

impl DeliveryHook for Report {
    fn on_delivered(&self, batch: &Delivered<'_>) {
        let (topic, partition) = (batch.topic, batch.partition);
        let (count, offset) = (batch.record_count, batch.base_offset.unwrap_or(-1));
        println!(
            "{topic}[{partition}] @ {offset}: {count} records in {:?}",
            batch.latency
        );
    }

    fn on_failed(&self, batch: &Failed<'_>) {
        eprintln!("{} records failed: {}", batch.record_count, batch.error);
    }
}

/// Adds a header with the record's size.
struct Measure;

impl Interceptor for Measure {
    fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r> {
        let size = record.value.map_or(0, <[u8]>::len);
        record.header("size", scratch.keep(size.to_string()))
    }
}

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let producer = client
        .producer()
        .delivery_hook(Report)
        .interceptor(Measure)
        .build()?;
    for number in 0..1_000 {
        let value = number.to_string();
        let record = Record::to("orders").value(&value);
        if number % 250 == 0 {
            let told = move |outcome: ottla::Result<ottla::RecordMetadata>| match outcome {
                Ok(metadata) => println!("record {number} is at {:?}", metadata.offset),
                Err(error) => eprintln!("record {number}: {error}"),
            };
            producer.enqueue_with(record, told).await?;
        } else {
            // Dropped on purpose: the hook hears of it.
            drop(producer.enqueue(record).await?);
        }
    }
    producer.close().await
}
