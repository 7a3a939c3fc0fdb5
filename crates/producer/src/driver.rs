//! The task behind a producer: carries out what the core asks for.

mod end;
mod identity;
mod outcomes;
mod resend;
mod send;
mod topics;
mod transactions;

use crate::compressing::{Job, Queue, compress_raw};
use crate::config::{Acks, CompressOn};
use crate::dead_letter::{DeadLetters, Predecessor};
use crate::inbox::{Contents, Message, Parcel};
use crate::producer::{Producer, Shared};
use crate::slot::{Slot, later};
use crate::transaction::Opening;
use bytes::BytesMut;
use ottla_proto::producer::{Batch, Config as Core, Lane, PartitionIndex, ProduceAnswer, Sender};
use ottla_proto::{BrokerId, Error, ErrorKind, Result, WriteOutcome};
use ottla_wire::{Connection, OnAnswer};
use resend::Resting;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use topics::Known;
use transactions::Desk;

/// While batches are open the clock of records is looked at this often.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// A batch below this size that was sealed by linger says that callers are few.
const SPARSE_BATCH_BYTES: usize = 16 << 10;

/// What the driver keeps of a partition.
#[derive(Debug)]
struct Place {
    slot: Arc<Slot>,
    /// The open batch that we have heard of.
    open: Option<Open>,
    /// A smaller limit for its batches than configured, after a broker called one too large, and
    /// until when that is believed: a topic's limit can be raised.
    narrow: Option<(usize, Instant)>,
    /// The last of its failed batches to have dead letters.
    buried: Predecessor,
}

impl Place {
    /// A batch was too large: a smaller one is believed to be taken.
    fn narrow(&mut self, now: Instant, bytes: usize, until: Instant) {
        let believed = self.narrow.filter(|(_, until)| now < *until);
        let narrow = believed.map_or(bytes, |(narrow, _)| narrow.min(bytes));
        self.narrow = Some((narrow, until));
    }

    /// Sets how large its open batch may become.
    fn limit(&self, now: Instant, bytes: usize) {
        let narrow = self.narrow.filter(|(_, until)| now < *until);
        let limit = narrow.map_or(bytes, |(narrow, _)| narrow.min(bytes));
        self.slot.set_limit(limit);
    }
}

/// An open batch.
#[derive(Debug, Clone, Copy)]
struct Open {
    serial: u64,
    /// When its callers stop waiting.
    deadline: Instant,
    /// It has lingered, but the partition's window is full.
    overdue: bool,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    core: Sender<Token>,
    places: Vec<Place>,
    topics: BTreeMap<Arc<str>, Known>,
    /// When topics that are not produced to any more are looked for.
    next_sweep: Instant,
    /// Open batches in the order of their linger's end.
    lingering: VecDeque<(Instant, PartitionIndex, u64)>,
    /// Serials of batches that are open or unacknowledged, and in how many parts.
    unsettled: BTreeMap<u64, u32>,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closing: Option<oneshot::Sender<Result<()>>>,
    ending: bool,
    connections: BTreeMap<(BrokerId, Lane), Connection>,
    /// The number of this producer's own connections.
    lane: u32,
    /// Partitions whose open batch has lingered, but whose window is full, by its deadline: nobody
    /// else watches over a batch that is not sealed.
    overdue: BTreeSet<(Instant, PartitionIndex)>,
    /// Attempts to get a producer id that failed in a row.
    identity_failures: u32,
    /// Of a transactional producer.
    desk: Option<Desk>,
    tasks: JoinSet<()>,
    dead_letters: Option<Arc<DeadLetters>>,
    resting: Resting,
    compressing: Arc<Queue>,
    views: watch::Receiver<u64>,
    view_generation: u64,
    /// To be used again: the inbox's list, what requests are written into, and what answers are read into.
    spare: Vec<Message>,
    request_room: BytesMut,
    answer: ProduceAnswer,
    on_answer: OnAnswer,
}

/// What comes back with a batch from the core.
#[derive(Debug)]
pub(crate) struct Token {
    serial: u64,
    partition: PartitionIndex,
    /// Rounds of attempts that were in vain, and the attempts in them.
    rounds: u32,
    attempts: u32,
    completion: Arc<crate::delivery::Completion>,
    /// Its first record's place among those of the completion.
    first: u32,
    count: u32,
    begun: Instant,
    span: tracing::Span,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, opening: Option<Opening>) -> Self {
        let config = &shared.config;
        let settings = shared.cluster.settings();
        let core = Sender::new(Core {
            idempotent: config.idempotence,
            acks_all: config.acks == Acks::All,
            transactional: opening.is_some(),
            stall_after: config.stall_after,
            retries: config.retries,
            retry_backoff: settings.retry_backoff,
            retry_backoff_max: settings.retry_backoff_max,
            request_bytes_max: config.request_bytes_max,
            requests_max: config.in_flight_max,
            cut_out_wrong: config.hooks.dead_letters.is_some(),
            seed: settings.seed,
        });
        let views = shared.cluster.changes();
        let desk = opening.map(|opening| Desk::new(opening, settings));
        Self {
            core,
            places: Vec::new(),
            topics: BTreeMap::new(),
            next_sweep: shared.now(),
            lingering: VecDeque::new(),
            unsettled: BTreeMap::new(),
            flushes: Vec::new(),
            closing: None,
            ending: false,
            connections: BTreeMap::new(),
            lane: shared.cluster.lane(),
            overdue: BTreeSet::new(),
            identity_failures: 0,
            desk,
            tasks: JoinSet::new(),
            dead_letters: config.hooks.dead_letters.clone().map(Arc::new),
            resting: Resting::default(),
            compressing: Arc::default(),
            views,
            view_generation: 0,
            spare: Vec::new(),
            request_room: BytesMut::new(),
            answer: ProduceAnswer::default(),
            on_answer: Self::on_answer(&shared),
            shared,
        }
    }

    pub(crate) async fn run(mut self) {
        let cluster = self.shared.cluster.clone();
        let mut closed = std::pin::pin!(cluster.closed());
        loop {
            let now = self.shared.now();
            self.turn(now);
            if (self.closing.is_some() || self.ending) && self.is_done(now) {
                break;
            }
            let wake = self.next_wake(now).map(tokio::time::Instant::from_std);
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.shop.inbox.arrived() => {}
                () = &mut closed => break,
                // The cluster is held by us.
                _ = self.views.changed() => {}
                _ = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                () = sleep => {}
            }
        }
    }

    /// One turn: takes in what happened, does what is due, sends what can go.
    fn turn(&mut self, now: Instant) {
        let messages = self
            .shared
            .shop
            .inbox
            .drain(std::mem::take(&mut self.spare));
        let mut messages = messages;
        for message in messages.drain(..) {
            self.handle(now, message);
        }
        self.spare = messages;
        // Under load the inbox always wakes first, and what has ended would stay.
        while self.tasks.try_join_next().is_some() {}
        self.follow_view(now);
        self.seal_expired(now);
        self.forget_idle(now);
        self.resend_rested(now);
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        if self.shared.shop.pool.waiting() > 0 {
            // Someone waits for the memory that open batches hold.
            self.seal_wanted(now);
        }
        self.seal_lingered(now);
        // Looking for something to send may itself raise events: done is what was quiet twice.
        let mut quiet = 0;
        while quiet < 2 {
            self.settle(now);
            self.conduct(now);
            quiet += 1;
            if let Some(transmit) = self.core.poll_transmit(now) {
                if self.shared.shop.pool.waiting() > 0 {
                    // What goes may have stood before an open batch.
                    for batch in &transmit.batches {
                        self.seal_if_wanted(now, batch.partition.0 as usize);
                    }
                }
                self.transmit(now, transmit);
                quiet = 0;
            }
        }
        self.end_flushes();
        // Also while nothing ends: that is when the buffer fills.
        let used_bytes = self.shared.shop.pool.used();
        self.shared.counters.buffer(used_bytes);
    }

    /// Whether nothing is left to do for a producer that takes no more.
    fn is_done(&self, now: Instant) -> bool {
        self.has_ended() || self.desk.as_ref().is_some_and(|desk| desk.gives_up(now))
    }

    /// Whether everything that was begun has come to its end.
    fn has_ended(&self) -> bool {
        self.unsettled.is_empty() && self.desk.as_ref().is_none_or(Desk::has_ended)
    }

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let linger = self.lingering.front().map(|(at, ..)| *at);
        let busy = !self.unsettled.is_empty();
        let tick = busy.then(|| later(now, CLOCK_TICK.max(self.shared.config.linger)));
        let desk = self.desk.as_ref().and_then(Desk::poll_timeout);
        let expiry = self.overdue.first().map(|(at, _)| *at);
        let sweep = (!self.topics.is_empty()).then_some(self.next_sweep);
        let rested = self.resting.next();
        [
            self.core.poll_timeout(),
            linger,
            expiry,
            tick,
            desk,
            sweep,
            rested,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle(&mut self, now: Instant, message: Message) {
        match message {
            Message::Opened {
                partition,
                serial,
                at,
            } => {
                self.unsettled.entry(serial).or_insert(1);
                self.opened(at, partition, serial);
                let linger = if self.ending {
                    Duration::ZERO
                } else {
                    self.shared.config.linger
                };
                self.lingering
                    .push_back((later(at, linger), partition, serial));
            }
            Message::Sealed { partition, parcel } => self.post(now, partition, parcel),
            Message::Compressed {
                partition,
                ordinal,
                records,
            } => {
                self.core.provide(now, partition, ordinal, records);
            }
            Message::Answered {
                request,
                version,
                answer,
            } => {
                self.answered(now, request, version, answer);
            }
            Message::Written { request, written } => self.written(now, request, written),
            Message::Connected {
                broker,
                lane,
                connection,
            } => self.connected(broker, lane, connection),
            Message::Identified(identity) => self.identified(now, identity),
            Message::Topic { name, known } => {
                self.add_topic(now, &name);
                // A caller that has left does not mind.
                let _ = known.send(());
            }
            Message::Wanted(name) => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(Producer::load_wanted(shared, name));
            }
            Message::Buried { serial } => self.settled(serial),
            Message::Pressed => {
                self.shared.shop.pressed.store(false, Ordering::Release);
                self.seal_wanted(now);
            }
            Message::Flush(told) => {
                self.seal_all(now);
                let before = self.shared.shop.serials.load(Ordering::Acquire);
                self.flushes.push((before, told));
            }
            Message::Close(told) => {
                self.ending = true;
                self.end_transactions(now);
                self.seal_all(now);
                self.closing = Some(told);
            }
            Message::Abandoned => self.abandoned(now),
            Message::Transaction(command) => self.command(now, command),
        }
    }

    fn abandoned(&mut self, now: Instant) {
        self.shared.closed.store(true, Ordering::Release);
        if !self.ending && !self.unsettled.is_empty() {
            let batches = self.unsettled.len();
            tracing::warn!(
                batches,
                "a producer was dropped without close; sending what it holds"
            );
        }
        self.ending = true;
        self.end_transactions(now);
        self.seal_all(now);
    }

    /// Seals what has lingered long enough, unless it would only wait behind other batches: then it
    /// may as well grow.
    fn seal_lingered(&mut self, now: Instant) {
        while let Some(&(at, partition, serial)) = self.lingering.front() {
            if at > now {
                break;
            }
            self.lingering.pop_front();
            if self.core.has_room(partition) {
                self.seal(now, partition, serial);
            } else if let Some(open) = self.open(partition)
                && open.serial == serial
            {
                open.overdue = true;
                let deadline = open.deadline;
                self.overdue.insert((deadline, partition));
            }
        }
    }

    fn seal(&mut self, now: Instant, partition: PartitionIndex, serial: u64) {
        let Some(place) = self.places.get(partition.0 as usize) else {
            return;
        };
        if place.open.is_none_or(|open| open.serial != serial) {
            return;
        }
        let Some(parcel) = place.slot.seal(serial) else {
            return;
        };
        if let Some(topic) = self.shared.table.load().get(place.slot.topic()) {
            topic.runs.lingered(place.slot.partition());
            if parcel.contents.raw_size_bytes() < SPARSE_BATCH_BYTES {
                topic.runs.gather();
            }
        }
        self.post(now, partition, parcel);
    }

    /// Seals every open batch that we have heard of: someone waits.
    fn seal_all(&mut self, now: Instant) {
        let open: Vec<_> = self.lingering.drain(..).collect();
        for (_, partition, serial) in open {
            self.seal(now, partition, serial);
        }
        for (_, partition) in std::mem::take(&mut self.overdue) {
            self.seal_open(now, partition);
        }
    }

    /// Seals what waited for its partition's window until its deadline, so that the core lets it
    /// expire.
    fn seal_expired(&mut self, now: Instant) {
        while let Some(&(at, partition)) = self.overdue.first()
            && at <= now
        {
            self.overdue.pop_first();
            self.seal_open(now, partition);
        }
    }

    fn seal_open(&mut self, now: Instant, partition: PartitionIndex) {
        if let Some(serial) = self.open(partition).map(|open| open.serial) {
            self.seal(now, partition, serial);
        }
    }

    fn open(&mut self, partition: PartitionIndex) -> Option<&mut Open> {
        self.places.get_mut(partition.0 as usize)?.open.as_mut()
    }

    /// Seals the open batches that hold memory which someone wants.
    fn seal_wanted(&mut self, now: Instant) {
        self.shared.shop.pool.heed();
        for at in 0..self.places.len() {
            self.seal_if_wanted(now, at);
        }
    }

    /// Not behind a full window or other batches: there it gives its memory back no sooner (but for
    /// what compression would save), and takes a place that a full batch could have.
    fn seal_if_wanted(&mut self, now: Instant, at: usize) {
        if let Some(place) = self.places.get(at)
            && let Some(open) = place.open
            && place.slot.account().is_wanted()
            && self.core.has_room(place.slot.index())
        {
            self.seal(now, place.slot.index(), open.serial);
        }
    }

    /// Hands a sealed batch to the core, and to compression first if that is wanted.
    fn post(&mut self, now: Instant, partition: PartitionIndex, parcel: Parcel) {
        let serial = parcel.serial;
        if let Some(place) = self.places.get_mut(partition.0 as usize)
            && let Some(open) = place.open.take_if(|open| open.serial == serial)
            && open.overdue
        {
            self.overdue.remove(&(open.deadline, partition));
        }
        self.unsettled.entry(serial).or_insert(1);
        let token = self.token(now, partition, &parcel);
        let count = token.count;
        let on_driver = self.shared.config.compress_on == CompressOn::Driver;
        let (records, raw) = match parcel.contents {
            Contents::Final(records) => (Some(records), None),
            Contents::Raw(raw) if on_driver => (Some(compress_raw(&self.shared, raw)), None),
            Contents::Raw(raw) => (None, Some(raw)),
        };
        let batch = Batch::new(token, count, parcel.deadline, records);
        let ordinal = self.core.push(now, partition, batch);
        self.offered(now, partition);
        let Some(raw) = raw else {
            return;
        };
        let job = Job {
            partition,
            ordinal,
            raw,
        };
        if let Some(worker) = self.compressing.push(job) {
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn_blocking(move || worker.run(&shared));
        }
    }

    /// What a sealed batch is known by, which counts from here on.
    fn token(&self, now: Instant, partition: PartitionIndex, parcel: &Parcel) -> Token {
        let count = parcel.contents.count();
        let raw_bytes = parcel.contents.raw_size_bytes();
        self.shared.counters.sealed(count, raw_bytes);
        Token {
            serial: parcel.serial,
            partition,
            rounds: 0,
            attempts: 0,
            completion: Arc::clone(&parcel.completion),
            first: 0,
            count,
            begun: self.begun(now, parcel.deadline),
            span: self.span(partition, count),
        }
    }

    /// Tells the partitioner's view that one more batch waits.
    fn offered(&self, now: Instant, partition: PartitionIndex) {
        if let Some(place) = self.places.get(partition.0 as usize) {
            place.slot.set_queued(self.core.queued(partition));
            place.slot.account().offer(now);
        }
    }

    /// The partition's window opened: a batch that has lingered long enough goes now.
    fn room(&mut self, now: Instant, partition: PartitionIndex) {
        let Some(place) = self.places.get(partition.0 as usize) else {
            return;
        };
        place.slot.set_queued(self.core.queued(partition));
        place.limit(now, self.shared.config.batch_bytes);
        if place.open.is_some_and(|open| open.overdue) {
            self.seal_open(now, partition);
        }
    }

    fn end_flushes(&mut self) {
        let oldest = self
            .unsettled
            .first_key_value()
            .map_or(u64::MAX, |(serial, _)| *serial);
        let done = |(before, _): &mut (u64, oneshot::Sender<()>)| oldest >= *before;
        for (_, told) in self.flushes.extract_if(.., done) {
            // A caller that has left does not mind.
            let _ = told.send(());
        }
    }
}

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the producer was closed before the record was sent",
    )
    .with_outcome(WriteOutcome::NotWritten)
}
