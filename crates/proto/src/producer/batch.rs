//! A sealed batch on its way through the producer.

use super::answer::PartitionAnswer;
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
    /// Its place in the partition's order, which is that of its first record: so the parts of a
    /// batch have places of their own, however often it is cut.
    pub(super) ordinal: u128,
    /// Times that it was cut for the sake of wrong records.
    pub(super) cuts: u32,
    /// It waits to be cut for the sake of a wrong record.
    pub(super) cut_out: bool,
    /// The answer that named the records to be cut out of it.
    pub(super) wrong: Option<Box<PartitionAnswer>>,
    /// Its place among the stamped batches of its partition.
    pub(super) number: u64,
    pub(super) stamp: Option<Stamp>,
    pub(super) attempts: u32,
    /// An attempt ended without proof, and no later answer brought one.
    pub(super) maybe_written: bool,
    /// The broker refused its sequence: it is not in the log, and waits for a new epoch.
    pub(super) disproved: bool,
    /// The broker refused its sequence once behind a hole; it is asked once more before that counts
    /// as proof.
    pub(super) asked_again: bool,
    /// The same as `maybe_written`, but never taken back: what the caller is told.
    pub(super) unknown: bool,
    pub(super) last_failure: Option<Failure>,
}

/// Ordinals a batch: one for each record that it could have.
pub(super) const SPAN: u128 = 1 << u32::BITS;

/// A batch is cut no more often than this for the sake of wrong records. Each cut copies what is left
/// of the batch, and a wrong record among well ones needs two.
pub(super) const CUTS_MAX: u32 = 64;

/// Why an attempt failed, for the error message.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Code(Code),
    Connection,
    Stalled,
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
            cuts: 0,
            cut_out: false,
            wrong: None,
            number: 0,
            stamp: None,
            attempts: 0,
            maybe_written: false,
            disproved: false,
            asked_again: false,
            unknown: false,
            last_failure: None,
        }
    }

    /// Cuts off what follows its first records: both parts under the sequences they had. What may be
    /// written must never be cut.
    pub(super) fn cut(&mut self, first: (T, SealedRecords), second: (T, SealedRecords)) -> Self {
        let (token, records) = first;
        self.token = Some(token);
        self.count = records.count();
        self.records = Some(records);
        let (token, records) = second;
        let mut rest = Self::new(token, records.count(), self.deadline, Some(records));
        rest.ordinal = self.ordinal + u128::from(self.count);
        rest.cuts = self.cuts;
        if let Some(wrong) = self.wrong.take() {
            self.wrong = wrong.of_records(0..self.count);
            rest.wrong = wrong.of_records(self.count..u32::MAX);
        }
        if std::mem::take(&mut self.cut_out) {
            rest.cuts += 1;
            // Before the first wrong record all are well: a broker that finds one there after all
            // could make us cut for each record.
            self.cuts = CUTS_MAX;
        }
        rest.number = self.number + 1;
        rest.stamp = self.stamp.map(|stamp| Stamp {
            base_sequence: stamp.base_sequence.advance(self.count),
            ..stamp
        });
        rest.attempts = self.attempts;
        rest.unknown = self.unknown;
        rest.last_failure.clone_from(&self.last_failure);
        rest
    }

    /// What the driver needs to cut it, if all of that is here; otherwise nothing is taken.
    pub(super) fn take_whole(&mut self) -> Option<(T, SealedRecords)> {
        let records = self.records.take_if(|_| self.token.is_some())?;
        self.token.take().zip(Some(records))
    }

    /// Remembers what an attempt left behind.
    pub(super) fn note(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Unknown => {
                self.maybe_written = true;
                self.unknown = true;
                self.asked_again = false;
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
            Some(Failure::Stalled) => "; the last request stalled".to_owned(),
            None => String::new(),
        };
        let error = match (why, &self.last_failure) {
            (Why::Answered(answer), _) => {
                let error = Error::broker(answer.code, "produce");
                match &answer.message {
                    Some(message) => error.with_message(message),
                    None => error,
                }
            }
            (Why::Aborted(error), _) => error.clone(),
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
    Answered(&'a PartitionAnswer),
    /// Its delivery timeout passed.
    Expired,
    /// All retries are spent.
    Retries,
    /// The producer closes.
    Closed,
    /// Its transaction is aborted, for this reason.
    Aborted(&'a Error),
}

/// A batch that was sent and is unanswered.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) request: u64,
    pub(super) batch: Batch<T>,
}
