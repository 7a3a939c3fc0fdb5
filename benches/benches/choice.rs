//! What ending a run and beginning the next costs, and placing a key: `cargo bench -p ottla-benches
//! --bench choice`.
//!
//! Time is invented and goes on as fast as the loop does, so that no clock is measured. Only where
//! plans are published meanwhile each choice is timed alone, with and without the publisher: what the
//! clock takes, and whatever else runs on the machine, is in both.
//!
//! Two threads are compared with one beside a loop that computes and shares nothing: what the machine
//! takes from two threads that have nothing to do with each other is not the partitioner's.

use ottla_benches::TOPIC;
use ottla_partitioner::{
    Committed, KeyOffsets, KeyPolicy, LagAware, NoQueues, Partitioner, PlanPublisher, Sticky,
    TopicPlan, TopicView, plan_channel,
};
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// In a batch, which is what is timed.
const RUNS: u32 = 5_000;
const BATCHES: usize = 801;
/// Between two runs of a thread.
const STEP: Duration = Duration::from_nanos(50);
/// In a run by [`plan`]: what its consumer reads in 50 ms.
const RUN_RECORDS: u32 = 50;
/// In a run of the sticky partitioner: a batch of 1 MB, at 100 bytes a record.
const STICKY_RECORDS: u32 = 10_000;
/// Between two plans, where plans are published meanwhile: far less than any collector takes.
const REFRESH: Duration = Duration::from_millis(1);
/// How many choices are timed alone.
const ALONE: usize = 2_000_000;
/// Rounds of the loop that shares nothing, about as long as a choice.
const ROUNDS: u32 = 16;

/// A plan in which others write as much as we do.
fn plan(partitions: usize) -> TopicPlan {
    let committed = KeyOffsets {
        committed: Committed::At(0),
        end: Some(0),
    };
    ottla_benches::plan(partitions, ottla_benches::RATE, 0.8, 0.5)
        .with_key_offsets(vec![committed; partitions])
}

fn view(available: &[i32], stripe: usize) -> TopicView<'_> {
    TopicView {
        topic: TOPIC,
        partition_count: i32::try_from(available.len()).unwrap_or(i32::MAX),
        available,
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe,
    }
}

/// Nanoseconds, ascending.
struct Times(Vec<f64>);

impl Times {
    fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// What so many in a thousand are not above.
    fn at(&self, thousandth: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = last * thousandth / 1_000;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.at(500)
    }

    /// As when nothing else runs on the machine.
    fn undisturbed(&self) -> f64 {
        self.at(50)
    }
}

/// Times batches of so many steps; in nanoseconds a step.
fn timed(mut before: impl FnMut(), mut batch: impl FnMut()) -> Vec<f64> {
    let times = (0..BATCHES).map(|_| {
        before();
        let begin = Instant::now();
        batch();
        begin.elapsed().as_nanos() as f64 / f64::from(RUNS)
    });
    times.collect()
}

/// Times batches in so many threads that begin each together; of each batch the slowest thread's time.
fn in_threads<B: FnMut()>(threads: usize, batch_of: impl Fn(usize) -> B + Sync) -> Times {
    let barrier = Barrier::new(threads);
    let work = |thread| {
        let together = || {
            barrier.wait();
        };
        timed(together, batch_of(thread))
    };
    let all: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let work = &work;
        let spawn = |thread| scope.spawn(move || work(thread));
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join())
            .collect()
    });
    let slowest = |at: usize| {
        let times = all.iter().filter_map(|times| times.get(at));
        times.copied().fold(0.0, f64::max)
    };
    Times::new((0..BATCHES).map(slowest).collect())
}

/// One choice after another, on a stripe of their own.
fn choosing(
    partitioner: &dyn Partitioner,
    available: &[i32],
    stripe: usize,
    mut now: Instant,
) -> impl FnMut() {
    let view = view(available, stripe);
    let mut bits = fastrand::Rng::with_seed(stripe as u64 + 1);
    let mut ended = None;
    move || {
        let run = partitioner.next_run(&view, now, bits.u64(..), ended);
        ended = black_box(Some((run, run.records)));
        now += STEP;
    }
}

/// Ends runs and begins the next ones.
fn runs(partitioner: &dyn Partitioner, partitions: i32, threads: usize) -> Times {
    let available: Vec<i32> = (0..partitions).collect();
    let begin = Instant::now();
    in_threads(threads, |stripe| {
        let mut choose = choosing(partitioner, &available, stripe, begin);
        move || (0..RUNS).for_each(|_| choose())
    })
}

/// Computes, and shares nothing.
fn computing(threads: usize) -> Times {
    in_threads(threads, |thread| {
        let mut words = [1, 2, 3, 4].map(|word: u64| word + thread as u64);
        move || {
            for _ in 0..RUNS * ROUNDS {
                for word in &mut words {
                    *word = (*word ^ (*word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                }
                words = black_box(words);
            }
        }
    })
}

fn steered(partitions: i32) -> (PlanPublisher, LagAware) {
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![plan(partitions as usize)]);
    (publisher, LagAware::new(reader))
}

/// Publishes a plan every [`REFRESH`] until it is told to stop, and counts them.
fn publish(mut publisher: PlanPublisher, partitions: i32, stop: &Receiver<()>) -> u32 {
    let mut plans = 0;
    while stop.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
        publisher.publish(vec![plan(partitions as usize)]);
        plans += 1;
    }
    plans
}

/// The nanoseconds of each of many choices by the clock, that of reading it included.
fn alone(partitioner: &dyn Partitioner, partitions: i32) -> Times {
    let available: Vec<i32> = (0..partitions).collect();
    let mut choose = choosing(partitioner, &available, 0, Instant::now());
    let mut last = Instant::now();
    let times = (0..ALONE).map(|_| {
        choose();
        let before = std::mem::replace(&mut last, Instant::now());
        last.duration_since(before).as_nanos() as f64
    });
    Times::new(times.collect())
}

/// The same while plans are published, and how many were.
fn alone_while_publishing(partitions: i32) -> (Times, u32) {
    let (publisher, steered) = steered(partitions);
    let (stop, stopped) = channel();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(move || publish(publisher, partitions, &stopped));
        let times = alone(&steered, partitions);
        drop(stop);
        (times, publishing.join().unwrap_or(0))
    })
}

/// Places keys.
fn keyed(partitioner: &dyn Partitioner, partitions: i32) -> f64 {
    let available: Vec<i32> = (0..partitions).collect();
    let view = view(&available, 0);
    let keys: Vec<String> = (0..RUNS).map(|key| format!("key-{key:08}")).collect();
    let batch = || {
        for key in &keys {
            black_box(partitioner.keyed(&view, black_box(key.as_bytes())));
        }
    };
    Times::new(timed(|| (), batch)).median()
}

fn compare_keyed(partitions: i32) {
    let of = |policy| {
        let (_publisher, steered) = steered(partitions);
        keyed(&steered.keys(policy), partitions)
    };
    println!(
        "{partitions:>5} partitions, a key of 12 bytes: by hash alone {:6.1} ns; keep {:6.1} ns, \
         sticky {:6.1} ns, migrate {:6.1} ns",
        keyed(&Sticky::default(), partitions),
        of(KeyPolicy::Keep),
        of(KeyPolicy::STICKY),
        of(KeyPolicy::MIGRATE),
    );
}

fn print(name: &str, partitions: i32, times: &Times, records: u32) {
    println!(
        "{partitions:>5} partitions, {name:22} {:6.1} ns a run, {:6.3} ns a record; undisturbed \
         {:6.1} ns a run, worst batch {:8.1}",
        times.median(),
        times.median() / f64::from(records),
        times.undisturbed(),
        times.at(1_000),
    );
}

fn print_alone(name: &str, partitions: i32, times: &Times) {
    println!(
        "{partitions:>5} partitions, {name:22} {:6.0} ns for half of them, {:6.0} ns for 99.9 % of \
         them, longest {:8.0} ns",
        times.median(),
        times.at(999),
        times.at(1_000),
    );
}

/// By how much two threads take longer than one, in percent.
fn more(times: &[Times; 2]) -> f64 {
    let [one, two] = times;
    (two.undisturbed() / one.undisturbed() - 1.0) * 100.0
}

fn compare_runs(partitions: i32) {
    let (_publisher, steered) = steered(partitions);
    let lag_aware = [1, 2].map(|threads| runs(&steered, partitions, threads));
    let sticky = [1, 2].map(|threads| runs(&Sticky::default(), partitions, threads));
    let loops = [1, 2].map(computing);
    for (at, threads) in [(0, "one thread"), (1, "two threads")] {
        let name = format!("lag-aware, {threads}");
        print(&name, partitions, &lag_aware[at], RUN_RECORDS);
        let name = format!("sticky, {threads}");
        print(&name, partitions, &sticky[at], STICKY_RECORDS);
    }
    println!(
        "{partitions:>5} partitions, two threads instead of one, undisturbed: lag-aware {:+.0} %, \
         sticky {:+.0} %, a loop that shares nothing {:+.0} %",
        more(&lag_aware),
        more(&sticky),
        more(&loops),
    );
}

fn main() {
    println!("placing a key");
    for partitions in [12, 1_000] {
        compare_keyed(partitions);
    }
    println!("ending a run and beginning the next; a batch is {RUNS} runs");
    for partitions in [12, 1_000] {
        compare_runs(partitions);
    }
    println!("each choice by the clock");
    for partitions in [12, 1_000] {
        let (_publisher, steered) = steered(partitions);
        print_alone("one plan", partitions, &alone(&steered, partitions));
        let (times, plans) = alone_while_publishing(partitions);
        print_alone(&format!("{plans} new plans"), partitions, &times);
    }
}
