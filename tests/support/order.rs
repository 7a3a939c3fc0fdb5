//! Whether a consumer group processes the records of each key in the order in which they were sent.

use std::fmt::Display;

/// A record that a group processes now.
#[derive(Debug, Clone, Copy)]
pub struct Processed {
    /// Its key, by number.
    pub key: usize,
    /// Its number among the records of its key, in the order in which they were sent.
    pub number: u32,
    /// The partition that it lies in.
    pub place: usize,
    /// Between which changes of the topic it was sent: nothing is promised across one.
    pub life: u32,
    /// Whether the group has processed it before.
    pub again: Again,
}

/// Why a record is processed once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is not.
    No,
    /// Its consumer was started anew and reads on from its last commit: what it repeats is in order
    /// unless a later record of the key was processed elsewhere.
    Restarted,
    /// Somebody set the group back: nothing is promised of what it had committed.
    Rewound,
}

/// The latest record of a key that was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    life: u32,
    number: u32,
    place: usize,
}

/// Watches one group.
#[derive(Debug)]
pub struct OrderChecker {
    seen: Vec<Option<Seen>>,
    /// Records that were processed after a later one of their key.
    pub violations: u64,
    /// The first of them, in words.
    pub overtaken: Option<String>,
}

impl OrderChecker {
    /// For so many keys.
    pub fn new(keys: usize) -> Self {
        Self {
            seen: vec![None; keys],
            violations: 0,
            overtaken: None,
        }
    }

    /// Takes in the next record that is processed, and when that is.
    pub fn process(&mut self, record: Processed, at: impl Display) {
        let Some(seen) = self.seen.get_mut(record.key) else {
            return;
        };
        let is_late = |seen: Seen| {
            let is_before = record.life == seen.life && record.number < seen.number;
            let may_be = match record.again {
                Again::No => false,
                Again::Restarted => seen.place == record.place,
                Again::Rewound => true,
            };
            is_before && !may_be
        };
        if seen.is_some_and(is_late) {
            self.violations += 1;
            let words = || format!("{record:?} after {seen:?} at {at}");
            self.overtaken.get_or_insert_with(words);
        }
        *seen = (*seen).max(Some(Seen {
            life: record.life,
            number: record.number,
            place: record.place,
        }));
    }
}
