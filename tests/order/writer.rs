//! A producer process: the real placing and its tickets, and queues to brokers that fail.

use crate::groups::{Entry, Group, Topic, Watcher};
use fastrand::Rng;
use ottla_partitioner::{
    KeyChoice, KeyPolicy, KeyTicket, LagAware, NoQueues, Partitioner, PlanPublisher, TopicView,
    Written, plan_channel,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two looks at the groups.
pub(crate) const REFRESH: Duration = Duration::from_secs(1);

/// How far each partition's leader can be reached.
#[derive(Debug)]
pub(crate) struct Leaders {
    /// Those that have one, ascending.
    pub(crate) available: Vec<i32>,
    /// Until when, in milliseconds, nothing reaches a partition.
    pub(crate) cut_until: Vec<u64>,
    /// How many times more answers than usual are lost.
    pub(crate) trouble: u16,
}

/// A record that has its place; other threads may come in between before it is appended.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) entry: Entry,
    partition: i32,
    ticket: Option<Box<KeyTicket>>,
}

#[derive(Debug)]
struct Record {
    entry: Entry,
    ticket: Option<Box<KeyTicket>>,
    /// When it reaches its broker, if nothing is in the way.
    due: u64,
}

#[derive(Debug)]
struct Answer {
    due: u64,
    ticket: Box<KeyTicket>,
    outcome: Written,
}

#[derive(Debug)]
pub(crate) struct Writer {
    publisher: PlanPublisher,
    pub(crate) steer: LagAware,
    watcher: Watcher,
    next_look: u64,
    queues: Vec<VecDeque<Record>>,
    answers: Vec<Answer>,
    /// What a producer that is dead has sent last, by partition, and when it arrives.
    late: Vec<(u64, usize, Vec<Entry>)>,
    /// How many partitions its brokers have told it of, and when they do so anew.
    partitions: usize,
    told_at: u64,
    /// The topic's id and number of partitions as of the last plan.
    planned: Option<(u8, usize)>,
}

impl Writer {
    pub(crate) fn new(policy: KeyPolicy, partitions: usize, groups: usize) -> Self {
        let (publisher, reader) = plan_channel();
        Self {
            publisher,
            steer: LagAware::new(reader).keys(policy),
            watcher: Watcher::new(groups, REFRESH),
            next_look: 0,
            queues: (0..partitions).map(|_| VecDeque::new()).collect(),
            answers: Vec::new(),
            late: Vec::new(),
            partitions,
            told_at: u64::MAX,
            planned: None,
        }
    }

    /// The topic has more partitions, of which it hears at that time.
    pub(crate) fn topic_has_grown(&mut self, partitions: usize, told_at: u64) {
        self.queues.resize_with(partitions, VecDeque::new);
        self.told_at = told_at;
    }

    /// Whether it places records by the topic as it is.
    pub(crate) fn knows(&self, topic: &Topic) -> bool {
        let now = (topic.id, topic.logs.len());
        self.partitions == now.1 && self.planned.is_none_or(|planned| planned == now)
    }

    /// The producer dies. Some of what was on its way still arrives.
    pub(crate) fn crash(&mut self, rng: &mut Rng, logs: &mut [Vec<Entry>]) {
        for (queue, log) in self.queues.iter_mut().zip(logs) {
            let arrive = rng.usize(..=queue.len());
            log.extend(queue.drain(..arrive).map(|record| record.entry));
            queue.clear();
        }
        self.answers.clear();
    }

    /// The producer dies. What was on its way arrives much later, or never.
    pub(crate) fn crash_unheard(&mut self, rng: &mut Rng, now: u64) {
        for (partition, queue) in self.queues.iter_mut().enumerate() {
            let entries = queue.drain(..).map(|record| record.entry).collect();
            if rng.u8(..4) > 0 {
                self.late
                    .push((now + rng.u64(1..100_000), partition, entries));
            }
        }
        self.answers.clear();
    }

    /// Another producer of the same process, with the same plan.
    pub(crate) fn take_over(&mut self) {
        self.steer = LagAware::new(self.steer.plan().clone());
    }

    /// Looks at the groups when it is time.
    pub(crate) fn look(
        &mut self,
        rng: &mut Rng,
        now: u64,
        at: Instant,
        groups: &[Group],
        topic: &Topic,
    ) {
        if now >= self.told_at {
            self.partitions = topic.logs.len();
        }
        if now < self.next_look {
            return;
        }
        let sent = self.publisher.sent("orders");
        // Now and then a listing leaves the topic out.
        if rng.u8(..) < 5 && self.planned.is_some() {
            self.publisher.publish(Vec::new());
        } else {
            let plan = self.watcher.look(rng, at, REFRESH, groups, topic, sent);
            self.publisher.publish(vec![plan]);
            self.planned = Some((topic.id, topic.logs.len()));
        }
        self.next_look = now + rng.u64(750..1_250);
    }

    /// Gives a record its place; `None` when its key has none yet.
    pub(crate) fn place(
        &mut self,
        rng: &mut Rng,
        at: Instant,
        leaders: &Leaders,
        entry: Entry,
    ) -> Option<Placed> {
        let view = TopicView {
            topic: "orders",
            partition_count: self.partitions as i32,
            available: &leaders.available,
            queued: &NoQueues,
            batch_bytes: 16_384,
            stripe: 0,
        };
        let key = format!("key-{}", entry.key);
        let (partition, ticket) = match self.steer.keyed(&view, key.as_bytes()) {
            KeyChoice::Partition(partition) => (partition, None),
            KeyChoice::Tracked => match self.steer.track(&view, key.as_bytes(), at) {
                Some(ticket) => (ticket.partition(), Some(ticket)),
                None => return None,
            },
            KeyChoice::Run => {
                let run = self.steer.begin_run(&view, at, rng.u64(..), None);
                self.steer.end_run(&view, run, 1);
                (run.partition, None)
            }
        };
        Some(Placed {
            entry,
            partition,
            ticket,
        })
    }

    /// Whether there was room for the record; if not, the caller asks again for a place.
    pub(crate) fn append(&mut self, rng: &mut Rng, now: u64, mut placed: Placed) -> bool {
        // Now and then the buffer is full.
        if rng.u8(..) < 3 {
            return false;
        }
        if let Some(ticket) = &mut placed.ticket {
            ticket.sent();
        }
        let queue = &mut self.queues[placed.partition as usize];
        queue.push_back(Record {
            entry: placed.entry,
            ticket: placed.ticket,
            due: now + rng.u64(5..40),
        });
        true
    }

    /// Brokers take what has reached them, in the order of each partition, and answer.
    pub(crate) fn deliver(
        &mut self,
        rng: &mut Rng,
        now: u64,
        leaders: &Leaders,
        logs: &mut [Vec<Entry>],
    ) {
        for (at, (queue, log)) in self.queues.iter_mut().zip(logs).enumerate() {
            let is_led = leaders.available.contains(&(at as i32));
            if !is_led || now < leaders.cut_until[at] {
                continue;
            }
            let arrives = |late: &mut (u64, usize, _)| late.0 <= now && late.1 == at;
            for (.., entries) in self.late.extract_if(.., arrives) {
                arrive(log, entries);
            }
            while queue.front().is_some_and(|record| record.due <= now)
                && let Some(record) = queue.pop_front()
            {
                let (is_written, outcome, wait) = fate(rng, leaders.trouble, log.len() as i64);
                if is_written {
                    log.push(record.entry);
                }
                if let Some(ticket) = record.ticket {
                    let due = now + wait;
                    self.answers.push(Answer {
                        due,
                        ticket,
                        outcome,
                    });
                }
            }
        }
        for answer in self.answers.extract_if(.., |answer| answer.due <= now) {
            answer.ticket.settle(answer.outcome);
        }
    }
}

/// Takes in what a dead producer has sent. Behind a later record of its key a record would be out of
/// order whatever becomes of keys: then it is one that never arrives.
fn arrive(log: &mut Vec<Entry>, entries: Vec<Entry>) {
    for entry in entries {
        let is_later = |known: &Entry| known.key == entry.key && known.number > entry.number;
        if !log.iter().any(is_later) {
            log.push(entry);
        }
    }
}

/// Whether a record is written, what the producer hears of it in the end, and after how long.
fn fate(rng: &mut Rng, trouble: u16, offset: i64) -> (bool, Written, u64) {
    let soon = rng.u64(2..40);
    let late = rng.u64(300..4_000);
    match rng.u16(..1_000) / trouble {
        // The answer was lost; a repetition is answered.
        0..=19 => (true, Written::At(offset), late),
        // The broker knows the repetition, and not where the record lies.
        20..=29 => (true, Written::Perhaps, late),
        // It was given up, written or not, and nobody knows.
        30..=34 => (true, Written::Perhaps, late),
        35..=39 => (false, Written::Perhaps, late),
        // It expired or was refused.
        40..=44 => (false, Written::No, soon),
        _ => (true, Written::At(offset), soon),
    }
}
