//! The cooperative sticky assignment: even, stable, and in two steps.
//!
//! A partition that changes hands is first given to nobody: its old owner sees that it is gone,
//! gives it up and joins again, and only the next assignment gives it to the new owner. So no
//! partition is read by two members at once, and nobody stops reading what it keeps.

use super::assignor::{GroupMember, TopicCounts, wanted};
use crate::topic::TopicPartition;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The member index that owns, or shall own, each partition.
type Owners = BTreeMap<TopicPartition, usize>;

/// Each member's share, in the order of `members`.
pub(super) fn assign_cooperatively(
    members: &[&GroupMember],
    topics: &TopicCounts,
) -> Vec<Vec<TopicPartition>> {
    let claims = claims(members);
    let mut table = Table::new(members, topics, &claims);
    table.settle();
    let mut shares = vec![Vec::new(); members.len()];
    for (partition, owner) in table.owners {
        let held_elsewhere = match claims.get(&partition) {
            Some(Claim::Of(holder)) => *holder != owner,
            Some(Claim::Disputed) => true,
            None => false,
        };
        if let (false, Some(share)) = (held_elsewhere, shares.get_mut(owner)) {
            share.push(partition);
        }
    }
    shares
}

/// Who says that it holds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Of(usize),
    /// Two members of one generation: neither is believed, and both have to give it up first.
    Disputed,
}

/// Who holds what. When two members name one partition, the newer generation is right.
fn claims(members: &[&GroupMember]) -> BTreeMap<TopicPartition, Claim> {
    let mut claims: BTreeMap<TopicPartition, (i32, Claim)> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let generation = generation(member);
        for partition in &member.subscription.owned {
            let claim = match claims.get(partition) {
                Some((other, _)) if *other > generation => continue,
                Some((other, _)) if *other == generation => Claim::Disputed,
                _ => Claim::Of(index),
            };
            claims.insert(partition.clone(), (generation, claim));
        }
    }
    let bare = claims
        .into_iter()
        .map(|(partition, (_, claim))| (partition, claim));
    bare.collect()
}

/// The generation a member got its partitions in; -1 for one that never had any.
fn generation(member: &GroupMember) -> i32 {
    let written = member.subscription.user_data.as_deref();
    let fallback = || {
        written?
            .first_chunk::<4>()
            .map(|bytes| i32::from_be_bytes(*bytes))
    };
    member
        .subscription
        .generation
        .or_else(fallback)
        .unwrap_or(-1)
}

struct Table {
    owners: Owners,
    loads: Vec<usize>,
    /// The members that want each partition's topic.
    takers: BTreeMap<TopicPartition, Rc<[usize]>>,
}

impl Table {
    /// Everybody keeps what is theirs and still wanted.
    fn new(
        members: &[&GroupMember],
        topics: &TopicCounts,
        claims: &BTreeMap<TopicPartition, Claim>,
    ) -> Self {
        let mut table = Self {
            owners: Owners::new(),
            loads: vec![0; members.len()],
            takers: BTreeMap::new(),
        };
        for (topic, (count, takers)) in wanted(members, topics) {
            let takers: Rc<[usize]> = takers.into();
            for number in 0..count {
                let partition = TopicPartition::new(topic.clone(), number);
                if let Some(Claim::Of(holder)) = claims.get(&partition)
                    && takers.contains(holder)
                {
                    table.give(partition.clone(), *holder);
                }
                table.takers.insert(partition, Rc::clone(&takers));
            }
        }
        table
    }

    fn give(&mut self, partition: TopicPartition, to: usize) {
        if let Some(load) = self.loads.get_mut(to) {
            *load += 1;
        }
        let from = self.owners.insert(partition, to);
        if let Some(load) = from.and_then(|from| self.loads.get_mut(from)) {
            *load -= 1;
        }
    }

    fn load(&self, member: usize) -> usize {
        self.loads.get(member).copied().unwrap_or(usize::MAX)
    }

    fn lightest(&self, takers: &[usize]) -> Option<usize> {
        takers
            .iter()
            .copied()
            .min_by_key(|taker| (self.load(*taker), *taker))
    }

    /// Gives every free partition to the lightest member that wants it, those with the fewest
    /// takers first, then moves partitions while a move makes the shares more even. Each move
    /// lowers the sum of squared loads, so it ends.
    fn settle(&mut self) {
        let taken = |partition: &TopicPartition| self.owners.contains_key(partition);
        let mut free: Vec<TopicPartition> =
            self.takers.keys().filter(|p| !taken(p)).cloned().collect();
        free.sort_by_key(|p| self.takers.get(p).map_or(0, |takers| takers.len()));
        for partition in free {
            let takers = self.takers.get(&partition);
            if let Some(to) = takers.and_then(|takers| self.lightest(takers)) {
                self.give(partition, to);
            }
        }
        while self.even_out() {}
    }

    /// One pass over all partitions, the highest numbers first so that the lowest stay where they
    /// are. Says whether anything moved.
    fn even_out(&mut self) -> bool {
        let mut order: Vec<TopicPartition> = self.owners.keys().cloned().collect();
        order.sort_by_key(|p| Reverse((p.partition, p.topic.clone())));
        let mut moved = false;
        for partition in order {
            let Some(from) = self.owners.get(&partition).copied() else {
                continue;
            };
            let takers = self.takers.get(&partition);
            let Some(to) = takers.and_then(|takers| self.lightest(takers)) else {
                continue;
            };
            if self.load(to) + 1 < self.load(from) {
                self.give(partition, to);
                moved = true;
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Assignor, Subscription};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn member(id: &str, generation: i32, owned: &[i32]) -> GroupMember {
        GroupMember {
            id: id.into(),
            instance: None,
            subscription: Subscription {
                topics: vec!["t".into()],
                user_data: None,
                owned: owned.iter().map(|n| TopicPartition::new("t", *n)).collect(),
                generation: Some(generation),
                rack: None,
            },
        }
    }

    fn numbers(members: &[GroupMember], count: i32) -> Vec<Vec<i32>> {
        let topics = TopicCounts::from([(Arc::from("t"), count)]);
        let shares = Assignor::CooperativeSticky.assign(members, &topics);
        shares
            .values()
            .map(|share| share.iter().map(|p| p.partition).collect())
            .collect()
    }

    #[test]
    fn a_partition_that_moves_is_given_to_nobody_at_first() {
        let joined = [member("a", 1, &[0, 1, 2, 3]), member("b", -1, &[])];
        assert_eq!(numbers(&joined, 4), [vec![0, 1], vec![]]);
        let given_up = [member("a", 2, &[0, 1]), member("b", 2, &[])];
        assert_eq!(numbers(&given_up, 4), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_departure_moves_only_what_the_departed_had() {
        let left = [member("a", 3, &[0, 3]), member("c", 3, &[2, 5])];
        assert_eq!(numbers(&left, 6), [vec![0, 1, 3], vec![2, 4, 5]]);
    }

    #[test]
    fn a_stale_member_does_not_get_a_partition_that_another_holds() {
        let stale = [member("a", 5, &[0]), member("b", 4, &[0, 1])];
        assert_eq!(numbers(&stale, 2), [vec![0], vec![1]]);
    }

    #[test]
    fn two_claims_of_one_generation_are_both_refused() {
        let disputed = [member("a", 5, &[0]), member("b", 5, &[0])];
        assert_eq!(numbers(&disputed, 1), [Vec::<i32>::new(), vec![]]);
    }

    #[test]
    fn a_member_older_than_version_two_names_its_generation_in_the_user_data() {
        let mut old = member("b", 0, &[0, 1]);
        old.subscription.generation = None;
        old.subscription.user_data = Some(4i32.to_be_bytes().to_vec());
        assert_eq!(generation(&old), 4);
        assert_eq!(numbers(&[member("a", 5, &[0]), old], 2), [vec![0], vec![1]]);
    }

    proptest! {
        #[test]
        fn two_rounds_reach_an_even_and_complete_assignment(
            holders in proptest::collection::vec(proptest::option::of(0usize..5), 1..40),
            member_count in 1usize..6,
        ) {
            let count = i32::try_from(holders.len()).unwrap();
            let held = |index: usize| -> Vec<i32> {
                let mine = |(n, holder): (i32, &Option<usize>)| (*holder == Some(index)).then_some(n);
                (0i32..).zip(&holders).filter_map(mine).collect()
            };
            let first: Vec<GroupMember> = (0..member_count)
                .map(|i| member(&format!("m{i}"), 1, &held(i)))
                .collect();
            let kept = numbers(&first, count);
            for (index, share) in kept.iter().enumerate() {
                for n in share {
                    let holder = holders[usize::try_from(*n).unwrap()];
                    let held_by_another = holder.is_some_and(|h| h < member_count && h != index);
                    prop_assert!(!held_by_another, "{n} went to m{index} while held");
                }
            }
            let keeps = |i: usize| -> Vec<i32> {
                held(i).into_iter().filter(|n| kept[i].contains(n)).collect()
            };
            let mut second = Vec::new();
            for (i, share) in kept.iter().enumerate() {
                prop_assert!(keeps(i).iter().all(|n| share.contains(n)));
                second.push(member(&format!("m{i}"), 2, share));
            }
            let last = numbers(&second, count);
            let mut all: Vec<i32> = last.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            let sizes: Vec<usize> = last.iter().map(Vec::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
