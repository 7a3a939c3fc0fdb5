//! Follows metadata: topics that are produced to, their partitions and leaders.

use super::{Driver, Open, Place};
use crate::slot::{Slot, later};
use crate::table::Topic;
use ottla_proto::producer::PartitionIndex;
use ottla_proto::{ClusterView, TopicPartition, cluster};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A topic that is produced to.
#[derive(Debug)]
pub(super) struct Known {
    /// Every partition that it ever had.
    slots: Vec<Arc<Slot>>,
    last_used: Instant,
    /// Its slots take no records; it is forgotten as soon as what they took has ended.
    retired: bool,
}

impl Driver {
    /// Takes up a topic that is produced to for the first time.
    pub(super) fn add_topic(&mut self, now: Instant, name: &Arc<str>) {
        let view = self.shared.cluster.view();
        if let Some(topic) = view.topic(name) {
            self.refresh_topic(now, topic);
        }
    }

    /// Takes in a newer view of the cluster.
    pub(super) fn follow_view(&mut self, now: Instant) {
        let view = self.shared.cluster.view();
        if view.generation == self.view_generation {
            return;
        }
        self.view_generation = view.generation;
        let names: Vec<_> = {
            let table = self.shared.table.load();
            let mut names: Vec<_> = table.keys().cloned().collect();
            // A map's order differs from run to run; a replayed seed must not.
            names.sort_unstable();
            names
        };
        for name in names {
            match view.topic(&name) {
                Some(topic) => self.refresh_topic(now, topic),
                None => self.topic_gone(now, &view, &name),
            }
        }
    }

    /// A topic that the brokers do not know (any more): its batches wait for its return, within
    /// their delivery timeout.
    fn topic_gone(&mut self, now: Instant, view: &ClusterView, name: &Arc<str>) {
        if !view.refused.contains_key(name) {
            return;
        }
        let Some(topic) = self.shared.table.load().get(name).cloned() else {
            return;
        };
        for slot in &topic.slots {
            slot.set_leader(None);
            self.core.set_leader(now, slot.index(), None, None, None);
        }
    }

    fn refresh_topic(&mut self, now: Instant, topic: &cluster::Topic) {
        let known = self.shared.table.load().get(&topic.name).cloned();
        let mut slots = self.slots_of(now, topic);
        for slot in slots.iter().skip(topic.partitions.len()) {
            slot.set_leader(None);
            self.core.set_leader(now, slot.index(), None, None, None);
        }
        for (slot, partition) in slots.iter().zip(&topic.partitions) {
            slot.set_leader(partition.leader);
            self.core.set_leader(
                now,
                slot.index(),
                partition.leader,
                partition.leader_epoch,
                topic.id,
            );
        }
        // A topic made anew may have fewer partitions: the others are not written to.
        slots.truncate(topic.partitions.len());
        let same = known.as_ref().is_some_and(|known| {
            known.slots.len() == slots.len()
                && known.available == topic.available
                && known.id == topic.id
        });
        if same {
            return;
        }
        let runs = known.map_or_else(Arc::default, |known| {
            known.runs.end(&*self.shared.partitioner, &known.view());
            Arc::clone(&known.runs)
        });
        let entry = Arc::new(Topic {
            name: Arc::clone(&topic.name),
            id: topic.id,
            slots,
            available: topic.available.clone(),
            runs,
            batch_bytes: u32::try_from(self.shared.config.batch_bytes).unwrap_or(u32::MAX),
        });
        self.shared.table.insert(&entry);
    }

    /// The slots of every partition that the topic has or had.
    fn slots_of(&mut self, now: Instant, topic: &cluster::Topic) -> Vec<Arc<Slot>> {
        let Some(known) = self.topics.get_mut(&topic.name) else {
            let name = Arc::clone(&topic.name);
            self.shared.cluster.watch_topics([Arc::clone(&name)]);
            let slots = self.more_slots(Vec::new(), topic);
            let known = Known {
                slots: slots.clone(),
                last_used: now,
                retired: false,
            };
            self.topics.insert(name, known);
            return slots;
        };
        if std::mem::take(&mut known.retired) {
            known.last_used = now;
            known.slots.iter().for_each(|slot| slot.reopen());
        }
        let slots = known.slots.clone();
        let slots = self.more_slots(slots, topic);
        if let Some(known) = self.topics.get_mut(&topic.name) {
            known.slots.clone_from(&slots);
        }
        slots
    }

    fn more_slots(&mut self, mut slots: Vec<Arc<Slot>>, topic: &cluster::Topic) -> Vec<Arc<Slot>> {
        for number in slots.len()..topic.partitions.len() {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            slots.push(self.add_partition(&topic.name, number));
        }
        slots
    }

    fn add_partition(&mut self, topic: &Arc<str>, number: i32) -> Arc<Slot> {
        let name = TopicPartition::new(Arc::clone(topic), number);
        let index = self.core.add_partition(name);
        let limit = self.shared.config.batch_bytes;
        let pool = &self.shared.shop.pool;
        let slot = Arc::new(Slot::new(index, Arc::clone(topic), number, limit, pool));
        let place = Place {
            slot: Arc::clone(&slot),
            open: None,
            narrow: None,
            buried: None,
        };
        match self.places.get_mut(index.0 as usize) {
            Some(vacant) => *vacant = place,
            None => self.places.push(place),
        }
        slot
    }

    /// A partition began a batch.
    pub(super) fn opened(&mut self, at: Instant, partition: PartitionIndex, serial: u64) {
        let Some(place) = self.places.get_mut(partition.0 as usize) else {
            return;
        };
        place.open = Some(Open {
            serial,
            deadline: later(at, self.shared.config.delivery_timeout),
            overdue: false,
        });
        if let Some(known) = self.topics.get_mut(place.slot.topic()) {
            known.last_used = known.last_used.max(at);
        }
    }

    /// Forgets topics that were not produced to for `metadata.max.idle.ms`. First their slots take
    /// no more records; a sweep later what they still said is heard, and their places are free.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        let idle = self.shared.config.metadata_max_idle;
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = later(now, (idle / 2).max(Duration::from_secs(1)));
        let old = |known: &Known| now.saturating_duration_since(known.last_used) >= idle;
        let names: Vec<_> = self
            .topics
            .iter()
            .filter(|(_, known)| old(known))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in names {
            if self.topics.get(&name).is_some_and(|known| known.retired) {
                self.forget(&name);
            } else {
                self.retire(&name);
            }
        }
    }

    fn retire(&mut self, name: &Arc<str>) {
        // Batches that still wait must hear of new leaders, however long nothing new is written.
        let done = |slot: &Arc<Slot>| {
            let index = slot.index();
            let idle = self.core.is_idle(index) || self.core.needs_epoch(index);
            idle && !self.resting.has(index)
        };
        let waits = |known: &Known| !known.slots.iter().all(done);
        if self.topics.get(name).is_none_or(waits) {
            return;
        }
        let Some(known) = self.topics.get_mut(name) else {
            return;
        };
        if !known.slots.iter().all(|slot| slot.retire()) {
            // A batch is open after all.
            known.slots.iter().for_each(|slot| slot.reopen());
            return;
        }
        known.retired = true;
        self.shared.table.remove(name);
    }

    fn forget(&mut self, name: &Arc<str>) {
        let idle =
            |slot: &Arc<Slot>| self.core.is_idle(slot.index()) && !self.resting.has(slot.index());
        let Some(known) = self.topics.get(name) else {
            return;
        };
        if !known.slots.iter().all(idle) {
            let needs = |slot: &Arc<Slot>| self.core.needs_epoch(slot.index());
            if let Some(desk) = &mut self.desk
                && known.slots.iter().any(needs)
            {
                desk.renew_epoch();
            }
            return;
        }
        for slot in &known.slots {
            self.core.forget(slot.index());
        }
        self.topics.remove(name);
        self.shared.cluster.unwatch_topic(name);
    }
}
