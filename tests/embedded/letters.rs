//! What becomes of records that fail for good, beyond their dead letters.

use ottla::partitioner::Sticky;
use ottla::{DeadLetters, NewTopic, Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;
use std::time::Duration;
use tokio::time::Instant;

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

#[tokio::test(start_paused = true)]
async fn a_record_that_failed_for_good_is_sent_in_more_rounds_before_it_is_a_dead_letter() {
    const REST: Duration = Duration::from_secs(30);
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let builder = builder.topic("orders", 1).topic("orders.dlq", 1);
    let cluster = builder.start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let policy = DeadLetters::new().resend(2, REST);
    let producer = client.producer().dead_letters(policy).build().unwrap();
    producer.prepare("orders").await.unwrap();
    let refuse = |times| {
        let produce = cluster.faults().on(ApiKey::Produce).times(times);
        produce.error(Code::TOPIC_AUTHORIZATION_FAILED)
    };
    // Mended in time: the permission came.
    let refused = refuse(2);
    let begun = Instant::now();
    let sent = producer.send(Record::to("orders").value("late")).await;
    assert_eq!((sent.unwrap().offset, refused.fired()), (Some(0), 2));
    assert!(begun.elapsed() >= 2 * REST);
    // Not mended: a dead letter after the last round.
    let refused = refuse(3);
    let begun = Instant::now();
    let error = producer
        .send(Record::to("orders").value("never"))
        .await
        .unwrap_err();
    assert!(begun.elapsed() >= 2 * REST && begun.elapsed() < 3 * REST);
    assert_eq!(
        (error.write_outcome(), refused.fired()),
        (Some(WriteOutcome::NotWritten), 3)
    );
    let letter = cluster.log("orders.dlq", 0).remove(0);
    assert_eq!(letter.value.as_deref(), Some(&b"never"[..]));
    let attempts = ("__dlq.errors.attempts".to_owned(), Some(b"3".to_vec()));
    assert!(letter.headers.contains(&attempts), "{letter:?}");
    // What may be written is never sent again.
    let lost = cluster.faults().on(ApiKey::Produce);
    let _ = lost.append_then_error(Code::UNKNOWN_SERVER_ERROR);
    let begun = Instant::now();
    producer
        .send(Record::to("orders").value("unknown"))
        .await
        .unwrap_err();
    assert!(begun.elapsed() < REST);
    // Who closes does not wait.
    let refused = refuse(2);
    let record = Record::to("orders").value("at the end");
    let delivery = producer.enqueue(record).await.unwrap();
    tokio::time::sleep(REST / 2).await;
    let begun = Instant::now();
    producer.close().await.unwrap();
    assert!(begun.elapsed() < REST / 4);
    assert_eq!(
        (delivery.outcome().unwrap().is_err(), refused.fired()),
        (true, 2)
    );
    assert_eq!(cluster.log("orders.dlq", 0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_sent_again_tells_that_its_leader_takes_nothing() {
    const REST: Duration = Duration::from_secs(30);
    let cluster = Cluster::builder().nodes(3).in_memory();
    let cluster = cluster.topic("orders", 3).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let policy = DeadLetters::new().resend(1, REST);
    let builder = client.producer().dead_letters(policy);
    let sticky = Sticky::default().availability_timeout(Duration::from_secs(2));
    let producer = builder.partitioner(sticky).build().unwrap();
    producer.prepare("orders").await.unwrap();
    let refused = cluster.faults().on(ApiKey::Produce);
    let refused = refused.error(Code::TOPIC_AUTHORIZATION_FAILED);
    let record = Record::to("orders").partition(0).value("v");
    let delivery = producer.enqueue(record).await.unwrap();
    tokio::time::sleep(REST / 2).await;
    assert_eq!((refused.fired(), delivery.outcome().is_none()), (1, true));
    cluster.freeze_metadata();
    let leader = cluster.leader("orders", 0).unwrap();
    cluster.stop_node(leader).await.unwrap();
    // The lost connection is found out by this one.
    let record = Record::to("orders").partition(0).value("v");
    drop(producer.enqueue(record).await.unwrap());
    tokio::time::sleep(REST).await;
    // Records without a key keep away from it.
    let begun = Instant::now();
    for _ in 0..40 {
        producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn records_that_rest_when_the_producers_runtime_ends_are_counted_as_failed() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let (producer, delivery) = runtime.block_on(async {
        let cluster = Cluster::builder().nodes(1).in_memory();
        let cluster = cluster.topic("orders", 1).start().await.unwrap();
        let client = client(&cluster).connect().await.unwrap();
        let policy = DeadLetters::new().resend(1, Duration::from_secs(30));
        let producer = client.producer().dead_letters(policy).build().unwrap();
        producer.prepare("orders").await.unwrap();
        let refused = cluster.faults().on(ApiKey::Produce);
        let _ = refused.error(Code::TOPIC_AUTHORIZATION_FAILED);
        let record = Record::to("orders").value("v");
        let delivery = producer.enqueue(record).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(producer.metrics().records_pending, 1);
        (producer, delivery)
    });
    drop(runtime);
    let error = delivery.outcome().unwrap().unwrap_err();
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    let metrics = producer.metrics();
    let counts = (metrics.records_pending, metrics.records_not_written);
    assert_eq!((counts, metrics.buffer_used_bytes), ((0, 1), 0));
}

/// The leader of the dead letters hangs and its part of the buffer is full: batches that fail
/// together wait for room together, and not one after the other.
#[tokio::test(start_paused = true)]
async fn dead_letters_that_find_no_room_wait_for_it_once() {
    let builder = Cluster::builder().nodes(2).in_memory();
    let builder = builder.topic("orders", 2).topic("orders.dlq", 1);
    let cluster = builder.start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let max_block = Duration::from_secs(10);
    let builder = client.producer().dead_letters(DeadLetters::new());
    let builder = builder.buffer_bytes(1 << 20).batch_bytes(1_000);
    let builder = builder.property("max.block.ms", "10000").unwrap();
    let producer = builder.build().unwrap();
    for topic in ["orders", "orders.dlq"] {
        producer.prepare(topic).await.unwrap();
    }
    let stuck = cluster.leader("orders.dlq", 0);
    let well = |partition: &i32| cluster.leader("orders", *partition) != stuck;
    let partition = (0..2).find(well).unwrap();
    let value = [b'v'; 900];
    let record = || Record::to("orders").partition(partition).value(&value);
    producer.send(record()).await.unwrap();
    cluster.freeze_node(stuck.unwrap()).unwrap();
    while let Ok(delivery) = producer.try_enqueue(Record::to("orders.dlq").value(&value)) {
        drop(delivery);
    }
    let produce = cluster.faults().on(ApiKey::Produce).always();
    let _ = produce.error(Code::TOPIC_AUTHORIZATION_FAILED);
    let mut deliveries = Vec::new();
    for _ in 0..8 {
        deliveries.push(producer.enqueue(record()).await.unwrap());
    }
    let begun = Instant::now();
    for delivery in deliveries {
        delivery.await.unwrap_err();
    }
    let waited = begun.elapsed();
    assert!(
        waited >= max_block / 2 && waited < 2 * max_block,
        "{waited:?}"
    );
}

/// Large batches that find no place among the dead letters that are on their way stand between small
/// ones, and all wait for the topic: who waits for it is woken in any order.
#[tokio::test(start_paused = true)]
async fn dead_letters_stand_in_order_when_batches_between_them_have_none() {
    const BETWEEN: u8 = 8;
    let builder = Cluster::builder().nodes(1).in_memory();
    let builder = builder.topic("orders", 1).auto_create_topics(false);
    let cluster = builder.start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let builder = client.producer().dead_letters(DeadLetters::new());
    let builder = builder.buffer_bytes(1 << 17).batch_bytes(1_000);
    let producer = builder.build().unwrap();
    producer.prepare("orders").await.unwrap();
    let refused = cluster.faults().on(ApiKey::Produce).always();
    let refused = refused.error(Code::TOPIC_AUTHORIZATION_FAILED);
    for number in 0..=2 * BETWEEN {
        let is_large = number == 0 || number % 2 == 1;
        let size = if is_large { 80_000 } else { 600 };
        let value = vec![number; size];
        let record = Record::to("orders").value(&value);
        drop(producer.enqueue(record).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(refused.fired(), 2 * u64::from(BETWEEN) + 1);
    cluster.faults().clear();
    cluster.create_topic("orders.dlq", 1).unwrap();
    producer.flush().await.unwrap();
    let values = cluster.log("orders.dlq", 0).into_iter();
    let numbers: Vec<u8> = values.map(|letter| letter.value.unwrap()[0]).collect();
    let with_place: Vec<u8> = (0..=2 * BETWEEN).step_by(2).collect();
    assert_eq!(numbers, with_place);
    let metrics = producer.metrics();
    assert_eq!(
        (metrics.dead_letters_lost, metrics.buffer_used_bytes),
        (u64::from(BETWEEN), 0)
    );
}
