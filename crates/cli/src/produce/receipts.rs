//! What became of the records, and how long it took.

use crate::histogram::Histogram;
use ottla::{Delivery, Error};
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Deliveries that are handed over together, so that a record costs no message.
const TOGETHER: usize = 256;
/// Groups of deliveries that may wait: half a million records. Records that are taken faster than
/// brokers acknowledge them fill it, unless the producer's buffer is full before; then reading
/// waits.
const WAITING_MAX: usize = 2_000;

/// Records that were enqueued at about the same time.
struct Group {
    began: Instant,
    deliveries: Vec<Delivery>,
}

/// Gathers deliveries, and awaits them elsewhere.
pub(super) struct Receipts {
    group: Group,
    sender: mpsc::Sender<Group>,
    counter: JoinHandle<Outcome>,
}

/// What became of all records.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) acknowledged: u64,
    pub(super) failed: u64,
    pub(super) first_error: Option<Error>,
    latency: Histogram,
}

impl Receipts {
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            group: Group::new(),
            sender,
            counter: tokio::spawn(count(receiver)),
        }
    }

    /// Takes a delivery. Whether it is time to [`hand_over`](Self::hand_over).
    pub(super) fn push(&mut self, delivery: Delivery) -> bool {
        if self.group.deliveries.is_empty() {
            self.group.began = Instant::now();
        }
        self.group.deliveries.push(delivery);
        self.group.deliveries.len() >= TOGETHER
    }

    /// Hands over what was gathered, waiting while too much is unacknowledged.
    ///
    /// Cancel safety: deliveries that were not handed over stay here.
    pub(super) async fn hand_over(&mut self) {
        if self.group.deliveries.is_empty() {
            return;
        }
        // The counter ends only after the last sender.
        if let Ok(place) = self.sender.reserve().await {
            place.send(std::mem::replace(&mut self.group, Group::new()));
        }
    }

    /// Waits for every delivery.
    pub(super) async fn finish(mut self) -> Outcome {
        self.hand_over().await;
        drop(self.sender);
        self.counter.await.unwrap_or_default()
    }
}

impl Group {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            deliveries: Vec::with_capacity(TOGETHER),
        }
    }
}

async fn count(mut groups: mpsc::Receiver<Group>) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(group) = groups.recv().await {
        let mut now = Instant::now();
        for delivery in group.deliveries {
            let result = match delivery.outcome() {
                Some(result) => result,
                None => {
                    let result = delivery.await;
                    now = Instant::now();
                    result
                }
            };
            match result {
                Ok(_) => {
                    outcome.acknowledged += 1;
                    outcome.latency.record(now - group.began);
                }
                Err(error) => outcome.fail(error),
            }
        }
    }
    outcome
}

impl Outcome {
    /// Counts a record that failed.
    pub(super) fn fail(&mut self, error: Error) {
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }

    /// Adds records that failed elsewhere, before these.
    pub(super) fn add_failures(&mut self, count: u64, first: Option<Error>) {
        self.failed += count;
        self.first_error = first.or(self.first_error.take());
    }

    /// The line that Kafka's own performance tool prints.
    pub(super) fn summary(&self, bytes: u64, took: Duration) -> Summary<'_> {
        Summary {
            outcome: self,
            bytes,
            took,
        }
    }
}

/// The line that Kafka's own performance tool prints.
pub(super) struct Summary<'a> {
    outcome: &'a Outcome,
    bytes: u64,
    took: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            acknowledged,
            latency,
            ..
        } = self.outcome;
        let seconds = self.took.as_secs_f64().max(1e-6);
        let records = *acknowledged as f64 / seconds;
        let megabytes = self.bytes as f64 / f64::from(1 << 20) / seconds;
        write!(
            f,
            "{acknowledged} records sent, {records:.1} records/sec ({megabytes:.2} MB/sec)"
        )?;
        if latency.count() == 0 {
            return Ok(());
        }
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (mean, max) = (millis(latency.mean()), millis(latency.max()));
        write!(f, ", {mean:.2} ms avg latency, {max:.2} ms max latency")?;
        for (share, name) in [
            (0.5, "50th"),
            (0.95, "95th"),
            (0.99, "99th"),
            (0.999, "99.9th"),
        ] {
            write!(f, ", {:.0} ms {name}", millis(latency.quantile(share)))?;
        }
        f.write_str(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla::ErrorKind;

    #[test]
    fn the_summary_reads_like_kafkas_own() {
        let mut outcome = Outcome::default();
        for millis in 1..=1000 {
            outcome.acknowledged += 1;
            outcome.latency.record(Duration::from_millis(millis));
        }
        let line = outcome.summary(1 << 20, Duration::from_secs(2)).to_string();
        let expected = "1000 records sent, 500.0 records/sec (0.50 MB/sec), 500.50 ms avg latency, \
                        1000.00 ms max latency, 502 ms 50th, ";
        assert!(line.starts_with(expected), "{line}");
        assert!(line.ends_with(" ms 99.9th."), "{line}");
    }

    #[test]
    fn nothing_sent_has_no_latency() {
        let line = Outcome::default().summary(0, Duration::ZERO).to_string();
        assert_eq!(line, "0 records sent, 0.0 records/sec (0.00 MB/sec)");
    }

    #[test]
    fn the_first_error_is_the_one_that_came_first() {
        let error = |text: &str| Error::new(ErrorKind::Timeout, text);
        let mut outcome = Outcome::default();
        outcome.fail(error("second"));
        outcome.fail(error("third"));
        outcome.add_failures(1, Some(error("first")));
        assert_eq!(outcome.failed, 3);
        assert_eq!(outcome.first_error.unwrap().to_string(), "first");
    }
}
