//! What an answer changes in what we know. Pure.
//!
//! Brokers learn of changes at different times, so an answer may be older than what we know: leader
//! epochs and partition counts never go backwards within one topic id, and a topic is gone only when
//! several answers in a row say so. This is the one place that judges so: who reads the view believes
//! it.

use crate::api::metadata::{Response, TopicAnswer};
use ottla_proto::cluster::{Broker, Partition, Topic};
use ottla_proto::producer::LeaderHint;
use ottla_proto::{BrokerId, ClusterView, Code, TopicId, TopicPartition};
use std::collections::HashMap;
use std::sync::Arc;

/// So many answers in a row must say that a known topic is unknown before we believe it.
const UNKNOWN_BELIEVED_AFTER: u32 = 3;
/// So many answers in a row must show an older leader epoch of a partition before we believe it,
/// where ours may be wrong: a topic without an id that was made anew begins at epoch 0, and a hint may
/// have lied.
const REWIND_BELIEVED_AFTER: u32 = 5;

/// What answers said that we do not believe yet.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    unknown: HashMap<Arc<str>, u32>,
    rewinds: HashMap<TopicPartition, u32>,
}

impl Doubts {
    /// Whether something is in doubt, so that asking again soon makes sense.
    pub(super) fn any(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether to believe what an answer says of a partition.
    fn believe(
        &mut self,
        topic: &Topic,
        index: usize,
        known: &Partition,
        told: &Partition,
    ) -> bool {
        let place = || {
            let number = i32::try_from(index).unwrap_or(i32::MAX);
            TopicPartition::new(Arc::clone(&topic.name), number)
        };
        if !is_older(told, known) {
            if !self.rewinds.is_empty() {
                self.rewinds.remove(&place());
            }
            return true;
        }
        if topic.id.is_some() && !known.hinted {
            return false;
        }
        let place = place();
        let seen = self.rewinds.entry(place.clone()).or_default();
        *seen += 1;
        let believed = *seen >= REWIND_BELIEVED_AFTER;
        if believed {
            self.rewinds.remove(&place);
        }
        believed
    }

    fn forget_rewinds(&mut self, topic: &str) {
        self.rewinds.retain(|place, _| *place.topic != *topic);
    }
}

/// The view after an answer, under the old generation. Topics that are no longer wanted leave it.
pub(super) fn merge(
    old: &ClusterView,
    answer: &Response,
    wanted: impl Fn(&str) -> bool,
    doubts: &mut Doubts,
) -> ClusterView {
    let mut view = ClusterView {
        generation: old.generation,
        cluster_id: answer.cluster_id.clone().or_else(|| old.cluster_id.clone()),
        controller: answer.controller,
        brokers: answer
            .brokers
            .iter()
            .map(|broker| (broker.id, broker.clone()))
            .collect(),
        topics: HashMap::new(),
        refused: HashMap::new(),
    };
    if view.brokers.is_empty() {
        view.brokers.clone_from(&old.brokers);
    }
    let kept = old.topics.iter().filter(|(name, _)| wanted(name));
    view.topics
        .extend(kept.map(|(name, topic)| (Arc::clone(name), Arc::clone(topic))));
    let kept = old.refused.iter().filter(|(name, _)| wanted(name));
    view.refused
        .extend(kept.map(|(name, code)| (Arc::clone(name), *code)));
    doubts.unknown.retain(|name, _| wanted(name));
    doubts.rewinds.retain(|place, _| wanted(&place.topic));
    for topic in answer.topics.iter().filter(|topic| wanted(&topic.name)) {
        match topic.code {
            None => take(&mut view, topic, doubts),
            Some(code) => refuse(&mut view, topic, code, doubts),
        }
    }
    keep_leaders(&mut view, old);
    view
}

/// A leader that an answer named (KIP-951) may be a broker that metadata does not show yet: it stays
/// in reach for as long as it leads.
fn keep_leaders(view: &mut ClusterView, old: &ClusterView) {
    let topics = view.topics.values();
    let leaders = topics.flat_map(|topic| topic.partitions.iter().filter_map(|p| p.leader));
    let missing: Vec<BrokerId> = leaders
        .filter(|leader| !view.brokers.contains_key(leader))
        .collect();
    for id in missing {
        if let Some(broker) = old.brokers.get(&id) {
            view.brokers.insert(id, broker.clone());
        }
    }
}

/// Whether two views differ in more than their generation.
pub(super) fn differ(one: &ClusterView, other: &ClusterView) -> bool {
    one.cluster_id != other.cluster_id
        || one.controller != other.controller
        || one.brokers != other.brokers
        || one.topics != other.topics
        || one.refused != other.refused
}

fn take(view: &mut ClusterView, answer: &TopicAnswer, doubts: &mut Doubts) {
    doubts.unknown.remove(&answer.name);
    view.refused.remove(&answer.name);
    let known = view
        .topics
        .get(&answer.name)
        .filter(|known| known.id == answer.id);
    let topic = match known {
        Some(known) => merge_topic(known, answer, doubts),
        None => {
            doubts.forget_rewinds(&answer.name);
            Topic::new(
                Arc::clone(&answer.name),
                answer.id,
                answer.internal,
                answer.partitions.clone(),
            )
        }
    };
    if view
        .topics
        .get(&answer.name)
        .is_none_or(|known| **known != topic)
    {
        view.topics
            .insert(Arc::clone(&answer.name), Arc::new(topic));
    }
}

/// Merges two states of the same topic.
fn merge_topic(known: &Topic, answer: &TopicAnswer, doubts: &mut Doubts) -> Topic {
    // Without ids a smaller count may be a topic made anew; with the same id it is old news.
    let count = match known.id {
        Some(_) => known.partitions.len().max(answer.partitions.len()),
        None => answer.partitions.len(),
    };
    let merged =
        (0..count).map(
            |index| match (known.partitions.get(index), answer.partitions.get(index)) {
                (Some(ours), Some(told)) if is_left_out(told) => ours.clone(),
                (Some(ours), Some(told)) if !doubts.believe(known, index, ours, told) => {
                    ours.clone()
                }
                (_, Some(told)) => told.clone(),
                (Some(ours), None) => ours.clone(),
                (None, None) => Partition::default(),
            },
        );
    Topic::new(
        Arc::clone(&known.name),
        known.id,
        answer.internal,
        merged.collect(),
    )
}

fn is_older(told: &Partition, known: &Partition) -> bool {
    matches!((told.leader_epoch, known.leader_epoch), (Some(told), Some(known)) if told < known)
}

/// A number that the answer skipped.
fn is_left_out(told: &Partition) -> bool {
    *told == Partition::default()
}

fn refuse(view: &mut ClusterView, answer: &TopicAnswer, code: Code, doubts: &mut Doubts) {
    if view.topics.contains_key(&answer.name) {
        let unknown = code == Code::UNKNOWN_TOPIC_OR_PARTITION || code == Code::UNKNOWN_TOPIC_ID;
        if code.is_retriable() && !unknown {
            return;
        }
        if unknown {
            let seen = doubts.unknown.entry(Arc::clone(&answer.name)).or_default();
            *seen += 1;
            if *seen < UNKNOWN_BELIEVED_AFTER {
                return;
            }
        }
    }
    doubts.unknown.remove(&answer.name);
    doubts.forget_rewinds(&answer.name);
    view.topics.remove(&answer.name);
    view.refused.insert(Arc::clone(&answer.name), code);
}

/// The view with another leader, if that is news.
pub(super) fn apply_leader(
    view: &ClusterView,
    place: &TopicPartition,
    topic_id: Option<TopicId>,
    hint: LeaderHint,
) -> Option<ClusterView> {
    let topic = view.topic(&place.topic)?;
    if topic_id.is_some_and(|id| topic.id.is_some_and(|known| known != id)) {
        return None;
    }
    let index = usize::try_from(place.partition).ok()?;
    let known = topic.partitions.get(index)?;
    if known
        .leader_epoch
        .is_some_and(|epoch| epoch >= hint.leader_epoch)
    {
        return None;
    }
    let mut partitions = topic.partitions.clone();
    let partition = partitions.get_mut(index)?;
    partition.leader = Some(hint.leader);
    partition.leader_epoch = Some(hint.leader_epoch);
    partition.error = None;
    partition.hinted = true;
    let topic = Topic::new(
        Arc::clone(&topic.name),
        topic.id,
        topic.internal,
        partitions,
    );
    let mut view = view.clone();
    view.topics
        .insert(Arc::clone(&place.topic), Arc::new(topic));
    Some(view)
}

/// The view with more brokers, or other addresses, if that is news.
pub(super) fn learn(view: &ClusterView, brokers: &[Broker]) -> Option<ClusterView> {
    let news = |told: &&Broker| {
        view.brokers
            .get(&told.id)
            .is_none_or(|known| (&known.host, known.port) != (&told.host, told.port))
    };
    let mut news = brokers.iter().filter(news).peekable();
    news.peek()?;
    let mut view = view.clone();
    view.brokers
        .extend(news.map(|broker| (broker.id, broker.clone())));
    Some(view)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
