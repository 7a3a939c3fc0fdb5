//! What an answer, or the lack of one, does to the transaction.

use super::{
    Answer, Api, CONCURRENT_WAIT, Decision, Event, Outcome, Protocol, Request, State, Ticket,
    TransactionVerdict, Transactions, transaction_verdict,
};
use crate::code::Code;
use crate::error::{Error, ErrorKind};
use crate::producer::identity::Identity;
use crate::topic::TopicPartition;
use std::time::Instant;

/// A code that is not a success, where it was found.
#[derive(Debug)]
struct Refusal {
    api: Api,
    code: Code,
    partition: Option<TopicPartition>,
}

impl Refusal {
    fn verdict(&self) -> TransactionVerdict {
        transaction_verdict(self.api, self.code)
    }

    fn error(&self) -> Error {
        let (api, code) = (self.api.name(), self.code);
        let error = match self.verdict() {
            TransactionVerdict::Fenced => {
                let what = format!(
                    "{api} was answered with {code}: another producer took over the transactional \
                     id, or the transaction stayed open for too long"
                );
                Error::new(ErrorKind::Fenced, what)
            }
            // Another instance took over the member's identity, not this producer's.
            TransactionVerdict::Abort if code == Code::FENCED_INSTANCE_ID => {
                let what = format!("{api} was answered with {code}");
                Error::new(ErrorKind::Broker(code), what)
            }
            _ => Error::broker(code, api),
        };
        let error = match code {
            Code::INVALID_TRANSACTION_TIMEOUT => error.with_message(
                "transaction.timeout.ms is above the brokers' transaction.max.timeout.ms",
            ),
            _ => error,
        };
        match &self.partition {
            Some(partition) => error.at_partition(partition.clone()),
            None => error,
        }
    }
}

impl Transactions {
    /// Takes in what became of a request. An outcome that nobody waits for any more is ignored.
    pub fn handle_outcome(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) {
        let Some((_, request)) = self.unanswered.take_if(|(own, _)| *own == ticket) else {
            return;
        };
        if matches!(self.state, State::Dead(_)) {
            return;
        }
        match outcome {
            Outcome::Answered(answer) => self.answered(now, &request, answer),
            Outcome::Refused(code) => self.refused(now, &request, code),
            Outcome::NotSent(error) if error.is_retriable() => self.later(now),
            Outcome::NotSent(error) => self.impossible(&request, error),
            Outcome::Lost(error) => {
                self.doubt(&request);
                if error.is_retriable() {
                    self.later(now);
                } else {
                    self.impossible(&request, error);
                }
            }
        }
    }

    fn later(&mut self, now: Instant) {
        self.block(now, self.config.retry_backoff);
    }

    /// The request may still be carried out at any time.
    fn doubt(&mut self, request: &Request) {
        match request {
            Request::FindProtocol | Request::Identify { .. } => {}
            Request::End { .. } => {
                self.contents.in_doubt = true;
                self.contents.spent = true;
            }
            _ => self.contents.spent = true,
        }
    }

    /// No broker will ever take the request.
    fn impossible(&mut self, request: &Request, error: Error) {
        match request {
            Request::Identify { .. } | Request::End { .. } => self.die(error),
            _ => self.break_open(error),
        }
    }

    fn answered(&mut self, now: Instant, request: &Request, answer: Answer) {
        match (request, answer) {
            (Request::FindProtocol, Answer::Feature { level, epoch }) => {
                self.protocol_found(level, epoch);
            }
            (Request::Identify { .. }, Answer::Identity(identity)) => self.renewed(identity),
            (Request::AddPartitions { .. }, Answer::Partitions(codes)) => {
                self.partitions_added(now, request, &codes);
            }
            (Request::AddOffsets { group, .. }, Answer::Added(Code::NONE)) => {
                self.unblock();
                self.contents.groups.insert(group.clone());
            }
            (Request::AddOffsets { .. }, Answer::Added(code))
            | (Request::End { .. }, Answer::Ended { code, .. })
                if code != Code::NONE =>
            {
                self.refused(now, request, code);
            }
            (Request::CommitOffsets { .. }, Answer::Partitions(codes)) => {
                self.offsets_committed(now, request, &codes);
            }
            (Request::End { decision, .. }, Answer::Ended { next, .. }) => {
                self.finish(*decision, next);
            }
            // An answer to something else: as good as none.
            (_, _) => {
                self.doubt(request);
                self.later(now);
            }
        }
    }

    fn protocol_found(&mut self, level: i16, epoch: Option<i64>) {
        self.unblock();
        // None is below every epoch: a broker that tells none cannot overrule one that does.
        if epoch >= self.known.0 {
            self.known = (epoch, Protocol::at_level(level));
        }
        if !matches!(self.state, State::Open | State::AwaitingEnd(_)) {
            return;
        }
        self.contents.protocol = Some(self.known.1);
        if self.known.1 == Protocol::Two {
            for index in std::mem::take(&mut self.contents.wanted).into_keys() {
                self.admit(index);
            }
        }
    }

    fn renewed(&mut self, identity: Identity) {
        self.unblock();
        if let Some(decision) = self.owed.take() {
            self.events.push_back(Event::Ended(decision));
        }
        self.identified(identity);
        self.begin_if_asked();
    }

    fn partitions_added(
        &mut self,
        now: Instant,
        request: &Request,
        codes: &[(TopicPartition, Code)],
    ) {
        for (partition, code) in codes {
            let mut wanted = self.contents.wanted.iter();
            let found = wanted.find(|(_, name)| *name == partition);
            if let (Code::NONE, Some((&index, _))) = (*code, found) {
                self.contents.wanted.remove(&index);
                self.admit(index);
            }
        }
        let Request::AddPartitions { partitions, .. } = request else {
            return;
        };
        // Others may have come meanwhile.
        let wanted = |name: &TopicPartition| self.contents.wanted.values().any(|w| w == name);
        let is_left = partitions.iter().any(wanted);
        self.judge_partitions(now, request, codes, is_left);
    }

    fn offsets_committed(
        &mut self,
        now: Instant,
        request: &Request,
        codes: &[(TopicPartition, Code)],
    ) {
        let done = |(partition, code): &(TopicPartition, Code)| {
            (*code == Code::NONE).then(|| partition.clone())
        };
        let mut is_left = false;
        // An abort may have dropped them meanwhile.
        if let Some(first) = self.contents.offsets.front_mut() {
            for partition in codes.iter().filter_map(done) {
                first.offsets.remove(&partition);
            }
            is_left = !first.offsets.is_empty();
            if !is_left {
                self.contents.offsets.pop_front();
                self.events.push_back(Event::Offsets(Ok(())));
            }
        }
        self.judge_partitions(now, request, codes, is_left);
    }

    /// The worst of several partitions' codes decides. What the answer passed over is left, and asked
    /// for again after a while: how many codes came says nothing, one partition may be named twice.
    fn judge_partitions(
        &mut self,
        now: Instant,
        request: &Request,
        codes: &[(TopicPartition, Code)],
        is_left: bool,
    ) {
        let refused = codes.iter().filter(|(_, code)| *code != Code::NONE);
        let refusals = refused.map(|(partition, code)| Refusal {
            api: api(request),
            code: *code,
            partition: Some(partition.clone()),
        });
        match refusals.max_by_key(Refusal::verdict) {
            Some(worst) => self.act(now, request, &worst),
            None if is_left => self.later(now),
            None => self.unblock(),
        }
    }

    fn refused(&mut self, now: Instant, request: &Request, code: Code) {
        let refusal = Refusal {
            api: api(request),
            code,
            partition: None,
        };
        self.act(now, request, &refusal);
    }

    fn act(&mut self, now: Instant, request: &Request, refusal: &Refusal) {
        match refusal.verdict() {
            TransactionVerdict::Done => self.unblock(),
            TransactionVerdict::Retry => match refusal.code {
                Code::CONCURRENT_TRANSACTIONS => {
                    self.block(now, CONCURRENT_WAIT.min(self.config.retry_backoff));
                }
                _ => self.later(now),
            },
            TransactionVerdict::Doubt => {
                self.doubt(request);
                self.later(now);
            }
            TransactionVerdict::FindCoordinator => {
                self.events.push_back(match request {
                    Request::CommitOffsets { group, .. } => {
                        Event::FindGroupCoordinator(group.group.clone())
                    }
                    _ => Event::FindCoordinator,
                });
                self.later(now);
            }
            TransactionVerdict::Abort => self.break_open(refusal.error()),
            TransactionVerdict::Renew => {
                self.owed = Some(Decision::Abort);
                self.contents = super::Contents::default();
                self.unblock();
                self.state = State::AwaitingIdentity;
            }
            TransactionVerdict::Fenced | TransactionVerdict::Fatal => self.die(refusal.error()),
        }
    }

    /// What was asked for an aborted or a broken transaction matters no more.
    fn break_open(&mut self, error: Error) {
        match self.state {
            State::Open => self.give_up(error),
            State::AwaitingEnd(Decision::Commit) => {
                let error = error.with_outcome(self.commit_outcome());
                self.give_up(error);
            }
            _ => {}
        }
    }
}

fn api(request: &Request) -> Api {
    match request {
        // It has no code of its own to be judged.
        Request::FindProtocol | Request::Identify { .. } => Api::InitProducerId,
        Request::AddPartitions { .. } => Api::AddPartitionsToTxn,
        Request::AddOffsets { .. } => Api::AddOffsetsToTxn,
        Request::CommitOffsets { .. } => Api::TxnOffsetCommit,
        Request::End {
            decision: Decision::Commit,
            ..
        } => Api::Commit,
        Request::End { .. } => Api::Abort,
    }
}
