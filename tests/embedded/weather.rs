//! The producer under random faults, held against the log and against what callers were told.

use ottla::{Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;
use std::collections::BTreeMap;
use std::time::Duration;

const PARTITIONS: i32 = 3;
const RECORDS: u32 = 240;

/// Orders one fault that the dice choose.
async fn fault(dice: &mut fastrand::Rng, cluster: &Cluster) {
    let on = cluster.faults().on(ApiKey::Produce).times(dice.u64(1..3));
    let _ = match dice.u8(0..11) {
        0 => on.disconnect_before_apply(),
        1 => on.apply_then_lose_answer(),
        2 => on.append_then_error(Code::NOT_LEADER_OR_FOLLOWER),
        3 => on.error(Code::NOT_ENOUGH_REPLICAS),
        4 => on.append_then_error(Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        5 => on.delay(Duration::from_millis(dice.u64(1..40_000))),
        6 => on.append_then_error(Code::REQUEST_TIMED_OUT),
        7 => on.error(Code::INVALID_RECORD),
        8 => on.after(1).disconnect_before_apply(),
        9 => {
            let partition = dice.i32(0..PARTITIONS);
            let _ = cluster.move_leader("t", partition, dice.i32(0..3));
            return;
        }
        _ => {
            let node = dice.i32(0..3);
            cluster.stop_node(node).await.unwrap();
            tokio::time::sleep(Duration::from_millis(dice.u64(1..5_000))).await;
            cluster.start_node(node).await.unwrap();
            return;
        }
    };
}

async fn run(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let builder = Cluster::builder()
        .nodes(3)
        .replication(3)
        .in_memory()
        .seed(seed);
    let cluster = builder
        .topic("t", PARTITIONS)
        .start_millis(0)
        .start()
        .await
        .unwrap();
    let client = client(&cluster).connect().await.unwrap();
    // A distance, so that several batches are in flight when something happens.
    let distance = Duration::from_millis(dice.u64(0..60));
    let _ = cluster
        .faults()
        .on(ApiKey::Produce)
        .always()
        .delay(distance);
    let builder = client
        .producer()
        .linger(Duration::from_millis(dice.u64(0..20)));
    let patience = Duration::from_secs([1, 10, 60][dice.usize(0..3)]);
    let producer = builder.delivery_timeout(patience).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        if dice.u8(0..20) == 0 {
            fault(&mut dice, &cluster).await;
        }
        let partition = dice.i32(0..PARTITIONS);
        let record = Record::to("t").partition(partition);
        let delivery = producer
            .enqueue(record.value(&number.to_be_bytes()))
            .await
            .unwrap();
        deliveries.push((number, delivery));
        if dice.u8(0..3) > 0 {
            tokio::time::sleep(Duration::from_millis(dice.u64(0..30))).await;
        }
    }
    cluster.faults().clear();
    let mut told = BTreeMap::new();
    for (number, delivery) in deliveries {
        let partition = delivery.partition();
        told.insert(number, (partition, delivery.await));
    }
    check(seed, &cluster, &told);
    // A batch that expired in flight is held until its request is answered or times out.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        producer.metrics().buffer_used_bytes,
        0,
        "seed {seed}: memory is not back"
    );
    producer.close().await.unwrap();
    cluster.shutdown().await;
}

type Told = BTreeMap<u32, (i32, ottla::Result<ottla::RecordMetadata>)>;

fn check(seed: u64, cluster: &Cluster, told: &Told) {
    for partition in 0..PARTITIONS {
        let log: Vec<(u32, i64)> = cluster
            .log("t", partition)
            .into_iter()
            .map(|r| {
                (
                    u32::from_be_bytes(r.value.unwrap().try_into().unwrap()),
                    r.offset,
                )
            })
            .collect();
        let ascending = log.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(
            ascending,
            "seed {seed}: repeated or out of order in {partition}: {log:?}"
        );
        let there: BTreeMap<u32, i64> = log.into_iter().collect();
        for (number, (_, outcome)) in told.iter().filter(|(_, (own, _))| *own == partition) {
            let offset = there.get(number);
            match outcome {
                Ok(metadata) => {
                    assert!(
                        offset.is_some(),
                        "seed {seed}: {number} is acknowledged and lost"
                    );
                    let right = metadata.offset.is_none_or(|told| Some(&told) == offset);
                    assert!(
                        right,
                        "seed {seed}: {number} lies at {offset:?}, not {metadata:?}"
                    );
                }
                Err(error) => {
                    let unwritten = error.write_outcome() == Some(WriteOutcome::NotWritten);
                    assert!(
                        !(unwritten && offset.is_some()),
                        "seed {seed}: {number}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_weather_loses_repeats_or_reorders_a_record() {
    for seed in 0..200 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}
