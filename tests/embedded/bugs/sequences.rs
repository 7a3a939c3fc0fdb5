//! Bug classes 1 to 6: sequences, epochs, and the bytes behind them.

use super::{connect, numbers, orders, settle, value};
use ottla::{Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code, FirstSequence};
use std::time::Duration;

/// Enqueues numbered records, a batch each.
async fn enqueue(producer: &ottla::Producer, range: std::ops::Range<u32>) -> Vec<ottla::Delivery> {
    let mut deliveries = Vec::new();
    for number in range {
        let value = number.to_be_bytes();
        let record = Record::to("orders").partition(0).value(&value);
        deliveries.push(producer.enqueue(record).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    deliveries
}

#[tokio::test(start_paused = true)]
async fn bug_01_first_batch_sequence_hole_on_a_fresh_partition() {
    for rule in [FirstSequence::Any, FirstSequence::Zero] {
        let builder = Cluster::builder().nodes(3).replication(3).in_memory();
        let builder = builder.topic("orders", 1).first_sequence(rule);
        let cluster = builder.start().await.unwrap();
        let producer = connect(&cluster)
            .await
            .linger(Duration::ZERO)
            .build()
            .unwrap();
        let faults = cluster.faults();
        let _ = faults.on(ApiKey::Produce).error(Code::NOT_ENOUGH_REPLICAS);
        let distance = Duration::from_millis(50);
        let _ = faults.on(ApiKey::Produce).always().delay(distance);
        // The first batch is refused: one that overtook it would take its place.
        let deliveries = enqueue(&producer, 0..20).await;
        settle(deliveries).await;
        assert_eq!(
            numbers(&cluster, 0),
            (0..20).collect::<Vec<_>>(),
            "{rule:?}"
        );
        assert_eq!(cluster.log("orders", 0)[0].sequence, 0);
    }
}

/// Five batches are in flight when the partition moves to a leader that does not have the first of
/// them: it refuses the others, and must not be left with one of them in the first one's place.
#[tokio::test(start_paused = true)]
async fn bug_01_first_batch_sequence_hole_on_a_moved_partition() {
    for proven in [0, 3] {
        let cluster = orders(1).await;
        let builder = connect(&cluster).await.linger(Duration::ZERO);
        let producer = builder.build().unwrap();
        settle(enqueue(&producer, 0..proven).await).await;
        let faults = cluster.faults();
        let lost = faults.on(ApiKey::Produce).append_then_truncate();
        let distance = Duration::from_millis(50);
        let _ = faults.on(ApiKey::Produce).always().delay(distance);
        settle(enqueue(&producer, proven..30).await).await;
        assert_eq!(lost.fired(), 1);
        assert_eq!(numbers(&cluster, 0), (0..30).collect::<Vec<_>>());
    }
}

/// The first of five batches is in the log, the others are not, and all of them expire.
#[tokio::test(start_paused = true)]
async fn bug_02_batches_that_expire_in_an_outage_make_the_producer_useless() {
    for rule in [FirstSequence::Any, FirstSequence::Zero] {
        let builder = Cluster::builder().nodes(3).replication(3).in_memory();
        let builder = builder.topic("orders", 1).first_sequence(rule);
        let cluster = builder.start().await.unwrap();
        let builder = connect(&cluster).await.linger(Duration::ZERO);
        let builder = builder.delivery_timeout(Duration::from_secs(5));
        let producer = builder.build().unwrap();
        settle(enqueue(&producer, 0..3).await).await;
        let faults = cluster.faults();
        let produce = || faults.on(ApiKey::Produce);
        let _ = produce().apply_then_lose_answer();
        let outage = produce().always().disconnect_before_apply();
        for expired in enqueue(&producer, 3..8).await {
            assert!(expired.await.unwrap_err().write_outcome().is_some());
        }
        assert!(outage.fired() > 1);
        faults.clear();
        let begun = tokio::time::Instant::now();
        settle(enqueue(&producer, 8..30).await).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        let wanted: Vec<u32> = (0..4).chain(8..30).collect();
        assert_eq!(numbers(&cluster, 0), wanted, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bug_02_a_sequence_refused_after_an_outage_makes_the_producer_useless() {
    let cluster = orders(1).await;
    let producer = connect(&cluster).await.build().unwrap();
    settle(enqueue(&producer, 0..3).await).await;
    let refused = cluster.faults().on(ApiKey::Produce).times(2);
    let refused = refused.error(Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let begun = tokio::time::Instant::now();
    settle(enqueue(&producer, 3..6).await).await;
    assert!(refused.fired() > 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(numbers(&cluster, 0), (0..6).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn bug_03_the_sequence_of_an_idle_partition_is_wrong_after_another_ones_new_epoch() {
    let cluster = orders(2).await;
    let producer = connect(&cluster).await.build().unwrap();
    let send = |partition| {
        let record = Record::to("orders").partition(partition);
        producer.send(record.value("v"))
    };
    for partition in [0, 1, 0, 1] {
        send(partition).await.unwrap();
    }
    let _ = cluster
        .faults()
        .on(ApiKey::Produce)
        .error(Code::INVALID_RECORD);
    send(0).await.unwrap_err();
    for partition in [0, 1, 0, 1] {
        send(partition).await.unwrap();
    }
    let stamps = |partition| {
        let log = cluster.log("orders", partition).into_iter();
        log.map(|r| (r.epoch, r.sequence)).collect::<Vec<_>>()
    };
    assert_eq!(stamps(0), [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert_eq!(stamps(1), [(0, 0), (0, 1), (0, 2), (0, 3)]);
}

#[tokio::test(start_paused = true)]
async fn bug_04_an_unknown_producer_id_after_retention_fails_the_record() {
    let cluster = orders(1).await;
    let producer = connect(&cluster).await.build().unwrap();
    settle(enqueue(&producer, 0..2).await).await;
    let _ = cluster
        .faults()
        .on(ApiKey::Produce)
        .error(Code::UNKNOWN_PRODUCER_ID);
    settle(enqueue(&producer, 2..4).await).await;
    assert_eq!(numbers(&cluster, 0), [0, 1, 2, 3]);
    let last = cluster.log("orders", 0).pop().unwrap();
    assert!(last.epoch > 0, "the sequences began anew: {last:?}");
}

/// What the broker has forgotten may be what it holds: sent once more under another epoch, the record
/// would be there twice.
#[tokio::test(start_paused = true)]
async fn bug_04_an_unknown_producer_id_after_a_lost_answer_repeats_the_record() {
    let cluster = orders(1).await;
    let producer = connect(&cluster).await.build().unwrap();
    settle(enqueue(&producer, 0..2).await).await;
    let faults = cluster.faults();
    let _ = faults.on(ApiKey::Produce).apply_then_lose_answer();
    let forgotten = faults.on(ApiKey::Produce);
    let forgotten = forgotten.error(Code::UNKNOWN_PRODUCER_ID);
    let doubted = enqueue(&producer, 2..3).await.remove(0).await.unwrap_err();
    assert_eq!(forgotten.fired(), 1);
    assert_eq!(doubted.write_outcome(), Some(WriteOutcome::Unknown));
    settle(enqueue(&producer, 3..6).await).await;
    assert_eq!(numbers(&cluster, 0), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn bug_05_new_records_are_dropped_as_duplicates_of_one_that_expired() {
    let cluster = orders(1).await;
    // Longer than the longest pause between two connections, for the record that comes after.
    let builder = connect(&cluster)
        .await
        .delivery_timeout(Duration::from_secs(4));
    let producer = builder.build().unwrap();
    settle(enqueue(&producer, 0..1).await).await;
    let faults = cluster.faults();
    let _ = faults.on(ApiKey::Produce).apply_then_lose_answer();
    let _ = faults
        .on(ApiKey::Produce)
        .always()
        .disconnect_before_apply();
    let expired = enqueue(&producer, 1..2).await.pop().unwrap();
    let error = expired.await.unwrap_err();
    assert_eq!(
        error.write_outcome(),
        Some(WriteOutcome::Unknown),
        "{error}"
    );
    faults.clear();
    let new = enqueue(&producer, 2..3).await.pop().unwrap();
    assert_eq!(new.await.unwrap().offset, Some(2));
    assert_eq!(numbers(&cluster, 0), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn bug_06_a_buffer_is_used_again_while_its_batch_is_in_flight() {
    let cluster = orders(2).await;
    cluster.create_topic("payments", 2).unwrap();
    let builder = connect(&cluster).await.buffer_bytes(64 << 10);
    let producer = builder.linger(Duration::ZERO).build().unwrap();
    let faults = cluster.faults();
    let mut dice = fastrand::Rng::with_seed(6);
    let mut deliveries = Vec::new();
    for number in 0..400u32 {
        let topic = ["orders", "payments"][number as usize % 2];
        let partition = dice.i32(0..2);
        let value = value(number, 3_000);
        let record = Record::to(topic).partition(partition).value(&value);
        deliveries.push(producer.enqueue(record).await.unwrap());
        if number % 20 == 0 {
            let _ = faults.on(ApiKey::Produce).apply_then_lose_answer();
        }
    }
    settle(deliveries).await;
    let mut seen = 0;
    for (topic, rest) in [("orders", 0), ("payments", 1)] {
        for record in (0..2).flat_map(|partition| cluster.log(topic, partition)) {
            let stored = record.value.unwrap();
            let number = u32::from_be_bytes(stored[..4].try_into().unwrap());
            assert_eq!(stored, value(number, 3_000));
            assert_eq!(number % 2, rest, "{topic} holds another topic's record");
            seen += 1;
        }
    }
    assert_eq!(seen, 400);
}
