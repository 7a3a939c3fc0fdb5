//! What beginning and ending a run costs, and placing a key: `cargo bench -p ottla-benches --bench
//! choice`.
//!
//! Time is invented and goes on as fast as the loop does, so that no clock is measured.

use ottla_partitioner::{
    Committed, Drain, DrainPartition, KeyOffsets, KeyPolicy, LagAware, NoQueues, Partitioner,
    PlanPublisher, Sticky, TopicPlan, TopicView, plan_channel,
};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const RUNS: u32 = 5_000;
const ROUNDS: usize = 801;
/// Between two runs of a thread.
const STEP: Duration = Duration::from_nanos(50);
/// What each partition's consumer reads, in records a second.
const RATE: f64 = 1_000.0;

fn plan(partitions: usize) -> TopicPlan {
    let total = RATE * 0.8 * partitions as f64;
    let drain = Drain {
        partitions: (0..partitions)
            .map(|at| DrainPartition {
                rate: RATE,
                backlog: (at % 7) as f64 * 10.0,
                share: 1.0 / partitions as f64,
            })
            .collect(),
        arrival_rate: total,
        own_rate: total / 2.0,
    };
    TopicPlan::drain(
        "orders".into(),
        Instant::now(),
        Duration::from_secs(1),
        &drain,
    )
    .with_key_offsets(vec![
        KeyOffsets {
            committed: Committed::At(0),
            end: Some(0),
        };
        partitions
    ])
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Begin,
    BeginAndEnd,
}

/// The median time of one run, in nanoseconds, of the slowest of so many threads.
fn measure(partitioner: &dyn Partitioner, partitions: usize, threads: usize, part: Part) -> f64 {
    let available: Vec<i32> = (0..partitions as i32).collect();
    let barrier = Barrier::new(threads);
    let worker = |stripe: usize| {
        let view = TopicView {
            topic: "orders",
            partition_count: partitions as i32,
            available: &available,
            queued: &NoQueues,
            batch_bytes: 1_000_000,
            stripe,
        };
        let mut times = Vec::with_capacity(ROUNDS);
        let mut bits = fastrand::Rng::with_seed(stripe as u64 + 1);
        let (mut now, mut previous) = (Instant::now(), None);
        for _ in 0..ROUNDS {
            barrier.wait();
            let begin = Instant::now();
            for _ in 0..RUNS {
                let run = partitioner.begin_run(&view, now, bits.u64(..), previous);
                if part == Part::BeginAndEnd {
                    partitioner.end_run(&view, black_box(run), run.records);
                }
                previous = Some(run.partition);
                now += STEP;
            }
            times.push(begin.elapsed().as_nanos() as f64 / f64::from(RUNS));
        }
        times.sort_by(f64::total_cmp);
        times.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|stripe| scope.spawn(move || worker(stripe)))
            .collect();
        let times = workers.into_iter().map(|worker| worker.join());
        times.flatten().fold(0.0, f64::max)
    })
}

fn steered(partitions: usize) -> (PlanPublisher, LagAware) {
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![plan(partitions)]);
    (publisher, LagAware::new(reader))
}

/// The median time of placing one key, in nanoseconds.
fn keyed(partitioner: &dyn Partitioner, partitions: usize) -> f64 {
    let available: Vec<i32> = (0..partitions as i32).collect();
    let view = TopicView {
        topic: "orders",
        partition_count: partitions as i32,
        available: &available,
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe: 0,
    };
    let keys: Vec<String> = (0..RUNS).map(|key| format!("key-{key:08}")).collect();
    let mut times: Vec<f64> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for key in &keys {
            black_box(partitioner.keyed(&view, black_box(key.as_bytes())));
        }
        times.push(begin.elapsed().as_nanos() as f64 / f64::from(RUNS));
    }
    times.sort_by(f64::total_cmp);
    times.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    for partitions in [12, 1_000] {
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
    for partitions in [12, 1_000] {
        for threads in [1, 2] {
            let (_publisher, steered) = steered(partitions);
            let of = |partitioner, part| measure(partitioner, partitions, threads, part);
            let sticky = Sticky::default();
            println!(
                "{partitions:>5} partitions, {threads} threads: lag-aware {:6.1} ns to begin a run, \
                 {:6.1} ns with its end; sticky {:6.1} ns",
                of(&steered, Part::Begin),
                of(&steered, Part::BeginAndEnd),
                of(&sticky, Part::BeginAndEnd),
            );
        }
    }
}
