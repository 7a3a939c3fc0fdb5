//! What the driver hears: a batch at a time, never a record.

use crate::compressing::Raw;
use crate::delivery::Completion;
use crate::transaction::Command;
use bytes::Bytes;
use ottla_proto::batch::SealedRecords;
use ottla_proto::producer::{Identity, Lane, PartitionIndex, RequestId};
use ottla_proto::{BrokerId, Result};
use ottla_wire::Connection;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// A sealed batch with those who wait for it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) serial: u64,
    pub(crate) completion: Arc<Completion>,
    pub(crate) contents: Contents,
    pub(crate) deadline: Instant,
}

/// What a sealed batch holds.
#[derive(Debug)]
pub(crate) enum Contents {
    /// What is sent.
    Final(SealedRecords),
    /// What is to be compressed first.
    Raw(Raw),
}

impl Contents {
    pub(crate) fn count(&self) -> u32 {
        match self {
            Self::Final(records) => records.count(),
            Self::Raw(raw) => raw.count(),
        }
    }

    /// Size before compression, header included.
    pub(crate) fn raw_size_bytes(&self) -> usize {
        match self {
            Self::Final(records) => records.raw_size_bytes(),
            Self::Raw(raw) => raw.size_bytes(),
        }
    }
}

/// What may happen to the driver.
#[derive(Debug)]
pub(crate) enum Message {
    /// A partition began a batch.
    Opened {
        partition: PartitionIndex,
        serial: u64,
        at: Instant,
    },
    /// A batch is full.
    Sealed {
        partition: PartitionIndex,
        parcel: Parcel,
    },
    /// A batch is compressed.
    Compressed {
        partition: PartitionIndex,
        ordinal: u128,
        records: SealedRecords,
    },
    /// A request was answered, or never will be.
    Answered {
        request: RequestId,
        version: i16,
        answer: Result<Bytes>,
    },
    /// A request without an answer was written, or could not be.
    Written {
        request: RequestId,
        written: Result<Bytes>,
    },
    /// A connection stands, or could not be made.
    Connected {
        broker: BrokerId,
        lane: Lane,
        connection: Result<Connection>,
    },
    /// InitProducerId was answered.
    Identified(Result<Identity>),
    /// Someone produces to a topic for the first time.
    Topic {
        name: Arc<str>,
        known: oneshot::Sender<()>,
    },
    /// Someone who does not wait would produce to a topic that is not loaded.
    Wanted(Arc<str>),
    /// The dead letters of a batch, or of a part of one, are written or lost.
    Buried { serial: u64 },
    /// Someone waits for memory.
    Pressed,
    /// Send everything now, and say when it has ended.
    Flush(oneshot::Sender<()>),
    /// The same, then stop.
    Close(oneshot::Sender<Result<()>>),
    /// The last handle is gone.
    Abandoned,
    /// Something about transactions.
    Transaction(Command),
}

/// The driver's letter box. It is bounded by what fills it: one message a batch (and batches are
/// bounded by the pool), one a request in flight, and one a waiting caller.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    letters: Mutex<Letters>,
    wake: Notify,
    /// A message found others.
    more: Notify,
}

#[derive(Debug, Default)]
struct Letters {
    messages: Vec<Message>,
    /// The driver is gone: what comes is dropped, and those who wait for an answer hear of it.
    closed: bool,
}

impl Inbox {
    pub(crate) fn push(&self, message: Message) {
        let mut letters = self.letters.lock();
        if letters.closed {
            // Dropped outside the lock: it may wake someone.
            drop(letters);
            drop(message);
            return;
        }
        letters.messages.push(message);
        let first = letters.messages.len() == 1;
        drop(letters);
        if first {
            self.wake.notify_one();
        } else {
            self.more.notify_one();
        }
    }

    /// Runs beside the driver, until the box is closed, and does nothing. A worker keeps the task that
    /// was woken last to itself until the one that it runs waits. A caller that fills one batch after
    /// the other does not wait, and the driver that it woke would stand behind it. So when a message
    /// finds others, this is woken, takes that place, and leaves the driver to any worker. Not the
    /// second message alone: it may come while this still waits for a worker to run it since the last
    /// time, which moves nobody.
    pub(crate) async fn stand_in(&self) {
        while !self.letters.lock().closed {
            self.more.notified().await;
        }
    }

    /// Takes nothing any more, and gives what is left.
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut letters = self.letters.lock();
        letters.closed = true;
        self.more.notify_one();
        std::mem::take(&mut letters.messages)
    }

    /// Takes everything; `empty` is kept for the next messages.
    pub(crate) fn drain(&self, empty: Vec<Message>) -> Vec<Message> {
        std::mem::replace(&mut self.letters.lock().messages, empty)
    }

    /// Waits for a message.
    pub(crate) async fn arrived(&self) {
        self.wake.notified().await;
    }
}
