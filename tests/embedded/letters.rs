//! What becomes of records that fail for good, beyond their dead letters.

use ottla::{DeadLetters, NewTopic, Record, WriteOutcome};
use ottla_broker::Cluster;
use ottla_tests::client;

#[tokio::test(start_paused = true)]
async fn a_record_that_the_broker_finds_wrong_goes_to_the_dead_letters_alone() {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let cluster = builder.topic("compact.dlq", 1).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let compact = NewTopic::new("compact").partitions(1);
    let compact = compact.config("cleanup.policy", "compact");
    client.topics().create(compact).await.unwrap();
    let builder = client.producer().dead_letters(DeadLetters::new());
    let producer = builder.build().unwrap();
    producer.prepare("compact").await.unwrap();
    let mut deliveries = vec![];
    for number in 0..50u8 {
        let value = [number];
        let key = [number];
        let record = Record::to("compact").value(&value);
        let record = match number {
            0 | 17 | 18 => record,
            _ => record.key(&key),
        };
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for (number, delivery) in (0u8..).zip(deliveries) {
        let outcome = delivery.outcome().unwrap();
        match number {
            0 | 17 | 18 => {
                let error = outcome.unwrap_err();
                assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
                assert!(
                    error.to_string().contains("the record has no key"),
                    "{error}"
                );
            }
            _ => {
                let offset = usize::try_from(outcome.unwrap().offset.unwrap()).unwrap();
                let log = cluster.log("compact", 0);
                assert_eq!(log[offset].value.as_deref(), Some(&[number][..]));
            }
        }
    }
    let values = |topic| {
        let log = cluster.log(topic, 0).into_iter();
        log.map(|record| record.value.unwrap()[0])
            .collect::<Vec<_>>()
    };
    assert!(values("compact").is_sorted(), "in their order");
    assert_eq!(values("compact").len(), 47);
    assert_eq!(values("compact.dlq"), [0, 17, 18]);
    assert_eq!(producer.metrics().buffer_used_bytes, 0);
}
