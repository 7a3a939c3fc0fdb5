//! ApiVersions: what the broker speaks.

use super::{decode, encode, shared, text};
use crate::api_key::ApiKey;
use crate::connection::Connection;
use crate::settings::Settings;
use crate::versions::{Feature, Versions};
use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_proto::{Code, Error, Result};
use std::time::Duration;

/// The version we ask in first.
pub(crate) const NEWEST: i16 = 4;
/// The first version that names the client's software.
const NAMES_SOFTWARE_FROM: i16 = 3;

pub(crate) struct Response {
    pub(crate) code: Code,
    pub(crate) versions: Versions,
}

/// Asks an open connection anew: the cluster's finalized features can change while it is open.
///
/// # Errors
/// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion`, naming the broker; the broker's code.
///
/// Cancel safety: nothing is changed; the answer is thrown away.
pub async fn call(connection: &Connection, settings: &Settings) -> Result<Versions> {
    let version = connection.version(ApiKey::ApiVersions, 0..=NEWEST)?;
    let timeout = connection.request_timeout();
    let response = ask(connection, version, settings, timeout).await?;
    let answered = response.code.ok();
    answered.map_err(|code| connection.name(Error::broker(code, "ApiVersions")))?;
    Ok(response.versions)
}

pub(crate) async fn ask(
    connection: &Connection,
    version: i16,
    settings: &Settings,
    timeout: Duration,
) -> Result<Response> {
    let mut request = ApiVersionsRequest::default();
    if version >= NAMES_SOFTWARE_FROM {
        request = request
            .with_client_software_name(text(&settings.software_name))
            .with_client_software_version(text(&settings.software_version));
    }
    let frame = encode(
        ApiKey::ApiVersions,
        version,
        connection.client_id(),
        &request,
    )?;
    let answer = connection.submit(frame, timeout).await?;
    read(version, answer).map_err(|error| connection.name(error))
}

/// A broker that does not know the version asked for answers in version 0.
pub(crate) fn read(version: i16, answer: Bytes) -> Result<Response> {
    let code = answer
        .first_chunk()
        .map_or(0, |code| i16::from_be_bytes(*code));
    let version = match Code(code) {
        Code::UNSUPPORTED_VERSION => 0,
        _ => version,
    };
    let answer: ApiVersionsResponse = decode(ApiKey::ApiVersions, version, answer)?;
    let ranges = answer.api_keys.iter();
    let mut versions =
        Versions::new(ranges.map(|api| (api.api_key, api.min_version..=api.max_version)));
    versions.finalized_epoch = super::non_negative(answer.finalized_features_epoch);
    let finalized = answer.finalized_features.iter().map(|feature| Feature {
        name: shared(&feature.name),
        min_level: feature.min_version_level,
        max_level: feature.max_version_level,
    });
    versions.finalized = finalized.collect();
    Ok(Response {
        code: Code(answer.error_code),
        versions,
    })
}
