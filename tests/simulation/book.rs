//! What the callers did and what they were told.

use ottla::{Error, RecordMetadata};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// What became of one call.
#[derive(Debug)]
pub(crate) enum Call {
    /// The record was taken.
    Taken(Taken),
    /// The record was refused.
    Refused(Error),
    /// The call was given up before it ended.
    GivenUp,
}

/// A record that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its place among all records, in the order in which they were taken.
    pub(crate) order: u32,
    pub(crate) partition: i32,
    pub(crate) at: Instant,
    pub(crate) told: Option<(Instant, Result<RecordMetadata, Error>)>,
}

/// Every call by its record's number.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) calls: BTreeMap<u32, Call>,
    taken: u32,
    begun: u32,
    faults_begun: usize,
}

impl Book {
    /// Counts one more call, and gives how many were begun before.
    pub(crate) fn begin(&mut self) -> u32 {
        self.begun += 1;
        self.begun - 1
    }

    /// How many calls were begun.
    pub(crate) fn begun(&self) -> u32 {
        self.begun
    }

    /// The place of the next fault in the plan, if `due` says that its turn has come.
    pub(crate) fn next_fault(&mut self, due: impl Fn(usize) -> bool) -> Option<usize> {
        let next = self.faults_begun;
        due(next).then(|| {
            self.faults_begun += 1;
            next
        })
    }

    /// Enters a record that was taken.
    pub(crate) fn take(&mut self, number: u32, partition: i32) {
        let taken = Taken {
            order: self.taken,
            partition,
            at: Instant::now(),
            told: None,
        };
        self.taken += 1;
        self.calls.insert(number, Call::Taken(taken));
    }

    /// Enters the outcome of a delivery.
    pub(crate) fn told(
        &mut self,
        number: u32,
        at: Instant,
        outcome: Result<RecordMetadata, Error>,
    ) {
        if let Some(Call::Taken(taken)) = self.calls.get_mut(&number) {
            taken.told = Some((at, outcome));
        }
    }

    /// The records that were taken, with their numbers.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u32, &Taken)> {
        self.calls.iter().filter_map(|(number, call)| match call {
            Call::Taken(taken) => Some((*number, taken)),
            _ => None,
        })
    }

    /// Whether every record of that caller has its outcome.
    pub(crate) fn all_told(&self, caller: u32) -> bool {
        let own = crate::callers::numbers_of(caller);
        self.taken()
            .filter(|(number, _)| own.contains(number))
            .all(|(_, taken)| taken.told.is_some())
    }
}
