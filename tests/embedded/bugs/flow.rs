//! Bug classes 25, 26, 28, 29 and 30: back pressure, connections, and answers and requests that are
//! not what they should be.

use super::{connect, numbers, orders, settle, value};
use ottla::{BoxFuture, BoxStream, Client, Dial, ErrorKind, Producer, Record};
use ottla_broker::{ApiKey, Cluster};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn bug_25_a_flush_and_callers_that_wait_for_memory_wait_for_each_other() {
    let cluster = orders(3).await;
    let builder = connect(&cluster).await.buffer_bytes(64 << 10);
    let producer = builder.linger(30 * SECOND).build().unwrap();
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8u32 {
        let producer = producer.clone();
        callers.spawn(async move {
            for number in 0..20 {
                let value = value(caller * 20 + number, 9_000);
                let record = Record::to("orders").value(&value);
                // Whoever hears of a record sends the next one, as in a callback.
                producer.send(record).await.unwrap();
                if number % 5 == 0 {
                    producer.flush().await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    producer.flush().await.unwrap();
    assert!(begun.elapsed() < 700 * SECOND, "{:?}", begun.elapsed());
    let written: usize = (0..3).map(|p| cluster.log("orders", p).len()).sum();
    assert_eq!((written, producer.metrics().buffer_used_bytes), (160, 0));
}

/// Produces from within its records' callbacks.
struct Echo {
    producer: Producer,
    next: AtomicU32,
    /// How often a callback found the buffer full.
    refused: AtomicU32,
    heard: mpsc::UnboundedSender<()>,
}

impl Echo {
    const RECORDS: u32 = 300;

    /// Sends the next record, if it is not the last; its callback sends two more.
    fn produce(self: &Arc<Self>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= Self::RECORDS {
            return;
        }
        let value = value(number, 9_000);
        let echo = Arc::clone(self);
        let heard = move |outcome: ottla::Result<_>| {
            outcome.unwrap();
            echo.heard.send(()).unwrap();
            echo.produce();
            echo.produce();
        };
        match self
            .producer
            .try_enqueue(Record::to("orders").value(&value))
        {
            Ok(delivery) => delivery.on_delivery(heard),
            Err((error, _)) => {
                assert_eq!(error.kind(), &ErrorKind::BufferFull);
                self.refused.fetch_add(1, Ordering::Relaxed);
                let producer = self.producer.clone();
                tokio::spawn(async move {
                    let record = Record::to("orders").value(&value);
                    producer.enqueue_with(record, heard).await.unwrap();
                });
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bug_25_a_callback_that_produces_into_a_full_buffer_waits_for_itself() {
    let cluster = orders(3).await;
    let builder = connect(&cluster).await.buffer_bytes(64 << 10);
    let producer = builder.linger(30 * SECOND).build().unwrap();
    producer.prepare("orders").await.unwrap();
    let (heard, mut hears) = mpsc::unbounded_channel();
    let echo = Arc::new(Echo {
        producer: producer.clone(),
        next: AtomicU32::new(0),
        refused: AtomicU32::new(0),
        heard,
    });
    let begun = Instant::now();
    echo.produce();
    for number in 1..=Echo::RECORDS {
        let soon = tokio::time::timeout(600 * SECOND, hears.recv()).await;
        assert!(soon.is_ok(), "nothing is heard after {number} records");
        if number % 7 == 0 {
            producer.flush().await.unwrap();
        }
    }
    // The first few linger in turn, chance says how many; from then on the buffer is full, and
    // nothing does.
    assert!(begun.elapsed() < 300 * SECOND, "{:?}", begun.elapsed());
    assert!(echo.refused.load(Ordering::Relaxed) > 0);
    producer.flush().await.unwrap();
    let mut written: Vec<u32> = (0..3).flat_map(|p| numbers(&cluster, p)).collect();
    written.sort_unstable();
    assert!(written.into_iter().eq(0..Echo::RECORDS));
    assert_eq!(producer.metrics().buffer_used_bytes, 0);
}

/// Counts the connections that are asked for.
struct Counting {
    cluster: Cluster,
    dials: Arc<AtomicU32>,
}

impl Dial for Counting {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { self.cluster.dial(host, port).await.map(BoxStream::new) })
    }
}

#[tokio::test(start_paused = true)]
async fn bug_26_a_broker_that_is_away_is_dialled_in_a_storm() {
    let builder = Cluster::builder().nodes(3).replication(1).in_memory();
    let cluster = builder.topic("orders", 12).start().await.unwrap();
    let dials = Arc::new(AtomicU32::new(0));
    let counting = Counting {
        cluster: cluster.clone(),
        dials: Arc::clone(&dials),
    };
    let builder = Client::builder(cluster.bootstrap()).transport(Arc::new(counting));
    let client = builder.connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let all = async |producer: &Producer| {
        let mut deliveries = Vec::new();
        for partition in 0..12 {
            let record = Record::to("orders").partition(partition).value("v");
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        deliveries
    };
    settle(all(&producer).await).await;
    let open = dials.swap(0, Ordering::Relaxed);
    // One to find the cluster, one a broker to produce, one a broker for the rest.
    assert!(open <= 7, "{open} connections for three brokers");
    cluster.stop_node(0).await.unwrap();
    let deliveries = all(&producer).await;
    tokio::time::sleep(60 * SECOND).await;
    let asked = dials.swap(0, Ordering::Relaxed);
    // Twelve partitions make no more attempts than one: at most about one a second and class.
    assert!(asked <= 150, "{asked} connections in a minute");
    cluster.start_node(0).await.unwrap();
    settle(deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn bug_28_an_answer_that_breaks_off_anywhere_loses_or_repeats_a_record() {
    let cluster = orders(1).await;
    let producer = connect(&cluster).await.build().unwrap();
    for bytes in 0..90 {
        let _ = cluster.faults().on(ApiKey::Produce).cut_answer(bytes);
        let record = Record::to("orders").partition(0).value("v");
        let metadata = producer.send(record).await.unwrap();
        assert_eq!(metadata.offset, Some(i64::try_from(bytes).unwrap()));
        cluster.faults().clear();
    }
    assert_eq!(cluster.log("orders", 0).len(), 90);
}

#[tokio::test(start_paused = true)]
async fn bug_29_one_slow_broker_blocks_the_whole_producer() {
    let cluster = orders(3).await;
    let builder = connect(&cluster).await.buffer_bytes(512 << 10);
    let producer = builder.build().unwrap();
    let slow = cluster.leader("orders", 0).unwrap();
    for partition in 0..3 {
        let record = Record::to("orders").partition(partition).value("first");
        producer.send(record).await.unwrap();
    }
    cluster.freeze_node(slow).unwrap();
    let big = vec![7; 10_000];
    while producer
        .try_enqueue(Record::to("orders").partition(0).value(&big))
        .is_ok()
    {}
    let begun = Instant::now();
    for number in 0..500 {
        let partition = 1 + number % 2;
        let record = Record::to("orders").partition(partition).value(&big);
        producer.send(record).await.unwrap();
    }
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn bug_30_a_request_with_several_topics_and_partitions_is_a_byte_off() {
    let builder = Cluster::builder().nodes(1).in_memory();
    let cluster = builder
        .topic("orders", 5)
        .topic("payments", 3)
        .topic("x", 1)
        .start()
        .await
        .unwrap();
    let producer = connect(&cluster).await.linger(SECOND).build().unwrap();
    let places = [("orders", 5), ("payments", 3), ("x", 1)];
    let places: Vec<(&str, i32)> = places
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)))
        .collect();
    for (topic, _) in &places {
        producer.prepare(topic).await.unwrap();
    }
    for round in 0..3u32 {
        let before = cluster.requests(ApiKey::Produce);
        let mut deliveries = Vec::new();
        for (place, (topic, partition)) in (0..).zip(&places) {
            let value = value(round * 100 + place, 200 << place);
            let record = Record::to(topic).partition(*partition).value(&value);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        producer.flush().await.unwrap();
        settle(deliveries).await;
        assert_eq!(cluster.requests(ApiKey::Produce) - before, 1);
    }
    for (place, (topic, partition)) in (0..).zip(&places) {
        for (round, record) in (0..).zip(cluster.log(topic, *partition)) {
            assert_eq!(record.value, Some(value(round * 100 + place, 200 << place)));
        }
    }
}
