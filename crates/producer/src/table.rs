//! Topics as callers find them: one atomic load, and no look-up for the topic of the last record.

use crate::pool::{Account, Reservation};
use crate::runs::Runs;
use crate::slot::Slot;
use arc_swap::{ArcSwap, Guard};
use foldhash::fast::FixedState;
use ottla_partitioner::{Queues, TopicView, same_name};
use ottla_proto::topic::TopicId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What producing to a topic needs. Made anew when its metadata changes.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Option<TopicId>,
    pub(crate) slots: Vec<Arc<Slot>>,
    pub(crate) available: Vec<i32>,
    /// Kept when the topic's metadata changes.
    pub(crate) runs: Arc<Runs>,
    pub(crate) batch_bytes: u32,
}

impl Topic {
    #[inline]
    pub(crate) fn view(&self) -> TopicView<'_> {
        self.view_at(0)
    }

    /// As that stripe sees it.
    #[inline]
    pub(crate) fn view_at(&self, stripe: usize) -> TopicView<'_> {
        TopicView {
            topic: &self.name,
            partition_count: i32::try_from(self.slots.len()).unwrap_or(i32::MAX),
            available: &self.available,
            queued: self,
            batch_bytes: self.batch_bytes,
            stripe,
        }
    }

    pub(crate) fn slot(&self, partition: i32) -> Option<&Arc<Slot>> {
        usize::try_from(partition)
            .ok()
            .and_then(|partition| self.slots.get(partition))
    }

    /// The partitions that have a leader with room in the buffer, or as much as the caller has set
    /// aside.
    pub(crate) fn with_room(&self, reservation: Option<&Reservation>) -> Vec<i32> {
        let has_room = |slot: &Arc<Slot>| match reservation {
            Some(reservation) => reservation.serves(&slot.account()),
            None => !slot.account().is_full(),
        };
        let offered = self.available.iter().copied();
        offered
            .filter(|&at| self.slot(at).is_some_and(has_room))
            .collect()
    }

    /// The accounts that a record for this partition takes memory from; for any of those with a
    /// leader without one.
    pub(crate) fn accounts(&self, partition: Option<i32>) -> Vec<Arc<Account>> {
        let mut accounts: Vec<Arc<Account>> = Vec::new();
        self.each_account(partition, |account| {
            if !accounts.iter().any(|known| Arc::ptr_eq(known, &account)) {
                accounts.push(account);
            }
        });
        accounts
    }

    /// Whether [`accounts`](Self::accounts) still gives these.
    pub(crate) fn has_accounts(&self, partition: Option<i32>, accounts: &[Arc<Account>]) -> bool {
        let (mut found, mut same) = (0, true);
        self.each_account(partition, |account| {
            let place = accounts.iter().position(|one| Arc::ptr_eq(one, &account));
            // A new one is the next, or the list is another.
            same &= place.is_some_and(|place| place <= found);
            found += usize::from(place == Some(found));
        });
        same && found == accounts.len()
    }

    fn each_account(&self, partition: Option<i32>, mut look: impl FnMut(Arc<Account>)) {
        let look = |slot: &Arc<Slot>| look(slot.account());
        let offered = self.available.iter().filter_map(|&at| self.slot(at));
        match partition {
            Some(partition) => self.slot(partition).into_iter().for_each(look),
            None if self.available.is_empty() => self.slots.iter().for_each(look),
            None => offered.for_each(look),
        }
    }
}

impl Queues for Topic {
    fn waiting_bytes(&self, partition: i32) -> u64 {
        self.slot(partition).map_or(0, |slot| slot.waiting_bytes())
    }

    fn refused_for(&self, partition: i32, now: Instant) -> Duration {
        self.slot(partition)
            .map_or(Duration::ZERO, |slot| slot.account().refused_for(now))
    }
}

/// Every topic that was produced to.
pub(crate) type Table = HashMap<Arc<str>, Arc<Topic>, FixedState>;

/// The table that callers look their topics up in. Each thread keeps what it found last: to load a
/// shared pointer costs more than the rest of the look-up.
#[derive(Debug)]
pub(crate) struct Directory {
    table: ArcSwap<Table>,
    /// Changes with the table, and no two directories ever have the same.
    stamp: AtomicU64,
}

static NEXT_STAMP: AtomicU64 = AtomicU64::new(1);

/// What a thread found last. It stays until the thread looks up another one: a producer that has
/// ended leaves little behind, since its pool is empty then.
#[derive(Debug)]
struct Found {
    stamp: u64,
    table: Arc<Table>,
    topic: Arc<Topic>,
}

thread_local! {
    static FOUND: Cell<Option<Found>> = const { Cell::new(None) };
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            table: ArcSwap::default(),
            // A thread may find a first topic before its stamp: it must not take it for another
            // directory's.
            stamp: AtomicU64::new(NEXT_STAMP.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Directory {
    pub(crate) fn load(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Adds a topic, or puts it in the place of an older one.
    pub(crate) fn insert(&self, topic: &Arc<Topic>) {
        self.change(|table| {
            table.insert(Arc::clone(&topic.name), Arc::clone(topic));
        });
    }

    /// Forgets a topic.
    pub(crate) fn remove(&self, name: &str) {
        self.change(|table| {
            table.remove(name);
        });
    }

    fn change(&self, change: impl Fn(&mut Table)) {
        self.table.rcu(|table| {
            let mut table = (**table).clone();
            change(&mut table);
            table
        });
        let stamp = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
        // After the table: whoever sees the stamp finds that table or a newer one.
        self.stamp.store(stamp, Ordering::Release);
    }

    /// Works with a topic, `None` if it is not known.
    #[inline]
    pub(crate) fn with<R>(&self, name: &str, work: impl FnOnce(Option<&Arc<Topic>>) -> R) -> R {
        let stamp = self.stamp.load(Ordering::Acquire);
        // Taken out and not borrowed: the work calls the user's partitioner, which may produce too.
        let found = FOUND.try_with(Cell::take).ok().flatten();
        let found = match found {
            Some(found) if found.stamp == stamp && same_name(&found.topic.name, name) => {
                Some(found)
            }
            found => self.find(name, stamp, found),
        };
        let result = work(found.as_ref().map(|found| &found.topic));
        if found.is_some() {
            // Without effect while the thread ends.
            let _ = FOUND.try_with(|cell| cell.set(found));
        }
        result
    }

    #[inline(never)]
    fn find(&self, name: &str, stamp: u64, found: Option<Found>) -> Option<Found> {
        let table = match found {
            Some(found) if found.stamp == stamp => found.table,
            _ => self.table.load_full(),
        };
        let topic = Arc::clone(table.get(name)?);
        Some(Found {
            stamp,
            table,
            topic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, batch_bytes: u32) -> Arc<Topic> {
        Arc::new(Topic {
            name: name.into(),
            id: None,
            slots: Vec::new(),
            available: Vec::new(),
            runs: Arc::default(),
            batch_bytes,
        })
    }

    fn look(directory: &Directory, name: &str) -> Option<u32> {
        directory.with(name, |topic| topic.map(|topic| topic.batch_bytes))
    }

    #[test]
    fn a_thread_sees_each_change_and_each_directory_for_itself() {
        let (one, other) = (Directory::default(), Directory::default());
        let stamp = |directory: &Directory| directory.stamp.load(Ordering::Relaxed);
        assert_ne!(stamp(&one), stamp(&other));
        assert_eq!(look(&one, "orders"), None);
        one.insert(&topic("orders", 1));
        assert_eq!(look(&one, "orders"), Some(1));
        assert_eq!(look(&one, "other"), None);
        assert_eq!(look(&other, "orders"), None);
        one.insert(&topic("other", 2));
        other.insert(&topic("orders", 3));
        let seen = [
            look(&one, "orders"),
            look(&one, "other"),
            look(&other, "orders"),
            look(&other, "other"),
            look(&one, "orders"),
        ];
        assert_eq!(seen, [Some(1), Some(2), Some(3), None, Some(1)]);
        one.insert(&topic("orders", 4));
        assert_eq!(look(&one, "orders"), Some(4));
        one.remove("orders");
        assert_eq!(look(&one, "orders"), None);
    }

    #[test]
    fn the_work_may_look_up_another_topic() {
        let directory = Directory::default();
        directory.insert(&topic("outer", 1));
        directory.insert(&topic("inner", 2));
        let both = directory.with("outer", |outer| {
            (
                look(&directory, "inner"),
                outer.map(|outer| outer.batch_bytes),
            )
        });
        assert_eq!(both, (Some(2), Some(1)));
    }

    #[test]
    fn whoever_waits_sees_that_a_leader_has_changed() {
        use ottla_proto::BrokerId;
        use ottla_proto::producer::PartitionIndex;
        let pool = crate::pool::Pool::new(1 << 20);
        let lead = |slot: &Slot, broker| slot.set_leader(Some(BrokerId(broker)));
        let slot = |partition: i32| {
            let index = PartitionIndex(partition.unsigned_abs());
            let slot = Slot::new(index, "orders".into(), partition, 100, &pool);
            lead(&slot, partition % 2);
            Arc::new(slot)
        };
        let topic = Topic {
            name: "orders".into(),
            id: None,
            slots: (0..4).map(slot).collect(),
            available: (0..4).collect(),
            runs: Arc::default(),
            batch_bytes: 1,
        };
        let (any, third) = (topic.accounts(None), topic.accounts(Some(2)));
        assert_eq!((any.len(), third.len()), (2, 1));
        let same = || {
            (
                topic.has_accounts(None, &any),
                topic.has_accounts(Some(2), &third),
            )
        };
        assert_eq!(same(), (true, true));
        assert!(!topic.has_accounts(None, &third) && !topic.has_accounts(Some(2), &any));
        lead(&topic.slots[2], 1);
        assert_eq!(same(), (true, false));
        lead(&topic.slots[0], 1);
        assert_eq!(
            same(),
            (false, false),
            "nobody is led by the first any more"
        );
        lead(&topic.slots[0], 0);
        lead(&topic.slots[3], 5);
        assert_eq!(same(), (false, false), "a third leader");
    }
}
