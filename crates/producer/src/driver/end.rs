//! How a producer ends.

use super::{Driver, Token, closed};
use crate::inbox::Message;
use ottla_proto::{Error, ErrorKind, WriteOutcome};
use ottla_wire::Class;
use std::sync::atomic::Ordering;

impl Drop for Driver {
    /// However the task ends, also with its runtime: nobody is left waiting.
    fn drop(&mut self) {
        let ended = self.has_ended();
        self.shared.closed.store(true, Ordering::Release);
        self.shared.shop.pool.close();
        for topic in self.topics.keys() {
            self.shared.cluster.unwatch_topic(topic);
        }
        for class in [Class::Produce(self.lane), Class::ProduceApart(self.lane)] {
            self.shared.cluster.release(class);
        }
        // Nobody is left to carry them.
        self.dead_letters = None;
        self.compressing.clear();
        let unheard = self.take_unheard();
        let records = self.shared.counters.pending();
        if records > 0 {
            // Most likely nobody called close, and the runtime ended with the program.
            tracing::warn!(
                records,
                "a producer ended before its records did: those that were not sent are lost"
            );
        }
        for token in unheard {
            self.end_unsent(&token);
        }
        self.end_resting();
        self.core.fail_all();
        while let Some(event) = self.core.poll_event() {
            self.tell(event);
        }
        self.unsettled.clear();
        self.end_flushes();
        self.shared.counters.buffer(0);
        if let Some(told) = self.closing.take() {
            // A caller that has left does not mind.
            let _ = told.send(if ended { Ok(()) } else { Err(gave_up()) });
        }
    }
}

impl Driver {
    /// The batches that the core has never heard of.
    fn take_unheard(&self) -> Vec<Token> {
        let now = self.shared.now();
        let mut unheard = Vec::new();
        for place in &self.places {
            if let Some(parcel) = place.slot.close() {
                unheard.push(self.token(now, place.slot.index(), &parcel));
            }
        }
        // The slots are closed: what is in the inbox now is the last of it.
        for message in self.shared.shop.inbox.close() {
            if let Message::Sealed { partition, parcel } = message {
                unheard.push(self.token(now, partition, &parcel));
            }
        }
        unheard
    }

    /// Tells of a batch that nobody is left to send.
    pub(super) fn end_unsent(&self, token: &Token) {
        let error = closed();
        self.report_failure(token, &error);
        let completion = &token.completion;
        completion.complete_part(token.first, token.count, Err(error));
    }
}

/// What a close hears that did not wait for everything.
fn gave_up() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the producer ended before its records and its transaction did",
    )
    .with_outcome(WriteOutcome::Unknown)
}
