//! The world of one seed: what happens when.

use crate::groups::{Entry, Group, Topic};
use crate::writer::{Leaders, Placed, Writer};
use fastrand::Rng;
use ottla_partitioner::KeyPolicy;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 6;
const PARTITIONS_MAX: usize = 9;
const GROUPS_MAX: usize = 3;
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
/// Of a scene in which much has to rest for two minutes.
const LONG: u64 = 300_000;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Brokers fail, but consumers are well and the producer lives.
    Well,
    /// Consumers are slow, stand still, start anew and are set back too, groups are added, and the
    /// producer dies: another process begins, or one that has watched for long takes over.
    Storm,
    /// As a storm, with many threads that have a record in hand, and many answers that are lost.
    Threads,
    /// As a storm, and the topic is made anew and grows.
    Changes,
    /// As a storm, but each producer that dies is followed by another one of its process, and what it
    /// sent last arrives up to a hundred seconds after its death, or never.
    Ends,
}

impl Scene {
    fn length(self) -> u64 {
        match self {
            Self::Ends => LONG,
            _ => LENGTH,
        }
    }
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
    /// Records that were appended after others that were placed later.
    pub(crate) crossed: u64,
    /// How often the topic was made anew or grew.
    pub(crate) changes: u64,
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
        self.crossed += other.crossed;
        self.changes += other.changes;
    }
}

struct World {
    rng: Rng,
    scene: Scene,
    policy: KeyPolicy,
    topic: Topic,
    groups: Vec<Group>,
    commit_every: u64,
    leaders: Leaders,
    writer: Writer,
    /// Looks at the groups as the writer does, and writes nothing until that one is dead.
    standby: Writer,
    /// The key of the record that a caller could not place or append, by caller.
    waiting: Vec<Option<usize>>,
    /// The record that a caller has placed and will append then.
    in_hand: Vec<Option<(u64, Placed)>>,
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
        _ => SPEED,
    };
    let group = |_| Group::new(PARTITIONS, KEYS, speed, commit_every, 0);
    let mut world = World {
        scene,
        policy,
        topic: Topic {
            logs: vec![Vec::new(); PARTITIONS],
            id: 0,
            life: 0,
        },
        commit_every,
        groups: (0..group_count).map(group).collect(),
        leaders: Leaders {
            available: (0..PARTITIONS as i32).collect(),
            cut_until: vec![0; PARTITIONS_MAX],
            trouble: if scene == Scene::Threads { 8 } else { 1 },
        },
        writer: Writer::new(policy, PARTITIONS, group_count),
        standby: Writer::new(policy, PARTITIONS, group_count),
        waiting: vec![None; CALLERS],
        in_hand: (0..CALLERS).map(|_| None).collect(),
        numbers: vec![0; KEYS],
        outcome: Outcome::default(),
        rng,
    };
    let begun = Instant::now();
    for now in (0..scene.length()).step_by(STEP as usize) {
        world.step(now, begun + Duration::from_millis(now));
    }
    world.end()
}

impl World {
    fn step(&mut self, now: u64, at: Instant) {
        for group in &mut self.groups {
            group.step(now, STEP, &self.topic.logs);
        }
        self.trouble(now);
        let (writer, logs) = (&mut self.writer, &mut self.topic.logs);
        writer.deliver(&mut self.rng, now, &self.leaders, logs);
        writer.look(&mut self.rng, now, at, &self.groups, &self.topic);
        let standby = &mut self.standby;
        standby.look(&mut self.rng, now, at, &self.groups, &self.topic);
        let knows = self.writer.knows(&self.topic);
        self.topic.life += u32::from(knows && self.topic.life % 2 == 1);
        for caller in 0..CALLERS {
            self.call(caller, now, at);
        }
    }

    /// One caller writes on: first what it has in hand, and what it could not place before.
    fn call(&mut self, caller: usize, now: u64, at: Instant) {
        match self.in_hand[caller].take() {
            Some((due, placed)) if now < due => {
                self.in_hand[caller] = Some((due, placed));
                return;
            }
            Some((_, placed)) => {
                self.outcome.crossed += 1;
                self.append(caller, now, placed);
            }
            None => {}
        }
        let mut due = self.waiting[caller].take();
        let chance = PACE / CALLERS as f64 * STEP as f64 / 1_000.0;
        for _ in 0..4 {
            let key = match due.take() {
                Some(key) => key,
                None if self.rng.f64() < chance / 4.0 => self.key(caller),
                None => continue,
            };
            let entry = Entry {
                key,
                number: self.numbers[key],
                placed_at: now,
                life: self.topic.life,
            };
            let writer = &mut self.writer;
            let Some(placed) = writer.place(&mut self.rng, at, &self.leaders, entry) else {
                self.outcome.held += 1;
                self.waiting[caller] = Some(key);
                return;
            };
            // Now and then other threads come in between.
            let (often, long) = match self.scene {
                Scene::Threads => (24, 800),
                _ => (20, 200),
            };
            if self.rng.u8(..) < often {
                self.in_hand[caller] = Some((now + self.rng.u64(1..long), placed));
                return;
            }
            if !self.append(caller, now, placed) {
                return;
            }
        }
    }

    fn append(&mut self, caller: usize, now: u64, placed: Placed) -> bool {
        let key = placed.entry.key;
        let is_taken = self.writer.append(&mut self.rng, now, placed);
        match is_taken {
            true => self.numbers[key] += 1,
            false => self.waiting[caller] = Some(key),
        }
        is_taken
    }

    /// A key of this caller: some are used all the time, most now and then.
    fn key(&mut self, caller: usize) -> usize {
        let own = KEYS / CALLERS;
        let skew = if self.scene == Scene::Ends { 9 } else { 3 };
        let skewed = self.rng.f64().powi(skew);
        ((skewed * own as f64) as usize).min(own - 1) * CALLERS + caller
    }

    fn trouble(&mut self, now: u64) {
        let partitions = self.topic.logs.len();
        let partition = self.rng.usize(..partitions);
        let mut happens =
            |times_a_minute: f64| self.rng.f64() < times_a_minute * STEP as f64 / 60_000.0;
        let (cut, moved, slow) = (happens(10.0), happens(6.0), happens(20.0));
        // Of a scene about producers' deaths the brokers are far away when these come.
        let (deaths, cut_long) = match self.scene {
            Scene::Ends => (6.0, 10_000),
            _ => (2.0, 2_000),
        };
        let (restart, consumer_restarts) = (happens(deaths), happens(6.0));
        let (rewind, anew, grows) = (happens(1.0), happens(2.0), happens(1.0));
        if cut {
            self.leaders.cut_until[partition] = now + self.rng.u64(100..cut_long);
        }
        if moved {
            // Elections: some partitions have no leader for a while.
            let mut all: Vec<i32> = (0..partitions as i32).collect();
            all.retain(|_| self.rng.u8(..) < 200);
            self.leaders.available = all;
        } else if self.rng.u8(..) < 8 {
            self.leaders.available = (0..partitions as i32).collect();
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
        if rewind {
            let group = self.rng.usize(..self.groups.len());
            self.groups[group].rewind(&mut self.rng, partition);
        }
        if restart {
            self.restart(now);
        }
        if self.scene == Scene::Changes && (anew || grows && partitions < PARTITIONS_MAX) {
            self.change(now, anew);
        }
    }

    fn restart(&mut self, now: u64) {
        self.outcome.restarts += 1;
        self.count_moves();
        let partitions = self.topic.logs.len();
        match self.scene {
            Scene::Ends => self.writer.crash_unheard(&mut self.rng, now),
            _ => self.writer.crash(&mut self.rng, &mut self.topic.logs),
        }
        for (waiting, placed) in self.waiting.iter_mut().zip(&mut self.in_hand) {
            let placed = placed.take().map(|(_, placed)| placed.entry.key);
            *waiting = waiting.or(placed);
        }
        match self.rng.u8(..4) {
            _ if self.scene == Scene::Ends => self.writer.take_over(),
            0 | 1 => self.writer.take_over(),
            2 => {
                if self.rng.bool() && self.groups.len() < GROUPS_MAX {
                    let group = Group::new(partitions, KEYS, SPEED, self.commit_every, now);
                    self.groups.push(group);
                    self.standby = Writer::new(self.policy, partitions, self.groups.len());
                }
                self.writer = Writer::new(self.policy, partitions, self.groups.len());
            }
            _ => {
                let next = Writer::new(self.policy, partitions, self.groups.len());
                self.writer = std::mem::replace(&mut self.standby, next);
            }
        }
        if !self.writer.knows(&self.topic) {
            self.topic.changes();
        }
    }

    /// The topic is made anew, or grows by a partition.
    fn change(&mut self, now: u64, anew: bool) {
        self.outcome.changes += 1;
        self.topic.changes();
        if anew {
            self.topic.id += 1;
            self.topic.logs.iter_mut().for_each(Vec::clear);
            self.groups.iter_mut().for_each(Group::topic_made_anew);
            return;
        }
        self.topic.logs.push(Vec::new());
        let partitions = self.topic.logs.len();
        for group in &mut self.groups {
            group.topic_has_grown(partitions);
        }
        for writer in [&mut self.writer, &mut self.standby] {
            writer.topic_has_grown(partitions, now + self.rng.u64(1..3_000));
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
            for partition in 0..self.topic.logs.len() {
                group.set_speed(partition, 1e9);
            }
            group.step(self.scene.length(), STEP, &self.topic.logs);
            self.outcome.processed += group.processed;
            self.outcome.violations += group.order.violations;
            self.outcome.repeated += group.repeated;
            let overtaken = group.order.overtaken.take();
            self.outcome.overtaken = self.outcome.overtaken.take().or(overtaken);
        }
        self.outcome
    }
}
