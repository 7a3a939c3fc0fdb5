//! Topics on a real cluster, as Kafka's own tool sees them.

use crate::kafka::{Kafka, unique};
use ottla::{Code, ErrorKind, NewTopic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn topics_are_made_shown_and_deleted_as_kafka_sees_them() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topics = client.topics();
    let name = unique("topics");
    let new = || NewTopic::new(name.as_str()).partitions(5).replication(2);
    let new = || new().config("cleanup.policy", "compact");
    topics
        .create(new().config("retention.ms", "1234567"))
        .await
        .unwrap();

    let described = topics.describe(&name).await.unwrap();
    let configs: Vec<_> = described
        .configs
        .iter()
        .map(|(k, v)| (&**k, v.as_deref()))
        .collect();
    assert!(
        configs.contains(&("cleanup.policy", Some("compact"))),
        "{configs:?}"
    );
    assert!(
        configs.contains(&("retention.ms", Some("1234567"))),
        "{configs:?}"
    );
    let javas = kafka
        .run_tool("TopicCommand", &["--describe", "--topic", &name], b"")
        .await;
    let javas = javas.text();
    let head = javas.lines().next().unwrap();
    for wanted in [
        "PartitionCount: 5",
        "ReplicationFactor: 2",
        "cleanup.policy=compact",
        "retention.ms=1234567",
    ] {
        assert!(head.contains(wanted), "{wanted}: {javas}");
    }
    let id = described.topic.id.unwrap();
    assert_eq!(field(head, "TopicId:"), base64_url(&id.0));
    assert_eq!(described.topic.partitions.len(), 5);
    let rows = javas.lines().skip(1);
    for (row, ours) in rows.zip(&described.topic.partitions) {
        let ids = |ids: &[ottla::BrokerId]| {
            ids.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(field(row, "Leader:"), ours.leader.unwrap().to_string());
        assert_eq!(field(row, "Replicas:"), ids(&ours.replicas));
        assert_eq!(field(row, "Isr:").split(',').count(), ours.in_sync.len());
    }

    let listed = topics.list().await.unwrap();
    assert!(listed.iter().any(|topic| *topic.name == *name));
    assert!(
        listed.iter().all(|topic| !topic.name.starts_with("__")),
        "Kafka's own are left out"
    );
    topics.delete(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_name_is_taken_until_its_topic_is_deleted() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topics = client.topics();
    let name = unique("taken");
    let new = || NewTopic::new(name.as_str()).partitions(1).replication(3);
    topics.create(new()).await.unwrap();
    let id = topics.describe(&name).await.unwrap().topic.id;
    let error = topics.create(new()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TOPIC_ALREADY_EXISTS), "{error}");
    topics.ensure(new()).await.unwrap();

    topics.delete(&name).await.unwrap();
    // The tool may ask a broker that has yet to hear of it.
    let mut looks = 0;
    loop {
        let javas = kafka.run_tool("TopicCommand", &["--list"], b"").await;
        if javas.text().lines().all(|topic| topic != name) {
            break;
        }
        looks += 1;
        assert!(looks < 10, "the topic is still listed");
    }
    let error = topics.describe(&name).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition, "{error}");
    let error = topics.delete(&name).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition, "{error}");
    // A name may be taken again at once.
    topics.create(new()).await.unwrap();
    let again = topics.describe(&name).await.unwrap();
    assert_ne!(again.topic.id, id);
    topics.delete(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn what_kafka_refuses_is_told_in_its_words() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let refused = async |topic: NewTopic| client.topics().create(topic).await.unwrap_err();
    let error = refused(NewTopic::new(unique("many")).partitions(1).replication(4)).await;
    assert_eq!(
        error.code(),
        Some(Code::INVALID_REPLICATION_FACTOR),
        "{error}"
    );
    let error = refused(NewTopic::new("no such/name").partitions(1)).await;
    assert_eq!(error.code(), Some(Code::INVALID_TOPIC_EXCEPTION), "{error}");
    assert!(error.to_string().contains("no such/name"), "{error}");
    let new = NewTopic::new(unique("config")).partitions(1);
    let error = refused(new.config("retention.ms", "soon")).await;
    assert_eq!(error.code(), Some(Code::INVALID_CONFIG), "{error}");
    assert!(error.to_string().contains("retention.ms"), "{error}");
}

/// The word after a label.
fn field<'a>(row: &'a str, label: &str) -> &'a str {
    let Some((_, rest)) = row.split_once(label) else {
        panic!("no {label} in {row}");
    };
    rest.split_whitespace().next().unwrap_or("")
}

/// A topic's id as Kafka prints it.
fn base64_url(bytes: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - part.len()));
        for letter in 0..=part.len() {
            let index = word >> (18 - 6 * letter) & 63;
            text.push(letters[index as usize].into());
        }
    }
    text
}
