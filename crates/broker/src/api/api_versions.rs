//! ApiVersions: what this broker serves.

use super::{Context, SERVED};
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;

/// The first version that tells features (KIP-584).
const FEATURES_SINCE: i16 = 3;
/// The first version whose readers take a feature whose lowest level is 0 (KIP-1022).
const LEVEL_0_SINCE: i16 = 4;
const TRANSACTION_VERSION: &str = "transaction.version";

pub(super) fn handle(ctx: &Context<'_>, _request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if let Some(code) = ctx.forced() {
        return ApiVersionsResponse::default().with_error_code(code.0);
    }
    let response = rows(|_| true);
    if ctx.version < FEATURES_SINCE {
        return response;
    }
    let (level, epoch) = ctx.shared().features.transaction_version();
    let supported = SupportedFeatureKey::default()
        .with_name(StrBytes::from_static_str(TRANSACTION_VERSION))
        .with_max_version(2);
    let finalized = FinalizedFeatureKey::default()
        .with_name(StrBytes::from_static_str(TRANSACTION_VERSION))
        .with_max_version_level(level)
        .with_min_version_level(level);
    // A feature at level 0 is not finalized.
    let finalized = (level > 0).then_some(finalized);
    let supported = (ctx.version >= LEVEL_0_SINCE).then_some(supported);
    response
        .with_supported_features(supported.into_iter().collect())
        .with_finalized_features(finalized.into_iter().collect())
        .with_finalized_features_epoch(epoch)
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
