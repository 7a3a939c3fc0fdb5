//! A single look at a group: what `kafka-consumer-groups --describe` shows.

use crate::collect::{Ends, Resting, ends, is_share, is_stale};
use crate::snapshot::{Committed, End, Offsets, PartitionLag, partition_lag};
use crate::source::{Asked, Pace};
use ottla_proto::group::Assignment;
use ottla_proto::{BrokerId, ClusterView, Code, Error, ErrorKind, Result};
use ottla_wire::api::describe_groups::{self, Group};
use ottla_wire::api::offset_fetch::{self, GroupAnswer, GroupRequest};
use ottla_wire::api::{
    ItemError, consumer_group_describe, describe_share_group_offsets, list_groups, metadata,
};
use ottla_wire::{ApiKey, Class, Cluster, Connection, CoordinatorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often leaders are looked for anew while some are not where metadata says.
const LEADER_ROUNDS: usize = 5;

/// Which topics to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Those in which the group has a committed offset or a member has a partition.
    Committed,
    /// These, with all of their partitions.
    Named(Vec<Arc<str>>),
}

/// The member that reads a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub host: Arc<str>,
}

/// One partition of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// The topic.
    pub topic: Arc<str>,
    /// Its offsets; what is `None` is shown as "-".
    pub lag: PartitionLag,
    /// Who reads it; `None` when nobody does.
    pub owner: Option<Owner>,
}

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLag {
    /// The group.
    pub group: Arc<str>,
    /// Kafka's word for its state; `None` when the broker does not describe groups of its type.
    pub state: Option<Arc<str>>,
    /// Taken before the first broker was asked.
    pub taken_at: std::time::Instant,
    /// Its partitions, by topic and number.
    pub rows: Vec<GroupRow>,
    /// Topics that were named, or that a member reads, and that brokers do not show, with the reason:
    /// they do not exist, or may not be seen. From the group's commits brokers leave out what may not
    /// be seen, without a word: it stands here only when it is named.
    pub refused: Vec<(Arc<str>, Code)>,
}

/// Looks at a group once.
///
/// # Errors
/// `Broker(GROUP_ID_NOT_FOUND)` when there is no such group, `Broker(GROUP_AUTHORIZATION_FAILED)`
/// when we may not see it, `Timeout` or `Connection` when its coordinator cannot be reached within
/// the cluster's API timeout. A leader that cannot be reached leaves its partitions without an end.
///
/// Cancel safety: nothing is changed.
pub async fn collect_once(cluster: &Cluster, group: &str, topics: &Topics) -> Result<GroupLag> {
    let began = Instant::now();
    let deadline = began + cluster.settings().api_timeout;
    let (described, commits) = ask_coordinator(cluster, group, deadline).await?;
    let committed = commits_by_topic(&commits);
    let (state, owners) = described.map_or((None, Owners::new()), |of| (Some(of.state), of.owners));
    let view = cluster.all_topics().await?;
    let names: BTreeSet<Arc<str>> = match topics {
        Topics::Committed => {
            let owned = owners.keys().map(|(topic, _)| topic);
            committed.keys().chain(owned).cloned().collect()
        }
        Topics::Named(names) => names.iter().cloned().collect(),
    };
    let refused = refused(cluster, &view, &names).await?;
    let asked = Asked {
        group: group.into(),
        topics: names.iter().cloned().collect(),
    };
    let ends = ask_leaders(cluster, view, asked, deadline).await?;
    let every = matches!(topics, Topics::Named(_));
    let mut rows = Vec::new();
    for topic in &names {
        let known = Known {
            committed: committed.get(topic),
            ends: ends.get(topic).map_or(&[], Vec::as_slice),
            owners: &owners,
            refused: refused.get(topic).copied(),
        };
        rows.extend(known.rows(topic, began.into_std(), every));
    }
    Ok(GroupLag {
        group: group.into(),
        state,
        taken_at: began.into_std(),
        rows,
        refused: refused.into_iter().collect(),
    })
}

/// Why brokers do not show those of these topics that are not in the view.
async fn refused(
    cluster: &Cluster,
    view: &ClusterView,
    names: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, Code>> {
    let missing = names.iter().filter(|name| view.topic(name).is_none());
    let missing: Vec<Arc<str>> = missing.cloned().collect();
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer = cluster.ask(|connection| {
        let request = metadata::Request {
            topics: metadata::Topics::Named(missing.clone()),
            allow_auto_create: false,
        };
        Box::pin(async move { metadata::call(&connection, &request).await })
    });
    let told = answer.await?.topics.into_iter();
    let refused = told.filter_map(|topic| Some((topic.name, topic.code?)));
    Ok(refused.filter(|(name, _)| names.contains(name)).collect())
}

/// Asks the leaders of these topics once where their logs end and begin; the answers are in the order
/// of `topics`, by partition as `view` has them. `view` has to know the topics:
/// [`Cluster::all_topics`] does. A leader that does not answer in time leaves its partitions unknown.
///
/// Cancel safety: nothing is changed.
pub async fn log_ends(
    cluster: &Cluster,
    view: &ClusterView,
    topics: Vec<Arc<str>>,
    within: Duration,
) -> Vec<(Arc<str>, Vec<End>)> {
    let began = Instant::now();
    let pace = Pace {
        began,
        deadline: began + within,
        refresh: within,
    };
    let asked = Asked {
        group: "".into(),
        topics,
    };
    let asked = [asked];
    let mut known = ends(cluster, view, &asked, pace, &mut Resting::default()).await;
    let [Asked { topics, .. }] = asked;
    let told = topics.into_iter().map(|topic| {
        let ends = known.remove(&topic).unwrap_or_default();
        (topic, ends)
    });
    told.collect()
}

/// The group and what it has committed, from its coordinator, wherever that may move.
async fn ask_coordinator(
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
) -> Result<(Option<Described>, GroupAnswer)> {
    let mut attempt = 0;
    loop {
        let broker = cluster
            .coordinator(CoordinatorKind::Group, group, deadline)
            .await?;
        let error = match ask_once(cluster, broker, group).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let moved = matches!(
            error.code(),
            Some(Code::NOT_COORDINATOR | Code::COORDINATOR_NOT_AVAILABLE)
        );
        if moved || *error.kind() == ErrorKind::Connection {
            cluster.forget_coordinator(CoordinatorKind::Group, group, broker);
        }
        let wait = cluster
            .settings()
            .retry_backoff
            .saturating_mul(1 << u32::min(attempt, 4));
        if !error.is_retriable() || Instant::now() + wait >= deadline {
            return Err(error);
        }
        attempt += 1;
        sleep(wait).await;
    }
}

async fn ask_once(
    cluster: &Cluster,
    broker: BrokerId,
    group: &str,
) -> Result<(Option<Described>, GroupAnswer)> {
    let connection = cluster.connection(broker, Class::Control).await?;
    let describe = describe_groups::Request {
        groups: vec![group.into()],
    };
    let fetch = offset_fetch::Request {
        groups: vec![GroupRequest {
            group: group.into(),
            topics: None,
        }],
        require_stable: false,
    };
    let (described, fetched) = tokio::join!(
        describe_groups::call(&connection, &describe),
        offset_fetch::call(&connection, &fetch),
    );
    let one = described?
        .groups
        .into_iter()
        .find(|(name, _)| **name == *group);
    let described = one.map(|(_, described)| described).transpose();
    let described = existing(described).map_err(|e| e.into_error(ApiKey::DescribeGroups, group))?;
    let described = match described {
        Some(group) => Some(Described::of_classic(&group)),
        None => newer(&connection, &describe, group).await?,
    };
    let fetched = fetched?
        .groups
        .into_iter()
        .find(|answer| *answer.group == *group);
    let commits = match fetched {
        Some(answer) if answer.code == Code::GROUP_ID_NOT_FOUND => nothing(group),
        Some(answer) if answer.code == Code::NONE => answer,
        Some(answer) => {
            let what = format!("OffsetFetch for the group {group}");
            return Err(Error::broker(answer.code, &what).at_broker(broker));
        }
        None => nothing(group),
    };
    let committed = commits
        .topics
        .iter()
        .any(|(_, answers)| !answers.is_empty());
    if described.is_some() || committed {
        return Ok((described, commits));
    }
    let Some(listed) = listed(&connection, group).await? else {
        let what = format!("the consumer group {group} does not exist");
        return Err(Error::new(
            ErrorKind::Broker(Code::GROUP_ID_NOT_FOUND),
            what,
        ));
    };
    if !is_share(&listed) {
        return Ok((None, commits));
    }
    let starts = share_starts(&connection, &fetch).await?;
    Ok((None, starts.unwrap_or(commits)))
}

/// The group if it is one of KIP-848's; `None` when it is not, and from brokers that know none.
async fn newer(
    connection: &Connection,
    request: &describe_groups::Request,
    group: &str,
) -> Result<Option<Described>> {
    let answer = match consumer_group_describe::call(connection, request).await {
        Err(error) if matches!(error.kind(), ErrorKind::UnsupportedVersion) => return Ok(None),
        answer => answer?,
    };
    let one = answer.groups.into_iter().find(|(name, _)| **name == *group);
    let described = one.map(|(_, described)| visible(described)).transpose();
    let described =
        described.map_err(|error| error.into_error(ApiKey::ConsumerGroupDescribe, group))?;
    Ok(described.flatten().map(Described::of_consumers))
}

/// `None` for a group that is not one of KIP-848's, or may not be seen: its commits may be told all
/// the same.
fn visible<T>(described: Result<T, ItemError>) -> Result<Option<T>, ItemError> {
    match described {
        Ok(group) => Ok(Some(group)),
        Err(error) => match error.code {
            // The second where the feature is off, the third where one of its topics may not be seen.
            Code::GROUP_ID_NOT_FOUND
            | Code::UNSUPPORTED_VERSION
            | Code::TOPIC_AUTHORIZATION_FAILED
            | Code::GROUP_AUTHORIZATION_FAILED => Ok(None),
            _ => Err(error),
        },
    }
}

/// Where a share group reads on, which stands for what it has committed; `None` from brokers before
/// 4.1.
async fn share_starts(
    connection: &Connection,
    request: &offset_fetch::Request,
) -> Result<Option<GroupAnswer>> {
    let answer = match describe_share_group_offsets::call(connection, request).await {
        Err(error) if matches!(error.kind(), ErrorKind::UnsupportedVersion) => return Ok(None),
        answer => answer?.groups.pop(),
    };
    match answer {
        Some(answer) if answer.code != Code::NONE => {
            let what = format!("DescribeShareGroupOffsets for the group {}", answer.group);
            Err(Error::broker(answer.code, &what).at_broker(connection.broker()))
        }
        answer => Ok(answer),
    }
}

fn nothing(group: &str) -> GroupAnswer {
    GroupAnswer {
        group: group.into(),
        code: Code::NONE,
        topics: Vec::new(),
    }
}

/// `None` for a group that does not exist, or is of a type that this API does not describe.
fn existing(described: Result<Option<Group>, ItemError>) -> Result<Option<Group>, ItemError> {
    match described {
        // Before 4.0 brokers call a group dead that does not exist.
        Ok(group) => Ok(group.filter(|group| *group.state != *"Dead")),
        Err(error) if error.code == Code::GROUP_ID_NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

/// The group as its coordinator lists it, of whatever type it may be.
async fn listed(connection: &Connection, group: &str) -> Result<Option<list_groups::Group>> {
    let mut listed = list_groups::call(connection, &list_groups::Request::default()).await?;
    if listed.code != Code::NONE {
        return Err(Error::broker(listed.code, "ListGroups").at_broker(connection.broker()));
    }
    let at = listed.groups.iter().position(|one| *one.group == *group);
    Ok(at.map(|at| listed.groups.swap_remove(at)))
}

async fn ask_leaders(
    cluster: &Cluster,
    mut view: Arc<ClusterView>,
    asked: Asked,
    deadline: Instant,
) -> Result<Ends> {
    let asked = [asked];
    let mut round = 1;
    loop {
        let pace = Pace {
            began: Instant::now(),
            deadline,
            refresh: Duration::from_secs(1),
        };
        let ends = ends(cluster, &view, &asked, pace, &mut Resting::default()).await;
        if round == LEADER_ROUNDS || !is_stale(&ends) {
            return Ok(ends);
        }
        round += 1;
        sleep(cluster.settings().retry_backoff).await;
        view = cluster.all_topics().await?;
    }
}

type CommitsByTopic = BTreeMap<Arc<str>, BTreeMap<i32, Committed>>;

fn commits_by_topic(answer: &GroupAnswer) -> CommitsByTopic {
    let topics = answer.topics.iter().map(|(topic, answers)| {
        let answers = answers
            .iter()
            .map(|answer| (answer.partition, Committed::of(answer)));
        (Arc::clone(topic), answers.collect())
    });
    topics.collect()
}

type Owners = BTreeMap<(Arc<str>, i32), Owner>;

/// What a group's coordinator says of it beside its commits, in either protocol.
#[derive(Debug)]
struct Described {
    state: Arc<str>,
    owners: Owners,
}

impl Described {
    fn of_classic(group: &Group) -> Self {
        Self {
            state: Arc::clone(&group.state),
            owners: owners(group),
        }
    }

    fn of_consumers(group: consumer_group_describe::Group) -> Self {
        let owned = group.members.into_iter().flat_map(|member| {
            let owner = Owner {
                member_id: member.member_id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                host: member.host,
            };
            let assigned = member.assigned.into_iter();
            assigned.map(move |one| ((one.topic, one.partition), owner.clone()))
        });
        Self {
            owners: owned.collect(),
            state: group.state,
        }
    }
}

/// Who has which partition. A member whose assignment cannot be read has none: it may be no
/// consumer.
fn owners(group: &Group) -> Owners {
    let mut owners = Owners::new();
    for member in &group.members {
        let Ok(assignment) = Assignment::decode(&member.assignment) else {
            continue;
        };
        for partition in assignment.partitions {
            let owner = Owner {
                member_id: Arc::clone(&member.member_id),
                instance_id: member.instance_id.clone(),
                client_id: Arc::clone(&member.client_id),
                host: Arc::clone(&member.host),
            };
            owners.insert((partition.topic, partition.partition), owner);
        }
    }
    owners
}

/// What is known of a topic.
struct Known<'a> {
    committed: Option<&'a BTreeMap<i32, Committed>>,
    ends: &'a [End],
    owners: &'a Owners,
    /// Why brokers do not show it.
    refused: Option<Code>,
}

impl Known<'_> {
    /// The topic's rows: partitions with a commit or an owner, or every one.
    fn rows(&self, topic: &Arc<str>, taken_at: std::time::Instant, every: bool) -> Vec<GroupRow> {
        let count = i32::try_from(self.ends.len()).unwrap_or(i32::MAX);
        let committed = self.committed.into_iter().flat_map(BTreeMap::keys).copied();
        // Also what metadata does not know: a commit can outlive its partition.
        let owned = self.owners.keys().filter(|(name, _)| name == topic);
        let numbers = (0..count)
            .chain(committed)
            .chain(owned.map(|(_, number)| *number));
        let numbers: BTreeSet<i32> = numbers.filter(|number| *number >= 0).collect();
        let rows = numbers.into_iter().filter_map(|number| {
            let committed = self.committed.and_then(|topic| topic.get(&number)).copied();
            let owner = self.owners.get(&(Arc::clone(topic), number)).cloned();
            let told = committed.is_some_and(|committed| committed != Committed::Nothing);
            if !(every || told || owner.is_some()) {
                return None;
            }
            let end = usize::try_from(number)
                .ok()
                .and_then(|at| self.ends.get(at));
            let offsets = Offsets {
                committed: committed.unwrap_or(Committed::Nothing),
                end: end.copied().unwrap_or(End::Unknown(Some(
                    self.refused.unwrap_or(Code::UNKNOWN_TOPIC_OR_PARTITION),
                ))),
            };
            Some(GroupRow {
                topic: Arc::clone(topic),
                lag: partition_lag(number, offsets, taken_at),
                owner,
            })
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests;
