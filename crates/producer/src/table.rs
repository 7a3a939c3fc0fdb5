//! Topics as callers find them: one atomic load, one hash.

use crate::pool::{Account, Reservation};
use crate::runs::Runs;
use crate::slot::Slot;
use foldhash::fast::FixedState;
use ottla_partitioner::{NoQueues, TopicView};
use ottla_proto::topic::TopicId;
use std::collections::HashMap;
use std::sync::Arc;

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
    pub(crate) fn view(&self) -> TopicView<'_> {
        TopicView {
            topic: &self.name,
            partition_count: i32::try_from(self.slots.len()).unwrap_or(i32::MAX),
            available: &self.available,
            queued: &NoQueues,
            batch_bytes: self.batch_bytes,
            stripe: 0,
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
        let mut add = |slot: &Arc<Slot>| {
            let account = slot.account();
            if !accounts.iter().any(|known| Arc::ptr_eq(known, &account)) {
                accounts.push(account);
            }
        };
        let offered = self.available.iter().filter_map(|&at| self.slot(at));
        match partition {
            Some(partition) => self.slot(partition).into_iter().for_each(add),
            None if self.available.is_empty() => self.slots.iter().for_each(add),
            None => offered.for_each(&mut add),
        }
        accounts
    }
}

/// Every topic that was produced to.
pub(crate) type Table = HashMap<Arc<str>, Arc<Topic>, FixedState>;
