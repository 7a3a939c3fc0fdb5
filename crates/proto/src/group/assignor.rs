//! Who reads what: the leader's decision, by Kafka's assignors.

use super::codec::Subscription;
use super::sticky;
use crate::topic::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many partitions each topic has.
pub type TopicCounts = BTreeMap<Arc<str>, i32>;

/// What a member may keep while the group rebalances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Every member gives up everything before it joins.
    Eager,
    /// A member keeps what it holds, and gives up only what the new assignment moves (KIP-429).
    Cooperative,
}

/// A rule that shares partitions out among members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Topic by topic, consecutive partitions to each member.
    Range,
    /// All partitions of all topics dealt out in turn.
    RoundRobin,
    /// As even as can be, moving as little as can be, and moving in two steps.
    CooperativeSticky,
}

/// One member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub id: Arc<str>,
    /// Its own name, if it is a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// What it wants and holds.
    pub subscription: Subscription,
}

impl GroupMember {
    /// Static members first, by their own name, so that a restart changes nothing; as in Java.
    fn rank(&self) -> (bool, &str) {
        match &self.instance {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        self.subscription.topics.iter().any(|one| &**one == topic)
    }
}

impl Assignor {
    /// Kafka's name for it, as in `partition.assignment.strategy` and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The assignor of that name; the Java class names are known too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.rsplit('.').next().unwrap_or(name) {
            "range" | "RangeAssignor" => Some(Self::Range),
            "roundrobin" | "RoundRobinAssignor" => Some(Self::RoundRobin),
            "cooperative-sticky" | "CooperativeStickyAssignor" => Some(Self::CooperativeSticky),
            _ => None,
        }
    }

    /// The protocol that members can follow who may be asked to use any of `assignors`: cooperative
    /// only if each of them can move partitions in two steps, as in Java.
    pub fn protocol(assignors: &[Assignor]) -> RebalanceProtocol {
        let cooperative = |one: &Assignor| *one == Assignor::CooperativeSticky;
        if !assignors.is_empty() && assignors.iter().all(cooperative) {
            RebalanceProtocol::Cooperative
        } else {
            RebalanceProtocol::Eager
        }
    }

    /// What a member adds to its subscription for this assignor.
    pub(super) fn user_data(self, generation: Option<i32>) -> Option<Vec<u8>> {
        match self {
            Self::Range | Self::RoundRobin => None,
            // Members older than subscription version 2 look for the generation here.
            Self::CooperativeSticky => Some(generation.unwrap_or(-1).to_be_bytes().to_vec()),
        }
    }

    /// Shares the partitions of `topics` out among `members`. Every member is in the answer.
    /// Topics that are not in `topics` are left out.
    pub fn assign(
        self,
        members: &[GroupMember],
        topics: &TopicCounts,
    ) -> BTreeMap<Arc<str>, Vec<TopicPartition>> {
        let mut ranked: Vec<&GroupMember> = members.iter().collect();
        ranked.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let shares = match self {
            Self::Range => range(&ranked, topics),
            Self::RoundRobin => round_robin(&ranked, topics),
            Self::CooperativeSticky => sticky::assign_cooperatively(&ranked, topics),
        };
        let ids = ranked.iter().map(|member| Arc::clone(&member.id));
        ids.zip(shares).collect()
    }
}

/// The topics that at least one member wants and that exist, with the members that want each.
pub(super) fn wanted<'a>(
    members: &[&GroupMember],
    topics: &'a TopicCounts,
) -> BTreeMap<&'a Arc<str>, (i32, Vec<usize>)> {
    let names: BTreeSet<&Arc<str>> = members
        .iter()
        .flat_map(|member| &member.subscription.topics)
        .collect();
    names
        .into_iter()
        .filter_map(|name| topics.get_key_value(name))
        .map(|(name, count)| {
            let takers = members.iter().enumerate();
            let takers = takers.filter(|(_, m)| m.wants(name)).map(|(i, _)| i);
            (name, (*count, takers.collect()))
        })
        .collect()
}

fn range(members: &[&GroupMember], topics: &TopicCounts) -> Vec<Vec<TopicPartition>> {
    let mut shares = vec![Vec::new(); members.len()];
    for (topic, (count, takers)) in wanted(members, topics) {
        let taker_count = i32::try_from(takers.len()).unwrap_or(i32::MAX).max(1);
        let (each, extra) = (count / taker_count, count % taker_count);
        let mut next = 0;
        for (nth, taker) in (0i32..).zip(takers) {
            let length = each + i32::from(nth < extra);
            if let Some(share) = shares.get_mut(taker) {
                let numbers = next..next + length;
                share.extend(numbers.map(|n| TopicPartition::new(Arc::clone(topic), n)));
            }
            next += length;
        }
    }
    shares
}

fn round_robin(members: &[&GroupMember], topics: &TopicCounts) -> Vec<Vec<TopicPartition>> {
    let mut shares = vec![Vec::new(); members.len()];
    let mut turn = 0;
    for (topic, (count, takers)) in wanted(members, topics) {
        for number in 0..count {
            // The next member in the circle that wants this topic.
            let Some(taker) = takers.iter().find(|t| **t >= turn).or(takers.first()) else {
                break;
            };
            if let Some(share) = shares.get_mut(*taker) {
                share.push(TopicPartition::new(Arc::clone(topic), number));
            }
            turn = (taker + 1) % members.len().max(1);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> GroupMember {
        GroupMember {
            id: id.into(),
            instance: None,
            subscription: Subscription {
                topics: topics.iter().map(|t| Arc::from(*t)).collect(),
                ..Subscription::default()
            },
        }
    }

    fn counts(topics: &[(&str, i32)]) -> TopicCounts {
        topics.iter().map(|(t, n)| (Arc::from(*t), *n)).collect()
    }

    fn shown(assignor: Assignor, members: &[GroupMember], topics: &TopicCounts) -> Vec<String> {
        let shares = assignor.assign(members, topics);
        let show = |(id, partitions): (&Arc<str>, &Vec<TopicPartition>)| {
            let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{id}: {}", names.join(" "))
        };
        shares.iter().map(show).collect()
    }

    /// The example in Java's `RangeAssignor` documentation.
    #[test]
    fn range_gives_consecutive_partitions_of_each_topic() {
        let members = [member("c1", &["t0", "t1"]), member("c0", &["t0", "t1"])];
        assert_eq!(
            shown(Assignor::Range, &members, &counts(&[("t0", 3), ("t1", 3)])),
            ["c0: t0-0 t0-1 t1-0 t1-1", "c1: t0-2 t1-2"]
        );
    }

    /// The examples in Java's `RoundRobinAssignor` documentation.
    #[test]
    fn round_robin_deals_out_and_skips_who_does_not_want() {
        let members = [member("c0", &["t0", "t1"]), member("c1", &["t0", "t1"])];
        assert_eq!(
            shown(
                Assignor::RoundRobin,
                &members,
                &counts(&[("t0", 3), ("t1", 3)])
            ),
            ["c0: t0-0 t0-2 t1-1", "c1: t0-1 t1-0 t1-2"]
        );
        let uneven = [
            member("c0", &["t0"]),
            member("c1", &["t0", "t1"]),
            member("c2", &["t0", "t1", "t2"]),
        ];
        assert_eq!(
            shown(
                Assignor::RoundRobin,
                &uneven,
                &counts(&[("t0", 1), ("t1", 2), ("t2", 3)])
            ),
            ["c0: t0-0", "c1: t1-0", "c2: t1-1 t2-0 t2-1 t2-2"]
        );
    }

    #[test]
    fn members_without_partitions_and_unknown_topics_are_in_the_answer() {
        let members = [
            member("a", &["t"]),
            member("b", &["t"]),
            member("c", &["gone"]),
        ];
        for assignor in [
            Assignor::Range,
            Assignor::RoundRobin,
            Assignor::CooperativeSticky,
        ] {
            let shown = shown(assignor, &members, &counts(&[("t", 1)]));
            assert_eq!(shown, ["a: t-0", "b: ", "c: "], "{}", assignor.name());
        }
    }

    #[test]
    fn static_members_keep_their_place_whatever_their_member_id() {
        let named = |id: &str, instance: &str| GroupMember {
            instance: Some(instance.into()),
            ..member(id, &["t"])
        };
        let topics = counts(&[("t", 2)]);
        let before = Assignor::Range.assign(&[named("x", "one"), named("y", "two")], &topics);
        let after = Assignor::Range.assign(&[named("z", "one"), named("y", "two")], &topics);
        assert_eq!(before.get("x"), after.get("z"));
    }

    #[test]
    fn only_a_list_of_cooperative_assignors_is_cooperative() {
        use RebalanceProtocol::{Cooperative, Eager};
        let sticky = Assignor::CooperativeSticky;
        assert_eq!(Assignor::protocol(&[sticky]), Cooperative);
        assert_eq!(Assignor::protocol(&[sticky, Assignor::Range]), Eager);
        assert_eq!(Assignor::protocol(&[]), Eager);
        let class = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        assert_eq!(Assignor::from_name(class), Some(sticky));
    }
}
