//! Consumer groups: delete.

use ottla_proto::{Code, Error, Result};
use ottla_wire::api::delete_groups;
use ottla_wire::retry::Backoff;
use ottla_wire::{ApiKey, Class, Cluster, CoordinatorKind};
use tokio::time::Instant;

/// The cluster's consumer groups.
#[derive(Debug, Clone)]
pub struct Groups {
    cluster: Cluster,
}

impl Groups {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// Deletes a group with its committed offsets. It must have no member.
    ///
    /// # Errors
    /// The coordinator's refusal, such as `NON_EMPTY_GROUP` or `GROUP_ID_NOT_FOUND`; or when no
    /// broker answers within `default.api.timeout.ms`.
    ///
    /// Cancel safety: the group may or may not be deleted.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let settings = self.cluster.settings();
        let deadline = Instant::now() + settings.api_timeout;
        let backoff = Backoff {
            first: settings.retry_backoff,
            ceiling: settings.retry_backoff_max,
        };
        let mut in_doubt = false;
        for attempt in 0.. {
            let error = match self.try_delete(name, deadline).await {
                Ok(()) => return Ok(()),
                // An attempt whose answer was lost has deleted it.
                Err(error) if in_doubt && error.code() == Some(Code::GROUP_ID_NOT_FOUND) => {
                    return Ok(());
                }
                Err(error) => error,
            };
            let wait = backoff.wait(attempt, settings.seed);
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            in_doubt |= error.code().is_none();
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn try_delete(&self, name: &str, deadline: Instant) -> Result<()> {
        let kind = CoordinatorKind::Group;
        let broker = self.cluster.coordinator(kind, name, deadline).await?;
        let request = delete_groups::Request {
            groups: vec![name.into()],
        };
        let answer = async {
            let connection = self.cluster.connection(broker, Class::Control).await?;
            let response = delete_groups::call(&connection, &request).await?;
            let named = |error: Error| error.at_broker(broker);
            for (_, answer) in response.groups {
                answer.map_err(|error| named(error.into_error(ApiKey::DeleteGroups, name)))?;
            }
            Ok(())
        };
        let answer = answer.await;
        if answer.as_ref().is_err_and(Error::is_retriable) {
            // It may have moved.
            self.cluster.forget_coordinator(kind, name, broker);
        }
        answer
    }
}
