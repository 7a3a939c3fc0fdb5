//! How a caller learns what became of a record.

use ottla_proto::Result;
use ottla_proto::producer::Ack;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// Where a record came to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset; `None` with `acks=0`, and when the broker knew the batch already from an earlier
    /// attempt and could no longer say where it lies.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch: the record's own time, or the broker's when the topic uses
    /// log-append time.
    pub timestamp: i64,
}

/// What all records of a batch wait for. It outlives its batch: when the batch is split, or when a
/// broker refuses some of its records by name, its records end in parts.
#[derive(Debug)]
pub(crate) struct Completion {
    topic: Arc<str>,
    partition: i32,
    /// How many records wait, once the batch is sealed.
    count: AtomicU32,
    /// The usual case: one outcome for all.
    outcome: OnceLock<Result<Ack>>,
    /// The records end in parts: said after the first part is in `waiting`.
    in_parts: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<Waiter>,
    /// Ranges of records that have ended, by the first record of each; they never overlap.
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Waiter {
    index: u32,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Part {
    end: u32,
    /// The record that the outcome's base offset belongs to.
    origin: u32,
    outcome: Result<Ack>,
}

impl Completion {
    pub(crate) fn new(topic: Arc<str>, partition: i32) -> Self {
        Self {
            topic,
            partition,
            count: AtomicU32::new(0),
            outcome: OnceLock::new(),
            in_parts: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    /// The batch takes no more records than these.
    pub(crate) fn sealed(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed);
    }

    /// Ends the wait of every record that has no outcome yet.
    pub(crate) fn complete(&self, outcome: Result<Ack>) {
        if self.in_parts.load(Ordering::Acquire) {
            self.complete_range(0, u32::MAX, &outcome);
        } else if self.outcome.set(outcome).is_ok() {
            let waiters = std::mem::take(&mut self.waiting.lock().waiters);
            wake(waiters.into_iter().filter_map(|waiter| waiter.waker));
        }
    }

    /// Ends the wait of `count` records from number `first` on, except those that have an outcome
    /// already. The outcome's base offset is that of record `first`. Called by the driver alone.
    pub(crate) fn complete_part(&self, first: u32, count: u32, outcome: Result<Ack>) {
        let all = self.count.load(Ordering::Relaxed);
        if first == 0 && count >= all {
            self.complete(outcome);
        } else if self.outcome.get().is_none() {
            self.complete_range(first, first.saturating_add(count), &outcome);
        }
    }

    /// As [`complete_part`](Self::complete_part), with outcomes of their own for some records, by
    /// number. Those who wait are looked for and woken once, when all outcomes are there.
    pub(crate) fn complete_part_but(
        &self,
        first: u32,
        count: u32,
        named: impl Iterator<Item = (u32, Result<Ack>)>,
        outcome: Result<Ack>,
    ) {
        if self.outcome.get().is_none() {
            let mut waiting = self.waiting.lock();
            for (record, outcome) in named {
                fill(&mut waiting.parts, record, record + 1, &outcome);
            }
            self.in_parts.store(true, Ordering::Release);
        }
        self.complete_part(first, count, outcome);
    }

    fn complete_range(&self, first: u32, end: u32, outcome: &Result<Ack>) {
        let mut waiting = self.waiting.lock();
        let Waiting { waiters, parts } = &mut *waiting;
        fill(parts, first, end, outcome);
        self.in_parts.store(true, Ordering::Release);
        let ended = waiters
            .iter_mut()
            .filter(|waiter| (first..end).contains(&waiter.index))
            .filter_map(|waiter| waiter.waker.take());
        let ended: Vec<_> = ended.collect();
        drop(waiting);
        wake(ended);
    }

    /// The outcome of a record, with the record that its base offset belongs to.
    fn outcome(&self, index: u32) -> Option<(u32, Result<Ack>)> {
        if let Some(outcome) = self.outcome.get() {
            return Some((0, outcome.clone()));
        }
        if !self.in_parts.load(Ordering::Acquire) {
            return None;
        }
        let waiting = self.waiting.lock();
        let (_, part) = waiting.parts.range(..=index).next_back()?;
        (index < part.end).then(|| (part.origin, part.outcome.clone()))
    }
}

/// Gives an outcome to what no part covers of a range.
fn fill(parts: &mut BTreeMap<u32, Part>, first: u32, end: u32, outcome: &Result<Ack>) {
    let mut at = first;
    while at < end {
        let before = parts.range(..=at).next_back().map(|(_, part)| part.end);
        if let Some(covered) = before.filter(|&covered| covered > at) {
            at = covered;
            continue;
        }
        let gap_end = parts.range(at..end).next().map_or(end, |(&next, _)| next);
        let part = Part {
            end: gap_end,
            origin: first,
            outcome: outcome.clone(),
        };
        parts.insert(at, part);
        at = gap_end;
    }
}

/// Outside the lock: a waker may run what it wakes.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// A record on its way. Await it for the acknowledgement; dropping it changes nothing about the
/// record, only its fate is then seen in the producer's metrics alone.
///
/// # Errors
/// The error tells by [`Error::write_outcome`](ottla_proto::Error::write_outcome) whether the record may have been written.
///
/// Cancel safety: it may be dropped at any time.
#[derive(Debug)]
#[must_use = "await it for the acknowledgement, or drop it on purpose"]
pub struct Delivery {
    completion: Arc<Completion>,
    timestamp: i64,
    index: u32,
    /// Our place among the completion's waiters.
    place: u32,
}

/// A delivery that has no place yet. A batch has fewer records than this.
const NO_PLACE: u32 = u32::MAX;

impl Delivery {
    #[inline]
    pub(crate) fn new(completion: Arc<Completion>, index: u32, timestamp: i64) -> Self {
        Self {
            completion,
            timestamp,
            index,
            place: NO_PLACE,
        }
    }

    /// Another wait for the same record.
    pub(crate) fn twin(&self) -> Self {
        Self::new(Arc::clone(&self.completion), self.index, self.timestamp)
    }

    /// The partition that was chosen.
    pub fn partition(&self) -> i32 {
        self.completion.partition
    }

    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<RecordMetadata>> {
        let (origin, outcome) = self.completion.outcome(self.index)?;
        Some(outcome.map(|ack| self.metadata(origin, ack)))
    }

    fn metadata(&self, origin: u32, ack: Ack) -> RecordMetadata {
        let distance = i64::from(self.index) - i64::from(origin);
        RecordMetadata {
            topic: Arc::clone(&self.completion.topic),
            partition: self.completion.partition,
            offset: ack.base_offset.and_then(|base| base.checked_add(distance)),
            timestamp: ack.log_append_time.unwrap_or(self.timestamp),
        }
    }

    /// Leaves word where to wake us.
    fn register(&mut self, waker: &Waker) {
        let mut waiting = self.completion.waiting.lock();
        let waiters = &mut waiting.waiters;
        match waiters.get_mut(self.place as usize) {
            Some(waiter) => match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            },
            None => {
                self.place = u32::try_from(waiters.len()).unwrap_or(NO_PLACE);
                let (index, waker) = (self.index, Some(waker.clone()));
                waiters.push(Waiter { index, waker });
            }
        }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        self.register(cx.waker());
        // It may have ended between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::{Error, ErrorKind};

    #[tokio::test]
    async fn each_record_of_a_batch_gets_its_own_offset() {
        let completion = Arc::new(Completion::new("orders".into(), 3));
        let first = Delivery::new(Arc::clone(&completion), 0, 10);
        let third = Delivery::new(Arc::clone(&completion), 2, 12);
        completion.complete(Ok(Ack {
            base_offset: Some(100),
            log_append_time: None,
        }));
        assert_eq!(first.await.unwrap().offset, Some(100));
        let third = third.await.unwrap();
        assert_eq!(
            (third.offset, third.timestamp, third.partition),
            (Some(102), 12, 3)
        );
    }

    #[tokio::test]
    async fn a_waiting_record_wakes_and_only_the_first_outcome_counts() {
        let completion = Arc::new(Completion::new("orders".into(), 0));
        let mut delivery = Delivery::new(Arc::clone(&completion), 0, 0);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
        assert_eq!(
            completion.waiting.lock().waiters.len(),
            1,
            "polling again takes no second place"
        );
        completion.complete(Err(Error::new(ErrorKind::Timeout, "too late")));
        completion.complete(Ok(Ack {
            base_offset: Some(1),
            log_append_time: None,
        }));
        assert_eq!(delivery.await.unwrap_err().kind(), &ErrorKind::Timeout);
    }

    fn ack(base_offset: i64) -> Result<Ack> {
        Ok(Ack {
            base_offset: Some(base_offset),
            log_append_time: None,
        })
    }

    fn batch(count: u32) -> (Arc<Completion>, Vec<Delivery>) {
        let completion = Arc::new(Completion::new("orders".into(), 0));
        completion.sealed(count);
        let deliveries = (0..count)
            .map(|index| Delivery::new(Arc::clone(&completion), index, 0))
            .collect();
        (completion, deliveries)
    }

    fn offset(delivery: &Delivery) -> Option<i64> {
        delivery.outcome()?.unwrap().offset
    }

    #[test]
    fn the_parts_of_a_split_batch_have_offsets_of_their_own() {
        let (completion, deliveries) = batch(5);
        completion.complete_part(3, 2, ack(900));
        let offsets: Vec<_> = deliveries.iter().map(offset).collect();
        assert_eq!(offsets, [None, None, None, Some(900), Some(901)]);
        completion.complete_part(0, 3, ack(100));
        let offsets: Vec<_> = deliveries.iter().filter_map(offset).collect();
        assert_eq!(offsets, [100, 101, 102, 900, 901]);
    }

    #[test]
    fn records_refused_by_name_keep_their_error_and_the_others_get_theirs() {
        let (completion, deliveries) = batch(4);
        let named = || Err(Error::new(ErrorKind::Corrupt, "named"));
        completion.complete_part(1, 1, named());
        completion.complete_part(3, 1, named());
        completion.complete_part(0, 4, Err(Error::new(ErrorKind::State, "others")));
        let kinds: Vec<_> = deliveries
            .iter()
            .map(|delivery| delivery.outcome().unwrap().unwrap_err().kind().clone())
            .collect();
        let (named, others) = (ErrorKind::Corrupt, ErrorKind::State);
        assert_eq!(kinds, [others.clone(), named.clone(), others, named]);
    }

    #[test]
    fn whoever_is_woken_finds_the_outcomes_of_the_whole_part() {
        struct Look(Arc<Completion>, AtomicU32);
        impl std::task::Wake for Look {
            fn wake(self: Arc<Self>) {
                let known = (0..6).filter(|&record| self.0.outcome(record).is_some());
                let known = u32::try_from(known.count()).unwrap();
                self.1.fetch_add(known, Ordering::Relaxed);
            }
        }
        let (completion, mut deliveries) = batch(6);
        let look = Arc::new(Look(Arc::clone(&completion), AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&look));
        for delivery in &mut deliveries {
            let polled = Pin::new(delivery).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        let failed = |words: &str| Err(Error::new(ErrorKind::Corrupt, words));
        // Named twice, it keeps the first words.
        let named = [(2, "a"), (4, "b"), (2, "c")].map(|(record, words)| (record, failed(words)));
        completion.complete_part_but(1, 4, named.into_iter(), failed("others"));
        assert_eq!(look.1.load(Ordering::Relaxed), 4 * 4, "each sees all four");
        let words = |record| Some(completion.outcome(record)?.1.unwrap_err().to_string());
        let words: Vec<_> = (0..6).map(words).collect();
        let says = |record: usize, said| words[record].as_ref().is_some_and(|w| w.contains(said));
        assert!(says(1, "others") && says(2, "a") && says(3, "others") && says(4, "b"));
        assert_eq!((&words[0], &words[5]), (&None, &None));
    }

    #[test]
    fn a_part_around_ended_records_counts_offsets_from_its_own_first() {
        let (completion, deliveries) = batch(6);
        completion.complete_part(2, 1, ack(7));
        completion.complete_part(1, 4, ack(50));
        let offsets: Vec<_> = deliveries.iter().map(offset).collect();
        let expected = [None, Some(50), Some(7), Some(52), Some(53), None];
        assert_eq!(offsets, expected);
        completion.complete(ack(10));
        assert_eq!(offset(&deliveries[5]), Some(15));
        assert_eq!(offset(&deliveries[1]), Some(50), "the first outcome counts");
    }

    #[test]
    fn a_part_after_the_whole_changes_nothing() {
        let (completion, deliveries) = batch(2);
        completion.complete_part(0, 2, ack(5));
        completion.complete_part(1, 1, ack(99));
        assert_eq!(offset(&deliveries[1]), Some(6));
    }

    #[test]
    fn a_part_wakes_its_own_records_and_leaves_the_others_their_place() {
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count(AtomicU32::new(0)))).collect();
        let woken = || {
            let load = |count: &Arc<Count>| count.0.load(Ordering::Relaxed);
            counts.iter().map(load).collect::<Vec<_>>()
        };
        let (completion, mut deliveries) = batch(3);
        let mut poll = |at: usize| {
            let waker = Waker::from(Arc::clone(&counts[at]));
            Pin::new(&mut deliveries[at]).poll(&mut Context::from_waker(&waker))
        };
        assert!((0..3).all(|at| poll(at).is_pending()));
        completion.complete_part(1, 1, ack(1));
        assert_eq!(woken(), [0, 1, 0]);
        assert!(poll(1).is_ready());
        // Polled again it must not take the waker of another.
        assert!(poll(2).is_pending());
        completion.complete_part(0, 1, ack(2));
        assert_eq!(woken(), [1, 1, 0]);
        completion.complete_part(2, 1, ack(3));
        assert_eq!(woken(), [1, 1, 1]);
    }
}
