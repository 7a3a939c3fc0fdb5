//! A partition whose follower is stuck, beside a healthy one of the same leader.

use crate::kafka::{Harm, Kafka, unique};
use ottla::{Client, Record};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// How long each record of both partitions took, from enqueued to acknowledged.
async fn produce(client: &Client, topic: &str, stall_after: Duration) -> [Vec<Duration>; 2] {
    let producer = client.producer().stall_after(stall_after).build().unwrap();
    for partition in 0..2 {
        let first = Record::to(topic).partition(partition).value("first");
        producer.send(first).await.unwrap();
    }
    let frozen = Kafka::here().harm(Harm::Freeze, 3).await;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        for partition in 0..2 {
            let record = Record::to(topic).partition(partition).value("v");
            let began = Instant::now();
            let delivery = producer.enqueue(record).await.unwrap();
            waiting.push(tokio::spawn(async move {
                delivery.await.unwrap();
                (partition, began.elapsed())
            }));
        }
        sleep(SECOND / 20).await;
    }
    let mut took = [Vec::new(), Vec::new()];
    for record in waiting {
        let (partition, time) = record.await.unwrap();
        took[usize::from(partition == 1)].push(time);
    }
    frozen.end().await;
    producer.close().await.unwrap();
    took
}

/// Bug class 29. Broker 1 leads both partitions; the follower of the second is frozen, so its records
/// wait until the follower is out of the in-sync replicas, which takes the controller some seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_stuck_follower_of_one_partition_does_not_hold_up_the_others_of_its_leader() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let mut slowest = Vec::new();
    for stall_after in [SECOND / 2, Duration::MAX] {
        let topic = unique("stuck");
        let created = [
            "--create",
            "--topic",
            &topic,
            "--replica-assignment",
            "1:2,1:3",
        ];
        let one = ["--config", "min.insync.replicas=1"];
        kafka
            .run_tool("TopicCommand", &[&created[..], &one[..]].concat(), b"")
            .await;
        let [healthy, stuck] = produce(&client, &topic, stall_after).await;
        kafka.settled().await;
        let most = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
        eprintln!(
            "{stall_after:?}: healthy {:?}, stuck {:?}",
            most(&healthy),
            most(&stuck)
        );
        assert!(most(&stuck) > 4 * SECOND, "the follower was not stuck");
        slowest.push(most(&healthy));
    }
    let [apart, together] = slowest[..] else {
        unreachable!()
    };
    assert!(apart < 3 * SECOND, "the healthy partition waited {apart:?}");
    assert!(
        together > 4 * SECOND,
        "what was to be shown did not happen: {together:?}"
    );
}
