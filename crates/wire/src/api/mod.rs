//! One adapter a Kafka API: our words on one side, the wire on the other. Milliseconds, -1 and
//! generated types exist nowhere else.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod consumer_group_describe;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_topics;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_share_group_offsets;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod produce;
mod reader;
pub mod share_group_describe;
pub mod sync_group;
#[cfg(test)]
mod tests;
pub mod txn_offset_commit;
pub mod versions;

use crate::api_key::ApiKey;
use crate::connection::Connection;
use crate::frame::{Frame, FrameWriter, Header, HeaderForm};
use crate::schema;
use crate::walk::{cut_short, malformed, read_uvarint};
use bytes::{Buf, Bytes};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use ottla_proto::topic::TopicId;
use ottla_proto::{BrokerId, Code, Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// Room for the small pieces of an ordinary request.
const REQUEST_CAPACITY_BYTES: usize = 256;

/// Sends a generated request and reads a generated answer.
async fn call<Q, R>(
    connection: &Connection,
    api: ApiKey,
    version: i16,
    request: &Q,
    timeout: Duration,
) -> Result<R>
where
    Q: Encodable + HeaderVersion,
    R: Decodable + HeaderVersion,
{
    let frame = encode(api, version, connection.client_id(), request)?;
    let answer = connection.submit(frame, timeout).await?;
    decode(api, version, answer).map_err(|error| connection.name(error))
}

/// Frames a generated request.
fn encode<Q: Encodable + HeaderVersion>(
    api: ApiKey,
    version: i16,
    client_id: &str,
    request: &Q,
) -> Result<Frame> {
    let header = Header {
        api,
        version,
        form: match Q::header_version(version) {
            2 => HeaderForm::Flexible,
            _ => HeaderForm::Plain,
        },
        client_id,
    };
    let mut writer = FrameWriter::new(header, REQUEST_CAPACITY_BYTES);
    request.encode(writer.small(), version).map_err(|error| {
        let what = format!("a {api} request of version {version} cannot be written: {error}");
        Error::new(ErrorKind::State, what)
    })?;
    writer.finish()
}

/// Reads a generated answer behind its bounds walk. `answer` begins after the correlation id.
fn decode<R: Decodable + HeaderVersion>(api: ApiKey, version: i16, answer: Bytes) -> Result<R> {
    let wrong = |error: Error| {
        Error::new(
            ErrorKind::Protocol,
            format!("{api} version {version} brought {error}"),
        )
    };
    let mut body = answer;
    if R::header_version(version) >= 1 {
        skip_header_tags(&mut body).map_err(wrong)?;
    }
    schema::of(api).walk(version, &body).map_err(wrong)?;
    R::decode(&mut body, version).map_err(|error| wrong(malformed(&error.to_string())))
}

/// Skips the tagged fields of a version 1 response header.
fn skip_header_tags(body: &mut Bytes) -> Result<()> {
    let mut rest = &body[..];
    let count = read_uvarint(&mut rest)?;
    for _ in 0..count {
        read_uvarint(&mut rest)?;
        let size = read_uvarint(&mut rest)? as usize;
        rest = rest.get(size..).ok_or_else(cut_short)?;
    }
    let skipped = body.len() - rest.len();
    body.advance(skipped);
    Ok(())
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn shared(value: &str) -> Arc<str> {
    value.into()
}

fn shared_option(value: Option<&StrBytes>) -> Option<Arc<str>> {
    value.map(|value| shared(value))
}

fn non_negative<T: PartialOrd + Default>(value: T) -> Option<T> {
    (value >= T::default()).then_some(value)
}

fn broker_option(id: i32) -> Option<BrokerId> {
    non_negative(id).map(BrokerId)
}

fn topic_id_option(bytes: [u8; 16]) -> Option<TopicId> {
    (bytes != [0; 16]).then_some(TopicId(bytes))
}

fn from_millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn to_millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// An answer for one item: `Ok` or the code with the broker's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemError {
    /// Kafka's code.
    pub code: Code,
    /// The broker's own words.
    pub message: Option<Arc<str>>,
}

impl ItemError {
    fn check(code: i16, message: Option<Arc<str>>) -> Result<(), Self> {
        match Code(code) {
            Code::NONE => Ok(()),
            code => Err(Self { code, message }),
        }
    }

    /// Whether a broker that is not the controller passed the request back, as those before 2.8 do:
    /// then nothing of it was done.
    fn check_controller<T>(api: ApiKey, items: &[(Arc<str>, Result<T, Self>)]) -> Result<()> {
        let passed_back = items.iter().find_map(|(item, result)| {
            let error = result.as_ref().err()?;
            (error.code == Code::NOT_CONTROLLER).then(|| error.clone().into_error(api, item))
        });
        passed_back.map_or(Ok(()), Err)
    }

    /// The error with the API and the item named.
    pub fn into_error(self, api: ApiKey, item: &str) -> Error {
        let what = match &self.message {
            Some(message) => format!("{api} for {item} ({message})"),
            None => format!("{api} for {item}"),
        };
        Error::broker(self.code, &what)
    }
}

/// Reads an answer of any API; for fuzzing and tests.
pub(crate) fn decode_any(api: ApiKey, version: i16, answer: Bytes) -> bool {
    use kafka_protocol::messages as wire;
    macro_rules! generated {
        ($type:ty) => {
            decode::<$type>(api, version, answer).is_ok()
        };
    }
    match api {
        ApiKey::Produce => produce::decode_with_endpoints(version, answer).is_ok(),
        ApiKey::Fetch => fetch::decode(version, answer, &fetch::Request::default()).is_ok(),
        ApiKey::ApiVersions => versions::read(version, answer).is_ok(),
        ApiKey::Metadata => metadata::read(version, answer).is_ok(),
        ApiKey::ListOffsets => generated!(wire::ListOffsetsResponse),
        ApiKey::OffsetCommit => generated!(wire::OffsetCommitResponse),
        ApiKey::OffsetFetch => generated!(wire::OffsetFetchResponse),
        ApiKey::FindCoordinator => generated!(wire::FindCoordinatorResponse),
        ApiKey::JoinGroup => generated!(wire::JoinGroupResponse),
        ApiKey::Heartbeat => generated!(wire::HeartbeatResponse),
        ApiKey::LeaveGroup => generated!(wire::LeaveGroupResponse),
        ApiKey::SyncGroup => generated!(wire::SyncGroupResponse),
        ApiKey::DescribeGroups => generated!(wire::DescribeGroupsResponse),
        ApiKey::ListGroups => generated!(wire::ListGroupsResponse),
        ApiKey::CreateTopics => generated!(wire::CreateTopicsResponse),
        ApiKey::DeleteTopics => generated!(wire::DeleteTopicsResponse),
        ApiKey::InitProducerId => generated!(wire::InitProducerIdResponse),
        ApiKey::AddPartitionsToTxn => generated!(wire::AddPartitionsToTxnResponse),
        ApiKey::AddOffsetsToTxn => generated!(wire::AddOffsetsToTxnResponse),
        ApiKey::EndTxn => generated!(wire::EndTxnResponse),
        ApiKey::TxnOffsetCommit => generated!(wire::TxnOffsetCommitResponse),
        ApiKey::DescribeConfigs => generated!(wire::DescribeConfigsResponse),
        ApiKey::CreatePartitions => generated!(wire::CreatePartitionsResponse),
        ApiKey::DeleteGroups => generated!(wire::DeleteGroupsResponse),
        ApiKey::ConsumerGroupDescribe => generated!(wire::ConsumerGroupDescribeResponse),
        ApiKey::ShareGroupDescribe => generated!(wire::ShareGroupDescribeResponse),
        ApiKey::DescribeShareGroupOffsets => {
            generated!(wire::DescribeShareGroupOffsetsResponse)
        }
    }
}
