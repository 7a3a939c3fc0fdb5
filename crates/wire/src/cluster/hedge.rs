//! Several ways to the same end, one after another: the next begins when one fails or is slow, the
//! first success wins. A frozen broker must not hold up what any other broker could answer.

use crate::dial::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ottla_proto::{Error, Result};
use std::time::Duration;

/// How long an attempt may take before the next begins beside it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the attempts; failures are pushed as they come, so that a caller who gives up knows them.
pub(super) async fn hedge<T>(
    attempts: Vec<BoxFuture<'_, Result<T>>>,
    failures: &mut Vec<Error>,
) -> Option<T> {
    let mut attempts = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    running.extend(attempts.next());
    while !running.is_empty() {
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some(Ok(value)) => return Some(value),
                Some(Err(error)) => {
                    failures.push(error);
                    running.extend(attempts.next());
                }
                None => {}
            },
            () = tokio::time::sleep(PATIENCE) => running.extend(attempts.next()),
        }
    }
    None
}
