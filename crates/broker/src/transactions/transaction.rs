//! One transactional id as a pure state machine: time and fresh producer ids come in as arguments.
//! The rules are those of Kafka's transaction coordinator, in both protocols: in the first one a
//! producer keeps its epoch from transaction to transaction, in the second (KIP-890) every end
//! bumps it.

use ottla_proto::Code;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The last epoch a client may have: the one beyond it is kept for fencing that client.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// How many groups one transaction may commit offsets for: their ids come from clients.
const GROUPS_MAX: usize = 1000;

/// A partition by topic and number.
pub(crate) type Place = (Arc<str>, i32);

/// Who a producer says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Commit,
    Abort,
}

/// Which of the two protocols a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Partitions and groups are added by requests of their own; the epoch stays.
    V1,
    /// Partitions and groups are added by what is written; every end bumps the epoch (KIP-890).
    V2,
}

/// A transaction that is decided and whose markers are being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) decision: Decision,
    pub(crate) decided_at: Instant,
    /// What the markers carry.
    pub(crate) marked: Identity,
    /// Who the producer is from then on, where its epochs were used up.
    next: Option<Identity>,
    /// The offset of each partition's marker, once it is written.
    pub(crate) markers: BTreeMap<Place, Option<i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// No producer was given an epoch yet.
    New,
    /// A producer was given an epoch and has begun nothing.
    Empty,
    /// A transaction is open.
    Ongoing { begun: Instant, begun_millis: i64 },
    /// A transaction is decided, and its markers are being written.
    Ending(Ending),
    /// The last transaction ended so.
    Ended(Decision),
}

impl State {
    /// Kafka's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::New | Self::Empty => "Empty",
            Self::Ongoing { .. } => "Ongoing",
            Self::Ending(ending) => match ending.decision {
                Decision::Commit => "PrepareCommit",
                Decision::Abort => "PrepareAbort",
            },
            Self::Ended(Decision::Commit) => "CompleteCommit",
            Self::Ended(Decision::Abort) => "CompleteAbort",
        }
    }
}

/// The moment of a request, on the clock that runs and on the one that is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) millis: i64,
}

/// One transactional id.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before the last bump, unless that bump was for another producer: who names it is
    /// given the current one. -1 for none.
    last_epoch: i16,
    /// The producer id whose epochs were used up before this one; -1 for none.
    previous_id: i64,
    /// The protocol of the last transaction.
    pub(crate) protocol: Protocol,
    pub(crate) timeout: Duration,
    pub(crate) state: State,
    pub(crate) partitions: BTreeSet<Place>,
    pub(crate) groups: BTreeSet<String>,
    /// Grows with every use, so that the id used longest ago can be forgotten.
    pub(crate) used: u64,
}

impl Transaction {
    /// A transactional id that nobody used before. Its first producer gets `first_epoch`.
    pub(crate) fn new(producer_id: i64, first_epoch: i16) -> Self {
        Self {
            producer_id,
            epoch: first_epoch.saturating_sub(1),
            last_epoch: -1,
            previous_id: -1,
            protocol: Protocol::V1,
            timeout: Duration::ZERO,
            state: State::New,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            used: 0,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity {
            producer_id: self.producer_id,
            epoch: self.epoch,
        }
    }

    fn exhausted(&self) -> bool {
        self.epoch >= EPOCH_MAX
    }

    /// InitProducerId: gives the next epoch, and with it fences whoever had the last one. `known`
    /// is who a producer says it was (KIP-360).
    ///
    /// # Errors
    /// `PRODUCER_FENCED`; `CONCURRENT_TRANSACTIONS` while a transaction is being ended, or when
    /// this call had to abort one.
    pub(crate) fn init(
        &mut self,
        at: Moment,
        known: Option<Identity>,
        timeout: Duration,
        fresh_id: impl FnOnce() -> i64,
    ) -> Result<Identity, Code> {
        if matches!(self.state, State::Ending(_)) {
            return Err(Code::CONCURRENT_TRANSACTIONS);
        }
        if !known.is_none_or(|known| self.may_go_on(known)) {
            return Err(Code::PRODUCER_FENCED);
        }
        if matches!(self.state, State::Ongoing { .. }) {
            self.fence(at);
            return Err(Code::CONCURRENT_TRANSACTIONS);
        }
        let current = known.is_none_or(|known| known.epoch == self.epoch);
        if self.exhausted() && current {
            self.last_epoch = known.map_or(-1, |known| known.epoch);
            self.previous_id = self.producer_id;
            self.producer_id = fresh_id();
            self.epoch = 0;
        } else if current || self.state == State::New {
            self.last_epoch = known.map_or(-1, |_| self.epoch);
            self.epoch += 1;
        } else if known.is_some_and(|known| known.epoch != self.last_epoch) {
            return Err(Code::PRODUCER_FENCED);
        }
        self.timeout = timeout;
        self.state = State::Empty;
        Ok(self.identity())
    }

    /// Whether a producer may be the one that this id has, or had before its epochs were used up.
    fn may_go_on(&self, known: Identity) -> bool {
        self.state == State::New
            || known.producer_id == self.producer_id
            || (known.producer_id == self.previous_id && known.epoch >= EPOCH_MAX)
    }

    fn identify(&self, who: Identity) -> Result<(), Code> {
        if who.producer_id != self.producer_id {
            Err(Code::INVALID_PRODUCER_ID_MAPPING)
        } else if who.epoch != self.epoch {
            Err(Code::PRODUCER_FENCED)
        } else {
            Ok(())
        }
    }

    /// Whether a producer may add to its transaction now. The markers come first: the producer may
    /// have its new id already, which holds only once they are written.
    fn check_open(&self, who: Identity) -> Result<(), Code> {
        if matches!(self.state, State::Ending(_)) {
            return Err(Code::CONCURRENT_TRANSACTIONS);
        }
        self.identify(who)
    }

    fn begin(&mut self, at: Moment, protocol: Protocol) {
        self.protocol = protocol;
        if !matches!(self.state, State::Ongoing { .. }) {
            self.state = State::Ongoing {
                begun: at.now,
                begun_millis: at.millis,
            };
        }
    }

    /// Adds partitions, and begins a transaction where none is open.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`.
    pub(crate) fn add_partitions(
        &mut self,
        at: Moment,
        who: Identity,
        places: impl IntoIterator<Item = Place>,
        protocol: Protocol,
    ) -> Result<(), Code> {
        self.check_open(who)?;
        self.begin(at, protocol);
        self.partitions.extend(places);
        Ok(())
    }

    /// Adds a group whose offsets the transaction commits.
    ///
    /// # Errors
    /// As [`Transaction::add_partitions`], and `INVALID_REQUEST` for too many groups.
    pub(crate) fn add_group(
        &mut self,
        at: Moment,
        who: Identity,
        group: &str,
        protocol: Protocol,
    ) -> Result<(), Code> {
        self.check_open(who)?;
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains(group) {
            return Err(Code::INVALID_REQUEST);
        }
        self.begin(at, protocol);
        self.groups.insert(group.to_owned());
        Ok(())
    }

    /// Checks that `added` is part of the producer's open transaction.
    ///
    /// # Errors
    /// As [`Transaction::add_partitions`], and `TRANSACTION_ABORTABLE` if it is not.
    pub(crate) fn verify(
        &self,
        who: Identity,
        added: impl FnOnce(&Self) -> bool,
    ) -> Result<(), Code> {
        self.check_open(who)?;
        if added(self) {
            Ok(())
        } else {
            Err(Code::TRANSACTION_ABORTABLE)
        }
    }

    /// EndTxn: decides the transaction; who the producer is from then on.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`, and
    /// `INVALID_TXN_STATE` where there is nothing to end or it ended the other way.
    pub(crate) fn end(
        &mut self,
        at: Moment,
        who: Identity,
        decision: Decision,
        protocol: Protocol,
        fresh_id: impl FnOnce() -> i64,
    ) -> Result<Identity, Code> {
        match protocol {
            Protocol::V1 => self.end_v1(at, who, decision),
            Protocol::V2 => self.end_v2(at, who, decision, fresh_id),
        }
    }

    fn end_v1(&mut self, at: Moment, who: Identity, decision: Decision) -> Result<Identity, Code> {
        self.identify(who)?;
        match self.state {
            State::Ending(_) => Err(Code::CONCURRENT_TRANSACTIONS),
            State::Ongoing { .. } => {
                self.protocol = Protocol::V1;
                self.decide(at, decision, who, None);
                Ok(who)
            }
            State::Ended(ended) if ended == decision => Ok(who),
            State::New | State::Empty | State::Ended(_) => Err(Code::INVALID_TXN_STATE),
        }
    }

    fn end_v2(
        &mut self,
        at: Moment,
        who: Identity,
        decision: Decision,
        fresh_id: impl FnOnce() -> i64,
    ) -> Result<Identity, Code> {
        if matches!(self.state, State::Ending(_)) {
            return Err(Code::CONCURRENT_TRANSACTIONS);
        }
        let new_id =
            self.epoch == 0 && who.producer_id == self.previous_id && who.epoch == EPOCH_MAX;
        let bumped =
            who.producer_id == self.producer_id && who.epoch.checked_add(1) == Some(self.epoch);
        // An epoch that this end has bumped already is the same request again.
        if let State::Ended(ended) = self.state
            && self.protocol == Protocol::V2
            && (new_id || bumped)
        {
            return match ended == decision {
                true => Ok(self.identity()),
                false => Err(Code::INVALID_TXN_STATE),
            };
        }
        self.identify(who)?;
        let ongoing = matches!(self.state, State::Ongoing { .. });
        // An abort of nothing is taken: the producer cannot know whether a write of it arrived.
        if !ongoing && decision == Decision::Commit {
            return Err(Code::INVALID_TXN_STATE);
        }
        let next = self.exhausted().then(|| Identity {
            producer_id: fresh_id(),
            epoch: 0,
        });
        self.protocol = Protocol::V2;
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.decide(at, decision, self.identity(), next);
        Ok(next.unwrap_or_else(|| self.identity()))
    }

    fn decide(&mut self, at: Moment, decision: Decision, marked: Identity, next: Option<Identity>) {
        let partitions = std::mem::take(&mut self.partitions);
        self.state = State::Ending(Ending {
            decision,
            decided_at: at.now,
            marked,
            next,
            markers: partitions.into_iter().map(|place| (place, None)).collect(),
        });
    }

    /// Aborts the open transaction under an epoch that nobody was given, so that its producer can
    /// write nothing more. It may go on by naming its old epoch, until another one comes: so
    /// Kafka 4.3 has it, while 3.9 tells it that it is fenced.
    fn fence(&mut self, at: Moment) {
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.decide(at, Decision::Abort, self.identity(), None);
    }

    /// When the open transaction times out.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ongoing { begun, .. } => Some(begun + self.timeout),
            _ => None,
        }
    }

    /// Aborts the open transaction if its time is over.
    pub(crate) fn handle_timeout(&mut self, at: Moment) {
        if self.deadline().is_some_and(|deadline| deadline <= at.now) {
            self.fence(at);
        }
    }

    /// The transaction is over: every marker is written.
    pub(crate) fn complete(&mut self) {
        let State::Ending(ending) = &self.state else {
            return;
        };
        let (decision, next) = (ending.decision, ending.next);
        if let Some(next) = next {
            self.previous_id = self.producer_id;
            self.producer_id = next.producer_id;
            self.epoch = next.epoch;
        }
        self.groups.clear();
        self.state = State::Ended(decision);
    }
}
