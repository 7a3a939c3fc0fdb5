//! The real observing and choosing code in a model of producers and consumers: Poisson arrivals at
//! 80 % load, 12 partitions with a consumer each, producers that look at old offsets.

use super::{Observed, Observer};
use fastrand::Rng;
use ottla_partitioner::{
    LagAware, NoQueues, Partitioner, PlanPublisher, Run, Sticky, TopicView, plan_channel,
};
use std::time::{Duration, Instant};

const PARTITIONS: usize = 12;
const ALL: [i32; PARTITIONS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
/// Records a second that a healthy consumer reads.
const SPEED: f64 = 100.0;
const LOAD: f64 = 0.8;
const PRODUCERS: usize = 4;
/// What happens before is not counted, in seconds.
const WARM_UP: f64 = 20.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scenario {
    Healthy,
    /// Partition 3 is read at a fifth of the speed.
    Slow,
    /// Partition 3 is not read from second 60 to 120.
    Stall,
    /// Consumers of half, the same and one and a half times the speed.
    Mixed,
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    scenario: Scenario,
    /// Seconds between two commits of a partition.
    commit: f64,
    /// Seconds between two observations.
    refresh: f64,
    /// Simulated seconds.
    length: f64,
    seed: u64,
    /// All producers look at the same moment.
    synchronised: bool,
    /// Runs of 50 ms of drain instead of single records.
    runs: bool,
}

impl Setup {
    fn new(scenario: Scenario, commit: f64, seed: u64) -> Self {
        Self {
            scenario,
            commit,
            refresh: 1.0,
            length: 150.0,
            seed,
            synchronised: false,
            runs: false,
        }
    }
}

/// One partition's log and its consumer. A record's reading time is known when it is written,
/// because each consumer reads in order.
struct Queue {
    speed: f64,
    stall: Option<(f64, f64)>,
    read_at: Vec<f64>,
    commit_phase: f64,
}

impl Queue {
    fn append(&mut self, now: f64, rng: &mut Rng) -> f64 {
        let work = (0.5 + 0.5 * exponential(rng)) / self.speed;
        let mut begin = now.max(self.read_at.last().copied().unwrap_or(0.0));
        if let Some((from, to)) = self.stall
            && (from..to).contains(&begin)
        {
            begin = to;
        }
        self.read_at.push(begin + work);
        begin + work
    }

    fn observe(&self, now: f64, commit: f64) -> Observed {
        let committed_at =
            ((now - self.commit_phase) / commit).floor() * commit + self.commit_phase;
        let committed = self.read_at.partition_point(|at| *at <= committed_at);
        Observed::Lag {
            end: self.read_at.len() as i64,
            committed: committed as i64,
            lag: (self.read_at.len() - committed) as u64,
            lost: 0,
        }
    }
}

struct Producer {
    observer: Observer,
    publisher: PlanPublisher,
    choice: Box<dyn Partitioner>,
    next_look: f64,
    /// The current run, with the records left and used of it.
    run: Option<Run>,
    left: u32,
    used: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Choice {
    Uniform,
    LagAware,
}

fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

fn queues(setup: &Setup, rng: &mut Rng) -> Vec<Queue> {
    let queue = |at: usize| Queue {
        speed: match setup.scenario {
            Scenario::Slow if at == 3 => SPEED / 5.0,
            Scenario::Mixed => SPEED * [0.5, 1.0, 1.5][at % 3],
            _ => SPEED,
        },
        stall: (setup.scenario == Scenario::Stall && at == 3).then_some((60.0, 120.0)),
        read_at: Vec::new(),
        commit_phase: rng.f64() * setup.commit - setup.commit,
    };
    (0..PARTITIONS).map(queue).collect()
}

fn producers(setup: &Setup, choice: Choice, rng: &mut Rng) -> Vec<Producer> {
    let refresh = Duration::from_secs_f64(setup.refresh);
    let common = rng.f64();
    let producer = |_| {
        let (publisher, reader) = plan_channel();
        let phase = if setup.synchronised {
            common
        } else {
            rng.f64()
        };
        let steer = LagAware::new(reader);
        Producer {
            observer: Observer::new(refresh),
            publisher,
            choice: match choice {
                Choice::Uniform => Box::new(Sticky::default()),
                Choice::LagAware if setup.runs => Box::new(steer),
                Choice::LagAware => Box::new(steer.run_drain(Duration::ZERO)),
            },
            next_look: phase * setup.refresh,
            run: None,
            left: 0,
            used: 0,
        }
    };
    (0..PRODUCERS).map(producer).collect()
}

/// The delays of all records from the warm-up on, in seconds, ascending; records unread at the end
/// count with their age.
fn simulate(setup: &Setup, choice: Choice) -> Vec<f64> {
    let mut rng = Rng::with_seed(setup.seed);
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let mut queues = queues(setup, &mut rng);
    let mut producers = producers(setup, choice, &mut rng);
    let view = TopicView {
        topic: "orders",
        partition_count: PARTITIONS as i32,
        available: &ALL,
        queued: &NoQueues,
        batch_bytes: 1_000_000,
        stripe: 0,
    };
    let refresh = Duration::from_secs_f64(setup.refresh);
    let arrivals = LOAD * SPEED * PARTITIONS as f64;
    let (mut now, mut delays) = (0.0, Vec::new());
    while now < setup.length {
        now += exponential(&mut rng) / arrivals;
        for producer in &mut producers {
            while choice == Choice::LagAware && producer.next_look <= now {
                let look = producer.next_look;
                let seen: Vec<_> = queues
                    .iter()
                    .map(|q| q.observe(look, setup.commit))
                    .collect();
                let sent = producer.publisher.sent("orders");
                let health = producer.observer.observe(at(look), &seen, sent);
                let plan = health.into_plan("orders".into(), at(look), refresh);
                producer.publisher.publish(vec![plan]);
                let jitter = if setup.synchronised {
                    1.0
                } else {
                    0.75 + 0.5 * rng.f64()
                };
                producer.next_look += setup.refresh * jitter;
            }
        }
        let writer = rng.usize(..PRODUCERS);
        let producer = &mut producers[writer];
        if producer.left == 0 {
            if let Some(run) = producer.run {
                producer.choice.end_run(&view, run, producer.used);
            }
            let mut run = producer.choice.begin_run(&view, at(now), rng.u64(..), None);
            if !setup.runs || choice == Choice::Uniform {
                // The study's choice is one a record, also before there is a plan.
                run.records = 1;
            }
            (producer.run, producer.left, producer.used) = (Some(run), run.records, 0);
        }
        producer.left -= 1;
        producer.used += 1;
        let to = producer.run.map_or(0, |run| run.partition);
        let read_at = queues[to as usize].append(now, &mut rng);
        if now >= WARM_UP {
            delays.push((now, read_at));
        }
    }
    let mut delays: Vec<f64> = delays
        .into_iter()
        .map(|(written, read)| read.min(setup.length) - written)
        .collect();
    delays.sort_by(f64::total_cmp);
    delays
}

fn p99(delays: &[f64]) -> f64 {
    delays[delays.len() * 99 / 100]
}

/// The p99 of uniform and of lag-aware placement.
fn compare(setup: Setup) -> (f64, f64) {
    let uniform = p99(&simulate(&setup, Choice::Uniform));
    let steered = p99(&simulate(&setup, Choice::LagAware));
    (uniform, steered)
}

#[test]
fn a_healthy_group_waits_no_longer_than_without_steering() {
    // The study holds the long run to 0.65 of uniform, whatever the commit interval.
    for (commit, seed) in [(0.1, 101), (5.0, 102)] {
        let (uniform, steered) = compare(Setup::new(Scenario::Healthy, commit, seed));
        assert!(
            steered <= 0.75 * uniform,
            "commit {commit} s, seed {seed}: {steered} against {uniform}"
        );
    }
}

#[test]
fn runs_of_fifty_milliseconds_do_not_hurt_a_healthy_group() {
    let setup = Setup {
        runs: true,
        ..Setup::new(Scenario::Healthy, 0.1, 103)
    };
    let (uniform, steered) = compare(setup);
    assert!(steered <= 1.25 * uniform, "{steered} against {uniform}");
}

#[test]
fn a_consumer_five_times_slower_costs_no_tail() {
    for (commit, seed, bound) in [(0.1, 104, 0.004), (5.0, 105, 0.03)] {
        let (uniform, steered) = compare(Setup::new(Scenario::Slow, commit, seed));
        assert!(
            steered <= bound * uniform,
            "commit {commit} s, seed {seed}: {steered} against {uniform}"
        );
    }
}

#[test]
fn a_stall_of_a_minute_holds_only_what_was_there() {
    for (commit, seed) in [(0.1, 106), (5.0, 107)] {
        let (uniform, steered) = compare(Setup::new(Scenario::Stall, commit, seed));
        assert!(
            steered <= 0.02 * uniform,
            "commit {commit} s, seed {seed}: {steered} against {uniform}"
        );
    }
}

#[test]
fn consumers_of_mixed_speed_get_what_they_can_read() {
    let (uniform, steered) = compare(Setup::new(Scenario::Mixed, 0.1, 108));
    assert!(steered <= 0.01 * uniform, "{steered} against {uniform}");
}

#[test]
fn synchronised_producers_on_old_data_do_not_herd() {
    let setup = Setup {
        refresh: 5.0,
        synchronised: true,
        ..Setup::new(Scenario::Healthy, 0.1, 109)
    };
    let delays = simulate(&setup, Choice::LagAware);
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!(mean < 0.1, "{mean}");
}

#[test]
#[ignore = "prints the study's table, minutes in a debug build"]
fn table() {
    for scenario in [
        Scenario::Healthy,
        Scenario::Slow,
        Scenario::Stall,
        Scenario::Mixed,
    ] {
        for commit in [0.1, 5.0, 30.0] {
            let (mut sums, rounds) = ([0.0; 4], 6);
            for seed in 0..rounds {
                let setup = Setup {
                    length: 300.0,
                    ..Setup::new(scenario, commit, 201 + seed)
                };
                let uniform = simulate(&setup, Choice::Uniform);
                let steered = simulate(&setup, Choice::LagAware);
                let median = |delays: &[f64]| delays[delays.len() / 2];
                for (sum, x) in sums.iter_mut().zip([
                    median(&uniform),
                    p99(&uniform),
                    median(&steered),
                    p99(&steered),
                ]) {
                    *sum += x / rounds as f64;
                }
            }
            println!(
                "{scenario:?} C={commit}: uniform {:.3}/{:.3}, steered {:.3}/{:.3}, ratio {:.4}",
                sums[0],
                sums[1],
                sums[2],
                sums[3],
                sums[3] / sums[1]
            );
        }
    }
}
