//! What the core asks for, and what became of each batch.

use super::{Driver, Token, compress};
use crate::metrics::add;
use ottla_proto::producer::{Ack, Event, RecordError, Split};
use ottla_proto::{Error, Result, WriteOutcome};
use std::sync::Arc;
use std::time::Instant;

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
                Event::Moved(partition, hint) => self.shared.cluster.apply_leader(&partition, hint),
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
            Event::Acknowledged { token, ack, .. } => self.ended(&token, Ok(ack)),
            Event::Failed {
                token,
                error,
                record_errors,
                ..
            } => {
                if !record_errors.is_empty() {
                    tell_each(&token, &error, &record_errors);
                }
                self.ended(&token, Err(error));
            }
            _ => {}
        }
    }

    fn ended(&mut self, token: &Token, outcome: Result<Ack>) {
        let counters = &self.shared.counters;
        let counter = match outcome.as_ref().map_err(Error::write_outcome) {
            Ok(_) => &counters.acknowledged,
            Err(Some(WriteOutcome::NotWritten)) => &counters.not_written,
            Err(_) => &counters.unknown,
        };
        add(counter, u64::from(token.count));
        if let Err(error) = &outcome {
            tracing::debug!(records = token.count, %error, "a batch failed");
        }
        if let Some(parts) = self.unsettled.get_mut(&token.serial) {
            *parts -= 1;
            if *parts == 0 {
                self.unsettled.remove(&token.serial);
            }
        }
        token
            .completion
            .complete_part(token.first, token.count, outcome);
    }

    /// Cuts a batch that a broker found too large, and keeps the partition's next ones smaller.
    fn split(&mut self, now: Instant, split: Split<Token>) {
        let Split {
            partition,
            ordinal,
            token,
            records,
            ..
        } = split;
        let raw_bytes = records.raw_size_bytes();
        let halves = records.halves();
        let Some(place) = self.places.get_mut(partition.0 as usize) else {
            return;
        };
        place.batch_bytes_max = place.batch_bytes_max.min(raw_bytes / 2);
        place.slot.set_limit(place.batch_bytes_max);
        let account = place.slot.account();
        let halves = halves.map(|(mut first, mut second)| {
            for half in [&mut first, &mut second] {
                half.adopt(|bytes| account.adopt(bytes));
                compress(&self.shared, &account, half);
            }
            (first, second)
        });
        match halves {
            Ok((first, second)) => {
                tracing::info!(bytes = raw_bytes, "a batch was too large and is cut in two");
                if let Some(parts) = self.unsettled.get_mut(&token.serial) {
                    *parts += 1;
                }
                let behind = Token {
                    serial: token.serial,
                    completion: Arc::clone(&token.completion),
                    first: token.first + first.count(),
                    count: second.count(),
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
fn tell_each(token: &Token, error: &Error, wrong: &[RecordError]) {
    for record in wrong.iter().filter(|record| record.index < token.count) {
        let named = match &record.message {
            Some(message) => error.clone().with_message(message),
            None => error
                .clone()
                .with_message("the broker found this record wrong"),
        };
        token
            .completion
            .complete_part(token.first + record.index, 1, Err(named));
    }
}
