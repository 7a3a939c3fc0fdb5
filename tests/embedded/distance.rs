//! How soon batches leave: brokers far away, and callers that never wait.

use bytes::Bytes;
use ottla::{BoxFuture, BoxStream, Client, Dial, Producer, Record};
use ottla_broker::{ApiKey, Cluster};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

const DISTANCE: Duration = Duration::from_millis(50);
const BATCH_BYTES: usize = 128 << 10;
/// So many of these fill a batch.
const A_BATCH: usize = 129;
const VALUE: [u8; 1_000] = [b'v'; 1_000];

/// Reaches the cluster over a line on which every answer takes so long, however many are under way.
struct Distant(Cluster);

impl Dial for Distant {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.0.dial(host, port).await?;
            let (mut answers, requests) = tokio::io::split(stream);
            let (mut arrives, reader) = tokio::io::duplex(1 << 20);
            let (under_way, mut due) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = answers.read(&mut bytes).await {
                    let answer = (Instant::now() + DISTANCE, bytes[..count].to_vec());
                    if under_way.send(answer).is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                while let Some((at, bytes)) = due.recv().await {
                    tokio::time::sleep_until(at).await;
                    if arrives.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
            Ok(BoxStream::halves(reader, requests))
        })
    }
}

/// Sends so many batches to one partition: the requests and the round trips that they took.
async fn sent(batches: usize, buffer_bytes: usize) -> (u64, f64) {
    let builder = Cluster::builder().in_memory();
    let cluster = builder.topic("orders", 1).start().await.unwrap();
    let transport = Arc::new(Distant(cluster.clone()));
    let builder = Client::builder(cluster.bootstrap()).transport(transport);
    let client = builder.connect().await.unwrap();
    let builder = client.producer().linger(Duration::from_secs(60));
    let builder = builder.batch_bytes(BATCH_BYTES).buffer_bytes(buffer_bytes);
    // Else batches behind a full window grow.
    let builder = builder.property("max.request.size", BATCH_BYTES.to_string());
    let producer = builder.unwrap().build().unwrap();
    fill(&producer, 1).await;
    producer.flush().await.unwrap();
    let before = cluster.requests(ApiKey::Produce);
    let begun = Instant::now();
    fill(&producer, batches).await;
    producer.flush().await.unwrap();
    let requests = cluster.requests(ApiKey::Produce) - before;
    (requests, begun.elapsed().div_duration_f64(DISTANCE))
}

/// Fills so many batches without waiting for a delivery.
async fn fill(producer: &Producer, batches: usize) {
    for _ in 0..batches * A_BATCH {
        let record = Record::to("orders").value(&VALUE);
        drop(producer.enqueue(record).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn five_batches_of_a_partition_share_a_round_trip() {
    let (requests, round_trips) = sent(50, 32 << 20).await;
    assert_eq!(requests, 50);
    assert!((9.9..10.5).contains(&round_trips), "{round_trips}");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_cuts_no_batch_short_that_waits_behind_others() {
    // The buffer ends in the middle of a batch.
    let (requests, round_trips) = sent(200, 10 * BATCH_BYTES + BATCH_BYTES / 2).await;
    assert_eq!(requests, 200);
    assert!((39.9..40.5).contains(&round_trips), "{round_trips}");
}

#[tokio::test(start_paused = true)]
async fn a_small_buffer_goes_out_whole_in_each_round_trip() {
    let (_, round_trips) = sent(40, BATCH_BYTES + BATCH_BYTES / 2).await;
    assert!((26.0..28.0).contains(&round_trips), "{round_trips}");
}

/// A worker keeps the task that was woken last to itself, until the one that it runs waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_leave_while_a_caller_fills_the_next_without_ever_waiting() {
    // Not copied, so that a gigabyte of them costs nothing.
    static VALUE: [u8; 16 << 10] = [b'v'; 16 << 10];
    const BATCHES: usize = 8_000;
    // The batches of all are begun and filled within moments.
    const PARTITIONS: i32 = 12;
    let builder = Cluster::builder().in_memory();
    let cluster = builder.topic("orders", PARTITIONS).start().await.unwrap();
    let client = ottla_tests::client(&cluster).connect().await.unwrap();
    let builder = client.producer().linger(Duration::from_secs(60));
    let builder = builder.batch_bytes(BATCH_BYTES).buffer_bytes(2 << 30);
    let producer = builder.build().unwrap();
    for partition in 0..PARTITIONS {
        let record = Record::to("orders").partition(partition).value("v");
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    let caller = tokio::spawn(async move {
        let mut seen = cluster.requests(ApiKey::Produce);
        let (mut times, mut partition) = (0, 0);
        for batch in 0..BATCHES {
            for _ in 0..BATCH_BYTES / VALUE.len() {
                partition = (partition + 1) % PARTITIONS;
                let value = Bytes::from_static(&VALUE);
                let record = Record::to("orders").partition(partition);
                let record = record.value_bytes(&value);
                drop(producer.enqueue(record).await.unwrap());
            }
            let now = cluster.requests(ApiKey::Produce);
            times += u32::from(now > seen);
            seen = now;
            // Not once alone: the driver must not fall behind the caller again.
            if times == 10 {
                return batch;
            }
            std::thread::yield_now();
        }
        BATCHES
    });
    let filled = caller.await.unwrap();
    assert!(filled < BATCHES, "the driver stood behind the caller");
}

/// Nothing of a producer goes on when it has ended, however it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_that_come_and_go_leave_no_task_behind() {
    let cluster = Cluster::builder().topic("orders", 1).in_memory();
    let cluster = cluster.start().await.unwrap();
    let client = ottla_tests::client(&cluster).connect().await.unwrap();
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let come_and_go = async |count| {
        for number in 0..count {
            let producer = client.producer().build().unwrap();
            if number % 2 == 0 {
                producer.close().await.unwrap();
            }
        }
    };
    come_and_go(10).await;
    // Connections stay.
    let before = alive() + 10;
    come_and_go(200).await;
    let ended = async {
        while alive() > before {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    assert!(ended.is_ok(), "{} tasks, {before} before", alive());
}
