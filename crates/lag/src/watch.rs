//! One watched group: from what a round found to its snapshot and its plan.

use crate::collect::{Asked, Found, Standing};
use crate::health::Observer;
use crate::snapshot::{LagStatus, Snapshot, TopicLag};
use ottla_partitioner::{Fallback, PlanPublisher, TopicPlan};
use ottla_proto::{ClusterView, Code, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest time between two tries at a group that we may not see.
const DENIED_REST_MAX: Duration = Duration::from_secs(60);

/// A group that is watched, owned by the collector's task.
#[derive(Debug)]
pub(crate) struct Watch {
    asked: Asked,
    refresh: Duration,
    publisher: PlanPublisher,
    snapshot: watch::Sender<Arc<Snapshot>>,
    observers: BTreeMap<Arc<str>, (Option<TopicId>, Observer)>,
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
        asked: Asked,
        refresh: Duration,
        publisher: PlanPublisher,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        Self {
            asked,
            refresh,
            publisher,
            snapshot,
            observers: BTreeMap::new(),
            denied: None,
            denied_topics: Vec::new(),
        }
    }

    /// Whether anybody still looks at the snapshots or at the plan.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.snapshot.is_closed() || self.publisher.has_readers()
    }

    pub(crate) fn topics(&self) -> &[Arc<str>] {
        &self.asked.topics
    }

    /// What to ask this time; nothing while a group that refused us rests.
    pub(crate) fn question(&self, now: Instant) -> Option<Asked> {
        let rests = self.denied.is_some_and(|denied| now < denied.until);
        (!rests).then(|| self.asked.clone())
    }

    /// Takes in what a round that began at `taken_at` found.
    pub(crate) fn take(&mut self, taken_at: Instant, found: &Found, view: &ClusterView) {
        self.note_standing(taken_at, found.standing);
        let snapshot = {
            let previous = self.snapshot.borrow();
            let group = Arc::clone(&self.asked.group);
            Arc::new(Snapshot::new(
                group,
                taken_at,
                &found.topics,
                Some(&previous),
            ))
        };
        let plans = snapshot.topics.iter().map(|topic| {
            if found.standing == Standing::Denied || is_denied(topic, view) {
                let count = topic.partitions.len();
                let name = Arc::clone(&topic.topic);
                return TopicPlan::uniform(name, taken_at, self.refresh, count, Fallback::Denied);
            }
            let sent = self.publisher.sent(&topic.topic);
            let known = self
                .observers
                .get(&topic.topic)
                .is_some_and(|(id, _)| *id == topic.id);
            if !known {
                // Nothing that was learnt of a topic holds for another one of the same name.
                let fresh = (topic.id, Observer::new(self.refresh));
                self.observers.insert(Arc::clone(&topic.topic), fresh);
            }
            let uniform = || {
                let (name, count) = (Arc::clone(&topic.topic), topic.partitions.len());
                TopicPlan::uniform(name, taken_at, self.refresh, count, Fallback::NoRates)
            };
            let observer = self.observers.get_mut(&topic.topic);
            observer.map_or_else(uniform, |(_, observer)| {
                let health = observer.observe_topic(taken_at, topic, sent);
                health.into_plan(Arc::clone(&topic.topic), taken_at, self.refresh)
            })
        });
        let plans = plans.collect();
        self.publisher.publish(plans);
        self.note_topics(&snapshot, view);
        self.snapshot.send_replace(snapshot);
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

    fn note_topics(&mut self, snapshot: &Snapshot, view: &ClusterView) {
        let denied = snapshot
            .topics
            .iter()
            .filter(|topic| is_denied(topic, view));
        let denied: Vec<Arc<str>> = denied.map(|topic| Arc::clone(&topic.topic)).collect();
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
fn is_denied(topic: &TopicLag, view: &ClusterView) -> bool {
    const DENIED: Code = Code::TOPIC_AUTHORIZATION_FAILED;
    if view.refused.get(&topic.topic) == Some(&DENIED) {
        return true;
    }
    let denied = LagStatus::Unknown(Some(DENIED));
    !topic.partitions.is_empty() && topic.partitions.iter().all(|p| p.status == denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Committed, End, Offsets, TopicOffsets};
    use ottla_partitioner::{Method, PlanReader, plan_channel};

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixture {
        watch: Watch,
        plan: PlanReader,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        view: ClusterView,
        start: Instant,
    }

    fn fixture() -> Fixture {
        let asked = Asked {
            group: "billing".into(),
            topics: vec!["orders".into()],
        };
        let start = Instant::now();
        let (publisher, plan) = plan_channel();
        let empty = Snapshot::new(Arc::clone(&asked.group), start, &[], None);
        let (sender, snapshots) = watch::channel(Arc::new(empty));
        Fixture {
            watch: Watch::new(asked, SECOND, publisher, sender),
            plan,
            snapshots,
            view: ClusterView::default(),
            start,
        }
    }

    fn found(standing: Standing, id: u8, offsets: &[(Committed, i64)]) -> Found {
        let partitions = offsets.iter().map(|(committed, end)| Offsets {
            committed: *committed,
            end: End::At {
                high_watermark: *end,
                log_start: Some(0),
            },
        });
        Found {
            group: "billing".into(),
            standing,
            topics: vec![TopicOffsets {
                topic: "orders".into(),
                id: Some(TopicId([id; 16])),
                partitions: partitions.collect(),
            }],
        }
    }

    impl Fixture {
        fn take(&mut self, seconds: u32, found: &Found) {
            self.watch
                .take(self.start + seconds * SECOND, found, &self.view);
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
        let orders: Arc<str> = "orders".into();
        let code = Code::TOPIC_AUTHORIZATION_FAILED;
        fixture.view.refused.insert(orders, code);
        fixture.take(1, &found(Standing::Told, 1, &[]));
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
