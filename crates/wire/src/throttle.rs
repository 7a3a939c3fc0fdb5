//! How long a broker wants to be left alone (KIP-219): it answers at once and then reads nothing
//! from the connection for the time that it names. What is sent meanwhile would only grow old.

use crate::api_key::ApiKey;
use crate::schema;
use crate::walk::read_uvarint;
use std::time::Duration;

/// From these versions on the broker leaves the waiting to us; before, it held the answer back
/// itself.
fn ours_from(api: ApiKey) -> i16 {
    match api {
        ApiKey::Fetch => 8,
        ApiKey::Metadata => 6,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => 4,
        ApiKey::ListOffsets | ApiKey::JoinGroup | ApiKey::CreateTopics => 3,
        ApiKey::FindCoordinator
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteTopics
        | ApiKey::DescribeConfigs => 2,
        _ => 1,
    }
}

/// The time that an answer names; `answer` begins after the correlation id. Zero for Produce, whose
/// sender obeys by itself, and for ApiVersions, the first answer of a connection.
pub(crate) fn of(api: ApiKey, version: i16, answer: &[u8]) -> Duration {
    if matches!(api, ApiKey::Produce | ApiKey::ApiVersions) || version < ours_from(api) {
        return Duration::ZERO;
    }
    // Every other answer begins with the time, behind its header's tagged fields.
    let body = match schema::is_flexible(api, version) {
        true => after_tags(answer),
        false => Some(answer),
    };
    let millis = body.and_then(|body| body.first_chunk()).copied();
    let millis = millis.map_or(0, i32::from_be_bytes);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What follows the tagged fields of a response header; `None` when it is malformed, which whoever
/// decodes the answer will say.
fn after_tags(answer: &[u8]) -> Option<&[u8]> {
    let mut rest = answer;
    let count = read_uvarint(&mut rest).ok()?;
    for _ in 0..count {
        read_uvarint(&mut rest).ok()?;
        let size = read_uvarint(&mut rest).ok()?;
        rest = rest.get(usize::try_from(size).ok()?..)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_from_the_first_versions_that_leave_the_waiting_to_us() {
        let plain = [0, 0, 0, 200, 0, 0];
        let flexible = [1, 9, 2, 8, 8, 0, 0, 0, 100];
        let millis = Duration::from_millis;
        assert_eq!(of(ApiKey::Fetch, 8, &plain), millis(200));
        assert_eq!(of(ApiKey::Fetch, 7, &plain), Duration::ZERO);
        assert_eq!(of(ApiKey::Fetch, 12, &flexible), millis(100));
        assert_eq!(of(ApiKey::Heartbeat, 4, &flexible), millis(100));
        assert_eq!(of(ApiKey::Heartbeat, 3, &plain), millis(200));
        assert_eq!(of(ApiKey::Heartbeat, 1, &plain), Duration::ZERO);
    }

    #[test]
    fn answers_that_name_no_time_or_make_no_sense_name_none() {
        assert_eq!(of(ApiKey::Produce, 9, &[0, 0, 0, 0, 200]), Duration::ZERO);
        assert_eq!(of(ApiKey::Fetch, 8, &[0xff; 4]), Duration::ZERO);
        assert_eq!(of(ApiKey::Fetch, 8, &[0, 0]), Duration::ZERO);
        assert_eq!(of(ApiKey::Fetch, 12, &[0xff; 9]), Duration::ZERO);
    }
}
