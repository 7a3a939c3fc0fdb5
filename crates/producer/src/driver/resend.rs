//! Batches that failed for good and are sent once more before they are dead letters.

use super::{Driver, Token};
use crate::slot::later;
use ottla_proto::Error;
use ottla_proto::batch::SealedRecords;
use ottla_proto::producer::{Batch, PartitionIndex};
use std::collections::BTreeMap;
use std::time::Instant;

/// Those that rest, by the time at which each is sent again. They hold their memory, so that the
/// buffer bounds them.
#[derive(Debug, Default)]
pub(super) struct Resting(BTreeMap<(Instant, u64, u32), (Token, SealedRecords)>);

impl Resting {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((at, ..), _)| *at)
    }

    /// Whether one is of this partition.
    pub(super) fn has(&self, partition: PartitionIndex) -> bool {
        self.0
            .values()
            .any(|(token, _)| token.partition == partition)
    }
}

impl Driver {
    /// Lets a failed batch rest for another round, if the dead letters' policy has one for it; gives
    /// it back if not.
    pub(super) fn rest(
        &mut self,
        mut token: Token,
        error: &Error,
        attempts: u32,
        records: Option<SealedRecords>,
    ) -> Option<(Token, Option<SealedRecords>)> {
        let rest = self.dead_letters.as_ref().and_then(|policy| {
            let topic = token.completion.topic();
            policy.rests(topic, error, token.rounds)
        });
        let (Some(rest), Some(records)) = (rest.filter(|_| !self.ending), &records) else {
            return Some((token, records));
        };
        tracing::info!(%error, ?rest, records = token.count, "failed records are sent once more");
        token.rounds += 1;
        token.attempts = token.attempts.saturating_add(attempts);
        let at = later(self.shared.now(), rest);
        let place = (at, token.serial, token.first);
        self.resting.0.insert(place, (token, records.clone()));
        None
    }

    /// Sends again what has rested long enough. Who closes does not wait.
    pub(super) fn resend_rested(&mut self, now: Instant) {
        while let Some(first) = self.resting.0.first_entry() {
            if first.key().0 > now && !self.ending {
                break;
            }
            let (token, records) = first.remove();
            let (partition, count) = (token.partition, token.count);
            let deadline = later(now, self.shared.config.delivery_timeout);
            let batch = Batch::new(token, count, deadline, Some(records));
            self.core.push(now, partition, batch);
            self.offered(now, partition);
        }
    }

    /// Nobody is left to send them.
    pub(super) fn end_resting(&mut self) {
        for (token, _) in std::mem::take(&mut self.resting.0).into_values() {
            self.end_unsent(&token);
        }
    }
}
