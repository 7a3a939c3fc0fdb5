//! Transactions: what callers hold, what they ask of the driver, and how brokers are asked.
//!
//! What follows what is decided in `ottla_proto::producer::transaction`; the driver carries it out.

mod handle;
mod office;

pub use handle::{Transaction, TransactionalProducer};
pub use ottla_proto::group::GroupMetadata;
pub use ottla_proto::producer::transaction::Decision;

pub(crate) use office::{Asked, Office};

use ottla_proto::group::Committed;
use ottla_proto::producer::transaction::Ticket;
use ottla_proto::{Error, Result, TopicPartition};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// What callers ask of the driver, and what comes back from brokers.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say when the coordinator has given an identity.
    Identified(oneshot::Sender<Result<()>>),
    /// Begin a transaction once the one before has ended.
    Begin(oneshot::Sender<Result<()>>),
    /// Make offsets part of the transaction.
    Offsets {
        group: GroupMetadata,
        offsets: BTreeMap<TopicPartition, Committed>,
        told: oneshot::Sender<Result<()>>,
    },
    /// End the transaction.
    End {
        decision: Decision,
        told: oneshot::Sender<Result<()>>,
    },
    /// Say how the transaction before has ended, as soon as that is known.
    Settle(oneshot::Sender<Result<Option<Decision>>>),
    /// A broker was asked.
    Asked(Ticket, Asked),
}

/// Why the open transaction takes no more, for callers that do not wait for the driver.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    is_set: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Failure {
    pub(crate) fn set(&self, error: Option<Error>) {
        let mut own = self.error.lock();
        self.is_set.store(error.is_some(), Ordering::Release);
        *own = error;
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set.load(Ordering::Acquire) {
            return self.error.lock().clone().map_or(Ok(()), Err);
        }
        Ok(())
    }
}

/// What the driver of a transactional producer begins with.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) office: Office,
    pub(crate) failure: Arc<Failure>,
}
