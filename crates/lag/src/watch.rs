//! One watched group: from what a round found to its snapshot and its plan.

use crate::health::{Health, Observed, Observer};
use crate::history::{Growths, Tracks};
use crate::joint::{Joint, Part, key_offsets};
use crate::pattern::Wanted;
use crate::snapshot::{CARRIED_MAX, Committed, End, Offsets, Snapshot, TopicLag, TopicOffsets};
use crate::source::{Asked, Found, Origin, Standing};
use ottla_partitioner::Fallback;
use ottla_proto::{Code, TopicId};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest time between two tries at a group that we may not see.
const DENIED_REST_MAX: Duration = Duration::from_secs(60);

/// How many listings in a row must miss a topic before it is let go: one answer can come from a broker
/// that is behind, and letting go forgets all that was learnt.
const LISTINGS_MISSED_MAX: u32 = 3;

/// Of figures that are older than this many refreshes, and than [`CARRIED_MAX`], nothing is believed;
/// as a plan has it.
const TOO_OLD_REFRESHES: u32 = 4;

/// What a group, or a topic, leads to that we may not see.
const DENIED: Health = Health {
    partitions: Vec::new(),
    choice: Err(Fallback::Denied),
};

/// A group that is watched, owned by the collector's task.
#[derive(Debug)]
pub(crate) struct Watch {
    wanted: Wanted,
    /// The topics that the patterns chose, and those in which the group has committed.
    matching: Listed,
    committed: Listed,
    asked: Asked,
    refresh: Duration,
    plan: Joint,
    snapshot: watch::Sender<Arc<Snapshot>>,
    learnt: BTreeMap<Arc<str>, Learnt>,
    tracks: Tracks,
    last: Option<Instant>,
    origin: Origin,
    denied: Option<Denied>,
    /// Ascending.
    denied_topics: Vec<Arc<str>>,
}

/// What was learnt of a topic, which holds for that id only.
#[derive(Debug)]
struct Learnt {
    id: Option<TopicId>,
    observer: Observer,
    /// The last look that told anything of any of its partitions.
    heard_at: Option<Instant>,
}

/// Topics that were listed, and how many listings in a row have missed each since.
#[derive(Debug, Default)]
struct Listed(BTreeMap<Arc<str>, u32>);

impl Listed {
    /// Takes in a listing. `denied`, ascending, are topics that may not be seen: they are not listed
    /// either, which says nothing of their being gone.
    fn renew(&mut self, names: Vec<Arc<str>>, denied: &[Arc<str>]) {
        for (name, missed) in &mut self.0 {
            *missed += u32::from(denied.binary_search(name).is_err());
        }
        self.0.extend(names.into_iter().map(|name| (name, 0)));
        self.0.retain(|_, missed| *missed < LISTINGS_MISSED_MAX);
    }
}

/// How often in a row we were refused, and until when we do not ask.
#[derive(Debug, Clone, Copy)]
struct Denied {
    times: u32,
    until: Instant,
}

impl Watch {
    pub(crate) fn new(
        group: Arc<str>,
        wanted: Wanted,
        refresh: Duration,
        plan: Joint,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        let topics = wanted.named().to_vec();
        Self {
            wanted,
            matching: Listed::default(),
            committed: Listed::default(),
            asked: Asked { group, topics },
            refresh,
            plan,
            snapshot,
            learnt: BTreeMap::new(),
            tracks: Tracks::default(),
            last: None,
            origin: Origin::Asked,
            denied: None,
            denied_topics: Vec::new(),
        }
    }

    /// Whether anybody still looks at the snapshots or at the plan.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.snapshot.is_closed() || self.plan.has_readers()
    }

    pub(crate) fn topics(&self) -> &[Arc<str>] {
        &self.asked.topics
    }

    /// Whether its topics have to be chosen among all there are.
    pub(crate) fn has_patterns(&self) -> bool {
        self.wanted.has_patterns()
    }

    /// Whether its topics have to be looked up among the group's commits.
    pub(crate) fn wants_committed(&self) -> bool {
        self.wanted.wants_committed()
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.asked.group
    }

    /// Chooses its topics anew; gives those that are new and those that are gone. `names` are all
    /// topics there are and `committed` those in which the group has committed; what could not be
    /// had stays as it was. What is wanted by name is wanted before it exists.
    pub(crate) fn choose(
        &mut self,
        names: Option<&[Arc<str>]>,
        committed: Option<Vec<Arc<str>>>,
    ) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        if let Some(names) = names {
            let matching = self.wanted.matching(names);
            self.matching.renew(matching, &self.denied_topics);
        }
        if let Some(committed) = committed {
            self.committed.renew(committed, &self.denied_topics);
        }
        let named = self.wanted.named().iter();
        let chosen = named.chain(self.matching.0.keys());
        let chosen = chosen.chain(self.committed.0.keys());
        let mut chosen: Vec<Arc<str>> = chosen.cloned().collect();
        chosen.sort();
        chosen.dedup();
        let without = |all: &[Arc<str>], those: &[Arc<str>]| -> Vec<Arc<str>> {
            let rest = all.iter().filter(|name| those.binary_search(name).is_err());
            rest.cloned().collect()
        };
        let new = without(&chosen, &self.asked.topics);
        let gone = without(&self.asked.topics, &chosen);
        self.asked.topics = chosen;
        (new, gone)
    }

    /// What to ask this time; nothing while a group that refused us rests.
    pub(crate) fn question(&self, now: Instant) -> Option<Asked> {
        let rests = self.denied.is_some_and(|denied| now < denied.until);
        (!rests).then(|| self.asked.clone())
    }

    /// Takes in what a round that began at `now` found.
    pub(crate) fn take(&mut self, now: Instant, found: &Found, growths: &Growths) {
        self.note_standing(now, found.standing);
        self.note_origin(found.origin);
        if self.last.is_some_and(|last| found.taken_at <= last) {
            return;
        }
        let found = &*self.with_silent_topics(found);
        let snapshot = self.snapshot_of(found, growths);
        let denied = found.topics.iter().filter(|topic| is_denied(topic));
        let denied: Vec<Arc<str>> = denied.map(|topic| Arc::clone(&topic.topic)).collect();
        let mut parts = Vec::with_capacity(snapshot.topics.len());
        // A plan that nothing has been heard since stays, and ages: published again it would forget
        // what was sent meanwhile.
        let mut is_news = snapshot.topics.is_empty();
        // A look that heard nothing is no reason to refuse figures that were on their way meanwhile.
        let mut is_heard = is_news;
        for topic in &snapshot.topics {
            let is_denied = found.standing == Standing::Denied || denied.contains(&topic.topic);
            let (taken_at, health) = if is_denied {
                if let Some(learnt) = self.learnt.get_mut(&topic.topic) {
                    learnt.heard_at = Some(found.taken_at);
                }
                (found.taken_at, DENIED)
            } else {
                self.hear(topic, found.taken_at)
            };
            let is_too_old = health.choice == Err(Fallback::TooOld);
            is_heard |= taken_at == found.taken_at;
            is_news |= taken_at == found.taken_at || is_too_old;
            parts.push(Part {
                group: Arc::clone(&self.asked.group),
                topic: Arc::clone(&topic.topic),
                id: topic.id,
                taken_at,
                partition_count: topic.partitions.len(),
                health,
                offsets: key_offsets(topic, found.taken_at, is_denied),
            });
        }
        if is_heard {
            self.last = Some(found.taken_at);
        }
        if is_news {
            self.plan.publish(parts);
        }
        self.learnt.retain(|name, _| snapshot.topic(name).is_some());
        self.note_topics(denied);
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// What was found, with the partitions that were there last of topics that a source which could
    /// not ask knows nothing of. Without them they would count as gone, and all that was learnt too.
    fn with_silent_topics<'a>(&self, found: &'a Found) -> Cow<'a, Found> {
        let Standing::Unknown(code) = found.standing else {
            return Cow::Borrowed(found);
        };
        let is_silent =
            |topic: &TopicOffsets| topic.partitions.is_empty() && topic.refused.is_none();
        if !found.topics.iter().any(is_silent) {
            return Cow::Borrowed(found);
        }
        let unknown = Offsets {
            committed: Committed::Unknown(code),
            end: End::Unknown(code),
        };
        let last = self.snapshot.borrow();
        let mut found = found.clone();
        for topic in found.topics.iter_mut().filter(|topic| is_silent(topic)) {
            if let Some(last) = last.topic(&topic.topic) {
                topic.id = last.id;
                topic.partitions = vec![unknown; last.partitions.len()];
            }
        }
        Cow::Owned(found)
    }

    fn snapshot_of(&mut self, found: &Found, growths: &Growths) -> Snapshot {
        let taken_at = found.taken_at;
        let mut snapshot = {
            let previous = self.snapshot.borrow();
            let group = Arc::clone(&self.asked.group);
            Snapshot::new(group, taken_at, &found.topics, Some(&previous))
        };
        snapshot.origin = found.origin;
        snapshot.standing = found.standing;
        for topic in &mut snapshot.topics {
            self.tracks.fill(topic, taken_at, self.refresh, growths);
        }
        self.tracks.keep(&snapshot.topics);
        snapshot
    }

    /// What a topic leads to, and as of when. A look that tells nothing of any of its partitions is
    /// as good as none: what the one before it led to stays, as old as it is, and counts for nothing
    /// when it is too old.
    fn hear(&mut self, topic: &TopicLag, taken_at: Instant) -> (Instant, Health) {
        let sent = self.plan.sent(&topic.topic);
        let steered = &self.plan.steered;
        let observer = || match &steered.scorer {
            None => Observer::new(self.refresh),
            Some(scorer) => Observer::new(self.refresh).with_scorer(Arc::clone(scorer)),
        };
        let fresh = || Learnt {
            id: topic.id,
            observer: observer(),
            heard_at: None,
        };
        let entry = self.learnt.entry(Arc::clone(&topic.topic));
        let learnt = entry.or_insert_with(fresh);
        if learnt.id != topic.id {
            // Nothing that was learnt of a topic holds for another one of the same name.
            *learnt = fresh();
        }
        let tells = |partition| Observed::of(partition, taken_at) != Observed::Missing;
        if topic.partitions.iter().any(tells) {
            learnt.heard_at = Some(taken_at);
            return (
                taken_at,
                learnt.observer.observe_topic(taken_at, topic, sent),
            );
        }
        let last = learnt.heard_at.zip(self.plan.last(&topic.topic));
        let Some((heard_at, last)) = last else {
            // Of silence nothing is learnt, but why nothing is known.
            return (taken_at, observer().observe_topic(taken_at, topic, sent));
        };
        let too_old = CARRIED_MAX.max(self.refresh.saturating_mul(TOO_OLD_REFRESHES));
        if taken_at.saturating_duration_since(heard_at) > too_old {
            return (heard_at, last.too_old());
        }
        (heard_at, last)
    }

    /// Says once when the store that a fleet shares fails us, and once when it serves again.
    fn note_origin(&mut self, origin: Origin) {
        let was = std::mem::replace(&mut self.origin, origin);
        let group = &self.asked.group;
        match (was, origin) {
            (Origin::Degraded(_), Origin::Degraded(_)) => {}
            (_, Origin::Degraded(trouble)) => tracing::warn!(
                %group,
                trouble = trouble.name(),
                "the shared store of lag figures fails: the brokers are asked instead"
            ),
            (Origin::Degraded(_), _) => {
                tracing::info!(%group, "the shared store of lag figures serves again");
            }
            _ => {}
        }
    }

    /// Says once when a group refuses us and once when it does no longer, and lengthens the rest.
    fn note_standing(&mut self, now: Instant, standing: Standing) {
        let group = &self.asked.group;
        match (standing, self.denied) {
            (Standing::Denied, denied) => {
                let times = denied.map_or(0, |denied| denied.times);
                if times == 0 {
                    tracing::warn!(
                        %group,
                        "no permission to see the group's offsets (DESCRIBE on the group): \
                         records are placed without steering"
                    );
                }
                let rest = self.refresh.saturating_mul(2 << times.min(10));
                self.denied = Some(Denied {
                    times: times.saturating_add(1),
                    until: now + rest.min(DENIED_REST_MAX.max(self.refresh)),
                });
            }
            (Standing::Told, Some(_)) => {
                tracing::info!(%group, "the group's offsets can be seen again");
                self.denied = None;
            }
            _ => {}
        }
    }

    fn note_topics(&mut self, denied: Vec<Arc<str>>) {
        for topic in denied
            .iter()
            .filter(|topic| !self.denied_topics.contains(topic))
        {
            tracing::warn!(
                group = %self.asked.group,
                %topic,
                "no permission to see the topic (DESCRIBE): its records are placed without steering"
            );
        }
        self.denied_topics = denied;
    }
}

/// Whether we may not see a topic.
fn is_denied(topic: &TopicOffsets) -> bool {
    topic.refusal() == Some(Code::TOPIC_AUTHORIZATION_FAILED)
}

#[cfg(test)]
mod tests;
