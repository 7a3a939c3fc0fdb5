//! TxnOffsetCommit: offsets that a group gets when a transaction commits.

use super::Context;
use super::groups::check_named;
use super::offsets::offset_to_commit;
use super::transactions::for_writer;
use crate::transactions::{Identity, Protocol, Transaction, moment};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use ottla_proto::Code;

/// The first version that adds its group to the transaction by itself (KIP-890).
const ADDS_SINCE: i16 = 5;
/// The first version that knows `TRANSACTION_ABORTABLE`.
const ABORTABLE_SINCE: i16 = 4;

pub(super) fn commit(
    ctx: &Context<'_>,
    request: &TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let shared = ctx.shared();
    let group = request.group_id.as_str();
    // Locked until every offset is held: the transaction must not end meanwhile.
    let mut inner = shared.transactions.lock();
    let allowed = check_named(ctx, group).and_then(|()| {
        shared.groups.check_transactional_commit(
            group,
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
        )?;
        let admitted = inner.get(&request.transactional_id);
        let admitted = admitted.and_then(|transaction| admit(ctx, transaction, request));
        admitted.map_err(|code| for_writer(code, ctx.version >= ABORTABLE_SINCE))
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let metadata = partition.committed_metadata.as_deref();
            let epoch = partition.committed_leader_epoch;
            let offset = allowed.and_then(|()| {
                let offset = partition.committed_offset;
                offset_to_commit(ctx, &topic.name, index, (offset, epoch), metadata)
            });
            let code = offset.as_ref().err().copied().unwrap_or(Code::NONE);
            if let Ok(offset) = offset {
                let producer_id = request.producer_id.0;
                shared
                    .groups
                    .hold(group, producer_id, &topic.name, index, offset);
            }
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.0)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default()
        .with_topics(topics.collect())
        .with_throttle_time_ms(ctx.throttle_millis())
}

fn admit(
    ctx: &Context<'_>,
    transaction: &mut Transaction,
    request: &TxnOffsetCommitRequest,
) -> Result<(), Code> {
    let group = request.group_id.as_str();
    let who = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    if ctx.version < ADDS_SINCE {
        return transaction.verify(who, |t| t.groups.contains(group));
    }
    transaction.add_group(moment(ctx.shared()), who, group, Protocol::V2)?;
    ctx.shared().transactions.begun();
    Ok(())
}
