//! The one public error: a pointer wide, with the place it happened and what to do next.

use crate::code::Code;
use crate::topic::{BrokerId, TopicPartition};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong; the message names it.
    Config,
    /// No broker could be reached, or a connection broke.
    Connection,
    /// The peer does not speak Kafka, or spoke it wrongly.
    Protocol,
    /// A broker speaks no version of an API that we can use.
    UnsupportedVersion,
    /// A deadline passed.
    Timeout,
    /// A broker answered with this code.
    Broker(Code),
    /// The topic or partition does not exist, as far as the cluster tells.
    UnknownTopicOrPartition,
    /// A record is larger than the configuration or the topic allows.
    RecordTooLarge,
    /// The producer's buffer is full.
    BufferFull,
    /// A batch failed its checksum or is malformed.
    Corrupt,
    /// Another instance took over this producer's or member's identity.
    Fenced,
    /// The client, producer or consumer is closed.
    Closed,
    /// The caller used the API in a way its state forbids.
    State,
}

/// Whether a failed record may be in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It is certainly not in the log: sending it again cannot make a duplicate.
    NotWritten,
    /// It may or may not be in the log.
    Unknown,
}

/// What an error asks for beyond another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Abort the transaction, then begin it again.
    Abort,
    /// Build a new producer: this one is of no further use.
    Rebuild,
}

/// Where something went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The partition concerned.
    pub partition: Option<TopicPartition>,
    /// The broker concerned.
    pub broker: Option<BrokerId>,
}

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    place: Place,
    outcome: Option<WriteOutcome>,
    remedy: Option<Remedy>,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

/// Any failure of this client. The size of a pointer; clones are cheap.
#[derive(Debug, Clone)]
pub struct Error(Arc<Inner>);

impl Error {
    /// Makes an error; `message` is one lower-case clause that names the thing at fault.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            place: Place::default(),
            outcome: None,
            remedy: None,
            source: None,
        }))
    }

    /// An error code that a broker answered to an API call.
    pub fn broker(code: Code, api: &str) -> Self {
        let kind = match code {
            Code::UNKNOWN_TOPIC_OR_PARTITION | Code::UNKNOWN_TOPIC_ID => {
                ErrorKind::UnknownTopicOrPartition
            }
            Code::PRODUCER_FENCED | Code::FENCED_INSTANCE_ID => ErrorKind::Fenced,
            Code::UNSUPPORTED_VERSION => ErrorKind::UnsupportedVersion,
            Code::MESSAGE_TOO_LARGE => ErrorKind::RecordTooLarge,
            code => ErrorKind::Broker(code),
        };
        Self::new(kind, format!("{api} was answered with {code}"))
    }

    /// Adds the broker concerned.
    #[must_use]
    pub fn at_broker(mut self, broker: BrokerId) -> Self {
        Arc::make_mut(&mut self.0).place.broker = Some(broker);
        self
    }

    /// Adds the partition concerned.
    #[must_use]
    pub fn at_partition(mut self, partition: TopicPartition) -> Self {
        Arc::make_mut(&mut self.0).place.partition = Some(partition);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// Says whether the record concerned may have been written.
    #[must_use]
    pub fn with_outcome(mut self, outcome: WriteOutcome) -> Self {
        Arc::make_mut(&mut self.0).outcome = Some(outcome);
        self
    }

    /// Says what is to be done.
    #[must_use]
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        Arc::make_mut(&mut self.0).remedy = Some(remedy);
        self
    }

    /// Adds what the broker itself had to say.
    #[must_use]
    pub fn with_message(mut self, words: &str) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{} ({words})", inner.message);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where it went wrong.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The broker's code, if a broker answered one.
    pub fn code(&self) -> Option<Code> {
        match self.0.kind {
            ErrorKind::Broker(code) => Some(code),
            ErrorKind::UnknownTopicOrPartition => Some(Code::UNKNOWN_TOPIC_OR_PARTITION),
            ErrorKind::RecordTooLarge => Some(Code::MESSAGE_TOO_LARGE),
            _ => None,
        }
    }

    /// Whether the record concerned may have been written; `None` when no record is concerned.
    pub fn write_outcome(&self) -> Option<WriteOutcome> {
        self.0.outcome
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        if self.0.remedy.is_some() {
            return false;
        }
        match &self.0.kind {
            ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::BufferFull => true,
            ErrorKind::Broker(code) => code.is_retriable(),
            _ => false,
        }
    }

    /// Whether the object that gave this error is of no further use.
    pub fn is_fatal(&self) -> bool {
        let final_kind = matches!(self.0.kind, ErrorKind::Fenced | ErrorKind::Closed);
        final_kind || self.0.remedy == Some(Remedy::Rebuild)
    }

    /// Whether the open transaction can only be aborted. After that the same producer may begin
    /// another one.
    pub fn requires_abort(&self) -> bool {
        self.0.remedy == Some(Remedy::Abort) && !self.is_fatal()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(broker) = self.0.place.broker {
            write!(f, "broker {broker}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(partition) = &self.0.place.partition {
            write!(f, " for {partition}")?;
        }
        match self.0.outcome {
            Some(WriteOutcome::NotWritten) => f.write_str(" (not written)"),
            Some(WriteOutcome::Unknown) => f.write_str(" (may have been written)"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_says_what_to_do_and_that_trying_again_is_not_it() {
        let error = Error::broker(Code::COORDINATOR_NOT_AVAILABLE, "EndTxn");
        assert!(error.is_retriable() && !error.requires_abort() && !error.is_fatal());
        let abort = error.clone().with_remedy(Remedy::Abort);
        assert!(abort.requires_abort() && !abort.is_fatal() && !abort.is_retriable());
        let rebuild = error.with_remedy(Remedy::Rebuild);
        assert!(rebuild.is_fatal() && !rebuild.requires_abort() && !rebuild.is_retriable());
        let fenced = Error::new(ErrorKind::Fenced, "taken over").with_remedy(Remedy::Abort);
        assert!(fenced.is_fatal() && !fenced.requires_abort());
    }
}
