//! Topics, metadata and configs over the wire.

use crate::testing::{Client, batch_bytes, name};
use crate::{Cluster, Code};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, MetadataRequest,
    MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;

pub(super) async fn create(client: &mut Client, topic: &str, partitions: i32) -> Code {
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1);
    create_as(client, topic).await
}

async fn create_as(client: &mut Client, topic: CreatableTopic) -> Code {
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let response = client.call(7, &request).await.unwrap();
    Code(response.topics[0].error_code)
}

async fn metadata(client: &mut Client, topic: &str, create: bool) -> MetadataResponse {
    let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(create);
    client.call(12, &request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn topics_that_cannot_be_made_are_refused() {
    let cluster = Cluster::builder().in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let long = "x".repeat(250);
    let cases = [
        ("fine", 3, Code::NONE),
        ("fine", 3, Code::TOPIC_ALREADY_EXISTS),
        ("a b", 3, Code::INVALID_TOPIC_EXCEPTION),
        ("..", 3, Code::INVALID_TOPIC_EXCEPTION),
        ("", 3, Code::INVALID_TOPIC_EXCEPTION),
        (&long, 3, Code::INVALID_TOPIC_EXCEPTION),
        ("none", 0, Code::INVALID_PARTITIONS),
        ("many", i32::MAX, Code::INVALID_PARTITIONS),
        ("default", -1, Code::NONE),
    ];
    for (topic, partitions, code) in cases {
        assert_eq!(
            create(&mut client, topic, partitions).await,
            code,
            "{topic}"
        );
    }
    let topic = |name_: &str| {
        CreatableTopic::default()
            .with_name(name(name_))
            .with_num_partitions(1)
    };
    let replicated = topic("r").with_replication_factor(2);
    assert_eq!(
        create_as(&mut client, replicated).await,
        Code::INVALID_REPLICATION_FACTOR
    );
    let wrong = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("max.message.bytes"))
        .with_value(Some(StrBytes::from_static_str("lots")));
    let wrong = topic("c")
        .with_replication_factor(1)
        .with_configs(vec![wrong]);
    assert_eq!(create_as(&mut client, wrong).await, Code::INVALID_CONFIG);
}

#[tokio::test(start_paused = true)]
async fn leaders_are_spread_over_the_nodes() {
    let builder = Cluster::builder().nodes(3).replication(2).topic("t", 6);
    let cluster = builder.in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let response = metadata(&mut client, "t", false).await;
    assert_eq!(response.brokers.len(), 3);
    assert_eq!(response.brokers[2].host.as_str(), "node-2.memory");
    let partitions = &response.topics[0].partitions;
    let led = |node| partitions.iter().filter(|p| p.leader_id.0 == node).count();
    assert_eq!([led(0), led(1), led(2)], [2, 2, 2]);
    for partition in partitions {
        let replicas: BTreeSet<i32> = partition.replica_nodes.iter().map(|n| n.0).collect();
        assert_eq!((replicas.len(), partition.isr_nodes.len()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_made_by_metadata_only_if_cluster_and_client_want_it() {
    let unknown = Code::UNKNOWN_TOPIC_OR_PARTITION;
    for (on, create, made) in [
        (false, true, false),
        (true, false, false),
        (true, true, true),
    ] {
        let builder = Cluster::builder()
            .auto_create_topics(on)
            .default_partitions(4);
        let cluster = builder.in_memory().start().await.unwrap();
        let mut client = Client::to(&cluster, 0).await;
        let first = metadata(&mut client, "t", create).await;
        assert_eq!(Code(first.topics[0].error_code), unknown);
        let second = metadata(&mut client, "t", create).await;
        assert_eq!(second.topics[0].partitions.len(), if made { 4 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_has_another_id_and_none_of_the_old_records() {
    let cluster = Cluster::builder()
        .topic("t", 1)
        .in_memory()
        .start()
        .await
        .unwrap();
    let mut client = Client::to(&cluster, 0).await;
    client
        .produce(-1, "t", 0, batch_bytes(&["a"], 0, None))
        .await
        .unwrap();
    let old = metadata(&mut client, "t", false).await.topics[0].topic_id;
    let by_id = DeleteTopicState::default()
        .with_name(None)
        .with_topic_id(old);
    let request = DeleteTopicsRequest::default().with_topics(vec![by_id]);
    let response = client.call(6, &request).await.unwrap();
    assert_eq!(response.responses[0].error_code, 0);
    let answer = client
        .produce(-1, "t", 0, batch_bytes(&["a"], 0, None))
        .await
        .unwrap();
    assert_eq!(Code(answer.error_code), Code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(create(&mut client, "t", 1).await, Code::NONE);
    let new = metadata(&mut client, "t", false).await.topics[0].topic_id;
    assert_ne!(old, new);
    assert_eq!(cluster.end_offset("t", 0), Some(0));
    let asked = MetadataRequestTopic::default()
        .with_name(None)
        .with_topic_id(old);
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let response = client.call(12, &request).await.unwrap();
    assert_eq!(Code(response.topics[0].error_code), Code::UNKNOWN_TOPIC_ID);
}

#[tokio::test(start_paused = true)]
async fn configs_show_what_was_set_and_what_is_default() {
    let builder = Cluster::builder()
        .topic("t", 1)
        .topic_setting("max.message.bytes", "5000");
    let cluster = builder.in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let resource = |kind, name: &'static str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configuration_keys(None)
    };
    let resources = vec![
        resource(2, "t"),
        resource(2, "none"),
        resource(4, "0"),
        resource(4, "9"),
    ];
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let response = client.call(4, &request).await.unwrap();
    let codes: Vec<Code> = response
        .results
        .iter()
        .map(|r| Code(r.error_code))
        .collect();
    let missing = Code::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(
        codes,
        [Code::NONE, missing, Code::NONE, Code::INVALID_REQUEST]
    );
    let value = |key: &str| {
        let mut rows = response.results[0].configs.iter();
        let row = rows.find(|c| c.name.as_str() == key).unwrap();
        (row.value.as_ref().unwrap().to_string(), row.config_source)
    };
    assert_eq!(value("max.message.bytes"), ("5000".to_owned(), 1));
    assert_eq!(value("cleanup.policy"), ("delete".to_owned(), 5));
}
