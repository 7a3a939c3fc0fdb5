//! What is heard of a producer that nobody closed, and what others see of its buffer.

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use ottla::{Client, DeliveryHook, Error, ErrorKind, Failed, Record};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::util::SubscriberInitExt;

async fn orders() -> (Cluster, Client) {
    let builder = Cluster::builder().in_memory().topic("orders", 2);
    let cluster = builder.start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

/// The log, as text.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn lines_with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(word));
        lines.map(str::to_owned).collect()
    }
}

/// How many records failed because their producer ended.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<u32>>);

impl DeliveryHook for Lost {
    fn on_failed(&self, batch: &Failed<'_>) {
        assert_eq!(batch.error.kind(), &ErrorKind::Closed);
        *self.0.lock().unwrap() += batch.record_count;
    }
}

#[test]
fn a_producer_that_ends_with_its_runtime_says_how_many_records_it_loses() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let _guard = subscriber.with_writer(move || writer.clone()).set_default();
    let lost = Lost::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (deliveries, metrics) = runtime.block_on(async {
        let (_cluster, client) = orders().await;
        let builder = client.producer().delivery_hook(lost.clone());
        let producer = builder.linger(Duration::ZERO).build().unwrap();
        producer.prepare("orders").await.unwrap();
        let mut deliveries = Vec::new();
        // One full batch that the driver has not looked at, and one open in each partition.
        for value in [vec![b'a'; 700_000], vec![b'b'; 700_000], vec![b'c'; 100]] {
            let record = Record::to("orders").partition(0).value(&value[..]);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        let record = Record::to("orders").partition(1).value("d");
        deliveries.push(producer.enqueue(record).await.unwrap());
        (deliveries, producer)
    });
    drop(runtime);
    for delivery in deliveries {
        let error: Error = delivery.outcome().unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Closed);
    }
    assert_eq!(*lost.0.lock().unwrap(), 4);
    let figures = metrics.metrics();
    assert_eq!((figures.errors.closed, figures.records_pending), (4, 0));
    let said = log.lines_with("ended before its records did");
    let [line] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert!(
        line.contains("WARN") && line.contains("records=4"),
        "{line}"
    );
}

/// Adds up what all gauges of the buffer are told.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<f64>>);

impl GaugeFn for Buffers {
    fn increment(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }

    fn decrement(&self, value: f64) {
        *self.0.lock().unwrap() -= value;
    }

    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Recorder for Buffers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name() {
            "ottla_producer_buffer_used_bytes" => Gauge::from_arc(Arc::new(self.clone())),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn the_gauge_shows_the_buffers_of_all_producers_while_nothing_ends() {
    let buffers = Buffers::default();
    let shown = || *buffers.0.lock().unwrap();
    let (cluster, client) = orders().await;
    let outage = cluster.faults().on(ApiKey::Produce).always();
    outage.delay(Duration::from_secs(20));
    let build = || {
        let builder = client.producer().linger(Duration::ZERO);
        metrics::with_local_recorder(&buffers, || builder.build().unwrap())
    };
    let (one, two) = (build(), build());
    let mut deliveries = Vec::new();
    for producer in [&one, &two] {
        let record = Record::to("orders").value(&[b'a'; 10_000]);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let used = [&one, &two].map(|producer| producer.metrics().buffer_used_bytes);
    assert!(used.iter().all(|bytes| *bytes >= 10_000), "{used:?}");
    assert_eq!(shown(), used.iter().sum::<usize>() as f64);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    one.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = [&one, &two].map(|producer| producer.metrics().buffer_used_bytes);
    assert_eq!(shown(), used.iter().sum::<usize>() as f64);
    one.close().await.unwrap();
    two.close().await.unwrap();
    assert_eq!(shown(), 0.0, "a producer that has ended holds nothing");
}
