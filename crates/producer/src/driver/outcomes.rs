//! What the core asks for, and what became of each batch.

use super::{Driver, Place, Token, closed};
use crate::compressing::compress;
use crate::dead_letter::{Burial, DeadLetters, Ending, Turn, bury};
use crate::hooks::{Delivered, Failed};
use crate::metrics::Ended;
use crate::pool::Account;
use crate::slot::later;
use crate::spans;
use ottla_proto::batch::SealedRecords;
use ottla_proto::producer::{Ack, Event, PartitionIndex, RecordError, Split};
use ottla_proto::{Error, ErrorKind, Result, WriteOutcome};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Span;

impl Driver {
    /// Carries out the core's events.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Room(partition) => self.room(now, partition),
                Event::Connect(broker, lane) => self.connect(broker, lane),
                Event::Abandon(broker, lane) => self.abandon(broker, lane),
                Event::Refresh => self.shared.cluster.mark_stale(self.view_generation),
                // A transactional producer's coordinator gives it one unasked.
                Event::NeedIdentity if self.desk.is_some() => {}
                Event::NeedIdentity => self.identify(),
                Event::Moved(partition, topic_id, hint) => {
                    let cluster = &self.shared.cluster;
                    cluster.apply_leader(&partition, topic_id, hint);
                }
                Event::Split(split) => self.split(now, *split),
                Event::NeedAdmission(index) => {
                    if let (Some(desk), Some(name)) = (&mut self.desk, self.core.name(index)) {
                        desk.want(index, name.clone());
                    }
                }
                Event::TransactionBroken(error) => {
                    if let Some(desk) = &mut self.desk {
                        desk.fail(error);
                    }
                }
                outcome => self.tell(outcome),
            }
        }
    }

    /// Tells a batch's outcome to those who wait for it.
    pub(super) fn tell(&mut self, event: Event<Token>) {
        match event {
            Event::Acknowledged { token, ack, .. } => self.acknowledged(&token, ack),
            Event::Failed {
                token,
                error,
                record_errors,
                attempts,
                records,
            } => {
                self.gave_up_waiting(token.partition);
                let Some((token, records)) = self.rest(token, &error, attempts, records) else {
                    return; // it is sent again after a while
                };
                self.report_failure(&token, &error);
                let error = match record_errors.as_slice() {
                    // Cut out, it has the broker's words for itself.
                    [alone] if token.count == 1 => of_record(&error, alone),
                    _ => error,
                };
                let attempts = token.attempts.saturating_add(attempts);
                match self.burial(&token, &error, attempts, records) {
                    // Those who wait hear of it when the dead letters are written.
                    Some((policy, burial)) => {
                        self.tasks
                            .spawn(bury(Arc::clone(&self.shared), policy, burial));
                    }
                    None => {
                        self.settled(token.serial);
                        tell_failed(&token, &error, &record_errors);
                    }
                }
            }
            // The producer ended before it was cut; an earlier attempt may have been written.
            Event::Split(split) => {
                let token = &split.token;
                let error = closed().with_outcome(WriteOutcome::Unknown);
                self.report_failure(token, &error);
                self.settled(token.serial);
                let completion = &token.completion;
                completion.complete_part(token.first, token.count, Err(error));
            }
            _ => {}
        }
    }

    /// A batch ended without being sent: the partitioner's view hears that it does not wait any more.
    fn gave_up_waiting(&self, partition: PartitionIndex) {
        let Some(place) = self.places.get(partition.0 as usize) else {
            return;
        };
        place.slot.set_queued(self.core.queued(partition));
        let account = place.slot.account();
        // With nothing left to take the leader refuses nothing.
        if account.is_refusing() && !self.has_queued(&account) {
            account.accept();
        }
    }

    /// Whether a batch waits unsent for the account's leader.
    fn has_queued(&self, account: &Arc<Account>) -> bool {
        let waits = |place: &Place| {
            let slot = &place.slot;
            self.core.queued(slot.index()) > 0 && Arc::ptr_eq(&slot.account(), account)
        };
        account.is_awaited(self.places.len(), |at| {
            self.places.get(*at).is_some_and(waits)
        })
    }

    fn acknowledged(&mut self, token: &Token, ack: Ack) {
        let latency = self.report(token, Ok(&ack));
        let hooks = &self.shared.config.hooks;
        if hooks.hears() {
            hooks.delivered(&Delivered {
                topic: token.completion.topic(),
                partition: token.completion.partition(),
                base_offset: ack.base_offset,
                record_count: token.count,
                latency,
            });
        }
        self.settled(token.serial);
        token
            .completion
            .complete_part(token.first, token.count, Ok(ack));
    }

    pub(super) fn report_failure(&self, token: &Token, error: &Error) {
        tracing::debug!(records = token.count, %error, "a batch failed");
        let latency = self.report(token, Err(error));
        let hooks = &self.shared.config.hooks;
        if hooks.hears() {
            hooks.failed(&Failed {
                topic: token.completion.topic(),
                partition: token.completion.partition(),
                record_count: token.count,
                latency,
                error,
            });
        }
    }

    /// Counts how a batch ended; gives the time since its first record.
    fn report(&self, token: &Token, outcome: Result<&Ack, &Error>) -> Duration {
        let at = tokio::time::Instant::now().into_std();
        let latency = at.saturating_duration_since(token.begun);
        let ended = Ended {
            at,
            records: token.count,
            latency,
        };
        self.shared.counters.ended(ended, outcome.err());
        spans::end(&token.span, outcome);
        latency
    }

    /// What is to be written to the dead letter topic, if anything.
    fn burial(
        &mut self,
        token: &Token,
        error: &Error,
        attempts: u32,
        records: Option<SealedRecords>,
    ) -> Option<(Arc<DeadLetters>, Burial)> {
        let topic = token.completion.topic();
        let policy = Arc::clone(self.dead_letters.as_ref()?);
        if !policy.takes(topic, error) {
            return None;
        }
        let Some(records) = records else {
            // It failed before it was ever ready to be sent, so nobody holds its records any more.
            tracing::error!(%error, records = token.count, "records failed and have no dead letter");
            let lost = u64::from(token.count);
            self.shared.counters.dead_letters(lost, false);
            return None;
        };
        let place = self.places.get_mut(token.partition.0 as usize);
        let burial = Burial {
            turn: Turn::behind(place.map_or(&mut None, |place| &mut place.buried)),
            topic: Arc::clone(topic),
            partition: token.completion.partition(),
            records,
            attempts,
            ending: Ending {
                completion: Arc::clone(&token.completion),
                serial: token.serial,
                first: token.first,
                count: token.count,
                error: error.clone(),
            },
        };
        Some((policy, burial))
    }

    /// One part of what was sealed under this serial has ended.
    pub(super) fn settled(&mut self, serial: u64) {
        if let Some(parts) = self.unsettled.get_mut(&serial) {
            *parts -= 1;
            if *parts == 0 {
                self.unsettled.remove(&serial);
            }
        }
    }

    /// When the first record of the batch with this deadline was enqueued.
    pub(super) fn begun(&self, now: Instant, deadline: Instant) -> Instant {
        let begun = deadline.checked_sub(self.shared.config.delivery_timeout);
        // A timeout that no clock can count to has no beginning either.
        begun.map_or(now, |begun| begun.min(now))
    }

    pub(super) fn span(&self, partition: PartitionIndex, record_count: u32) -> Span {
        let client_id = &self.shared.cluster.settings().client_id;
        let Some(place) = self.places.get(partition.0 as usize) else {
            return Span::none();
        };
        let slot = &place.slot;
        spans::batch(client_id, slot.topic(), slot.partition(), record_count)
    }

    /// Cuts a batch that a broker found too large, and keeps the partition's next ones smaller; or
    /// one with a wrong record in it.
    fn split(&mut self, now: Instant, split: Split<Token>) {
        let Split {
            partition,
            ordinal,
            token,
            records,
            cut_at,
            ..
        } = split;
        let raw_bytes = records.raw_size_bytes();
        let halves = match cut_at {
            Some(count) => records.cut_at(count),
            None => records.halves(),
        };
        let Some(place) = self.places.get_mut(partition.0 as usize) else {
            let error = Error::new(ErrorKind::State, "the batch's partition is not known");
            self.core
                .refuse_halves(now, partition, ordinal, token, &error);
            return;
        };
        if cut_at.is_none() {
            // The full size is tried again as often as anything else that is known of a topic.
            let until = later(now, self.shared.cluster.settings().metadata_max_age);
            place.narrow(now, raw_bytes / 2, until);
            place.limit(now, self.shared.config.batch_bytes);
        }
        let account = place.slot.account();
        let halves = halves.map(|(mut first, mut second)| {
            for half in [&mut first, &mut second] {
                half.adopt(|pieces| account.adopt(pieces.iter().map(AsRef::as_ref), 0));
                compress(&self.shared, &account, half);
            }
            (first, second)
        });
        match halves {
            Ok((first, second)) => {
                tracing::info!(bytes = raw_bytes, ?cut_at, "a refused batch is cut in two");
                if let Some(parts) = self.unsettled.get_mut(&token.serial) {
                    *parts += 1;
                }
                let behind = Token {
                    serial: token.serial,
                    partition,
                    rounds: token.rounds,
                    attempts: token.attempts,
                    completion: Arc::clone(&token.completion),
                    first: token.first + first.count(),
                    count: second.count(),
                    begun: token.begun,
                    span: token.span.clone(),
                };
                let front = Token {
                    count: first.count(),
                    ..token
                };
                self.core
                    .provide_halves(now, partition, ordinal, (front, first), (behind, second));
            }
            Err(error) => {
                self.core
                    .refuse_halves(now, partition, ordinal, token, &error);
            }
        }
    }
}

/// The records that the broker found wrong hear what is wrong with them; the others fail because
/// they were in the same batch (KIP-467).
fn tell_failed(token: &Token, error: &Error, wrong: &[RecordError]) {
    let (first, count) = (token.first, token.count);
    let ours = wrong.iter().filter(|record| record.index < count);
    let named = ours.map(|record| (first + record.index, Err(of_record(error, record))));
    let others = Err(error.clone());
    if wrong.is_empty() {
        token.completion.complete_part(first, count, others);
    } else {
        token
            .completion
            .complete_part_but(first, count, named, others);
    }
}

/// The error of a batch, in the words that the broker had for one of its records.
fn of_record(error: &Error, record: &RecordError) -> Error {
    let words = record.message.as_deref();
    let words = words.unwrap_or("the broker found this record wrong");
    error.clone().with_message(words)
}
