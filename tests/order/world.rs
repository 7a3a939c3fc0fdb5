//! The world of one seed: what happens when.

use crate::groups::{Entry, Group};
use crate::writer::{Leaders, Taken, Writer};
use fastrand::Rng;
use ottla_partitioner::KeyPolicy;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 6;
const KEYS: usize = 240;
/// Each calls for keys of its own, and waits when one of them has no place.
const CALLERS: usize = 6;
/// Records a second of all callers together.
const PACE: f64 = 150.0;
/// What a healthy consumer reads, in records a second.
const SPEED: f64 = 60.0;
/// In a scene where none ever falls behind, not even by what comes when a broker is back.
const WELL_SPEED: f64 = 300.0;
const STEP: u64 = 20;
const LENGTH: u64 = 60_000;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Brokers fail, but consumers are well and the producer lives.
    Well,
    /// Consumers are slow, stand still and start anew too, and the producer dies.
    Storm,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) processed: u64,
    pub(crate) violations: u64,
    pub(crate) overtaken: Option<String>,
    /// How often a slot of keys moved.
    pub(crate) moves: u64,
    /// How often a record was held because its key had no place yet.
    pub(crate) held: u64,
    pub(crate) restarts: u64,
    /// Records that consumers processed once more after a restart of theirs.
    pub(crate) repeated: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.processed += other.processed;
        self.violations += other.violations;
        self.overtaken = self.overtaken.take().or(other.overtaken);
        self.moves += other.moves;
        self.held += other.held;
        self.restarts += other.restarts;
        self.repeated += other.repeated;
    }
}

struct World {
    rng: Rng,
    scene: Scene,
    policy: KeyPolicy,
    logs: Vec<Vec<Entry>>,
    groups: Vec<Group>,
    leaders: Leaders,
    writer: Writer,
    /// The record that a caller could not place, by caller.
    waiting: Vec<Option<usize>>,
    /// The number of each key's next record.
    numbers: Vec<u32>,
    outcome: Outcome,
}

/// Plays one seed.
pub(crate) fn play(seed: u64, policy: KeyPolicy, scene: Scene) -> Outcome {
    let mut rng = Rng::with_seed(seed ^ 0x6f72_6465_7200);
    let group_count = 1 + usize::from(rng.u8(..) < 64);
    let mut commit_every = *rng.choice(&[100, 1_000, 3_000]).unwrap_or(&1_000);
    if scene == Scene::Well {
        // A group that commits seldom may be taken for one that is behind, after a cut.
        commit_every = commit_every.min(1_000);
    }
    let speed = match scene {
        Scene::Well => WELL_SPEED,
        Scene::Storm => SPEED,
    };
    let group = |_| Group::new(PARTITIONS, KEYS, speed, commit_every);
    let mut world = World {
        scene,
        policy,
        logs: vec![Vec::new(); PARTITIONS],
        groups: (0..group_count).map(group).collect(),
        leaders: Leaders {
            available: (0..PARTITIONS as i32).collect(),
            cut_until: vec![0; PARTITIONS],
        },
        writer: Writer::new(policy, PARTITIONS, group_count),
        waiting: vec![None; CALLERS],
        numbers: vec![0; KEYS],
        outcome: Outcome::default(),
        rng,
    };
    let begun = Instant::now();
    for now in (0..LENGTH).step_by(STEP as usize) {
        world.step(now, begun + Duration::from_millis(now));
    }
    world.end()
}

impl World {
    fn step(&mut self, now: u64, at: Instant) {
        for group in &mut self.groups {
            group.step(now, STEP, &self.logs);
        }
        self.trouble(now);
        let writer = &mut self.writer;
        writer.deliver(&mut self.rng, now, &self.leaders, &mut self.logs);
        writer.look(&mut self.rng, now, at, &self.groups, &self.logs);
        for caller in 0..CALLERS {
            self.call(caller, now, at);
        }
    }

    /// One caller writes on: first what it could not place before.
    fn call(&mut self, caller: usize, now: u64, at: Instant) {
        let mut due = self.waiting[caller].take();
        let chance = PACE / CALLERS as f64 * STEP as f64 / 1_000.0;
        for _ in 0..4 {
            let key = match due.take() {
                Some(key) => key,
                None if self.rng.f64() < chance / 4.0 => self.key(caller),
                None => continue,
            };
            let number = self.numbers[key];
            let entry = Entry { key, number };
            let writer = &mut self.writer;
            let taken = writer.enqueue(&mut self.rng, now, at, &self.leaders, entry);
            self.outcome.held += u64::from(taken == Taken::Unplaced);
            if taken != Taken::Yes {
                self.waiting[caller] = Some(key);
                return;
            }
            self.numbers[key] += 1;
        }
    }

    /// A key of this caller: some are used all the time, most now and then.
    fn key(&mut self, caller: usize) -> usize {
        let own = KEYS / CALLERS;
        let skewed = self.rng.f64().powi(3);
        ((skewed * own as f64) as usize).min(own - 1) * CALLERS + caller
    }

    fn trouble(&mut self, now: u64) {
        let partition = self.rng.usize(..PARTITIONS);
        let mut happens =
            |times_a_minute: f64| self.rng.f64() < times_a_minute * STEP as f64 / 60_000.0;
        let (cut, moved, slow) = (happens(10.0), happens(6.0), happens(20.0));
        let (restart, consumer_restarts) = (happens(2.0), happens(6.0));
        if cut {
            self.leaders.cut_until[partition] = now + self.rng.u64(100..2_000);
        }
        if moved {
            // Elections: some partitions have no leader for a while.
            let mut all: Vec<i32> = (0..PARTITIONS as i32).collect();
            all.retain(|_| self.rng.u8(..) < 200);
            self.leaders.available = all;
        } else if self.rng.u8(..) < 8 {
            self.leaders.available = (0..PARTITIONS as i32).collect();
        }
        if self.scene == Scene::Well {
            return;
        }
        if slow {
            let speed = SPEED
                * *self
                    .rng
                    .choice(&[0.0, 0.1, 0.2, 0.3, 1.0, 1.0, 3.0])
                    .unwrap_or(&1.0);
            let group = self.rng.usize(..self.groups.len());
            self.groups[group].set_speed(partition, speed);
        }
        if consumer_restarts {
            let group = self.rng.usize(..self.groups.len());
            self.groups[group].restart(partition);
        }
        if restart {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.outcome.restarts += 1;
        self.count_moves();
        self.writer.crash(&mut self.rng, &mut self.logs);
        if self.rng.bool() {
            self.writer.take_over();
        } else {
            self.writer = Writer::new(self.policy, PARTITIONS, self.groups.len());
        }
    }

    fn count_moves(&mut self) {
        let topics = self.writer.steer.counters().topics;
        self.outcome.moves += topics.iter().map(|topic| topic.key_moves).sum::<u64>();
    }

    /// The consumers read what is left.
    fn end(mut self) -> Outcome {
        self.count_moves();
        for group in &mut self.groups {
            for partition in 0..PARTITIONS {
                group.set_speed(partition, 1e9);
            }
            group.step(LENGTH, STEP, &self.logs);
            self.outcome.processed += group.processed;
            self.outcome.violations += group.violations;
            self.outcome.repeated += group.repeated;
            let overtaken = group.overtaken.take();
            self.outcome.overtaken = self.outcome.overtaken.take().or(overtaken);
        }
        self.outcome
    }
}
