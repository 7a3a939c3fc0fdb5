//! One run: records come, producers look and choose, consumers read.

use super::choice::{Chooser, Rule};
use super::figures::Figures;
use super::scenario::{SPEED, Setup, exponential};
use super::world::World;
use fastrand::Rng;
use std::time::Instant;

/// What was written before is not counted, in seconds.
pub(super) const WARM_UP: f64 = 20.0;

/// Seconds between two counts of what is unread.
const SAMPLE: f64 = 1.0;

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How long records waited.
    pub figures: Figures,
    /// How many records were unread, every second.
    pub lag: Vec<f64>,
}

struct Producer {
    chooser: Box<dyn Chooser>,
    next_look: f64,
    /// When it looks and which of its looks fail.
    looks: Rng,
    /// Where the current run goes, and how many records go with it still.
    partition: usize,
    left: u32,
}

impl Producer {
    fn next_partition(&mut self, now: f64, run: u32, rng: &mut Rng) -> usize {
        if self.left == 0 {
            (self.partition, self.left) = self.chooser.choose(now, run, rng);
        }
        self.left = self.left.saturating_sub(1);
        self.partition
    }
}

struct Play<'s> {
    setup: &'s Setup,
    world: World,
    producers: Vec<Producer>,
    next_sample: f64,
    outcome: Outcome,
    /// The sum of the standard deviations, one a sample after the warm-up.
    spread: f64,
}

/// Plays one run. The same setup brings the same arrivals, consumers and looks to every rule.
pub fn play(setup: &Setup, rule: Rule) -> Outcome {
    let start = Instant::now();
    let producer = |at: usize| {
        // Who looks together has one source of chance.
        let own = if setup.synchronised { 0 } else { at as u64 };
        let mut looks = Rng::with_seed(setup.seed ^ 0x10_0c5 ^ own << 32);
        Producer {
            chooser: rule.chooser(setup, start),
            next_look: setup.refresh * looks.f64(),
            looks,
            partition: 0,
            left: 0,
        }
    };
    let producers = (0..setup.producers).map(producer).collect();
    let play = Play {
        setup,
        world: World::new(setup),
        producers,
        next_sample: 0.0,
        outcome: Outcome {
            figures: Figures::default(),
            lag: Vec::new(),
        },
        spread: 0.0,
    };
    play.finish()
}

impl Play<'_> {
    fn finish(mut self) -> Outcome {
        let setup = self.setup;
        let mut arrivals = Rng::with_seed(setup.seed);
        let mut chance = Rng::with_seed(setup.seed ^ 0xc4a_4ce);
        let rate = setup.load * SPEED * setup.partitions as f64;
        let mut now = 0.0;
        let mut next_event = self.events_until(now);
        loop {
            now += exponential(&mut arrivals) / (rate * setup.scenario.arrivals(now));
            if now >= next_event {
                next_event = self.events_until(now.min(setup.length));
            }
            if now >= setup.length {
                return self.outcome();
            }
            let Some(producer) = self.producers.get_mut(arrivals.usize(..setup.producers)) else {
                return self.outcome();
            };
            let partition = producer.next_partition(now, setup.run, &mut chance);
            self.world.append(partition, now);
        }
    }

    /// Looks and samples in their order until `now`; gives the time of the next.
    fn events_until(&mut self, now: f64) -> f64 {
        let mut seen = Vec::new();
        loop {
            let looks = self.producers.iter_mut();
            let next = looks.min_by(|a, b| a.next_look.total_cmp(&b.next_look));
            let next_look = next.as_ref().map_or(f64::INFINITY, |p| p.next_look);
            if next_look.min(self.next_sample) > now {
                return next_look.min(self.next_sample);
            }
            if self.next_sample <= next_look {
                self.sample();
                continue;
            }
            let Some(producer) = next else {
                return self.next_sample;
            };
            let (jitter, fate) = (0.75 + 0.5 * producer.looks.f64(), producer.looks.f64());
            if fate >= self.setup.lost {
                self.world.go_on(next_look);
                self.world.look(next_look, &mut seen);
                producer.chooser.look(next_look, &seen);
            }
            producer.next_look += self.setup.refresh * jitter;
        }
    }

    fn sample(&mut self) {
        let now = self.next_sample;
        self.world.go_on(now);
        let unread = || self.world.unread(now).map(|unread| unread as f64);
        let count = self.setup.partitions as f64;
        let total: f64 = unread().sum();
        if now >= WARM_UP {
            let squares: f64 = unread()
                .map(|unread| (unread - total / count).powi(2))
                .sum();
            self.spread += (squares / count).sqrt();
        }
        self.outcome.lag.push(total);
        self.next_sample += SAMPLE;
    }

    fn outcome(mut self) -> Outcome {
        let end = self.setup.length;
        self.world.go_on(end);
        let mut figures = Figures::of_delays(self.world.delays(WARM_UP, end));
        let counted = self.outcome.lag.iter().skip((WARM_UP / SAMPLE) as usize);
        let samples = counted.len().max(1) as f64;
        figures.lag = counted.sum::<f64>() / samples;
        figures.oscillation = self.spread / samples;
        self.outcome.figures = figures;
        self.outcome
    }
}
