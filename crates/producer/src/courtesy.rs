//! Callers give way to the driver.
//!
//! A caller that puts records in one after the other waits for nothing while the buffer has room. The
//! driver that it woke may be next on its very thread: a runtime of one thread has no other, and a
//! worker of several keeps the task that was woken last to itself. So a caller that has filled some
//! batches lets others run once, or nothing would be sent until the buffer is full.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A caller gives way when so much was filled: often enough for a batch at a time, and so seldom
/// that small batches do not pay for it.
const FILLED_BYTES: usize = 128 << 10;

/// What a producer's callers owe to its driver.
#[derive(Debug, Default)]
pub(crate) struct Courtesy {
    /// Bytes of batches that were filled since a caller gave way.
    filled_bytes: AtomicUsize,
}

impl Courtesy {
    /// A batch of so many bytes was filled.
    pub(crate) fn filled(&self, bytes: usize) {
        self.filled_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a caller should give way before it puts in another record.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.filled_bytes.load(Ordering::Relaxed) >= FILLED_BYTES
    }

    /// Lets the driver and others run.
    ///
    /// Cancel safety: safe.
    #[cold]
    pub(crate) async fn give_way(&self) {
        tokio::task::yield_now().await;
        // Not before: who comes meanwhile gives way too. One of them has the driver behind it on its
        // thread, and records enqueued together would change places.
        self.filled_bytes.store(0, Ordering::Relaxed);
    }
}
