//! ApiVersions: what this broker serves.

use super::{Context, SERVED};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use ottla_proto::Code;

pub(super) fn handle(ctx: &Context<'_>, _request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if let Some(code) = ctx.forced() {
        return ApiVersionsResponse::default().with_error_code(code.0);
    }
    rows(|_| true)
}

/// The answer to a version that is not served: version 0, with the versions of ApiVersions itself.
pub(super) fn unsupported() -> ApiVersionsResponse {
    rows(|api| api == ApiKey::ApiVersions).with_error_code(Code::UNSUPPORTED_VERSION.0)
}

fn rows(wanted: impl Fn(ApiKey) -> bool) -> ApiVersionsResponse {
    let rows = SERVED.iter().filter(|row| wanted(row.0));
    let keys = rows.map(|(api, min, max)| {
        ApiVersion::default()
            .with_api_key(*api as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}
