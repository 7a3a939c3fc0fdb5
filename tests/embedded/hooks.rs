//! Hooks, interceptors, dead letters and figures of a producer.

use ottla::{
    Acks, CleanupPolicy, Client, Compression, DeadLetterFormat, DeadLetters, Delivered,
    DeliveryHook, Ensured, Error, ErrorKind, Failed, Interceptor, NewTopic, Preset, Record,
    Scratch, WriteOutcome,
};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn orders(partitions: i32) -> (Cluster, Client) {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    let cluster = builder.topic("orders", partitions).start().await.unwrap();
    let client = client(&cluster).connect().await.unwrap();
    (cluster, client)
}

fn refuse(cluster: &Cluster) {
    let produce = cluster.faults().on(ApiKey::Produce);
    produce.error(Code::TOPIC_AUTHORIZATION_FAILED);
}

#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<String>>>);

impl DeliveryHook for Ears {
    fn on_delivered(&self, batch: &Delivered<'_>) {
        let (topic, partition, count) = (batch.topic, batch.partition, batch.record_count);
        let offset = batch.base_offset.unwrap();
        let line = format!("{topic}-{partition} {count} at {offset}");
        self.0.lock().unwrap().push(line);
    }

    fn on_failed(&self, batch: &Failed<'_>) {
        let (topic, partition, count) = (batch.topic, batch.partition, batch.record_count);
        assert!(batch.error.write_outcome().is_some());
        let line = format!("{topic}-{partition} {count} failed");
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_hears_every_batch_once_and_before_its_records() {
    let (cluster, client) = orders(1).await;
    let ears = Ears::default();
    let producer = client
        .producer()
        .delivery_hook(ears.clone())
        .build()
        .unwrap();
    producer.prepare("orders").await.unwrap();
    for round in 0..3 {
        if round == 1 {
            refuse(&cluster);
        }
        let mut last = None;
        for _ in 0..5 {
            last = Some(
                producer
                    .enqueue(Record::to("orders").value("v"))
                    .await
                    .unwrap(),
            );
        }
        let outcome = last.unwrap().await;
        assert_eq!(outcome.is_err(), round == 1);
        assert_eq!(ears.0.lock().unwrap().len(), round + 1);
    }
    let heard = ears.0.lock().unwrap().join(", ");
    assert_eq!(heard, "orders-0 5 at 0, orders-0 5 failed, orders-0 5 at 5");
}

#[tokio::test(start_paused = true)]
async fn a_records_own_callback_is_called_with_its_outcome() {
    let (_cluster, client) = orders(1).await;
    let producer = client.producer().build().unwrap();
    let sum = Arc::new(AtomicU64::new(0));
    for _ in 0..10 {
        let sum = Arc::clone(&sum);
        let add = move |outcome: ottla::Result<ottla::RecordMetadata>| {
            let offset = outcome.unwrap().offset.unwrap();
            sum.fetch_add(offset.unsigned_abs(), Ordering::Relaxed);
        };
        let record = Record::to("orders").value("v");
        producer.enqueue_with(record, add).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), 45);
}

/// Adds a header and moves records to another topic.
struct Router;

impl Interceptor for Router {
    fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r> {
        let origin = scratch.keep(format!("was for {}", record.topic));
        let record = Record {
            topic: "orders",
            ..record
        };
        record.header("origin", origin)
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_changes_what_is_sent_by_every_way_in() {
    let (cluster, client) = orders(1).await;
    let ears = Ears::default();
    let builder = client.producer().interceptor(Router);
    let producer = builder.delivery_hook(ears.clone()).build().unwrap();
    producer
        .send(Record::to("elsewhere").value("1"))
        .await
        .unwrap();
    let delivery = producer.try_enqueue(Record::to("elsewhere").value("2"));
    delivery.unwrap().await.unwrap();
    let log = cluster.log("orders", 0);
    let values: Vec<_> = log
        .iter()
        .map(|record| record.value.clone().unwrap())
        .collect();
    assert_eq!(values, [b"1", b"2"]);
    for record in log {
        let header = ("origin".to_owned(), Some(b"was for elsewhere".to_vec()));
        assert_eq!(record.headers, [header]);
    }
}

/// Adds a header, and takes no record without a key.
struct Guard;

impl Interceptor for Guard {
    fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r> {
        record.header("seen", scratch.keep("by the guard"))
    }

    fn check(&self, record: &Record<'_>) -> ottla::Result<()> {
        assert!(!record.headers.is_empty(), "checked when it is changed");
        match record.key {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::State, "every order has a customer")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_an_interceptor_finds_wrong_is_not_taken_by_any_way_in() {
    let (cluster, client) = orders(1).await;
    cluster.create_topic("orders.dlq", 1).unwrap();
    let builder = client.producer().interceptor(Guard);
    let producer = builder.dead_letters(DeadLetters::new()).build().unwrap();
    producer.prepare("orders").await.unwrap();
    let wrong = || Record::to("orders").value("wrong");
    let sent = producer.send(wrong()).await.unwrap_err();
    let (tried, given_back) = producer.try_enqueue(wrong()).unwrap_err();
    assert_eq!(given_back.value, Some(&b"wrong"[..]));
    for error in [&sent, &tried] {
        assert!(
            error.to_string().contains("every order has a customer"),
            "{error}"
        );
        assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    }
    producer.dead_letter(wrong(), &sent).await.unwrap();
    assert_eq!(cluster.log("orders.dlq", 0).len(), 1);
    producer.send(wrong().key("ada")).await.unwrap();
    assert_eq!(cluster.log("orders", 0).len(), 1);
    assert_eq!(producer.metrics().buffer_used_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn records_that_failed_for_good_lie_in_the_dead_letter_topic() {
    let (cluster, client) = orders(3).await;
    cluster.create_topic("orders.dlq", 2).unwrap();
    for codec in [Compression::None, Compression::Zstd] {
        let before = cluster.log("orders.dlq", 0).len();
        let builder = client.producer().compression(codec);
        let producer = builder.dead_letters(DeadLetters::new()).build().unwrap();
        producer.prepare("orders").await.unwrap();
        refuse(&cluster);
        let value = "the same words again and again ".repeat(20);
        let mut deliveries = Vec::new();
        for number in 0..20u8 {
            let key = [number];
            let record = Record::to("orders").partition(2).key(&key).value(&value);
            let record = record.header("source", "web").timestamp(1_000);
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        // Nothing is settled before its dead letter is.
        producer.flush().await.unwrap();
        for delivery in deliveries {
            let error = delivery.outcome().unwrap().unwrap_err();
            assert_eq!(error.code(), Some(Code::TOPIC_AUTHORIZATION_FAILED));
            assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
            assert!(error.to_string().contains("orders.dlq"), "{error}");
        }
        assert!(cluster.log("orders", 2).is_empty());
        let letters = cluster.log("orders.dlq", 0).split_off(before);
        assert_eq!(letters.len(), 20, "partition 2 of 3 is 0 of 2");
        for (number, letter) in (0u8..).zip(&letters) {
            assert_eq!(letter.key.as_deref(), Some(&[number][..]));
            assert_eq!(letter.value.as_deref(), Some(value.as_bytes()));
            assert_eq!(letter.timestamp, 1_000);
            let header = |name: &str| {
                let found = letter.headers.iter().find(|(own, _)| own == name);
                String::from_utf8(found.unwrap().1.clone().unwrap()).unwrap()
            };
            assert_eq!(header("source"), "web");
            assert_eq!(header("__dlq.errors.topic"), "orders");
            assert_eq!(header("__dlq.errors.partition"), "2");
            assert_eq!(header("__dlq.errors.attempts"), "1");
            assert_eq!(header("__dlq.errors.outcome"), "not-written");
        }
        let metrics = producer.metrics();
        assert_eq!(metrics.dead_letters_written, 20);
        assert_eq!(
            (metrics.records_not_written, metrics.errors.broker),
            (20, 20)
        );
        assert_eq!(metrics.buffer_used_bytes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_is_cut_only_what_fails_has_a_dead_letter() {
    let (cluster, client) = orders(1).await;
    let narrow = NewTopic::new("narrow").partitions(1);
    let narrow = narrow.config("max.message.bytes", "500");
    client.topics().create(narrow).await.unwrap();
    cluster.create_topic("narrow.dlq", 1).unwrap();
    let builder = client.producer().dead_letters(DeadLetters::new());
    let producer = builder.build().unwrap();
    producer.prepare("narrow").await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..9u8 {
        let value = vec![number; if number == 5 { 1_000 } else { 60 }];
        let record = Record::to("narrow").value(&value);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for (number, delivery) in (0u8..).zip(deliveries) {
        let outcome = delivery.outcome().unwrap();
        assert_eq!(outcome.is_err(), number == 5, "{number}: {outcome:?}");
    }
    assert_eq!(cluster.log("narrow", 0).len(), 8);
    let letters = cluster.log("narrow.dlq", 0);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(&[5; 1_000][..]));
    let metrics = producer.metrics();
    assert_eq!(
        (metrics.dead_letters_written, metrics.errors.too_large),
        (1, 1)
    );
    assert_eq!(metrics.records_acknowledged, 9, "eight and the dead letter");
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_may_be_written_says_so_in_its_dead_letter_or_has_none() {
    let (cluster, client) = orders(1).await;
    cluster.create_topic("graveyard", 1).unwrap();
    let policy = DeadLetters::new().topic("graveyard");
    for policy in [policy.clone(), policy.only_unwritten()] {
        let lost = cluster.faults().on(ApiKey::Produce);
        lost.append_then_error(Code::REQUEST_TIMED_OUT);
        refuse(&cluster);
        let producer = client.producer().dead_letters(policy).build().unwrap();
        let sent = producer.send(Record::to("orders").value("v")).await;
        let outcome = sent.unwrap_err().write_outcome();
        assert_eq!(outcome, Some(WriteOutcome::Unknown));
        producer.close().await.unwrap();
        let letters = cluster.log("graveyard", 0);
        assert_eq!(letters.len(), 1, "one of the first policy alone");
        let unknown = ("__dlq.errors.outcome".to_owned(), Some(b"unknown".to_vec()));
        assert!(letters[0].headers.contains(&unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_without_a_topic_are_said_to_be_lost_and_hold_nobody_for_ever() {
    let (cluster, client) = orders(1).await;
    let client_two = client.clone();
    let builder = client_two
        .producer()
        .property("max.block.ms", "1000")
        .unwrap();
    let producer = builder
        .dead_letters(DeadLetters::new().format(DeadLetterFormat::Spring))
        .build()
        .unwrap();
    producer.prepare("orders").await.unwrap();
    refuse(&cluster);
    let deny = cluster.faults().on(ApiKey::Metadata).always();
    deny.error(Code::TOPIC_AUTHORIZATION_FAILED);
    let error = producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("1 of 1 dead letters"), "{error}");
    assert_eq!(producer.metrics().dead_letters_lost, 1);
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_closes_still_writes_its_dead_letters() {
    let (cluster, client) = orders(1).await;
    cluster.create_topic("orders.dlq", 1).unwrap();
    let builder = client
        .producer()
        .property("dead.letter.format", "json")
        .unwrap();
    let builder = builder
        .property("dead.letter.topic", "{topic}.dlq")
        .unwrap();
    let producer = builder.linger(Duration::from_secs(30)).build().unwrap();
    producer.prepare("orders").await.unwrap();
    refuse(&cluster);
    let delivery = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    producer.close().await.unwrap();
    assert!(delivery.outcome().unwrap().is_err());
    let letter = cluster.log("orders.dlq", 0).remove(0).value.unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(&letter).unwrap();
    assert_eq!(envelope["original_topic"], "orders");
    assert_eq!(envelope["message"], "v");
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_can_be_given_to_the_dead_letters() {
    let (cluster, client) = orders(1).await;
    cluster.create_topic("orders.dlq", 1).unwrap();
    let plain = client.producer().build().unwrap();
    let record = Record::to("orders").value("v").partition(9);
    let refused = plain.send(record.clone()).await.unwrap_err();
    let error = plain
        .dead_letter(record.clone(), &refused)
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::State);
    let producer = client
        .producer()
        .dead_letters(DeadLetters::new())
        .build()
        .unwrap();
    let metadata = producer.dead_letter(record, &refused).await.unwrap();
    assert_eq!((&*metadata.topic, metadata.offset), ("orders.dlq", Some(0)));
    assert_eq!(
        cluster.log("orders.dlq", 0)[0].value.as_deref(),
        Some(&b"v"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_preset_by_name_gives_way_to_every_other_setting() {
    let (_cluster, client) = orders(1).await;
    let builder = client.producer().property("linger.ms", "0").unwrap();
    let builder = builder.property("preset", "throughput").unwrap();
    let producer = builder.build().unwrap();
    let start = tokio::time::Instant::now();
    let value = "the same words again and again ".repeat(20);
    producer
        .send(Record::to("orders").value(&value))
        .await
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(50),
        "the property wins"
    );
    let ratio = producer.metrics().compression_ratio.unwrap();
    assert!(ratio < 0.5, "zstd by the preset: {ratio}");
    assert_eq!(producer.metrics().buffer_bytes, 128 << 20);
    let wrong = client.producer().property("preset", "fast").unwrap_err();
    assert_eq!(*wrong.kind(), ErrorKind::Config);
    let typed = client.producer().preset(Preset::Latency).acks(Acks::Leader);
    let start = tokio::time::Instant::now();
    let typed = typed.build().unwrap();
    typed.send(Record::to("orders").value("v")).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_ensured_on_start_and_what_differs_is_told() {
    let (cluster, client) = orders(3).await;
    let made = NewTopic::new("events").partitions(4).replication(2);
    let made = made.cleanup_policy(CleanupPolicy::Compact);
    // Everybody starts at the same time.
    let start = || client.producer().ensure_topic(made.clone()).start();
    let (one, two, three) = tokio::join!(start(), start(), start());
    for producer in [one, two, three] {
        producer
            .unwrap()
            .send(Record::to("events").key("k").value("v"))
            .await
            .unwrap();
    }
    let described = client.topics().describe("events").await.unwrap();
    assert_eq!(described.topic.partitions.len(), 4);
    let config = described
        .configs
        .iter()
        .find(|(name, _)| &**name == "cleanup.policy");
    assert_eq!(config.unwrap().1.as_deref(), Some("compact"));
    let again = client.topics().ensure(made.clone()).await.unwrap();
    let differences = Vec::new();
    assert_eq!(again, Ensured::Existed { differences });
    let other = NewTopic::new("events").partitions(12).replication(3);
    let other = other.cleanup_policy(CleanupPolicy::Delete);
    let Ensured::Existed { differences } = client.topics().ensure(other).await.unwrap() else {
        panic!("it was there");
    };
    let expected = [
        "partitions is 4, not 12",
        "replication is 2, not 3",
        "cleanup.policy is compact, not delete",
    ];
    assert_eq!(differences, expected);
    // A list of settings has no order.
    let both = NewTopic::new("both").cleanup_policy(CleanupPolicy::CompactAndDelete);
    client.topics().create(both).await.unwrap();
    let turned = NewTopic::new("both").config("cleanup.policy", "delete, compact");
    let differences = Vec::new();
    let ensured = client.topics().ensure(turned).await.unwrap();
    assert_eq!(ensured, Ensured::Existed { differences });
    let refused = client.producer().ensure_topic(made).build().unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::State);
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_there_needs_no_right_to_make_it_or_to_read_its_settings() {
    let (cluster, client) = orders(3).await;
    for code in [
        Code::TOPIC_AUTHORIZATION_FAILED,
        Code::CLUSTER_AUTHORIZATION_FAILED,
    ] {
        cluster.faults().on(ApiKey::CreateTopics).error(code);
        let order = NewTopic::new("orders").partitions(3);
        let ensured = client.topics().ensure(order).await.unwrap();
        let differences = Vec::new();
        assert_eq!(ensured, Ensured::Existed { differences });
        cluster.faults().on(ApiKey::CreateTopics).error(code);
        let absent = client.topics().ensure(NewTopic::new("absent")).await;
        assert_eq!(absent.unwrap_err().code(), Some(ottla::Code(code.0)));
    }
    let hidden = cluster.faults().on(ApiKey::DescribeConfigs).always();
    hidden.error(Code::TOPIC_AUTHORIZATION_FAILED);
    let order = NewTopic::new("orders").cleanup_policy(CleanupPolicy::Delete);
    let Ensured::Existed { differences } = client.topics().ensure(order).await.unwrap() else {
        panic!("it was there");
    };
    let [unknown] = differences.as_slice() else {
        panic!("{differences:?}");
    };
    assert!(
        unknown.starts_with("its settings are not known"),
        "{unknown}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_there_and_is_not_shown_is_told_as_such() {
    let (cluster, client) = orders(1).await;
    let order = NewTopic::new("hidden").partitions(1);
    client.topics().create(order.clone()).await.unwrap();
    let hidden = cluster.faults().on(ApiKey::Metadata).always();
    hidden.error(Code::TOPIC_AUTHORIZATION_FAILED);
    let error = client.topics().ensure(order).await.unwrap_err();
    assert_eq!(error.code(), Some(ottla::Code::TOPIC_ALREADY_EXISTS));
    assert!(error.to_string().contains("does not show"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_figures_tell_rate_waits_sizes_retries_and_errors() {
    let (cluster, client) = orders(1).await;
    let producer = client
        .producer()
        .linger(Duration::from_millis(20))
        .build()
        .unwrap();
    producer.prepare("orders").await.unwrap();
    let slow = cluster.faults().on(ApiKey::Produce).always();
    slow.delay(Duration::from_millis(100));
    let retried = cluster.faults().on(ApiKey::Produce).after(1);
    retried.error(Code::NOT_ENOUGH_REPLICAS);
    let value = [7; 100];
    for _ in 0..4 {
        let mut last = None;
        for _ in 0..10 {
            let record = Record::to("orders").value(&value);
            last = Some(producer.enqueue(record).await.unwrap());
        }
        last.unwrap().await.unwrap();
    }
    let metrics = producer.metrics();
    assert_eq!(
        (metrics.records_acknowledged, metrics.records_pending),
        (40, 0)
    );
    assert_eq!((metrics.batches_sent, metrics.batch_retries), (5, 1));
    assert_eq!(metrics.batch_records.mean, 10);
    assert!((1_000..1_300).contains(&metrics.batch_bytes.mean));
    let about = |found: Duration, millis: u64| {
        let off = found.as_secs_f64() * 1e3 / millis as f64;
        assert!((0.9..1.2).contains(&off), "{found:?}");
    };
    about(metrics.queue_time.p50, 20);
    about(metrics.request_latency.p50, 100);
    about(metrics.delivery_latency.p50, 120);
    assert!(
        metrics.delivery_latency.max > Duration::from_millis(200),
        "the retried one"
    );
    assert!(
        metrics.records_per_second > 30.0,
        "{}",
        metrics.records_per_second
    );
    assert_eq!(metrics.compression_ratio, None);
}
