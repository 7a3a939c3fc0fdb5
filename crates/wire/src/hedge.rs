//! Several ways to the same end, one after another: the next begins when one fails or is slow, the
//! first success wins. A frozen broker must not hold up what any other broker could answer.

use crate::dial::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;

/// One way to the end.
pub(crate) type Attempt<'a, T, E> = BoxFuture<'a, Result<T, E>>;

/// Runs the attempts, the next one beside the others after `patience`. Failures are pushed as they
/// come, so that a caller who gives up knows them.
pub(crate) async fn hedge<T, E>(
    attempts: Vec<Attempt<'_, T, E>>,
    patience: Duration,
    failures: &mut Vec<E>,
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
            () = tokio::time::sleep(patience) => running.extend(attempts.next()),
        }
    }
    None
}
