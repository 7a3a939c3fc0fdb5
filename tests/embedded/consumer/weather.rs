//! Groups under random faults: every record reaches somebody, in order, and nobody skips one.

use super::{SECOND, client, tp};
use ottla::consumer::{Assignor, Builder, Config, OffsetReset, Rebalance};
use ottla::{Client, Record, TopicPartition};
use ottla_broker::{ApiKey, Cluster as Broker, Code};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

const PARTITIONS: i32 = 3;
const RECORDS: u32 = 150;

const STRUCK: [ApiKey; 9] = [
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::OffsetFetch,
    ApiKey::OffsetCommit,
];

/// Orders one fault that the dice choose.
async fn fault(dice: &mut fastrand::Rng, broker: &Broker) {
    let api = STRUCK[dice.usize(0..STRUCK.len())];
    let on = broker.faults().on(api).times(dice.u64(1..3));
    let _ = match dice.u8(0..11) {
        0 | 1 => on.disconnect_before_apply(),
        2 | 3 => on.apply_then_lose_answer(),
        4 => on.cut_answer(dice.usize(1..60)),
        5 => on.delay(Duration::from_millis(dice.u64(1..40_000))),
        6 if api == ApiKey::Fetch => on.corrupt_records(),
        6 | 7 => on.error(Code::NOT_COORDINATOR),
        8 if api == ApiKey::OffsetCommit || api == ApiKey::Heartbeat => {
            on.error(Code::UNKNOWN_MEMBER_ID)
        }
        8 => on.error(Code::COORDINATOR_LOAD_IN_PROGRESS),
        9 => {
            let _ = broker.move_leader("t", dice.i32(0..PARTITIONS), dice.i32(0..3));
            return;
        }
        _ => {
            let node = dice.i32(0..3);
            broker.stop_node(node).await.unwrap();
            tokio::time::sleep(Duration::from_millis(dice.u64(1..20_000))).await;
            broker.start_node(node).await.unwrap();
            return;
        }
    };
}

#[derive(Debug)]
enum Said {
    Read(usize, TopicPartition, i64, u32),
    /// Whatever this member reads next of these begins anew.
    Began(usize, Vec<TopicPartition>),
}

fn builder(client: &Client, assignor: Assignor, dice: &mut fastrand::Rng) -> Builder {
    let config = Config {
        group: Some("g".into()),
        assignors: vec![assignor],
        auto_offset_reset: OffsetReset::Earliest,
        max_poll_interval: 60 * SECOND,
        session_timeout: 10 * SECOND,
        auto_commit_interval: Duration::from_millis(dice.u64(100..5_000)),
        ..Config::default()
    };
    client.consumer().unwrap().config(config).topics(["t"])
}

/// Reads until told to stop, or for a while; pauses now and then, sometimes for too long.
async fn live(
    who: usize,
    builder: Builder,
    mut dice: fastrand::Rng,
    says: mpsc::Sender<Said>,
    mut stop: watch::Receiver<bool>,
) {
    let tells = says.clone();
    let told = builder.on_rebalance(move |change| {
        if let Rebalance::Assigned(partitions) = change {
            tells
                .try_send(Said::Began(who, partitions.clone()))
                .unwrap();
        }
    });
    let mut consumer = told.build().await.unwrap();
    let life = tokio::time::sleep(Duration::from_secs(dice.u64(20..400)));
    tokio::pin!(life);
    let mut last_error = String::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            () = &mut life, if who > 0 => break,
            record = consumer.next() => match record.ok_or(&last_error).unwrap() {
                Ok(record) => {
                    let number = record.value.as_deref().unwrap().try_into().unwrap();
                    let place = record.topic_partition().clone();
                    let read = Said::Read(who, place, record.offset, u32::from_be_bytes(number));
                    says.try_send(read).unwrap();
                }
                Err(error) => last_error = error.to_string(),
            }
        }
        match dice.u8(0..100) {
            0 => tokio::time::sleep(Duration::from_secs(dice.u64(0..90))).await,
            1..10 => tokio::time::sleep(Duration::from_millis(dice.u64(0..900))).await,
            _ => {}
        }
    }
    match dice.u8(0..4) {
        0 => drop(consumer),
        _ => drop(consumer.close().await),
    }
}

async fn run(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let builder_of = Broker::builder()
        .nodes(3)
        .topic("t", PARTITIONS)
        .replication(3);
    let broker = builder_of.in_memory().seed(seed).start().await.unwrap();
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    let assignor = [Assignor::CooperativeSticky, Assignor::Range][dice.usize(0..2)];
    let (says, mut said) = mpsc::channel(100_000);
    let (stop, stopped) = watch::channel(false);
    let mut members = JoinSet::new();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        if number % 50 == 0 {
            let builder = builder(&client, assignor, &mut dice);
            let who = members.len();
            members.spawn(live(
                who,
                builder,
                dice.fork(),
                says.clone(),
                stopped.clone(),
            ));
        }
        if dice.u8(0..6) == 0 {
            fault(&mut dice, &broker).await;
        }
        let record = Record::to("t").partition(dice.i32(0..PARTITIONS));
        let delivery = producer.enqueue(record.value(&number.to_be_bytes())).await;
        deliveries.push(delivery.unwrap());
        tokio::time::sleep(Duration::from_millis(dice.u64(0..3_000))).await;
    }
    broker.faults().clear();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    tokio::time::sleep(400 * SECOND).await;
    stop.send_replace(true);
    while let Some(member) = members.join_next().await {
        member.unwrap();
    }
    drop(says);
    let mut read = Vec::new();
    while let Some(one) = said.recv().await {
        read.push(one);
    }
    check(seed, &broker, &read);
    broker.shutdown().await;
}

fn check(seed: u64, broker: &Broker, read: &[Said]) {
    let mut logs: BTreeMap<TopicPartition, Vec<u32>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let number = |value: Vec<u8>| u32::from_be_bytes(value.try_into().unwrap());
        let log = broker.log("t", partition).into_iter();
        logs.insert(
            tp(partition),
            log.map(|record| number(record.value.unwrap())).collect(),
        );
    }
    // The next offset of each partition that nobody has read, and that each member has to read.
    let mut unread: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut next: BTreeMap<(usize, TopicPartition), i64> = BTreeMap::new();
    for one in read {
        match one {
            Said::Began(who, partitions) => {
                for partition in partitions {
                    next.remove(&(*who, partition.clone()));
                }
            }
            Said::Read(who, partition, offset, number) => {
                let place = format!("seed {seed}: {partition} at {offset} by {who}");
                let log = &logs[partition];
                assert_eq!(
                    log.get(usize::try_from(*offset).unwrap()),
                    Some(number),
                    "{place}"
                );
                let first = unread.entry(partition.clone()).or_default();
                assert!(offset <= first, "{place}: {first} was skipped");
                *first = (*first).max(offset + 1);
                let key = (*who, partition.clone());
                let expected = next.insert(key, offset + 1);
                assert!(
                    expected.is_none_or(|next| next == *offset),
                    "{place}, not {expected:?}"
                );
            }
        }
    }
    for (partition, log) in &logs {
        let end = i64::try_from(log.len()).unwrap();
        let first = unread.get(partition).copied().unwrap_or(0);
        assert_eq!(
            first, end,
            "seed {seed}: {partition} was not read to its end"
        );
    }
}

#[test]
fn groups_in_any_weather_read_everything_in_order() {
    for seed in 0..60 {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
