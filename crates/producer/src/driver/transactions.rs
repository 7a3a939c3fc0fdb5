//! Transactions: carries out what their core asks for, and tells callers what came of it.

use super::Driver;
use crate::inbox::Message;
use crate::transaction::{Asked, Command, Decision, Failure, Office, Opening};
use ottla_proto::producer::PartitionIndex;
use ottla_proto::producer::transaction::{
    Event, Protocol, Request, Ticket, TransactionConfig, Transactions,
};
use ottla_proto::{BrokerId, Error, ErrorKind, Result, WriteOutcome};
use ottla_wire::{CoordinatorKind, Settings};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

type Told<T> = oneshot::Sender<Result<T>>;

/// A transaction on its way to its end.
#[derive(Debug)]
struct Ending {
    decision: Decision,
    /// Who waits for it.
    told: Option<Told<()>>,
    /// All batches have ended, and the core knows of it.
    handed_over: bool,
}

/// What the driver of a transactional producer keeps beside its batches.
#[derive(Debug)]
pub(super) struct Desk {
    core: Transactions,
    office: Office,
    /// What callers see of it without asking.
    failure: Arc<Failure>,
    /// Why everything unsent is dropped.
    dropping: Option<Error>,
    ending: Option<Ending>,
    identified: Option<Told<()>>,
    begin: Option<Told<()>>,
    /// In the order in which the core was given them, which bounds them.
    offsets: VecDeque<Told<()>>,
    settle: Option<Told<Option<Decision>>>,
    /// The user had the open transaction: each of those is ended by a command.
    in_hand: bool,
    /// How the latest transaction ended that the user had.
    last: Option<Decision>,
    /// The coordinator asked last.
    coordinator: Option<(CoordinatorKind, Arc<str>, BrokerId)>,
    /// When a closed producer stops waiting for the end of its transaction.
    give_up_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(opening: Opening, settings: &Settings) -> Self {
        let core = Transactions::new(TransactionConfig {
            retry_backoff: settings.retry_backoff,
            retry_backoff_max: settings.retry_backoff_max,
            seed: settings.seed,
        });
        Self {
            core,
            office: opening.office,
            failure: opening.failure,
            dropping: None,
            ending: None,
            identified: None,
            begin: None,
            offsets: VecDeque::new(),
            settle: None,
            in_hand: false,
            last: None,
            coordinator: None,
            give_up_at: None,
        }
    }

    /// The protocol of the open transaction; the older one as long as it is not known.
    pub(super) fn protocol(&self) -> Protocol {
        self.core.protocol().unwrap_or(Protocol::One)
    }

    pub(super) fn want(&mut self, index: PartitionIndex, partition: ottla_proto::TopicPartition) {
        self.core.want(index, partition);
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.core.fail(error);
    }

    pub(super) fn renew_epoch(&mut self) {
        self.core.renew_epoch();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let times = [self.core.poll_timeout(), self.give_up_at];
        times.into_iter().flatten().min()
    }

    /// Whether a closed producer has no transaction left to end.
    pub(super) fn has_ended(&self) -> bool {
        !self.core.is_open()
    }

    /// Whether a closed producer has waited long enough, for its records too.
    pub(super) fn gives_up(&self, now: Instant) -> bool {
        self.give_up_at.is_some_and(|at| at <= now)
    }

    /// The producer is closed: what is open is aborted.
    pub(super) fn close(&mut self, give_up_at: Option<Instant>) {
        self.give_up_at = self.give_up_at.or(give_up_at);
        self.abort_if_open();
    }

    /// Aborts the transaction of a caller that left when it had just begun. One that a user has in
    /// hand is ended by a command before any other can come.
    fn abort_unheard(&mut self) {
        if self.begin.is_none() {
            self.abort_if_open();
        }
    }

    fn abort_if_open(&mut self) {
        if self.core.is_open() && self.ending.is_none() {
            self.end(Decision::Abort, None);
        }
    }

    fn end(&mut self, decision: Decision, told: Option<Told<()>>) {
        if decision == Decision::Abort && self.dropping.is_none() {
            let what = "the transaction was aborted before the record was sent";
            self.dropping = Some(Error::new(ErrorKind::State, what));
        }
        self.ending = Some(Ending {
            decision,
            told,
            handed_over: false,
        });
    }

    fn handle(&mut self, now: Instant, command: Command) {
        match command {
            Command::Identified(told) => self.identified = Some(told),
            Command::Begin(told) => {
                self.abort_unheard();
                self.begin = Some(told);
                self.begin_if_ended();
            }
            Command::Offsets {
                group,
                offsets,
                told,
            } => match self.core.commit_offsets(group, offsets) {
                Ok(()) => self.offsets.push_back(told),
                Err(error) => tell(Some(told), Err(error)),
            },
            Command::End { decision, told } => match self.core.failure() {
                Some(error) => tell(Some(told), Err(refused(error.clone(), false))),
                None => {
                    self.in_hand = true;
                    match (decision, self.failure.check()) {
                        // Its abort is nothing to wait for.
                        (Decision::Commit, Err(error)) => {
                            tell(Some(told), Err(refused(error, false)));
                            self.end(Decision::Abort, None);
                        }
                        _ => self.end(decision, Some(told)),
                    }
                }
            },
            Command::Settle(told) => {
                self.abort_unheard();
                self.settle = Some(told);
            }
            Command::Asked(
                ticket,
                Asked {
                    outcome,
                    coordinator,
                },
            ) => {
                tracing::debug!(?outcome, "a coordinator was asked");
                self.coordinator = coordinator;
                self.core.handle_outcome(now, ticket, outcome);
            }
        }
    }

    fn begin_if_ended(&mut self) {
        if self.core.is_open() || self.begin.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return;
        }
        if let Err(error) = self.core.begin() {
            tell(self.begin.take(), Err(error));
        }
    }

    /// The transaction can only be aborted.
    fn broken(&mut self, error: Error) {
        tracing::debug!(transactional_id = %self.office.id, %error, "the transaction is broken");
        self.failure.set(Some(error.clone()));
        self.dropping = Some(error.clone());
        let commit = |ending: &mut Ending| ending.decision == Decision::Commit;
        if let Some(commit) = self.ending.take_if(commit) {
            tell(commit.told, Err(refused(error, commit.handed_over)));
            self.end(Decision::Abort, None);
        }
    }

    fn ended(&mut self, decision: Decision) {
        if std::mem::take(&mut self.in_hand) {
            self.last = Some(decision);
        }
        self.dropping = None;
        self.failure.set(None);
        tell(self.ending.take().and_then(|ending| ending.told), Ok(()));
        self.begin_if_ended();
    }

    fn dead(&mut self, error: &Error) {
        tracing::warn!(transactional_id = %self.office.id, %error, "a transactional producer is of no further use");
        self.failure.set(Some(error.clone()));
        self.dropping = Some(error.clone());
        if let Some(ending) = self.ending.take() {
            let error = refused(error.clone(), ending.handed_over);
            tell(ending.told, Err(error));
        }
        for told in [self.identified.take(), self.begin.take()] {
            tell(told, Err(error.clone()));
        }
    }

    fn forget_coordinator(&mut self) {
        if let Some((kind, key, broker)) = self.coordinator.take() {
            self.office.cluster.forget_coordinator(kind, &key, broker);
        }
    }

    /// Tells those who wait until nothing is open.
    fn tell_settled(&mut self) {
        if let Some(error) = self.core.failure() {
            tell(self.settle.take(), Err(error.clone()));
        } else if self.core.is_ready() {
            tell(self.settle.take(), Ok(self.last));
        }
    }
}

/// Why a commit was refused. The record at fault may have been written, but before the coordinator
/// was asked, nothing of the transaction was committed.
fn refused(error: Error, was_asked: bool) -> Error {
    match was_asked {
        true => error,
        false => error.with_outcome(WriteOutcome::NotWritten),
    }
}

/// A caller that has left does not mind.
fn tell<T>(told: Option<Told<T>>, result: Result<T>) {
    if let Some(told) = told {
        let _ = told.send(result);
    }
}

impl Driver {
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        let ends = matches!(command, Command::End { .. } | Command::Begin(_));
        if let Some(desk) = &mut self.desk {
            desk.handle(now, command);
        }
        if ends {
            self.seal_all(now);
        }
    }

    /// The producer is closed or abandoned.
    pub(super) fn end_transactions(&mut self, now: Instant) {
        if let Some(desk) = &mut self.desk {
            desk.close(now.checked_add(self.shared.config.max_block));
        }
    }

    /// Does for transactions what is due.
    pub(super) fn conduct(&mut self, now: Instant) {
        self.drop_unsent(now);
        // Apart from `self` meanwhile, because both are needed.
        let Some(mut desk) = self.desk.take() else {
            return;
        };
        self.end_when_quiet(&mut desk);
        while let Some(event) = desk.core.poll_event() {
            self.carry_out(now, &mut desk, event);
            self.end_when_quiet(&mut desk);
        }
        while let Some((ticket, request)) = desk.core.poll_request(now) {
            self.ask(&desk, ticket, request);
        }
        desk.tell_settled();
        self.desk = Some(desk);
    }

    /// What waits to be sent of a broken or aborted transaction ends here.
    fn drop_unsent(&mut self, now: Instant) {
        let dropping = self.desk.as_ref().and_then(|desk| desk.dropping.clone());
        if let Some(error) = dropping {
            self.seal_all(now);
            let ends_with_an_epoch = self.desk.as_ref().map(Desk::protocol) == Some(Protocol::Two);
            self.core.fail_waiting(&error, ends_with_an_epoch);
            self.settle(now);
        }
    }

    /// A commit waits until every record is acknowledged, an abort until nothing is in flight.
    fn end_when_quiet(&mut self, desk: &mut Desk) {
        let quiet = self.unsettled.is_empty() && !self.core.is_in_flight();
        let Some(ending) = desk.ending.as_mut().filter(|ending| !ending.handed_over) else {
            return;
        };
        if !quiet {
            return;
        }
        match desk.core.end(ending.decision) {
            Ok(()) => ending.handed_over = true,
            Err(error) => {
                let told = desk.ending.take().and_then(|ending| ending.told);
                tell(told, Err(refused(error, false)));
                desk.abort_if_open();
            }
        }
    }

    fn carry_out(&mut self, now: Instant, desk: &mut Desk, event: Event) {
        match event {
            Event::Identified(identity) => {
                self.core.begin_epoch(now, identity);
                tell(desk.identified.take(), Ok(()));
            }
            Event::Begun => {
                let heard = |told: Told<()>| told.send(Ok(())).is_ok();
                if !desk.begin.take().is_some_and(heard) {
                    // The caller has left.
                    desk.end(Decision::Abort, None);
                }
            }
            Event::Admitted(index) => self.core.admit(now, index),
            Event::Offsets(result) => tell(desk.offsets.pop_front(), result),
            Event::Broken(error) | Event::Refused(error) => desk.broken(error),
            Event::Ended(decision) => {
                self.core.close_admissions();
                desk.ended(decision);
            }
            Event::Dead(error) => desk.dead(&error),
            Event::FindCoordinator | Event::FindGroupCoordinator(_) => desk.forget_coordinator(),
        }
    }

    fn ask(&mut self, desk: &Desk, ticket: Ticket, request: Request) {
        let office = desk.office.clone();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let asked = office.ask(request).await;
            let command = Command::Asked(ticket, asked);
            shared.shop.inbox.push(Message::Transaction(command));
        });
    }
}
