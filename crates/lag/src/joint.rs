//! What the groups of one watch led to, joined into one plan.

use crate::health::{Health, HealthScorer};
use crate::snapshot::{LagStatus, PartitionLag, TopicLag};
use ottla_partitioner::{Committed, KeyOffsets, KeyPolicy, PlanPublisher, TopicPlan};
use ottla_proto::TopicId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a watch turns lag into a plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steered {
    /// By drain time unless there is a scorer.
    pub(crate) scorer: Option<Arc<dyn HealthScorer>>,
    pub(crate) keys: KeyPolicy,
}

/// One topic as one group has it.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) group: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) id: Option<TopicId>,
    /// When the figures were asked for that it rests on.
    pub(crate) taken_at: Instant,
    pub(crate) partition_count: usize,
    pub(crate) health: Health,
    pub(crate) offsets: Vec<KeyOffsets>,
}

impl Part {
    /// Its health, with the group's name at every figure.
    fn named(&self) -> Health {
        let mut health = self.health.clone();
        for partition in &mut health.partitions {
            partition.group = Some(Arc::clone(&self.group));
        }
        health
    }
}

#[derive(Debug)]
struct State {
    publisher: PlanPublisher,
    /// What was last heard of each group, by topic, ascending; nothing is published before all are
    /// heard of.
    groups: Vec<Option<Vec<Part>>>,
}

/// The plan of one watch. Each of its groups has a share in it.
#[derive(Debug, Clone)]
pub(crate) struct Joint {
    state: Arc<Mutex<State>>,
    /// Which of the groups this share is for.
    group: usize,
    pub(crate) steered: Steered,
    refresh: Duration,
}

impl Joint {
    /// One share for each of so many groups.
    pub(crate) fn shares(
        mut publisher: PlanPublisher,
        refresh: Duration,
        steered: &Steered,
        group_count: usize,
    ) -> Vec<Self> {
        publisher.set_key_policy(steered.keys);
        publisher.set_refresh(refresh);
        let state = Arc::new(Mutex::new(State {
            publisher,
            groups: (0..group_count).map(|_| None).collect(),
        }));
        let share = |group| Self {
            state: Arc::clone(&state),
            group,
            steered: steered.clone(),
            refresh,
        };
        (0..group_count).map(share).collect()
    }

    pub(crate) fn has_readers(&self) -> bool {
        self.state.lock().publisher.has_readers()
    }

    /// How many keyless records the readers of the plan sent to the topic.
    pub(crate) fn sent(&self, topic: &str) -> u64 {
        self.state.lock().publisher.sent(topic)
    }

    /// What the topic last led to for this group.
    pub(crate) fn last(&self, topic: &str) -> Option<Health> {
        let state = self.state.lock();
        let parts = state.groups.get(self.group)?.as_deref()?;
        Some(part_of(parts, topic)?.health.clone())
    }

    /// Takes in one group's topics, ascending by name, and publishes what all groups together lead to.
    pub(crate) fn publish(&self, parts: Vec<Part>) {
        let mut state = self.state.lock();
        if let Some(group) = state.groups.get_mut(self.group) {
            *group = Some(parts);
        }
        let heard: Option<Vec<&[Part]>> = state.groups.iter().map(Option::as_deref).collect();
        let Some(heard) = heard else {
            return;
        };
        let plans = self.plans(&heard);
        state.publisher.publish(plans);
    }

    fn plans(&self, heard: &[&[Part]]) -> Vec<TopicPlan> {
        let Some((first, others)) = heard.split_first() else {
            return Vec::new();
        };
        let plan = |part: &Part| {
            let mut parts = vec![part];
            for other in others {
                // What one group is not known to read is not steered.
                parts.push(part_of(other, &part.topic)?);
            }
            // As old as its oldest part. What was sent since then counts on top also where the group
            // that decides was heard later and its backlog holds some of that already: such a
            // partition looks further behind than it is. That is the cautious side: without what was
            // sent, all would run to where the silent group looked best when it was last heard.
            let taken_at = parts.iter().map(|part| part.taken_at).min()?;
            Some(joined(&parts, taken_at, self.refresh))
        };
        first.iter().filter_map(plan).collect()
    }
}

fn part_of<'a>(parts: &'a [Part], topic: &str) -> Option<&'a Part> {
    let at = parts.binary_search_by(|part| (*part.topic).cmp(topic));
    parts.get(at.ok()?)
}

fn joined(parts: &[&Part], taken_at: Instant, refresh: Duration) -> TopicPlan {
    let count = parts.iter().map(|part| part.partition_count).max();
    let health = match parts {
        [part] => part.health.clone(),
        parts => Health::of_groups(parts.iter().map(|part| part.named()).collect()),
    };
    let topic = parts.first().map(|part| Arc::clone(&part.topic));
    let topic = topic.unwrap_or_else(|| "".into());
    let plan = match health.choice {
        Err(reason) if health.partitions.is_empty() => {
            TopicPlan::uniform(topic, taken_at, refresh, count.unwrap_or(0), reason)
        }
        _ => health.into_plan(topic, taken_at, refresh),
    };
    let offsets = |at: usize| {
        let of_group = |part: &&Part| part.offsets.get(at).copied().unwrap_or_default();
        parts
            .iter()
            .map(of_group)
            .reduce(KeyOffsets::joined)
            .unwrap_or_default()
    };
    let id = parts.iter().find_map(|part| part.id);
    plan.with_topic_id(id.map(|id| id.0))
        .with_key_offsets((0..count.unwrap_or(0)).map(offsets).collect())
}

/// What moving keys rests on, of a topic that a group may see or may not. Ends count only when they
/// were asked for now: an older one may lie before records that this process's predecessor has
/// written.
pub(crate) fn key_offsets(topic: &TopicLag, taken_at: Instant, is_denied: bool) -> Vec<KeyOffsets> {
    let of = |partition: &PartitionLag| KeyOffsets {
        committed: match (partition.status, partition.committed) {
            (LagStatus::Known, Some(offset)) => Committed::At(offset),
            (LagStatus::NoCommit, _) => Committed::Nothing,
            // By a group that nobody may see no key was ever moved.
            _ if is_denied => Committed::Nothing,
            _ => Committed::Unknown,
        },
        end: partition.end.filter(|_| partition.taken_at >= taken_at),
    };
    topic.partitions.iter().map(of).collect()
}
