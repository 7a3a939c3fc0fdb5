//! What occurred: kinds of faults and kinds of outcomes, so that a quiet simulation shows.

use crate::book::Call;
use crate::fault::Kind;
use crate::letters;
use crate::plan::{End, Plan, Promise};
use crate::world::World;
use ottla::{Code, ErrorKind, WriteOutcome};
use ottla_producer::VerdictCounts;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// How often each thing occurred.
#[derive(Debug, Default)]
pub(crate) struct Census {
    counts: BTreeMap<String, u64>,
    /// Records that the producer took.
    pub(crate) records: usize,
    /// Partitions that it took records for.
    pub(crate) partitions: usize,
    /// Faults that struck.
    pub(crate) faults: usize,
}

/// Every outcome that must have occurred once all seeds have run.
const OUTCOMES: [&str; 25] = [
    "acknowledged",
    "retried and acknowledged",
    "restamped",
    "split and acknowledged",
    "refused for good, not written",
    "refused for good, unknown",
    "expired, not written",
    "expired, unknown",
    "retries spent",
    "buffer full",
    "unknown partition",
    "closed",
    "call given up",
    "closed early",
    "abandoned",
    "at least once",
    "transaction committed",
    "transaction aborted",
    "transaction broken",
    "commit in doubt",
    "fenced",
    "dead letter",
    "wrong record cut out",
    "sent once more",
    "large batches",
];

impl Census {
    /// What occurred in one run.
    pub(crate) fn of(world: &World) -> Self {
        let taken = world.taken();
        let mut census = Self {
            records: taken.len(),
            partitions: taken.into_iter().collect::<BTreeSet<_>>().len(),
            faults: world.struck(),
            ..Self::default()
        };
        for ordered in world.ordered.lock().unwrap().iter().filter(|o| o.struck()) {
            census.count(&ordered.kind.name());
        }
        if world.large.load(Ordering::Relaxed) {
            census.count("large batches");
        }
        census.settings(&world.plan);
        census.outcomes(world);
        for (verdict, count) in world.verdicts.lock().unwrap().named() {
            census.count_times(&format!("verdict: {verdict}"), count);
        }
        for what in letters::outcomes(world) {
            census.count(what);
        }
        for round in world.rounds.lock().unwrap().iter() {
            census.count(round.what());
            if round.fenced {
                census.count("fenced");
            }
        }
        census
    }

    fn count(&mut self, what: &str) {
        self.count_times(what, 1);
    }

    fn count_times(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.counts.entry(what.to_owned()).or_default() += times;
        }
    }

    fn settings(&mut self, plan: &Plan) {
        match plan.end {
            End::Calm => {}
            End::CloseEarly => self.count("closed early"),
            End::Abandon => self.count("abandoned"),
        }
        if plan.promise == Promise::AtLeastOnce {
            self.count("at least once");
        }
    }

    fn outcomes(&mut self, world: &World) {
        let book = world.book.lock().unwrap();
        let mut failed = false;
        for call in book.calls.values() {
            match call {
                Call::Refused(error) => self.refused(error.kind()),
                Call::GivenUp => self.count("call given up"),
                Call::Taken(taken) => match taken.told.as_ref().map(|(_, told)| told) {
                    Some(Ok(_)) => self.count("acknowledged"),
                    Some(Err(error)) => {
                        failed = true;
                        self.failed(error);
                    }
                    None => {}
                },
            }
        }
        let refused = |kind| matches!(kind, Kind::Refused(_) | Kind::DisconnectBefore);
        let ordered = world.ordered.lock().unwrap();
        if !failed && ordered.iter().any(|o| refused(o.kind) && o.struck()) {
            self.count("retried and acknowledged");
        }
        let large = Kind::Final(Code::MESSAGE_TOO_LARGE);
        if !failed && ordered.iter().any(|o| o.kind == large && o.struck()) {
            self.count("split and acknowledged");
        }
        let logs = world.old_logs.lock().unwrap();
        if logs
            .iter()
            .flatten()
            .flatten()
            .any(|record| record.epoch > 0)
        {
            self.count("restamped");
        }
    }

    fn refused(&mut self, kind: &ErrorKind) {
        match kind {
            ErrorKind::BufferFull => self.count("buffer full"),
            ErrorKind::UnknownTopicOrPartition => self.count("unknown partition"),
            ErrorKind::Closed => self.count("closed"),
            _ => {}
        }
    }

    fn failed(&mut self, error: &ottla::Error) {
        let unwritten = error.write_outcome() == Some(WriteOutcome::NotWritten);
        let spent = error.to_string().contains("gave up after");
        match (error.kind(), unwritten) {
            (ErrorKind::Timeout, _) if spent => self.count("retries spent"),
            (ErrorKind::Timeout, true) => self.count("expired, not written"),
            (ErrorKind::Timeout, false) => self.count("expired, unknown"),
            (_, true) => self.count("refused for good, not written"),
            (_, false) => self.count("refused for good, unknown"),
        }
    }

    /// Adds another run's.
    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Whatever should have occurred and did not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let kinds = Kind::all().into_iter().map(Kind::name);
        let verdicts = VerdictCounts::default().named();
        let verdicts = verdicts.map(|(verdict, _)| format!("verdict: {verdict}"));
        let wanted = kinds.chain(OUTCOMES.map(str::to_owned)).chain(verdicts);
        wanted
            .filter(|what| !self.counts.contains_key(what))
            .collect()
    }

    /// A table of everything.
    pub(crate) fn table(&self) -> String {
        let rows = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count:>9}  {what}\n"));
        rows.collect()
    }
}
