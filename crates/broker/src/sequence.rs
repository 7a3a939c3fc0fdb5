//! What a partition remembers of its idempotent producers, and what follows for the next batch.
//! The rules are those of Kafka's `ProducerStateManager`.

use crate::settings::FirstSequence;
use ottla_proto::Code;
use std::collections::{BTreeMap, VecDeque};

/// How many batches a partition remembers of each producer.
const REMEMBERED_BATCHES: usize = 5;

/// How many producers a partition remembers; beyond it the one that wrote longest ago is forgotten.
/// Kafka forgets by time (`producer.id.expiration.ms`), this broker by number.
const PRODUCERS_MAX: usize = 10_000;

/// The identity and the sequence range of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

impl Stamp {
    /// The stamp of a batch; `None` for a batch without a producer id.
    pub(crate) fn new(producer_id: i64, epoch: i16, first: i32, count: i32) -> Option<Self> {
        (producer_id >= 0).then(|| Self {
            producer_id,
            epoch,
            first,
            last: add(first, count.saturating_sub(1).max(0)),
        })
    }
}

/// Sequences wrap from the largest i32 to 0.
fn add(sequence: i32, increment: i32) -> i32 {
    sequence
        .checked_add(increment)
        .unwrap_or_else(|| increment - (i32::MAX - sequence) - 1)
}

/// A batch that a partition remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) first: i32,
    pub(crate) last: i32,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// The time the broker appended it; -1 where records keep their own time.
    pub(crate) append_time: i64,
}

#[derive(Debug, Clone)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Remembered>,
    last_offset: i64,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is new: append it.
    Append,
    /// It is one of the last five: answer where that one is.
    Duplicate(Remembered),
}

/// The producers of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

impl Producers {
    /// Says what is to be done with a batch. `untouched` is whether the partition was never
    /// written to.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` for an older epoch, `OUT_OF_ORDER_SEQUENCE_NUMBER` for a sequence
    /// that does not follow the last one.
    pub(crate) fn check(
        &self,
        stamp: Stamp,
        rule: FirstSequence,
        untouched: bool,
    ) -> Result<Check, Code> {
        let Some(producer) = self.by_id.get(&stamp.producer_id) else {
            if rule == FirstSequence::Zero && untouched && stamp.first != 0 {
                return Err(Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
            return Ok(Check::Append);
        };
        if stamp.epoch < producer.epoch {
            return Err(Code::INVALID_PRODUCER_EPOCH);
        }
        if stamp.epoch > producer.epoch {
            return match stamp.first {
                0 => Ok(Check::Append),
                _ => Err(Code::OUT_OF_ORDER_SEQUENCE_NUMBER),
            };
        }
        let same = |known: &&Remembered| known.first == stamp.first && known.last == stamp.last;
        if let Some(known) = producer.recent.iter().find(same) {
            return Ok(Check::Duplicate(*known));
        }
        // A marker brought this epoch here, and nothing was written under it yet.
        let next = producer
            .recent
            .back()
            .map_or(0, |newest| add(newest.last, 1));
        if stamp.first == next {
            Ok(Check::Append)
        } else {
            Err(Code::OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    /// Remembers that a producer's transaction ended under this epoch.
    pub(crate) fn mark(&mut self, producer_id: i64, epoch: i16, offset: i64) {
        self.touch(producer_id, epoch, offset);
    }

    fn touch(&mut self, producer_id: i64, epoch: i16, last_offset: i64) -> &mut Producer {
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&producer_id) {
            self.forget_oldest();
        }
        let producer = self.by_id.entry(producer_id).or_insert_with(|| Producer {
            epoch,
            recent: VecDeque::with_capacity(REMEMBERED_BATCHES),
            last_offset,
        });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        producer.last_offset = last_offset;
        producer
    }

    /// The epoch that a producer wrote under last.
    pub(crate) fn epoch(&self, producer_id: i64) -> Option<i16> {
        self.by_id.get(&producer_id).map(|producer| producer.epoch)
    }

    /// Remembers an appended batch.
    pub(crate) fn record(&mut self, stamp: Stamp, base_offset: i64, last: i64, append_time: i64) {
        let producer = self.touch(stamp.producer_id, stamp.epoch, last);
        if producer.recent.len() == REMEMBERED_BATCHES {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Remembered {
            first: stamp.first,
            last: stamp.last,
            base_offset,
            last_offset: last,
            append_time,
        });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_id.iter().min_by_key(|(_, p)| p.last_offset);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.by_id.remove(&id);
        }
    }

    /// Forgets every producer that wrote at or beyond `end`: the log was cut there, and the caller
    /// replays what is left of them. Those whose last write lies before keep what is known, even
    /// if retention has dropped it.
    pub(crate) fn forget_from(&mut self, end: i64) {
        self.by_id.retain(|_, producer| producer.last_offset < end);
    }

    /// Whether anything is known of a producer.
    pub(crate) fn knows(&self, producer_id: i64) -> bool {
        self.by_id.contains_key(&producer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: i16, first: i32, count: i32) -> Stamp {
        Stamp::new(7, epoch, first, count).unwrap()
    }

    /// A partition on which producer 7, epoch 1, wrote seven batches of ten records: 0..70.
    fn seven_batches() -> Producers {
        let mut producers = Producers::default();
        for index in 0..7 {
            let base = i64::from(index) * 10;
            producers.record(stamp(1, index * 10, 10), base, base + 9, -1);
        }
        producers
    }

    #[test]
    fn sequence_rules_are_those_of_kafka() {
        const FENCED: Code = Code::INVALID_PRODUCER_EPOCH;
        const ORDER: Code = Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
        let cases = [
            ("the next batch", stamp(1, 70, 10), Ok(None)),
            ("the next batch of another size", stamp(1, 70, 1), Ok(None)),
            ("the newest again", stamp(1, 60, 10), Ok(Some(60))),
            ("the fifth newest again", stamp(1, 20, 10), Ok(Some(20))),
            (
                "the sixth newest is forgotten",
                stamp(1, 10, 10),
                Err(ORDER),
            ),
            ("same first, another count", stamp(1, 60, 9), Err(ORDER)),
            ("a gap", stamp(1, 80, 10), Err(ORDER)),
            ("an overlap", stamp(1, 65, 10), Err(ORDER)),
            ("an older epoch", stamp(0, 70, 10), Err(FENCED)),
            ("an older epoch's duplicate", stamp(0, 60, 10), Err(FENCED)),
            ("a newer epoch from 0", stamp(2, 0, 10), Ok(None)),
            ("a newer epoch not from 0", stamp(2, 70, 10), Err(ORDER)),
        ];
        for (what, stamp, wanted) in cases {
            let got = seven_batches().check(stamp, FirstSequence::Any, false);
            let got = got.map(|check| match check {
                Check::Append => None,
                Check::Duplicate(known) => Some(known.base_offset),
            });
            assert_eq!(got, wanted, "{what}");
        }
    }

    #[test]
    fn a_first_sequence_that_is_not_zero_is_accepted_or_refused_by_setting() {
        let fresh = Producers::default();
        let late = stamp(0, 5, 1);
        let refused = Err(Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(
            fresh.check(late, FirstSequence::Any, true),
            Ok(Check::Append)
        );
        assert_eq!(fresh.check(late, FirstSequence::Zero, true), refused);
        // A written partition may only have forgotten the producer.
        assert_eq!(
            fresh.check(late, FirstSequence::Zero, false),
            Ok(Check::Append)
        );
    }

    #[test]
    fn the_sequence_wraps_to_zero() {
        let mut producers = Producers::default();
        producers.record(stamp(0, i32::MAX - 1, 2), 0, 1, -1);
        let next = producers.check(stamp(0, 0, 3), FirstSequence::Any, false);
        assert_eq!(next, Ok(Check::Append));
        assert_eq!(stamp(0, i32::MAX, 2).last, 0);
        assert_eq!(stamp(0, i32::MAX - 1, 4).last, 1);
    }

    #[test]
    fn a_new_epoch_forgets_the_old_one_and_a_cut_forgets_what_it_cut() {
        let mut producers = seven_batches();
        producers.record(stamp(2, 0, 1), 70, 70, -1);
        let old = producers.check(stamp(1, 60, 10), FirstSequence::Any, false);
        assert_eq!(old, Err(Code::INVALID_PRODUCER_EPOCH));
        producers.forget_from(71);
        assert!(producers.knows(7));
        producers.forget_from(70);
        assert!(!producers.knows(7));
    }

    #[test]
    fn the_number_of_remembered_producers_is_bounded() {
        let mut producers = Producers::default();
        for id in 0..=PRODUCERS_MAX as i64 {
            producers.record(Stamp::new(id, 0, 0, 1).unwrap(), id, id, -1);
        }
        assert_eq!(producers.by_id.len(), PRODUCERS_MAX);
        assert!(!producers.knows(0));
        assert!(producers.knows(1));
    }
}
