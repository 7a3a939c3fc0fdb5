//! What those who run a producer expect of it, beside its records.

use ottla::{Client, ErrorKind, NewTopic, Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;

async fn three_nodes() -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    builder.topic("orders", 3).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn topics_are_listed_described_made_and_deleted_while_one_broker_lives() {
    let cluster = three_nodes().await;
    let client = client(&cluster).connect().await.unwrap();
    let topics = client.topics();
    // Connections stand: they break when the next request is sent.
    topics.list().await.unwrap();
    for api in [
        ApiKey::Metadata,
        ApiKey::DescribeConfigs,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
    ] {
        for node in [1, 2] {
            let rule = cluster.faults().on(api).node(node).always();
            rule.disconnect_before_apply();
        }
    }
    for _ in 0..5 {
        assert_eq!(topics.list().await.unwrap().len(), 1);
        assert_eq!(
            topics
                .describe("orders")
                .await
                .unwrap()
                .topic
                .partitions
                .len(),
            3
        );
        topics
            .create(NewTopic::new("more").partitions(2))
            .await
            .unwrap();
        topics.delete("more").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_making_was_lost_is_not_said_to_be_somebody_elses() {
    let cluster = three_nodes().await;
    let client = client(&cluster).connect().await.unwrap();
    let lose = |api| cluster.faults().on(api).apply_then_lose_answer();
    lose(ApiKey::CreateTopics);
    let error = client
        .topics()
        .create(NewTopic::new("more"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::TOPIC_ALREADY_EXISTS));
    assert!(error.to_string().contains("answer was lost"), "{error}");
    lose(ApiKey::DeleteTopics);
    client.topics().delete("more").await.unwrap();
    let error = client.topics().delete("more").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UnknownTopicOrPartition);
}

fn builder_error(client: &Client, name: &str, value: &str) -> String {
    let refused = client.producer().property(name, value);
    refused.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_producer_refuses_what_belongs_to_the_client() {
    let cluster = three_nodes().await;
    let client = client(&cluster).connect().await.unwrap();
    let error = builder_error(&client, "request.timeout.ms", "1000");
    assert!(
        error.contains("request.timeout.ms") && error.contains("client"),
        "{error}"
    );
    let error = builder_error(&client, "transactional.id", "billing-1");
    assert!(error.contains("transactional_producer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn every_refused_record_is_said_to_be_unwritten() {
    let cluster = three_nodes().await;
    let client = client(&cluster)
        .property("default.api.timeout.ms", "1000")
        .unwrap();
    let client = client.connect().await.unwrap();
    let producer = client.producer().property("max.block.ms", "500").unwrap();
    let producer = producer.build().unwrap();
    let not_written = Some(WriteOutcome::NotWritten);
    let (error, _) = producer
        .try_enqueue(Record::to("orders").value("v"))
        .unwrap_err();
    assert_eq!(error.write_outcome(), not_written, "{error}");
    for topic in ["nobody-made-this", "no/name"] {
        let error = producer
            .send(Record::to(topic).value("v"))
            .await
            .unwrap_err();
        assert_eq!(error.write_outcome(), not_written, "{error}");
    }
    let huge = vec![0; 2 << 20];
    let error = producer
        .send(Record::to("orders").value(&huge))
        .await
        .unwrap_err();
    assert_eq!(error.write_outcome(), not_written, "{error}");
    let nowhere = Record::to("orders").value("v").partition(7);
    let error = producer.send(nowhere).await.unwrap_err();
    assert_eq!(error.write_outcome(), not_written, "{error}");
    let twin = producer.clone();
    producer.close().await.unwrap();
    let error = twin
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert_eq!(error.write_outcome(), not_written, "{error}");
    let error = twin
        .send(Record::to("never-seen").value("v"))
        .await
        .unwrap_err();
    assert_eq!(error.write_outcome(), not_written, "{error}");
}

/// Users spawn these calls: their futures must be able to move between threads.
#[tokio::test(start_paused = true)]
async fn calls_can_be_spawned() {
    let cluster = three_nodes().await;
    let client = client(&cluster).connect().await.unwrap();
    let spawned = tokio::spawn(async move {
        let topics = client.topics();
        topics.ensure(NewTopic::new("more")).await?;
        topics.describe("more").await?;
        topics.list().await?;
        topics.delete("more").await
    });
    spawned.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_not_the_controller_passes_a_change_on_to_the_next() {
    let cluster = three_nodes().await;
    let client = client(&cluster).connect().await.unwrap();
    let pass_back = |api, times| {
        let rule = cluster.faults().on(api).times(times);
        rule.error(Code::NOT_CONTROLLER)
    };
    // More often than there are brokers: the controller itself is only being elected.
    for times in [1, 4] {
        let made = pass_back(ApiKey::CreateTopics, times);
        client.topics().create(NewTopic::new("more")).await.unwrap();
        let deleted = pass_back(ApiKey::DeleteTopics, times);
        client.topics().delete("more").await.unwrap();
        assert_eq!((made.fired(), deleted.fired()), (times, times));
    }
}
