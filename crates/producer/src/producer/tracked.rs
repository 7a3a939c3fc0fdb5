//! Keyed records whose partitioner waits to hear what became of them.

use super::{Refusal, Shared, clock};
use crate::config::Config;
use crate::delivery::{Delivery, RecordMetadata};
use crate::pool::Reservation;
use crate::table::Topic;
use ottla_partitioner::{Partitioner, Written};
use ottla_proto::{Error, ErrorKind, Record, Result, WriteOutcome};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long to wait before a partitioner is asked again about a key that it could not place: what it
/// waits for is a look at the group, and those are at least this far apart.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A keyed record that may wait for only so many times what it may take to be placed is likely to be
/// refused now and then.
const AMPLE: u32 = 3;

/// Refuses a partitioner whose promise the producer would break, and one for which it would not wait.
pub(super) fn check(partitioner: &dyn Partitioner, config: &Config) -> Result<()> {
    if partitioner.needs_idempotence() && !config.idempotence {
        let what = "lag.key.policy=migrate needs enable.idempotence=true: without it a record could \
                    be written after a later one of its key";
        return Err(Error::new(ErrorKind::Config, what));
    }
    let (takes, waits) = (partitioner.placing_time(), config.max_block);
    let what = format!(
        "lag.key.policy=migrate places keys after a start at the first look at the group, and looks \
         are lag.refresh.interval.ms={} apart: a max.block.ms of {} is too short for that",
        takes.as_millis(),
        waits.as_millis()
    );
    // Who never waits asks again of his own accord.
    if waits < takes && !waits.is_zero() {
        return Err(Error::new(ErrorKind::Config, what));
    }
    if waits < takes.saturating_mul(AMPLE) && !waits.is_zero() {
        tracing::warn!("{what} when a look takes long");
    }
    Ok(())
}

impl Shared {
    #[cold]
    pub(super) fn append_tracked(
        &self,
        topic: &Arc<Topic>,
        record: &Record<'_>,
        reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refusal> {
        let key = record.key.unwrap_or_default();
        let ticket = self.partitioner.track(&topic.view(), key, clock());
        let mut ticket = ticket.ok_or(Refusal::Unplaced)?;
        let partition = ticket.partition();
        match self.append_at(topic, partition, record, reservation) {
            Ok(delivery) => {
                ticket.sent();
                let settle = move |outcome| ticket.settle(written(&outcome));
                delivery.twin().on_delivery(settle);
                Ok(delivery)
            }
            // The ticket goes back unused: the key may go elsewhere when it is asked for again.
            Err(refused) => Err(self.refusal(topic, partition, refused, Some(partition))),
        }
    }
}

fn written(outcome: &Result<RecordMetadata>) -> Written {
    match outcome {
        Ok(metadata) => metadata.offset.map_or(Written::Perhaps, Written::At),
        Err(error) if error.write_outcome() == Some(WriteOutcome::NotWritten) => Written::No,
        Err(_) => Written::Perhaps,
    }
}

/// Waits before the partitioner is asked again.
pub(super) async fn wait(topic: &str, deadline: Instant) -> Result<()> {
    let now = Instant::now();
    if now >= deadline {
        let what = format!(
            "within max.block.ms no look found that the group has committed what topic {topic} held \
             when keys were first sent to it: it is not known where records of this key can go \
             without overtaking older ones"
        );
        let error = Error::new(ErrorKind::Timeout, what);
        return Err(error.with_outcome(WriteOutcome::NotWritten));
    }
    sleep_until(deadline.min(now + LOOK_AGAIN)).await;
    Ok(())
}

/// The refusal of a caller who does not wait.
#[cold]
pub(super) fn unplaced(topic: &str) -> Error {
    let what = format!(
        "it is not known yet where records of this key can go in topic {topic} without overtaking \
         older ones: the group has still to commit what was there when keys were first sent"
    );
    Error::new(ErrorKind::State, what).with_outcome(WriteOutcome::NotWritten)
}
