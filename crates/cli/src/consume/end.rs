//! Knowing when everything that was there is printed.

use ottla::TopicPartition;
use ottla::consumer::Consumer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Who reads committed records only never comes to the end behind an open transaction, and the end
/// of what it may read is not told: it ends when so long nothing came. Two waits of a fetch.
const QUIET: Duration = Duration::from_secs(1);

/// Where partitions end for us.
#[derive(Debug)]
pub(super) struct Ends {
    /// Whether the logs' ends count: `--exit`.
    at_log_end: bool,
    read_committed: bool,
    /// The ends as first seen, so that a topic that is written to has an end as well.
    seen: BTreeMap<TopicPartition, i64>,
    /// Partitions of which no further record is wanted.
    finished: BTreeSet<TopicPartition>,
    last_record_at: Instant,
}

impl Ends {
    pub(super) fn new(at_log_end: bool, read_committed: bool) -> Self {
        Self {
            at_log_end,
            read_committed,
            seen: BTreeMap::new(),
            finished: BTreeSet::new(),
            last_record_at: Instant::now(),
        }
    }

    /// Takes note that so many records came.
    pub(super) fn came(&mut self, count: usize) {
        if count > 0 {
            self.last_record_at = Instant::now();
        }
    }

    /// No further record of this partition is wanted. Whether that is news.
    pub(super) fn finish(&mut self, partition: TopicPartition) -> bool {
        self.finished.insert(partition)
    }

    /// Whether every partition that is read has come to its end.
    pub(super) fn reached(&mut self, consumer: &Consumer) -> bool {
        if !self.at_log_end && self.finished.is_empty() {
            return false;
        }
        let assignment = consumer.assignment();
        let quiet = self.read_committed && self.last_record_at.elapsed() >= QUIET;
        !assignment.is_empty()
            && assignment.iter().all(|partition| {
                let place = Place {
                    position: consumer.position(partition),
                    log_end: consumer.high_watermark(partition),
                };
                self.is_at_end(partition, place, quiet)
            })
    }

    fn is_at_end(&mut self, partition: &TopicPartition, place: Place, quiet: bool) -> bool {
        if self.finished.contains(partition) {
            return true;
        }
        let (true, Some(position), Some(log_end)) =
            (self.at_log_end, place.position, place.log_end)
        else {
            return false;
        };
        let end = *self.seen.entry(partition.clone()).or_insert(log_end);
        position >= end || quiet
    }
}

/// Where the consumer is in a partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: Option<i64>,
    log_end: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: i64, log_end: i64) -> Place {
        Place {
            position: Some(position),
            log_end: Some(log_end),
        }
    }

    #[test]
    fn the_end_is_the_one_that_was_seen_first() {
        let partition = TopicPartition::new("orders", 0);
        let mut ends = Ends::new(true, false);
        let unknown = Place {
            position: Some(0),
            log_end: None,
        };
        assert!(!ends.is_at_end(&partition, unknown, false));
        assert!(!ends.is_at_end(&partition, place(0, 10), false));
        assert!(!ends.is_at_end(&partition, place(9, 20), false));
        assert!(ends.is_at_end(&partition, place(10, 30), false));
    }

    #[test]
    fn an_open_transaction_does_not_keep_a_quiet_reader_for_ever() {
        let partition = TopicPartition::new("orders", 0);
        let mut ends = Ends::new(true, true);
        assert!(!ends.is_at_end(&partition, place(5, 10), false));
        assert!(ends.is_at_end(&partition, place(5, 10), true));
    }

    #[test]
    fn without_exit_only_finished_partitions_end() {
        let partition = TopicPartition::new("orders", 0);
        let mut ends = Ends::new(false, false);
        assert!(!ends.is_at_end(&partition, place(10, 10), false));
        assert!(ends.finish(partition.clone()));
        assert!(!ends.finish(partition.clone()));
        assert!(ends.is_at_end(&partition, place(3, 10), false));
    }
}
