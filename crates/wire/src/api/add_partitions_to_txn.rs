//! AddPartitionsToTxn: tells the coordinator which partitions a transaction is going to write to.

use super::{from_millis, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ProducerId, TopicName, TransactionalId,
};
use ottla_proto::producer::Identity;
use ottla_proto::{Code, Result, TopicPartition};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Later versions are spoken between brokers.
const OURS: RangeInclusive<i16> = 0..=3;

/// Partitions for the open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer's id and epoch.
    pub identity: Identity,
    /// The partitions to add.
    pub partitions: Vec<TopicPartition>,
}

/// The coordinator's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// How long the broker asks us to send nothing further.
    pub throttle: Duration,
    /// Each partition with its code.
    pub partitions: Vec<(TopicPartition, Code)>,
}

/// Asks the transaction's coordinator.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker. Each partition
/// has its own code.
///
/// Cancel safety: the partitions may or may not have been added.
pub async fn call(connection: &Connection, request: &Request) -> Result<Response> {
    let version = connection.version(ApiKey::AddPartitionsToTxn, OURS)?;
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for partition in &request.partitions {
        let numbers = topics.entry(&partition.topic).or_default();
        numbers.push(partition.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    let body = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text(&request.transactional_id)))
        .with_v3_and_below_producer_id(ProducerId(request.identity.producer_id))
        .with_v3_and_below_producer_epoch(request.identity.epoch)
        .with_v3_and_below_topics(topics.collect());
    let timeout = connection.request_timeout();
    let api = ApiKey::AddPartitionsToTxn;
    let answer: AddPartitionsToTxnResponse =
        super::call(connection, api, version, &body, timeout).await?;
    let mut partitions = Vec::new();
    for topic in &answer.results_by_topic_v3_and_below {
        let name = shared(&topic.name);
        for one in &topic.results_by_partition {
            let partition = TopicPartition::new(Arc::clone(&name), one.partition_index);
            partitions.push((partition, Code(one.partition_error_code)));
        }
    }
    Ok(Response {
        throttle: from_millis(answer.throttle_time_ms),
        partitions,
    })
}
