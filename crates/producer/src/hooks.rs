//! What users hang into a producer: hooks that hear how batches ended, interceptors that see records
//! before they are sent, and one record's own callback.

use crate::dead_letter::DeadLetters;
use crate::delivery::{Delivery, RecordMetadata};
use ottla_proto::{Error, Record, Result, WriteOutcome};
use parking_lot::Mutex;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Records of one batch that were acknowledged together.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// Topic.
    pub topic: &'a Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset of the first record, the others follow it; `None` with `acks=0`, or when the broker
    /// could not say any more.
    pub base_offset: Option<i64>,
    /// How many records.
    pub record_count: u32,
    /// Since the batch's first record was enqueued.
    pub latency: Duration,
}

/// Records of one batch that failed together.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Failed<'a> {
    /// Topic.
    pub topic: &'a Arc<str>,
    /// Partition.
    pub partition: i32,
    /// How many records.
    pub record_count: u32,
    /// Since the batch's first record was enqueued.
    pub latency: Duration,
    /// Why; [`Error::write_outcome`] says whether the records may be in the log.
    pub error: &'a Error,
}

/// Hears how every batch of a producer ended: one call a batch, whether anybody awaits its records
/// or not.
///
/// Calls come from the producer's own task, which does nothing else meanwhile: be quick, and never
/// block. A hook that panics is reported in the log, and the producer goes on.
pub trait DeliveryHook: Send + Sync + 'static {
    /// Records were acknowledged.
    fn on_delivered(&self, batch: &Delivered<'_>) {
        let _ = batch;
    }

    /// Records failed for good.
    fn on_failed(&self, batch: &Failed<'_>) {
        let _ = batch;
    }
}

/// Sees every record before its partition is chosen, and may give another one in its place; and
/// hears, as a [`DeliveryHook`] does, how batches ended.
///
/// Interceptors run in the order in which they were added, on the caller's thread: a panic there
/// reaches the caller, and the record is not taken. Without any, a record costs nothing more.
pub trait Interceptor: Send + Sync + 'static {
    /// The record to send in the place of `record`. What it refers to lives in the interceptor, in
    /// the record, or in `scratch`, which is dropped when the record is in its batch.
    fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r>;

    /// Whether the record may be sent, asked when every interceptor has changed what it would; it may
    /// unless this says otherwise.
    ///
    /// # Errors
    /// Why not, in your own words: whoever sends the record gets this error, and it is not taken. With
    /// dead letters, [`Producer::dead_letter`](crate::Producer::dead_letter) keeps such a record.
    fn check(&self, record: &Record<'_>) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// Records were acknowledged, or failed for good with [`Failed::error`].
    fn on_acknowledgement(&self, batch: Result<&Delivered<'_>, &Failed<'_>>) {
        let _ = batch;
    }
}

/// Keeps bytes for as long as a record needs them on its way into a batch.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: OnceLock<Vec<u8>>,
    next: OnceLock<Box<Scratch>>,
}

impl Scratch {
    /// Keeps these bytes, and lends them out.
    pub fn keep(&self, bytes: impl Into<Vec<u8>>) -> &[u8] {
        let mut place = self;
        while place.bytes.get().is_some() {
            place = place.next.get_or_init(Box::default);
        }
        place.bytes.get_or_init(|| bytes.into())
    }
}

/// Everything that users hung in.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Heard in this order.
    pub delivery: Vec<Arc<dyn DeliveryHook>>,
    /// Run in this order.
    pub interceptors: Vec<Arc<dyn Interceptor>>,
    /// Where failed records go; nowhere unless set.
    pub dead_letters: Option<DeadLetters>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("delivery", &self.delivery.len())
            .field("interceptors", &self.interceptors.len())
            .field("dead_letters", &self.dead_letters)
            .finish()
    }
}

impl Hooks {
    /// Whether anybody wants to hear how batches end.
    pub(crate) fn hears(&self) -> bool {
        !self.delivery.is_empty() || !self.interceptors.is_empty()
    }

    pub(crate) fn delivered(&self, batch: &Delivered<'_>) {
        for hook in &self.delivery {
            guarded("a delivery hook", || hook.on_delivered(batch));
        }
        for interceptor in &self.interceptors {
            guarded("an interceptor", || {
                interceptor.on_acknowledgement(Ok(batch))
            });
        }
    }

    pub(crate) fn failed(&self, batch: &Failed<'_>) {
        for hook in &self.delivery {
            guarded("a delivery hook", || hook.on_failed(batch));
        }
        for interceptor in &self.interceptors {
            guarded("an interceptor", || {
                interceptor.on_acknowledgement(Err(batch))
            });
        }
    }

    /// Shows a record to every interceptor.
    ///
    /// # Errors
    /// One of them refuses it.
    pub(crate) fn intercept<'r>(
        &'r self,
        record: Record<'r>,
        scratch: &'r Scratch,
    ) -> Result<Record<'r>> {
        let interceptors = self.interceptors.iter();
        let record = interceptors.fold(record, |record, interceptor| {
            interceptor.on_send(record, scratch)
        });
        for interceptor in &self.interceptors {
            let checked = interceptor.check(&record);
            checked.map_err(|error| error.with_outcome(WriteOutcome::NotWritten))?;
        }
        Ok(record)
    }
}

/// Runs a user's code on the producer's task: its panic must not end every record's way.
pub(crate) fn guarded(who: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("{who} panicked; the producer goes on");
    }
}

impl Delivery {
    /// Calls `callback` once with the outcome: on the producer's own task when it comes, which does
    /// nothing else meanwhile; right here when it is known already. Only records that have a
    /// callback pay for it.
    pub fn on_delivery(self, callback: impl FnOnce(Result<RecordMetadata>) + Send + 'static) {
        let waiting = Arc::new(Callback(Mutex::new(Some((self, callback)))));
        waiting.look();
    }
}

/// A delivery that is polled by whoever wakes it.
struct Callback<F>(Mutex<Option<(Delivery, F)>>);

impl<F: FnOnce(Result<RecordMetadata>) + Send + 'static> Callback<F> {
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        let mut waiting = self.0.lock();
        let Some((delivery, _)) = waiting.as_mut() else {
            return;
        };
        if let Poll::Ready(outcome) = std::pin::Pin::new(delivery).poll(&mut context)
            && let Some((_, callback)) = waiting.take()
        {
            // The user's code runs without our lock.
            drop(waiting);
            guarded("a record's callback", || callback(outcome));
        }
    }
}

impl<F: FnOnce(Result<RecordMetadata>) + Send + 'static> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Completion;
    use ottla_proto::ErrorKind;
    use ottla_proto::producer::Ack;
    use std::sync::atomic::{AtomicU32, Ordering};

    const ACK: Ack = Ack {
        base_offset: Some(40),
        log_append_time: None,
    };

    #[test]
    fn a_callback_hears_its_own_record_once_now_or_later() {
        let completion = Arc::new(Completion::new("orders".into(), 1));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listen = |index| {
            let heard = Arc::clone(&heard);
            Delivery::new(Arc::clone(&completion), index, 7)
                .on_delivery(move |outcome| heard.lock().push(outcome.unwrap().offset));
        };
        listen(2);
        listen(0);
        assert!(heard.lock().is_empty());
        completion.complete(Ok(ACK));
        assert_eq!(*heard.lock(), [Some(42), Some(40)]);
        listen(1);
        assert_eq!(heard.lock().last(), Some(&Some(41)), "known already");
        completion.complete(Err(Error::new(ErrorKind::Timeout, "late")));
        assert_eq!(heard.lock().len(), 3);
        assert_eq!(Arc::strong_count(&completion), 1, "nothing is kept");
    }

    #[test]
    fn a_callback_that_panics_is_not_the_end_of_the_others() {
        let completion = Arc::new(Completion::new("orders".into(), 1));
        let calls = Arc::new(AtomicU32::new(0));
        for index in 0..3 {
            let calls = Arc::clone(&calls);
            Delivery::new(Arc::clone(&completion), index, 7).on_delivery(move |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                assert_ne!(index, 1, "this one panics");
            });
        }
        completion.complete(Ok(ACK));
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }

    struct Stamp(&'static str);

    impl Interceptor for Stamp {
        fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r> {
            let count = record.headers.len();
            let value = scratch.keep(format!("{}{count}", self.0));
            record.header(self.0, value)
        }
    }

    #[test]
    fn interceptors_see_what_the_one_before_gave() {
        let hooks = Hooks {
            interceptors: vec![Arc::new(Stamp("a")), Arc::new(Stamp("b"))],
            ..Hooks::default()
        };
        let scratch = Scratch::default();
        let record = Record::to("orders").value("v");
        let record = hooks.intercept(record, &scratch).unwrap();
        let headers: Vec<_> = record.headers.iter().map(|h| (h.key, h.value)).collect();
        assert_eq!(headers, [("a", Some(&b"a0"[..])), ("b", Some(&b"b1"[..]))]);
    }
}
