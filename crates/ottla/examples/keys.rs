//! Records with the same key go to the same partition, so their order stays: the partition follows
//! from the key's hash alone, for as long as the topic keeps its number of partitions.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example keys`

use ottla::partitioner::java_partition;
use ottla::{Client, DeliveryLog, NewTopic, Record};

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    let producer = client
        .producer()
        .ensure_topic(NewTopic::new("customers").partitions(6))
        .delivery_hook(DeliveryLog)
        .start()
        .await?;
    for round in ["created", "changed", "deleted"] {
        for customer in ["ada", "grace", "edsger"] {
            let record = Record::to("customers").key(customer).value(round);
            let lies = producer.send(record).await?;
            // Where the Java client would send it too.
            let expected = java_partition(customer.as_bytes(), 6);
            println!(
                "{customer} {round}: partition {} (the hash says {expected})",
                lies.partition
            );
        }
    }
    producer.close().await
}
