//! One round of collecting: what groups committed, then where the logs end.
//!
//! In this order, so that a committed offset is never newer than the end it is held against.

mod resting;
#[cfg(test)]
mod tests;
mod verdict;

use crate::brokers::Brokers;
use crate::snapshot::{Committed, End, Offsets, TopicOffsets};
use futures_util::StreamExt;
use futures_util::stream;
use ottla_proto::{BrokerId, ClusterView, Code, Error, ErrorKind};
use ottla_wire::api::list_offsets::{self, PartitionRequest, Timestamp};
use ottla_wire::api::offset_fetch::{self, GroupRequest};
pub(crate) use resting::Resting;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use verdict::{EndVerdict, GroupVerdict, of_end, of_group};

/// How many brokers, or coordinator look-ups, are waited for at the same time.
const ASKED_AT_ONCE_MAX: usize = 16;

/// How many groups one OffsetFetch asks about, so that its answer stays of a moderate size.
const GROUPS_A_REQUEST_MAX: usize = 100;

/// How often what may be asked again is asked within one round.
const ATTEMPTS: usize = 2;

/// How long to wait before that, at most; Kafka's `retry.backoff.ms`.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A group and the topics to look at.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) group: Arc<str>,
    pub(crate) topics: Vec<Arc<str>>,
}

/// How a group's coordinator took the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It answered.
    Told,
    /// We may not see the group.
    Denied,
    /// It could not be asked, or refused with this code.
    Unknown(Option<Code>),
    /// The cluster was closed: nothing will ever be told again.
    Closed,
}

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

/// What a round brought for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) group: Arc<str>,
    pub(crate) standing: Standing,
    pub(crate) topics: Vec<TopicOffsets>,
}

/// When a round must be over, and how often there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) deadline: Instant,
    pub(crate) refresh: Duration,
}

/// Asks for everything once. Whatever does not answer in time is unknown, and holds up nothing
/// else.
pub(crate) async fn collect<B: Brokers>(
    brokers: &B,
    asked: &[Asked],
    pace: Pace,
    resting: &mut Resting,
) -> Vec<Found> {
    let view = brokers.view();
    let now = Instant::now();
    // A coordinator that hangs must leave the leaders time to answer.
    let halfway = now + pace.deadline.saturating_duration_since(now) / 2;
    let mut commits = commits(brokers, &view, asked, halfway).await;
    let ends = ends(brokers, &view, asked, pace, resting).await;
    let found = asked.iter().map(|asked| {
        let commits = commits.remove(&asked.group);
        found(&view, asked, &commits.unwrap_or_default(), &ends)
    });
    found.collect()
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
struct Commits {
    standing: Standing,
    told: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
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
            told: BTreeMap::new(),
        }
    }

    fn told(topics: Vec<(Arc<str>, Vec<offset_fetch::PartitionAnswer>)>) -> Self {
        let topics = topics.into_iter().map(|(topic, answers)| {
            let answers = answers
                .iter()
                .map(|one| (one.partition, Committed::of(one)));
            (topic, answers.collect())
        });
        Self {
            standing: Standing::Told,
            told: topics.collect(),
        }
    }

    fn of(&self, topic: &str, partition: i32) -> Committed {
        let told = self.told.get(topic).and_then(|topic| topic.get(&partition));
        match (self.standing, told) {
            (_, Some(committed)) => *committed,
            // A coordinator that leaves out what it was asked knows nothing of it.
            (Standing::Told, None) => Committed::Nothing,
            (Standing::Denied, None) => Committed::Unknown(Some(Code::GROUP_AUTHORIZATION_FAILED)),
            (Standing::Unknown(code), None) => Committed::Unknown(code),
            (Standing::Closed, None) => Committed::Unknown(None),
        }
    }
}

fn found(view: &ClusterView, asked: &Asked, commits: &Commits, ends: &Ends) -> Found {
    let topics = asked.topics.iter().map(|name| {
        let ends = ends.get(name).map_or(&[][..], Vec::as_slice);
        let partitions = (0i32..).zip(ends).map(|(partition, end)| Offsets {
            committed: commits.of(name, partition),
            end: *end,
        });
        TopicOffsets {
            topic: Arc::clone(name),
            id: view.topic(name).and_then(|topic| topic.id),
            partitions: partitions.collect(),
        }
    });
    Found {
        group: Arc::clone(&asked.group),
        topics: topics.collect(),
        standing: commits.standing,
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

async fn commits<B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    asked: &[Asked],
    deadline: Instant,
) -> BTreeMap<Arc<str>, Commits> {
    let mut known = BTreeMap::new();
    let mut waiting: Vec<&Asked> = asked.iter().collect();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep_until(deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        let homes = coordinators(brokers, &waiting, deadline, &mut known).await;
        // Pushed one by one: a closure that returns a future would lose the lifetimes' generality.
        let mut calls = Vec::new();
        for (broker, groups) in homes {
            calls.push(ask_coordinator(brokers, view, broker, groups, deadline));
        }
        let answers: Vec<_> = stream::iter(calls)
            .buffer_unordered(ASKED_AT_ONCE_MAX)
            .collect()
            .await;
        waiting.clear();
        for (broker, groups, answer) in answers {
            let mut answered = answer.map_or_else(Vec::new, |response| response.groups);
            for asked in groups {
                let at = answered.iter().position(|group| group.group == asked.group);
                let answer = at.map(|at| answered.swap_remove(at));
                let (commits, again) = judge_group(brokers, broker, answer, &asked.group);
                known.insert(Arc::clone(&asked.group), commits);
                if again {
                    waiting.push(asked);
                }
            }
        }
        if waiting.is_empty() || Instant::now() >= deadline {
            break;
        }
    }
    known
}

/// One coordinator's answer about some of its groups; `None` if it does not come in time.
async fn ask_coordinator<'a, B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    broker: BrokerId,
    groups: Vec<&'a Asked>,
    deadline: Instant,
) -> (BrokerId, Vec<&'a Asked>, Option<offset_fetch::Response>) {
    let mut request = offset_fetch::Request::default();
    for asked in &groups {
        request.groups.push(group_request(view, asked));
    }
    let answer = match timeout_at(deadline, brokers.offset_fetch(broker, request)).await {
        Ok(Ok(response)) => Some(response),
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
        GroupVerdict::Use => (Commits::told(answer.topics), false),
        GroupVerdict::Nothing => (Commits::without(Standing::Told), false),
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
async fn coordinators<'a, B: Brokers>(
    brokers: &B,
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
        let portions = groups.chunks(GROUPS_A_REQUEST_MAX);
        portions
            .map(|part| (broker, part.to_vec()))
            .collect::<Vec<_>>()
    });
    portions.collect()
}

/// The ends of logs by topic and partition.
pub(crate) type Ends = BTreeMap<Arc<str>, Vec<End>>;

/// Whether some leader was not where metadata says.
pub(crate) fn is_stale(ends: &Ends) -> bool {
    let stale = |end: &End| match end {
        End::Unknown(Some(code)) => of_end(*code) == EndVerdict::Stale,
        End::Unknown(None) | End::At { .. } => false,
    };
    ends.values().flatten().any(stale)
}

type Partitions = Vec<(Arc<str>, Vec<PartitionRequest>)>;

/// The partitions to ask about by leader. Those without one are unknown from the start.
fn by_leader(view: &ClusterView, ends: &mut Ends) -> BTreeMap<BrokerId, Partitions> {
    let mut leaders: BTreeMap<BrokerId, Partitions> = BTreeMap::new();
    for (name, ends) in ends {
        let partitions = view.topic(name).map_or(&[][..], |topic| &topic.partitions);
        for ((number, partition), end) in (0i32..).zip(partitions).zip(ends) {
            let Some(leader) = partition.leader else {
                *end = End::Unknown(Some(Code::LEADER_NOT_AVAILABLE));
                continue;
            };
            let request = PartitionRequest {
                partition: number,
                leader_epoch: partition.leader_epoch,
                timestamp: Timestamp::Latest,
            };
            let topics = leaders.entry(leader).or_default();
            match topics.last_mut() {
                Some((topic, partitions)) if topic == name => partitions.push(request),
                _ => topics.push((Arc::clone(name), vec![request])),
            }
        }
    }
    leaders
}

/// Asks every leader of the topics for the ends and the starts of its logs.
pub(crate) async fn ends<B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    asked: &[Asked],
    pace: Pace,
    resting: &mut Resting,
) -> Ends {
    let names = asked.iter().flat_map(|asked| &asked.topics);
    let unknown = names.map(|name| {
        let count = view.topic(name).map_or(0, |topic| topic.partitions.len());
        (Arc::clone(name), vec![End::Unknown(None); count])
    });
    let mut ends: Ends = unknown.collect();
    let mut waiting = by_leader(view, &mut ends);
    let now = Instant::now();
    waiting.retain(|leader, _| !resting.rests(*leader, now));
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep_until(pace.deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        let mut calls = Vec::new();
        for (leader, partitions) in waiting {
            calls.push(ask_leader(brokers, leader, partitions, pace.deadline));
        }
        let answers: Vec<_> = stream::iter(calls)
            .buffer_unordered(ASKED_AT_ONCE_MAX)
            .collect()
            .await;
        waiting = BTreeMap::new();
        for (leader, mut partitions, answer) in answers {
            let Some((latest, earliest)) = answer else {
                // Its partitions may have a new leader by now.
                brokers.mark_stale(view.generation);
                resting.failed(leader, Instant::now(), pace.refresh);
                continue;
            };
            resting.answered(leader);
            if take_ends(&mut ends, &latest, &earliest) {
                brokers.mark_stale(view.generation);
            }
            keep_unavailable(&ends, &mut partitions);
            if !partitions.is_empty() {
                waiting.insert(leader, partitions);
            }
        }
        if waiting.is_empty() || Instant::now() >= pace.deadline {
            break;
        }
    }
    ends
}

/// A leader, what it was asked, and its answers for ends and for log starts, if there are any.
type LeaderAnswer = (
    BrokerId,
    Partitions,
    Option<(list_offsets::Response, list_offsets::Response)>,
);

/// Asks for ends and log starts: a partition may stand only once in a request, so in two, of which
/// the second does not wait for the first. Without an answer for the ends there is none.
async fn ask_leader<B: Brokers>(
    brokers: &B,
    leader: BrokerId,
    partitions: Partitions,
    deadline: Instant,
) -> LeaderAnswer {
    let request = |timestamp: Timestamp| {
        let topics = partitions.iter().map(|(name, partitions)| {
            let partitions = partitions.iter().map(|partition| PartitionRequest {
                timestamp,
                ..*partition
            });
            (Arc::clone(name), partitions.collect())
        });
        list_offsets::Request {
            topics: topics.collect(),
            ..list_offsets::Request::default()
        }
    };
    let (latest, earliest) = tokio::join!(
        timeout_at(
            deadline,
            brokers.list_offsets(leader, request(Timestamp::Latest))
        ),
        timeout_at(
            deadline,
            brokers.list_offsets(leader, request(Timestamp::Earliest))
        ),
    );
    let answer = match latest {
        Ok(Ok(latest)) => {
            let earliest = earliest.ok().and_then(Result::ok);
            Some((latest, earliest.unwrap_or_default()))
        }
        Ok(Err(error)) => {
            tracing::debug!(broker = %leader, %error, "log ends could not be listed");
            None
        }
        Err(_) => None,
    };
    (leader, partitions, answer)
}

fn slot<'a>(ends: &'a mut Ends, topic: &str, partition: i32) -> Option<&'a mut End> {
    let at = usize::try_from(partition).ok()?;
    ends.get_mut(topic)?.get_mut(at)
}

/// Takes in a leader's two answers. Says whether they show that our view of the cluster is old.
fn take_ends(
    ends: &mut Ends,
    latest: &list_offsets::Response,
    earliest: &list_offsets::Response,
) -> bool {
    let mut stale = false;
    for (topic, answers) in &latest.topics {
        for answer in answers {
            // A leader that speaks of what it was not asked is not listened to.
            let Some(end) = slot(ends, topic, answer.partition) else {
                continue;
            };
            stale |= of_end(answer.code) == EndVerdict::Stale;
            *end = match (of_end(answer.code), answer.offset) {
                (EndVerdict::Use, Some(high_watermark)) => End::At {
                    high_watermark,
                    log_start: None,
                },
                (EndVerdict::Use, None) => End::Unknown(None),
                _ => End::Unknown(Some(answer.code)),
            };
        }
    }
    for (topic, answers) in &earliest.topics {
        for answer in answers {
            if let Some(End::At { log_start, .. }) = slot(ends, topic, answer.partition) {
                *log_start = answer.offset.filter(|_| answer.code == Code::NONE);
            }
        }
    }
    stale
}

/// Leaves the partitions that may be asked again at once.
fn keep_unavailable(ends: &Ends, partitions: &mut Partitions) {
    for (topic, partitions) in &mut *partitions {
        partitions.retain(|partition| {
            let at = usize::try_from(partition.partition).ok();
            let end = ends.get(topic).and_then(|ends| ends.get(at?));
            matches!(end, Some(End::Unknown(Some(code))) if of_end(*code) == EndVerdict::Later)
        });
    }
    partitions.retain(|(_, partitions)| !partitions.is_empty());
}
