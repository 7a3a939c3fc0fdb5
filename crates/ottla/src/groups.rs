//! Consumer groups: list, describe members, delete.

use ottla_proto::group::Assignment;
use ottla_proto::{BrokerId, Code, Error, ErrorKind, Result, TopicPartition};
use ottla_wire::api::{
    ItemError, consumer_group_describe, delete_groups, describe_groups, list_groups,
    share_group_describe,
};
use ottla_wire::retry::Backoff;
use ottla_wire::{ApiKey, Class, Cluster, CoordinatorKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How many groups one DescribeGroups asks about, so that its answer stays of a moderate size.
const DESCRIBED_MAX: usize = 100;

/// A group as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedGroup {
    /// The group.
    pub group: Arc<str>,
    /// The broker that keeps it.
    pub coordinator: BrokerId,
    /// `consumer` for consumers; empty for a group that only commits.
    pub protocol_type: Arc<str>,
    /// Kafka's word for its state, where told (2.6 and later).
    pub state: Option<Arc<str>>,
    /// `Classic`, `Consumer`, `Share`, where told (3.8 and later).
    pub kind: Option<Arc<str>>,
}

/// A member of a consumer group or a share group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The static member's name.
    pub instance_id: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub host: Arc<str>,
    /// The partitions that it reads; none where its assignment cannot be read: it may be no consumer.
    pub assigned: Vec<TopicPartition>,
}

/// The members of groups by group, or why they are not told.
pub type GroupMembers = BTreeMap<Arc<str>, Result<Vec<GroupMember>>>;

/// The cluster's groups.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GroupListing {
    /// By name, ascending.
    pub groups: Vec<ListedGroup>,
    /// The brokers that did not tell theirs, and why: their groups are missing.
    pub missing: Vec<(BrokerId, Error)>,
}

/// The cluster's consumer groups.
#[derive(Debug, Clone)]
pub struct Groups {
    cluster: Cluster,
}

impl Groups {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// Lists the groups of all brokers, each asked once and at the same time.
    ///
    /// # Errors
    /// Why the last broker did not tell, when none did within `default.api.timeout.ms`.
    ///
    /// Cancel safety: nothing is changed.
    pub async fn list(&self) -> Result<GroupListing> {
        let deadline = Instant::now() + self.cluster.settings().api_timeout;
        let mut calls = JoinSet::new();
        for broker in self.cluster.view().brokers.keys().copied() {
            let cluster = self.cluster.clone();
            calls.spawn(async move {
                let listed = timeout_at(deadline, list_of(&cluster, broker)).await;
                let late = |_| Error::new(ErrorKind::Timeout, "ListGroups").at_broker(broker);
                (broker, listed.map_err(late).flatten())
            });
        }
        let mut listing = GroupListing::default();
        let mut told = false;
        while let Some(ended) = calls.join_next().await {
            match ended {
                Ok((_, Ok(groups))) => {
                    told = true;
                    listing.groups.extend(groups);
                }
                Ok((broker, Err(error))) => listing.missing.push((broker, error)),
                Err(_) => {}
            }
        }
        if !told {
            let none = || Error::new(ErrorKind::Connection, "no broker to list groups of");
            let last = listing.missing.pop();
            return Err(last.map_or_else(none, |(_, error)| error));
        }
        // A group that moves meanwhile may be listed by both of its coordinators.
        listing.groups.sort_by(|a, b| a.group.cmp(&b.group));
        listing.groups.dedup_by(|a, b| a.group == b.group);
        Ok(listing)
    }

    /// The members of these groups: consumer groups of either protocol, and share groups where
    /// brokers describe them (4.1 and later). A group that may not be seen, or one of whose topics
    /// may not be seen, has the coordinator's refusal. Left out are groups that their coordinator does
    /// not describe, and those of a broker that does not answer within `default.api.timeout.ms`.
    ///
    /// Cancel safety: nothing is changed.
    pub async fn members(&self, groups: &[ListedGroup]) -> GroupMembers {
        let deadline = Instant::now() + self.cluster.settings().api_timeout;
        let mut homes: BTreeMap<(BrokerId, Described), Vec<Arc<str>>> = BTreeMap::new();
        for listed in groups {
            let by = Described::by(listed);
            let home = homes.entry((listed.coordinator, by)).or_default();
            home.push(Arc::clone(&listed.group));
        }
        let mut calls = JoinSet::new();
        for ((broker, by), groups) in homes {
            let cluster = self.cluster.clone();
            calls.spawn(async move {
                let mut members = GroupMembers::new();
                // One after the other: coordinators answer a connection in order anyway.
                for groups in groups.chunks(DESCRIBED_MAX) {
                    let described = members_of(&cluster, broker, by, groups.to_vec());
                    let Ok(Ok(told)) = timeout_at(deadline, described).await else {
                        break;
                    };
                    members.extend(told);
                }
                members
            });
        }
        let members = calls.join_all().await;
        members.into_iter().flatten().collect()
    }

    /// Deletes a group with its committed offsets. It must have no member.
    ///
    /// # Errors
    /// The coordinator's refusal, such as `NON_EMPTY_GROUP` or `GROUP_ID_NOT_FOUND`; or when no
    /// broker answers within `default.api.timeout.ms`.
    ///
    /// Cancel safety: the group may or may not be deleted.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let settings = self.cluster.settings();
        let deadline = Instant::now() + settings.api_timeout;
        let backoff = Backoff {
            first: settings.retry_backoff,
            ceiling: settings.retry_backoff_max,
        };
        let mut in_doubt = false;
        for attempt in 0.. {
            let error = match self.try_delete(name, deadline).await {
                Ok(()) => return Ok(()),
                // An attempt whose answer was lost has deleted it.
                Err(error) if in_doubt && error.code() == Some(Code::GROUP_ID_NOT_FOUND) => {
                    return Ok(());
                }
                Err(error) => error,
            };
            let wait = backoff.wait(attempt, settings.seed);
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            in_doubt |= error.code().is_none();
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn try_delete(&self, name: &str, deadline: Instant) -> Result<()> {
        let kind = CoordinatorKind::Group;
        let broker = self.cluster.coordinator(kind, name, deadline).await?;
        let request = delete_groups::Request {
            groups: vec![name.into()],
        };
        let answer = async {
            let connection = self.cluster.connection(broker, Class::Control).await?;
            let response = delete_groups::call(&connection, &request).await?;
            let named = |error: Error| error.at_broker(broker);
            for (_, answer) in response.groups {
                answer.map_err(|error| named(error.into_error(ApiKey::DeleteGroups, name)))?;
            }
            Ok(())
        };
        let answer = answer.await;
        if answer.as_ref().is_err_and(Error::is_retriable) {
            // It may have moved.
            self.cluster.forget_coordinator(kind, name, broker);
        }
        answer
    }
}

async fn list_of(cluster: &Cluster, broker: BrokerId) -> Result<Vec<ListedGroup>> {
    let connection = cluster.connection(broker, Class::Control).await?;
    let answer = list_groups::call(&connection, &list_groups::Request::default()).await?;
    if answer.code != Code::NONE {
        return Err(Error::broker(answer.code, "ListGroups").at_broker(broker));
    }
    let groups = answer.groups.into_iter().map(|listed| ListedGroup {
        group: listed.group,
        coordinator: broker,
        protocol_type: listed.protocol_type,
        state: listed.state,
        kind: listed.group_type,
    });
    Ok(groups.collect())
}

/// The API that describes a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Described {
    /// DescribeGroups.
    Classic,
    /// ConsumerGroupDescribe: KIP-848's groups.
    Consumer,
    /// ShareGroupDescribe.
    Share,
}

impl Described {
    fn by(listed: &ListedGroup) -> Self {
        let kind = listed.kind.as_deref().unwrap_or_default();
        match kind {
            _ if kind.eq_ignore_ascii_case("consumer") => Self::Consumer,
            _ if kind.eq_ignore_ascii_case("share") => Self::Share,
            _ => Self::Classic,
        }
    }
}

async fn members_of(
    cluster: &Cluster,
    broker: BrokerId,
    by: Described,
    groups: Vec<Arc<str>>,
) -> Result<GroupMembers> {
    let connection = cluster.connection(broker, Class::Control).await?;
    let request = describe_groups::Request { groups };
    let (api, answer) = match by {
        Described::Classic => {
            let answer = describe_groups::call(&connection, &request).await?;
            return Ok(classic_members(answer, broker));
        }
        Described::Consumer => (
            ApiKey::ConsumerGroupDescribe,
            consumer_group_describe::call(&connection, &request).await?,
        ),
        Described::Share => (
            ApiKey::ShareGroupDescribe,
            share_group_describe::call(&connection, &request).await?,
        ),
    };
    let told = answer.groups.into_iter().filter_map(|(group, told)| {
        let members = |group: consumer_group_describe::Group| {
            let members = group.members.into_iter();
            members.map(GroupMember::from).collect()
        };
        let told = or_refusal(told, api, &group, broker)?.map(members);
        Some((group, told))
    });
    Ok(told.collect())
}

fn classic_members(answer: describe_groups::Response, broker: BrokerId) -> GroupMembers {
    let told = answer.groups.into_iter().filter_map(|(group, told)| {
        let told = or_refusal(told, ApiKey::DescribeGroups, &group, broker)?;
        // Before 4.0 brokers call a group dead that does not exist, or is of another type.
        if told.as_ref().is_ok_and(|group| *group.state == *"Dead") {
            return None;
        }
        let members = told.map(|group| {
            let members = group.members.into_iter();
            members.map(GroupMember::from).collect()
        });
        Some((group, members))
    });
    told.collect()
}

/// What was told of a group, or that it may not be told; `None` for what says nothing of the group
/// itself, such as a coordinator that has moved.
fn or_refusal<T>(
    told: Result<T, ItemError>,
    api: ApiKey,
    group: &str,
    broker: BrokerId,
) -> Option<Result<T>> {
    let is_refusal =
        |code| code == Code::GROUP_AUTHORIZATION_FAILED || code == Code::TOPIC_AUTHORIZATION_FAILED;
    match told {
        Ok(told) => Some(Ok(told)),
        Err(error) if is_refusal(error.code) => {
            Some(Err(error.into_error(api, group).at_broker(broker)))
        }
        Err(_) => None,
    }
}

impl From<consumer_group_describe::Member> for GroupMember {
    fn from(member: consumer_group_describe::Member) -> Self {
        Self {
            member_id: member.member_id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            host: member.host,
            assigned: member.assigned,
        }
    }
}

impl From<describe_groups::Member> for GroupMember {
    fn from(member: describe_groups::Member) -> Self {
        let assignment = Assignment::decode(&member.assignment);
        Self {
            member_id: member.member_id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            host: member.host,
            assigned: assignment.map_or_else(|_| Vec::new(), |read| read.partitions),
        }
    }
}
