//! The handle that callers hold.

mod hooked;
mod tracked;

use crate::config::{Clock, Config};
use crate::dead_letter::Graveyard;
use crate::delivery::{Delivery, RecordMetadata};
use crate::driver::Driver;
use crate::inbox::{Inbox, Message};
use crate::metrics::Counters;
use crate::pool::{Account, Pool, Reservation};
use crate::slot::{Notice, Refused, Shop};
use crate::table::{Directory, Topic};
use crate::transaction::Opening;
use ottla_partitioner::{KeyChoice, Partitioner, TopicView};
use ottla_proto::batch::{BatchWriter, Compression, HEADER_BYTES};
use ottla_proto::{Error, ErrorKind, Record, Result, TopicPartition, WriteOutcome};
use ottla_wire::Cluster;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// What callers and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) partitioner: Arc<dyn Partitioner>,
    pub(crate) shop: Shop,
    pub(crate) table: Directory,
    pub(crate) counters: Counters,
    pub(crate) graveyard: Graveyard,
    pub(crate) closed: AtomicBool,
    /// Topics that a caller who does not wait asked for, while they are being loaded.
    pub(crate) wanted: Mutex<BTreeSet<Arc<str>>>,
    /// Milliseconds since the Unix epoch, as of the last look at the clock.
    now_millis: AtomicI64,
    born: tokio::time::Instant,
    random: AtomicU64,
}

/// Why a record was not taken at once.
#[derive(Debug)]
enum Refusal {
    /// Its topic is not known yet.
    Topic,
    /// The buffer is full.
    Full(Wanted),
    /// The partitioner cannot say yet where its key goes.
    Unplaced,
    /// It can never be taken.
    Final(Error),
}

/// The memory that a record waits for.
#[derive(Debug)]
struct Wanted {
    bytes: usize,
    topic: Arc<Topic>,
    /// `None` for a record that may go to any.
    partition: Option<i32>,
}

impl Wanted {
    fn accounts(&self) -> Vec<Arc<Account>> {
        self.topic.accounts(self.partition)
    }

    /// Whether a leader has changed since.
    fn has_moved(&self, since: &[Arc<Account>]) -> bool {
        !self.topic.has_accounts(self.partition, since)
    }
}

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
enum Choice {
    /// Its partition is given, by name or by its key.
    Fixed(i32),
    /// Any would do.
    Run(i32),
    /// The partitioner says it by a ticket, and wants to hear what becomes of the record.
    Tracked,
}

/// A record that may go anywhere is offered to so many partitions more before it waits.
const ELSEWHERE_MAX: usize = 3;

impl Shared {
    /// Looks at the clock.
    pub(crate) fn now(&self) -> Instant {
        let now = tokio::time::Instant::now();
        let millis = match self.config.clock {
            Clock::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
                }),
            Clock::Runtime { start } => {
                let since = now.saturating_duration_since(self.born).as_millis();
                start.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
            }
        };
        self.now_millis.store(millis, Ordering::Relaxed);
        now.into_std()
    }

    pub(crate) fn random(&self) -> u64 {
        // SplitMix64: one atomic add, then a mix that spreads every bit.
        let mut z = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn append(
        &self,
        record: &Record<'_>,
        reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refusal> {
        let bytes = BatchWriter::upper_bound(record);
        let limit = self
            .shop
            .batch_bytes_max
            .min(self.shop.pool.largest_record());
        if bytes + HEADER_BYTES > limit {
            return Err(Refusal::Final(self.too_large(record, bytes)));
        }
        self.table.with(record.topic, |topic| match topic {
            Some(topic) => self.append_to(topic, record, bytes, reservation),
            None => Err(Refusal::Topic),
        })
    }

    #[inline]
    fn append_to(
        &self,
        topic: &Arc<Topic>,
        record: &Record<'_>,
        bytes: usize,
        mut reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refusal> {
        match self.choose(topic, record, bytes) {
            Choice::Fixed(partition) => self
                .append_at(topic, partition, record, reservation)
                .map_err(|refused| self.refusal(topic, partition, refused, Some(partition))),
            Choice::Run(partition) => self
                .append_at(topic, partition, record, reservation.as_deref_mut())
                .or_else(|refused| {
                    self.append_elsewhere(topic, partition, refused, record, reservation)
                }),
            Choice::Tracked => self.append_tracked(topic, record, reservation),
        }
    }

    #[inline]
    fn append_at(
        &self,
        topic: &Topic,
        partition: i32,
        record: &Record<'_>,
        reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refused> {
        let slot = topic.slot(partition).ok_or(Refused::Absent)?;
        let timestamp = || match record.timestamp {
            Some(own) => own,
            None => self.now_millis.load(Ordering::Relaxed),
        };
        let notice = |notice| match notice {
            Notice::Contended => topic.runs.spread(),
            Notice::Filled => topic.runs.filled(partition),
        };
        let clock = || self.now();
        slot.append(&self.shop, record, timestamp, reservation, clock, notice)
    }

    /// A record without a partition of its own does not wait for the memory of one leader while
    /// there is room at another's.
    #[cold]
    fn append_elsewhere(
        &self,
        topic: &Arc<Topic>,
        mut partition: i32,
        mut refused: Refused,
        record: &Record<'_>,
        mut reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refusal> {
        let bytes = BatchWriter::upper_bound(record);
        for _ in 0..ELSEWHERE_MAX {
            let offered = topic.with_room(reservation.as_deref());
            if refused == Refused::Closed || offered.is_empty() {
                break;
            }
            let view = TopicView {
                available: &offered,
                ..topic.view()
            };
            partition = topic
                .runs
                .pass(partition, bytes, &*self.partitioner, &view, clock, || {
                    self.random()
                });
            match self.append_at(topic, partition, record, reservation.as_deref_mut()) {
                Ok(delivery) => return Ok(delivery),
                Err(again) => refused = again,
            }
        }
        topic.runs.refund(partition, bytes);
        // Whoever has memory and is refused all the same, since its partitioner knows but one
        // partition, waits for that one: otherwise it would be served again at once, for nothing.
        let wanted = reservation.map(|_| partition);
        Err(self.refusal(topic, partition, refused, wanted))
    }

    #[cold]
    fn refusal(
        &self,
        topic: &Arc<Topic>,
        partition: i32,
        refused: Refused,
        wanted: Option<i32>,
    ) -> Refusal {
        match refused {
            Refused::Full(bytes) => Refusal::Full(Wanted {
                bytes,
                topic: Arc::clone(topic),
                partition: wanted,
            }),
            Refused::Closed if self.closed.load(Ordering::Acquire) => Refusal::Final(closed()),
            // It was forgotten for having been idle; asked for again, it is there again.
            Refused::Closed => Refusal::Topic,
            Refused::Absent => {
                // It may be new: the next record may find it.
                self.cluster
                    .mark_stale(self.cluster.view_guard().generation);
                Refusal::Final(no_such_partition(topic, partition))
            }
        }
    }

    #[inline]
    fn choose(&self, topic: &Topic, record: &Record<'_>, bytes: usize) -> Choice {
        if let Some(partition) = record.partition {
            return Choice::Fixed(partition);
        }
        if let Some(key) = record.key {
            match self.partitioner.keyed(&topic.view(), key) {
                KeyChoice::Partition(partition) => return Choice::Fixed(partition),
                KeyChoice::Run => {}
                KeyChoice::Tracked => return Choice::Tracked,
            }
        }
        let random = || self.random();
        let runs = &topic.runs;
        let view = |stripe| topic.view_at(stripe);
        Choice::Run(runs.next(bytes, &*self.partitioner, view, clock, random))
    }

    #[cold]
    fn too_large(&self, record: &Record<'_>, bytes: usize) -> Error {
        let (name, limit) = match self.shop.pool.largest_record() {
            small if small < self.shop.batch_bytes_max => ("buffer.memory", small),
            _ => ("max.request.size", self.shop.batch_bytes_max),
        };
        let topic = record.topic;
        let message =
            format!("a record of {bytes} bytes for topic {topic} is over {name} ({limit} bytes)");
        Error::new(ErrorKind::RecordTooLarge, message).with_outcome(WriteOutcome::NotWritten)
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cold]
fn not_loaded(topic: &str) -> Error {
    let message = format!("the metadata of topic {topic} did not come within max.block.ms");
    Error::new(ErrorKind::Timeout, message).with_outcome(WriteOutcome::NotWritten)
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed").with_outcome(WriteOutcome::NotWritten)
}

#[cold]
fn no_such_partition(topic: &Topic, partition: i32) -> Error {
    let count = topic.slots.len();
    Error::new(
        ErrorKind::UnknownTopicOrPartition,
        format!(
            "topic {} has {count} partitions and no number {partition}",
            topic.name
        ),
    )
    .at_partition(TopicPartition::new(Arc::clone(&topic.name), partition))
    .with_outcome(WriteOutcome::NotWritten)
}

#[cold]
fn buffer_full(shared: &Shared) -> Error {
    let limit = shared.shop.pool.limit();
    Error::new(
        ErrorKind::BufferFull,
        format!("the buffer of {limit} bytes (buffer.memory) is full"),
    )
    .with_outcome(WriteOutcome::NotWritten)
}

/// The last handle's end reaches the driver.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.shop.inbox.push(Message::Abandoned);
    }
}

/// A producer. Clones share one buffer, one connection a broker and one driver task; any number of
/// tasks and threads may use them at the same time.
///
/// Call [`close`](Producer::close) at the end. A producer that is dropped without it still sends what
/// it holds while its runtime runs, and says so once in the log. A runtime that ends, as at the end of
/// `main`, ends its producers: what was not sent by then is lost, and the log says how many records.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    /// `None` for the driver's own use.
    handle: Option<Arc<Handle>>,
}

impl Producer {
    /// Builds a producer on a cluster's connections. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the settings contradict each other, [`ErrorKind::State`] outside a
    /// runtime.
    pub fn new(
        cluster: Cluster,
        config: Config,
        partitioner: Arc<dyn Partitioner>,
    ) -> Result<Self> {
        if config.transactional_id.is_some() {
            let what = "a producer with a transactional.id is a TransactionalProducer";
            return Err(Error::new(ErrorKind::Config, what));
        }
        Self::start(cluster, config, partitioner, None)
    }

    /// The producer beneath a transactional one.
    pub(crate) fn transactional(
        cluster: Cluster,
        config: Config,
        partitioner: Arc<dyn Partitioner>,
        opening: Opening,
    ) -> Result<Self> {
        Self::start(cluster, config, partitioner, Some(opening))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn start(
        cluster: Cluster,
        mut config: Config,
        partitioner: Arc<dyn Partitioner>,
        opening: Option<Opening>,
    ) -> Result<Self> {
        config.check()?;
        tracked::check(&*partitioner, &config)?;
        // A batch is never larger than the largest one.
        config.batch_bytes = config.batch_bytes.min(config.batch_bytes_max);
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::State,
                "a producer is built within a tokio runtime",
            )
            .caused_by(error)
        })?;
        let seed = cluster.settings().seed;
        let client_id = cluster.settings().client_id.clone();
        let graveyard_bytes = config.buffer_bytes;
        let shop = Shop {
            pool: Pool::new(config.buffer_bytes),
            inbox: Inbox::default(),
            serials: AtomicU64::new(0),
            delivery_timeout: config.delivery_timeout,
            batch_bytes_max: config.batch_bytes_max,
            compresses: config.compression != Compression::None,
            pressed: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            config,
            cluster,
            partitioner,
            shop,
            table: Directory::default(),
            counters: Counters::new(&client_id),
            graveyard: Graveyard::new(graveyard_bytes),
            wanted: Mutex::default(),
            closed: AtomicBool::new(false),
            now_millis: AtomicI64::new(0),
            born: tokio::time::Instant::now(),
            random: AtomicU64::new(seed),
        });
        shared.now();
        runtime.spawn(Driver::new(Arc::clone(&shared), opening).run());
        let beside = Arc::clone(&shared);
        runtime.spawn(async move { beside.shop.inbox.stand_in().await });
        let handle = Arc::new(Handle(Arc::clone(&shared)));
        Ok(Self {
            shared,
            handle: Some(handle),
        })
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), and as its [`Delivery`].
    ///
    /// Cancel safety: once polled, a dropped future may have left the record in the buffer; it is
    /// then sent all the same.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.enqueue(record).await?.await
    }

    /// Puts a record into the buffer, waiting for a place if it is full, and for the topic's
    /// metadata if this is its first record; both within `max.block.ms`. Await the [`Delivery`] for
    /// the acknowledgement.
    ///
    /// A record without a time of its own gets the producer's clock, which is read once a batch and
    /// each time the driver wakes: up to `linger.ms` or 10 ms old, whichever is longer.
    ///
    /// # Errors
    /// The record was not taken: too large, unknown topic or partition, no place in time, closed.
    ///
    /// Cancel safety: a dropped future leaves nothing behind.
    #[inline]
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would move each record once more, into its state"
    )]
    pub fn enqueue(&self, record: Record<'_>) -> impl Future<Output = Result<Delivery>> + Send {
        async move {
            if self.intercepts() {
                return self.enqueue_intercepted(record).await;
            }
            match self.append(&record, None) {
                Ok(delivery) => Ok(delivery),
                Err(refusal) => self.enqueue_slowly(&record, refusal).await,
            }
        }
    }

    /// Puts a record into the buffer if that is possible at once.
    ///
    /// # Errors
    /// Gives the record back with the reason: [`ErrorKind::BufferFull`]; [`ErrorKind::State`] when
    /// the topic's metadata is not loaded yet (see [`prepare`](Self::prepare)), or not any more since
    /// nothing was written to it for `metadata.max.idle.ms`: it is loaded then, so a later try
    /// succeeds, while fewer than 64 others are being loaded; or what [`enqueue`](Self::enqueue)
    /// gives.
    pub fn try_enqueue<'r>(&self, record: Record<'r>) -> Result<Delivery, (Error, Record<'r>)> {
        let taken = match self.intercepts() {
            false => self.append(&record, None),
            true => self.append_intercepted(&record),
        };
        match taken {
            Ok(delivery) => Ok(delivery),
            Err(Refusal::Final(error)) => Err((error, record)),
            Err(Refusal::Full(wanted)) => {
                self.shared.shop.press(&wanted.accounts());
                Err((buffer_full(&self.shared), record))
            }
            Err(Refusal::Unplaced) => Err((tracked::unplaced(record.topic), record)),
            Err(Refusal::Topic) => {
                self.want(record.topic);
                let message = format!("the metadata of topic {} is not loaded yet", record.topic);
                let error = Error::new(ErrorKind::State, message);
                Err((error.with_outcome(WriteOutcome::NotWritten), record))
            }
        }
    }

    /// Loads a topic's metadata, so that the first record does not wait for it.
    ///
    /// # Errors
    /// When the topic is unknown, or nothing answers within `max.block.ms`.
    ///
    /// Cancel safety: safe.
    pub async fn prepare(&self, topic: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.shared.config.max_block;
        self.load(topic, deadline).await
    }

    async fn load(&self, topic: &str, deadline: tokio::time::Instant) -> Result<()> {
        if self.shared.table.load().contains_key(topic) {
            return Ok(());
        }
        let known = self.shared.cluster.topic(topic, deadline).await?;
        let (tell, told) = oneshot::channel();
        let name = Arc::clone(&known.name);
        self.shared
            .shop
            .inbox
            .push(Message::Topic { name, known: tell });
        let told = tokio::time::timeout_at(deadline, told).await;
        told.map_err(|_| not_loaded(topic))?.map_err(|_| closed())
    }

    #[cold]
    async fn enqueue_slowly(&self, record: &Record<'_>, first: Refusal) -> Result<Delivery> {
        let waited = self.wait_and_append(record, first).await;
        // Whatever refused the record, it is not in any batch.
        waited.map_err(|error| error.with_outcome(WriteOutcome::NotWritten))
    }

    async fn wait_and_append(&self, record: &Record<'_>, first: Refusal) -> Result<Delivery> {
        let deadline = tokio::time::Instant::now() + self.shared.config.max_block;
        let mut refusal = first;
        let mut reservation: Option<Reservation> = None;
        loop {
            match refusal {
                Refusal::Final(error) => return Err(error),
                Refusal::Topic => self.load(record.topic, deadline).await?,
                Refusal::Unplaced => tracked::wait(record.topic, deadline).await?,
                Refusal::Full(wanted) => {
                    drop(reservation.take());
                    let accounts = wanted.accounts();
                    let shop = &self.shared.shop;
                    shop.press(&accounts);
                    let moved = || wanted.has_moved(&accounts);
                    let wait = shop.pool.reserve(&accounts, wanted.bytes, moved);
                    let granted = tokio::time::timeout_at(deadline, wait);
                    reservation = granted.await.map_err(|_| self.no_room())??;
                }
            }
            match self.append(record, reservation.as_mut()) {
                Ok(delivery) => return Ok(delivery),
                Err(again) => refusal = again,
            }
        }
    }

    fn no_room(&self) -> Error {
        let waited = self.shared.config.max_block.as_millis();
        let limit = self.shared.shop.pool.limit();
        Error::new(
            ErrorKind::BufferFull,
            format!("the buffer of {limit} bytes (buffer.memory) stayed full for {waited} ms"),
        )
        .with_outcome(WriteOutcome::NotWritten)
    }

    /// Sends everything that was enqueued before the call, without lingering, and waits until each
    /// of those records is acknowledged or has failed.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]. What became of each record, its [`Delivery`] and the
    /// [`metrics`](Self::metrics) tell.
    ///
    /// Cancel safety: safe; the records are sent all the same.
    pub async fn flush(&self) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.shared.shop.inbox.push(Message::Flush(tell));
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        told.await.map_err(|_| closed())
    }

    /// Flushes, then ends the producer and all its clones.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when a clone was closed before. [`ErrorKind::Timeout`] when its
    /// runtime ended meanwhile, so that not everything was waited for.
    ///
    /// Cancel safety: the producer closes all the same.
    pub async fn close(self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Err(closed());
        }
        let (tell, told) = oneshot::channel();
        self.shared.shop.inbox.push(Message::Close(tell));
        told.await.map_err(|_| closed())?
    }
}
