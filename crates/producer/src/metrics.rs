//! What the producer counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of the producer's counters since it was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Records that a broker acknowledged.
    pub records_acknowledged: u64,
    /// Records that failed and are certainly not in the log.
    pub records_not_written: u64,
    /// Records that failed and may be in the log.
    pub records_unknown: u64,
    /// Records of full batches that are neither acknowledged nor failed.
    pub records_pending: u64,
    /// Batches sent, repeated ones counted each time.
    pub batches_sent: u64,
    /// Requests sent.
    pub requests_sent: u64,
    /// Bytes of batches sent, after compression.
    pub bytes_sent: u64,
    /// Bytes of the buffer in use.
    pub buffer_used_bytes: usize,
    /// Size of the buffer (`buffer.memory`).
    pub buffer_bytes: usize,
    /// Callers that wait for a place in the buffer.
    pub callers_waiting: usize,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sealed: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) not_written: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
