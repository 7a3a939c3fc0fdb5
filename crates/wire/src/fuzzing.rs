//! For fuzz targets: every adapter's way from bytes to our words.

use crate::api;
use crate::api_key::ApiKey;
use bytes::Bytes;

/// Reads `bytes` as an answer of that API and version, as if a broker had sent them after the
/// correlation id. Says whether they were well-formed.
pub fn decode_any(api: i16, version: i16, bytes: &[u8]) -> bool {
    let answer = Bytes::copy_from_slice(bytes);
    ApiKey::from_number(api).is_some_and(|api| api::decode_any(api, version, answer))
}
