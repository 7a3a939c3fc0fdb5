//! The consumers of a group, with the time they take for a record.

use super::journal::Journal;
use super::scene::{PARTITIONS, Scene, Service};
use super::side::{Begun, Names};
use crate::failure::Result;
use ottla::Client;
use ottla::consumer::{Consumer, ConsumerRecord, OffsetReset};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How often the group commits.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// How long a member waits for its partition before it looks again whether it has it.
const POLL: Duration = Duration::from_millis(20);
/// Timers are a little late. A consumer that is woken late does not lose that time, as long as it
/// is no more than this.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// How many partitions each member has.
#[derive(Debug, Default)]
pub(super) struct Roster([AtomicUsize; PARTITIONS]);

impl Roster {
    fn note(&self, member: usize, partitions: usize) {
        if let Some(count) = self.0.get(member) {
            count.store(partitions, Ordering::Relaxed);
        }
    }

    /// Whether every member has one partition.
    pub(super) fn is_complete(&self) -> bool {
        self.0
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 1)
    }
}

/// A consumer that joins its group in the background.
pub(super) async fn consumer(client: &Client, names: &Names) -> Result<Consumer> {
    let builder = client
        .consumer()?
        .group(&names.group)
        .topics([&names.topic])
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(Some(COMMIT_EVERY));
    Ok(builder.build().await?)
}

/// Writes a record's number and due time to its value's beginning.
pub(super) fn inscribe(value: &mut [u8], number: u64, due: Duration) {
    let micros = u64::try_from(due.as_micros()).unwrap_or(u64::MAX);
    let inscription = number.to_be_bytes().into_iter().chain(micros.to_be_bytes());
    value
        .iter_mut()
        .zip(inscription)
        .for_each(|(to, from)| *to = from);
}

/// Reads what [`inscribe`] wrote; `None` for a record of somebody else.
fn inscription(value: &[u8]) -> Option<(u64, Duration)> {
    let (number, rest) = value.split_first_chunk()?;
    let (micros, _) = rest.split_first_chunk()?;
    let due = Duration::from_micros(u64::from_be_bytes(*micros));
    Some((u64::from_be_bytes(*number), due))
}

/// One member of a group.
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) scene: Arc<Scene>,
    pub(super) journal: Arc<Journal>,
    pub(super) roster: Arc<Roster>,
    pub(super) begun: Begun,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Member {
    /// Reads until it is stopped, and leaves the group.
    pub(super) async fn run(mut self, mut consumer: Consumer) {
        let mut stopped = self.stopped.clone();
        let work = async {
            let Some(began) = self.join(&mut consumer).await else {
                return Ok(());
            };
            self.consume(&mut consumer, began).await
        };
        let done = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
            done = work => done,
        };
        if let Err(error) = done {
            self.journal.fail(error);
        }
        // Nobody depends on the last commit.
        let _ = consumer.close().await;
    }

    /// Takes part in the group until the load begins; `None` when it never will.
    async fn join(&mut self, consumer: &mut Consumer) -> Option<Instant> {
        loop {
            if let Some(began) = *self.begun.borrow_and_update() {
                return Some(began);
            }
            let partitions = consumer.assignment().len();
            self.roster.note(self.number, partitions);
            tokio::select! {
                biased;
                changed = self.begun.changed() => changed.ok()?,
                polled = consumer.poll(1, POLL) => {
                    if let Err(error) = polled {
                        self.journal.fail(error);
                        return None;
                    }
                }
            }
        }
    }

    async fn consume(&self, consumer: &mut Consumer, began: Instant) -> ottla::Result<()> {
        let mut services = self.scene.services();
        let mut free_at = Duration::ZERO;
        while let Some(record) = consumer.next().await {
            let record = record?;
            let Some((number, due)) = record.value.as_deref().and_then(inscription) else {
                continue;
            };
            let partition = partition(&record);
            let Some(service) = services.get_mut(partition) else {
                continue;
            };
            free_at = self.finish(free_at, began.elapsed().max(due), partition, service);
            let done = began + free_at;
            if done > Instant::now() {
                sleep_until(done).await;
            }
            self.journal
                .consumed(number, due, partition, began.elapsed());
        }
        Ok(())
    }

    /// When the consumer is done with a record that is there at `now`, if it was free at `free_at`.
    fn finish(
        &self,
        free_at: Duration,
        now: Duration,
        partition: usize,
        service: &mut Service,
    ) -> Duration {
        let begins = free_at.max(now.saturating_sub(TIMER_SLACK));
        self.scene.begins(partition, begins) + service.next()
    }
}

fn partition(record: &ConsumerRecord) -> usize {
    usize::try_from(record.partition()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_when_it_was_due() {
        let mut value = [7; 20];
        let due = Duration::from_micros(1_234_567);
        inscribe(&mut value, 42, due);
        assert_eq!(inscription(&value), Some((42, due)));
        assert_eq!(value[16..], [7; 4]);
        assert_eq!(inscription(&value[..15]), None);
    }

    #[test]
    fn the_group_is_complete_when_every_member_has_one_partition() {
        let roster = Roster::default();
        assert!(!roster.is_complete());
        for member in 0..PARTITIONS {
            roster.note(member, 1);
        }
        assert!(roster.is_complete());
        roster.note(3, 2);
        assert!(!roster.is_complete());
    }
}
