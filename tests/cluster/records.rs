//! What ours writes others read, and the other way round, to the byte.

use crate::corpus::{Line, Reading, as_file, lines};
use crate::foreign::{CODECS, Seen, java_reads, java_writes, kcat_reads, kcat_writes};
use crate::kafka::Kafka;
use ottla::consumer::Start;
use ottla::{Client, Producer, Record, TopicPartition};
use std::time::Duration;
use tokio::time::timeout;

const COUNT: usize = 20_000;
const PARTITIONS: i32 = 3;

fn producer(client: &Client, codec: &str) -> Producer {
    let builder = client.producer().property("compression.type", codec);
    builder.unwrap().build().unwrap()
}

/// Writes the lines with our producer; each has to be acknowledged.
async fn ours_writes(producer: Producer, topic: &str, lines: impl Iterator<Item = Line>) {
    let mut deliveries = Vec::new();
    for Line { key, value } in lines {
        let record = Record::to(topic).key(key).value(value);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for delivery in deliveries {
        assert!(delivery.await.unwrap().offset.is_some());
    }
    producer.close().await.unwrap();
}

/// Reads the topic with our consumer until nothing is missing, and looks whether there is more.
async fn ours_reads(client: &Client, topic: &str, reading: &mut Reading) {
    let partition = |number| (TopicPartition::new(topic, number), Start::Offset(0, None));
    let partitions = (0..PARTITIONS).map(partition);
    let consumer = client.consumer().unwrap().assign(partitions);
    let mut consumer = consumer.build().await.unwrap();
    let all = async {
        while reading.missing() > 0 {
            for record in consumer.poll(1000, Duration::from_secs(30)).await.unwrap() {
                let key = record.key.as_deref().unwrap();
                let value = record.value.as_deref().unwrap();
                reading.saw(record.partition(), record.offset, key, value);
            }
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
    let more = consumer.poll(1, Duration::from_millis(700)).await.unwrap();
    assert!(more.is_empty(), "a record too many: {more:?}");
    consumer.close().await.unwrap();
}

fn saw(reading: &mut Reading) -> impl FnMut(Seen<'_>) {
    |seen| reading.saw(seen.partition, seen.offset, seen.key, seen.value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn kcat_reads_exactly_what_ours_writes_with_every_codec() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    for codec in CODECS {
        let topic = kafka.topic(&client, "ours-to-kcat", PARTITIONS).await;
        ours_writes(producer(&client, codec), &topic, lines(COUNT)).await;
        let mut reading = Reading::of(lines(COUNT));
        kcat_reads(&kafka.bootstrap, &topic, saw(&mut reading)).await;
        assert_eq!(reading.missing(), 0, "{codec}: records are missing");
        client.topics().delete(&topic).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn java_reads_exactly_what_ours_writes_with_every_codec() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "ours-to-java", PARTITIONS).await;
    // One after the other into one topic: each part is acknowledged before the next begins.
    for (part, codec) in CODECS.iter().enumerate() {
        let lines = lines(COUNT).skip(part * COUNT / 5).take(COUNT / 5);
        ours_writes(producer(&client, codec), &topic, lines).await;
    }
    let mut reading = Reading::of(lines(COUNT));
    java_reads(&kafka, &topic, saw(&mut reading)).await;
    assert_eq!(reading.missing(), 0, "records are missing");
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn ours_reads_exactly_what_kcat_writes_with_every_codec() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let file = as_file(lines(COUNT));
    for codec in CODECS {
        let topic = kafka.topic(&client, "kcat-to-ours", PARTITIONS).await;
        kcat_writes(&kafka.bootstrap, &topic, codec, &file).await;
        let mut reading = Reading::of(lines(COUNT));
        ours_reads(&client, &topic, &mut reading).await;
        client.topics().delete(&topic).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn ours_reads_exactly_what_java_writes_and_puts_each_key_where_java_does() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let javas = kafka.topic(&client, "java-to-ours", PARTITIONS).await;
    let ours = kafka.topic(&client, "ours-beside-java", PARTITIONS).await;
    // One after the other into one topic, a fifth with each codec.
    for (part, codec) in CODECS.iter().enumerate() {
        let lines = lines(COUNT).skip(part * COUNT / 5).take(COUNT / 5);
        java_writes(&kafka, &javas, codec, &as_file(lines)).await;
    }
    let mut from_java = Reading::of(lines(COUNT));
    ours_reads(&client, &javas, &mut from_java).await;
    ours_writes(producer(&client, "none"), &ours, lines(COUNT)).await;
    let mut from_ours = Reading::of(lines(COUNT));
    ours_reads(&client, &ours, &mut from_ours).await;
    assert_eq!(from_ours.places(), from_java.places());
    for topic in [javas, ours] {
        client.topics().delete(&topic).await.unwrap();
    }
}
