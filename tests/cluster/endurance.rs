//! Ten million records while brokers are killed with -9 every 20 seconds.

use crate::foreign::{Seen, kcat_reads};
use crate::kafka::{Harm, Kafka};
use crate::kills::{Log, value};
use ottla::{Delivery, Producer, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 48;

/// How long it lasts; the records are spread evenly over it. `OTTLA_SOAK_SECONDS` makes it shorter.
fn length() -> (u32, u32) {
    let seconds = std::env::var("OTTLA_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(300, |text| text.parse().unwrap());
    (seconds, 10_000_000 / 300 * seconds + 10_000_000 % 300)
}

/// Enqueues the records at an even pace, every second one with a key.
async fn load(producer: Producer, topic: String, seconds: u32, count: u32) -> Vec<Delivery> {
    let began = Instant::now();
    let mut deliveries = Vec::with_capacity(count as usize);
    let mut number = 0;
    while number < count {
        let due = began.elapsed().as_millis() * u128::from(count) / (u128::from(seconds) * 1000);
        while u128::from(number) < due && number < count {
            let (key, value) = (format!("key {}", number % 100_000), value(number));
            let record = Record::to(&topic).value(&value);
            let record = match number % 2 {
                0 => record.key(&key),
                _ => record,
            };
            deliveries.push(producer.enqueue(record).await.unwrap());
            number += 1;
        }
        sleep(SECOND / 200).await;
    }
    producer.close().await.unwrap();
    deliveries
}

/// Kills one broker after another, each down for longer than the controller takes to notice.
async fn kill(kafka: Kafka, stop: Arc<AtomicBool>) -> u32 {
    let mut kills = 0;
    while !stop.load(Ordering::Acquire) {
        let next = Instant::now() + 20 * SECOND;
        let node = i32::try_from(kills % 3).unwrap() + 1;
        let down = kafka.harm(Harm::Kill, node).await;
        kills += 1;
        sleep(8 * SECOND).await;
        down.end().await;
        kafka.settled().await;
        tokio::time::sleep_until(next).await;
    }
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_ten_million_records_survive_five_minutes_of_kills() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "endurance", PARTITIONS).await;
    let (seconds, count) = length();
    let producer = client.producer().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn(kill(kafka.clone(), Arc::clone(&stop)));
    let began = Instant::now();
    let deliveries = load(producer, topic.clone(), seconds, count).await;
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    let outcomes: Vec<_> = deliveries
        .into_iter()
        .map(|delivery| delivery.outcome().unwrap())
        .collect();
    let kills = killer.await.unwrap();
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    assert!(failed.is_none(), "{failed:?}");
    let mut foreign = Log::default();
    let saw = |seen: Seen<'_>| foreign.saw(seen.partition, seen.offset, seen.value);
    kcat_reads(&kafka.bootstrap, &topic, saw).await;
    foreign.holds(&outcomes);
    println!(
        "{} records in {took:?} through {kills} kills: each once and in order",
        outcomes.len()
    );
    client.topics().delete(&topic).await.unwrap();
}
