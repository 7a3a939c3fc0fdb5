//! What can go wrong: fencing, broken transactions, ends that nobody answers, coordinators that move.

use super::*;
use ottla::{Code, Error, ErrorKind, Result, WriteOutcome};
use ottla_broker::{Code as Answer, FaultRule};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Writes one record to each partition and commits.
async fn write(producer: &mut TransactionalProducer, round: &str) -> Result<()> {
    let tx = producer.begin().await?;
    for partition in 0..PARTITIONS {
        let value = format!("{round}-{partition}");
        drop(tx.enqueue(record(partition, &value)).await?);
    }
    tx.commit().await
}

/// What [`write`] wrote.
fn written(rounds: &[&str]) -> Vec<String> {
    let rounds = rounds.iter();
    let each = |round| (0..PARTITIONS).map(move |partition| format!("{round}-{partition}"));
    rounds.flat_map(each).collect()
}

/// The epochs under which the partition's records were written, each once.
pub(crate) fn epochs(cluster: &Cluster, partition: i32) -> Vec<i16> {
    let log = cluster.log("out", partition);
    let mut epochs: Vec<i16> = log.iter().map(|record| record.epoch).collect();
    epochs.dedup();
    epochs
}

#[tokio::test(start_paused = true)]
async fn a_producer_built_later_fences_the_one_before() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut zombie = producer(&client).await;
        let tx = zombie.begin().await.unwrap();
        tx.send(record(0, "lost")).await.unwrap();
        let mut heir = producer(&client).await;
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Fenced, "{error}");
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
        let error = zombie.begin().await.unwrap_err();
        assert!(error.is_fatal(), "{error}");
        write(&mut heir, "heir").await.unwrap();
        assert_eq!(committed(&cluster).await, written(&["heir"]));
        zombie.close().await.unwrap();
        heir.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombie_that_goes_on_writing_hears_of_it_and_nobody_sees_it() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut zombie = producer(&client).await;
        let tx = zombie.begin().await.unwrap();
        tx.send(record(0, "lost")).await.unwrap();
        let heir = producer(&client).await;
        tx.send(record(0, "late")).await.unwrap_err();
        let refused = tx.enqueue(record(0, "later")).await.unwrap_err();
        assert!(refused.requires_abort() || refused.is_fatal(), "{refused}");
        tx.abort().await.unwrap_err();
        assert!(zombie.begin().await.unwrap_err().is_fatal());
        assert_eq!(committed(&cluster).await, Vec::<String>::new());
        heir.close().await.unwrap();
    }
}

async fn breaks(level: i16, code: Answer) -> (Cluster, TransactionalProducer) {
    let cluster = cluster(level).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    write(&mut producer, "a").await.unwrap();
    let tx = producer.begin().await.unwrap();
    tx.send(record(0, "lost")).await.unwrap();
    cluster.faults().on(ApiKey::Produce).error(code);
    let error = tx.send(record(0, "refused")).await.unwrap_err();
    assert_eq!(error.code(), Some(code), "{error}");
    let error = tx.enqueue(record(1, "too late")).await.unwrap_err();
    assert!(error.requires_abort(), "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    let error = tx.commit().await.unwrap_err();
    assert!(error.requires_abort() && !error.is_fatal(), "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    (cluster, producer)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_breaks_its_transaction_and_the_next_one_is_whole() {
    for level in LEVELS {
        for code in [
            Answer::TOPIC_AUTHORIZATION_FAILED,
            Answer::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Answer::TRANSACTION_ABORTABLE,
            Answer::INVALID_PRODUCER_ID_MAPPING,
        ] {
            let (cluster, mut producer) = breaks(level, code).await;
            write(&mut producer, "b").await.unwrap();
            assert_eq!(committed(&cluster).await, written(&["a", "b"]), "{code}");
            metrics_are_clean(&producer);
            let markers = cluster.markers("out", 0);
            let ends: Vec<bool> = markers.iter().map(|marker| marker.committed).collect();
            assert_eq!(ends, [true, false, true], "level {level}, {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_drops_what_is_not_sent_and_says_so_to_each_record() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let builder = client.transactional_producer("billing-1");
        let mut producer = builder.linger(60 * SECOND).build().await.unwrap();
        let tx = producer.begin().await.unwrap();
        let asked = cluster.requests(ApiKey::InitProducerId);
        let delivery = tx.enqueue(record(0, "dropped")).await.unwrap();
        tx.abort().await.unwrap();
        producer.settle().await.unwrap();
        // Nothing is wrong with the epoch.
        assert_eq!(cluster.requests(ApiKey::InitProducerId), asked);
        let error = delivery.await.unwrap_err();
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
        assert!(cluster.log("out", 0).is_empty());
        write(&mut producer, "a").await.unwrap();
        assert_eq!(committed(&cluster).await, written(&["a"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_refuses_for_good_leaves_a_producer_of_no_use() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let code = Answer::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        cluster.faults().on(ApiKey::EndTxn).error(code);
        let error = write(&mut producer, "a").await.unwrap_err();
        assert!(error.is_fatal() && !error.requires_abort(), "{error}");
        assert_eq!(
            error.code(),
            Some(Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        );
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
        assert!(producer.begin().await.unwrap_err().is_fatal());
        assert!(producer.settle().await.unwrap_err().is_fatal());
        producer.close().await.unwrap();
    }
}

/// A producer whose calls wait for 5 s at most.
pub(crate) async fn impatient(client: &Client) -> TransactionalProducer {
    let builder = client.transactional_producer("billing-1");
    let builder = builder.property("max.block.ms", "5000").unwrap();
    builder.build().await.unwrap()
}

pub(crate) fn is_indefinite(error: &Error) {
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{error}");
    assert_eq!(
        error.write_outcome(),
        Some(WriteOutcome::Unknown),
        "{error}"
    );
    assert!(!error.is_fatal() && !error.requires_abort(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_answers_is_indefinite_until_its_end_is_known() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = impatient(&client).await;
        let faults = cluster.faults();
        faults.on(ApiKey::EndTxn).always().apply_then_lose_answer();
        let error = write(&mut producer, "a").await.unwrap_err();
        is_indefinite(&error);
        assert!(!producer.begin().await.unwrap_err().is_fatal());
        assert!(!producer.settle().await.unwrap_err().is_fatal());
        faults.clear();
        assert_eq!(producer.settle().await.unwrap(), Some(Decision::Commit));
        write(&mut producer, "b").await.unwrap();
        assert_eq!(committed(&cluster).await, written(&["a", "b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_never_reached_its_coordinator_is_carried_out_later() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = impatient(&client).await;
        let faults = cluster.faults();
        faults.on(ApiKey::EndTxn).always().disconnect_before_apply();
        let error = write(&mut producer, "a").await.unwrap_err();
        is_indefinite(&error);
        faults.clear();
        write(&mut producer, "b").await.unwrap();
        assert_eq!(committed(&cluster).await, written(&["a", "b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_caller_leaves_goes_on() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let tx = producer.begin().await.unwrap();
        drop(tx.enqueue(record(0, "a")).await.unwrap());
        let commit = tokio::time::timeout(Duration::ZERO, tx.commit());
        commit.await.unwrap_err();
        assert_eq!(producer.settle().await.unwrap(), Some(Decision::Commit));
        assert_eq!(committed(&cluster).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_begin_whose_caller_leaves_begins_nothing() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        for wait in [0, 1] {
            let wait = Duration::from_millis(wait);
            let begin = tokio::time::timeout(wait, producer.begin());
            drop(begin.await);
            write(&mut producer, "a").await.unwrap();
        }
        assert_eq!(committed(&cluster).await.len(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_begin_whose_caller_leaves_with_the_answer_unread_begins_nothing() {
    let cluster = cluster(2).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    write(&mut producer, "a").await.unwrap();
    let mut begin = Box::pin(producer.begin());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(begin.as_mut().poll(&mut context).is_pending());
    sleep(SECOND).await; // it is answered
    drop(begin);
    assert_eq!(producer.settle().await.unwrap(), Some(Decision::Commit));
    write(&mut producer, "b").await.unwrap();
    assert_eq!(committed(&cluster).await, written(&["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_dropped_is_aborted_at_once_whatever_becomes_of_its_producer() {
    for level in LEVELS {
        for fate in ["closed", "dropped", "kept"] {
            let cluster = cluster(level).await;
            let client = client(&cluster).await;
            let mut producer = producer(&client).await;
            let tx = producer.begin().await.unwrap();
            tx.send(record(0, "lost")).await.unwrap();
            drop(tx);
            let kept = match fate {
                "closed" => producer.close().await.map(|()| None).unwrap(),
                "dropped" => {
                    drop(producer);
                    None
                }
                _ => Some(producer),
            };
            let deadline = Instant::now() + SECOND;
            while cluster.last_stable("out", 0) != cluster.end_offset("out", 0) {
                assert!(Instant::now() < deadline, "the transaction is still open");
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(cluster.markers("out", 0).len(), 1, "{fate}");
            drop(kept);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_or_goes_in_mid_transaction_is_found_again() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "a")).await.unwrap();
        let first = cluster.coordinator("billing-1").unwrap();
        cluster
            .move_coordinator("billing-1", (first + 1) % 3)
            .unwrap();
        tx.send(record(1, "b")).await.unwrap();
        let second = cluster.coordinator("billing-1").unwrap();
        assert_ne!(first, second);
        cluster.stop_node(second).await.unwrap();
        tx.send(record(2, "c")).await.unwrap();
        tx.commit().await.unwrap();
        cluster.start_node(second).await.unwrap();
        assert_eq!(committed(&cluster).await, ["a", "b", "c"]);
        write(&mut producer, "d").await.unwrap();
        assert_eq!(committed(&cluster).await.len(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn the_protocol_follows_the_cluster_from_one_transaction_to_the_next() {
    let cluster = cluster(1).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    let mut epochs_of = Vec::new();
    for (round, level) in ["a", "b", "c", "d", "e", "f"]
        .iter()
        .zip([1, 2, 2, 1, 1, 2])
    {
        cluster.set_transaction_version(level);
        let adds = cluster.requests(ApiKey::AddPartitionsToTxn);
        write(&mut producer, round).await.unwrap();
        let added = cluster.requests(ApiKey::AddPartitionsToTxn) - adds;
        assert_eq!(added > 0, level == 1, "round {round}");
        epochs_of.push(cluster.log("out", 0).last().unwrap().epoch);
    }
    let grew: Vec<bool> = epochs_of.windows(2).map(|pair| pair[1] > pair[0]).collect();
    assert_eq!(grew, [false, true, true, false, false], "{epochs_of:?}");
    assert_eq!(
        committed(&cluster).await,
        written(&["a", "b", "c", "d", "e", "f"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_in_the_middle_of_a_transaction_does_not_harm_it() {
    for (before, after) in [(1, 2), (2, 1)] {
        let cluster = cluster(before).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "a")).await.unwrap();
        cluster.set_transaction_version(after);
        tx.send(record(1, "b")).await.unwrap();
        tx.commit().await.unwrap();
        write(&mut producer, "c").await.unwrap();
        assert_eq!(committed(&cluster).await, ["a", "b", "c-0", "c-1", "c-2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_follows_at_once_waits_for_the_markers_of_the_one_before() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        cluster.set_marker_delay(Duration::from_millis(300));
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        for round in ["a", "b", "c"] {
            write(&mut producer, round).await.unwrap();
        }
        sleep(SECOND).await;
        assert_eq!(committed(&cluster).await, written(&["a", "b", "c"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_stays_open_for_too_long_is_given_up_by_its_coordinator() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let builder = client.transactional_producer("billing-1");
        let mut producer = builder.transaction_timeout(SECOND).build().await.unwrap();
        let tx = producer.begin().await.unwrap();
        tx.send(record(0, "slow")).await.unwrap();
        sleep(10 * SECOND).await;
        let error = tx.commit().await.unwrap_err();
        assert!(error.is_fatal() || error.requires_abort(), "{error}");
        assert_eq!(committed(&cluster).await, Vec::<String>::new());
        let mut again = super::producer(&client).await;
        write(&mut again, "a").await.unwrap();
        assert_eq!(committed(&cluster).await, written(&["a"]));
    }
}

#[tokio::test(start_paused = true)]
async fn bug_09_used_up_epochs_bring_a_new_producer_id_and_lose_nothing() {
    for level in LEVELS {
        let builder = Cluster::builder().nodes(3).replication(3).in_memory();
        let builder = builder.topic("out", PARTITIONS).transaction_version(level);
        let builder = builder.first_producer_epoch(i16::MAX - 3);
        let cluster = builder.start().await.unwrap();
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        for round in ["a", "b", "c", "d", "e", "f"] {
            write(&mut producer, round).await.unwrap();
        }
        let wanted = written(&["a", "b", "c", "d", "e", "f"]);
        assert_eq!(committed(&cluster).await, wanted);
        let log = cluster.log("out", 0);
        let mut ids: Vec<_> = log.iter().filter_map(|record| record.producer_id).collect();
        ids.dedup();
        assert_eq!(ids.len() > 1, level == 2, "{ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_do_not_go_with_transactions_are_refused_by_name() {
    let cluster = cluster(2).await;
    let client = client(&cluster).await;
    for (name, value) in [("enable.idempotence", "false"), ("acks", "1")] {
        let builder = client.transactional_producer("billing-1");
        let builder = builder.property(name, value).unwrap();
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
        let words = error.to_string();
        let named = words.contains("transactional.id") && words.contains(name);
        assert!(named, "{error}");
    }
    let unnamed = client.transactional_producer("").build().await;
    assert_eq!(unnamed.unwrap_err().kind(), &ErrorKind::Config);
    let builder = client.transactional_producer("billing-1");
    let error = builder.property("transactional.id", "x").unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("what Client::transactional_producer is called with"),
        "{error}"
    );
    let builder = client.transactional_producer("billing-1");
    let known = builder.property("transaction.two.phase.commit.enable", "false");
    drop(known.unwrap());
    let builder = client.transactional_producer("billing-1");
    let builder = builder
        .property("transaction.timeout.ms", "999999999")
        .unwrap();
    let error = builder.build().await.unwrap_err();
    assert_eq!(
        error.code(),
        Some(Code::INVALID_TRANSACTION_TIMEOUT),
        "{error}"
    );
    assert!(
        error.to_string().contains("transaction.timeout.ms"),
        "{error}"
    );
    let builder = ottla_tests::client(&cluster).property("transactional.id", "x");
    let client = builder.unwrap().connect().await.unwrap();
    let error = client.producer().build().unwrap_err();
    assert!(error.to_string().contains("transactional.id"), "{error}");
}

/// What the leader of that partition does with its next Produce request.
fn produce_at(cluster: &Cluster, partition: i32) -> FaultRule {
    let leader = cluster.leader("out", partition).unwrap();
    cluster.faults().on(ApiKey::Produce).node(leader)
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_never_asked_for_is_not_in_doubt_whatever_became_of_a_record() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        write(&mut producer, "a").await.unwrap();
        let at = |partition| produce_at(&cluster, partition);
        at(0).apply_then_lose_answer();
        at(0).error(Answer::PRODUCER_FENCED);
        // The commit still waits for this one when the other is refused.
        at(1).delay(5 * SECOND);
        let tx = producer.begin().await.unwrap();
        let delivery = tx.enqueue(record(0, "b")).await.unwrap();
        drop(tx.enqueue(record(1, "b")).await.unwrap());
        let error = tx.commit().await.unwrap_err();
        assert!(error.is_fatal(), "{error}");
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
        let error = delivery.outcome().unwrap().unwrap_err();
        assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_what_is_lost_already_does_not_wait_for_a_dead_leader() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let mut producer = producer(&client).await;
        write(&mut producer, "a").await.unwrap();
        let at = |partition| produce_at(&cluster, partition);
        let dead = at(0).always().disconnect_before_apply();
        let tx = producer.begin().await.unwrap();
        drop(tx.enqueue(record(0, "b")).await.unwrap());
        sleep(SECOND).await;
        assert!(dead.fired() > 0);
        at(1).error(Answer::TOPIC_AUTHORIZATION_FAILED);
        tx.send(record(1, "b")).await.unwrap_err();
        let begun = Instant::now();
        let error = tx.commit().await.unwrap_err();
        assert!(error.requires_abort(), "{error}");
        assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn neither_an_abort_nor_a_close_waits_for_a_dead_leader_longer_than_it_says() {
    let cluster = cluster(2).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    write(&mut producer, "a").await.unwrap();
    let coordinator = cluster.coordinator("billing-1").unwrap();
    let partition = (0..PARTITIONS).find(|p| cluster.leader("out", *p) != Some(coordinator));
    let partition = partition.unwrap();
    let lost = cluster.faults().on(ApiKey::Produce).partition(partition);
    let lost = lost.always().disconnect_before_apply();
    let tx = producer.begin().await.unwrap();
    let delivery = tx.enqueue(record(partition, "lost")).await.unwrap();
    sleep(10 * SECOND).await;
    let begun = Instant::now();
    tx.abort().await.unwrap();
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    let error = delivery.outcome().unwrap().unwrap_err();
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
    let tx = producer.begin().await.unwrap();
    drop(tx.enqueue(record(partition, "lost too")).await.unwrap());
    sleep(10 * SECOND).await;
    drop(tx);
    let begun = Instant::now();
    producer.close().await.unwrap();
    assert!(begun.elapsed() < 61 * SECOND, "{:?}", begun.elapsed());
    assert!(lost.fired() > 1);
    assert_eq!(committed(&cluster).await, written(&["a"]));
}

#[tokio::test(start_paused = true)]
async fn in_the_older_protocol_a_close_waits_no_longer_than_it_says_for_what_may_be_written() {
    let cluster = cluster(1).await;
    let client = client(&cluster).await;
    let mut producer = producer(&client).await;
    let lost = cluster.faults().on(ApiKey::Produce);
    lost.always().disconnect_before_apply();
    let tx = producer.begin().await.unwrap();
    let delivery = tx.enqueue(record(0, "lost")).await.unwrap();
    sleep(10 * SECOND).await;
    drop(tx);
    let begun = Instant::now();
    let error = producer.close().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
    assert!(begun.elapsed() < 61 * SECOND, "{:?}", begun.elapsed());
    let error = delivery.outcome().unwrap().unwrap_err();
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
}
