//! Bug classes 7, 12, 13 and 22: topics that come back, leaders and epochs, new partitions.

use super::{connect, numbers, orders, settle};
use ottla::Record;
use ottla_broker::{ApiKey, Cluster, FirstSequence};
use ottla_tests::client;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn bug_07_a_topic_that_vanishes_and_returns_takes_no_records() {
    let builder = Cluster::builder()
        .nodes(3)
        .replication(3)
        .topic("orders", 1);
    let builder = builder.first_sequence(FirstSequence::Zero).in_memory();
    let cluster = builder.start().await.unwrap();
    let producer = connect(&cluster).await.build().unwrap();
    for number in 0..3u32 {
        let value = number.to_be_bytes();
        let record = Record::to("orders").partition(0).value(&value);
        producer.send(record).await.unwrap();
    }
    cluster.delete_topic("orders").unwrap();
    let mut waiting = Vec::new();
    for number in 3..6u32 {
        let value = number.to_be_bytes();
        let record = Record::to("orders").partition(0).value(&value);
        waiting.push(producer.enqueue(record).await.unwrap());
        tokio::time::sleep(SECOND / 2).await;
    }
    cluster.create_topic("orders", 1).unwrap();
    let begun = Instant::now();
    settle(waiting).await;
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(numbers(&cluster, 0), [3, 4, 5]);
    assert_eq!(cluster.log("orders", 0)[0].sequence, 0);
}

#[tokio::test(start_paused = true)]
async fn bug_12_metadata_with_an_older_leader_epoch_is_followed_in_circles() {
    let cluster = orders(1).await;
    let producer = connect(&cluster).await.build().unwrap();
    let send = || producer.send(Record::to("orders").partition(0).value("v"));
    send().await.unwrap();
    let old = cluster.leader("orders", 0).unwrap();
    cluster.freeze_metadata();
    cluster.move_leader("orders", 0, (old + 1) % 3).unwrap();
    let before = cluster.requests(ApiKey::Produce);
    let begun = Instant::now();
    for _ in 0..10 {
        send().await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    // One request finds out that the leader has moved; metadata goes on to name the old one.
    assert!(cluster.requests(ApiKey::Produce) - before <= 12);
    assert!(begun.elapsed() < 12 * SECOND);
    assert_eq!(cluster.log("orders", 0).len(), 11);
}

#[tokio::test(start_paused = true)]
async fn bug_12_a_false_leader_named_with_a_high_epoch_stays_for_good() {
    // A node that does not lead, and one that is not there.
    for step in [1, 7] {
        let cluster = orders(1).await;
        let producer = connect(&cluster).await.build().unwrap();
        let send = || producer.send(Record::to("orders").partition(0).value("v"));
        send().await.unwrap();
        let leader = cluster.leader("orders", 0).unwrap();
        let wrong = if step == 1 { (leader + 1) % 3 } else { step };
        let faults = cluster.faults();
        let fault = faults.on(ApiKey::Produce).name_leader(wrong, i32::MAX);
        let begun = Instant::now();
        send().await.unwrap();
        assert_eq!(fault.fired(), 1);
        assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
        // From then on hints are followed at once again.
        cluster.freeze_metadata();
        cluster.move_leader("orders", 0, (leader + 2) % 3).unwrap();
        let before = cluster.requests(ApiKey::Produce);
        let begun = Instant::now();
        send().await.unwrap();
        assert!(begun.elapsed() < SECOND / 10, "{:?}", begun.elapsed());
        assert_eq!(cluster.requests(ApiKey::Produce) - before, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn bug_12_a_topic_made_anew_without_ids_is_without_a_leader_for_good() {
    // So quickly that nobody saw it gone, and so slowly that it was believed to be gone.
    for gone in [Duration::ZERO, 20 * SECOND] {
        let builder = Cluster::builder().nodes(3).replication(3).topic_ids(false);
        let builder = builder.topic("orders", 3).in_memory();
        let cluster = builder.start().await.unwrap();
        let producer = connect(&cluster).await.build().unwrap();
        let values: Vec<[u8; 4]> = (0..36i32).map(i32::to_be_bytes).collect();
        let record = |number: i32| {
            let record = Record::to("orders").partition(number % 3);
            record.value(&values[number as usize])
        };
        let leaders: Vec<i32> = (0..3)
            .map(|number| cluster.leader("orders", number).unwrap())
            .collect();
        for number in 0..30 {
            let partition = number % 3;
            // Moved on, and away from where it will begin anew.
            let to = (leaders[partition as usize] + 1 + number / 3 % 2) % 3;
            let _ = cluster.move_leader("orders", partition, to);
            producer.send(record(number)).await.unwrap();
        }
        cluster.delete_topic("orders").unwrap();
        let waiting = producer.enqueue(record(30)).await.unwrap();
        tokio::time::sleep(gone).await;
        cluster.create_topic("orders", 3).unwrap();
        assert_eq!(cluster.leader_epoch("orders", 0), Some(0));
        let begun = Instant::now();
        waiting.await.unwrap();
        for number in 31..36 {
            producer.send(record(number)).await.unwrap();
        }
        assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
        for partition in 0..3 {
            let log = numbers(&cluster, partition).into_iter();
            let wanted = (30..36).filter(|number| number % 3 == partition as u32);
            assert!(log.eq(wanted), "partition {partition}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bug_13_a_partition_without_a_leader_is_frozen_for_good() {
    let builder = Cluster::builder()
        .nodes(3)
        .replication(3)
        .topic("orders", 1);
    let builder = builder.election_delay(4 * SECOND).in_memory();
    let cluster = builder.start().await.unwrap();
    let producer = connect(&cluster).await.build().unwrap();
    let send = || producer.send(Record::to("orders").partition(0).value("v"));
    send().await.unwrap();
    let leader = cluster.leader("orders", 0).unwrap();
    cluster.stop_node(leader).await.unwrap();
    assert_eq!(cluster.leader("orders", 0), None);
    let begun = Instant::now();
    send().await.unwrap();
    assert!(begun.elapsed() < 6 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(cluster.log("orders", 0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn bug_22_a_partition_that_was_added_is_not_seen() {
    let cluster = orders(2).await;
    let builder = client(&cluster).property("metadata.max.age.ms", "1000");
    let client = builder.unwrap().connect().await.unwrap();
    // Records without a key change their partition with the batch.
    let producer = client.producer().batch_bytes(200).build().unwrap();
    let before = producer.send(Record::to("orders").key("k-7").value("v"));
    let before = before.await.unwrap().partition;
    assert_eq!(before, ottla::partitioner::java_partition(b"k-7", 2));
    cluster.add_partitions("orders", 5).unwrap();
    tokio::time::sleep(3 * SECOND).await;
    for number in 0..200 {
        let key = format!("k-{number}");
        let record = Record::to("orders").key(&key).value("v");
        let partition = producer.send(record).await.unwrap().partition;
        assert_eq!(
            partition,
            ottla::partitioner::java_partition(key.as_bytes(), 5)
        );
    }
    for _ in 0..300 {
        producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
    }
    let unkeyed = |partition| {
        let log = cluster.log("orders", partition);
        log.iter().filter(|record| record.key.is_none()).count()
    };
    let counts: Vec<usize> = (0..5).map(unkeyed).collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
