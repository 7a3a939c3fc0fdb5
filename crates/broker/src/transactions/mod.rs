//! Transactions: the store of all transactional ids. Each id is a pure state machine in
//! [`transaction`]. Which node coordinates which id is decided outside, so what is here survives
//! every node.
//!
//! The store's lock is taken before a partition's and before the groups', never after: whatever
//! writes in a transaction holds it, so that no transaction ends between the check and the write.

mod transaction;

pub(crate) use transaction::{Decision, Identity, Moment, Place, Protocol, State, Transaction};

use crate::partition::Marker;
use crate::state::Shared;
use ottla_proto::Code;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use transaction::Ending;

/// How many transactional ids the cluster keeps; at the limit the one that was used longest ago
/// and has no transaction makes room, and if there is none a new id is refused. Kafka forgets by
/// time (`transactional.id.expiration.ms`), this broker by number.
const TRANSACTIONS_MAX: usize = 10_000;

/// Every transactional id of the cluster.
#[derive(Debug)]
pub(crate) struct Transactions {
    inner: Mutex<Inner>,
    /// Notified when a deadline may have changed, or a partition that a marker waits for.
    changed: Arc<Notify>,
}

/// The store, locked.
#[derive(Debug)]
pub(crate) struct Inner {
    by_id: BTreeMap<String, Transaction>,
    uses: u64,
    marker_delay: Duration,
}

impl Inner {
    /// The id, if somebody initialised it.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`.
    pub(crate) fn get(&mut self, id: &str) -> Result<&mut Transaction, Code> {
        let transaction = self.by_id.get_mut(id);
        let transaction = transaction.ok_or(Code::INVALID_PRODUCER_ID_MAPPING)?;
        self.uses += 1;
        transaction.used = self.uses;
        Ok(transaction)
    }

    /// Every id, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Transaction)> {
        self.by_id.iter()
    }

    fn ensure(&mut self, id: &str, shared: &Shared) -> Result<&mut Transaction, Code> {
        if !self.by_id.contains_key(id) {
            if self.by_id.len() >= TRANSACTIONS_MAX {
                let busy =
                    |t: &Transaction| matches!(t.state, State::Ongoing { .. } | State::Ending(_));
                let idle = self.by_id.iter().filter(|(_, t)| !busy(t));
                let oldest = idle.min_by_key(|(_, t)| t.used).map(|(id, _)| id.clone());
                self.by_id
                    .remove(&oldest.ok_or(Code::COORDINATOR_NOT_AVAILABLE)?);
            }
            let producer_id = shared.next_producer_id();
            let first = shared.settings.first_producer_epoch;
            self.by_id
                .insert(id.to_owned(), Transaction::new(producer_id, first));
        }
        self.get(id)
    }
}

/// The moment it is.
pub(crate) fn moment(shared: &Shared) -> Moment {
    Moment {
        now: Instant::now(),
        millis: shared.settings.clock.millis(),
    }
}

impl Transactions {
    pub(crate) fn new(marker_delay: Duration) -> Self {
        Self {
            inner: Mutex::new(Inner {
                by_id: BTreeMap::new(),
                uses: 0,
                marker_delay,
            }),
            changed: Arc::new(Notify::new()),
        }
    }

    /// The store, locked: nothing ends while it is.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Says that a transaction was begun: its deadline is to be kept.
    pub(crate) fn begun(&self) {
        self.changed.notify_one();
    }

    /// How long markers wait from now on.
    pub(crate) fn set_marker_delay(&self, delay: Duration) {
        self.inner.lock().marker_delay = delay;
        self.changed.notify_one();
    }

    /// InitProducerId with a transactional id.
    ///
    /// # Errors
    /// As [`Transaction::init`], and `COORDINATOR_NOT_AVAILABLE` when there are too many ids.
    pub(crate) fn init(
        &self,
        shared: &Shared,
        id: &str,
        known: Option<Identity>,
        timeout: Duration,
    ) -> Result<Identity, Code> {
        let mut inner = self.inner.lock();
        let transaction = inner.ensure(id, shared)?;
        let fresh_id = || shared.next_producer_id();
        let identity = transaction.init(moment(shared), known, timeout, fresh_id);
        self.settle(shared, &mut inner, id);
        identity
    }

    /// EndTxn.
    ///
    /// # Errors
    /// As [`Transaction::end`].
    pub(crate) fn end(
        &self,
        shared: &Shared,
        id: &str,
        who: Identity,
        decision: Decision,
        protocol: Protocol,
    ) -> Result<Identity, Code> {
        let mut inner = self.inner.lock();
        let fresh_id = || shared.next_producer_id();
        let transaction = inner.get(id)?;
        let identity = transaction.end(moment(shared), who, decision, protocol, fresh_id);
        self.settle(shared, &mut inner, id);
        identity
    }

    /// Writes what markers of one id can be written at once, and has the timer do the rest.
    fn settle(&self, shared: &Shared, inner: &mut Inner, id: &str) {
        let delay = inner.marker_delay;
        if let Some(transaction) = inner.by_id.get_mut(id) {
            self.settle_one(shared, transaction, delay, Instant::now());
        }
        self.changed.notify_one();
    }

    fn settle_one(&self, shared: &Shared, of: &mut Transaction, delay: Duration, now: Instant) {
        let State::Ending(ending) = &mut of.state else {
            return;
        };
        if ending.decided_at + delay > now {
            return;
        }
        for group in &of.groups {
            let producer_id = ending.marked.producer_id;
            let committed = ending.decision == Decision::Commit;
            shared.groups.end_transaction(group, producer_id, committed);
        }
        if self.write_markers(shared, ending) {
            of.complete();
        }
    }

    /// Writes the markers that are missing where there is a leader; whether every one is
    /// replicated.
    fn write_markers(&self, shared: &Shared, ending: &mut Ending) -> bool {
        let marker = Marker {
            producer_id: ending.marked.producer_id,
            producer_epoch: ending.marked.epoch,
            committed: ending.decision == Decision::Commit,
            coordinator_epoch: shared.coordinator_epoch(),
        };
        let mut all = true;
        for ((topic, index), written) in &mut ending.markers {
            let topic = shared.topic(topic);
            let Some(partition) = topic.and_then(|topic| topic.partition(*index)) else {
                continue;
            };
            let mut state = partition.lock();
            let kept = written.is_some_and(|at| state.log.holds_marker(at, marker.producer_id));
            if !kept && state.leader.is_some() {
                *written = Some(state.append_marker(marker, shared.settings.clock.millis()));
            }
            let replicated = written.is_some_and(|at| at < state.high_watermark);
            if !state.deleted && (state.leader.is_none() || !replicated) {
                state.notify_later(&self.changed);
                all = false;
            }
        }
        all
    }

    /// Does what time and the partitions bring; when it is to be called again at the latest.
    fn turn(&self, shared: &Shared) -> Option<Instant> {
        let at = moment(shared);
        let mut inner = self.inner.lock();
        let delay = inner.marker_delay;
        let mut next: Option<Instant> = None;
        for transaction in inner.by_id.values_mut() {
            transaction.handle_timeout(at);
            self.settle_one(shared, transaction, delay, at.now);
            let due = match &transaction.state {
                // One whose markers wait for a partition is woken by the partition.
                State::Ending(ending) => {
                    Some(ending.decided_at + delay).filter(|due| *due > at.now)
                }
                _ => transaction.deadline(),
            };
            next = next.into_iter().chain(due).min();
        }
        next
    }

    async fn keep_time(&self, shared: &Shared) {
        loop {
            let changed = self.changed.notified();
            match self.turn(shared) {
                Some(at) => {
                    // Woken early it only looks again.
                    drop(tokio::time::timeout_at(at, changed).await);
                }
                None => changed.await,
            }
        }
    }
}

/// Has the transactions keep time until the cluster stops.
pub(crate) fn spawn_timer(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut running = shared.running.subscribe();
        tokio::select! {
            biased;
            _ = running.wait_for(|running| !running) => {}
            () = shared.transactions.keep_time(&shared) => {}
        }
    });
}
