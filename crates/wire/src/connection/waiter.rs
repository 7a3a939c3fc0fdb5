//! Who hears of an answer: exactly once, whatever happens to the connection.

use crate::api_key::ApiKey;
use bytes::Bytes;
use ottla_proto::{Error, ErrorKind, Result, WriteOutcome};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

type Callback = Box<dyn FnOnce(Result<Bytes>) + Send>;

/// Hears of the answers to many requests.
pub type OnAnswer = Arc<dyn Fn(Asked, Result<Bytes>) + Send + Sync>;

/// The request that an answer belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The number that its sender gave it.
    pub request: u64,
    /// The version that it speaks.
    pub version: i16,
    /// When it was submitted.
    pub at: Instant,
}

enum Listener {
    Nobody,
    Channel(oneshot::Sender<Result<Bytes>>),
    Callback(Callback),
    Shared(OnAnswer, Asked),
}

/// Hears of one answer. Dropped unheard, it is told that the connection closed.
pub(super) struct Waiter {
    listener: Listener,
    api: ApiKey,
    /// The broker does not answer: whoever waits hears when the request was written.
    oneway: bool,
}

impl Waiter {
    pub(super) fn oneway(api: ApiKey, callback: Callback) -> Self {
        Self {
            listener: Listener::Callback(callback),
            api,
            oneway: true,
        }
    }

    pub(super) fn channel(api: ApiKey, sender: oneshot::Sender<Result<Bytes>>) -> Self {
        Self {
            listener: Listener::Channel(sender),
            api,
            oneway: false,
        }
    }

    pub(super) fn shared(api: ApiKey, on_answer: OnAnswer, asked: Asked) -> Self {
        Self {
            listener: Listener::Shared(on_answer, asked),
            api,
            oneway: false,
        }
    }

    /// Whether an answer is expected at all.
    pub(super) fn expects_answer(&self) -> bool {
        !self.oneway
    }

    pub(super) fn answer(mut self, body: Bytes) {
        self.tell(Ok(body));
    }

    /// Fails the request; `outcome` says whether the broker may have seen it.
    pub(super) fn fail(mut self, error: &Error, outcome: WriteOutcome) {
        let error = self.with_outcome(error.clone(), outcome);
        self.tell(Err(error));
    }

    /// Only a Produce request writes records.
    fn with_outcome(&self, error: Error, outcome: WriteOutcome) -> Error {
        match self.api {
            ApiKey::Produce => error.with_outcome(outcome),
            _ => error,
        }
    }

    fn tell(&mut self, result: Result<Bytes>) {
        match std::mem::replace(&mut self.listener, Listener::Nobody) {
            Listener::Nobody => {}
            Listener::Channel(sender) => {
                // A caller that stopped waiting does not want the answer.
                let _ = sender.send(result);
            }
            Listener::Callback(callback) => callback(result),
            Listener::Shared(on_answer, asked) => on_answer(asked, result),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if matches!(self.listener, Listener::Nobody) {
            return;
        }
        let error = Error::new(ErrorKind::Connection, "the connection was closed");
        let error = self.with_outcome(error, WriteOutcome::Unknown);
        self.tell(Err(error));
    }
}
