//! A sealed batch on its way through the producer.

use super::identity::Stamp;
use super::verdict::Attempt;
use crate::batch::SealedRecords;
use crate::code::Code;
use crate::error::{Error, ErrorKind, WriteOutcome};
use crate::topic::TopicPartition;
use std::time::Instant;

/// A batch that takes no more records.
#[derive(Debug)]
pub struct Batch<T> {
    /// What the driver wants back with the outcome; gone once it was given back.
    pub(super) token: Option<T>,
    /// The records; `None` while they are being compressed.
    pub records: Option<SealedRecords>,
    /// How many records.
    pub count: u32,
    /// When the caller stops waiting (`delivery.timeout.ms` after the first record).
    pub deadline: Instant,
    pub(super) ordinal: u64,
    /// Its place among the stamped batches of its partition.
    pub(super) number: u64,
    pub(super) stamp: Option<Stamp>,
    pub(super) attempts: u32,
    /// An attempt ended without proof, and no later answer brought one.
    pub(super) maybe_written: bool,
    /// The same, but never taken back: what the caller is told.
    pub(super) unknown: bool,
    pub(super) last_failure: Option<Failure>,
}

/// Why an attempt failed, for the error message.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Code(Code),
    Connection,
}

impl<T> Batch<T> {
    /// Wraps sealed records. `records` may follow later, see [`super::Sender::provide`].
    pub fn new(token: T, count: u32, deadline: Instant, records: Option<SealedRecords>) -> Self {
        Self {
            token: Some(token),
            records,
            count,
            deadline,
            ordinal: 0,
            number: 0,
            stamp: None,
            attempts: 0,
            maybe_written: false,
            unknown: false,
            last_failure: None,
        }
    }

    /// Remembers what an attempt left behind.
    pub(super) fn note(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Unknown => {
                self.maybe_written = true;
                self.unknown = true;
            }
            Attempt::Refused => {}
        }
    }

    /// Its caller was told already; only the sequence still hangs on the answer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.token.is_none()
    }

    /// The error that ends the batch.
    pub(super) fn failure(&self, name: &TopicPartition, why: Why<'_>) -> Error {
        let attempts = self.attempts;
        let last = match &self.last_failure {
            Some(Failure::Code(code)) => format!("; the last answer was {code}"),
            Some(Failure::Connection) => "; the last connection was lost".to_owned(),
            None => String::new(),
        };
        let error = match (why, &self.last_failure) {
            (Why::Answered(message), Some(Failure::Code(code))) => {
                let error = Error::broker(*code, "produce");
                message.map_or(error.clone(), |m| error.with_message(m))
            }
            (Why::Closed, _) => Error::new(
                ErrorKind::Closed,
                format!("the producer was closed before the batch was acknowledged{last}"),
            ),
            (Why::Retries, _) => Error::new(
                ErrorKind::Timeout,
                format!("gave up after {attempts} attempts{last}"),
            ),
            _ => Error::new(
                ErrorKind::Timeout,
                format!("delivery timed out after {attempts} attempts{last}"),
            ),
        };
        error
            .at_partition(name.clone())
            .with_outcome(self.outcome())
    }

    /// Whether the records may be in the log, over all attempts.
    pub(super) fn outcome(&self) -> WriteOutcome {
        if self.unknown {
            WriteOutcome::Unknown
        } else {
            WriteOutcome::NotWritten
        }
    }
}

/// Why a batch ends without acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why<'a> {
    /// A broker refused it, perhaps with a word of explanation.
    Answered(Option<&'a str>),
    /// Its delivery timeout passed.
    Expired,
    /// All retries are spent.
    Retries,
    /// The producer closes.
    Closed,
}

/// A batch that was sent and is unanswered.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) request: u64,
    pub(super) batch: Batch<T>,
}
