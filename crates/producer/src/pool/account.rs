//! What one leader's partitions hold of the pool.

use super::line::Reservation;
use super::{CHUNK_BYTES_MAX, Pool, chunk_bytes, large_chunk_bytes, section_chunk_bytes};
use bytes::Bytes;
use ottla_proto::BrokerId;
use ottla_proto::batch::Segments;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A leader's part of the pool. It lives as long as a partition or a chunk belongs to it.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) pool: Arc<Pool>,
    leader: Option<BrokerId>,
    used: AtomicUsize,
    /// Callers in the line who would take from here.
    pub(super) waiting: AtomicUsize,
    /// Someone who does not wait wants memory from here.
    marked: AtomicBool,
    /// Someone wanted memory from here when the driver last asked.
    wanted: AtomicBool,
    /// Since when a batch is ready for the leader, who has taken none after it.
    refusing: Mutex<Option<Instant>>,
    /// Where the last search for a batch that waits for the leader found one.
    found_at: AtomicUsize,
}

impl Account {
    pub(super) fn new(pool: Arc<Pool>, leader: Option<BrokerId>) -> Self {
        pool.account_count.fetch_add(1, Ordering::AcqRel);
        Self {
            pool,
            leader,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            marked: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            refusing: Mutex::default(),
            found_at: AtomicUsize::new(0),
        }
    }

    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    fn is_alone(&self) -> bool {
        self.pool.account_count.load(Ordering::Acquire) <= 1
    }

    /// How many bytes more it may take. An empty account may take all that is free, or a large
    /// record could wait for ever.
    fn room(&self) -> usize {
        let (used, free) = (self.used(), self.pool.unused());
        if used == 0 || self.is_alone() {
            return free;
        }
        // The most that keeps `used + room <= 2 * (free - room)`.
        free.min((2 * free).saturating_sub(used) / 3)
    }

    /// Whether a newcomer would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 || self.room() < CHUNK_BYTES_MAX
    }

    /// Whether enough has come free to begin to serve those who wait: a sixteenth of what it could
    /// hold, so that a full buffer does not wake one caller for each chunk.
    pub(super) fn has_recovered(&self) -> bool {
        self.room().saturating_mul(15) >= self.used()
    }

    pub(super) fn claim(&self, bytes: usize) -> bool {
        // The threshold is looked at before the claim: two callers may exceed it together by a
        // chunk, but never the pool's limit.
        let claimed = bytes <= self.room() && self.pool.claim(bytes);
        if claimed {
            self.used.fetch_add(bytes, Ordering::AcqRel);
        }
        claimed
    }

    /// Gives chunks for `bytes` more of a batch, which is likely to grow by `expected`, and counts
    /// `kept` bytes beside them, from the reservation if there is one: all in one claim, since an empty
    /// account may take all that is free only once. Nothing when the threshold or the limit is reached
    /// or others have waited longer.
    pub(crate) fn take(
        self: &Arc<Self>,
        bytes: usize,
        expected: usize,
        kept: usize,
        reservation: Option<&mut Reservation>,
        mut give: impl FnMut(Vec<u8>),
    ) -> bool {
        if bytes == 0 {
            return self.set_aside(kept, reservation);
        }
        let wanted = bytes.max(expected);
        if let Some(large) = self.large_chunk(bytes, wanted, kept) {
            give(large);
            return true;
        }
        let first = chunk_bytes(wanted);
        // A record larger than the largest chunk takes several of them.
        let count = bytes.div_ceil(first).max(1);
        let taken = self.set_aside(first * count + kept, reservation);
        if taken {
            (0..count).for_each(|_| give(self.pool.chunk(first)));
        }
        taken
    }

    /// Counts bytes that a batch holds, from the reservation if there is one. Not when the threshold
    /// or the limit is reached or others have waited longer.
    fn set_aside(self: &Arc<Self>, bytes: usize, reservation: Option<&mut Reservation>) -> bool {
        let reserved = reservation.is_some_and(|reservation| reservation.spend(self, bytes));
        let overtakes = || self.waiting.load(Ordering::Relaxed) > 0;
        reserved || (!overtakes() && self.claim(bytes))
    }

    fn large_chunk(&self, bytes: usize, wanted: usize, kept: usize) -> Option<Vec<u8>> {
        let large = large_chunk_bytes(wanted).filter(|&large| large >= bytes)?;
        if self.waiting.load(Ordering::Relaxed) > 0 || !self.pool.claim_large(large) {
            return None;
        }
        if !self.claim(large + kept) {
            self.pool.release_large(large);
            return None;
        }
        Some(self.pool.chunk(large))
    }

    /// Whether the threshold allows to take over bytes that another account holds.
    pub(super) fn can_take_over(&self, bytes: usize) -> bool {
        let used = self.used();
        used == 0 || self.is_alone() || used + bytes <= 2 * self.pool.unused()
    }

    /// Takes over bytes that another account holds: their partition has a new leader.
    pub(crate) fn inherit(&self, from: &Self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        from.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Turns a chunk of a batch that is sealed into shared bytes that come back here when nobody
    /// needs them any more; so a chunk can never be written while a connection still holds it. The
    /// bytes of kept values come free with the chunk that holds the rest of their records.
    pub(crate) fn share(self: &Arc<Self>, chunk: Vec<u8>, kept_bytes: usize) -> Bytes {
        self.sealed(chunk.capacity());
        self.lend(chunk, kept_bytes)
    }

    /// A chunk of so many bytes belongs to an open batch no more.
    pub(crate) fn sealed(&self, chunk_bytes: usize) {
        if chunk_bytes > CHUNK_BYTES_MAX {
            self.pool.release_large(chunk_bytes);
        }
    }

    /// Takes back a chunk of a sealed batch that was not shared.
    pub(crate) fn take_back(&self, chunk: Vec<u8>) {
        let bytes = chunk.capacity();
        self.pool.give_back(chunk);
        self.release(bytes);
    }

    /// As [`share`](Self::share), of what belongs to an open batch no more.
    pub(crate) fn lend(self: &Arc<Self>, chunk: Vec<u8>, kept_bytes: usize) -> Bytes {
        Bytes::from_owner(Lent {
            account: Arc::clone(self),
            chunk,
            kept_bytes,
        })
    }

    /// Copies bytes that were made outside the pool (a compressed section) into chunks of it: those
    /// are at hand, where fresh memory would have to be asked for. They count against the limit, and
    /// may exceed it: for a moment by all, until what they replace is freed, and then by a seventh of
    /// what hardly compresses.
    pub(crate) fn adopt<'b>(
        self: &Arc<Self>,
        pieces: impl IntoIterator<Item = &'b [u8]>,
        mut replaced_bytes: usize,
    ) -> Segments {
        let mut segments = Segments::default();
        for mut rest in pieces {
            while !rest.is_empty() {
                let size = section_chunk_bytes(rest.len(), replaced_bytes);
                replaced_bytes = replaced_bytes.saturating_sub(size);
                let (now, later) = rest.split_at(rest.len().min(size));
                let mut chunk = self.pool.chunk(size);
                self.pool.used.fetch_add(chunk.capacity(), Ordering::AcqRel);
                self.used.fetch_add(chunk.capacity(), Ordering::AcqRel);
                chunk.clear();
                chunk.extend_from_slice(now);
                segments.push(self.lend(chunk, 0));
                rest = later;
            }
        }
        segments
    }

    pub(super) fn release(&self, bytes: usize) {
        // Either we see a caller that comes to wait, or it sees the bytes: hence the order of all.
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.pool.used.fetch_sub(bytes, Ordering::SeqCst);
        self.pool.serve();
    }

    /// Someone who does not wait wants memory from here.
    pub(crate) fn mark(&self) {
        self.marked.store(true, Ordering::Release);
    }

    /// Takes the mark, and says whether someone wants memory from here.
    pub(super) fn heed(&self) -> bool {
        let marked = self.marked.swap(false, Ordering::AcqRel);
        let wanted = marked || self.waiting.load(Ordering::Acquire) > 0;
        self.wanted.store(wanted, Ordering::Relaxed);
        wanted
    }

    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether someone wanted memory from here at the last [`Pool::heed`].
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// A batch is ready for the leader.
    pub(crate) fn offer(&self, now: Instant) {
        self.refusing.lock().get_or_insert(now);
    }

    /// The leader takes a batch. If others wait, the next one that becomes ready counts again.
    pub(crate) fn accept(&self) {
        *self.refusing.lock() = None;
    }

    /// Whether the leader has taken nothing since a batch was ready.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.lock().is_some()
    }

    /// Whether a batch waits for the leader in one of so many places, of each of which `waits` tells.
    ///
    /// The search goes on where the last one found something: begun anew at each batch that fails,
    /// it passed all those that had failed before.
    pub(crate) fn is_awaited(&self, places: usize, waits: impl FnMut(&usize) -> bool) -> bool {
        let from = self.found_at.load(Ordering::Relaxed).min(places);
        let found = (from..places).chain(0..from).find(waits);
        self.found_at.store(found.unwrap_or(0), Ordering::Relaxed);
        found.is_some()
    }

    /// For how long the leader has taken nothing although a batch was ready.
    pub(crate) fn refused_for(&self, now: Instant) -> Duration {
        let since = *self.refusing.lock();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Sends those who wait here to look again: a partition has a new leader.
    pub(crate) fn dismiss(&self) {
        self.pool.dismiss(self);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pool.account_count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A chunk on its way through a connection.
#[derive(Debug)]
struct Lent {
    account: Arc<Account>,
    chunk: Vec<u8>,
    kept_bytes: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        let bytes = chunk.capacity() + self.kept_bytes;
        self.account.pool.give_back(chunk);
        self.account.release(bytes);
    }
}
