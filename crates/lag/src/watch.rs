//! One watched group: from what a round found to its snapshot and its plan.

use crate::health::{Health, Observer};
use crate::history::{Growths, Tracks};
use crate::joint::{Joint, Part, key_offsets};
use crate::pattern::Wanted;
use crate::snapshot::{Committed, End, Offsets, Snapshot, TopicLag, TopicOffsets};
use crate::source::{Asked, Found, Origin, Standing};
use ottla_partitioner::Fallback;
use ottla_proto::{Code, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest time between two tries at a group that we may not see.
const DENIED_REST_MAX: Duration = Duration::from_secs(60);

/// What a group, or a topic, leads to that we may not see.
const DENIED: Health = Health {
    partitions: Vec::new(),
    choice: Err(Fallback::Denied),
};

/// A group that is watched, owned by the collector's task.
#[derive(Debug)]
pub(crate) struct Watch {
    wanted: Wanted,
    /// The topics that the patterns chose last, and those in which the group had committed.
    matching: Vec<Arc<str>>,
    committed: Vec<Arc<str>>,
    asked: Asked,
    refresh: Duration,
    plan: Joint,
    snapshot: watch::Sender<Arc<Snapshot>>,
    observers: BTreeMap<Arc<str>, (Option<TopicId>, Observer)>,
    tracks: Tracks,
    last: Option<Instant>,
    origin: Origin,
    denied: Option<Denied>,
    denied_topics: Vec<Arc<str>>,
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
            matching: Vec::new(),
            committed: Vec::new(),
            asked: Asked { group, topics },
            refresh,
            plan,
            snapshot,
            observers: BTreeMap::new(),
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
            self.matching = self.wanted.matching(names);
        }
        if let Some(committed) = committed {
            self.committed = committed;
        }
        let named = self.wanted.named().iter();
        let chosen = named.chain(&self.matching).chain(&self.committed);
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
        self.last = Some(found.taken_at);
        let snapshot = self.snapshot_of(found, growths);
        let denied = found.topics.iter().filter(|topic| is_denied(topic));
        let denied: Vec<Arc<str>> = denied.map(|topic| Arc::clone(&topic.topic)).collect();
        let mut parts = Vec::with_capacity(snapshot.topics.len());
        for topic in &snapshot.topics {
            let is_denied = found.standing == Standing::Denied || denied.contains(&topic.topic);
            parts.push(Part {
                group: Arc::clone(&self.asked.group),
                topic: Arc::clone(&topic.topic),
                id: topic.id,
                partition_count: topic.partitions.len(),
                health: match is_denied {
                    true => DENIED,
                    false => self.observe(topic, found.taken_at),
                },
                offsets: key_offsets(topic, found.taken_at, is_denied),
            });
        }
        self.plan.publish(found.taken_at, parts);
        self.observers
            .retain(|name, _| snapshot.topic(name).is_some());
        self.note_topics(denied);
        self.snapshot.send_replace(Arc::new(snapshot));
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

    fn observe(&mut self, topic: &TopicLag, taken_at: Instant) -> Health {
        let sent = self.plan.sent(&topic.topic);
        let observer = || match &self.plan.steered.scorer {
            None => Observer::new(self.refresh),
            Some(scorer) => Observer::new(self.refresh).with_scorer(Arc::clone(scorer)),
        };
        let fresh = || (topic.id, observer());
        let entry = self.observers.entry(Arc::clone(&topic.topic));
        let known = entry.or_insert_with(fresh);
        if known.0 != topic.id {
            // Nothing that was learnt of a topic holds for another one of the same name.
            *known = fresh();
        }
        known.1.observe_topic(taken_at, topic, sent)
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

/// Whether we may not see a topic, as metadata or as every one of its partitions says.
fn is_denied(topic: &TopicOffsets) -> bool {
    const DENIED: Option<Code> = Some(Code::TOPIC_AUTHORIZATION_FAILED);
    let refuses = |offsets: &Offsets| {
        offsets.committed == Committed::Unknown(DENIED) || offsets.end == End::Unknown(DENIED)
    };
    topic.refused == DENIED
        || (!topic.partitions.is_empty() && topic.partitions.iter().all(refuses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joint::Steered;
    use ottla_partitioner::{Method, PlanPublisher, PlanReader, plan_channel};

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixture {
        watch: Watch,
        plan: PlanReader,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        growths: Growths,
        start: Instant,
    }

    fn plan_of(publisher: PlanPublisher) -> Joint {
        let mut shares = Joint::shares(publisher, SECOND, &Steered::default(), 1);
        shares.remove(0)
    }

    fn fixture() -> Fixture {
        let group: Arc<str> = "billing".into();
        let wanted = Wanted::new(vec!["orders".into()], &[]).unwrap();
        let start = Instant::now();
        let (publisher, plan) = plan_channel();
        let empty = Snapshot::new(Arc::clone(&group), start, &[], None);
        let (sender, snapshots) = watch::channel(Arc::new(empty));
        Fixture {
            watch: Watch::new(group, wanted, SECOND, plan_of(publisher), sender),
            plan,
            snapshots,
            growths: Growths::default(),
            start,
        }
    }

    fn found(standing: Standing, id: u8, offsets: &[(Committed, i64)]) -> Found {
        let partitions = offsets.iter().map(|(committed, end)| Offsets {
            committed: *committed,
            end: End::At {
                high_watermark: *end,
                log_start: Some(0),
                last_stable: None,
            },
        });
        Found {
            group: "billing".into(),
            standing,
            taken_at: Instant::now(),
            origin: Origin::Asked,
            topics: vec![TopicOffsets {
                topic: "orders".into(),
                id: Some(TopicId([id; 16])),
                refused: None,
                partitions: partitions.collect(),
            }],
        }
    }

    impl Fixture {
        fn take(&mut self, seconds: u32, found: &Found) {
            let taken_at = self.start + seconds * SECOND;
            let found = Found {
                taken_at,
                ..found.clone()
            };
            self.growths.note(std::slice::from_ref(&found));
            self.watch.take(taken_at, &found, &self.growths);
        }

        fn method(&self) -> Method {
            self.plan.explain("orders").unwrap().method
        }
    }

    #[test]
    fn a_group_that_commits_is_steered_by_drain_time() {
        let mut fixture = fixture();
        for second in 0..6u32 {
            let offset = i64::from(second) * 100;
            let offsets = [(Committed::At(offset), offset + 10); 3];
            fixture.take(second, &found(Standing::Told, 1, &offsets));
        }
        assert_eq!(fixture.method(), Method::Drain);
        let snapshot = Arc::clone(&fixture.snapshots.borrow());
        assert_eq!(snapshot.lag(), Some(30));
        let explained = fixture.plan.explain("orders").unwrap();
        assert_eq!(explained.partitions.len(), 3);
        assert!(explained.partitions[0].rate.is_some());
    }

    #[test]
    fn a_topic_made_anew_is_learnt_anew() {
        let mut fixture = fixture();
        for second in 0..6u32 {
            let offset = i64::from(second) * 100;
            fixture.take(
                second,
                &found(Standing::Told, 1, &[(Committed::At(offset), offset)]),
            );
        }
        assert_eq!(fixture.method(), Method::Drain);
        fixture.take(6, &found(Standing::Told, 2, &[(Committed::At(0), 5)]));
        assert_eq!(fixture.method(), Method::Uniform(Fallback::NoRates));
    }

    #[test]
    fn a_group_that_refuses_us_is_placed_uniformly_and_asked_less_and_less() {
        let mut fixture = fixture();
        let offsets = [(
            Committed::Unknown(Some(Code::GROUP_AUTHORIZATION_FAILED)),
            10,
        )];
        let denied = found(Standing::Denied, 1, &offsets);
        fixture.take(0, &denied);
        assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
        let start = fixture.start;
        assert!(fixture.watch.question(start + SECOND).is_none());
        assert!(fixture.watch.question(start + 2 * SECOND).is_some());
        fixture.take(2, &denied);
        assert!(fixture.watch.question(start + 5 * SECOND).is_none());
        for round in 0..20 {
            fixture.take(100 * round, &denied);
        }
        assert!(
            fixture.watch.question(start + 1_961 * SECOND).is_some(),
            "a minute at most"
        );
        fixture.take(2_000, &found(Standing::Told, 1, &[(Committed::At(1), 10)]));
        assert!(fixture.watch.question(start + 2_000 * SECOND).is_some());
    }

    #[test]
    fn a_coordinator_that_is_away_is_no_refusal() {
        let mut fixture = fixture();
        let offsets = [(Committed::Unknown(None), 10)];
        fixture.take(0, &found(Standing::Unknown(None), 1, &offsets));
        assert!(fixture.watch.question(fixture.start).is_some());
        assert_eq!(fixture.method(), Method::Uniform(Fallback::NoRates));
    }

    #[test]
    fn a_topic_that_refuses_us_is_placed_uniformly() {
        let mut fixture = fixture();
        let denied = Committed::Unknown(Some(Code::TOPIC_AUTHORIZATION_FAILED));
        fixture.take(0, &found(Standing::Told, 1, &[(denied, 10)]));
        assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
        let mut refused = found(Standing::Told, 1, &[]);
        refused.topics[0].refused = Some(Code::TOPIC_AUTHORIZATION_FAILED);
        fixture.take(1, &refused);
        assert_eq!(fixture.method(), Method::Uniform(Fallback::Denied));
    }

    #[test]
    fn a_watch_is_wanted_while_a_producer_reads_its_plan() {
        let Fixture {
            watch,
            plan,
            snapshots,
            ..
        } = fixture();
        drop(snapshots);
        assert!(watch.is_wanted());
        drop(plan);
        assert!(!watch.is_wanted());
    }
}
