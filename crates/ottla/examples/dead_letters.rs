//! Records that a topic refuses for good go to its dead letter topic, with their own bytes and with
//! headers that say why.
//!
//! `KAFKA_BOOTSTRAP_SERVERS=localhost:9092 cargo run --example dead_letters`

use ottla::{Client, DeadLetters, NewTopic, Record};

#[tokio::main]
async fn main() -> ottla::Result<()> {
    let client = Client::builder("localhost:9092")
        .properties(ottla::Properties::from_env("KAFKA_")?)
        .connect()
        .await?;
    // This topic takes no record over a hundred bytes; its dead letter topic takes any.
    let narrow = NewTopic::new("narrow").config("max.message.bytes", "100");
    let producer = client
        .producer()
        .ensure_topic(narrow)
        .ensure_topic(NewTopic::new("narrow.dlq"))
        .dead_letters(DeadLetters::new())
        .start()
        .await?;
    let long = "long ".repeat(100);
    for value in ["short", &long] {
        match producer
            .send(Record::to("narrow").key("k").value(value))
            .await
        {
            Ok(metadata) => println!("{} bytes: at {:?}", value.len(), metadata.offset),
            Err(error) => println!("{} bytes: {error}", value.len()),
        }
    }
    println!("dead letters: {}", producer.metrics().dead_letters_written);
    producer.close().await
}
