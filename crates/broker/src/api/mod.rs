//! One handler a Kafka API.

mod api_versions;
mod configs;
mod describe_groups;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
mod offsets;
mod produce;
mod producer_id;
mod topics;
mod transactions;
mod txn_offsets;

use crate::faults::Action;
use crate::frame::{Malformed, Output, Reply};
use crate::server::Connection;
use crate::state::Shared;
use crate::walk::walk;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};
use ottla_proto::Code;
use std::ops::RangeInclusive;

/// One request with what it arrived by.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: String,
    pub(crate) fault: Option<Action>,
    /// The only partition that the fault concerns; `None` for all.
    pub(crate) struck: Option<i32>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An answer.
    Reply(Reply),
    /// No answer: Produce with acks=0.
    NoReply,
    /// The connection ends.
    Close,
}

impl Context<'_> {
    pub(crate) fn shared(&self) -> &Shared {
        &self.connection.shared
    }

    pub(crate) fn node(&self) -> i32 {
        self.connection.node
    }

    /// The code that a fault wants in every part of the answer, with nothing done.
    pub(crate) fn forced(&self) -> Option<Code> {
        match self.fault {
            Some(Action::Error(code)) => Some(code),
            _ => None,
        }
    }

    /// How long the answer asks the client to stay away, in milliseconds.
    pub(crate) fn throttle_millis(&self) -> i32 {
        match self.fault {
            Some(Action::Throttle(time)) => i32::try_from(time.as_millis()).unwrap_or(i32::MAX),
            _ => 0,
        }
    }

    /// The fault as far as it concerns this partition.
    pub(crate) fn fault_of(&self, partition: i32) -> Option<Action> {
        self.fault
            .filter(|_| self.struck.is_none_or(|only| only == partition))
    }

    /// Whether bodies of this version are written the flexible way.
    pub(crate) fn flexible(&self) -> bool {
        self.api.request_header_version(self.version) >= 2
    }

    /// Begins an answer: everything before its body is written.
    pub(crate) fn begin(&self) -> Output {
        let flexible = self.api.response_header_version(self.version) >= 1;
        let mut output = Output::new(flexible);
        output.raw().put_i32(self.correlation);
        output.tags(0);
        output
    }

    fn decode<T: Decodable>(&self, body: BytesMut) -> Result<T, Malformed> {
        walk(self.api, self.version, self.flexible(), &body)?;
        let mut body = body.freeze();
        T::decode(&mut body, self.version).map_err(|error| {
            tracing::debug!(%error, api = ?self.api, version = self.version, "undecodable");
            Malformed
        })
    }

    fn reply<T: Encodable>(&self, response: &T) -> Result<Outcome, Malformed> {
        let mut output = self.begin();
        response
            .encode(output.raw(), self.version)
            .map_err(|error| {
                tracing::warn!(%error, api = ?self.api, version = self.version, "unencodable");
                Malformed
            })?;
        Ok(Outcome::Reply(output.finish()))
    }

    /// Answers with what `handler` makes of the request.
    fn answer<Q: Decodable, R: Encodable>(
        &self,
        body: BytesMut,
        handler: impl FnOnce(&Self, &Q) -> R,
    ) -> Result<Outcome, Malformed> {
        let request: Q = self.decode(body)?;
        self.reply(&handler(self, &request))
    }
}

/// The APIs served, with their versions. Produce is advertised from version 0 as Kafka 4 does, or
/// librdkafka silently leaves compression out; what those versions carry is refused.
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::TxnOffsetCommit, 0, 5),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 2),
];

/// The largest request that is decoded into objects, which take a multiple of its bytes. Produce is
/// read where it lies and has the limit of the frame.
const DECODED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The versions served of an API; `None` for an API that is not.
pub(crate) fn versions_of(api: ApiKey) -> Option<RangeInclusive<i16>> {
    let row = SERVED.iter().find(|row| row.0 == api)?;
    Some(row.1..=row.2)
}

/// What a version that is not served is answered with: ApiVersions gets an answer that every
/// client understands (KIP-511), everything else ends the connection.
pub(crate) fn unserved_version(api: ApiKey, correlation: i32) -> Result<Outcome, Malformed> {
    if api != ApiKey::ApiVersions {
        return Err(Malformed);
    }
    let mut output = Output::new(false);
    output.raw().put_i32(correlation);
    let response = api_versions::unsupported();
    response.encode(output.raw(), 0).map_err(|_| Malformed)?;
    Ok(Outcome::Reply(output.finish()))
}

/// Hands a request's body to its handler.
///
/// # Errors
/// The body cannot be read: the connection ends.
pub(crate) async fn dispatch(ctx: &Context<'_>, body: BytesMut) -> Result<Outcome, Malformed> {
    if ctx.api != ApiKey::Produce && body.len() > DECODED_BYTES_MAX {
        return Err(Malformed);
    }
    match ctx.api {
        ApiKey::Produce => produce::handle(ctx, body).await,
        ApiKey::Fetch => fetch::handle(ctx, body).await,
        ApiKey::ListOffsets => ctx.answer(body, list_offsets::handle),
        ApiKey::Metadata => ctx.answer(body, metadata::handle),
        ApiKey::OffsetCommit => ctx.answer(body, offsets::commit),
        ApiKey::OffsetFetch => ctx.answer(body, offsets::fetch),
        ApiKey::FindCoordinator => ctx.answer(body, groups::find_coordinator),
        ApiKey::JoinGroup => groups::join(ctx, body).await,
        ApiKey::Heartbeat => ctx.answer(body, groups::heartbeat),
        ApiKey::LeaveGroup => ctx.answer(body, groups::leave),
        ApiKey::SyncGroup => groups::sync(ctx, body).await,
        ApiKey::DescribeGroups => ctx.answer(body, describe_groups::describe),
        ApiKey::ListGroups => ctx.answer(body, describe_groups::list),
        ApiKey::DeleteGroups => ctx.answer(body, describe_groups::delete),
        ApiKey::ApiVersions => ctx.answer(body, api_versions::handle),
        ApiKey::InitProducerId => ctx.answer(body, producer_id::handle),
        ApiKey::AddPartitionsToTxn => ctx.answer(body, transactions::add_partitions),
        ApiKey::AddOffsetsToTxn => ctx.answer(body, transactions::add_offsets),
        ApiKey::EndTxn => ctx.answer(body, transactions::end),
        ApiKey::TxnOffsetCommit => ctx.answer(body, txn_offsets::commit),
        ApiKey::DescribeTransactions => ctx.answer(body, transactions::describe),
        ApiKey::ListTransactions => ctx.answer(body, transactions::list),
        ApiKey::CreateTopics => ctx.answer(body, topics::create),
        ApiKey::DeleteTopics => ctx.answer(body, topics::delete),
        ApiKey::CreatePartitions => ctx.answer(body, topics::create_partitions),
        ApiKey::DeleteRecords => ctx.answer(body, topics::delete_records),
        ApiKey::OffsetForLeaderEpoch => ctx.answer(body, topics::offset_for_leader_epoch),
        ApiKey::DescribeConfigs => ctx.answer(body, configs::describe),
        ApiKey::DescribeCluster => ctx.answer(body, configs::describe_cluster),
        _ => Err(Malformed),
    }
}
