//! How a caller learns what became of a record.

use ottla_proto::producer::Ack;
use ottla_proto::{Error, Result};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// Where a record came to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset; `None` with `acks=0`, and when the broker knew the batch already from an earlier
    /// attempt and could no longer say where it lies.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch: the record's own time, or the broker's when the topic uses
    /// log-append time.
    pub timestamp: i64,
}

/// What all records of a batch wait for.
#[derive(Debug)]
pub(crate) struct Completion {
    topic: Arc<str>,
    partition: i32,
    outcome: OnceLock<Result<Ack>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Completion {
    pub(crate) fn new(topic: Arc<str>, partition: i32) -> Self {
        Self {
            topic,
            partition,
            outcome: OnceLock::new(),
            wakers: Mutex::default(),
        }
    }

    /// Ends the wait of every record of the batch. Only the first call counts.
    pub(crate) fn complete(&self, outcome: Result<Ack>) {
        if self.outcome.set(outcome).is_ok() {
            let wakers = std::mem::take(&mut *self.wakers.lock());
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// A record on its way. Await it for the acknowledgement; dropping it changes nothing about the
/// record, only its fate is then seen in the producer's metrics alone.
///
/// # Errors
/// The error tells by [`Error::write_outcome`] whether the record may have been written.
///
/// Cancel safety: it may be dropped at any time.
#[derive(Debug)]
#[must_use = "await it for the acknowledgement, or drop it on purpose"]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
    timestamp: i64,
    /// Our place among the completion's wakers.
    place: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(completion: Arc<Completion>, index: u32, timestamp: i64) -> Self {
        Self {
            completion,
            index,
            timestamp,
            place: None,
        }
    }

    /// The partition that was chosen.
    pub fn partition(&self) -> i32 {
        self.completion.partition
    }

    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<RecordMetadata>> {
        let outcome = self.completion.outcome.get()?;
        Some(
            outcome
                .as_ref()
                .map(|ack| self.metadata(*ack))
                .map_err(Error::clone),
        )
    }

    fn metadata(&self, ack: Ack) -> RecordMetadata {
        RecordMetadata {
            topic: Arc::clone(&self.completion.topic),
            partition: self.completion.partition,
            offset: ack
                .base_offset
                .and_then(|base| base.checked_add(i64::from(self.index))),
            timestamp: ack.log_append_time.unwrap_or(self.timestamp),
        }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let this = &mut *self;
        {
            let mut wakers = this.completion.wakers.lock();
            match this.place.and_then(|place| wakers.get_mut(place)) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => {
                    this.place = Some(wakers.len());
                    wakers.push(cx.waker().clone());
                }
            }
        }
        // It may have ended between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::ErrorKind;

    #[tokio::test]
    async fn each_record_of_a_batch_gets_its_own_offset() {
        let completion = Arc::new(Completion::new("orders".into(), 3));
        let first = Delivery::new(Arc::clone(&completion), 0, 10);
        let third = Delivery::new(Arc::clone(&completion), 2, 12);
        completion.complete(Ok(Ack {
            base_offset: Some(100),
            log_append_time: None,
        }));
        assert_eq!(first.await.unwrap().offset, Some(100));
        let third = third.await.unwrap();
        assert_eq!(
            (third.offset, third.timestamp, third.partition),
            (Some(102), 12, 3)
        );
    }

    #[tokio::test]
    async fn a_waiting_record_wakes_and_only_the_first_outcome_counts() {
        let completion = Arc::new(Completion::new("orders".into(), 0));
        let mut delivery = Delivery::new(Arc::clone(&completion), 0, 0);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
        assert_eq!(
            completion.wakers.lock().len(),
            1,
            "polling again takes no second place"
        );
        completion.complete(Err(Error::new(ErrorKind::Timeout, "too late")));
        completion.complete(Ok(Ack {
            base_offset: Some(1),
            log_append_time: None,
        }));
        assert_eq!(delivery.await.unwrap_err().kind(), &ErrorKind::Timeout);
    }
}
