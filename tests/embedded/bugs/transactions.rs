//! Bug classes 8 to 11, and 3 once more: transactions.

use crate::transactions::failures::{epochs, impatient, is_indefinite};
use crate::transactions::{LEVELS, client, cluster, committed, producer, record};
use ottla::{Client, Decision, TransactionalProducer, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_proto::TopicPartition;
use ottla_proto::producer::Identity;
use ottla_proto::producer::transaction::Protocol;
use ottla_wire::api::{add_partitions_to_txn, end_txn};
use ottla_wire::{Class, Connection, CoordinatorKind};
use std::time::Duration;
use tokio::time::Instant;

/// A connection to the coordinator of a transactional id.
async fn coordinator(client: &Client, id: &str) -> Connection {
    let deadline = Instant::now() + Duration::from_secs(10);
    let kind = CoordinatorKind::Transaction;
    let node = client.cluster().coordinator(kind, id, deadline);
    let node = node.await.unwrap();
    let connection = client.cluster().connection(node, Class::Control);
    connection.await.unwrap()
}

fn identity(cluster: &Cluster, id: &str) -> Identity {
    let view = cluster.transaction(id).unwrap();
    Identity {
        producer_id: view.producer_id,
        epoch: view.epoch,
    }
}

/// Partition 1 is left alone while a transaction in partition 0 brings the next epoch.
#[tokio::test(start_paused = true)]
async fn bug_03_the_sequence_of_a_partition_that_a_transaction_left_alone_is_of_an_older_epoch() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        for partitions in [&[0, 1][..], &[0], &[1], &[0, 1]] {
            let tx = producer.begin().await.unwrap();
            for partition in partitions {
                tx.send(record(*partition, "v")).await.unwrap();
            }
            tx.commit().await.unwrap();
        }
        for partition in 0..2 {
            let log = cluster.log("out", partition).into_iter();
            let mut next = (0, 0);
            for record in log {
                // Under a new epoch from the start, under the same one from where it stood.
                next.1 = if record.epoch > next.0 { 0 } else { next.1 };
                assert_eq!(record.sequence, next.1, "level {level}");
                next = (record.epoch, record.sequence + 1);
            }
            assert_eq!(epochs(&cluster, partition).len() > 1, level == 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bug_08_an_epoch_bumped_in_mid_transaction_silently_begins_another_one() {
    for level in LEVELS {
        for code in [
            Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Code::UNKNOWN_PRODUCER_ID,
        ] {
            let cluster = cluster(level).await;
            let client = client(&cluster).await;
            let mut producer = producer(&client).await;
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, "before")).await.unwrap();
            cluster.faults().on(ApiKey::Produce).error(code);
            let lost = tx.enqueue(record(0, "lost")).await.unwrap();
            let behind = tx.enqueue(record(0, "behind")).await.unwrap();
            drop((lost.await, behind.await));
            // Written under another epoch it would be committed, and what came before it would not.
            drop(tx.send(record(0, "after")).await);
            assert!(tx.commit().await.unwrap_err().requires_abort());
            assert_eq!(producer.settle().await.unwrap(), Some(Decision::Abort));
            assert_eq!(epochs(&cluster, 0).len(), 1, "level {level}, {code}");
            assert_eq!(committed(&cluster).await, Vec::<String>::new());
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, "next")).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(committed(&cluster).await, ["next"]);
            assert_eq!(epochs(&cluster, 0).len(), 2, "level {level}, {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bug_08_a_batch_that_expires_in_mid_transaction_takes_the_whole_of_it_along() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let builder = client.transactional_producer("billing-1");
        let builder = builder.delivery_timeout(Duration::from_secs(2));
        let mut producer = builder.build().await.unwrap();
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "before")).await.unwrap();
        let faults = cluster.faults();
        faults.on(ApiKey::Produce).always().apply_then_lose_answer();
        let error = tx.send(record(0, "in doubt")).await.unwrap_err();
        assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
        faults.clear();
        let error = tx.commit().await.unwrap_err();
        assert!(error.requires_abort(), "{error}");
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "next")).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(committed(&cluster).await, ["next"], "level {level}");
        assert_eq!(cluster.last_stable("out", 0), cluster.end_offset("out", 0));
    }
}

#[tokio::test(start_paused = true)]
async fn bug_09_an_end_that_arrives_late_ends_a_later_transaction() {
    for (level, protocol) in [(1, Protocol::One), (2, Protocol::Two)] {
        for late in [Decision::Commit, Decision::Abort] {
            let cluster = cluster(level).await;
            let client = client(&cluster).await;
            let mut producer = producer(&client).await;
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, "first")).await.unwrap();
            let identity = identity(&cluster, "billing-1");
            cluster
                .faults()
                .on(ApiKey::EndTxn)
                .disconnect_before_apply();
            tx.commit().await.unwrap();
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, "second")).await.unwrap();
            let request = end_txn::Request {
                transactional_id: "billing-1".into(),
                identity,
                protocol,
                decision: late,
            };
            let connection = coordinator(&client, "billing-1").await;
            let answer = end_txn::call(&connection, &request).await.unwrap();
            assert_ne!(answer.code, ottla::Code::NONE, "level {level}, {late:?}");
            assert_eq!(cluster.transaction("billing-1").unwrap().state, "Ongoing");
            match late {
                Decision::Commit => tx.abort().await.unwrap(),
                Decision::Abort => tx.commit().await.unwrap(),
            }
            let wanted: &[&str] = match late {
                Decision::Commit => &["first"],
                Decision::Abort => &["first", "second"],
            };
            assert_eq!(committed(&cluster).await, wanted, "level {level}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bug_09_a_partition_added_late_leaves_a_transaction_open_for_ever() {
    let cluster = cluster(1).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    let tx = producer.begin().await.unwrap();
    let identity = identity(&cluster, "billing-1");
    let faults = cluster.faults();
    faults
        .on(ApiKey::AddPartitionsToTxn)
        .disconnect_before_apply();
    tx.send(record(0, "first")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(producer.settle().await.unwrap(), Some(Decision::Commit));
    // The lost request is read only now.
    let request = add_partitions_to_txn::Request {
        transactional_id: "billing-1".into(),
        identity,
        partitions: vec![TopicPartition::new("out", 0)],
    };
    let connection = coordinator(&client, "billing-1").await;
    let answer = add_partitions_to_txn::call(&connection, &request).await;
    let codes = answer.unwrap().partitions;
    assert!(codes.iter().all(|(_, code)| *code != ottla::Code::NONE));
    assert_ne!(cluster.transaction("billing-1").unwrap().state, "Ongoing");
}

#[tokio::test(start_paused = true)]
async fn bug_10_an_unknown_server_error_is_taken_for_a_commit() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = impatient(&client).await;
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "a")).await.unwrap();
        let faults = cluster.faults();
        let code = Code::UNKNOWN_SERVER_ERROR;
        let fault = faults.on(ApiKey::EndTxn).always().error(code);
        is_indefinite(&tx.commit().await.unwrap_err());
        assert!(fault.fired() > 1);
        assert_eq!(committed(&cluster).await, Vec::<String>::new());
        faults.clear();
        assert_eq!(producer.settle().await.unwrap(), Some(Decision::Commit));
        assert_eq!(committed(&cluster).await, ["a"], "level {level}");
    }
}

#[tokio::test(start_paused = true)]
async fn bug_11_aborted_records_are_shown_or_committed_ones_dropped() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let ids = ["a", "b", "c", "d"];
        let mut producers: Vec<TransactionalProducer> = Vec::new();
        for id in ids {
            producers.push(client.transactional_producer(id).build().await.unwrap());
        }
        let mut wanted = Vec::new();
        for round in 0..12 {
            let mut open = Vec::new();
            for producer in &mut producers {
                open.push(producer.begin().await.unwrap());
            }
            // All are open at once, and end in another order than they began, each round another.
            for step in 0..3 {
                for (tx, id) in open.iter().zip(ids) {
                    let value = format!("{round:02}-{id}-{step}");
                    tx.send(record(0, &value)).await.unwrap();
                }
            }
            let mut left: Vec<_> = open.into_iter().zip(ids).collect();
            for turn in 0.. {
                if left.is_empty() {
                    break;
                }
                let (tx, id) = left.remove((round * 7 + turn * 5) % left.len());
                if (round + turn) % 2 == 0 {
                    tx.abort().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                    wanted.extend((0..3).map(|step| format!("{round:02}-{id}-{step}")));
                }
            }
            marker_without_data(&client, &cluster, level).await;
        }
        wanted.sort();
        assert_eq!(committed(&cluster).await, wanted, "level {level}");
    }
}

/// An abort marker of a producer that wrote nothing, which only the older protocol can bring about.
async fn marker_without_data(client: &Client, cluster: &Cluster, level: i16) {
    if level != 1 {
        return;
    }
    let before = cluster.markers("out", 0).len();
    let producer = client.transactional_producer("nothing").build().await;
    let identity = identity(cluster, "nothing");
    let connection = coordinator(client, "nothing").await;
    let request = add_partitions_to_txn::Request {
        transactional_id: "nothing".into(),
        identity,
        partitions: vec![TopicPartition::new("out", 0)],
    };
    let answer = add_partitions_to_txn::call(&connection, &request).await;
    assert_eq!(answer.unwrap().partitions[0].1, ottla::Code::NONE);
    let request = end_txn::Request {
        transactional_id: "nothing".into(),
        identity,
        protocol: Protocol::One,
        decision: Decision::Abort,
    };
    let answer = end_txn::call(&connection, &request).await.unwrap();
    assert_eq!(answer.code, ottla::Code::NONE);
    assert_eq!(cluster.markers("out", 0).len(), before + 1);
    producer.unwrap().close().await.unwrap();
}
