//! A limit on records a second.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How far ahead of time a record may go: timers are not finer than a millisecond.
const SLACK: Duration = Duration::from_millis(2);

/// Lets records through at a steady rate. Time that was lost is not made up for by a rush of more
/// than a second's records.
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    due: Instant,
}

impl Pace {
    pub(super) fn new(rate: f64, now: Instant) -> Self {
        Self {
            each: Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX),
            due: now,
        }
    }

    /// Waits until the next record may go.
    pub(super) async fn wait(&mut self) {
        if let Some(until) = self.take(Instant::now()) {
            sleep_until(until).await;
        }
    }

    /// Until when to wait, if at all.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let due = self.due.max(earliest);
        self.due = due.checked_add(self.each).unwrap_or(due);
        (due > now + SLACK).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_go_at_the_rate_that_was_asked_for() {
        let began = Instant::now();
        let mut pace = Pace::new(500.0, began);
        for _ in 0..=1000 {
            pace.wait().await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((1.99..2.01).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_up_for_by_at_most_a_second() {
        let mut pace = Pace::new(100.0, Instant::now());
        pace.wait().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let now = Instant::now();
        let rush = (0..1000).take_while(|_| pace.take(now).is_none()).count();
        assert!((100..=102).contains(&rush), "{rush} at once");
    }
}
