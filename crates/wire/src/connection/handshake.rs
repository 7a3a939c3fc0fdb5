//! Agreeing on versions: the first request of every connection (KIP-35, KIP-511).

use super::Connection;
use crate::api::versions;
use crate::settings::Settings;
use ottla_proto::{Code, ErrorKind, Result};
use tokio::time::Instant;

/// Asks in our newest version. A broker that does not know it answers in version 0 and says which
/// it knows; then we ask once more.
pub(super) async fn negotiate(
    connection: &Connection,
    settings: &Settings,
    deadline: Instant,
) -> Result<()> {
    let mut version = versions::NEWEST;
    for _ in 0..2 {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let answer = match versions::ask(connection, version, settings, timeout).await {
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                let what = format!(
                    "was closed: no answer to the first request within {timeout:?} (does the \
                     peer speak Kafka?)"
                );
                return Err(connection.error(ErrorKind::Timeout, &what));
            }
            answer => answer?,
        };
        match answer.code {
            Code::NONE => {
                // Negotiation runs once a connection, so the cell is empty.
                let _ = connection.0.versions.set(answer.versions);
                return Ok(());
            }
            Code::UNSUPPORTED_VERSION if version > 0 => {
                let ours = 0..=version - 1;
                let api = crate::ApiKey::ApiVersions;
                version = answer.versions.common(api, &ours).unwrap_or(0);
            }
            code => {
                let what = format!("failed: ApiVersions was answered with {code}");
                return Err(connection.error(ErrorKind::Broker(code), &what));
            }
        }
    }
    let what = "failed: no common version of ApiVersions";
    Err(connection.error(ErrorKind::UnsupportedVersion, what))
}
