//! Runs: one choice of a partition that serves many keyless records.
//!
//! A caller's cost a record is one compare-and-swap on the run of its stripe. There is one stripe
//! while callers do not meet; when two of them want the same partition's lock at the same time the
//! number of stripes doubles, and each thread gets its own run in another partition.

use crate::hooks::guarded;
use ottla_partitioner::{Partitioner, Run, TopicView};
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// The most stripes; a power of two.
const STRIPES: usize = 8;

/// The state of a run in one word: partition, records left, bytes left (in units).
const PARTITION_BITS: u32 = 24;
const RECORD_BITS: u32 = 20;
const UNIT_BITS: u32 = 64 - PARTITION_BITS - RECORD_BITS;
const RECORDS_MAX: u64 = (1 << RECORD_BITS) - 1;
const UNITS_MAX: u64 = (1 << UNIT_BITS) - 1;
/// Bytes are counted in units of 16, rounded up, so that a run of 16 MiB fits.
const UNIT_BYTES: u64 = 16;

/// A run that gave so much to a batch that has lingered is over: a slow producer does not stay at
/// one partition until a whole batch has come together.
const LINGERED_BYTES: u64 = 64 << 10;

/// A run that has no more than this part of its records left when its batch has lingered is over: what
/// is left would make a batch of its own, which costs as much as a whole one.
const LINGERED_PART: u64 = 4;

/// A run's state, packed. Zero is "over".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    fn begin(run: Run) -> Self {
        let partition =
            u64::from(run.partition.max(0).cast_unsigned()) & ((1 << PARTITION_BITS) - 1);
        let records = u64::from(run.records).clamp(1, RECORDS_MAX);
        let units = (u64::from(run.bytes) / UNIT_BYTES).clamp(1, UNITS_MAX);
        Self(partition << (RECORD_BITS + UNIT_BITS) | records << UNIT_BITS | units)
    }

    fn partition(self) -> i32 {
        i32::try_from(self.0 >> (RECORD_BITS + UNIT_BITS)).unwrap_or(0)
    }

    fn records_left(self) -> u64 {
        (self.0 >> UNIT_BITS) & RECORDS_MAX
    }

    fn units_left(self) -> u64 {
        self.0 & UNITS_MAX
    }

    fn is_over(self) -> bool {
        self.records_left() == 0 || self.units_left() == 0
    }

    /// The state after one record more.
    fn after(self, bytes: usize) -> Self {
        let units = (bytes as u64).div_ceil(UNIT_BYTES).min(self.units_left());
        Self(self.0 - (1 << UNIT_BITS) - units)
    }

    /// The state with one record less: it was not taken after all.
    fn without(self, bytes: usize) -> Self {
        let units = (bytes as u64).div_ceil(UNIT_BYTES);
        let records = (self.records_left() + 1).min(RECORDS_MAX);
        let units = (self.units_left() + units).min(UNITS_MAX);
        let partition = self.0 >> (RECORD_BITS + UNIT_BITS) << (RECORD_BITS + UNIT_BITS);
        Self(partition | records << UNIT_BITS | units)
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    state: AtomicU64,
    last: Mutex<Option<Begun>>,
}

/// A run as it was begun.
#[derive(Debug, Clone, Copy)]
struct Begun {
    run: Run,
    state: Packed,
}

/// The runs of one topic.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    stripes: [Stripe; STRIPES],
    /// Exponent of the number of stripes in use.
    spread: AtomicUsize,
}

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn thread_number() -> usize {
    THREAD.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
        }
        cell.get()
    })
}

fn at_stripe<'v>(view: &TopicView<'v>, stripe: usize) -> TopicView<'v> {
    TopicView { stripe, ..*view }
}

impl Runs {
    fn stripe(&self) -> Option<(usize, &Stripe)> {
        let spread = self.spread.load(Ordering::Relaxed);
        let index = if spread == 0 {
            0
        } else {
            thread_number() & ((1 << spread) - 1)
        };
        let index = index % STRIPES;
        Some((index, self.stripes.get(index)?))
    }

    /// Two callers met: spread them.
    #[cold]
    pub(crate) fn spread(&self) {
        let most = STRIPES.trailing_zeros() as usize;
        let wider = |spread: usize| (spread < most).then_some(spread + 1);
        let _ = self
            .spread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, wider);
    }

    /// A batch went out nearly empty: fewer stripes fill batches better.
    pub(crate) fn gather(&self) {
        let narrower = |spread: usize| spread.checked_sub(1);
        let _ = self
            .spread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, narrower);
    }

    /// Ends the runs: the topic has changed, and their partitions may be gone or led by nobody. They
    /// end also when the partitioner panics on hearing it.
    pub(crate) fn end(&self, partitioner: &dyn Partitioner, view: &TopicView<'_>) {
        for (stripe, at) in self.stripes.iter().zip(0..) {
            let view = at_stripe(view, at);
            guarded("a partitioner", || {
                stripe.end(&mut stripe.last.lock(), partitioner, &view);
            });
        }
    }

    /// The caller's batch at that partition is full: its run ends with it, so that a batch holds one
    /// run from its beginning to its end.
    #[cold]
    pub(crate) fn filled(&self, partition: i32) {
        if let Some((_, stripe)) = self.stripe() {
            stripe.finish(partition, |_, _| true);
        }
    }

    /// A batch of that partition has lingered long enough: runs that gave it a good part end, and
    /// those that are nearly over.
    pub(crate) fn lingered(&self, partition: i32) {
        let is_over = |begun: Packed, now: Packed| {
            let used = begun.units_left().saturating_sub(now.units_left());
            used * UNIT_BYTES >= LINGERED_BYTES
                || now.records_left() * LINGERED_PART <= begun.records_left()
        };
        for stripe in &self.stripes {
            stripe.finish(partition, is_over);
        }
    }

    /// Gives a record back that its partition did not take, so that it does not count as sent.
    #[cold]
    pub(crate) fn refund(&self, partition: i32, bytes: usize) {
        let Some((_, stripe)) = self.stripe() else {
            return;
        };
        let without = |state: u64| {
            let state = Packed(state);
            // A run that has ended has told its count already.
            (state.0 != 0 && state.partition() == partition).then(|| state.without(bytes).0)
        };
        let _ = stripe
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, without);
    }

    /// The partition of a keyless record that `partition` did not take: the run there is ended, and
    /// the next one begun with a view that does not offer it.
    #[cold]
    pub(crate) fn pass(
        &self,
        partition: i32,
        bytes: usize,
        partitioner: &dyn Partitioner,
        view: &TopicView<'_>,
        clock: impl Fn() -> Instant,
        random: impl Fn() -> u64,
    ) -> i32 {
        self.refund(partition, bytes);
        if let Some((at, stripe)) = self.stripe() {
            let view = at_stripe(view, at);
            stripe.renew(Some(partition), partitioner, &view, clock(), random());
        }
        self.next(bytes, partitioner, |at| at_stripe(view, at), clock, random)
    }

    /// The partition of the next keyless record of that size. The view is that of a stripe.
    #[inline]
    pub(crate) fn next<'v>(
        &self,
        bytes: usize,
        partitioner: &dyn Partitioner,
        view: impl Fn(usize) -> TopicView<'v>,
        clock: impl Fn() -> Instant,
        random: impl Fn() -> u64,
    ) -> i32 {
        let Some((index, stripe)) = self.stripe() else {
            return 0;
        };
        let mut state = Packed(stripe.state.load(Ordering::Relaxed));
        loop {
            if state.is_over() {
                state = stripe.renew(None, partitioner, &view(index), clock(), random());
            }
            let (old, new) = (state.0, state.after(bytes).0);
            let order = Ordering::Relaxed;
            match stripe.state.compare_exchange_weak(old, new, order, order) {
                Ok(_) => return state.partition(),
                Err(now) => state = Packed(now),
            }
        }
    }
}

impl Stripe {
    /// Lets the run at that partition be over if, by how it began and how it is now, it should. Its
    /// count is told when the next one begins.
    fn finish(&self, partition: i32, should: impl Fn(Packed, Packed) -> bool) {
        let last = self.last.lock();
        let Some(last) = last.filter(|last| last.run.partition == partition) else {
            return;
        };
        let over = |state: u64| {
            let now = Packed(state);
            (!now.is_over() && should(last.state, now)).then_some(state & !UNITS_MAX)
        };
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, over);
    }

    /// Begins a run where the last one is over, or is at the partition to be `passed`.
    #[cold]
    fn renew(
        &self,
        passed: Option<i32>,
        partitioner: &dyn Partitioner,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
    ) -> Packed {
        let mut last = self.last.lock();
        let state = Packed(self.state.load(Ordering::Relaxed));
        if !state.is_over() && passed != Some(state.partition()) {
            return state; // another caller of this stripe was faster
        }
        let ended = self.take(&mut last);
        let run = partitioner.next_run(view, now, random, ended);
        let state = Packed::begin(run);
        *last = Some(Begun { run, state });
        self.state.store(state.0, Ordering::Relaxed);
        state
    }

    /// Ends the run, if there is one, and tells the partitioner.
    fn end(&self, last: &mut Option<Begun>, partitioner: &dyn Partitioner, view: &TopicView<'_>) {
        if let Some((run, used)) = self.take(last) {
            partitioner.end_run(view, run, used);
        }
    }

    /// The run, if there is one, and how many records went to it.
    #[inline]
    fn take(&self, last: &mut Option<Begun>) -> Option<(Run, u32)> {
        // From here on callers find the run over, and wait for the lock.
        let state = Packed(self.state.swap(0, Ordering::Relaxed));
        let begun = last.take()?;
        let used = begun
            .state
            .records_left()
            .saturating_sub(state.records_left());
        // It fits: no run has more than `RECORDS_MAX`.
        Some((begun.run, used as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_partitioner::{KeyChoice, NoQueues};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};

    /// Runs of a given size over partitions 0, 1, 2, ...
    #[derive(Debug)]
    struct Counting {
        bytes: u32,
        records: u32,
        next: AtomicI32,
        ended: Mutex<Vec<u32>>,
    }

    impl Counting {
        fn new(bytes: u32, records: u32) -> Self {
            Self {
                bytes,
                records,
                next: AtomicI32::new(0),
                ended: Mutex::default(),
            }
        }
    }

    impl Partitioner for Counting {
        fn keyed(&self, _: &TopicView<'_>, _: &[u8]) -> KeyChoice {
            KeyChoice::Run
        }
        fn begin_run(&self, _: &TopicView<'_>, _: Instant, _: u64, _: Option<i32>) -> Run {
            let partition = self.next.fetch_add(1, Ordering::Relaxed);
            Run {
                partition,
                bytes: self.bytes,
                records: self.records,
            }
        }
        fn end_run(&self, _: &TopicView<'_>, _: Run, records: u32) {
            self.ended.lock().push(records);
        }
    }

    fn view() -> TopicView<'static> {
        TopicView {
            topic: "t",
            partition_count: 9,
            available: &[],
            queued: &NoQueues,
            batch_bytes: 0,
            stripe: 0,
        }
    }

    fn at_any(stripe: usize) -> TopicView<'static> {
        at_stripe(&view(), stripe)
    }

    fn take(runs: &Runs, partitioner: &Counting, bytes: usize, count: usize) -> Vec<i32> {
        let now = Instant::now();
        (0..count)
            .map(|_| runs.next(bytes, partitioner, at_any, || now, || 0))
            .collect()
    }

    #[test]
    fn a_run_ends_by_records_or_by_bytes_whichever_is_first() {
        let by_records = Counting::new(1 << 20, 3);
        assert_eq!(
            take(&Runs::default(), &by_records, 100, 7),
            [0, 0, 0, 1, 1, 1, 2]
        );
        assert_eq!(*by_records.ended.lock(), [3, 3]);
        let by_bytes = Counting::new(1024, u32::MAX);
        assert_eq!(take(&Runs::default(), &by_bytes, 512, 5), [0, 0, 1, 1, 2]);
        assert_eq!(*by_bytes.ended.lock(), [2, 2]);
    }

    #[test]
    fn a_run_ends_with_its_batch_and_tells_what_it_took() {
        let (runs, partitioner) = (Runs::default(), Counting::new(1 << 20, u32::MAX));
        assert_eq!(take(&runs, &partitioner, 100, 3), [0, 0, 0]);
        runs.filled(7);
        assert_eq!(
            take(&runs, &partitioner, 100, 1),
            [0],
            "it is at another partition"
        );
        runs.filled(0);
        assert_eq!(take(&runs, &partitioner, 100, 2), [1, 1]);
        assert_eq!(*partitioner.ended.lock(), [4]);
    }

    #[test]
    fn a_batch_that_lingers_ends_a_run_that_gave_it_a_good_part() {
        let (runs, partitioner) = (Runs::default(), Counting::new(1 << 20, u32::MAX));
        take(&runs, &partitioner, 1_000, 60);
        runs.lingered(0);
        assert_eq!(
            take(&runs, &partitioner, 1_000, 6),
            [0; 6],
            "it gave too little"
        );
        runs.lingered(0);
        assert_eq!(take(&runs, &partitioner, 1_000, 1), [1]);
        assert_eq!(*partitioner.ended.lock(), [66]);
    }

    #[test]
    fn a_batch_that_lingers_ends_a_run_that_is_nearly_over() {
        let (runs, partitioner) = (Runs::default(), Counting::new(1 << 20, 60));
        take(&runs, &partitioner, 100, 44);
        runs.lingered(0);
        assert_eq!(
            take(&runs, &partitioner, 100, 1),
            [0],
            "a quarter is left, and more"
        );
        runs.lingered(0);
        assert_eq!(take(&runs, &partitioner, 100, 1), [1]);
        assert_eq!(*partitioner.ended.lock(), [45]);
    }

    #[test]
    fn a_record_larger_than_the_run_still_goes_and_ends_it() {
        let partitioner = Counting::new(1024, u32::MAX);
        assert_eq!(take(&Runs::default(), &partitioner, 1 << 26, 3), [0, 1, 2]);
    }

    #[test]
    fn records_are_shared_out_exactly_between_threads() {
        let (runs, partitioner) = (Runs::default(), Counting::new(1 << 20, 10));
        runs.spread();
        let counts: Vec<Vec<i32>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| take(&runs, &partitioner, 1, 5_000)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let mut runs_of = std::collections::BTreeMap::new();
        counts
            .iter()
            .flatten()
            .for_each(|partition| *runs_of.entry(partition).or_insert(0) += 1);
        assert_eq!(counts.iter().map(Vec::len).sum::<usize>(), 20_000);
        let last = partitioner.next.load(Ordering::Relaxed) - 1;
        for (&&partition, &count) in &runs_of {
            assert!(
                count == 10 || partition >= last - 7,
                "run {partition} took {count}"
            );
        }
    }

    #[test]
    fn a_refused_record_does_not_count_and_leaves_its_place() {
        let partitioner = Counting::new(1 << 20, 3);
        let runs = Runs::default();
        assert_eq!(take(&runs, &partitioner, 100, 2), [0, 0]);
        runs.refund(0, 100);
        assert_eq!(take(&runs, &partitioner, 100, 3), [0, 0, 1]);
        runs.refund(0, 100);
        assert_eq!(take(&runs, &partitioner, 100, 3), [1, 1, 2]);
        assert_eq!(*partitioner.ended.lock(), [3, 3]);
        let by_bytes = Counting::new(1_600, u32::MAX);
        let runs = Runs::default();
        assert_eq!(take(&runs, &by_bytes, 800, 1), [0]);
        runs.refund(0, 800);
        assert_eq!(take(&runs, &by_bytes, 800, 3), [0, 0, 1]);
    }

    #[test]
    fn a_passed_partition_ends_its_run_with_what_it_took() {
        let partitioner = Counting::new(1 << 20, 10);
        let runs = Runs::default();
        let now = Instant::now();
        assert_eq!(take(&runs, &partitioner, 100, 4), [0; 4]);
        let pass = |refused| runs.pass(refused, 100, &partitioner, &view(), || now, || 0);
        assert_eq!(pass(0), 1);
        assert_eq!(*partitioner.ended.lock(), [3], "the fourth was refused");
        assert_eq!(pass(0), 1, "another caller has passed it already");
        assert_eq!(take(&runs, &partitioner, 100, 9)[7..], [1, 2]);
        assert_eq!(*partitioner.ended.lock(), [3, 10]);
    }

    #[test]
    fn a_topic_that_changes_ends_the_runs_of_all_stripes_once() {
        let partitioner = Counting::new(1 << 20, 10);
        let runs = Runs::default();
        assert_eq!(take(&runs, &partitioner, 100, 4), [0; 4]);
        runs.end(&partitioner, &view());
        runs.end(&partitioner, &view());
        assert_eq!(*partitioner.ended.lock(), [4]);
        assert_eq!(take(&runs, &partitioner, 100, 1), [1]);
        runs.refund(0, 100);
        assert_eq!(take(&runs, &partitioner, 100, 10)[8..], [1, 2]);
    }

    /// Panics when it hears of an end, or is asked for a run, as told.
    #[derive(Debug, Default)]
    struct Faulty {
        at_end: AtomicBool,
        at_begin: AtomicBool,
        heard: AtomicU32,
    }

    impl Partitioner for Faulty {
        fn keyed(&self, _: &TopicView<'_>, _: &[u8]) -> KeyChoice {
            KeyChoice::Run
        }
        fn begin_run(&self, _: &TopicView<'_>, _: Instant, _: u64, _: Option<i32>) -> Run {
            assert!(!self.at_begin.load(Ordering::Relaxed), "no run");
            Run {
                partition: 0,
                bytes: 1 << 20,
                records: 10,
            }
        }
        fn end_run(&self, _: &TopicView<'_>, _: Run, _: u32) {
            self.heard.fetch_add(1, Ordering::Relaxed);
            assert!(!self.at_end.load(Ordering::Relaxed), "no end");
        }
    }

    #[test]
    fn a_partitioner_that_panics_holds_no_lock_and_leaves_no_run_behind() {
        let (runs, faulty, now) = (Runs::default(), Faulty::default(), Instant::now());
        let next = |count: u32| {
            let one = |_| assert_eq!(runs.next(100, &faulty, at_any, || now, || 0), 0);
            catch_unwind(AssertUnwindSafe(|| (0..count).for_each(one)))
        };
        faulty.at_begin.store(true, Ordering::Relaxed);
        assert!(next(1).is_err());
        faulty.at_begin.store(false, Ordering::Relaxed);
        assert!(next(10).is_ok(), "one run");
        faulty.at_end.store(true, Ordering::Relaxed);
        assert!(next(1).is_err(), "its end is told with the next record");
        assert!(next(10).is_ok(), "and told once");
        assert_eq!(faulty.heard.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_topic_that_changes_ends_the_runs_of_all_stripes_also_when_the_partitioner_panics() {
        let (runs, faulty, now) = (Runs::default(), Faulty::default(), Instant::now());
        for stripe in &runs.stripes {
            stripe.renew(None, &faulty, &view(), now, 0);
        }
        faulty.at_end.store(true, Ordering::Relaxed);
        runs.end(&faulty, &view());
        assert_eq!(faulty.heard.load(Ordering::Relaxed), STRIPES as u32);
        let is_over = |stripe: &Stripe| Packed(stripe.state.load(Ordering::Relaxed)).is_over();
        assert!(runs.stripes.iter().all(is_over));
    }

    #[test]
    fn callers_that_meet_spread_and_gather_again() {
        let runs = Runs::default();
        let stripes = || 1 << runs.spread.load(Ordering::Relaxed);
        (0..9).for_each(|_| runs.spread());
        assert_eq!(stripes(), STRIPES);
        runs.gather();
        assert_eq!(stripes(), STRIPES / 2);
        (0..9).for_each(|_| runs.gather());
        assert_eq!(stripes(), 1);
    }
}
