//! What any broker can answer or do: a broker that is gone must not be the end of it while others
//! live.

use super::{Class, Inner, PATIENCE, closed, no_brokers, pool};
use crate::connection::Connection;
use crate::dial::BoxFuture;
use crate::hedge::{Attempt, hedge};
use ottla_proto::{Code, Error, ErrorKind, Result};
use std::sync::Arc;
use tokio::time::Instant;

/// What is asked of a broker. It owns its request, so that another broker can be asked the same.
pub(super) type Call<'c, T> =
    &'c (dyn Fn(Connection) -> BoxFuture<'static, Result<T>> + Send + Sync);

/// How one round over the brokers ended.
type Round<T> = Result<T, Option<Error>>;

/// Asks one broker after another, the next one beside the others when one is slow, until one
/// answers.
pub(super) async fn ask<T: Send>(inner: &Arc<Inner>, call: Call<'_, T>) -> Result<T> {
    let mut rounds = Rounds::new(inner);
    loop {
        let round = rounds.within(ask_each(inner, call)).await;
        if let Some(ended) = rounds.end(round).await {
            return ended;
        }
    }
}

/// Has a change made by one broker after another, never by two at a time. The flag says that an
/// earlier attempt was lost after it was sent, so that the change may have been made by it.
pub(super) async fn change<T: Send>(inner: &Arc<Inner>, call: Call<'_, T>) -> Result<(T, bool)> {
    let mut rounds = Rounds::new(inner);
    let mut doubt = false;
    loop {
        let round = rounds.within(change_by_each(inner, call, &mut doubt)).await;
        if let Some(ended) = rounds.end(round).await {
            return ended.map(|answer| (answer, doubt));
        }
    }
}

async fn ask_each<T: Send>(inner: &Arc<Inner>, call: Call<'_, T>) -> Round<T> {
    let mut attempts: Vec<Attempt<'_, T, Error>> = Vec::new();
    for broker in inner.brokers_soonest_first() {
        attempts.push(Box::pin(async move {
            let connection = pool::connection(inner, broker, Class::Control).await?;
            call(connection).await
        }));
    }
    let mut failures = Vec::new();
    let answer = hedge(attempts, PATIENCE, &mut failures).await;
    answer.ok_or_else(|| failures.pop())
}

/// The controller first, since brokers before 2.8 do not forward.
async fn change_by_each<T>(inner: &Arc<Inner>, call: Call<'_, T>, doubt: &mut bool) -> Round<T> {
    let mut brokers = inner.brokers_soonest_first();
    let controller = inner.view.load().controller;
    brokers.sort_by_key(|broker| Some(*broker) != controller);
    let mut last = None;
    for broker in brokers {
        let error = match pool::connection(inner, broker, Class::Control).await {
            Ok(connection) => match call(connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) if is_passed_back(&error) => {
                    inner.mark_stale(inner.view.load().generation);
                    error
                }
                Err(error) if !is_lost(&error) => return Err(Some(error)),
                Err(error) => {
                    *doubt = true;
                    error
                }
            },
            Err(error) => error,
        };
        last = Some(error);
    }
    Err(last)
}

/// Rounds over the brokers, with a wait in between, until one answers, one gives an error that is no
/// broken connection, or `api_timeout` has passed.
struct Rounds<'i> {
    inner: &'i Inner,
    deadline: Instant,
    attempt: u32,
    why: Option<Error>,
}

impl<'i> Rounds<'i> {
    fn new(inner: &'i Inner) -> Self {
        Self {
            inner,
            deadline: Instant::now() + inner.settings.api_timeout,
            attempt: 0,
            why: None,
        }
    }

    async fn within<T>(&self, round: impl Future<Output = Round<T>>) -> Round<T> {
        tokio::select! {
            biased;
            () = self.inner.stopped() => Err(Some(closed())),
            ended = tokio::time::timeout_at(self.deadline, round) => ended.unwrap_or(Err(None)),
        }
    }

    /// What to return, or `None` after the wait before the next round.
    async fn end<T>(&mut self, round: Round<T>) -> Option<Result<T>> {
        match round {
            Ok(answer) => return Some(Ok(answer)),
            // A round cut short by the deadline knows less than the one before.
            Err(error) => self.why = error.or(self.why.take()),
        }
        let wait = self.inner.retry_wait(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        let passing = |error: &Error| is_lost(error) || is_passed_back(error);
        let hopeless = self.why.as_ref().is_some_and(|error| !passing(error));
        if hopeless || Instant::now() + wait >= self.deadline {
            return Some(Err(self.why.take().unwrap_or_else(no_brokers)));
        }
        tokio::time::sleep(wait).await;
        None
    }
}

/// Whether the broker or the connection failed, rather than the request.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout)
}

/// Whether the broker did nothing because it is not the controller (before 2.8): another one is, or
/// will be soon.
fn is_passed_back(error: &Error) -> bool {
    error.code() == Some(Code::NOT_CONTROLLER)
}
