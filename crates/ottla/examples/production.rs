//! A producer for one topic, as a service would hold it: the topic made on start, the `production`
//! preset, failures in a dead letter topic, an error log, and figures.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example production`

use ottla::{
    CleanupPolicy, Client, DeadLetters, DeliveryHook, Failed, NewTopic, Preset, Producer, Record,
};
use std::time::Duration;

/// Sends to one topic. Clones share one producer.
#[derive(Clone)]
struct Orders {
    producer: Producer,
}

struct ErrorLog;

impl DeliveryHook for ErrorLog {
    fn on_failed(&self, batch: &Failed<'_>) {
        let (topic, partition) = (batch.topic, batch.partition);
        let count = batch.record_count;
        eprintln!(
            "{topic}[{partition}]: {count} records failed: {}",
            batch.error
        );
    }
}

impl Orders {
    const TOPIC: &str = "orders";

    async fn open(client: &Client) -> ottla::Result<Self> {
        let topic = NewTopic::new(Self::TOPIC).cleanup_policy(CleanupPolicy::Delete);
        let producer = client
            .producer()
            .preset(Preset::Production)
            .linger(Duration::from_millis(20))
            .ensure_topic(topic)
            .ensure_topic(NewTopic::new("orders.dlq"))
            .dead_letters(DeadLetters::new())
            .delivery_hook(ErrorLog)
            .start()
            .await?;
        producer.prepare(Self::TOPIC).await?;
        Ok(Self { producer })
    }

    /// Takes a record in; waits only while the buffer is full.
    async fn send(&self, key: &str, value: &str) -> ottla::Result<()> {
        let record = Record::to(Self::TOPIC).key(key).value(value);
        // What becomes of it, the hook, the dead letters and the figures tell.
        self.producer.enqueue(record).await.map(drop)
    }

    async fn close(self) -> ottla::Result<()> {
        self.producer.flush().await?;
        let metrics = self.producer.metrics();
        println!("{:.0} records a second", metrics.records_per_second);
        println!("{:?} delivery latency at p99", metrics.delivery_latency.p99);
        println!("{:?} compression ratio", metrics.compression_ratio);
        self.producer.close().await
    }
}

#[tokio::main]
async fn main() -> ottla::Result<()> {
    // KAFKA_BOOTSTRAP_SERVERS, KAFKA_CLIENT_ID, KAFKA_LINGER_MS ...
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let orders = Orders::open(&client).await?;
    for number in 0..100_000 {
        let key = format!("customer-{}", number % 1_000);
        orders.send(&key, "one coffee").await?;
    }
    orders.close().await
}
