//! Where logs end and begin, from their leaders.

use super::verdict::{EndVerdict, of_end};
use super::{ASKED_AT_ONCE_MAX, ATTEMPTS, RETRY_AFTER, Resting, Role};
use crate::brokers::Brokers;
use crate::snapshot::End;
use crate::source::{Asked, Pace};
use futures_util::StreamExt;
use futures_util::stream;
use ottla_proto::{BrokerId, ClusterView, Code};
use ottla_wire::api::list_offsets::{self, Isolation, PartitionRequest, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

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
    waiting.retain(|leader, _| !resting.rests(Role::Leader, *leader));
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep_until(pace.deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        let (now, mut calls) = (Instant::now(), Vec::new());
        for (leader, partitions) in waiting {
            let patience = resting.patience(Role::Leader, leader, pace, now);
            calls.push(ask_leader(brokers, leader, partitions, patience));
        }
        let answers: Vec<_> = stream::iter(calls)
            .buffer_unordered(ASKED_AT_ONCE_MAX)
            .collect()
            .await;
        waiting = BTreeMap::new();
        for (leader, mut partitions, answer) in answers {
            let Some((answer, took)) = answer else {
                // Its partitions may have a new leader by now.
                brokers.mark_stale(view.generation);
                resting.failed(Role::Leader, leader, Instant::now(), pace.refresh);
                continue;
            };
            resting.answered(Role::Leader, leader, took);
            if take_ends(&mut ends, &answer) {
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

/// A leader, what it was asked, and its answers, if there are any, with the time they took.
type LeaderAnswer = (BrokerId, Partitions, Option<(Answers, Duration)>);

/// A leader's answers to one question each about the same partitions.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) high_watermarks: list_offsets::Response,
    pub(super) log_starts: list_offsets::Response,
    pub(super) last_stables: list_offsets::Response,
}

/// Asks for ends, log starts and last stable offsets: a partition may stand only once in a request,
/// and a request has one isolation, so in three, of which none waits for another. Without an answer
/// for the ends there is none.
async fn ask_leader<B: Brokers>(
    brokers: &B,
    leader: BrokerId,
    partitions: Partitions,
    patience: Duration,
) -> LeaderAnswer {
    let ask = |timestamp: Timestamp, isolation: Isolation| {
        let topics = partitions.iter().map(|(name, partitions)| {
            let partitions = partitions.iter().map(|partition| PartitionRequest {
                timestamp,
                ..*partition
            });
            (Arc::clone(name), partitions.collect())
        });
        let topics = topics.collect();
        let request = list_offsets::Request { isolation, topics };
        timeout(patience, brokers.list_offsets(leader, request))
    };
    let asked_at = Instant::now();
    let (latest, earliest, stable) = tokio::join!(
        ask(Timestamp::Latest, Isolation::ReadUncommitted),
        ask(Timestamp::Earliest, Isolation::ReadUncommitted),
        ask(Timestamp::Latest, Isolation::ReadCommitted),
    );
    let answer = match latest {
        Ok(Ok(high_watermarks)) => {
            let answers = Answers {
                high_watermarks,
                log_starts: earliest.ok().and_then(Result::ok).unwrap_or_default(),
                last_stables: stable.ok().and_then(Result::ok).unwrap_or_default(),
            };
            Some((answers, asked_at.elapsed()))
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

/// Takes in a leader's answers. Says whether they show that our view of the cluster is old.
pub(super) fn take_ends(ends: &mut Ends, answers: &Answers) -> bool {
    let mut stale = false;
    for (topic, answer) in each(&answers.high_watermarks) {
        // A leader that speaks of what it was not asked is not listened to.
        let Some(end) = slot(ends, topic, answer.partition) else {
            continue;
        };
        stale |= of_end(answer.code) == EndVerdict::Stale;
        *end = match (of_end(answer.code), answer.offset) {
            (EndVerdict::Use, Some(high_watermark)) => End::At {
                high_watermark,
                log_start: None,
                last_stable: None,
            },
            (EndVerdict::Use, None) => End::Unknown(None),
            _ => End::Unknown(Some(answer.code)),
        };
    }
    for (topic, answer) in each(&answers.log_starts) {
        if let Some(End::At { log_start, .. }) = slot(ends, topic, answer.partition) {
            *log_start = answer.offset.filter(|_| answer.code == Code::NONE);
        }
    }
    for (topic, answer) in each(&answers.last_stables) {
        if let Some(End::At { last_stable, .. }) = slot(ends, topic, answer.partition) {
            *last_stable = answer.offset.filter(|_| answer.code == Code::NONE);
        }
    }
    stale
}

fn each(
    response: &list_offsets::Response,
) -> impl Iterator<Item = (&Arc<str>, &list_offsets::PartitionAnswer)> {
    let topics = response.topics.iter();
    topics.flat_map(|(topic, answers)| answers.iter().map(move |answer| (topic, answer)))
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
