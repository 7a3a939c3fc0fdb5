//! The partitions and their consumers.

use super::scenario::{SPEED, Setup, exponential};
use fastrand::Rng;

/// A consumer's speed over time, in steps: from when, and which part of the usual speed.
#[derive(Debug)]
pub(super) struct Pace {
    steps: Vec<(f64, f64)>,
    at: usize,
}

impl Pace {
    pub(super) fn new(steps: Vec<(f64, f64)>) -> Self {
        Self { steps, at: 0 }
    }

    /// When work that is begun at `begin` is done. Called with times that only go forward.
    fn done(&mut self, begin: f64, mut work: f64) -> f64 {
        let mut now = begin;
        loop {
            let until = self
                .steps
                .get(self.at + 1)
                .map_or(f64::INFINITY, |step| step.0);
            if until <= now {
                self.at += 1;
                continue;
            }
            let speed = self.steps.get(self.at).map_or(1.0, |step| step.1);
            let left = (until - now) * speed;
            if left >= work || until.is_infinite() {
                return now + work / speed;
            }
            work -= left;
            now = until;
        }
    }
}

/// One partition: when each record was written and read.
#[derive(Debug, Default)]
struct Log {
    written: Vec<f64>,
    /// Of the records that were begun to be read; ascending.
    read: Vec<f64>,
    blocked: Option<(f64, f64)>,
}

impl Log {
    /// When the next record can be read at the earliest.
    fn ready_at(&self) -> f64 {
        let Some(written) = self.written.get(self.read.len()).copied() else {
            return f64::INFINITY;
        };
        match self.blocked {
            Some((from, to)) if (from..to).contains(&written) => to,
            _ => written,
        }
    }

    fn read_by(&self, now: f64) -> usize {
        self.read.partition_point(|at| *at <= now)
    }
}

#[derive(Debug)]
struct Consumer {
    /// Its partitions are `first..first + count`.
    first: usize,
    count: usize,
    speed: f64,
    pace: Pace,
    /// When it is done with what it began.
    free_at: f64,
    /// The partition that it reads, counted from its first, and how many records in a row already.
    current: usize,
    row: u32,
    row_max: u32,
    commit_phase: f64,
    rng: Rng,
}

impl Consumer {
    /// Reads what it begins to read by `now`.
    fn go_on(&mut self, logs: &mut [Log], now: f64) {
        let Some(logs) = logs.get_mut(self.first..self.first + self.count) else {
            return;
        };
        loop {
            let Some(at) = self.next(logs) else { return };
            let Some(log) = logs.get_mut(at) else { return };
            let begin = self.free_at.max(log.ready_at());
            if begin > now {
                return;
            }
            if at != self.current {
                (self.current, self.row) = (at, 0);
            }
            self.row += 1;
            let work = (0.5 + 0.5 * exponential(&mut self.rng)) / self.speed;
            self.free_at = self.pace.done(begin, work);
            log.read.push(self.free_at);
        }
    }

    /// The partition it reads from next: the same while it has records and their number in a row
    /// allows, then the next that has; when none has any, the one that has them first.
    fn next(&self, logs: &[Log]) -> Option<usize> {
        let ready = |at: usize| {
            logs.get(at)
                .is_some_and(|log| log.ready_at() <= self.free_at)
        };
        if self.row < self.row_max && ready(self.current) {
            return Some(self.current);
        }
        let turn = (1..=self.count).map(|step| (self.current + step) % self.count);
        let soonest = || {
            let at = |log: &(usize, &Log)| log.1.ready_at();
            let all = logs.iter().enumerate();
            all.min_by(|a, b| at(a).total_cmp(&at(b))).map(|(at, _)| at)
        };
        turn.into_iter().find(|at| ready(*at)).or_else(soonest)
    }
}

/// What a look finds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) end: usize,
    pub(super) committed: usize,
}

impl Offsets {
    pub(super) fn lag(self) -> usize {
        self.end - self.committed
    }
}

#[derive(Debug)]
pub(super) struct World {
    logs: Vec<Log>,
    consumers: Vec<Consumer>,
    commit: f64,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        // Not the seed that arrivals are drawn from: two streams must not be the same.
        let mut rng = Rng::with_seed(setup.seed ^ 0x5eed_c0de);
        let scenario = setup.scenario;
        let each = scenario.partitions_each();
        let log = |at| Log {
            blocked: scenario.blocked(at),
            ..Log::default()
        };
        let consumer = |at: usize| Consumer {
            first: at * each,
            count: each,
            speed: SPEED * each as f64,
            pace: scenario.pace(at, setup.length, &mut rng),
            free_at: 0.0,
            current: 0,
            row: 0,
            row_max: scenario.records_in_a_row(),
            commit_phase: rng.f64() * setup.commit,
            rng: rng.fork(),
        };
        Self {
            logs: (0..setup.partitions).map(log).collect(),
            consumers: (0..setup.partitions / each).map(consumer).collect(),
            commit: setup.commit,
        }
    }

    /// Writes a record.
    pub(super) fn append(&mut self, partition: usize, now: f64) {
        if let Some(log) = self.logs.get_mut(partition) {
            log.written.push(now);
        }
    }

    /// Lets the consumers read until `now`; nothing may be written earlier after that.
    pub(super) fn go_on(&mut self, now: f64) {
        for consumer in &mut self.consumers {
            consumer.go_on(&mut self.logs, now);
        }
    }

    /// What a look at `now` finds. The consumers must have gone on until then.
    pub(super) fn look(&self, now: f64, seen: &mut Vec<Offsets>) {
        seen.clear();
        let consumers = self
            .consumers
            .iter()
            .flat_map(|c| std::iter::repeat_n(c, c.count));
        let found = self.logs.iter().zip(consumers).map(|(log, consumer)| {
            let commits = ((now - consumer.commit_phase) / self.commit).floor();
            let committed_at = consumer.commit_phase + commits * self.commit;
            Offsets {
                end: log.written.len(),
                committed: log.read_by(committed_at),
            }
        });
        seen.extend(found);
    }

    /// How many records of each partition are unread at `now`.
    pub(super) fn unread(&self, now: f64) -> impl Iterator<Item = usize> {
        self.logs
            .iter()
            .map(move |log| log.written.len() - log.read_by(now))
    }

    /// The seconds that each record written from `from` on waited; one that is unread at `end` counts
    /// with its age.
    pub(super) fn delays(&self, from: f64, end: f64) -> Vec<f32> {
        let of = |log: &Log| {
            let unread = std::iter::repeat(end);
            let read = log.read.clone().into_iter().chain(unread);
            let both = log.written.clone().into_iter().zip(read);
            both.filter(move |(written, _)| *written >= from)
                .map(move |(written, read)| (read.min(end) - written) as f32)
        };
        self.logs.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;
    use super::*;

    fn world(scenario: Scenario) -> World {
        World::new(&Setup::new(scenario, 1.0))
    }

    #[test]
    fn a_slow_time_is_spread_over_the_steps_it_touches() {
        let mut pace = Pace::new(vec![(0.0, 1.0), (10.0, 0.0), (20.0, 0.5)]);
        assert_eq!(pace.done(1.0, 2.0), 3.0);
        assert_eq!(
            pace.done(9.0, 2.0),
            22.0,
            "one before the stop, one at half the speed"
        );
        assert_eq!(pace.done(30.0, 1.0), 32.0);
    }

    #[test]
    fn a_consumer_reads_in_order_and_commits_what_it_has_read() {
        let mut world = world(Scenario::Healthy);
        for _ in 0..50 {
            world.append(0, 0.0);
        }
        world.go_on(100.0);
        let log = &world.logs[0];
        assert!(log.read.is_sorted() && log.read.len() == 50);
        let mut seen = Vec::new();
        world.look(100.0, &mut seen);
        assert_eq!((seen[0].end, seen[0].committed), (50, 50));
        world.look(0.0, &mut seen);
        assert_eq!(seen[0].lag(), 50, "nothing was committed yet");
    }

    #[test]
    fn a_greedy_consumer_drains_one_partition_before_the_next() {
        let mut world = world(Scenario::Greedy);
        for partition in [0, 1, 2, 0, 1, 2] {
            world.append(partition, 0.0);
        }
        world.go_on(100.0);
        let first = world.logs[0].read.last().unwrap();
        assert!(world.logs[1..3].iter().all(|log| log.read[0] > *first));
    }

    #[test]
    fn behind_an_open_transaction_nothing_is_read_and_its_consumer_goes_on() {
        let mut world = world(Scenario::OpenTransaction);
        world.append(3, 59.0);
        world.append(3, 61.0);
        world.append(4, 61.0);
        world.go_on(200.0);
        assert!(world.logs[3].read[0] < 60.0 && world.logs[3].read[1] > 120.0);
        assert!(world.logs[4].read[0] < 62.0);
    }

    #[test]
    fn what_is_unread_at_the_end_counts_with_its_age() {
        let mut world = world(Scenario::Healthy);
        world.append(0, 1.0);
        world.append(0, 8.0);
        world.go_on(7.0);
        let delays = world.delays(5.0, 10.0);
        assert_eq!(delays, [2.0]);
    }
}
