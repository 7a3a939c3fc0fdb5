//! Consume, transform, produce: the offsets are part of the transaction.

use super::*;
use ottla::consumer::{Consumer, OffsetReset};
use ottla::{Committed, ErrorKind, GroupMetadata, Producer};
use std::collections::BTreeMap;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

async fn fill(client: &Client, count: i32) {
    let producer: Producer = client.producer().build().unwrap();
    for number in 0..count {
        let value = format!("{number:04}");
        let record = Record::to("in")
            .partition(number % PARTITIONS)
            .value(&value);
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    producer.close().await.unwrap();
}

async fn member(client: &Client) -> Consumer {
    let consumer = client.consumer().unwrap().group("copy").topics(["in"]);
    let consumer = consumer.auto_offset_reset(OffsetReset::Earliest);
    let consumer = consumer.isolation(Isolation::ReadCommitted);
    consumer.auto_commit(None).build().await.unwrap()
}

/// Copies up to ten records in one transaction; gives how many.
async fn copy(
    consumer: &mut Consumer,
    producer: &mut TransactionalProducer,
    decision: Decision,
) -> ottla::Result<usize> {
    let records = consumer.poll(10, 5 * SECOND).await?;
    let tx = producer.begin().await?;
    for record in &records {
        let value = record.value.as_deref().unwrap();
        let out = Record::to("out").partition(record.partition()).value(value);
        drop(tx.enqueue(out).await?);
    }
    tx.send_offsets(consumer.group_metadata()?, consumer.positions())
        .await?;
    match decision {
        Decision::Commit => tx.commit().await?,
        Decision::Abort => tx.abort().await?,
    }
    Ok(records.len())
}

/// Goes back to what the group has committed, as after a restart.
async fn rewind(consumer: &mut Consumer) {
    let partitions = consumer.assignment();
    for (partition, committed) in consumer.committed(&partitions).await.unwrap() {
        let offset = committed.map_or(0, |committed| committed.offset);
        consumer
            .seek(&partition, Start::Offset(offset, None))
            .unwrap();
    }
}

fn numbers(count: i32) -> Vec<String> {
    (0..count).map(|number| format!("{number:04}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_copy_with_aborts_in_between_reads_and_writes_each_record_once() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        fill(&client, 100).await;
        let mut consumer = member(&client).await;
        let mut producer = producer(&client).await;
        let mut copied = 0;
        for round in 0.. {
            let decision = match round % 3 {
                1 => Decision::Abort,
                _ => Decision::Commit,
            };
            let count = copy(&mut consumer, &mut producer, decision).await.unwrap();
            match decision {
                Decision::Commit => copied += count,
                Decision::Abort => rewind(&mut consumer).await,
            }
            if copied == 100 {
                break;
            }
            assert!(round < 100, "{copied} copied");
        }
        assert_eq!(committed(&cluster).await, numbers(100), "level {level}");
        let committed: i64 = (0..PARTITIONS)
            .map(|partition| cluster.committed("copy", "in", partition).unwrap())
            .sum();
        assert_eq!(committed, 100);
        let adds = cluster.requests(ApiKey::AddOffsetsToTxn);
        assert_eq!(adds == 0, level == 2, "{adds} at level {level}");
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_count_only_once_the_transaction_is_committed() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let offsets = |offset| {
            let partition = TopicPartition::new("in", 0);
            BTreeMap::from([(partition, Committed::at(offset))])
        };
        let group = GroupMetadata::outside("copy");
        for (offset, decision, wanted) in [
            (5, Decision::Commit, Some(5)),
            (9, Decision::Abort, Some(5)),
            (7, Decision::Commit, Some(7)),
        ] {
            let tx = producer.begin().await.unwrap();
            let before = cluster.committed("copy", "in", 0);
            tx.send_offsets(group.clone(), offsets(offset))
                .await
                .unwrap();
            assert_eq!(cluster.committed("copy", "in", 0), before);
            match decision {
                Decision::Commit => tx.commit().await.unwrap(),
                Decision::Abort => tx.abort().await.unwrap(),
            }
            assert_eq!(cluster.committed("copy", "in", 0), wanted, "level {level}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_put_out_of_its_group_cannot_commit_and_its_copy_is_not_seen() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        fill(&client, 30).await;
        let mut slow = member(&client).await;
        let mut producer = producer(&client).await;
        let records = timeout(PATIENCE, slow.poll(10, 5 * SECOND)).await.unwrap();
        assert!(!records.unwrap().is_empty());
        let metadata = slow.group_metadata().unwrap();
        let positions = slow.positions();
        drop(slow);
        // Another member has the partitions now, in another generation.
        let mut heir = member(&client).await;
        timeout(PATIENCE, heir.poll(1, 60 * SECOND))
            .await
            .unwrap()
            .unwrap();
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "zombie's")).await.unwrap();
        let error = tx.send_offsets(metadata, positions).await.unwrap_err();
        assert!(error.requires_abort(), "{error}");
        let error = tx.commit().await.unwrap_err();
        assert!(error.requires_abort(), "{error}");
        assert_eq!(producer.settle().await.unwrap(), Some(Decision::Abort));
        assert_eq!(committed(&cluster).await, Vec::<String>::new());
        heir.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn group_metadata_are_told_to_members_only() {
    let cluster = cluster(2).await;
    let client = client(&cluster).await;
    let consumer = member(&client).await;
    let error = consumer.group_metadata().unwrap_err();
    assert_eq!(
        error.kind(),
        &ErrorKind::State,
        "it has not joined: {error}"
    );
    consumer.close().await.unwrap();
    let assigned = client.consumer().unwrap().group("copy");
    let partition = TopicPartition::new("in", 0);
    let assigned = assigned.assign([(partition, Start::Offset(0, None))]);
    let assigned = assigned.auto_commit(None).build().await.unwrap();
    let metadata = assigned.group_metadata().unwrap();
    assert_eq!(metadata, GroupMetadata::outside("copy"));
    assigned.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_coordinator_that_moves_is_found_again() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        fill(&client, 30).await;
        let mut consumer = member(&client).await;
        let mut producer = producer(&client).await;
        copy(&mut consumer, &mut producer, Decision::Commit)
            .await
            .unwrap();
        let now = cluster.coordinator("copy").unwrap();
        cluster.move_coordinator("copy", (now + 1) % 3).unwrap();
        let mut copied = 0;
        while copied < 20 {
            copied += copy(&mut consumer, &mut producer, Decision::Commit)
                .await
                .unwrap();
        }
        assert_eq!(committed(&cluster).await, numbers(30), "level {level}");
    }
}
