//! What the user holds.

use super::{Command, Decision, Failure, GroupMetadata, Office, Opening};
use crate::config::Config;
use crate::delivery::{Delivery, RecordMetadata};
use crate::inbox::Message;
use crate::metrics::Metrics;
use crate::producer::Producer;
use ottla_partitioner::Partitioner;
use ottla_proto::group::Committed;
use ottla_proto::{Error, ErrorKind, Record, Result, TopicPartition, WriteOutcome};
use ottla_wire::Cluster;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot::{self, error::RecvError};
use tokio::time::{Instant, timeout_at};

/// Writes records and consumer offsets in transactions: readers that read only what is committed see
/// all of a transaction or nothing of it.
///
/// Of all producers with the same transactional id only the one built last can write; the others are
/// fenced. It has no clones, because it has one transaction at a time.
///
/// ```no_run
/// # async fn example(mut producer: ottla_producer::TransactionalProducer) -> ottla_proto::Result<()> {
/// use ottla_proto::Record;
///
/// let transaction = producer.begin().await?;
/// transaction.send(Record::to("orders").value("one")).await?;
/// transaction.send(Record::to("audit").value("one order")).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TransactionalProducer {
    producer: Producer,
    failure: Arc<Failure>,
    id: Arc<str>,
}

impl TransactionalProducer {
    /// Builds a producer on a cluster's connections, takes over the transactional id of the
    /// configuration, and ends what an earlier producer left open under it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the settings contradict each other or name no transactional id; why
    /// the coordinator refuses the id; `Timeout` after `max.block.ms`.
    ///
    /// Cancel safety: the earlier producer may be fenced already.
    pub async fn new(
        cluster: Cluster,
        config: Config,
        partitioner: Arc<dyn Partitioner>,
    ) -> Result<Self> {
        let id = config.transactional_id.clone();
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
            let what = "a transactional producer needs a transactional.id that is not empty";
            Error::new(ErrorKind::Config, what)
        })?;
        let failure = Arc::new(Failure::default());
        let office = Office {
            cluster: cluster.clone(),
            id: Arc::clone(&id),
            transaction_timeout: config.transaction_timeout,
        };
        let opening = Opening {
            office,
            failure: Arc::clone(&failure),
        };
        let producer = Producer::transactional(cluster, config, partitioner, opening)?;
        let this = Self {
            producer,
            failure,
            id,
        };
        this.ask("the producer's identity", Command::Identified)
            .await?;
        Ok(this)
    }

    /// Begins a transaction, once the one before has ended. One that was dropped is aborted first.
    ///
    /// # Errors
    /// `Fenced` and other fatal errors: this producer is of no further use. `Timeout` when the one
    /// before could not be ended within `max.block.ms`; it may be tried again.
    ///
    /// Cancel safety: no transaction is begun.
    pub async fn begin(&mut self) -> Result<Transaction<'_>> {
        self.ask("the begin of a transaction", Command::Begin)
            .await?;
        Ok(Transaction {
            producer: self,
            ended: false,
        })
    }

    /// Waits until it is known how the latest transaction ended, and says so: after a commit or an
    /// abort whose outcome was unknown. `None` before the first one.
    ///
    /// # Errors
    /// A fatal error: it will never be known. `Timeout` after `max.block.ms`.
    ///
    /// Cancel safety: nothing changes.
    pub async fn settle(&mut self) -> Result<Option<Decision>> {
        self.ask("the end of the latest transaction", Command::Settle)
            .await
    }

    /// The transactional id.
    pub fn transactional_id(&self) -> &Arc<str> {
        &self.id
    }

    /// The counters so far.
    pub fn metrics(&self) -> Metrics {
        self.producer.metrics()
    }

    /// Loads a topic's metadata, so that the first record does not wait for it.
    ///
    /// # Errors
    /// When the topic is unknown, or nothing answers within `max.block.ms`.
    ///
    /// Cancel safety: safe.
    pub async fn prepare(&self, topic: &str) -> Result<()> {
        self.producer.prepare(topic).await
    }

    /// Aborts a transaction that was dropped, then ends the producer. Takes at most `max.block.ms`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when it was closed before. [`ErrorKind::Timeout`] when the transaction
    /// had not ended in that time: its coordinator will abort it after its timeout.
    ///
    /// Cancel safety: the producer closes all the same.
    pub async fn close(self) -> Result<()> {
        self.producer.close().await
    }

    /// Asks the driver; `what` is waited for.
    async fn ask<T>(
        &self,
        what: &str,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        self.push(command(tell));
        self.wait(what, told).await
    }

    fn push(&self, command: Command) {
        let message = Message::Transaction(command);
        self.producer.shared().shop.inbox.push(message);
    }

    async fn wait<T>(
        &self,
        what: &str,
        told: impl Future<Output = Result<Result<T>, RecvError>>,
    ) -> Result<T> {
        let shared = self.producer.shared();
        let deadline = Instant::now() + shared.config.max_block;
        match timeout_at(deadline, told).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                // The driver has ended; a fatal error says more of it than that.
                self.failure.check()?;
                Err(Error::new(ErrorKind::Closed, "the producer is closed"))
            }
            Err(_) => {
                let waited = shared.config.max_block.as_millis();
                let id = &self.id;
                let what = format!(
                    "{what} of transactional id {id} did not come within max.block.ms ({waited} ms)"
                );
                Err(Error::new(ErrorKind::Timeout, what))
            }
        }
    }
}

/// An open transaction. End it by [`commit`](Self::commit) or [`abort`](Self::abort); dropped
/// without, it is aborted, and a warning says so.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'p> {
    producer: &'p mut TransactionalProducer,
    ended: bool,
}

impl Transaction<'_> {
    /// Sends a record and waits until it is acknowledged. It counts once the transaction is
    /// committed.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), and as its [`Delivery`].
    ///
    /// Cancel safety: once polled, a dropped future may have left the record in the transaction.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.enqueue(record).await?.await
    }

    /// Puts a record into the buffer, as [`Producer::enqueue`] does. It counts once the transaction
    /// is committed; nobody has to await its [`Delivery`], because a commit fails unless every record
    /// was acknowledged.
    ///
    /// # Errors
    /// The record was not taken: as [`Producer::enqueue`]; or [`Error::requires_abort`] when something
    /// of the transaction has failed before.
    ///
    /// Cancel safety: a dropped future leaves nothing behind.
    #[inline]
    pub async fn enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.check()?;
        self.producer.producer.enqueue(record).await
    }

    /// Whether the transaction takes more; a record that it refuses is not written.
    #[inline]
    fn check(&self) -> Result<()> {
        let checked = self.producer.failure.check();
        checked.map_err(|error| error.with_outcome(WriteOutcome::NotWritten))
    }

    /// Puts a record into the buffer if that is possible at once.
    ///
    /// # Errors
    /// Gives the record back with the reason, as [`Producer::try_enqueue`] and
    /// [`enqueue`](Self::enqueue) do.
    pub fn try_enqueue<'r>(&self, record: Record<'r>) -> Result<Delivery, (Error, Record<'r>)> {
        match self.check() {
            Ok(()) => self.producer.producer.try_enqueue(record),
            Err(error) => Err((error, record)),
        }
    }

    /// Sends everything that was enqueued, without lingering, and waits until each of those records
    /// is acknowledged or has failed.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`Error::requires_abort`] when something of the transaction has failed.
    ///
    /// Cancel safety: safe; the records are sent all the same.
    pub async fn flush(&self) -> Result<()> {
        self.producer.producer.flush().await?;
        self.producer.failure.check()
    }

    /// Makes a consumer group's offsets part of the transaction: each is the next one to read. They
    /// count when the transaction is committed. A consumer gives its
    /// group's metadata and positions; its automatic commits must be off.
    ///
    /// # Errors
    /// [`Error::requires_abort`] when the group has moved on (the member's partitions may be
    /// another's now) or refuses; fatal errors; `Timeout` after `max.block.ms`, when they may be
    /// part of the transaction.
    ///
    /// Cancel safety: the offsets are made part of the transaction all the same.
    pub async fn send_offsets(
        &self,
        group: GroupMetadata,
        offsets: BTreeMap<TopicPartition, Committed>,
    ) -> Result<()> {
        self.producer.failure.check()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let command = |told| Command::Offsets {
            group,
            offsets,
            told,
        };
        self.producer.ask("the taking of offsets", command).await
    }

    /// Sends what is left, waits until every record is acknowledged, and commits: from then on
    /// readers see all of it.
    ///
    /// # Errors
    /// When it says [`Error::requires_abort`], something of the transaction has failed, and the
    /// producer aborts it by itself; records on their way are not waited for. This and fatal errors say by [`Error::write_outcome`] whether
    /// the transaction may be committed all the same, which only an earlier attempt that nobody
    /// answered can have done. `Timeout` after `max.block.ms` without an answer says [`WriteOutcome::Unknown`]: the producer goes on
    /// asking, [`TransactionalProducer::settle`] tells how it ended, and the next
    /// [`TransactionalProducer::begin`] waits for that.
    ///
    /// Cancel safety: the commit goes on, as after a timeout.
    pub async fn commit(mut self) -> Result<()> {
        let mut told = self.end(Decision::Commit);
        // Within delivery.timeout.ms; max.block.ms is for the coordinator. What is lost already waits
        // for neither.
        let early = tokio::select! {
            biased;
            ended = &mut told => Some(ended),
            _ = self.producer.producer.flush() => None,
        };
        let told = async {
            match early {
                Some(ended) => ended,
                None => told.await,
            }
        };
        let what = "the commit of a transaction";
        let ended = self.producer.wait(what, told).await;
        ended.map_err(|error| match (error.kind(), error.write_outcome()) {
            (ErrorKind::Timeout | ErrorKind::Closed, None) => {
                error.with_outcome(WriteOutcome::Unknown)
            }
            _ => error,
        })
    }

    /// Drops what waits to be sent, and aborts: nobody will see any of the transaction. What is on
    /// its way is waited for: until `request.timeout.ms`, or, in the older protocol, until it is
    /// known whether it was written, within `delivery.timeout.ms`.
    ///
    /// # Errors
    /// Fatal errors; `Timeout` after `max.block.ms`, when the producer goes on by itself and the next
    /// [`TransactionalProducer::begin`] waits for it.
    ///
    /// Cancel safety: the abort goes on.
    pub async fn abort(mut self) -> Result<()> {
        let told = self.end(Decision::Abort);
        self.producer.wait("the abort of a transaction", told).await
    }

    fn end(&mut self, decision: Decision) -> oneshot::Receiver<Result<()>> {
        self.ended = true;
        let (tell, told) = oneshot::channel();
        let command = Command::End {
            decision,
            told: tell,
        };
        self.producer.push(command);
        told
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let id = &self.producer.id;
        tracing::warn!(transactional_id = %id, "a transaction was dropped without an end; it is aborted");
        // Nobody waits for it.
        drop(self.end(Decision::Abort));
    }
}
