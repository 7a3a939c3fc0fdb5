//! What hooks, interceptors and dead letters add to a producer's way of taking records in.

use super::{Producer, Refusal, Shared, closed};
use crate::dead_letter::bury_one;
use crate::delivery::{Delivery, RecordMetadata};
use crate::hooks::Scratch;
use crate::inbox::Message;
use crate::metrics::Metrics;
use crate::pool::Reservation;
use ottla_proto::{Error, ErrorKind, Record, Result, WriteOutcome};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// How many topics may be loading at once for callers who do not wait: names can come from outside,
/// and one that does not exist is looked for until `max.block.ms`. What is beyond is loaded when it is
/// tried again after others have ended.
const WANTED_MAX: usize = 64;

impl Shared {
    /// Milliseconds since the Unix epoch, as of the last look at the clock.
    pub(crate) fn now_millis(&self) -> i64 {
        self.now_millis.load(Ordering::Relaxed)
    }
}

impl Producer {
    /// The driver's own way in, for dead letters: open until the driver ends, so that closing does
    /// not lose them.
    pub(crate) fn of_driver(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            handle: None,
        }
    }

    /// Has the topic loaded beside: the caller does not wait, but tries again.
    #[cold]
    pub(super) fn want(&self, topic: &str) {
        let mut wanted = self.shared.wanted.lock();
        if wanted.len() < WANTED_MAX && !wanted.contains(topic) {
            let topic: Arc<str> = topic.into();
            wanted.insert(Arc::clone(&topic));
            self.shared.shop.inbox.push(Message::Wanted(topic));
        }
    }

    /// Loads a topic for a caller who does not wait; what is wrong with it shows when it is tried
    /// again.
    pub(crate) async fn load_wanted(shared: Arc<Shared>, topic: Arc<str>) {
        let loaded = Self::of_driver(Arc::clone(&shared)).prepare(&topic).await;
        if let Err(error) = loaded {
            tracing::debug!(%topic, %error, "a topic that is wanted was not loaded");
        }
        shared.wanted.lock().remove(&topic);
    }

    #[inline]
    pub(super) fn append(
        &self,
        record: &Record<'_>,
        reservation: Option<&mut Reservation>,
    ) -> Result<Delivery, Refusal> {
        if self.handle.is_some() && self.shared.closed.load(Ordering::Relaxed) {
            return Err(Refusal::Final(closed()));
        }
        self.shared.append(record, reservation)
    }

    #[inline]
    pub(super) fn intercepts(&self) -> bool {
        !self.shared.config.hooks.interceptors.is_empty()
    }

    /// Takes a record that no interceptor sees (any more).
    pub(crate) async fn enqueue_as_it_is(&self, record: Record<'_>) -> Result<Delivery> {
        match self.append(&record, None) {
            Ok(delivery) => Ok(delivery),
            Err(refusal) => self.enqueue_slowly(&record, refusal).await,
        }
    }

    #[cold]
    pub(super) async fn enqueue_intercepted(&self, record: Record<'_>) -> Result<Delivery> {
        let scratch = Scratch::default();
        let record = self
            .shared
            .config
            .hooks
            .intercept(record.borrowed(), &scratch)?;
        // Boxed, so that records without interceptors do not carry its size.
        Box::pin(self.enqueue_as_it_is(record)).await
    }

    #[cold]
    pub(super) fn append_intercepted(&self, record: &Record<'_>) -> Result<Delivery, Refusal> {
        let scratch = Scratch::default();
        let record = self
            .shared
            .config
            .hooks
            .intercept(record.borrowed(), &scratch)
            .map_err(Refusal::Final)?;
        self.append(&record, None)
    }

    /// As [`enqueue`](Self::enqueue), and calls `on_delivery` with the outcome when it comes; see
    /// [`Delivery::on_delivery`].
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue): the record was not taken, and `on_delivery` is not called.
    ///
    /// Cancel safety: a dropped future leaves nothing behind.
    pub async fn enqueue_with(
        &self,
        record: Record<'_>,
        on_delivery: impl FnOnce(Result<RecordMetadata>) + Send + 'static,
    ) -> Result<()> {
        self.enqueue(record).await?.on_delivery(on_delivery);
        Ok(())
    }

    /// Writes a record that was refused, or that failed elsewhere with `error`, to its dead letter
    /// topic, and waits until that is acknowledged.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when the producer was built without dead letters; else as
    /// [`send`](Self::send).
    ///
    /// Cancel safety: as [`send`](Self::send).
    pub async fn dead_letter(&self, record: Record<'_>, error: &Error) -> Result<RecordMetadata> {
        let Some(policy) = &self.shared.config.hooks.dead_letters else {
            let error = Error::new(ErrorKind::State, "the producer has no dead letters");
            return Err(error.with_outcome(WriteOutcome::NotWritten));
        };
        bury_one(&self.shared, policy, &record, error).await
    }

    /// How many partitions a topic has that was prepared; 0 when it was not.
    pub(crate) fn partition_count(&self, topic: &str) -> i32 {
        let table = self.shared.table.load();
        let count = table.get(topic).map_or(0, |topic| topic.slots.len());
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// The figures so far; see [`crate::metrics`] for the names under which the same figures reach a
    /// recorder of the `metrics` crate.
    pub fn metrics(&self) -> Metrics {
        let pool = &self.shared.shop.pool;
        Metrics {
            buffer_used_bytes: pool.used(),
            buffer_bytes: pool.limit(),
            callers_waiting: pool.waiting(),
            ..self.shared.counters.snapshot(Instant::now().into_std())
        }
    }
}
