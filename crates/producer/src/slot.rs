//! A partition's open batch, under its own short lock.

use crate::compressing::Raw;
use crate::delivery::{Completion, Delivery};
use crate::inbox::{Contents, Inbox, Message, Parcel};
use crate::pool::{Account, CHUNK_BYTES_MAX, Pool, Reservation};
use arc_swap::ArcSwap;
use bytes::Bytes;
use ottla_proto::batch::{BatchRoom, BatchWriter, HEADER_BYTES};
use ottla_proto::producer::PartitionIndex;
use ottla_proto::{BrokerId, Record};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A delivery timeout that no clock can count to is as good as this.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The moment after a wait, or a far one where no clock counts so far.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + FAR)
}

/// Why a slot did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The buffer has no room: so many bytes are wanted.
    Full(usize),
    /// The producer has ended, or the topic was forgotten.
    Closed,
    /// The topic has no such partition.
    Absent,
}

/// What a caller learns of the partition on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Another caller held its lock.
    Contended,
    /// The record filled the batch.
    Filled,
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
    /// Batches will be compressed.
    pub(crate) compresses: bool,
    /// Someone wants memory, and the driver has not heard of it yet.
    pub(crate) pressed: AtomicBool,
}

impl Shop {
    /// Asks the driver to send what it can, since memory of these accounts is wanted; once until
    /// it has heard.
    pub(crate) fn press(&self, accounts: &[Arc<Account>]) {
        accounts.iter().for_each(|account| account.mark());
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
    /// What the last batch held in chunks: a guess at what this one will.
    last_bytes: usize,
    /// The room that it had beside its chunks.
    room: BatchRoom,
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
    /// The leader's, which the open batch's chunks come from. Changed under the lock only.
    account: ArcSwap<Account>,
    /// What the open batch holds, in chunks.
    open_bytes: AtomicUsize,
    /// What the last sealed batch held.
    sealed_bytes: AtomicUsize,
    /// Sealed batches that are not on their way.
    queued: AtomicUsize,
    open: Mutex<Open>,
}

impl Slot {
    pub(crate) fn new(
        index: PartitionIndex,
        topic: Arc<str>,
        partition: i32,
        limit: usize,
        pool: &Arc<Pool>,
    ) -> Self {
        Self {
            index,
            topic,
            partition,
            limit: AtomicUsize::new(limit),
            account: ArcSwap::new(pool.account(None)),
            open_bytes: AtomicUsize::new(0),
            sealed_bytes: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
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

    /// Notes how many sealed batches wait to be sent.
    pub(crate) fn set_queued(&self, batches: usize) {
        self.queued.store(batches, Ordering::Relaxed);
    }

    /// Bytes of records that wait here: the open batch, and sealed ones by the size of the last.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let queued = self.queued.load(Ordering::Relaxed) as u64;
        let each = self.sealed_bytes.load(Ordering::Relaxed) as u64;
        queued.saturating_mul(each) + self.open_bytes.load(Ordering::Relaxed) as u64
    }

    /// The account that its memory comes from.
    pub(crate) fn account(&self) -> Arc<Account> {
        self.account.load_full()
    }

    /// From now on its memory comes from this leader's account. What is sealed stays with the old
    /// one: it comes free as the new leader takes it.
    pub(crate) fn set_leader(&self, leader: Option<BrokerId>) {
        if self.account.load().leader() == leader {
            return;
        }
        let old = {
            let open = self.open.lock();
            let new = self.account.load().pool.account(leader);
            let old = self.account.swap(Arc::clone(&new));
            if let Some(batch) = &open.batch {
                new.inherit(&old, batch.writer.capacity_bytes());
            }
            old
        };
        old.dismiss();
    }

    /// Appends a record to the open batch. `clock` is read only when a batch is begun, before the
    /// first `timestamp`.
    #[inline]
    pub(crate) fn append(
        &self,
        shop: &Shop,
        record: &Record<'_>,
        timestamp: impl Fn() -> i64,
        mut reservation: Option<&mut Reservation>,
        clock: impl Fn() -> Instant,
        notice: impl Fn(Notice),
    ) -> Result<Delivery, Refused> {
        let mut open = self.lock(|| notice(Notice::Contended));
        let bound = BatchWriter::upper_bound(record);
        let kept = kept_bytes(shop, record, bound);
        let limit = self.limit.load(Ordering::Relaxed);
        loop {
            let Open {
                batch,
                last_bytes,
                closed,
                ..
            } = &mut *open;
            let Some(batch) = batch else {
                if *closed {
                    return Err(Refused::Closed);
                }
                // Chunks for the whole first record: a batch is never open without one.
                let mut writer = match shop.compresses {
                    true => BatchWriter::to_be_compressed(),
                    false => BatchWriter::new(),
                };
                let expected = (*last_bytes).min(limit);
                let needed = (bound - kept, expected, kept);
                if !self.take(needed, reservation.as_deref_mut(), &mut writer) {
                    return Err(Refused::Full(wanted(bound, kept)));
                }
                self.begin(shop, &mut open, writer, clock());
                continue;
            };
            if batch.writer.size_bytes() + bound > limit.max(HEADER_BYTES + bound)
                && batch.writer.count() > 0
            {
                self.seal_locked(shop, &mut open);
                continue;
            }
            let more = kept.saturating_sub(batch.writer.keepable_bytes());
            if more > 0 {
                let missing = (bound - kept).saturating_sub(batch.writer.spare_bytes());
                let needed = (
                    missing,
                    expected_more(&batch.writer, *last_bytes, limit),
                    more,
                );
                if !self.take(needed, reservation.as_deref_mut(), &mut batch.writer) {
                    return Err(Refused::Full(wanted(bound, kept)));
                }
            }
            let timestamp = timestamp();
            match batch.writer.append(record, timestamp) {
                Ok(index) => {
                    let completion = Arc::clone(&batch.completion);
                    let bytes = batch.writer.size_bytes();
                    self.open_bytes.store(bytes, Ordering::Relaxed);
                    // Another record of its size would begin a batch of its own.
                    if bytes + bound > limit {
                        self.seal_locked(shop, &mut open);
                        notice(Notice::Filled);
                    }
                    return Ok(Delivery::new(completion, index, timestamp));
                }
                Err(missing) => {
                    let needed = (
                        missing.0,
                        expected_more(&batch.writer, *last_bytes, limit),
                        0,
                    );
                    if !self.take(needed, reservation.as_deref_mut(), &mut batch.writer) {
                        return Err(Refused::Full(wanted(bound, kept)));
                    }
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

    /// Takes chunks for so many bytes, of a batch that is likely to grow by so many, and lets it keep
    /// so many more: all or nothing.
    fn take(
        &self,
        (bytes, expected, kept): (usize, usize, usize),
        reservation: Option<&mut Reservation>,
        writer: &mut BatchWriter,
    ) -> bool {
        let account = self.account.load();
        let give = |chunk| writer.add_chunk(chunk);
        let taken = account.take(bytes, expected, kept, reservation, give);
        if taken {
            writer.allow_kept(kept);
        }
        taken
    }

    #[cold]
    fn begin(&self, shop: &Shop, open: &mut Open, mut writer: BatchWriter, now: Instant) {
        writer.reuse(std::mem::take(&mut open.room));
        let serial = shop.serials.fetch_add(1, Ordering::Relaxed);
        let completion = Arc::new(Completion::new(Arc::clone(&self.topic), self.partition));
        let deadline = later(now, shop.delivery_timeout);
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
        if let Some(parcel) = self.take_open(open) {
            shop.inbox.push(Message::Sealed {
                partition: self.index,
                parcel,
            });
        }
    }

    fn take_open(&self, open: &mut Open) -> Option<Parcel> {
        let batch = open.batch.take()?;
        open.last_bytes = batch.writer.copied_bytes();
        let bytes = batch.writer.size_bytes();
        self.sealed_bytes.store(bytes, Ordering::Relaxed);
        self.open_bytes.store(0, Ordering::Relaxed);
        let account = self.account.load_full();
        let OpenBatch {
            writer,
            completion,
            serial,
            deadline,
        } = batch;
        completion.sealed(writer.count());
        let contents = if writer.is_to_be_compressed() {
            Contents::Raw(Raw::new(writer, Arc::clone(&account)))
        } else {
            let (records, room) = writer.seal_kept(|chunk, kept| account.share(chunk, kept));
            open.room = room;
            Contents::Final(records)
        };
        Some(Parcel {
            serial,
            completion,
            contents,
            deadline,
        })
    }

    /// Seals the open batch if it is the one of that serial. The driver calls it with serials that
    /// it has heard of, so that no earlier batch of the partition can still be in its inbox.
    pub(crate) fn seal(&self, serial: u64) -> Option<Parcel> {
        let mut open = self.open.lock();
        let same = open
            .batch
            .as_ref()
            .is_some_and(|batch| batch.serial == serial);
        if same {
            self.take_open(&mut open)
        } else {
            None
        }
    }

    /// Takes no more records, unless a batch is open: its topic is not produced to any more.
    pub(crate) fn retire(&self) -> bool {
        let mut open = self.open.lock();
        open.closed |= open.batch.is_none();
        open.closed
    }

    /// Takes records again.
    pub(crate) fn reopen(&self) {
        self.open.lock().closed = false;
    }

    /// Takes whatever is open: the producer has ended.
    pub(crate) fn close(&self) -> Option<Parcel> {
        let mut open = self.open.lock();
        open.closed = true;
        self.take_open(&mut open)
    }
}

/// By how much a batch is likely to grow: as much as the last one held, and else twice as much as
/// there is.
fn expected_more(writer: &BatchWriter, last_bytes: usize, limit: usize) -> usize {
    let so_far = writer.copied_bytes();
    let expected = so_far.max(last_bytes.saturating_sub(so_far));
    expected.min(limit.saturating_sub(writer.size_bytes()))
}

/// How many bytes of the record stay outside chunks, of `bound` in all. A record that would wait for
/// half of the memory, with the chunk beside it, is copied: it would wait for the last others to go.
#[inline]
fn kept_bytes(shop: &Shop, record: &Record<'_>, bound: usize) -> usize {
    if record.shared_value.is_none() || shop.compresses {
        return 0;
    }
    let kept = record.value_to_keep().map_or(0, Bytes::len);
    let whole = wanted(bound, kept).next_multiple_of(CHUNK_BYTES_MAX);
    if whole > shop.pool.limit() / 2 {
        0
    } else {
        kept
    }
}

/// What to wait for: what is kept comes beside a chunk.
fn wanted(bound: usize, kept: usize) -> usize {
    bound + if kept > 0 { CHUNK_BYTES_MAX } else { 0 }
}

#[cfg(test)]
mod tests;
