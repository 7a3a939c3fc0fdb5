//! Follows metadata: topics that are produced to, their partitions and leaders.

use super::{Driver, Place};
use crate::slot::Slot;
use crate::table::Topic;
use ottla_proto::{ClusterView, TopicPartition, cluster};
use std::sync::Arc;
use std::time::Instant;

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
        let mut slots = known
            .as_ref()
            .map_or(Vec::new(), |topic| topic.slots.clone());
        for number in slots.len()..topic.partitions.len() {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            slots.push(self.add_partition(&topic.name, number));
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
        self.shared.table.rcu(|table| {
            let mut table = (**table).clone();
            table.insert(Arc::clone(&entry.name), Arc::clone(&entry));
            table
        });
    }

    fn add_partition(&mut self, topic: &Arc<str>, number: i32) -> Arc<Slot> {
        let name = TopicPartition::new(Arc::clone(topic), number);
        let known = self
            .places
            .iter()
            .find(|place| place.slot.partition() == number && place.slot.topic() == topic);
        if let Some(place) = known {
            return Arc::clone(&place.slot);
        }
        let index = self.core.add_partition(name);
        let limit = self.shared.config.batch_bytes;
        let pool = &self.shared.shop.pool;
        let slot = Arc::new(Slot::new(index, Arc::clone(topic), number, limit, pool));
        self.places.push(Place {
            slot: Arc::clone(&slot),
            open: None,
            batch_bytes_max: usize::MAX,
        });
        slot
    }
}
