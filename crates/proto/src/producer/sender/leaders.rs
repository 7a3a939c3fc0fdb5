//! Who leads which partition, and which connections stand.

use super::Sender;
use crate::error::{Error, ErrorKind};
use crate::producer::partition::{Admission, Partition};
use crate::producer::types::{Event, Lane, PartitionIndex};
use crate::topic::{BrokerId, TopicId};
use std::time::Instant;

impl<T> Sender<T> {
    /// Says who leads a partition now, and which topic it is of. It is believed, whatever its epoch:
    /// old news must be kept back by whoever makes the views.
    pub fn set_leader(
        &mut self,
        now: Instant,
        index: PartitionIndex,
        leader: Option<BrokerId>,
        leader_epoch: Option<i32>,
        topic_id: Option<TopicId>,
    ) {
        let Some(partition) = self.at(index) else {
            return;
        };
        let remade =
            topic_id.is_some() && partition.topic_id.is_some() && topic_id != partition.topic_id;
        partition.topic_id = topic_id.or(partition.topic_id);
        if remade {
            let error = made_anew(partition);
            let admitted = partition.admission == Admission::Granted;
            partition.remade();
            if partition.in_flight.is_empty() {
                self.settle(index);
            }
            if admitted {
                self.break_transaction(&error);
            }
        }
        let Some(partition) = self.at(index) else {
            return;
        };
        partition.leader_epoch = leader_epoch.or(partition.leader_epoch);
        if partition.leader != leader {
            if leader.is_some() {
                partition.blocked_until = None;
            }
            let old = std::mem::replace(&mut partition.leader, leader);
            self.unlist(index, old);
            if let Some(partition) = self.at(index) {
                partition.lane = Lane::Main;
            }
        }
        self.list(now, index);
        self.retime(index);
    }

    /// Takes the partition out of the list it stands in. Left there, it could stand twice in the list
    /// of a broker that leads it again: two batches of one partition in a request.
    pub(super) fn unlist(&mut self, index: PartitionIndex, leader: Option<BrokerId>) {
        let Some(partition) = self.at(index) else {
            return;
        };
        let lane = partition.lane;
        let listed = std::mem::take(&mut partition.listed);
        if let Some(leader) = leader.filter(|_| listed)
            && let Some(broker) = self.brokers.get_mut(&leader)
        {
            broker.lane_mut(lane).ready.retain(|&other| other != index);
        }
    }

    /// Says whether requests can be sent to a broker.
    pub fn set_connected(&mut self, broker: BrokerId, lane: Lane, connected: bool) {
        let state = self.brokers.entry(broker).or_default().lane_mut(lane);
        state.connected = connected;
        state.asked = false;
        if !connected && !state.ready.is_empty() {
            self.want(broker, lane);
        }
    }

    pub(super) fn want(&mut self, broker: BrokerId, lane: Lane) {
        let state = self.brokers.entry(broker).or_default().lane_mut(lane);
        if !state.connected && !state.asked {
            state.asked = true;
            self.events.push_back(Event::Connect(broker, lane));
        }
    }
}

/// Why a transaction cannot go on: the new log does not know the epoch's earlier sequences.
pub(super) fn made_anew<T>(partition: &Partition<T>) -> Error {
    let message = "the topic was deleted and made anew";
    Error::new(ErrorKind::UnknownTopicOrPartition, message).at_partition(partition.name.clone())
}
