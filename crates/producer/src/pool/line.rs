//! Those who wait for memory.

use super::{Account, CHUNK_BYTES_MAX, Pool};
use ottla_proto::{Error, ErrorKind, Result, WriteOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// A queue for each account, in the order of arrival. A caller without a fixed partition stands in
/// several, and leaves them all when one serves it.
#[derive(Debug, Default)]
pub(super) struct Line {
    next_ticket: u64,
    waiters: BTreeMap<u64, Waiter>,
    queues: Vec<Queue>,
    /// Nobody gets memory any more.
    closed: bool,
    /// Empty, to be used again: while the buffer is full, someone comes to wait every few batches.
    spare_accounts: Vec<Arc<Account>>,
    spare_tickets: BTreeSet<u64>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Option<Reservation>>,
}

impl Waiter {
    /// Without bytes.
    fn send_away(self) {
        // A caller that has left does not mind.
        let _ = self.grant.send(None);
    }
}

#[derive(Debug)]
struct Queue {
    account: Arc<Account>,
    tickets: BTreeSet<u64>,
}

/// Bytes that are set aside for one caller; what it does not use goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    bytes: usize,
}

/// A place in the line, given up when dropped.
struct Place<'p> {
    pool: &'p Arc<Pool>,
    ticket: u64,
}

impl Pool {
    /// Waits until so many bytes of one of these accounts are set aside. `None` if
    /// the caller had better look again, since a partition's leader `moved`.
    ///
    /// Cancel safety: dropping the future gives up the place in the line and leaves nothing behind.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        accounts: &[Arc<Account>],
        record_bytes: usize,
        moved: impl FnOnce() -> bool,
    ) -> Result<Option<Reservation>> {
        // A record may begin in a fresh chunk and end in another.
        let bytes = record_bytes.div_ceil(CHUNK_BYTES_MAX).max(1) * CHUNK_BYTES_MAX;
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter {
            bytes: bytes.min(self.limit),
            grant,
        };
        let ticket = self.join(accounts, waiter);
        let place = Place { pool: self, ticket };
        // Whoever moves a partition sends those in the line away after it; we came perhaps later.
        if moved() {
            return Ok(None);
        }
        // Memory may have been freed between the refusal and now.
        self.serve();
        let reservation = granted.await;
        drop(place);
        reservation.map_err(|_| closed())
    }

    fn join(&self, accounts: &[Arc<Account>], waiter: Waiter) -> u64 {
        let mut line = self.line.lock();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        // A closed line drops the waiter, which so hears of it.
        if !line.closed {
            line.waiters.insert(ticket, waiter);
            accounts
                .iter()
                .for_each(|account| line.stand(account, ticket));
            self.count(&line);
        }
        ticket
    }

    /// Sends those who wait for an account to look again.
    pub(super) fn dismiss(&self, account: &Account) {
        let mut line = self.line.lock();
        let queue = line
            .queues
            .iter()
            .find(|queue| std::ptr::eq(&*queue.account, account));
        let tickets = queue.map_or_else(Vec::new, |queue| queue.tickets.iter().copied().collect());
        let waiters: Vec<_> = tickets
            .iter()
            .filter_map(|&ticket| line.leave(ticket))
            .collect();
        self.count(&line);
        drop(line);
        waiters.into_iter().for_each(Waiter::send_away);
        // What they wanted may do for others.
        self.serve();
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.waiters.len(), Ordering::SeqCst);
    }

    /// Serves those who wait, each queue in order, if there is room.
    pub(super) fn serve(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut line = self.line.lock();
        let unwanted = line.serve();
        self.count(&line);
        drop(line);
        // They come back here when dropped, so not while the line is locked.
        drop(unwanted);
    }

    /// Nobody waits for memory any more.
    pub(crate) fn close(&self) {
        let mut line = self.line.lock();
        line.closed = true;
        let tickets: Vec<_> = line.waiters.keys().copied().collect();
        let waiters: Vec<_> = tickets.iter().map(|&ticket| line.leave(ticket)).collect();
        self.count(&line);
        drop(line);
        drop(waiters);
        self.drain();
    }
}

impl Line {
    fn stand(&mut self, account: &Arc<Account>, ticket: u64) {
        let known = self
            .queues
            .iter_mut()
            .find(|queue| Arc::ptr_eq(&queue.account, account));
        let new = match known {
            Some(queue) => queue.tickets.insert(ticket),
            None => {
                let mut tickets = std::mem::take(&mut self.spare_tickets);
                tickets.insert(ticket);
                self.queues.push(Queue {
                    account: Arc::clone(account),
                    tickets,
                });
                true
            }
        };
        account
            .waiting
            .fetch_add(usize::from(new), Ordering::AcqRel);
    }

    /// Takes a waiter out of all queues.
    fn leave(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        self.queues.retain_mut(|queue| {
            if queue.tickets.remove(&ticket) {
                queue.account.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            let empty = queue.tickets.is_empty();
            if empty {
                self.spare_tickets = std::mem::take(&mut queue.tickets);
            }
            !empty
        });
        Some(waiter)
    }

    /// Serves every queue whose account has recovered, and gives back what nobody took.
    fn serve(&mut self) -> Vec<Reservation> {
        // Each queue is the first one in its turn, since the first may take all that is free.
        if self.queues.len() > 1 {
            self.queues.rotate_left(1);
        }
        let accounts = self.queues.iter().map(|queue| &queue.account);
        let mut recovered = std::mem::take(&mut self.spare_accounts);
        recovered.extend(accounts.filter(|account| account.has_recovered()).cloned());
        let mut unwanted = Vec::new();
        for account in recovered.drain(..) {
            while let Some((ticket, bytes)) = self.first(&account)
                && account.claim(bytes)
            {
                let reservation = Reservation {
                    account: Arc::clone(&account),
                    bytes,
                };
                let sent = self
                    .leave(ticket)
                    .map(|waiter| waiter.grant.send(Some(reservation)));
                unwanted.extend(sent.and_then(std::result::Result::err).flatten());
            }
        }
        self.spare_accounts = recovered;
        unwanted
    }

    fn first(&self, account: &Arc<Account>) -> Option<(u64, usize)> {
        let queue = self
            .queues
            .iter()
            .find(|queue| Arc::ptr_eq(&queue.account, account))?;
        let ticket = *queue.tickets.first()?;
        Some((ticket, self.waiters.get(&ticket)?.bytes))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.pool.line.lock();
        let left = line.leave(self.ticket);
        self.pool.count(&line);
        drop(line);
        if left.is_some() {
            // Those behind may want less.
            self.pool.serve();
        }
    }
}

impl Reservation {
    /// Whether a chunk of `account`, which may be another one than the bytes were set aside for,
    /// can be taken of this.
    pub(crate) fn serves(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(account, &self.account) || account.can_take_over(self.bytes)
    }

    /// Takes bytes for a chunk of `account`, if that is possible.
    pub(super) fn spend(&mut self, account: &Arc<Account>, bytes: usize) -> bool {
        let enough = self.bytes >= bytes && self.serves(account);
        if enough {
            self.bytes -= bytes;
            if !Arc::ptr_eq(account, &self.account) {
                account.inherit(&self.account, bytes);
            }
        }
        enough
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.release(self.bytes);
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed").with_outcome(WriteOutcome::NotWritten)
}
