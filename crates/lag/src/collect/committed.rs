//! In which topics groups have committed at all.

use super::commits::{Question, coordinators};
use super::verdict::{GroupVerdict, of_group};
use super::{ASKED_AT_ONCE_MAX, Resting, Role};
use crate::brokers::Brokers;
use crate::source::Asked;
use futures_util::StreamExt;
use futures_util::stream;
use ottla_proto::{BrokerId, ClusterView};
use ottla_wire::api::offset_fetch::{self, GroupAnswer, GroupRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// The topics in which groups had committed when they last told.
pub(super) type Told = BTreeMap<Arc<str>, Vec<Arc<str>>>;

/// The topics of each group, in the order of `groups`; `None` where its coordinator did not tell. One
/// that rests is not asked: rounds wait for the answers. How large an answer will be, the `last` ones
/// say; the first time nobody knows.
pub(super) async fn committed<B: Brokers>(
    brokers: &B,
    view: &ClusterView,
    question: Question,
    groups: &[Arc<str>],
    last: &Told,
    resting: &Resting,
    deadline: Instant,
) -> Vec<Option<Vec<Arc<str>>>> {
    let asked = groups.iter().map(|group| Asked {
        group: Arc::clone(group),
        topics: last.get(group).cloned().unwrap_or_default(),
    });
    let asked: Vec<Asked> = asked.collect();
    let waiting: Vec<&Asked> = asked.iter().collect();
    let homes = coordinators(brokers, view, &waiting, deadline, &mut BTreeMap::new()).await;
    let mut calls = Vec::new();
    for (broker, groups) in homes {
        if resting.rests(Role::Coordinator, broker) {
            continue;
        }
        calls.push(ask(brokers, question, broker, groups, deadline));
    }
    let mut answers = stream::iter(calls).buffer_unordered(ASKED_AT_ONCE_MAX);
    let mut known = BTreeMap::new();
    while let Some(answered) = answers.next().await {
        for answer in answered {
            let group = Arc::clone(&answer.group);
            known.insert(group, topics(answer));
        }
    }
    let told = groups.iter().map(|group| known.remove(group).flatten());
    told.collect()
}

/// Asks one coordinator for whatever some of its groups have committed.
async fn ask<B: Brokers>(
    brokers: &B,
    question: Question,
    broker: BrokerId,
    groups: Vec<&Asked>,
    deadline: Instant,
) -> Vec<GroupAnswer> {
    let every = groups.iter().map(|asked| GroupRequest {
        group: Arc::clone(&asked.group),
        topics: None,
    });
    let request = offset_fetch::Request {
        groups: every.collect(),
        ..offset_fetch::Request::default()
    };
    match timeout_at(deadline, question.ask(brokers, broker, request)).await {
        Ok(Ok(response)) => response.groups,
        Ok(Err(error)) => {
            tracing::debug!(%broker, %error, "committed offsets could not be fetched");
            forget(brokers, broker, &groups);
            Vec::new()
        }
        Err(_) => {
            forget(brokers, broker, &groups);
            Vec::new()
        }
    }
}

fn forget<B: Brokers>(brokers: &B, broker: BrokerId, groups: &[&Asked]) {
    for asked in groups {
        brokers.forget_coordinator(&asked.group, broker);
    }
}

/// The topics with at least one committed offset. A coordinator that moved or is not ready tells
/// nothing; the round that follows finds it anew.
fn topics(answer: GroupAnswer) -> Option<Vec<Arc<str>>> {
    match of_group(answer.code) {
        GroupVerdict::Use => {
            let told = answer.topics.into_iter().filter(|(_, partitions)| {
                let mut committed = partitions.iter().map(|partition| partition.committed);
                committed.any(|committed| committed.is_some())
            });
            let mut topics: Vec<Arc<str>> = told.map(|(topic, _)| topic).collect();
            topics.sort();
            topics.dedup();
            Some(topics)
        }
        GroupVerdict::Nothing => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::collect::Collected;
    use crate::collect::tests::{billing, round};
    use crate::fake::Fake;
    use crate::source::{Asked, LagSource};
    use ottla_proto::BrokerId;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_rests_holds_up_no_listing_of_topics() {
        let fake = Fake::with_topic("orders", 3);
        let audit = ("audit".to_owned(), "orders".to_owned(), 0);
        fake.0.lock().committed.insert(audit, 5);
        let at = BrokerId(2);
        fake.0.lock().coordinators.insert("audit".into(), at);
        fake.0.lock().hung_commits.insert(BrokerId(1));
        let mut source = Collected::new(fake.clone());
        round(&mut source, &billing()).await;
        let began = Instant::now();
        let deadline = began + Duration::from_secs(5);
        let groups = ["audit".into(), "billing".into()];
        let told = source.committed_topics(&groups, deadline).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it is not waited for");
        assert_eq!(told, [Some(vec!["orders".into()]), None]);
    }

    /// The first answers tell how large the next ones will be.
    #[tokio::test(start_paused = true)]
    async fn groups_of_many_partitions_are_listed_in_portions() {
        let fake = Fake::with_topic("orders", 30_000);
        let groups: [Arc<str>; 3] = ["billing".into(), "b".into(), "c".into()];
        for group in ["b", "c"] {
            let place = (group.to_owned(), "orders".to_owned(), 0);
            let mut state = fake.0.lock();
            state.committed.insert(place, 1);
            state.coordinators.insert(group.into(), BrokerId(1));
        }
        let mut source = Collected::new(fake.clone());
        for calls in [&["commits 1 3"][..], &["commits 1 1"; 3][..]] {
            let deadline = Instant::now() + Duration::from_secs(5);
            let told = source.committed_topics(&groups, deadline).await;
            assert_eq!(told, vec![Some(vec!["orders".into()]); 3]);
            assert_eq!(fake.calls(), calls);
        }
        // Who is not asked about any more is forgotten.
        let deadline = Instant::now() + Duration::from_secs(5);
        source.committed_topics(&groups[..1], deadline).await;
        assert_eq!(source.told.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_topics_of_share_groups_are_listed_in_one_request() {
        let fake = Fake::with_topic("orders", 3);
        let groups: [Arc<str>; 3] = ["billing".into(), "mail".into(), "pack".into()];
        for share in ["mail", "pack"] {
            let mut state = fake.0.lock();
            state.shares.insert(share.into());
            state.coordinators.insert(share.into(), BrokerId(1));
        }
        let mail = ("mail".to_owned(), "orders".to_owned(), 0);
        fake.0.lock().share_starts.insert(mail, 3);
        let mut source = Collected::new(fake.clone());
        let asked = groups.iter().map(|group| Asked {
            group: Arc::clone(group),
            ..billing().remove(0)
        });
        round(&mut source, &asked.collect::<Vec<_>>()).await;
        fake.calls();
        let deadline = Instant::now() + Duration::from_secs(5);
        let told = source.committed_topics(&groups, deadline).await;
        let orders = || Some(vec!["orders".into()]);
        assert_eq!(told, [orders(), orders(), Some(vec![])]);
        assert_eq!(fake.calls(), ["commits 1 3", "shares 1 2"]);
    }
}
