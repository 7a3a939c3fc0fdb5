//! Every part of a record, and records of transactions, between ours and others.

use crate::command::run_ottla;
use crate::foreign::kcat;
use crate::kafka::{Kafka, unique};
use crate::process::{PATIENCE, succeed};
use crate::python::{TRANSACTIONS, python};
use ottla::consumer::{ConsumerRecord, Isolation, Start, TimestampKind};
use ottla::{Client, Header, NewTopic, Record, TopicPartition};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A topic of one partition.
async fn single(kafka: &Kafka, client: &Client, what: &str) -> String {
    kafka.topic(client, what, 1).await
}

/// Everything that our consumer reads until nothing comes for a second.
async fn read(client: &Client, topic: &str, isolation: Isolation) -> Vec<ConsumerRecord> {
    let start = [(TopicPartition::new(topic, 0), Start::Offset(0, None))];
    let consumer = client
        .consumer()
        .unwrap()
        .isolation(isolation)
        .assign(start);
    let mut consumer = consumer.build().await.unwrap();
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(1000, Duration::from_secs(1)).await.unwrap();
        if records.is_empty() && consumer.lag(&TopicPartition::new(topic, 0)).is_some() {
            consumer.close().await.unwrap();
            return all;
        }
        all.extend(records);
    }
}

/// Everything that kcat reads, as it prints JSON.
async fn kcat_json(kafka: &Kafka, topic: &str) -> Vec<Value> {
    let mut command = kcat(&kafka.bootstrap);
    command.args(["-C", "-q", "-e", "-J", "-o", "beginning", "-t", topic]);
    let output = succeed(command, b"", PATIENCE).await;
    let lines = output.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn every_part_of_a_record_arrives() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = single(&kafka, &client, "parts").await;
    let producer = client.producer().build().unwrap();
    let headers = [
        Header {
            key: "h",
            value: Some(b"1"),
        },
        Header {
            key: "h",
            value: Some(b"2"),
        },
        Header {
            key: "null",
            value: None,
        },
        Header {
            key: "",
            value: Some(b""),
        },
    ];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap() - 5_000;
    let full = Record::to(&topic)
        .key("k\u{e9}")
        .value("v")
        .headers(&headers);
    producer.send(full.timestamp(now)).await.unwrap();
    producer
        .send(Record::to(&topic).key("gone").timestamp(now + 1))
        .await
        .unwrap();
    producer
        .send(Record::to(&topic).value("").timestamp(now + 2))
        .await
        .unwrap();
    producer.close().await.unwrap();

    shown_by_kcat(&kafka, &topic, now).await;
    let ours = read(&client, &topic, Isolation::ReadUncommitted).await;
    let read: Vec<_> = ours[0].headers().map(|h| (h.key_str(), h.value)).collect();
    let sent: Vec<_> = headers.iter().map(|h| (Some(h.key), h.value)).collect();
    assert_eq!(read, sent);
    let part = |at: usize| {
        let one = &ours[at];
        (
            one.timestamp - now,
            one.key.as_deref(),
            one.value.as_deref(),
        )
    };
    assert_eq!(part(0), (0, Some("k\u{e9}".as_bytes()), Some(&b"v"[..])));
    assert_eq!(part(1), (1, Some(&b"gone"[..]), None));
    assert_eq!(part(2), (2, None, Some(&b""[..])));
    assert_eq!(ours.len(), 3);
    client.topics().delete(&topic).await.unwrap();
}

/// The three records as kcat shows them.
async fn shown_by_kcat(kafka: &Kafka, topic: &str, now: i64) {
    let part = |offset: i64, key: Value, payload: Value| {
        json!({
            "topic": topic, "partition": 0, "offset": offset, "tstype": "create", "ts": now + offset,
            "broker": 0, "key": key, "payload": payload,
        })
    };
    let mut seen = kcat_json(kafka, topic).await;
    let listed = seen[0].as_object_mut().unwrap().remove("headers");
    assert_eq!(
        listed,
        Some(json!(["h", "1", "h", "2", "null", null, "", ""]))
    );
    for record in &mut seen {
        record["broker"] = json!(0);
    }
    let wanted = [
        part(0, json!("k\u{e9}"), json!("v")),
        part(1, json!("gone"), Value::Null),
        part(2, Value::Null, json!("")),
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn a_topic_with_the_brokers_time_shows_it_everywhere() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = unique("append-time");
    let new = NewTopic::new(topic.as_str()).partitions(1).replication(3);
    let new = new.config("message.timestamp.type", "LogAppendTime");
    kafka.create(&client, &topic, new).await;
    let producer = client.producer().build().unwrap();
    let told = producer
        .send(Record::to(&topic).value("v").timestamp(1_234))
        .await
        .unwrap();
    assert!(told.timestamp > 1_600_000_000_000, "{told:?}");
    let seen = kcat_json(&kafka, &topic).await;
    assert_eq!(
        (&seen[0]["tstype"], &seen[0]["ts"]),
        (&json!("logappend"), &json!(told.timestamp))
    );
    let ours = read(&client, &topic, Isolation::ReadUncommitted).await;
    let time = (ours[0].timestamp_kind, ours[0].timestamp);
    assert_eq!(time, (TimestampKind::LogAppend, told.timestamp));
    producer.close().await.unwrap();
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and python clients"]
async fn transactions_of_others_are_read_as_their_writer_ended_them() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = single(&kafka, &client, "transactions").await;
    succeed(
        python(TRANSACTIONS, &[&kafka.bootstrap, &topic]),
        b"",
        PATIENCE,
    )
    .await;
    let values = async |isolation| {
        let text = |one: &ConsumerRecord| {
            String::from_utf8(one.value.as_deref().unwrap().to_vec()).unwrap()
        };
        let records = read(&client, &topic, isolation).await;
        records.iter().map(text).collect::<Vec<_>>()
    };
    let round = |round: u32| (0..100).map(move |number| format!("{round}-{number}"));
    let every: Vec<_> = (0..4).flat_map(round).collect();
    assert_eq!(values(Isolation::ReadUncommitted).await, every);
    // Rounds 1 and 3 were aborted.
    let committed: Vec<_> = [0, 2].into_iter().flat_map(round).collect();
    assert_eq!(values(Isolation::ReadCommitted).await, committed);
    let arguments = ["consume", &topic, "-e", "-q", "--read-committed"];
    let command = run_ottla(&kafka.bootstrap, &arguments).await;
    assert_eq!(command.text().lines().collect::<Vec<_>>(), committed);
    client.topics().delete(&topic).await.unwrap();
}
