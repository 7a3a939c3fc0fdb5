//! What users hang into a producer may panic: nothing is lost silently, and no lock stays held.

use ottla::partitioner::{KeyChoice, Partitioner, Run, TopicView};
use ottla::{Client, Delivered, Failed, Interceptor, Producer, Record, Scratch};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

async fn orders() -> (Cluster, Client) {
    let cluster = Cluster::builder().nodes(3).in_memory();
    let cluster = cluster.topic("orders", 3).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

/// Where it is to panic the next time it comes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Keyed,
    BeginRun,
    EndRun,
    OnSend,
    Check,
    OnAcknowledgement,
}

#[derive(Debug, Clone, Default)]
struct Faulty {
    next: Arc<Mutex<Option<Place>>>,
    panics: Arc<AtomicU32>,
}

impl Faulty {
    fn panic_at(&self, place: Place) {
        *self.next.lock().unwrap() = Some(place);
    }

    fn pass(&self, place: Place) {
        let mut next = self.next.lock().unwrap();
        if next.take_if(|next| *next == place).is_some() {
            drop(next);
            self.panics.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::panic, reason = "it is what this is about")]
            {
                panic!("{place:?} was told to");
            }
        }
    }

    fn panics(&self) -> u32 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl Partitioner for Faulty {
    fn keyed(&self, _: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        self.pass(Place::Keyed);
        KeyChoice::Partition(i32::from(key[0]) % 3)
    }

    fn begin_run(&self, _: &TopicView<'_>, _: Instant, random: u64, _: Option<i32>) -> Run {
        self.pass(Place::BeginRun);
        Run {
            partition: (random % 3) as i32,
            bytes: 1 << 20,
            records: 2,
        }
    }

    fn end_run(&self, _: &TopicView<'_>, _: Run, _: u32) {
        self.pass(Place::EndRun);
    }
}

impl Interceptor for Faulty {
    fn on_send<'r>(&'r self, record: Record<'r>, _: &'r Scratch) -> Record<'r> {
        self.pass(Place::OnSend);
        record
    }

    fn check(&self, _: &Record<'_>) -> ottla::Result<()> {
        self.pass(Place::Check);
        Ok(())
    }

    fn on_acknowledgement(&self, _: Result<&Delivered<'_>, &Failed<'_>>) {
        self.pass(Place::OnAcknowledgement);
    }
}

/// Sends records with and without a key by both ways in; returns how many were not taken since the
/// user's code panicked.
async fn send_ten(producer: &Producer) -> usize {
    let mut refused = 0;
    for number in 0..10u8 {
        let record = match number % 2 {
            0 => Record::to("orders").value("v").key(vec![number].leak()),
            _ => Record::to("orders").value("v"),
        };
        if number < 5 {
            let tried = || producer.try_enqueue(record).unwrap();
            refused += usize::from(catch_unwind(AssertUnwindSafe(tried)).is_err());
        } else {
            let producer = producer.clone();
            let sent = tokio::spawn(async move { drop(producer.enqueue(record).await.unwrap()) });
            refused += usize::from(sent.await.is_err());
        }
    }
    refused
}

fn written(cluster: &Cluster) -> usize {
    let of = |partition| cluster.log("orders", partition).len();
    (0..6).map(of).sum()
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_the_record_hears_a_panic_and_every_other_record_arrives() {
    for place in [
        Place::Keyed,
        Place::BeginRun,
        Place::EndRun,
        Place::OnSend,
        Place::Check,
    ] {
        let (cluster, client) = orders().await;
        let faulty = Faulty::default();
        let builder = client.producer().partitioner(faulty.clone());
        let producer = builder.interceptor(faulty.clone()).build().unwrap();
        producer.prepare("orders").await.unwrap();
        assert_eq!(send_ten(&producer).await, 0);
        let mut refused = 0;
        for _ in 0..4 {
            faulty.panic_at(place);
            refused += send_ten(&producer).await;
            assert_eq!(send_ten(&producer).await, 0, "{place:?}");
        }
        assert_eq!((refused, faulty.panics()), (4, 4), "{place:?}");
        producer.flush().await.unwrap();
        assert_eq!(written(&cluster), 86, "{place:?}");
        let figures = producer.metrics();
        let taken = (figures.records_acknowledged, figures.records_pending);
        assert_eq!(taken, (86, 0), "{place:?}");
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_producers_own_task_is_not_its_end() {
    let (cluster, client) = orders().await;
    let faulty = Faulty::default();
    let builder = client.producer().partitioner(faulty.clone());
    let producer = builder.interceptor(faulty.clone()).build().unwrap();
    producer.prepare("orders").await.unwrap();
    faulty.panic_at(Place::OnAcknowledgement);
    assert_eq!(send_ten(&producer).await, 0);
    producer.flush().await.unwrap();
    assert_eq!(faulty.panics(), 1);
    // The topic grows, so the run of its keyless records ends.
    faulty.panic_at(Place::EndRun);
    cluster.add_partitions("orders", 6).unwrap();
    client.cluster().refresh().await.unwrap();
    sleep(SECOND).await;
    assert_eq!(faulty.panics(), 2);
    let before = written(&cluster);
    assert_eq!(send_ten(&producer).await, 0);
    producer.flush().await.unwrap();
    assert_eq!(written(&cluster), before + 10);
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_panics_after_it_waited_for_memory_gives_it_back() {
    let (cluster, client) = orders().await;
    let faulty = Faulty::default();
    let builder = client.producer().partitioner(faulty.clone());
    let builder = builder.buffer_bytes(1 << 20).linger(Duration::ZERO);
    let producer = builder.build().unwrap();
    producer.prepare("orders").await.unwrap();
    let slow = cluster.faults().on(ApiKey::Produce).always();
    slow.delay(SECOND);
    let value: &[u8] = vec![b'v'; 1_000].leak();
    let record = move || Record::to("orders").key(b"\x01").value(value);
    while let Ok(delivery) = producer.try_enqueue(record()) {
        drop(delivery);
    }
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let producer = producer.clone();
        waiting.spawn(async move { producer.enqueue(record()).await.map(drop) });
    }
    tokio::task::yield_now().await;
    assert_eq!(producer.metrics().callers_waiting, 20);
    // They have asked it where to go; the first that is served asks again.
    faulty.panic_at(Place::Keyed);
    let mut served = 0;
    while let Some(ended) = waiting.join_next().await {
        match ended {
            Ok(taken) => served += usize::from(taken.is_ok()),
            Err(error) => assert!(error.is_panic()),
        }
    }
    assert_eq!((served, faulty.panics()), (19, 1));
    producer.flush().await.unwrap();
    let figures = producer.metrics();
    assert_eq!((figures.records_pending, figures.callers_waiting), (0, 0));
    assert_eq!(figures.buffer_used_bytes, 0);
    producer.close().await.unwrap();
}
