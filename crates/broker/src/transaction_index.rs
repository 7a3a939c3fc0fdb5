//! What a log knows of transactions: which are open, and which were aborted.

use std::collections::BTreeMap;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Where its marker is.
    pub(crate) last_offset: i64,
}

/// The transactions of one log.
#[derive(Debug, Default)]
pub(crate) struct TransactionIndex {
    /// Where each producer's open transaction begins.
    open: BTreeMap<i64, i64>,
    /// First offset and marker of those that ended with a marker that followers may not have.
    unreplicated: Vec<(i64, i64)>,
    /// By marker.
    aborted: Vec<Aborted>,
}

impl TransactionIndex {
    /// A producer wrote in a transaction.
    pub(crate) fn write(&mut self, producer_id: i64, offset: i64) {
        self.open.entry(producer_id).or_insert(offset);
    }

    /// A marker ended a producer's transaction. One without records leaves no trace.
    pub(crate) fn end(&mut self, producer_id: i64, offset: i64, aborted: bool) {
        let Some(first_offset) = self.open.remove(&producer_id) else {
            return;
        };
        self.unreplicated.push((first_offset, offset));
        if aborted {
            self.aborted.push(Aborted {
                producer_id,
                first_offset,
                last_offset: offset,
            });
        }
    }

    /// Whether a producer has an open transaction here.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.open.contains_key(&producer_id)
    }

    /// Up to where every transaction is decided, and the decision replicated.
    pub(crate) fn last_stable(&self, high_watermark: i64) -> i64 {
        let ended = self.unreplicated.iter();
        let ended = ended.filter(|(_, last)| *last >= high_watermark);
        let undecided = self.open.values().chain(ended.map(|(first, _)| first));
        undecided.copied().fold(high_watermark, i64::min)
    }

    /// Forgets what matters only above the high watermark.
    pub(crate) fn replicated(&mut self, high_watermark: i64) {
        self.unreplicated
            .retain(|(_, last)| *last >= high_watermark);
    }

    /// The aborted transactions that have offsets from `from` to before `end`, in the order of
    /// their markers, as Kafka's index has them.
    pub(crate) fn aborted_between(&self, from: i64, end: i64) -> Vec<Aborted> {
        let first = self.aborted.partition_point(|a| a.last_offset < from);
        let later = self.aborted.iter().skip(first);
        later.filter(|a| a.first_offset < end).copied().collect()
    }

    /// Forgets what lies before the log's start.
    pub(crate) fn drop_before(&mut self, start: i64) {
        let gone = self.aborted.partition_point(|a| a.last_offset < start);
        self.aborted.drain(..gone);
        self.unreplicated.retain(|(_, last)| *last >= start);
    }

    /// Forgets every marker from `end` on, and all that is open: the caller replays the log by
    /// [`TransactionIndex::write`] and [`TransactionIndex::close`].
    pub(crate) fn cut(&mut self, end: i64) {
        self.open.clear();
        self.unreplicated.retain(|(_, last)| *last < end);
        self.aborted.retain(|a| a.last_offset < end);
    }

    /// A marker is met again in a replay.
    pub(crate) fn close(&mut self, producer_id: i64) {
        self.open.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stable_ends_before_the_oldest_undecided_transaction() {
        let mut index = TransactionIndex::default();
        assert_eq!(index.last_stable(10), 10);
        index.write(1, 3);
        index.write(2, 5);
        index.write(1, 7);
        assert_eq!(index.last_stable(10), 3);
        assert_eq!(index.last_stable(2), 2, "never above the high watermark");
        index.end(1, 9, false);
        assert_eq!(index.last_stable(10), 5);
        index.end(2, 10, true);
        assert_eq!(index.last_stable(10), 5, "the marker is not replicated");
        index.replicated(10);
        assert_eq!(index.last_stable(11), 11);
    }

    #[test]
    fn aborted_transactions_are_told_where_they_overlap_and_in_the_order_of_their_markers() {
        let mut index = TransactionIndex::default();
        index.write(1, 0);
        index.write(2, 1);
        index.write(3, 2);
        index.end(2, 3, true);
        index.end(3, 4, false);
        index.end(1, 5, true);
        index.end(4, 6, true);
        let ids = |from, end| -> Vec<i64> {
            let aborted = index.aborted_between(from, end);
            aborted.iter().map(|a| a.producer_id).collect()
        };
        assert_eq!(ids(0, 7), [2, 1], "an empty transaction is not told");
        assert_eq!(ids(0, 1), [1]);
        assert_eq!(ids(4, 7), [1]);
        assert_eq!(ids(6, 7), [0; 0]);
        index.drop_before(4);
        assert_eq!(index.aborted.len(), 1);
    }
}
