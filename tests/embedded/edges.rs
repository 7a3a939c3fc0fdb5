//! The producer at its edges: silence, closing, full memory, topics that come and go.

use ottla::{Client, ErrorKind, Partitioner, Producer, Record};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_producer::{Clock, Config};
use ottla_tests::client;
use std::sync::Arc;
use std::time::Duration;

async fn cluster(topic: &str, partitions: i32) -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    builder.topic(topic, partitions).start().await.unwrap()
}

/// A producer whose records take their time from the paused clock.
fn on_the_runtimes_clock(client: &Client) -> Producer {
    let config = Config {
        clock: Clock::Runtime { start: 0 },
        ..Config::default()
    };
    let sticky: Arc<dyn Partitioner> = Arc::new(ottla_partitioner::Sticky::default());
    Producer::new(client.cluster().clone(), config, sticky).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_record_after_a_silence_carries_its_own_time() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = on_the_runtimes_clock(&client);
    let born = tokio::time::Instant::now();
    let now = || i64::try_from(born.elapsed().as_millis()).unwrap();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    let before = now();
    let m = producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    assert!(
        before - m.timestamp <= 10,
        "{} ms old",
        before - m.timestamp
    );
}

#[tokio::test(start_paused = true)]
async fn waits_that_no_clock_can_count_to_are_as_good_as_for_ever() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let config = Config {
        linger: Duration::MAX - Duration::from_secs(1),
        delivery_timeout: Duration::MAX,
        metadata_max_idle: Duration::MAX,
        ..Config::default()
    };
    let sticky: Arc<dyn Partitioner> = Arc::new(ottla_partitioner::Sticky::default());
    let producer = Producer::new(client.cluster().clone(), config, sticky).unwrap();
    let record = Record::to("orders").value("v");
    let delivery = producer.enqueue(record).await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(delivery.await.unwrap().offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_record_in_an_overdue_batch_carries_its_own_time() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = on_the_runtimes_clock(&client);
    let born = tokio::time::Instant::now();
    let now = || i64::try_from(born.elapsed().as_millis()).unwrap();
    producer.prepare("orders").await.unwrap();
    cluster
        .faults()
        .on(ApiKey::Produce)
        .delay(Duration::from_secs(25));
    let _a = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _b = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = now();
    let c = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    let m = c.await.unwrap();
    assert!(
        before - m.timestamp <= 10,
        "{} ms old",
        before - m.timestamp
    );
}

#[tokio::test(start_paused = true)]
async fn preparing_a_topic_on_a_closed_producer_ends() {
    let cluster = cluster("orders", 1).await;
    cluster.create_topic("other", 1).unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let clone = producer.clone();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    producer.close().await.unwrap();
    let r = tokio::time::timeout(Duration::from_secs(3600), clone.prepare("other")).await;
    assert!(r.is_ok(), "prepare on a closed producer never returns");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_its_topic_ends_when_the_producer_closes() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let clone = producer.clone();
    let waiting =
        tokio::spawn(async move { clone.enqueue(Record::to("late").value("v")).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    producer.close().await.unwrap();
    cluster.create_topic("late", 1).unwrap();
    let r = tokio::time::timeout(Duration::from_secs(3600), waiting).await;
    assert!(
        r.is_ok(),
        "enqueue hangs for an hour; max.block.ms is a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn no_batch_is_ever_sent_empty() {
    let cluster = cluster("orders", 2).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .buffer_bytes(128 << 10)
        .linger(Duration::from_millis(200))
        .build()
        .unwrap();
    producer
        .send(Record::to("orders").partition(0).value("first"))
        .await
        .unwrap();
    producer
        .send(Record::to("orders").partition(1).value("first"))
        .await
        .unwrap();
    let before = producer.metrics();
    // 128 KiB: fill 3 chunks in partition 0, then a record of 60 KiB for partition 1.
    let value = vec![1u8; 90 << 10];
    let record = Record::to("orders").partition(0).value(&value);
    let held = producer.try_enqueue(record).unwrap();
    let e = producer
        .try_enqueue(
            Record::to("orders")
                .partition(1)
                .value(&vec![1u8; 60 << 10]),
        )
        .unwrap_err()
        .0;
    assert_eq!(e.kind(), &ErrorKind::BufferFull);
    held.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = producer.metrics();
    assert_eq!(
        after.batches_sent - before.batches_sent,
        1,
        "one record was taken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_the_buffer_is_refused_by_name() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .buffer_bytes(65_536)
        .property("max.block.ms", "2000")
        .unwrap()
        .build()
        .unwrap();
    producer
        .send(Record::to("orders").value("first"))
        .await
        .unwrap();
    let before = producer.metrics().batches_sent;
    let value = vec![1u8; 100_000];
    let error = producer
        .send(Record::to("orders").value(&value))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge);
    assert!(error.to_string().contains("buffer.memory"), "{error}");
    assert_eq!(producer.metrics().batches_sent - before, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_does_not_wait_out_the_linger_of_others() {
    let cluster = cluster("orders", 8).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .buffer_bytes(65_536)
        .linger(Duration::from_secs(30))
        .build()
        .unwrap();
    producer.prepare("orders").await.unwrap();
    let begin = tokio::time::Instant::now();
    let mut tasks = vec![];
    for p in 0..8 {
        let producer = producer.clone();
        tasks.push(tokio::spawn(async move {
            let value = vec![1u8; 20_000];
            let record = Record::to("orders").partition(p);
            drop(producer.enqueue(record.value(&value)).await.unwrap());
            begin.elapsed()
        }));
    }
    let mut worst = Duration::ZERO;
    for t in tasks {
        let d = t.await.unwrap();
        worst = worst.max(d);
    }
    assert!(worst < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_topic_deleted_and_made_again_by_the_same_client_takes_records() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    client.topics().delete("orders").await.unwrap();
    client
        .topics()
        .create(ottla::NewTopic::new("orders").partitions(1).replication(3))
        .await
        .unwrap();
    let begin = tokio::time::Instant::now();
    for _ in 0..2 {
        producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_topic_deleted_and_made_again_by_others_takes_records() {
    let cluster = cluster("orders", 3).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    for p in 0..3 {
        producer
            .send(Record::to("orders").partition(p).value("v"))
            .await
            .unwrap();
    }
    cluster.delete_topic("orders").unwrap();
    cluster.create_topic("orders", 1).unwrap();
    let begin = tokio::time::Instant::now();
    producer
        .send(Record::to("orders").partition(0).value("v"))
        .await
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_size_over_the_largest_batch_is_the_largest_batch() {
    let builder = Cluster::builder().nodes(1).in_memory();
    let cluster = builder.topic("orders", 1).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().batch_bytes(4 << 20).build().unwrap();
    let mut ds = vec![];
    for _ in 0..3000 {
        ds.push(
            producer
                .enqueue(Record::to("orders").value(&[1u8; 1000]))
                .await
                .unwrap(),
        );
    }
    producer.flush().await.unwrap();
    for delivery in ds {
        delivery.await.unwrap();
    }
    assert_eq!(producer.metrics().records_not_written, 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_for_an_unknown_partition_asks_for_newer_metadata() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    cluster.add_partitions("orders", 3).unwrap();
    let begin = tokio::time::Instant::now();
    while let Err(error) = producer
        .send(Record::to("orders").partition(2).value("v"))
        .await
    {
        assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_still_open_expires_too() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let limit = Duration::from_secs(1);
    let producer = client.producer().delivery_timeout(limit).build().unwrap();
    producer.prepare("orders").await.unwrap();
    cluster
        .faults()
        .on(ApiKey::Produce)
        .delay(Duration::from_secs(20));
    // The first batch fills the window of a fresh partition, so the second one stays open.
    let first = producer.enqueue(Record::to("orders").value("v")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = producer.enqueue(Record::to("orders").value("v")).await;
    let begun = tokio::time::Instant::now();
    let error = second.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(begun.elapsed() < limit + Duration::from_millis(50));
    drop(first.unwrap());
}

/// Lives through many short-lived topics without keeping anything of them.
#[tokio::test(start_paused = true)]
async fn a_topic_that_nothing_is_written_to_is_forgotten_and_comes_back_when_it_is_wanted() {
    let cluster = cluster("orders", 2).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .property("metadata.max.idle.ms", "60000")
        .unwrap()
        .build()
        .unwrap();
    for round in 0..3 {
        let sent = producer.send(Record::to("orders").partition(0).value("v"));
        assert_eq!(sent.await.unwrap().offset, Some(round));
        assert!(client.cluster().view().topic("orders").is_some());
        let begin = tokio::time::Instant::now();
        while client.cluster().view().topic("orders").is_some() {
            // The view drops what nobody wants with its next refresh.
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(begin.elapsed() < Duration::from_secs(1_000), "it is kept");
        }
        assert!(begin.elapsed() >= Duration::from_secs(60));
    }
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_seals_what_waits_for_its_window() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.prepare("orders").await.unwrap();
    let distance = Duration::from_millis(200);
    let produce = cluster.faults().on(ApiKey::Produce);
    let _ = produce.always().delay(distance);
    let send = || producer.enqueue(Record::to("orders").value("v"));
    let first = send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The window of a fresh partition is one batch: this one stays open beyond its linger.
    let second = send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    producer.flush().await.unwrap();
    for delivery in [first, second] {
        assert!(matches!(delivery.outcome(), Some(Ok(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_grew_behind_a_full_window_does_not_stay_the_measure() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let linger = Duration::from_secs(1);
    let builder = client.producer().batch_bytes(1_000).linger(linger);
    let producer = builder.build().unwrap();
    let distance = Duration::from_millis(50);
    let produce = cluster.faults().on(ApiKey::Produce);
    let _ = produce.always().delay(distance);
    for _ in 0..2_000 {
        let record = Record::to("orders").value(&[b'v'; 100]);
        drop(producer.enqueue(record).await.unwrap());
        tokio::task::yield_now().await;
    }
    producer.flush().await.unwrap();
    let before = producer.metrics().batches_sent;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        for _ in 0..9 {
            let record = Record::to("orders").value(&[b'v'; 100]);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    producer.flush().await.unwrap();
    let batches = producer.metrics().batches_sent - before;
    assert!(batches >= 4, "{batches} batches of 1,000 bytes");
}

#[tokio::test(start_paused = true)]
async fn records_of_a_topic_that_is_gone_wait_for_it_until_their_deadline() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let limit = Duration::from_secs(20);
    let producer = client.producer().delivery_timeout(limit).build().unwrap();
    let send = || producer.send(Record::to("orders").value("v"));
    send().await.unwrap();
    cluster.delete_topic("orders").unwrap();
    let before = cluster.requests(ApiKey::Produce);
    let begun = tokio::time::Instant::now();
    let error = send().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{error}");
    assert!(begun.elapsed() <= limit + Duration::from_millis(50));
    // Once metadata says that it is gone, nobody is asked about it any more.
    assert!(cluster.requests(ApiKey::Produce) - before <= 3);
}

#[tokio::test(start_paused = true)]
async fn batches_grow_again_some_time_after_one_was_too_large_for_its_topic() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().batch_bytes(64 << 10);
    let producer = producer.linger(Duration::from_millis(5)).build().unwrap();
    let fault = cluster.faults().on(ApiKey::Produce).after(1).times(1);
    let fault = fault.error(Code::MESSAGE_TOO_LARGE);
    // How many requests 60 KB take, sent in one go.
    let requests = async || {
        let before = cluster.requests(ApiKey::Produce);
        let mut deliveries = vec![];
        for _ in 0..60 {
            let record = Record::to("orders").value(&[7; 1_000]);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        cluster.requests(ApiKey::Produce) - before
    };
    assert_eq!(requests().await, 1);
    assert_eq!(
        (requests().await, fault.fired()),
        (3, 1),
        "the whole, then its halves"
    );
    assert_eq!(requests().await, 3, "the limit is remembered");
    tokio::time::sleep(Duration::from_secs(301)).await;
    requests().await; // the first batch is begun under the old limit
    assert_eq!(
        requests().await,
        1,
        "and the topic's limit may have been raised"
    );
}
