//! A partition's open batch, under its own short lock.

use crate::delivery::{Completion, Delivery};
use crate::inbox::{Inbox, Message, Parcel};
use crate::pool::{Pool, Reservation};
use ottla_proto::Record;
use ottla_proto::batch::{BatchWriter, HEADER_BYTES};
use ottla_proto::producer::PartitionIndex;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A delivery timeout that no clock can count to is as good as this.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Why a slot did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The buffer has no room: so many bytes are wanted.
    Full(usize),
    /// The producer has ended.
    Closed,
}

/// What every slot of a producer shares.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) pool: Arc<Pool>,
    pub(crate) inbox: Inbox,
    pub(crate) serials: AtomicU64,
    pub(crate) delivery_timeout: Duration,
    /// The largest batch.
    pub(crate) batch_bytes_max: usize,
    /// Someone wants memory, and the driver has not heard of it yet.
    pub(crate) pressed: AtomicBool,
}

impl Shop {
    /// Asks the driver to send what it can, since memory is wanted; once until it has heard.
    pub(crate) fn press(&self) {
        if !self.pressed.swap(true, Ordering::AcqRel) {
            self.inbox.push(Message::Pressed);
        }
    }
}

#[derive(Debug)]
struct OpenBatch {
    writer: BatchWriter,
    completion: Arc<Completion>,
    serial: u64,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Open {
    batch: Option<OpenBatch>,
    /// What the last batch held: a guess at what this one will.
    last_bytes: usize,
    /// Said under the lock, so that no record slips in after the last look.
    closed: bool,
}

/// One partition as callers see it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    index: PartitionIndex,
    topic: Arc<str>,
    partition: i32,
    /// A batch is sealed at this size. It grows to the largest batch while the partition's window
    /// is full: at a distance, small batches would cap the partition's rate.
    limit: AtomicUsize,
    open: Mutex<Open>,
}

impl Slot {
    pub(crate) fn new(
        index: PartitionIndex,
        topic: Arc<str>,
        partition: i32,
        limit: usize,
    ) -> Self {
        let limit = AtomicUsize::new(limit);
        Self {
            index,
            topic,
            partition,
            limit,
            open: Mutex::default(),
        }
    }

    pub(crate) fn index(&self) -> PartitionIndex {
        self.index
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    pub(crate) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Appends a record to the open batch. `clock` is read only when a batch is begun, before the
    /// first `timestamp`; `contended` is told when another caller held the lock.
    #[inline]
    pub(crate) fn append(
        &self,
        shop: &Shop,
        record: &Record<'_>,
        timestamp: impl Fn() -> i64,
        mut reservation: Option<&mut Reservation>,
        clock: impl Fn() -> Instant,
        contended: impl FnOnce(),
    ) -> Result<Delivery, Refused> {
        let mut open = self.lock(contended);
        let bound = BatchWriter::upper_bound(record);
        let limit = self.limit.load(Ordering::Relaxed);
        loop {
            let Open {
                batch,
                last_bytes,
                closed,
            } = &mut *open;
            let Some(batch) = batch else {
                if *closed {
                    return Err(Refused::Closed);
                }
                let chunks =
                    self.first_chunks(shop, *last_bytes, bound, reservation.as_deref_mut())?;
                self.begin(shop, &mut open, chunks, clock());
                continue;
            };
            if batch.writer.size_bytes() + bound > limit.max(HEADER_BYTES + bound)
                && batch.writer.count() > 0
            {
                self.seal_locked(shop, &mut open);
                continue;
            }
            let timestamp = timestamp();
            match batch.writer.append(record, timestamp) {
                Ok(index) => {
                    let completion = Arc::clone(&batch.completion);
                    if batch.writer.size_bytes() >= limit {
                        self.seal_locked(shop, &mut open);
                    }
                    return Ok(Delivery::new(completion, index, timestamp));
                }
                Err(missing) => {
                    let wanted = missing.0.max(batch.writer.size_bytes());
                    let chunk = shop.pool.take(wanted, reservation.as_deref_mut());
                    batch.writer.add_chunk(chunk.ok_or(Refused::Full(bound))?);
                }
            }
        }
    }

    fn lock(&self, contended: impl FnOnce()) -> MutexGuard<'_, Open> {
        self.open.try_lock().unwrap_or_else(|| {
            contended();
            self.open.lock()
        })
    }

    /// Chunks for the whole first record: a batch is never open without one.
    fn first_chunks(
        &self,
        shop: &Shop,
        last_bytes: usize,
        bound: usize,
        mut reservation: Option<&mut Reservation>,
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let mut chunks = Vec::with_capacity(1);
        let mut room = 0;
        while room < bound {
            let wanted = (bound - room).max(last_bytes);
            let Some(chunk) = shop.pool.take(wanted, reservation.as_deref_mut()) else {
                for chunk in chunks {
                    drop(shop.pool.share(chunk));
                }
                return Err(Refused::Full(bound));
            };
            room += chunk.capacity();
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    #[cold]
    fn begin(&self, shop: &Shop, open: &mut Open, chunks: Vec<Vec<u8>>, now: Instant) {
        let mut writer = BatchWriter::new();
        for chunk in chunks {
            writer.add_chunk(chunk);
        }
        let serial = shop.serials.fetch_add(1, Ordering::Relaxed);
        let completion = Arc::new(Completion::new(Arc::clone(&self.topic), self.partition));
        let deadline = now
            .checked_add(shop.delivery_timeout)
            .unwrap_or_else(|| now + FAR);
        open.batch = Some(OpenBatch {
            writer,
            completion,
            serial,
            deadline,
        });
        // Under the lock, so that the driver hears of a partition's batches in their order.
        shop.inbox.push(Message::Opened {
            partition: self.index,
            serial,
            at: now,
        });
    }

    fn seal_locked(&self, shop: &Shop, open: &mut Open) {
        if let Some(parcel) = Self::take(shop, open) {
            shop.inbox.push(Message::Sealed {
                partition: self.index,
                parcel,
            });
        }
    }

    fn take(shop: &Shop, open: &mut Open) -> Option<Parcel> {
        let batch = open.batch.take()?;
        open.last_bytes = batch.writer.size_bytes();
        let records = batch.writer.seal(|chunk| shop.pool.share(chunk));
        let OpenBatch {
            completion,
            serial,
            deadline,
            ..
        } = batch;
        completion.sealed(records.count());
        Some(Parcel {
            serial,
            completion,
            records,
            deadline,
        })
    }

    /// Seals the open batch if it is the one of that serial. The driver calls it with serials that
    /// it has heard of, so that no earlier batch of the partition can still be in its inbox.
    pub(crate) fn seal(&self, shop: &Shop, serial: u64) -> Option<Parcel> {
        let mut open = self.open.lock();
        let same = open
            .batch
            .as_ref()
            .is_some_and(|batch| batch.serial == serial);
        if same {
            Self::take(shop, &mut open)
        } else {
            None
        }
    }

    /// Takes whatever is open: the producer has ended.
    pub(crate) fn close(&self, shop: &Shop) -> Option<Parcel> {
        let mut open = self.open.lock();
        open.closed = true;
        Self::take(shop, &mut open)
    }
}
