//! Which groups are share groups: a coordinator answers "no commit" for every partition of one.

use super::commits::Commits;
use super::patience_min;
use crate::brokers::Brokers;
use crate::source::Pace;
use futures_util::StreamExt;
use futures_util::stream;
use ottla_proto::BrokerId;
use ottla_wire::api::list_groups;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often a group that has committed nothing is looked up again. It may be deleted and made anew
/// as another type.
const RECHECK: Duration = Duration::from_secs(60);

/// How Kafka calls the type in ListGroups.
const SHARE: &str = "share";

/// Whether a group that is listed is a share group. Brokers that know no types list none.
pub(crate) fn is_share(listed: &list_groups::Group) -> bool {
    let kind = listed.group_type.as_deref();
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(SHARE))
}

/// What is known of groups that have committed nothing.
#[derive(Debug, Default)]
pub(super) struct Kinds(BTreeMap<Arc<str>, Kind>);

#[derive(Debug, Clone, Copy)]
struct Kind {
    is_share: bool,
    until: Instant,
}

impl Kinds {
    /// Whether it is known to be a share group.
    pub(super) fn is_share(&self, group: &str) -> bool {
        self.0.get(group).is_some_and(|kind| kind.is_share)
    }

    /// Looks up the types of those groups that have committed nothing, each once in a while. One
    /// request to a coordinator, beside the requests to the leaders.
    pub(super) async fn learn<B: Brokers>(
        &mut self,
        brokers: &B,
        commits: &BTreeMap<Arc<str>, Commits>,
        pace: Pace,
    ) {
        // What commits is no share group, and a group that is not asked about is forgotten.
        self.0
            .retain(|group, _| commits.get(group).is_some_and(Commits::says_nothing));
        let mut homes: BTreeMap<BrokerId, BTreeSet<Arc<str>>> = BTreeMap::new();
        for (group, commits) in commits {
            let known = self
                .0
                .get(group)
                .is_some_and(|kind| pace.began < kind.until);
            if let (false, true, Some(broker)) = (known, commits.says_nothing(), commits.home) {
                homes.entry(broker).or_default().insert(Arc::clone(group));
            }
        }
        let mut calls = Vec::new();
        for (broker, groups) in homes {
            calls.push(ask(brokers, broker, groups, pace));
        }
        let mut answers = stream::iter(calls).buffer_unordered(super::ASKED_AT_ONCE_MAX);
        while let Some((groups, listed)) = answers.next().await {
            let until = pace.began + RECHECK.max(pace.refresh);
            for group in groups {
                let is_share = listed.contains(&group);
                self.0.insert(group, Kind { is_share, until });
            }
        }
    }
}

/// Asks one coordinator for its share groups. Brokers that cannot answer have none.
async fn ask<B: Brokers>(
    brokers: &B,
    broker: BrokerId,
    groups: BTreeSet<Arc<str>>,
    pace: Pace,
) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
    let request = list_groups::Request {
        types: vec![SHARE.into()],
        ..list_groups::Request::default()
    };
    // Rounds wait for it, and it can wait for the next one.
    let answer = timeout(patience_min(pace), brokers.list_groups(broker, request)).await;
    let listed = answer.ok().and_then(Result::ok).map(|answer| answer.groups);
    let shares = listed.unwrap_or_default().into_iter();
    // A broker that knows no types lists all groups.
    let shares = shares.filter(|listed| is_share(listed) && groups.contains(&listed.group));
    let shares = shares.map(|listed| listed.group).collect();
    (groups, shares)
}
