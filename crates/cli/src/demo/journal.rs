//! What became of each record of one side.

use super::scene::{PARTITIONS, SLOW};
use crate::histogram::Histogram;
use ottla::Error;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shares are those of records that were due so lately.
const SHARE_WINDOW: Duration = Duration::from_secs(2);

/// Takes note of every record. Times are counted from the beginning of the load.
#[derive(Debug)]
pub(super) struct Journal {
    /// Records that are due before do not count: they are load, and lag, and nothing else.
    counts_from: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    partitions: [Partition; PARTITIONS],
    /// End-to-end times of consumed records.
    times: Histogram,
    sent: u64,
    sent_to_slow: u64,
    consumed: u64,
    biggest_lag: u64,
    /// Due time and partition of what was sent lately.
    recent: VecDeque<(Duration, usize)>,
    fault: Option<Error>,
}

#[derive(Debug, Default)]
struct Partition {
    /// Number and due time of records that were sent and not consumed, oldest first.
    unread: VecDeque<(u64, Duration)>,
    /// The highest number consumed, plus one.
    consumed_below: u64,
}

/// A side at one moment.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) sent: u64,
    pub(super) consumed: u64,
    pub(super) unread: u64,
    /// Unread records by partition, those that do not count too.
    pub(super) lags: [u64; PARTITIONS],
    /// The share of each partition in what was sent lately.
    pub(super) shares: [f64; PARTITIONS],
    /// The share of the slow consumer's partition in everything that was sent.
    pub(super) slow_share: f64,
    /// The most unread records that a partition ever had.
    pub(super) biggest_lag: u64,
    /// End-to-end times; records still unread count with their age.
    pub(super) times: Histogram,
}

impl Figures {
    pub(super) fn p50(&self) -> Duration {
        self.times.quantile(0.5)
    }

    pub(super) fn p99(&self) -> Duration {
        self.times.quantile(0.99)
    }
}

impl Journal {
    pub(super) fn new(counts_from: Duration) -> Self {
        Self {
            counts_from,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Record `number` was due at `due`, and went to `partition`. Numbers grow.
    pub(super) fn sent(&self, number: u64, due: Duration, partition: usize) {
        let mut state = self.state();
        let state = &mut *state;
        if due >= self.counts_from {
            state.sent += 1;
            state.sent_to_slow += u64::from(partition == SLOW);
        }
        state.recent.push_back((due, partition));
        let oldest = due.saturating_sub(SHARE_WINDOW);
        while state.recent.front().is_some_and(|(due, _)| *due < oldest) {
            state.recent.pop_front();
        }
        let Some(partition) = state.partitions.get_mut(partition) else {
            return;
        };
        // A busy machine may have consumed it before we came to say that it was sent.
        if number >= partition.consumed_below {
            partition.unread.push_back((number, due));
            state.biggest_lag = state.biggest_lag.max(partition.unread.len() as u64);
        }
    }

    /// A consumer was done at `at` with record `number`, which had been due at `due`.
    pub(super) fn consumed(&self, number: u64, due: Duration, partition: usize, at: Duration) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(partition) = state.partitions.get_mut(partition) else {
            return;
        };
        if number < partition.consumed_below {
            // Read a second time after a rebalance.
            return;
        }
        partition.consumed_below = number + 1;
        let is_read = |(unread, _): &(u64, Duration)| *unread <= number;
        while partition.unread.front().is_some_and(is_read) {
            partition.unread.pop_front();
        }
        if due >= self.counts_from {
            state.consumed += 1;
            state.times.record(at.saturating_sub(due));
        }
    }

    /// Something broke; the first thing counts.
    pub(super) fn fail(&self, error: Error) {
        self.state().fault.get_or_insert(error);
    }

    /// What broke, if anything.
    pub(super) fn fault(&self) -> Option<Error> {
        self.state().fault.clone()
    }

    /// The side at `at`. What was consumed after it counts as consumed all the same.
    pub(super) fn figures(&self, at: Duration) -> Figures {
        let state = self.state();
        let mut times = state.times.clone();
        let unread = state.partitions.iter().flat_map(|p| &p.unread);
        for (_, due) in unread.filter(|(_, due)| *due >= self.counts_from) {
            times.record(at.saturating_sub(*due));
        }
        let mut shares = [0.0; PARTITIONS];
        let each = 1.0 / state.recent.len().max(1) as f64;
        for (_, partition) in &state.recent {
            if let Some(share) = shares.get_mut(*partition) {
                *share += each;
            }
        }
        Figures {
            sent: state.sent,
            consumed: state.consumed,
            unread: times.count().saturating_sub(state.consumed),
            lags: state.partitions.each_ref().map(|p| p.unread.len() as u64),
            shares,
            slow_share: state.sent_to_slow as f64 / state.sent.max(1) as f64,
            biggest_lag: state.biggest_lag,
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn unread_records_count_with_their_age() {
        let journal = Journal::new(Duration::ZERO);
        journal.sent(0, millis(0), 0);
        journal.sent(1, millis(10), 1);
        journal.consumed(0, millis(0), 0, millis(5));
        let figures = journal.figures(millis(1010));
        assert_eq!((figures.sent, figures.consumed, figures.unread), (2, 1, 1));
        assert_eq!(figures.times.count(), 2);
        assert_eq!(figures.times.max(), millis(1000));
        assert_eq!(figures.lags[1], 1);
    }

    #[test]
    fn a_record_counts_once_whoever_comes_first_and_however_often_it_is_read() {
        let journal = Journal::new(Duration::ZERO);
        journal.consumed(7, millis(1), 2, millis(3));
        journal.sent(7, millis(1), 2);
        journal.consumed(7, millis(1), 2, millis(9));
        let figures = journal.figures(millis(20));
        assert_eq!((figures.sent, figures.consumed, figures.unread), (1, 1, 0));
        assert_eq!(figures.times.count(), 1);
        assert_eq!(figures.times.max(), millis(2));
    }

    #[test]
    fn the_warm_up_is_lag_and_counts_for_nothing_else() {
        let journal = Journal::new(millis(100));
        journal.sent(0, millis(99), SLOW);
        journal.sent(1, millis(99), SLOW);
        journal.sent(2, millis(100), SLOW);
        journal.consumed(0, millis(99), SLOW, millis(300));
        let figures = journal.figures(millis(400));
        assert_eq!((figures.sent, figures.consumed, figures.unread), (1, 0, 1));
        assert_eq!(figures.times.max(), millis(300));
        assert_eq!(figures.lags[SLOW], 2);
        assert_eq!(figures.slow_share, 1.0);
    }

    #[test]
    fn shares_are_those_of_the_last_seconds() {
        let journal = Journal::new(Duration::ZERO);
        for number in 0..10 {
            journal.sent(number, millis(number), SLOW);
        }
        for number in 10..14 {
            journal.sent(number, millis(5_000 + number), 1);
        }
        let figures = journal.figures(millis(5_100));
        assert_eq!(figures.shares[1], 1.0);
        assert_eq!(figures.shares[SLOW], 0.0);
        assert!((figures.slow_share - 10.0 / 14.0).abs() < 1e-9);
        assert_eq!(figures.biggest_lag, 10);
    }
}
