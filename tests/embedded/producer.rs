//! Producing, end to end, in memory.

use ottla::partitioner::java_partition;
use ottla::{Acks, Compression, ErrorKind, Header, Record};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;
use std::time::Duration;

async fn cluster(topic: &str, partitions: i32) -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    builder.topic(topic, partitions).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_record_arrives_with_every_byte_and_every_header() {
    let cluster = cluster("orders", 3).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let headers = [
        Header {
            key: "trace",
            value: Some(b"\x00\xff"),
        },
        Header {
            key: "trace",
            value: None,
        },
        Header {
            key: "",
            value: Some(b""),
        },
    ];
    let record = Record::to("orders")
        .key("k\u{e9}")
        .value(b"\x00\x01")
        .headers(&headers);
    let metadata = producer.send(record.timestamp(1_234)).await.unwrap();
    assert_eq!((metadata.offset, metadata.timestamp), (Some(0), 1_234));
    let log = cluster.log("orders", metadata.partition);
    assert_eq!(log[0].key.as_deref(), Some("k\u{e9}".as_bytes()));
    assert_eq!(log[0].value.as_deref(), Some(&b"\x00\x01"[..]));
    assert_eq!(log[0].timestamp, 1_234);
    let read: Vec<_> = log[0]
        .headers
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_deref()))
        .collect();
    let sent: Vec<_> = headers.iter().map(|h| (h.key, h.value)).collect();
    assert_eq!(read, sent);
    let tombstone = producer
        .send(Record::to("orders").key("gone").partition(1))
        .await
        .unwrap();
    let last = cluster.log("orders", 1).pop().unwrap();
    assert_eq!((last.value, Some(last.offset)), (None, tombstone.offset));
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_where_the_java_client_sends_it_and_keeps_its_order() {
    let cluster = cluster("orders", 7).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    for number in 0..500u32 {
        let key = format!("key-{}", number % 11);
        let record = Record::to("orders").key(&key);
        drop(
            producer
                .enqueue(record.value(&number.to_be_bytes()))
                .await
                .unwrap(),
        );
    }
    producer.flush().await.unwrap();
    let mut seen = 0;
    for partition in 0..7 {
        let mut last = std::collections::BTreeMap::new();
        for record in cluster.log("orders", partition) {
            let key = record.key.unwrap();
            assert_eq!(java_partition(&key, 7), partition);
            let number = u32::from_be_bytes(record.value.unwrap().try_into().unwrap());
            assert!(
                last.insert(key, number)
                    .is_none_or(|before| before < number)
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 500);
}

/// Each name that the configuration takes, with the partition of 12 for the key `hejsan` and for an
/// empty one: from librdkafka's test 0048, and from mmh3 5. `None` is wherever a run goes.
#[tokio::test(start_paused = true)]
async fn every_partitioner_places_keys_as_the_configuration_names_it() {
    let [crc32, fnv1a] = [0xd077_037e_u32, 0x17b1_e27a].map(|hash| Some((hash % 12) as i32));
    let [murmur2, murmur3] = [0x5ec1_9395_u32, 0xa031_dc47].map(|hash| Some((hash % 12) as i32));
    let empty = [0x106e_08d9_u32, 0x7ee3_623b].map(|hash| Some((hash % 12) as i32));
    let [empty2, empty1a] = empty;
    let internals = "org.apache.kafka.clients.producer.internals.DefaultPartitioner";
    let uniform = "org.apache.kafka.clients.producer.UniformStickyPartitioner";
    let round_robin = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
    let names = [
        ("", murmur2, empty2),
        ("sticky", murmur2, empty2),
        (internals, murmur2, empty2),
        ("uniform_sticky", None, None),
        (uniform, None, None),
        ("random", None, None),
        ("round_robin", None, None),
        (round_robin, None, None),
        ("consistent", crc32, Some(0)),
        ("consistent_random", crc32, None),
        ("murmur2", murmur2, empty2),
        ("murmur2_random", murmur2, empty2),
        ("fnv1a", fnv1a, empty1a),
        ("fnv1a_random", fnv1a, empty1a),
        ("murmur3_modulo", murmur3, Some(0)),
        ("uuid_modulo", murmur2, empty2),
    ];
    let told = |name: &&str| names.iter().any(|(own, ..)| own == name);
    assert!(
        ottla::partitioner::NAMES.iter().all(told),
        "a name without a row"
    );
    let cluster = cluster("orders", 12).await;
    let client = client(&cluster).connect().await.unwrap();
    for (name, hejsan, empty) in names {
        for spelling in ["partitioner", "partitioner.class"] {
            let builder = client.producer().property(spelling, name).unwrap();
            let producer = builder.batch_bytes(1).build().unwrap();
            for (key, wanted) in [("hejsan", hejsan), ("", empty)] {
                let mut partitions = std::collections::BTreeSet::new();
                for _ in 0..60 {
                    let record = Record::to("orders").key(key).value("v");
                    partitions.insert(producer.send(record).await.unwrap().partition);
                }
                match wanted {
                    Some(wanted) => assert!(partitions.into_iter().eq([wanted]), "{name} {key:?}"),
                    None => assert!(partitions.len() > 3, "{name} {key:?}: {partitions:?}"),
                }
            }
            let by_number = b"\xf8\x1d\x4f\xae\x7d\xec\x11\xd0\xa7\x65\x00\xa0\xc9\x1e\x6b\xf6";
            let explicit = Record::to("orders").key("hejsan").partition(11).value("v");
            assert_eq!(
                producer.send(explicit).await.unwrap().partition,
                11,
                "{name}"
            );
            if name == "uuid_modulo" {
                let record = Record::to("orders").key(by_number).value("v");
                assert_eq!(producer.send(record).await.unwrap().partition, 10);
            }
            producer.close().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_compression_is_read_back_by_the_broker() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let value = "the same words again and again ".repeat(20);
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for codec in codecs {
        let producer = client.producer().compression(codec).build().unwrap();
        let deliveries: Vec<_> = {
            let mut all = Vec::new();
            for _ in 0..50 {
                all.push(
                    producer
                        .enqueue(Record::to("orders").value(&value))
                        .await
                        .unwrap(),
                );
            }
            all
        };
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let sent = producer.metrics().bytes_sent;
        assert_eq!(
            sent < 20_000,
            codec != Compression::None,
            "{codec:?} sent {sent} bytes"
        );
        producer.close().await.unwrap();
    }
    let log = cluster.log("orders", 0);
    assert_eq!(log.len(), 250);
    assert!(
        log.iter()
            .all(|record| record.value.as_deref() == Some(value.as_bytes()))
    );
}

#[tokio::test(start_paused = true)]
async fn acks_one_and_none_deliver_too() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    for (acks, offset) in [(Acks::Leader, Some(0)), (Acks::None, None)] {
        let producer = client.producer().acks(acks).build().unwrap();
        let metadata = producer
            .send(Record::to("orders").value("v"))
            .await
            .unwrap();
        assert_eq!(metadata.offset, offset, "{acks:?}");
        producer.close().await.unwrap();
    }
    while cluster.log("orders", 0).len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_ends_after_every_record_before_it() {
    let cluster = cluster("orders", 12).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .linger(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut deliveries = Vec::new();
    for number in 0..100 {
        let record = Record::to("orders").partition(number % 12).value("v");
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    let begin = tokio::time::Instant::now();
    producer.flush().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "a flush does not linger"
    );
    assert!(
        deliveries
            .iter()
            .all(|delivery| matches!(delivery.outcome(), Some(Ok(_))))
    );
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_producer_takes_nothing_and_its_clones_neither() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let other = producer.clone();
    let delivery = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    producer.close().await.unwrap();
    assert!(
        matches!(delivery.outcome(), Some(Ok(_))),
        "close sends what is buffered"
    );
    let error = other
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Closed);
    assert_eq!(other.flush().await.unwrap_err().kind(), &ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn leaders_that_move_and_nodes_that_stop_lose_and_repeat_nothing() {
    let cluster = cluster("orders", 6).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..600u32 {
        match number {
            100 => cluster.stop_node(1).await.unwrap(),
            200 => cluster.move_leader("orders", 0, 2).unwrap(),
            300 => cluster.start_node(1).await.unwrap(),
            400 => cluster.stop_node(0).await.unwrap(),
            500 => cluster.start_node(0).await.unwrap(),
            _ => {}
        }
        let partition = i32::try_from(number % 6).unwrap();
        let record = Record::to("orders").partition(partition);
        deliveries.push(
            producer
                .enqueue(record.value(&number.to_be_bytes()))
                .await
                .unwrap(),
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    for partition in 0..6 {
        let numbers: Vec<_> = cluster
            .log("orders", partition)
            .into_iter()
            .map(number)
            .collect();
        let sent: Vec<_> = (0..600)
            .filter(|n| n % 6 == partition.unsigned_abs())
            .collect();
        assert_eq!(numbers, sent, "partition {partition}");
    }
}

fn number(record: ottla_broker::StoredRecord) -> u32 {
    u32::from_be_bytes(record.value.unwrap().try_into().unwrap())
}

#[tokio::test(start_paused = true)]
async fn partitions_added_while_running_are_found_and_used() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster)
        .property("metadata.max.age.ms", "1000")
        .unwrap()
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build().unwrap();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    let absent = producer
        .send(Record::to("orders").partition(1).value("v"))
        .await
        .unwrap_err();
    assert_eq!(absent.kind(), &ErrorKind::UnknownTopicOrPartition);
    cluster.add_partitions("orders", 3).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    producer
        .send(Record::to("orders").partition(2).value("v"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_producer_without_its_close_still_sends_what_it_holds() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let delivery = producer
        .enqueue(Record::to("orders").value("v"))
        .await
        .unwrap();
    drop(producer);
    delivery.await.unwrap();
    assert_eq!(cluster.log("orders", 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_a_window_is_full_a_small_batch_grows_instead_of_queueing() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().batch_bytes(1_000).build().unwrap();
    producer
        .send(Record::to("orders").value("first"))
        .await
        .unwrap();
    cluster
        .faults()
        .on(ApiKey::Produce)
        .always()
        .delay(Duration::from_millis(50));
    let before = producer.metrics().batches_sent;
    for _ in 0..10_000 {
        drop(
            producer
                .enqueue(Record::to("orders").value(&[b'v'; 100]))
                .await
                .unwrap(),
        );
        tokio::task::yield_now().await;
    }
    producer.flush().await.unwrap();
    let batches = producer.metrics().batches_sent - before;
    assert!(
        batches < 100,
        "{batches} batches for what 1,000 of the small size would hold"
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_for_good_is_heard() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    cluster
        .faults()
        .on(ApiKey::Produce)
        .error(Code::TOPIC_AUTHORIZATION_FAILED);
    let error = producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::TOPIC_AUTHORIZATION_FAILED));
    let text = error.to_string();
    assert!(
        text.contains("orders-0") && text.contains("not written"),
        "{text}"
    );
    assert_eq!(producer.metrics().records_not_written, 1);
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn idempotence_that_was_asked_for_is_not_given_up_for_fewer_acks() {
    let cluster = cluster("orders", 1).await;
    let client = client(&cluster).connect().await.unwrap();
    let error = client
        .producer()
        .acks(Acks::Leader)
        .idempotence(true)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    assert!(error.to_string().contains("enable.idempotence"), "{error}");
}
