//! Sends one record with a key and headers, waits for its acknowledgement, and says where it lies.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example send`

use ottla::{Client, Record};

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let producer = client.producer().build()?;
    // Records of one key go to one partition, in their order: the one that Java would choose too.
    for customer in ["ada", "grace", "ada"] {
        let record = Record::to("orders")
            .key(customer)
            .value("one coffee")
            .header("source", "example")
            .header("version", "1");
        let metadata = producer.send(record).await?;
        let (partition, offset) = (metadata.partition, metadata.offset.unwrap_or(-1));
        println!("{customer}: orders[{partition}] @ {offset}");
    }
    producer.close().await
}
