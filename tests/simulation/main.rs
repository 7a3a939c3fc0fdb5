//! The producer, its real core and driver, against the embedded cluster under a paused clock: a seed
//! chooses the settings, the records and every fault, and a checker holds the logs against what the
//! callers were told.
//!
//! `OTTLA_SEEDS=10000` runs so many seeds (2,000 unless set), `OTTLA_SEED=7` that one alone with its
//! whole story. An ordinary run is to end within a minute on two cores. How long that takes by the
//! clock on the wall depends on what else runs there, so what is held to is the processor's time. A
//! single seed that takes a minute ends the run.

#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

mod book;
mod callers;
mod census;
mod check;
mod fault;
mod letters;
mod plan;
mod trace;
mod transactions;
mod world;

use census::Census;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use world::{FAULTS_MIN, PARTITIONS_MIN, RECORDS_MIN, Report};

/// Seeds in an ordinary run.
const SEEDS: u64 = 2_000;

/// Processor time that the seeds of an ordinary run may take: a minute on two cores, and half as much
/// again for slower ones, or for caches shared with others.
const CPU_MAX: Duration = Duration::from_secs(2 * 60 * 3 / 2);

/// More failed seeds than these say nothing new.
const FAILED_MAX: usize = 5;

/// A seed that takes longer by the clock on the wall goes round in circles.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Processor time that this process has taken, where the system tells (Linux).
fn cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: user and system time in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Some(Duration::from_millis(ticks * 10))
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// Runs a seed; a panic of the product is a breach like any other.
fn run(seed: u64, told: bool) -> Report {
    let run = panic::catch_unwind(AssertUnwindSafe(|| world::run(seed, told)));
    run.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Report {
            hash: 0,
            census: Census::default(),
            breach: Some(format!("a panic: {}", words.unwrap_or("without words"))),
        }
    })
}

/// What all threads have seen.
#[derive(Default)]
struct Seen {
    census: Mutex<Census>,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    fn take(&self, seed: u64, report: Report) {
        let Report { census, breach, .. } = report;
        let few = census.records < RECORDS_MIN
            || census.partitions < PARTITIONS_MIN
            || census.faults < FAULTS_MIN;
        let breach = breach.or_else(|| {
            let Census {
                records,
                partitions,
                faults,
                ..
            } = census;
            few.then(|| format!("only {records} records, {partitions} partitions, {faults} faults"))
        });
        if let Some(breach) = breach {
            let replay = format!(
                "seed {seed}: {breach}\n  replay: OTTLA_SEED={seed} cargo test -p ottla-tests \
                 --test simulation -- --nocapture"
            );
            eprintln!("{replay}");
            let mut failed = self.failed.lock().unwrap();
            failed.push(replay);
            self.stop
                .store(failed.len() >= FAILED_MAX, Ordering::Relaxed);
        }
        self.census.lock().unwrap().add(census);
    }
}

/// Runs seeds on every core until all have run or one has failed.
fn run_all(seeds: u64) -> Seen {
    let (seen, next) = (Seen::default(), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (beats, beaten) = mpsc::sync_channel(1);
            let (seen, next) = (&seen, &next);
            scope.spawn(move || {
                while !seen.stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    beats.send(seed).unwrap();
                    seen.take(seed, run(seed, false));
                }
            });
            scope.spawn(move || watch(&beaten));
        }
    });
    seen
}

/// Ends everything if one seed goes round in circles: under a paused clock nothing else would.
fn watch(beaten: &mpsc::Receiver<u64>) {
    let mut last = None;
    loop {
        match beaten.recv_timeout(STUCK_AFTER) {
            Ok(seed) => last = Some(seed),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("seed {last:?} goes round in circles");
                std::process::exit(1);
            }
        }
    }
}

#[test]
fn in_any_weather_every_promise_is_kept() {
    if let Some(seed) = number_from("OTTLA_SEED") {
        let words = tracing_subscriber::fmt().without_time().with_ansi(false);
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "debug".to_owned());
        words
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        let report = run(seed, true);
        eprintln!("hash {:016x}", report.hash);
        assert_eq!(report.breach, None, "seed {seed}");
        return;
    }
    let seeds = number_from("OTTLA_SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    let seen = run_all(seeds);
    let failed = seen.failed.into_inner().unwrap();
    let census = seen.census.into_inner().unwrap();
    let (cpu, wall) = (cpu(), begun.elapsed());
    eprintln!(
        "{}{seeds} seeds in {wall:?}, processor {cpu:?}",
        census.table()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let runs = u32::try_from(seeds.div_ceil(SEEDS)).unwrap();
    let most = CPU_MAX * runs;
    assert!(cpu.is_none_or(|cpu| cpu < most), "more than {most:?}");
    if seeds >= SEEDS {
        assert_eq!(census.missing(), Vec::<String>::new(), "it never occurred");
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for seed in 0..20 {
        let hashes = [run(seed, false).hash, run(seed, false).hash];
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}
