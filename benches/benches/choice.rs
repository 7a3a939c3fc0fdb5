//! What ending a run and beginning the next costs, and placing a key: `cargo bench -p ottla-benches
//! --bench choice`.
//!
//! Time is invented and goes on as fast as the loop does, so that no clock is measured.

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
const REFRESH: Duration = Duration::from_millis(10);

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

/// The nanoseconds of one step in each batch, ascending.
struct Times(Vec<f64>);

impl Times {
    fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn worst(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

/// Times batches of so many steps.
fn timed(mut before: impl FnMut(), mut batch: impl FnMut()) -> Times {
    let times = (0..BATCHES).map(|_| {
        before();
        let begin = Instant::now();
        batch();
        begin.elapsed().as_nanos() as f64 / f64::from(RUNS)
    });
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    Times(times)
}

/// Ends runs and begins the next ones: the times of the slowest of so many threads.
fn runs(partitioner: &dyn Partitioner, partitions: i32, threads: usize) -> Times {
    let available: Vec<i32> = (0..partitions).collect();
    let barrier = Barrier::new(threads);
    let worker = |stripe: usize| {
        let view = view(&available, stripe);
        let mut bits = fastrand::Rng::with_seed(stripe as u64 + 1);
        let (mut now, mut ended) = (Instant::now(), None);
        let batch = || {
            for _ in 0..RUNS {
                let run = partitioner.next_run(&view, now, bits.u64(..), ended);
                ended = black_box(Some((run, run.records)));
                now += STEP;
            }
        };
        let together = || {
            barrier.wait();
        };
        timed(together, batch)
    };
    std::thread::scope(|scope| {
        let spawn = |stripe| scope.spawn(move || worker(stripe));
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        let times = workers.into_iter().flat_map(|worker| worker.join());
        let slowest = times.max_by(|a, b| a.median().total_cmp(&b.median()));
        slowest.unwrap_or(Times(Vec::new()))
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

/// The same as [`runs`] while plans are published, and how many were.
fn runs_while_publishing(partitions: i32) -> (Times, u32) {
    let (publisher, steered) = steered(partitions);
    let (stop, stopped) = channel();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(move || publish(publisher, partitions, &stopped));
        let times = runs(&steered, partitions, 1);
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
    timed(|| (), batch).median()
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
        "{partitions:>5} partitions, {name:30} {:6.1} ns a run, {:6.3} ns a record; worst batch \
         {:8.1} ns a run",
        times.median(),
        times.median() / f64::from(records),
        times.worst(),
    );
}

fn main() {
    println!("placing a key");
    for partitions in [12, 1_000] {
        compare_keyed(partitions);
    }
    println!("ending a run and beginning the next; a batch is {RUNS} runs");
    for partitions in [12, 1_000] {
        for threads in [1, 2] {
            let (_publisher, steered) = steered(partitions);
            let times = runs(&steered, partitions, threads);
            let name = format!("lag-aware, threads: {threads}");
            print(&name, partitions, &times, RUN_RECORDS);
            let times = runs(&Sticky::default(), partitions, threads);
            let name = format!("sticky, threads: {threads}");
            print(&name, partitions, &times, STICKY_RECORDS);
        }
        let (times, plans) = runs_while_publishing(partitions);
        let name = format!("lag-aware, {plans} new plans");
        print(&name, partitions, &times, RUN_RECORDS);
    }
}
