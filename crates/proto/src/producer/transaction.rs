//! The core of a transactional producer: which transaction is open, what its coordinators must be
//! asked next, and what an answer means.
//!
//! It decides nothing about records: the driver flushes before it asks for a commit, waits until
//! nothing is in flight before it asks for an abort, and hands over what [`Event`] says. At most one
//! request is unanswered at a time: the coordinator's answers depend on their order.
//!
//! Three rules keep a transaction whole:
//! - The epoch never changes while a transaction is open: the coordinator would take the next record
//!   for the first one of a new transaction, and the records before it would never be committed.
//! - In the older protocol a request whose answer was lost may still be carried out later, under an
//!   epoch that the next transaction shares. So the epoch is changed before that one begins.
//! - An end without an answer is asked for again, with the same decision, until it is answered:
//!   InitProducerId would abort a transaction that is still open and fence us with it.

mod answers;
#[cfg(test)]
mod tests;
mod types;
mod verdict;

pub use types::{Answer, Decision, Event, Outcome, Protocol, Request, Ticket, TransactionConfig};
pub use verdict::{Api, TransactionVerdict, transaction_verdict};

use super::identity::Identity;
use super::types::PartitionIndex;
use crate::error::{Error, ErrorKind, Remedy, Result, WriteOutcome};
use crate::group::{Committed, GroupMetadata};
use crate::topic::TopicPartition;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Groups whose offsets may wait to be sent. Each belongs to a call whose caller has left or still
/// waits; only callers that keep leaving fill it.
const OFFSETS_MAX: usize = 16;

/// A transaction that was just ended may still be written down by the coordinator, which takes
/// milliseconds: a full backoff would be most of a short transaction.
const CONCURRENT_WAIT: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
enum State {
    /// InitProducerId is to be answered.
    AwaitingIdentity,
    /// A transaction may begin.
    Ready,
    /// Records and offsets may come.
    Open,
    /// The transaction can only be aborted.
    Broken(Error),
    /// EndTxn is to be answered.
    AwaitingEnd(Decision),
    /// Nothing further is possible.
    Dead(Error),
}

/// What the open transaction consists of.
#[derive(Debug, Default)]
struct Contents {
    /// Looked up for each transaction, because the cluster may have changed it.
    protocol: Option<Protocol>,
    /// Partitions that have something to send and are not part of it yet.
    wanted: BTreeMap<PartitionIndex, TopicPartition>,
    /// Groups that are part of it.
    groups: BTreeSet<Arc<str>>,
    offsets: VecDeque<Offsets>,
    /// The coordinator may know of it.
    started: bool,
    /// In the older protocol: its epoch must not be used again.
    spent: bool,
    /// EndTxn was sent and its answer is not known: whether it has ended nobody can tell.
    in_doubt: bool,
}

#[derive(Debug)]
struct Offsets {
    group: GroupMetadata,
    offsets: BTreeMap<TopicPartition, Committed>,
}

/// All transactions of one transactional id, one after the other.
#[derive(Debug)]
pub struct Transactions {
    config: TransactionConfig,
    state: State,
    identity: Option<Identity>,
    /// The cluster's protocol as of the greatest epoch of its features that was seen: brokers learn
    /// of a change one after the other.
    known: (Option<i64>, Protocol),
    contents: Contents,
    /// An end that is told of once a new epoch proves that nothing is open any more.
    owed: Option<Decision>,
    begin_asked: bool,
    unanswered: Option<(Ticket, Request)>,
    next_ticket: u64,
    blocked_until: Option<Instant>,
    failures: u32,
    events: VecDeque<Event>,
    random: u64,
}

impl Transactions {
    /// Asks for an identity first.
    pub fn new(config: TransactionConfig) -> Self {
        Self {
            config,
            state: State::AwaitingIdentity,
            identity: None,
            known: (None, Protocol::One),
            contents: Contents::default(),
            owed: None,
            begin_asked: false,
            unanswered: None,
            next_ticket: 0,
            blocked_until: None,
            failures: 0,
            events: VecDeque::new(),
            random: config.seed | 1,
        }
    }

    /// The protocol of the open transaction, once it is known.
    pub fn protocol(&self) -> Option<Protocol> {
        self.contents.protocol
    }

    /// Whether a transaction is open or on its way to its end.
    pub fn is_open(&self) -> bool {
        matches!(
            self.state,
            State::Open | State::Broken(_) | State::AwaitingEnd(_)
        )
    }

    /// Whether a transaction could begin at once: how the one before ended is known.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Why nothing further is possible, once it is so.
    pub fn failure(&self) -> Option<&Error> {
        match &self.state {
            State::Dead(error) => Some(error),
            _ => None,
        }
    }

    /// Asks for a transaction: [`Event::Begun`] follows once the one before has ended.
    ///
    /// # Errors
    /// Why nothing further is possible; `State` while a transaction is open.
    pub fn begin(&mut self) -> Result<()> {
        match &self.state {
            State::Dead(error) => Err(error.clone()),
            State::Open | State::Broken(_) => {
                let what = "a transaction is open already";
                Err(Error::new(ErrorKind::State, what))
            }
            State::AwaitingIdentity | State::Ready | State::AwaitingEnd(_) => {
                self.begin_asked = true;
                self.begin_if_asked();
                Ok(())
            }
        }
    }

    fn begin_if_asked(&mut self) {
        if matches!(self.state, State::Ready) && std::mem::take(&mut self.begin_asked) {
            self.state = State::Open;
            self.events.push_back(Event::Begun);
        }
    }

    /// A partition has something to send: [`Event::Admitted`] follows.
    pub fn want(&mut self, index: PartitionIndex, partition: TopicPartition) {
        if !matches!(self.state, State::Open) {
            return;
        }
        if self.contents.protocol == Some(Protocol::Two) {
            self.admit(index);
        } else {
            self.contents.wanted.insert(index, partition);
        }
    }

    fn admit(&mut self, index: PartitionIndex) {
        self.contents.started = true;
        self.events.push_back(Event::Admitted(index));
    }

    /// Makes a group's offsets part of the transaction: [`Event::Offsets`] follows.
    ///
    /// # Errors
    /// The transaction is broken, not open, or too many offsets wait already.
    pub fn commit_offsets(
        &mut self,
        group: GroupMetadata,
        offsets: BTreeMap<TopicPartition, Committed>,
    ) -> Result<()> {
        match &self.state {
            State::Open => {}
            State::Broken(error) | State::Dead(error) => return Err(error.clone()),
            _ => return Err(not_open()),
        }
        if self.contents.offsets.len() >= OFFSETS_MAX {
            let what = format!("offsets of {OFFSETS_MAX} calls wait already");
            return Err(Error::new(ErrorKind::State, what));
        }
        let offsets = Offsets { group, offsets };
        self.contents.offsets.push_back(offsets);
        Ok(())
    }

    /// Something of the transaction was lost: it can only be aborted.
    pub fn fail(&mut self, error: Error) {
        if !matches!(self.state, State::Open) {
            return;
        }
        if error.is_fatal() {
            self.die(error);
        } else {
            self.give_up(error);
        }
    }

    /// Asks for another epoch once the transaction that is open, or the next one, has ended: its
    /// sequences are to begin anew.
    pub fn renew_epoch(&mut self) {
        self.contents.spent = true;
    }

    /// Ends the transaction. Before a commit every record must be acknowledged, before an abort
    /// nothing may be in flight. [`Event::Ended`], [`Event::Refused`] or [`Event::Dead`] follows.
    ///
    /// # Errors
    /// Of a broken transaction's commit: the error requires an abort. `State` when none is open.
    pub fn end(&mut self, decision: Decision) -> Result<()> {
        match &self.state {
            State::Open => {}
            State::Broken(_) if decision == Decision::Abort => {}
            State::Broken(error) | State::Dead(error) => return Err(error.clone()),
            _ => return Err(not_open()),
        }
        if decision == Decision::Abort {
            self.contents.wanted.clear();
            self.drop_offsets(&aborted());
        }
        if self.contents.started || !self.contents.offsets.is_empty() {
            self.unblock();
            self.state = State::AwaitingEnd(decision);
        } else {
            self.finish(decision, None);
        }
        Ok(())
    }

    /// The transaction has ended; `next` is the identity that the answer gave.
    fn finish(&mut self, decision: Decision, next: Option<Identity>) {
        let contents = std::mem::take(&mut self.contents);
        self.events.push_back(Event::Ended(decision));
        self.unblock();
        // In the newer protocol each transaction needs an epoch of its own.
        let used = contents.started && contents.protocol == Some(Protocol::Two);
        match next {
            Some(identity) => self.identified(identity),
            // What broke it may have been the epoch's sequences, also before anything was sent.
            None if contents.spent || used => self.state = State::AwaitingIdentity,
            None => self.state = State::Ready,
        }
        self.begin_if_asked();
    }

    fn identified(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.state = State::Ready;
        self.events.push_back(Event::Identified(identity));
    }

    /// The transaction is broken: its caller has to abort it.
    fn give_up(&mut self, error: Error) {
        let error = error.with_remedy(Remedy::Abort);
        self.contents.spent = true;
        self.contents.wanted.clear();
        self.drop_offsets(&error);
        let ending = matches!(self.state, State::AwaitingEnd(_));
        self.state = State::Broken(error.clone());
        self.events.push_back(if ending {
            Event::Refused(error)
        } else {
            Event::Broken(error)
        });
    }

    fn die(&mut self, error: Error) {
        let mut error = error.with_remedy(Remedy::Rebuild);
        if matches!(self.state, State::AwaitingEnd(Decision::Commit)) {
            error = error.with_outcome(self.commit_outcome());
        }
        self.drop_offsets(&error);
        self.contents = Contents::default();
        self.state = State::Dead(error.clone());
        self.events.push_back(Event::Dead(error));
    }

    /// What a commit that ends now without success has left behind.
    fn commit_outcome(&self) -> WriteOutcome {
        match self.contents.in_doubt {
            true => WriteOutcome::Unknown,
            false => WriteOutcome::NotWritten,
        }
    }

    fn drop_offsets(&mut self, error: &Error) {
        for _ in 0..std::mem::take(&mut self.contents.offsets).len() {
            self.events.push_back(Event::Offsets(Err(error.clone())));
        }
    }

    /// The next request, if one is due and none is unanswered.
    pub fn poll_request(&mut self, now: Instant) -> Option<(Ticket, Request)> {
        let blocked = self.blocked_until.is_some_and(|until| until > now);
        if blocked || self.unanswered.is_some() {
            return None;
        }
        // Also when there is nothing to ask any more: a time that has passed would stay due for ever.
        self.blocked_until = None;
        let request = match self.state {
            State::AwaitingIdentity => Request::Identify {
                current: self.identity,
            },
            State::Open => self.next_step()?,
            State::AwaitingEnd(decision) => match self.next_step() {
                Some(step) => step,
                None => self.end_request(decision)?,
            },
            State::Ready | State::Broken(_) | State::Dead(_) => return None,
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.unanswered = Some((ticket, request.clone()));
        Some((ticket, request))
    }

    /// What makes the transaction whole.
    fn next_step(&mut self) -> Option<Request> {
        let identity = self.identity?;
        let contents = &mut self.contents;
        let Some(protocol) = contents.protocol else {
            return Some(Request::FindProtocol);
        };
        if !contents.wanted.is_empty() {
            contents.started = true;
            return Some(Request::AddPartitions {
                identity,
                partitions: contents.wanted.values().cloned().collect(),
            });
        }
        let first = contents.offsets.front()?;
        contents.started = true;
        let group = &first.group.group;
        if protocol == Protocol::One && !contents.groups.contains(group) {
            let group = Arc::clone(group);
            return Some(Request::AddOffsets { identity, group });
        }
        Some(Request::CommitOffsets {
            identity,
            protocol,
            group: first.group.clone(),
            offsets: first.offsets.clone(),
        })
    }

    fn end_request(&self, decision: Decision) -> Option<Request> {
        Some(Request::End {
            identity: self.identity?,
            protocol: self.contents.protocol?,
            decision,
        })
    }

    /// When [`poll_request`](Self::poll_request) has something more to give by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.blocked_until.filter(|_| self.unanswered.is_none())
    }

    /// The next thing to do or to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn unblock(&mut self) {
        self.blocked_until = None;
        self.failures = 0;
    }

    /// Waits before the next request.
    fn block(&mut self, now: Instant, first: Duration) {
        let doubled = first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // 0.8 to 1.2 of the nominal wait, so that producers that failed together part.
        let jitter = 800 + u32::try_from(self.random % 400).unwrap_or(0);
        let wait = doubled.min(self.config.retry_backoff_max.max(first));
        self.blocked_until = Some(now + wait * jitter / 1000);
    }
}

fn not_open() -> Error {
    Error::new(ErrorKind::State, "no transaction is open")
}

fn aborted() -> Error {
    Error::new(ErrorKind::State, "the transaction was aborted")
        .with_outcome(WriteOutcome::NotWritten)
}
