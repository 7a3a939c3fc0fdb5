//! How quickly batches leave: callers that never wait, and brokers far away.

use ottla::{BoxFuture, BoxStream, Client, Dial, Producer, Record};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

const BATCH_BYTES: usize = 16 << 10;
/// So many of these fill a batch.
const RECORD_BYTES: usize = 1_000;
const A_BATCH: usize = 16;

async fn cluster() -> Cluster {
    let builder = Cluster::builder().in_memory();
    builder.topic("orders", 1).start().await.unwrap()
}

/// A producer whose batches stay small also behind a full window, and that has sent its first one.
async fn producer(client: &Client) -> Producer {
    let builder = client.producer().linger(Duration::from_secs(60));
    let builder = builder.batch_bytes(BATCH_BYTES);
    let builder = builder.property("max.request.size", BATCH_BYTES.to_string());
    let producer = builder.unwrap().build().unwrap();
    fill(&producer, 1).await;
    producer.flush().await.unwrap();
    producer
}

/// Fills so many batches without waiting for anything.
async fn fill(producer: &Producer, batches: usize) {
    for _ in 0..batches * A_BATCH {
        let record = Record::to("orders").value(&[b'v'; RECORD_BYTES]);
        drop(producer.enqueue(record).await.unwrap());
    }
}

/// What the broker has of 100 batches by the time that the last one is filled.
async fn written_meanwhile() -> usize {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = producer(&client).await;
    let before = cluster.log("orders", 0).len();
    fill(&producer, 100).await;
    let written = cluster.log("orders", 0).len() - before;
    producer.flush().await.unwrap();
    written / A_BATCH
}

#[tokio::test(start_paused = true)]
async fn batches_leave_a_runtime_of_one_thread_while_a_caller_fills_the_next() {
    let batches = written_meanwhile().await;
    assert!(batches >= 50, "{batches} of 100 batches");
}

/// A worker keeps the task that was woken last to itself, until the one that it runs waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn batches_leave_a_worker_while_a_caller_fills_the_next() {
    let batches = tokio::spawn(written_meanwhile()).await.unwrap();
    assert!(batches >= 50, "{batches} of 100 batches");
}

#[tokio::test(start_paused = true)]
async fn records_enqueued_together_keep_their_order_where_a_caller_gives_way() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = producer(&client).await;
    let before = cluster.log("orders", 0).len();
    let batches: usize = 20;
    for number in (0..batches * A_BATCH).step_by(2) {
        let value = |number: usize| {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(RECORD_BYTES, 0);
            value
        };
        let [first, second] = [value(number), value(number + 1)];
        let enqueue = |value| producer.enqueue(Record::to("orders").value(value));
        let (first, second) = tokio::join!(biased; enqueue(&first), enqueue(&second));
        drop((first.unwrap(), second.unwrap()));
    }
    producer.flush().await.unwrap();
    let log = cluster.log("orders", 0).into_iter().skip(before);
    let numbers = log.map(|record| {
        let number = record.value.unwrap()[..8].try_into().unwrap();
        usize::from_be_bytes(number)
    });
    assert!(numbers.eq(0..batches * A_BATCH));
}

/// Reaches the cluster over a line on which every answer takes so long, however many are under way.
struct Distant(Cluster, Duration);

impl Dial for Distant {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.0.dial(host, port).await?;
            let (mut answers, requests) = tokio::io::split(stream);
            let (mut arrives, reader) = tokio::io::duplex(1 << 20);
            let (under_way, mut due) = mpsc::unbounded_channel();
            let distance = self.1;
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = answers.read(&mut bytes).await {
                    let answer = (Instant::now() + distance, bytes[..count].to_vec());
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

#[tokio::test(start_paused = true)]
async fn five_batches_of_a_partition_share_a_round_trip_and_none_is_lost_between() {
    let cluster = cluster().await;
    let distance = Duration::from_millis(50);
    let transport = Arc::new(Distant(cluster.clone(), distance));
    let builder = Client::builder(cluster.bootstrap()).transport(transport);
    let client = builder.connect().await.unwrap();
    let producer = producer(&client).await;
    let before = cluster.requests(ApiKey::Produce);
    let begun = Instant::now();
    fill(&producer, 50).await;
    producer.flush().await.unwrap();
    let requests = cluster.requests(ApiKey::Produce) - before;
    let round_trips = begun.elapsed().div_duration_f64(distance);
    assert_eq!(requests, 50);
    assert!((9.9..10.5).contains(&round_trips), "{round_trips}");
}
