//! The memory that records wait in: chunks, of which there are only so many bytes.

use bytes::Bytes;
use ottla_proto::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::oneshot;

/// The smallest chunk: a quiet partition's batch costs no more.
const CHUNK_BYTES_MIN: usize = 1 << 10;
/// The largest chunk. Larger ones write no faster, and a batch wastes half a chunk at its end.
const CHUNK_BYTES_MAX: usize = 1 << 15;
/// One list of free chunks for each power of two from the smallest to the largest.
const CLASSES: usize = 6;
/// Free chunks beyond so many bytes go back to the allocator.
const FREE_BYTES_MAX: usize = 64 << 20;

/// The pool of one producer (`buffer.memory`).
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    used: AtomicUsize,
    free_bytes: AtomicUsize,
    free: [Mutex<Vec<Vec<u8>>>; CLASSES],
    waiting: AtomicUsize,
    waiters: Mutex<VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Reservation>,
}

/// Bytes that are set aside for one caller; what it does not use goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    pool: Arc<Pool>,
    bytes: usize,
}

fn chunk_bytes(wanted: usize) -> usize {
    wanted
        .next_power_of_two()
        .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
}

fn class(chunk_bytes: usize) -> Option<usize> {
    let class = chunk_bytes.checked_div(CHUNK_BYTES_MIN)?.checked_ilog2()? as usize;
    (chunk_bytes.is_power_of_two() && class < CLASSES).then_some(class)
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            free_bytes: AtomicUsize::new(0),
            free: Default::default(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
        })
    }

    /// Bytes in chunks that hold records.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The largest record that fits into the empty pool, whatever chunks it takes.
    pub(crate) fn largest_record(&self) -> usize {
        self.limit - self.limit % CHUNK_BYTES_MAX
    }

    /// Callers that wait for memory.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A chunk of about `wanted` bytes, from the reservation if there is one. `None` when the limit
    /// is reached or others have waited longer.
    pub(crate) fn take(
        &self,
        wanted: usize,
        reservation: Option<&mut Reservation>,
    ) -> Option<Vec<u8>> {
        let bytes = chunk_bytes(wanted);
        let reserved = reservation.is_some_and(|reservation| reservation.spend(bytes));
        let overtakes = || self.waiting.load(Ordering::Relaxed) > 0;
        if !reserved && (overtakes() || !self.claim(bytes)) {
            return None;
        }
        let free = class(bytes).and_then(|class| self.free.get(class)?.lock().pop());
        if free.is_some() {
            self.free_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Some(free.unwrap_or_else(|| Vec::with_capacity(bytes)))
    }

    fn claim(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// Turns a filled chunk into shared bytes that come back here when nobody needs them any more;
    /// so a chunk can never be written while a connection still holds it.
    pub(crate) fn share(self: &Arc<Self>, chunk: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            pool: Arc::clone(self),
            chunk,
        })
    }

    /// Shares bytes that were made outside the pool (a compressed section). They count against the
    /// limit, and may exceed it for a moment: what they replace is freed right after.
    pub(crate) fn adopt(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        self.used.fetch_add(bytes.capacity(), Ordering::AcqRel);
        self.share(bytes)
    }

    fn give_back(&self, chunk: Vec<u8>) {
        let bytes = chunk.capacity();
        if let Some(free) = class(bytes).and_then(|class| self.free.get(class))
            && self.free_bytes.load(Ordering::Relaxed) < FREE_BYTES_MAX
        {
            self.free_bytes.fetch_add(bytes, Ordering::Relaxed);
            free.lock().push(chunk);
        }
    }

    fn release(self: &Arc<Self>, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.grant();
        }
    }

    /// Serves those who wait, in order. It begins only when a good part is free, so that a full
    /// buffer does not wake one caller for each chunk.
    fn grant(self: &Arc<Self>) {
        let mut waiters = self.waiters.lock();
        while let Some(first) = waiters.front() {
            let used = self.used.load(Ordering::Acquire);
            let free = self.limit.saturating_sub(used);
            let enough = used == 0 || free >= self.limit / 16;
            let gone = first.grant.is_closed();
            let claimed = !gone && enough && self.claim(first.bytes);
            if !gone && !claimed {
                return;
            }
            let Some(first) = waiters.pop_front() else {
                return;
            };
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            if !claimed {
                continue;
            }
            let reservation = Reservation {
                pool: Arc::clone(self),
                bytes: first.bytes,
            };
            if let Err(unwanted) = first.grant.send(reservation) {
                // Its drop must not come back here while the list is locked.
                unwanted.forgo(&self.used);
            }
        }
    }

    /// Waits until so many bytes are set aside.
    ///
    /// Cancel safety: dropping the future gives up the place in the line and leaves nothing behind.
    pub(crate) async fn reserve(self: &Arc<Self>, record_bytes: usize) -> Result<Reservation> {
        // A record may begin in a fresh chunk and end in another.
        let bytes = record_bytes.div_ceil(CHUNK_BYTES_MAX).max(1) * CHUNK_BYTES_MAX;
        let bytes = bytes.min(self.limit);
        let (grant, granted) = oneshot::channel();
        {
            let mut waiters = self.waiters.lock();
            waiters.push_back(Waiter { bytes, grant });
            self.waiting.fetch_add(1, Ordering::AcqRel);
        }
        // Memory may have been freed between the refusal and now.
        self.grant();
        granted
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, "the producer is closed"))
    }

    /// Nobody gets memory any more.
    pub(crate) fn close(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        self.waiting.fetch_sub(waiters.len(), Ordering::AcqRel);
    }
}

impl Reservation {
    fn spend(&mut self, bytes: usize) -> bool {
        let enough = self.bytes >= bytes;
        if enough {
            self.bytes -= bytes;
        }
        enough
    }

    fn forgo(mut self, used: &AtomicUsize) {
        used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pool.release(self.bytes);
        }
    }
}

/// A chunk on its way through a connection.
#[derive(Debug)]
struct Lent {
    pool: Arc<Pool>,
    chunk: Vec<u8>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        let bytes = chunk.capacity();
        self.pool.give_back(chunk);
        self.pool.release(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_chunk_comes_back_only_when_the_last_holder_lets_go() {
        let pool = Pool::new(1 << 20);
        let mut chunk = pool.take(100, None).unwrap();
        assert_eq!(pool.used(), CHUNK_BYTES_MIN);
        chunk.extend_from_slice(b"abc");
        let batch = pool.share(chunk);
        let in_flight = batch.clone();
        drop(batch);
        assert_eq!(pool.used(), CHUNK_BYTES_MIN);
        assert_eq!(&in_flight[..], b"abc");
        drop(in_flight);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_before_newcomers() {
        let pool = Pool::new(2 * CHUNK_BYTES_MAX);
        let full = [
            pool.take(CHUNK_BYTES_MAX, None),
            pool.take(CHUNK_BYTES_MAX, None),
        ];
        assert!(pool.take(1, None).is_none());
        let mut first = pin!(pool.reserve(100));
        let mut second = pin!(pool.reserve(100));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        let [one, two] = full;
        drop(pool.share(one.unwrap()));
        assert!(poll(second.as_mut()).is_pending());
        let Poll::Ready(Ok(reservation)) = poll(first.as_mut()) else {
            panic!("not served")
        };
        assert!(
            pool.take(1, None).is_none(),
            "a newcomer must not overtake the second"
        );
        drop(pool.share(two.unwrap()));
        assert!(poll(second.as_mut()).is_ready());
        drop(reservation);
    }

    #[test]
    fn a_waiter_that_leaves_holds_nothing() {
        let pool = Pool::new(CHUNK_BYTES_MAX);
        let full = pool.take(CHUNK_BYTES_MAX, None).unwrap();
        {
            let mut gone = pin!(pool.reserve(100));
            assert!(poll(gone.as_mut()).is_pending());
        }
        drop(pool.share(full));
        assert_eq!(pool.used(), 0);
        assert_eq!(pool.waiting(), 0);
        assert!(pool.take(1, None).is_some());
    }

    #[test]
    fn a_granted_reservation_that_is_dropped_goes_back() {
        let pool = Pool::new(4 * CHUNK_BYTES_MAX);
        let mut waiting = pin!(pool.reserve(10));
        let Poll::Ready(Ok(mut reservation)) = poll(waiting.as_mut()) else {
            panic!("not served")
        };
        assert_eq!(pool.used(), CHUNK_BYTES_MAX);
        let chunk = pool.take(1, Some(&mut reservation)).unwrap();
        drop(reservation);
        assert_eq!(pool.used(), chunk.capacity());
    }
}
