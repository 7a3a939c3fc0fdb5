//! Transactions: AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, DescribeTransactions,
//! ListTransactions. What is written in them is in [`super::produce`] and [`super::offsets`].

use super::Context;
use super::groups::{coordinates, text};
use crate::transactions::{Decision, Identity, Place, Protocol, State, Transaction, moment};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as Described,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId,
    TopicName, TransactionalId,
};
use ottla_proto::Code;
use std::collections::BTreeMap;

/// The first version of AddPartitionsToTxn that is for brokers: many transactions at once.
const BATCHED_SINCE: i16 = 4;
/// The first version of EndTxn that bumps the epoch (KIP-890).
const END_BUMPS_SINCE: i16 = 5;
/// The first version of these APIs that knows `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;

/// What every API of a transactional id checks first.
fn check_id(ctx: &Context<'_>, id: &str) -> Result<(), Code> {
    if let Some(code) = ctx.forced() {
        return Err(code);
    }
    if id.is_empty() {
        return Err(Code::INVALID_REQUEST);
    }
    coordinates(ctx, id)
}

/// The code as clients of older versions know it.
pub(super) fn known_since(code: Code, version: i16, since: i16) -> Code {
    if code == Code::PRODUCER_FENCED && version < since {
        Code::INVALID_PRODUCER_EPOCH
    } else {
        code
    }
}

/// The code as those know it who write in a transaction: they expect other codes of a partition's
/// leader and of a group's coordinator than of the transaction's own.
pub(super) fn for_writer(code: Code, knows_abortable: bool) -> Code {
    match code {
        Code::PRODUCER_FENCED => Code::INVALID_PRODUCER_EPOCH,
        Code::TRANSACTION_ABORTABLE if !knows_abortable => Code::INVALID_TXN_STATE,
        code => code,
    }
}

fn answered(ctx: &Context<'_>, done: Result<(), Code>) -> i16 {
    let code = done.err().unwrap_or(Code::NONE);
    known_since(code, ctx.version, FENCED_SINCE).0
}

pub(super) fn add_partitions(
    ctx: &Context<'_>,
    request: &AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let response = AddPartitionsToTxnResponse::default();
    if ctx.version < BATCHED_SINCE {
        let topics = &request.v3_and_below_topics;
        let id = &request.v3_and_below_transactional_id;
        let who = Identity {
            producer_id: request.v3_and_below_producer_id.0,
            epoch: request.v3_and_below_producer_epoch,
        };
        let added = check_id(ctx, id).and_then(|()| {
            let places = places(ctx, topics).ok_or(Code::OPERATION_NOT_ATTEMPTED)?;
            add(ctx, id, who, places, Protocol::V1)
        });
        let results = results(ctx, topics, |_| added);
        return response
            .with_throttle_time_ms(ctx.throttle_millis())
            .with_results_by_topic_v3_and_below(results);
    }
    let results = request.transactions.iter().map(|of| {
        let id = &of.transactional_id;
        let who = Identity {
            producer_id: of.producer_id.0,
            epoch: of.producer_epoch,
        };
        let allowed = check_id(ctx, id);
        let topic_results = if of.verify_only {
            let verify = |place: &Place| verify(ctx, id, who, place);
            results(ctx, &of.topics, |place| {
                allowed.and_then(|()| verify(place))
            })
        } else {
            let added = allowed.and_then(|()| {
                let places = places(ctx, &of.topics).ok_or(Code::OPERATION_NOT_ATTEMPTED)?;
                add(ctx, id, who, places, Protocol::V2)
            });
            results(ctx, &of.topics, |_| added)
        };
        AddPartitionsToTxnResult::default()
            .with_transactional_id(id.clone())
            .with_topic_results(topic_results)
    });
    let results = results.collect();
    response
        .with_error_code(ctx.forced().unwrap_or(Code::NONE).0)
        .with_throttle_time_ms(ctx.throttle_millis())
        .with_results_by_transaction(results)
}

fn place(ctx: &Context<'_>, topic: &str, index: i32) -> Option<Place> {
    let topic = ctx.shared().topic(topic)?;
    topic.partition(index)?;
    Some((topic.name.clone(), index))
}

/// Every partition named; `None` if one of them does not exist, as then none is added.
fn places(ctx: &Context<'_>, topics: &[AddPartitionsToTxnTopic]) -> Option<Vec<Place>> {
    let named = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|index| place(ctx, &topic.name, *index))
    });
    named.collect()
}

fn add(
    ctx: &Context<'_>,
    id: &str,
    who: Identity,
    places: Vec<Place>,
    protocol: Protocol,
) -> Result<(), Code> {
    let shared = ctx.shared();
    let mut inner = shared.transactions.lock();
    let transaction = inner.get(id)?;
    transaction.add_partitions(moment(shared), who, places, protocol)?;
    shared.transactions.begun();
    Ok(())
}

fn verify(ctx: &Context<'_>, id: &str, who: Identity, place: &Place) -> Result<(), Code> {
    let mut inner = ctx.shared().transactions.lock();
    let transaction = inner.get(id)?;
    transaction.verify(who, |t| t.partitions.contains(place))
}

/// The answers for every partition; those that do not exist have their own.
fn results(
    ctx: &Context<'_>,
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&Place) -> Result<(), Code>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let partitions = topic.partitions.iter().map(|index| {
            let done = match (place(ctx, &topic.name, *index), ctx.forced()) {
                (None, None) => Err(Code::UNKNOWN_TOPIC_OR_PARTITION),
                (None, Some(code)) => Err(code),
                (Some(place), _) => code(&place),
            };
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(answered(ctx, done))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    };
    topics.iter().map(of_topic).collect()
}

pub(super) fn add_offsets(
    ctx: &Context<'_>,
    request: &AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let who = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let shared = ctx.shared();
    let added = check_id(ctx, &request.transactional_id).and_then(|()| {
        let mut inner = shared.transactions.lock();
        let transaction = inner.get(&request.transactional_id)?;
        transaction.add_group(moment(shared), who, &request.group_id, Protocol::V1)?;
        shared.transactions.begun();
        Ok(())
    });
    AddOffsetsToTxnResponse::default()
        .with_error_code(answered(ctx, added))
        .with_throttle_time_ms(ctx.throttle_millis())
}

pub(super) fn end(ctx: &Context<'_>, request: &EndTxnRequest) -> EndTxnResponse {
    let who = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let decision = match request.committed {
        true => Decision::Commit,
        false => Decision::Abort,
    };
    let protocol = match ctx.version {
        END_BUMPS_SINCE.. => Protocol::V2,
        _ => Protocol::V1,
    };
    let id = &request.transactional_id;
    let ended = check_id(ctx, id).and_then(|()| {
        let shared = ctx.shared();
        shared.transactions.end(shared, id, who, decision, protocol)
    });
    let next = ended.ok().filter(|_| ctx.version >= END_BUMPS_SINCE);
    EndTxnResponse::default()
        .with_error_code(answered(ctx, ended.map(drop)))
        .with_throttle_time_ms(ctx.throttle_millis())
        .with_producer_id(ProducerId(next.map_or(-1, |next| next.producer_id)))
        .with_producer_epoch(next.map_or(-1, |next| next.epoch))
}

pub(super) fn describe(
    ctx: &Context<'_>,
    request: &DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.iter().map(|id| {
        let mut inner = ctx.shared().transactions.lock();
        let described = check_id(ctx, id).and_then(|()| {
            let transaction = inner.get(id);
            let transaction = transaction.map_err(|_| Code::TRANSACTIONAL_ID_NOT_FOUND)?;
            Ok(described(transaction))
        });
        let described =
            described.unwrap_or_else(|code| Described::default().with_error_code(code.0));
        described.with_transactional_id(id.clone())
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn described(transaction: &Transaction) -> Described {
    let begun = match transaction.state {
        State::Ongoing { begun_millis, .. } => begun_millis,
        _ => -1,
    };
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &transaction.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    let timeout = i32::try_from(transaction.timeout.as_millis()).unwrap_or(i32::MAX);
    Described::default()
        .with_transaction_state(text(transaction.state.name()))
        .with_transaction_timeout_ms(timeout)
        .with_transaction_start_time_ms(begun)
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_producer_epoch(transaction.epoch)
        .with_topics(topics.collect())
}

/// The transactions that this node coordinates. Filters by duration and by pattern are not kept.
pub(super) fn list(
    ctx: &Context<'_>,
    request: &ListTransactionsRequest,
) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    if let Some(code) = ctx.forced() {
        return response.with_error_code(code.0);
    }
    let states = &request.state_filters;
    let ids = &request.producer_id_filters;
    let wanted = |of: &Transaction| {
        (states.is_empty() || states.iter().any(|s| s.as_str() == of.state.name()))
            && (ids.is_empty() || ids.iter().any(|id| id.0 == of.producer_id))
    };
    let inner = ctx.shared().transactions.lock();
    let ours = inner
        .all()
        .filter(|(id, of)| coordinates(ctx, id).is_ok() && wanted(of));
    let listed = ours.map(|(id, of)| {
        Listed::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(of.producer_id))
            .with_transaction_state(text(of.state.name()))
    });
    response.with_transaction_states(listed.collect())
}
