//! What groups committed, from their coordinators.

use super::verdict::{GroupVerdict, of_group};
use super::{ASKED_AT_ONCE_MAX, ATTEMPTS, RETRY_AFTER, Resting, Role, patience_min};
use crate::brokers::Brokers;
use crate::snapshot::Committed;
use crate::source::{Asked, Pace, Standing};
use futures_util::StreamExt;
use futures_util::stream;
use ottla_proto::{BrokerId, ClusterView, Code, Error, ErrorKind};
use ottla_wire::api::offset_fetch::{self, GroupRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How many groups and partitions one OffsetFetch asks about, so that its answer stays of a moderate
/// size. What is beyond goes into further requests, which do not wait for each other.
const GROUPS_A_REQUEST_MAX: usize = 100;
const PARTITIONS_A_REQUEST_MAX: usize = 50_000;

impl Standing {
    /// Why a coordinator could not be asked.
    fn of_error(error: &Error) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::Closed, _) => Self::Closed,
            (_, Some(code)) if of_group(code) == GroupVerdict::Denied => Self::Denied,
            (_, code) => Self::Unknown(code),
        }
    }
}

impl Committed {
    /// What a coordinator answered for one partition.
    pub(crate) fn of(answer: &offset_fetch::PartitionAnswer) -> Self {
        match (answer.code, answer.committed) {
            (Code::NONE, Some(offset)) => Self::At(offset),
            (Code::NONE, None) => Self::Nothing,
            (code, _) => Self::Unknown(Some(code)),
        }
    }
}

/// A group's committed offsets by topic and partition.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) standing: Standing,
    /// The coordinator that answered.
    pub(super) home: Option<BrokerId>,
    told: BTreeMap<Arc<str>, Vec<Option<Committed>>>,
}

impl Default for Commits {
    fn default() -> Self {
        Self::without(Standing::Unknown(None))
    }
}

impl Commits {
    fn without(standing: Standing) -> Self {
        Self {
            standing,
            home: None,
            told: BTreeMap::new(),
        }
    }

    /// What a coordinator answered; what is not in the view was not asked, and is not listened to.
    fn told(view: &ClusterView, home: BrokerId, answer: offset_fetch::GroupAnswer) -> Self {
        let mut told: BTreeMap<Arc<str>, Vec<Option<Committed>>> = BTreeMap::new();
        for (topic, answers) in answer.topics {
            let count = view.topic(&topic).map_or(0, |topic| topic.partitions.len());
            let known = told.entry(topic).or_insert_with(|| vec![None; count]);
            for answer in answers {
                let at = usize::try_from(answer.partition).ok();
                if let Some(slot) = at.and_then(|at| known.get_mut(at)) {
                    *slot = Some(Committed::of(&answer));
                }
            }
        }
        Self {
            standing: Standing::Told,
            home: Some(home),
            told,
        }
    }

    /// The same without what was told: a share group's commits mean nothing.
    pub(super) fn hidden(self) -> Self {
        Self {
            told: BTreeMap::new(),
            ..self
        }
    }

    /// What was told of a topic, by partition.
    pub(super) fn topic(&self, topic: &str) -> &[Option<Committed>] {
        self.told.get(topic).map_or(&[], Vec::as_slice)
    }

    /// What the group committed in the partition `at`, as `told` of its topic.
    pub(super) fn of(&self, told: &[Option<Committed>], at: usize) -> Committed {
        match (self.standing, told.get(at).copied().flatten()) {
            (Standing::Closed, _) => Committed::Unknown(None),
            (_, Some(committed)) => committed,
            (Standing::Share, None) => Committed::Unknown(None),
            // A coordinator that leaves out what it was asked knows nothing of it.
            (Standing::Told, None) => Committed::Nothing,
            (Standing::Denied, None) => Committed::Unknown(Some(Code::GROUP_AUTHORIZATION_FAILED)),
            (Standing::Unknown(code), None) => Committed::Unknown(code),
        }
    }

    /// Whether the coordinator answered that nothing is committed at all.
    pub(super) fn says_nothing(&self) -> bool {
        let mut told = self.told.values().flatten().flatten();
        self.standing == Standing::Told && told.all(|told| *told == Committed::Nothing)
    }
}

/// What is asked of a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What groups have committed.
    Commits,
    /// Where share groups read on.
    Shares,
}

impl Question {
    /// Puts the question. A broker too old for share groups' offsets says so for each group: no
    /// other coordinator would know more.
    pub(super) async fn ask<B: Brokers>(
        self,
        brokers: &B,
        broker: BrokerId,
        request: offset_fetch::Request,
    ) -> Result<offset_fetch::Response, Error> {
        if self == Self::Commits {
            return brokers.offset_fetch(broker, request).await;
        }
        let groups: Vec<_> = request
            .groups
            .iter()
            .map(|g| Arc::clone(&g.group))
            .collect();
        match brokers.share_offsets(broker, request).await {
            Err(error) if matches!(error.kind(), ErrorKind::UnsupportedVersion) => {
                let refused = groups.into_iter().map(|group| offset_fetch::GroupAnswer {
                    group,
                    code: Code::UNSUPPORTED_VERSION,
                    topics: Vec::new(),
                });
                Ok(offset_fetch::Response {
                    groups: refused.collect(),
                    ..offset_fetch::Response::default()
                })
            }
            answer => answer,
        }
    }
}

fn group_request(view: &ClusterView, asked: &Asked) -> GroupRequest {
    let topics = asked.topics.iter().filter_map(|name| {
        let count = i32::try_from(view.topic(name)?.partitions.len()).ok()?;
        Some((Arc::clone(name), (0..count).collect()))
    });
    GroupRequest {
        group: Arc::clone(&asked.group),
        topics: Some(topics.collect()),
    }
}

pub(super) async fn commits<B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    question: Question,
    asked: &[Asked],
    pace: Pace,
    resting: &mut Resting,
) -> BTreeMap<Arc<str>, Commits> {
    let mut known = BTreeMap::new();
    let mut waiting: Vec<&Asked> = asked.iter().collect();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep_until(pace.deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        // A group whose coordinator cannot be found must leave the leaders time to answer.
        let found_by = Instant::now() + patience_min(pace);
        let homes = coordinators(brokers, view, &waiting, found_by, &mut known).await;
        // Pushed one by one: a closure that returns a future would lose the lifetimes' generality.
        let (now, mut calls) = (Instant::now(), Vec::new());
        for (broker, groups) in homes {
            if resting.rests(Role::Coordinator, broker) {
                // It may have another one by now.
                for asked in groups {
                    brokers.forget_coordinator(&asked.group, broker);
                    known.insert(Arc::clone(&asked.group), Commits::default());
                }
                continue;
            }
            let patience = resting.patience(Role::Coordinator, broker, pace, now);
            calls.push(ask_coordinator(
                brokers, view, question, broker, groups, patience,
            ));
        }
        let answers: Vec<_> = stream::iter(calls)
            .buffer_unordered(ASKED_AT_ONCE_MAX)
            .collect()
            .await;
        waiting.clear();
        for (broker, groups, answer) in answers {
            match &answer {
                Some((_, took)) => resting.answered(Role::Coordinator, broker, *took),
                None => {
                    resting.failed(Role::Coordinator, broker, Instant::now(), pace.refresh);
                }
            }
            let mut answered = answer.map_or_else(Vec::new, |(response, _)| response.groups);
            for asked in groups {
                let at = answered.iter().position(|group| group.group == asked.group);
                let answer = at.map(|at| answered.swap_remove(at));
                let (commits, again) = judge_group(brokers, view, broker, answer, &asked.group);
                known.insert(Arc::clone(&asked.group), commits);
                if again {
                    waiting.push(asked);
                }
            }
        }
        if waiting.is_empty() || Instant::now() >= pace.deadline {
            break;
        }
    }
    known
}

type CoordinatorAnswer<'a> = (
    BrokerId,
    Vec<&'a Asked>,
    Option<(offset_fetch::Response, Duration)>,
);

/// One coordinator's answer about some of its groups and the time it took; `None` if it does not come
/// in time.
async fn ask_coordinator<'a, B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    question: Question,
    broker: BrokerId,
    groups: Vec<&'a Asked>,
    patience: Duration,
) -> CoordinatorAnswer<'a> {
    let asked_at = Instant::now();
    let mut request = offset_fetch::Request::default();
    for asked in &groups {
        request.groups.push(group_request(view, asked));
    }
    let answer = match timeout(patience, question.ask(brokers, broker, request)).await {
        Ok(Ok(response)) => Some((response, asked_at.elapsed())),
        Ok(Err(error)) => {
            tracing::debug!(%broker, %error, "committed offsets could not be fetched");
            None
        }
        Err(_) => None,
    };
    (broker, groups, answer)
}

/// What one group's answer says for now, and whether to ask again. `None`: the coordinator did not
/// answer.
fn judge_group<B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    broker: BrokerId,
    answer: Option<offset_fetch::GroupAnswer>,
    group: &str,
) -> (Commits, bool) {
    let Some(answer) = answer else {
        brokers.forget_coordinator(group, broker);
        return (Commits::default(), true);
    };
    let unknown = Commits::without(Standing::Unknown(Some(answer.code)));
    match of_group(answer.code) {
        GroupVerdict::Use => (Commits::told(view, broker, answer), false),
        GroupVerdict::Nothing => {
            let nothing = Commits {
                home: Some(broker),
                ..Commits::without(Standing::Told)
            };
            (nothing, false)
        }
        GroupVerdict::Denied => (Commits::without(Standing::Denied), false),
        GroupVerdict::Elsewhere => {
            brokers.forget_coordinator(group, broker);
            (unknown, true)
        }
        GroupVerdict::Later => (unknown, true),
        GroupVerdict::Refused => (unknown, false),
    }
}

async fn coordinator<'a, B: Brokers>(
    brokers: &B,
    asked: &'a Asked,
    deadline: Instant,
) -> (Result<BrokerId, Standing>, &'a Asked) {
    let found = timeout_at(deadline, brokers.coordinator(&asked.group, deadline)).await;
    let found = match found {
        Ok(found) => found.map_err(|error| {
            let group = &asked.group;
            tracing::debug!(%group, %error, "the group's coordinator could not be found");
            Standing::of_error(&error)
        }),
        Err(_) => Err(Standing::Unknown(None)),
    };
    (found, asked)
}

/// The groups by coordinator, in portions for one request each. Groups whose coordinator cannot be
/// found are left out; why stands in `known`.
pub(super) async fn coordinators<'a, B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    groups: &[&'a Asked],
    deadline: Instant,
    known: &mut BTreeMap<Arc<str>, Commits>,
) -> Vec<(BrokerId, Vec<&'a Asked>)> {
    let mut lookups = Vec::new();
    for asked in groups {
        lookups.push(coordinator(brokers, asked, deadline));
    }
    let homes: Vec<_> = stream::iter(lookups)
        .buffered(ASKED_AT_ONCE_MAX)
        .collect()
        .await;
    let mut by_broker: BTreeMap<BrokerId, Vec<&Asked>> = BTreeMap::new();
    for (found, asked) in homes {
        match found {
            Ok(broker) => by_broker.entry(broker).or_default().push(asked),
            Err(standing) => {
                known.insert(Arc::clone(&asked.group), Commits::without(standing));
            }
        }
    }
    let portions = by_broker.into_iter().flat_map(|(broker, groups)| {
        let portions = portions(view, groups).into_iter();
        portions.map(move |portion| (broker, portion))
    });
    portions.collect()
}

/// One coordinator's groups in portions for one request each.
fn portions<'a>(view: &ClusterView, groups: Vec<&'a Asked>) -> Vec<Vec<&'a Asked>> {
    let mut portions: Vec<Vec<&Asked>> = Vec::new();
    let mut partitions = 0;
    for asked in groups {
        let topics = asked.topics.iter().filter_map(|name| view.topic(name));
        let count: usize = topics.map(|topic| topic.partitions.len()).sum();
        partitions += count;
        match portions.last_mut() {
            Some(portion)
                if portion.len() < GROUPS_A_REQUEST_MAX
                    && partitions <= PARTITIONS_A_REQUEST_MAX =>
            {
                portion.push(asked);
            }
            _ => {
                partitions = count;
                portions.push(vec![asked]);
            }
        }
    }
    portions
}
