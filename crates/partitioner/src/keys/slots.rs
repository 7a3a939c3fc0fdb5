//! Ordered migration: keys in slots, each slot in one of two partitions, and what this process has
//! written under each slot and does not know to be processed.

use super::{Committed, Fence, Outlook};
use crate::TopicView;
use crate::hashes::murmur2;
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// No place was chosen yet.
const UNPLACED: i32 = -1;

/// How long a broker may take to carry out what a producer that has ended sent it last, counted from
/// an answer that the broker gave after that end: by then it is not standing still. Kafka's default of
/// `delivery.timeout.ms`, which no broker in order comes near.
const GONE_REST: Duration = Duration::from_secs(120);

/// How many doubts a slot keeps before it gathers those of producers that have ended.
pub(super) const DOUBTS_MAX: usize = 8;

/// All keys whose hashes fall into one slot.
#[derive(Debug)]
struct Slot {
    place: i32,
    /// Records of this place that were handed out and have not ended.
    in_flight: u32,
    /// Every record known to lie in this place has an offset of at most this.
    last: i64,
    /// How many records were handed out.
    serial: u64,
    /// What may lie in this place, nobody knows where: one of each producer at most, and beyond
    /// [`DOUBTS_MAX`] one of all that have ended. So those that live bound how many there are.
    doubts: Vec<Doubt>,
}

/// Some record that was handed out up to this serial may lie in the slot's place.
#[derive(Debug)]
struct Doubt {
    serial: u64,
    writer: Writer,
    gone: Option<Gone>,
}

/// Who has written a record.
#[derive(Debug, Clone)]
enum Writer {
    /// Somebody before the start: whatever is written later lies behind it.
    Earlier,
    /// This producer. A later record of its own lies behind it, since a partition keeps a producer's
    /// order, and not that of several.
    One(Weak<()>),
    /// Several producers, all of which have ended.
    Gathered,
}

/// What is known of a producer's end.
#[derive(Debug, Clone, Copy)]
struct Gone {
    /// It had ended by then.
    noticed: Instant,
    /// The first look after that at which the partition's leader answered.
    answered: Option<Instant>,
}

/// Who asks for a place, and how old the figures are that it is chosen by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) writer: &'a Arc<()>,
    pub(crate) moving: Moving,
    pub(crate) now: Instant,
    pub(crate) taken_at: Instant,
}

impl Writer {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Earlier, Self::Earlier) | (Self::Gathered, Self::Gathered) => true,
            (Self::One(this), Self::One(other)) => this.ptr_eq(other),
            _ => false,
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Earlier => false,
            Self::One(writer) => writer.strong_count() == 0,
            Self::Gathered => true,
        }
    }
}

impl Doubt {
    /// Whether everything it stands for lies below the end of its partition that a look found.
    fn is_below(&mut self, asking: Asking<'_>) -> bool {
        if !self.writer.is_gone() {
            return false;
        }
        let gone = self.gone.get_or_insert(Gone {
            noticed: asking.now,
            answered: None,
        });
        if asking.taken_at < gone.noticed {
            return false;
        }
        let answered = *gone.answered.get_or_insert(asking.taken_at);
        asking.taken_at.saturating_duration_since(answered) >= GONE_REST
    }
}

impl Slot {
    /// Whether everything that was ever written to this place is processed.
    fn is_read(&self, committed: Committed) -> bool {
        let beyond = matches!(committed, Committed::At(offset) if offset > self.last);
        self.in_flight == 0 && self.doubts.is_empty() && beyond
    }

    fn enter(&mut self, place: i32, fence: Option<i64>) {
        self.place = place;
        // What lies there from before the start counts as our own.
        self.last = fence.map_or(-1, |end| end - 1);
        self.doubts.clear();
        if fence.is_none() {
            self.doubt(Writer::Earlier);
        }
    }

    fn doubt(&mut self, writer: Writer) {
        self.doubts.retain(|doubt| !doubt.writer.is(&writer));
        if self.doubts.len() >= DOUBTS_MAX {
            self.gather();
        }
        self.add_doubt(writer);
    }

    fn add_doubt(&mut self, writer: Writer) {
        self.doubts.push(Doubt {
            serial: self.serial,
            writer,
            gone: None,
        });
    }

    /// Makes one doubt of those of all producers that have ended. It waits anew for an answer of the
    /// leader: some of them may have ended just now.
    #[cold]
    fn gather(&mut self) {
        let gone = |doubt: &&Doubt| doubt.writer.is_gone();
        if self.doubts.iter().filter(gone).count() > 1 {
            self.doubts.retain(|doubt| !doubt.writer.is_gone());
            self.add_doubt(Writer::Gathered);
        }
    }

    /// What producers left in doubt that have ended is there or never will be, when their partition's
    /// leader has answered for long enough since: then it lies below the partition's end.
    #[cold]
    fn end_doubts(&mut self, asking: Asking<'_>, outlook: &Outlook) {
        let Some(end) = outlook.end(self.place) else {
            return;
        };
        let count = self.doubts.len();
        self.doubts.retain_mut(|doubt| !doubt.is_below(asking));
        if self.doubts.len() < count {
            self.last = self.last.max(end - 1);
        }
    }
}

/// The slots of a topic.
pub(crate) struct Slots {
    slots: Box<[Mutex<Slot>]>,
    partition_count: u32,
    away: AtomicUsize,
    moves: AtomicU64,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("slots", &self.slots.len())
            .field("away", &self.away)
            .field("moves", &self.moves)
            .finish_non_exhaustive()
    }
}

/// Whether keys may change their place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moving {
    Allowed,
    /// Steering is switched off: where keys are, they stay.
    Stopped,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It lies at this offset.
    At(i64),
    /// It may lie somewhere.
    Perhaps,
    /// It was not written and never will be.
    No,
}

/// A keyed record on its way, as the migrating policy counts it. Its key does not move before the
/// ticket is back.
///
/// Dropped, it counts as not written; after [`sent`](Self::sent) as perhaps written.
pub struct KeyTicket {
    slots: Arc<Slots>,
    slot: usize,
    serial: u64,
    writer: Weak<()>,
    partition: i32,
    outcome: Written,
}

impl fmt::Debug for KeyTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTicket")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl KeyTicket {
    /// The partition that the record goes to.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The record is in a batch: from now on it may be written.
    pub fn sent(&mut self) {
        self.outcome = Written::Perhaps;
    }

    /// Tells what became of the record.
    pub fn settle(mut self, outcome: Written) {
        self.outcome = outcome;
    }
}

impl Drop for KeyTicket {
    fn drop(&mut self) {
        self.slots.settle(self);
    }
}

impl Slots {
    /// At least one slot a partition; a whole number for each.
    pub(crate) fn new(partition_count: usize, count: usize) -> Self {
        let each = (count.min(super::KEYS_MAX) / partition_count.max(1)).max(1);
        let slot = |_| {
            Mutex::new(Slot {
                place: UNPLACED,
                in_flight: 0,
                last: -1,
                serial: 0,
                doubts: Vec::new(),
            })
        };
        Self {
            slots: (0..each * partition_count).map(slot).collect(),
            partition_count: u32::try_from(partition_count).unwrap_or(u32::MAX),
            away: AtomicUsize::new(0),
            moves: AtomicU64::new(0),
        }
    }

    pub(crate) fn away_count(&self) -> usize {
        self.away.load(Ordering::Relaxed)
    }

    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// The slot of a key, and its two partitions. The first is the one that the Java client would
    /// choose.
    pub(super) fn find(&self, key: &[u8]) -> (usize, i32, i32) {
        let hash = murmur2(key) & 0x7fff_ffff;
        let slot = hash as usize % self.slots.len().max(1);
        let count = self.partition_count.max(1);
        // The number of slots is a multiple of the number of partitions.
        let home = slot as u32 % count;
        let mixed = (slot as u32).wrapping_mul(0x9e37_79b9) >> 8;
        let distance = match count {
            1 => 0,
            _ => 1 + mixed % (count - 1),
        };
        let place = |at: u32| i32::try_from(at).unwrap_or(0);
        (slot, place(home), place((home + distance) % count))
    }

    /// Places a record of this key and counts it as on its way; `None` when that cannot be said yet.
    pub(crate) fn place(
        self: &Arc<Self>,
        view: &TopicView<'_>,
        outlook: &Outlook,
        fence: &Fence,
        key: &[u8],
        asking: Asking<'_>,
    ) -> Option<Box<KeyTicket>> {
        let (at, home, alternative) = self.find(key);
        let mut slot = self.slots.get(at)?.lock();
        if !slot.doubts.is_empty() {
            slot.end_doubts(asking, outlook);
        }
        if slot.place == UNPLACED {
            let first = first_place(home, alternative, outlook, fence)?;
            slot.enter(first, fence.end(first));
            self.away
                .fetch_add(usize::from(first != home), Ordering::Relaxed);
        } else if asking.moving == Moving::Allowed
            && let Some(other) = better(&slot, home, alternative, outlook)
            && view.available.binary_search(&other).is_ok()
        {
            slot.enter(other, fence.end(other));
            self.moves.fetch_add(1, Ordering::Relaxed);
            match other == home {
                true => self.away.fetch_sub(1, Ordering::Relaxed),
                false => self.away.fetch_add(1, Ordering::Relaxed),
            };
        }
        slot.in_flight += 1;
        slot.serial += 1;
        Some(Box::new(KeyTicket {
            slots: Arc::clone(self),
            slot: at,
            serial: slot.serial,
            writer: Arc::downgrade(asking.writer),
            partition: slot.place,
            outcome: Written::No,
        }))
    }

    fn settle(&self, ticket: &KeyTicket) {
        let Some(slot) = self.slots.get(ticket.slot) else {
            return;
        };
        let mut slot = slot.lock();
        slot.in_flight = slot.in_flight.saturating_sub(1);
        match ticket.outcome {
            Written::No => {}
            Written::Perhaps => slot.doubt(Writer::One(Weak::clone(&ticket.writer))),
            Written::At(offset) => {
                slot.last = slot.last.max(offset);
                let is_behind = |doubt: &Doubt| {
                    let is_ended = match &doubt.writer {
                        Writer::Earlier => true,
                        Writer::One(writer) => writer.ptr_eq(&ticket.writer),
                        Writer::Gathered => false,
                    };
                    is_ended && ticket.serial > doubt.serial
                };
                slot.doubts.retain(|doubt| !is_behind(doubt));
            }
        }
    }
}

/// Where a slot begins of which nothing is known: a place such that whatever was written before to
/// the other one is processed.
fn first_place(home: i32, alternative: i32, outlook: &Outlook, fence: &Fence) -> Option<i32> {
    let committed = outlook.committed(alternative);
    // No key is ever sent away to where one of the groups has never committed: such a group needs
    // nothing of what lies there. The figures must be from after we began to write, unless they are
    // of a group that refuses us and is seldom asked.
    let is_current = fence.end(alternative).is_some() || outlook.is_denied;
    let is_clear = match committed {
        Committed::Nothing => is_current,
        Committed::Partly(offset) => fence.end(alternative).is_some_and(|end| offset >= end),
        _ => outlook.has_read(alternative, fence),
    };
    if home == alternative || is_clear {
        Some(home)
    } else if outlook.has_read(home, fence) && matches!(committed, Committed::At(_)) {
        Some(alternative)
    } else {
        None
    }
}

/// The place to which a slot should move, if it may leave its own.
fn better(slot: &Slot, home: i32, alternative: i32, outlook: &Outlook) -> Option<i32> {
    let other = if slot.place == home {
        alternative
    } else {
        home
    };
    let is_wanted = outlook.favours(slot.place, other) || (other == home && outlook.welcomes(home));
    let may = other != slot.place && is_wanted && slot.is_read(outlook.committed(slot.place));
    may.then_some(other)
}

impl Outlook {
    /// Whether every group has processed what was there when we began.
    fn has_read(&self, partition: i32, fence: &Fence) -> bool {
        match (self.committed(partition), fence.end(partition)) {
            (_, Some(0)) => true,
            (Committed::At(offset), Some(end)) => offset >= end,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_that_come_and_go_leave_no_more_doubts_than_those_that_live() {
        let mut slot = Slot {
            place: 0,
            in_flight: 0,
            last: -1,
            serial: 0,
            doubts: Vec::new(),
        };
        let mut live = Vec::new();
        for living in 0..20 {
            for _ in 0..100 {
                slot.doubt(Writer::One(Arc::downgrade(&Arc::new(()))));
                assert!(slot.doubts.len() <= DOUBTS_MAX.max(living + 2));
            }
            live.push(Arc::new(()));
            slot.doubt(Writer::One(Arc::downgrade(&live[living])));
        }
    }
}
