//! Consumer groups, and what a producer is told of them.

use fastrand::Rng;
use ottla_lag::health::{Health, Observed, Observer};
use ottla_partitioner::{Committed, KeyOffsets, TopicPlan};
use ottla_tests::order::{Again, OrderChecker, Processed};
use std::time::{Duration, Instant};

/// One record as it lies in a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) key: usize,
    /// Its number among the records of its key.
    pub(crate) number: u32,
    /// When it was given its place, in milliseconds.
    pub(crate) placed_at: u64,
    /// Between which changes of the topic; see [`Topic`].
    pub(crate) life: u32,
}

/// What the brokers have under the topic's name. Its logs, and when it is made anew or grows, which
/// ends what is promised of earlier records: its life is odd from then until the producer knows.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) logs: Vec<Vec<Entry>>,
    pub(crate) id: u8,
    pub(crate) life: u32,
}

impl Topic {
    /// From now on, until the producer knows, nothing is promised.
    pub(crate) fn changes(&mut self) {
        self.life |= 1;
    }
}

/// One partition's consumer.
#[derive(Debug, Clone)]
struct Consumer {
    /// In records a second.
    speed: f64,
    /// What it may read by now, in records; whole ones are read.
    credit: f64,
    processed: usize,
    /// Up to here it has processed records before, perhaps before it was started anew.
    ever_processed: usize,
    /// What lies before was committed once, and is read again after somebody set the group back.
    again_until: usize,
    /// `None` until the first commit.
    committed: Option<i64>,
}

impl Consumer {
    fn new(speed: f64) -> Self {
        Self {
            speed,
            credit: 0.0,
            processed: 0,
            ever_processed: 0,
            again_until: 0,
            committed: None,
        }
    }
}

/// A consumer group that commits what it has processed.
#[derive(Debug)]
pub(crate) struct Group {
    consumers: Vec<Consumer>,
    pub(crate) order: OrderChecker,
    speed: f64,
    commit_every: u64,
    /// Since when it is watched; it is promised nothing of what was written before.
    since: u64,
    pub(crate) processed: u64,
    /// Records that were processed once more, after a restart.
    pub(crate) repeated: u64,
}

impl Group {
    pub(crate) fn new(
        partitions: usize,
        keys: usize,
        speed: f64,
        commit_every: u64,
        since: u64,
    ) -> Self {
        Self {
            consumers: vec![Consumer::new(speed); partitions],
            order: OrderChecker::new(keys),
            speed,
            commit_every,
            since,
            processed: 0,
            repeated: 0,
        }
    }

    /// Its topic was made anew: its commits went with the former one.
    pub(crate) fn topic_made_anew(&mut self) {
        for consumer in &mut self.consumers {
            *consumer = Consumer::new(consumer.speed);
        }
    }

    pub(crate) fn topic_has_grown(&mut self, partitions: usize) {
        self.consumers.resize(partitions, Consumer::new(self.speed));
    }

    /// Somebody sets the group back in a partition.
    pub(crate) fn rewind(&mut self, rng: &mut Rng, partition: usize) {
        let consumer = &mut self.consumers[partition];
        if let Some(committed) = consumer.committed {
            consumer.again_until = consumer.again_until.max(committed as usize);
            consumer.committed = Some(rng.i64(0..=committed));
            self.restart(partition);
        }
    }

    pub(crate) fn set_speed(&mut self, partition: usize, speed: f64) {
        self.consumers[partition].speed = speed;
    }

    /// A partition's consumer ends, and another one reads on from its last commit.
    pub(crate) fn restart(&mut self, partition: usize) {
        let consumer = &mut self.consumers[partition];
        consumer.processed = consumer.committed.map_or(0, |offset| offset as usize);
        consumer.credit = 0.0;
    }

    /// Reads on for so many milliseconds, and commits where that is due.
    pub(crate) fn step(&mut self, now: u64, millis: u64, logs: &[Vec<Entry>]) {
        for (partition, log) in logs.iter().enumerate() {
            let consumer = &mut self.consumers[partition];
            consumer.credit += consumer.speed * millis as f64 / 1_000.0;
            while consumer.credit >= 1.0 && consumer.processed < log.len() {
                consumer.credit -= 1.0;
                let entry = log[consumer.processed];
                let is_repeated = consumer.processed < consumer.ever_processed;
                consumer.processed += 1;
                consumer.ever_processed = consumer.ever_processed.max(consumer.processed);
                self.processed += u64::from(!is_repeated);
                self.repeated += u64::from(is_repeated);
                if entry.life % 2 == 1 || entry.placed_at < self.since {
                    continue;
                }
                let again = match is_repeated {
                    true if consumer.processed <= consumer.again_until => Again::Rewound,
                    true => Again::Restarted,
                    false => Again::No,
                };
                let record = Processed {
                    key: entry.key,
                    number: entry.number,
                    place: partition,
                    life: entry.life,
                    again,
                };
                self.order.process(record, format_args!("{now} ms"));
            }
            // Who has nothing to read does not save his time up.
            consumer.credit = consumer.credit.min(1.0);
            // Consumers do not commit all at the same time.
            if (now + 37 * partition as u64) % self.commit_every < millis && consumer.processed > 0
            {
                consumer.committed = Some(consumer.processed as i64);
            }
        }
    }
}

/// What looks at one group for one producer.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// The topic that is observed.
    id: u8,
    observers: Vec<Observer>,
}

impl Watcher {
    pub(crate) fn new(groups: usize, refresh: Duration) -> Self {
        Self {
            id: 0,
            observers: (0..groups).map(|_| Observer::new(refresh)).collect(),
        }
    }

    /// Looks at all groups; now and then a partition does not answer.
    pub(crate) fn look(
        &mut self,
        rng: &mut Rng,
        now: Instant,
        refresh: Duration,
        groups: &[Group],
        topic: &Topic,
        sent: u64,
    ) -> TopicPlan {
        let logs = &topic.logs;
        if self.id != topic.id {
            *self = Self::new(groups.len(), refresh);
            self.id = topic.id;
        }
        let missing: Vec<bool> = logs.iter().map(|_| rng.u8(..) < 8).collect();
        let mut healths = Vec::new();
        let mut offsets = vec![None; logs.len()];
        for (group, observer) in groups.iter().zip(&mut self.observers) {
            let partitions = group.consumers.iter().zip(logs).zip(&missing);
            let observed: Vec<Observed> = partitions
                .map(
                    |((consumer, log), missing)| match (missing, consumer.committed) {
                        (true, _) => Observed::Missing,
                        (_, None) => Observed::NoCommit {
                            end: log.len() as i64,
                        },
                        (_, Some(committed)) => Observed::Lag {
                            end: log.len() as i64,
                            committed,
                            lag: (log.len() as i64 - committed) as u64,
                            lost: 0,
                        },
                    },
                )
                .collect();
            for (at, seen) in observed.iter().enumerate() {
                let own = key_offsets(*seen);
                let all = &mut offsets[at];
                *all = Some(all.map_or(own, |all: KeyOffsets| all.joined(own)));
            }
            healths.push(observer.observe(now, &observed, sent));
        }
        let offsets = offsets.into_iter().map(Option::unwrap_or_default);
        Health::of_groups(healths)
            .into_plan("orders".into(), now, refresh)
            .with_key_offsets(offsets.collect())
            .with_topic_id(Some([topic.id; 16]))
    }
}

fn key_offsets(seen: Observed) -> KeyOffsets {
    let (committed, end) = match seen {
        Observed::Lag { committed, end, .. } => (Committed::At(committed), Some(end)),
        Observed::NoCommit { end } => (Committed::Nothing, Some(end)),
        Observed::BeyondEnd { end } => (Committed::Unknown, Some(end)),
        Observed::Missing => (Committed::Unknown, None),
    };
    KeyOffsets { committed, end }
}
