//! DescribeConfigs for topics and nodes, and DescribeCluster.

use super::Context;
use super::metadata::controller;
use crate::settings::{Settings, TOPIC_SETTINGS};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;
use std::collections::BTreeMap;

const TOPIC: i8 = 2;
const NODE: i8 = 4;

/// Where a value comes from, in Kafka's numbers.
pub(super) const SOURCE_TOPIC: i8 = 1;
const SOURCE_NODE: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// One setting as DescribeConfigs shows it.
struct Row {
    name: String,
    value: String,
    source: i8,
    kind: i8,
    doc: &'static str,
}

pub(super) fn describe(
    ctx: &Context<'_>,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match rows(ctx, resource) {
            Err((code, reason)) => result
                .with_error_code(code.0)
                .with_error_message(Some(StrBytes::from_string(reason))),
            Ok(rows) => {
                let asked = resource.configuration_keys.as_deref();
                let wanted = |row: &Row| {
                    asked.is_none_or(|keys| keys.iter().any(|key| key.as_str() == row.name))
                };
                let rows = rows.into_iter().filter(wanted);
                let shown = rows.map(|row| shown(ctx, request, row));
                result.with_configs(shown.collect())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn rows(ctx: &Context<'_>, resource: &DescribeConfigsResource) -> Result<Vec<Row>, (Code, String)> {
    if let Some(code) = ctx.forced() {
        return Err((code, "a fault was ordered".to_owned()));
    }
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            let topic = ctx.shared().topic(name);
            let missing = || {
                let reason = format!("Topic '{name}' does not exist.");
                (Code::UNKNOWN_TOPIC_OR_PARTITION, reason)
            };
            let config = topic.ok_or_else(missing)?.config.read().clone();
            Ok(topic_rows(&config.set, &ctx.shared().settings))
        }
        NODE if name.is_empty() || name == ctx.node().to_string() => {
            Ok(node_rows(&ctx.shared().settings))
        }
        NODE => {
            let reason = format!("Node {} cannot tell of node {name}.", ctx.node());
            Err((Code::INVALID_REQUEST, reason))
        }
        other => {
            let reason = format!("Resource type {other} is not served here.");
            Err((Code::INVALID_REQUEST, reason))
        }
    }
}

fn topic_rows(set: &BTreeMap<String, String>, settings: &Settings) -> Vec<Row> {
    let mut rows: Vec<Row> = TOPIC_SETTINGS
        .iter()
        .map(|row| {
            let (value, source) = match (set.get(row.name), row.name) {
                (Some(value), _) => (value.clone(), SOURCE_TOPIC),
                (None, "min.insync.replicas") => {
                    (settings.min_insync_replicas.to_string(), SOURCE_NODE)
                }
                (None, _) => (row.default.to_owned(), SOURCE_DEFAULT),
            };
            Row {
                name: row.name.to_owned(),
                value,
                source,
                kind: row.kind,
                doc: row.doc,
            }
        })
        .collect();
    let known = |name: &str| TOPIC_SETTINGS.iter().any(|row| row.name == name);
    let others = set.iter().filter(|(name, _)| !known(name));
    rows.extend(others.map(|(name, value)| Row {
        name: name.clone(),
        value: value.clone(),
        source: SOURCE_TOPIC,
        kind: 2,
        doc: "Kept and shown; not known here.",
    }));
    rows
}

fn node_rows(settings: &Settings) -> Vec<Row> {
    let row = |name: &str, value: String, kind, doc| Row {
        name: name.to_owned(),
        value,
        source: SOURCE_NODE,
        kind,
        doc,
    };
    let session = |timeout: std::time::Duration| timeout.as_millis().to_string();
    vec![
        row(
            "auto.create.topics.enable",
            settings.auto_create_topics.to_string(),
            1,
            "Whether Metadata makes topics that it is asked for.",
        ),
        row(
            "default.replication.factor",
            settings.default_replication.to_string(),
            3,
            "Replicas of topics that do not say.",
        ),
        row(
            "group.initial.rebalance.delay.ms",
            session(settings.initial_rebalance_delay),
            3,
            "How long a new group waits for its first members.",
        ),
        row(
            "group.max.session.timeout.ms",
            session(settings.session_timeout_max),
            3,
            "The longest session timeout of a group member.",
        ),
        row(
            "group.min.session.timeout.ms",
            session(settings.session_timeout_min),
            3,
            "The shortest session timeout of a group member.",
        ),
        row(
            "min.insync.replicas",
            settings.min_insync_replicas.to_string(),
            3,
            "Replicas that must be in step for a write with acks=all.",
        ),
        row(
            "num.partitions",
            settings.default_partitions.to_string(),
            3,
            "Partitions of topics that do not say.",
        ),
        row(
            "socket.request.max.bytes",
            settings.request_bytes_max.to_string(),
            3,
            "The largest request, in bytes.",
        ),
    ]
}

fn shown(
    ctx: &Context<'_>,
    request: &DescribeConfigsRequest,
    row: Row,
) -> DescribeConfigsResourceResult {
    let name = StrBytes::from_string(row.name);
    let value = Some(StrBytes::from_string(row.value));
    let synonym = DescribeConfigsSynonym::default()
        .with_name(name.clone())
        .with_value(value.clone())
        .with_source(row.source);
    let synonyms = if request.include_synonyms {
        vec![synonym]
    } else {
        Vec::new()
    };
    let documented = request.include_documentation && ctx.version >= 3;
    DescribeConfigsResourceResult::default()
        .with_name(name)
        .with_value(value)
        .with_config_source(row.source)
        .with_synonyms(synonyms)
        .with_config_type(if ctx.version >= 3 { row.kind } else { 0 })
        .with_documentation(documented.then(|| StrBytes::from_static_str(row.doc)))
}

pub(super) fn describe_cluster(
    ctx: &Context<'_>,
    _request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let shared = ctx.shared();
    if let Some(code) = ctx.forced() {
        return DescribeClusterResponse::default().with_error_code(code.0);
    }
    let brokers = shared.up_nodes().map(|node| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.id))
            .with_host(StrBytes::from_string(node.host.clone()))
            .with_port(i32::from(node.port))
    });
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(shared.settings.cluster_id.clone()))
        .with_controller_id(controller(shared))
        .with_brokers(brokers.collect())
}
