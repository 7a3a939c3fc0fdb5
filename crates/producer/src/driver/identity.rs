//! The producer id of a producer without transactions.

use super::Driver;
use crate::inbox::Message;
use crate::producer::Shared;
use ottla_proto::producer::Identity;
use ottla_proto::producer::transaction::{Api, TransactionVerdict, transaction_verdict};
use ottla_proto::{Error, Result};
use ottla_wire::{Class, api};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Driver {
    pub(super) fn identify(&mut self) {
        let wait = self.identity_wait();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let identity = init_producer_id(&shared).await;
            shared.shop.inbox.push(Message::Identified(identity));
        });
    }

    pub(super) fn identified(&mut self, now: Instant, identity: Result<Identity>) {
        match identity {
            Ok(identity) => {
                self.identity_failures = 0;
                self.core.set_identity(now, identity);
            }
            Err(error) if is_passing(&error) => {
                // Batches wait for it within their delivery timeout.
                tracing::info!(%error, "no producer id yet");
                self.identity_failures += 1;
                self.identify();
            }
            Err(error) => {
                self.identity_failures = 0;
                tracing::warn!(%error, "no producer id");
                self.core.refuse_identity(&error);
            }
        }
    }

    /// A jittered exponential wait after failures; none before the first attempt.
    fn identity_wait(&self) -> Duration {
        let Some(doublings) = self.identity_failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let settings = self.shared.cluster.settings();
        let wait = settings
            .retry_backoff
            .saturating_mul(1 << doublings.min(16));
        let percent = 80 + u32::try_from(self.shared.random() % 41).unwrap_or(20);
        wait.min(settings.retry_backoff_max) * percent / 100
    }
}

/// Whether to ask again. A broker's code means here what it means to a transactional id.
fn is_passing(error: &Error) -> bool {
    use TransactionVerdict::{FindCoordinator, Retry};
    let Some(code) = error.code() else {
        return error.is_retriable();
    };
    let verdict = transaction_verdict(Api::InitProducerId, code);
    matches!(verdict, Retry | FindCoordinator)
}

async fn init_producer_id(shared: &Shared) -> Result<Identity> {
    let connection = shared.cluster.any_connection(Class::Control).await?;
    let request = api::init_producer_id::Request::default();
    let response = api::init_producer_id::call(&connection, &request).await?;
    Ok(response.identity)
}
