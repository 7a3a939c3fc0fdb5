//! What those who run a producer expect of it, on a real cluster.

use crate::kafka::{Kafka, unique};
use ottla::{CleanupPolicy, Compression, DeadLetters, Ensured, NewTopic, Record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_topic_is_ensured_by_many_at_once_and_what_differs_is_told() {
    let client = Kafka::here().client().await;
    let topic = unique("ensured");
    let order = NewTopic::new(topic.as_str()).partitions(4).replication(2);
    let order = order.cleanup_policy(CleanupPolicy::Compact);
    let start = || client.producer().ensure_topic(order.clone()).start();
    let (one, two, three) = tokio::join!(start(), start(), start());
    for producer in [one, two, three] {
        let producer = producer.unwrap();
        let record = Record::to(&topic).key("k").value("v");
        producer.send(record).await.unwrap();
        producer.close().await.unwrap();
    }
    let again = client.topics().ensure(order).await.unwrap();
    let differences = Vec::new();
    assert_eq!(again, Ensured::Existed { differences });
    let other = NewTopic::new(topic.as_str()).partitions(5);
    // The second is the cluster's default, which the topic has without being told.
    let other = other
        .cleanup_policy(CleanupPolicy::Delete)
        .config("min.insync.replicas", "1");
    let Ensured::Existed { differences } = client.topics().ensure(other).await.unwrap() else {
        panic!("it was there");
    };
    let expected = [
        "partitions is 4, not 5",
        "cleanup.policy is compact, not delete",
    ];
    assert_eq!(differences[..2], expected, "{differences:?}");
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn of_records_that_a_topic_finds_too_large_only_those_lie_in_its_dead_letter_topic() {
    let client = Kafka::here().client().await;
    let topic = unique("narrow");
    let letters = format!("{topic}.dlq");
    for codec in [Compression::None, Compression::Lz4] {
        let narrow = NewTopic::new(topic.as_str()).partitions(1);
        let builder = client.producer().compression(codec);
        let builder = builder.ensure_topic(narrow.config("max.message.bytes", "2000"));
        let builder = builder.ensure_topic(NewTopic::new(letters.as_str()).partitions(1));
        let producer = builder.dead_letters(DeadLetters::new());
        let producer = producer.start().await.unwrap();
        producer.prepare(&topic).await.unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut deliveries = Vec::new();
        for number in 0..100 {
            let bytes = if number % 10 == 5 { 5_000 } else { 50 };
            let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(bytes)
                .collect();
            let record = Record::to(&topic).value(&value);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        producer.flush().await.unwrap();
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let outcome = delivery.outcome().unwrap();
            assert_eq!(outcome.is_err(), number % 10 == 5, "{number}: {outcome:?}");
        }
        assert_eq!(producer.metrics().dead_letters_written, 10);
        producer.close().await.unwrap();
    }
    for topic in [topic, letters] {
        client.topics().delete(&topic).await.unwrap();
    }
}
