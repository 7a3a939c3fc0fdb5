//! Sends more to the partitions whose consumers keep up: watches the lag of the group `billing` and
//! chooses partitions by it.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example lag_aware`

use ottla::{Client, LagAware, Record};

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let lag = client.lag("billing").topics(["orders"]).start().await?;
    let steering = LagAware::new(lag.plan());
    let producer = client.producer().partitioner(steering).build()?;
    let mut sent = std::collections::BTreeMap::new();
    for number in 0..10_000 {
        let value = number.to_string();
        let delivery = producer.enqueue(Record::to("orders").value(&value)).await?;
        *sent.entry(delivery.partition()).or_insert(0) += 1;
    }
    producer.flush().await?;
    for (partition, count) in sent {
        println!("partition {partition}: {count} records");
    }
    producer.close().await
}
