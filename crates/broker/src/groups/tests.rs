//! Tests of the group state machine: instants are invented, nothing waits.

use super::group::{Answer, Due, Group, JoinAnswer, State, Sync, SyncAnswer};
use super::join::Join;
use bytes::Bytes;
use ottla_proto::Code;
use std::time::Duration;
use tokio::time::Instant;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(30);

/// A group under test with the answers it has given.
struct Test {
    group: Group,
    now: Instant,
    due: Due,
    next_ticket: u64,
}

impl Test {
    fn new() -> Self {
        Self::with_initial_delay(Duration::ZERO)
    }

    fn with_initial_delay(delay: Duration) -> Self {
        Self {
            group: Group::new(delay),
            now: Instant::now(),
            due: Due::new(),
            next_ticket: 0,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.group.handle_timeout(self.now, &mut self.due);
    }

    /// Steps to the group's own next deadline; how many seconds that was.
    fn pass_to_timeout(&mut self) -> u64 {
        let at = self.group.poll_timeout().expect("a deadline");
        let passed = at.saturating_duration_since(self.now);
        self.now = at.max(self.now);
        self.group.handle_timeout(self.now, &mut self.due);
        passed.as_secs()
    }

    fn join_with(&mut self, change: impl FnOnce(&mut Join)) -> u64 {
        self.next_ticket += 1;
        let mut join = Join {
            member_id: String::new(),
            instance: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"meta"))],
            ticket: self.next_ticket,
            new_id: format!("m{}", self.next_ticket),
            must_know_id: false,
            may_skip_assignment: true,
        };
        change(&mut join);
        self.group.join(self.now, &join, &mut self.due);
        self.next_ticket
    }

    fn join(&mut self, member_id: &str) -> u64 {
        self.join_with(|join| join.member_id = member_id.to_owned())
    }

    fn join_static(&mut self, instance: &str) -> u64 {
        self.join_with(|join| join.instance = Some(instance.to_owned()))
    }

    fn sync(&mut self, member_id: &str, generation: i32, assigned: &[(&str, &'static str)]) -> u64 {
        self.next_ticket += 1;
        let assigned = assigned.iter();
        let assigned = assigned.map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes())));
        let sync = Sync {
            member_id: member_id.to_owned(),
            instance: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assigned.collect(),
            ticket: self.next_ticket,
        };
        self.group.sync(self.now, &sync, &mut self.due);
        self.next_ticket
    }

    fn take(&mut self, ticket: u64) -> Option<Answer> {
        let index = self.due.iter().position(|(t, _)| *t == ticket)?;
        Some(self.due.remove(index).1)
    }

    fn joined(&mut self, ticket: u64) -> JoinAnswer {
        match self.take(ticket) {
            Some(Answer::Join(answer)) => answer,
            other => panic!("not a join's answer: {other:?}"),
        }
    }

    fn synced(&mut self, ticket: u64) -> SyncAnswer {
        match self.take(ticket) {
            Some(Answer::Sync(answer)) => answer,
            other => panic!("not a sync's answer: {other:?}"),
        }
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), Code> {
        self.group.heartbeat(self.now, member_id, None, generation)
    }

    /// m1 leads, m2 follows, both synced in generation 2.
    fn stable_pair() -> Self {
        let mut test = Self::new();
        let alone = test.join("");
        assert_eq!(test.joined(alone).generation, 1);
        let second = test.join("");
        assert_eq!(test.take(second), None, "m1 has not joined again");
        let first = test.join("m1");
        let leader = test.joined(first);
        assert_eq!((leader.generation, leader.leader.as_str()), (2, "m1"));
        let ids: Vec<&str> = leader.members.iter().map(|m| m.0.as_str()).collect();
        assert_eq!(ids, ["m1", "m2"]);
        assert_eq!(test.joined(second).members, []);
        let waits = test.sync("m2", 2, &[]);
        assert_eq!(test.take(waits), None, "the leader has not assigned");
        let leads = test.sync("m1", 2, &[("m1", "one"), ("m2", "two")]);
        assert_eq!(test.synced(leads).assignment, "one");
        assert_eq!(test.synced(waits).assignment, "two");
        assert_eq!(test.group.state, State::Stable);
        test
    }
}

#[test]
fn two_members_join_and_the_leader_assigns() {
    let mut test = Test::stable_pair();
    assert_eq!(test.heartbeat("m2", 2), Ok(()));
    let again = test.sync("m2", 2, &[]);
    assert_eq!(
        test.synced(again).assignment,
        "two",
        "a stable group answers at once"
    );
}

#[test]
fn requests_that_do_not_fit_are_refused_as_kafka_does() {
    let mut test = Test::stable_pair();
    assert_eq!(test.heartbeat("m9", 2), Err(Code::UNKNOWN_MEMBER_ID));
    assert_eq!(test.heartbeat("m1", 1), Err(Code::ILLEGAL_GENERATION));
    let stale = test.sync("m1", 1, &[]);
    assert_eq!(test.synced(stale).code, Code::ILLEGAL_GENERATION);
    let unknown = test.join("m9");
    assert_eq!(test.joined(unknown).code, Code::UNKNOWN_MEMBER_ID);
    let other_type = test.join_with(|join| join.protocol_type = "connect".to_owned());
    assert_eq!(
        test.joined(other_type).code,
        Code::INCONSISTENT_GROUP_PROTOCOL
    );
    let other_protocol = test.join_with(|join| join.protocols[0].0 = "sticky".to_owned());
    assert_eq!(
        test.joined(other_protocol).code,
        Code::INCONSISTENT_GROUP_PROTOCOL
    );
    assert_eq!(
        test.group.state,
        State::Stable,
        "none of it disturbed the group"
    );

    let third = test.join("");
    assert_eq!(test.heartbeat("m1", 2), Err(Code::REBALANCE_IN_PROGRESS));
    let early = test.sync("m1", 2, &[]);
    assert_eq!(test.synced(early).code, Code::REBALANCE_IN_PROGRESS);
    assert_eq!(test.take(third), None);
}

#[test]
fn commits_are_taken_from_members_and_into_empty_groups() {
    let mut test = Test::new();
    let now = test.now;
    let commit =
        |test: &mut Test, id: &str, generation| test.group.check_commit(now, id, None, generation);
    assert_eq!(commit(&mut test, "", -1), Ok(()), "a simple consumer");
    let mut test = Test::stable_pair();
    assert_eq!(commit(&mut test, "m1", 2), Ok(()));
    assert_eq!(commit(&mut test, "m1", 1), Err(Code::ILLEGAL_GENERATION));
    assert_eq!(commit(&mut test, "", -1), Err(Code::UNKNOWN_MEMBER_ID));
    test.join("");
    assert_eq!(
        commit(&mut test, "m1", 2),
        Ok(()),
        "before it joins again it may commit"
    );
    test.join("m1");
    test.join("m2");
    assert!(matches!(
        test.group.state,
        State::CompletingRebalance { .. }
    ));
    assert_eq!(commit(&mut test, "m1", 3), Err(Code::REBALANCE_IN_PROGRESS));
}

#[test]
fn a_new_member_must_ask_again_with_the_id_it_is_given() {
    let mut test = Test::new();
    let first = test.join_with(|join| join.must_know_id = true);
    let answer = test.joined(first);
    assert_eq!(
        (answer.code, answer.member_id.as_str()),
        (Code::MEMBER_ID_REQUIRED, "m1")
    );
    let forgetful = test.join_with(|join| join.must_know_id = true);
    assert_eq!(test.joined(forgetful).member_id, "m2");
    let known = test.join("m1");
    assert_eq!(test.take(known), None, "m2 may still come");
    assert_eq!(test.pass_to_timeout(), SESSION.as_secs());
    assert_eq!(test.joined(known).members.len(), 1);
}

#[test]
fn who_is_silent_expires_and_who_beats_does_not() {
    let mut test = Test::stable_pair();
    test.pass(6);
    assert_eq!(test.heartbeat("m1", 2), Ok(()));
    assert_eq!(
        test.pass_to_timeout(),
        4,
        "m2's session began with its sync"
    );
    assert_eq!(test.heartbeat("m2", 2), Err(Code::UNKNOWN_MEMBER_ID));
    assert_eq!(test.heartbeat("m1", 2), Err(Code::REBALANCE_IN_PROGRESS));
    let again = test.join("m1");
    let answer = test.joined(again);
    assert_eq!((answer.generation, answer.members.len()), (3, 1));
}

#[test]
fn a_rebalance_goes_on_without_who_does_not_join_in_time() {
    let mut test = Test::stable_pair();
    let third = test.join("");
    let first = test.join("m1");
    for _ in 0..3 {
        test.pass(9);
        // It beats but does not join: the heartbeat tells it to.
        assert_eq!(test.heartbeat("m2", 2), Err(Code::REBALANCE_IN_PROGRESS));
    }
    assert_eq!(test.take(third), None, "waiting members do not expire");
    assert_eq!(test.pass_to_timeout(), 3);
    assert_eq!(test.joined(first).members.len(), 2);
    assert_eq!(test.joined(third).generation, 3);
    assert_eq!(test.heartbeat("m2", 3), Err(Code::UNKNOWN_MEMBER_ID));
}

#[test]
fn a_leader_that_does_not_assign_is_removed() {
    let mut test = Test::new();
    let leader = test.join("");
    test.joined(leader);
    let follower = test.join("");
    test.join("m1");
    test.joined(follower);
    let waits = test.sync("m2", 2, &[]);
    for _ in 0..3 {
        test.pass(9);
        assert_eq!(test.heartbeat("m1", 2), Ok(()));
    }
    assert_eq!(test.take(waits), None);
    test.pass(3);
    assert_eq!(test.synced(waits).code, Code::REBALANCE_IN_PROGRESS);
    let again = test.join("m2");
    assert_eq!(test.joined(again).leader, "m2");
}

#[test]
fn a_member_that_leaves_makes_the_others_join_again() {
    let mut test = Test::stable_pair();
    let left = test.group.leave(test.now, "m1", None, &mut test.due);
    assert_eq!(left, Ok(()));
    assert_eq!(test.heartbeat("m2", 2), Err(Code::REBALANCE_IN_PROGRESS));
    let again = test.join("m2");
    assert_eq!(test.joined(again).leader, "m2");
    let left = test.group.leave(test.now, "m2", None, &mut test.due);
    assert_eq!((left, test.group.state), (Ok(()), State::Empty));
    assert_eq!(test.group.poll_timeout(), None);
    let gone = test.group.leave(test.now, "m2", None, &mut test.due);
    assert_eq!(gone, Err(Code::UNKNOWN_MEMBER_ID));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let mut test = Test::new();
    let first = test.join_static("i1");
    test.joined(first);
    let synced = test.sync("m1", 1, &[("m1", "one")]);
    test.synced(synced);
    let back = test.join_static("i1");
    let answer = test.joined(back);
    assert_eq!((answer.generation, answer.skip_assignment), (1, true));
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(test.group.state, State::Stable);
    let kept = test.sync(&answer.member_id, 1, &[]);
    assert_eq!(test.synced(kept).assignment, "one");
    let fenced = test.group.heartbeat(test.now, "m1", Some("i1"), 1);
    assert_eq!(fenced, Err(Code::FENCED_INSTANCE_ID));

    let changed = test.join_with(|join| {
        join.instance = Some("i1".to_owned());
        join.protocols[0].1 = Bytes::from_static(b"other topics");
    });
    assert_eq!(
        test.joined(changed).generation,
        2,
        "another subscription is another matter"
    );
}

#[test]
fn an_older_client_that_comes_back_is_not_told_that_it_leads() {
    let mut test = Test::new();
    let first = test.join_static("i1");
    test.joined(first);
    let synced = test.sync("m1", 1, &[]);
    test.synced(synced);
    let back = test.join_with(|join| {
        join.instance = Some("i1".to_owned());
        join.may_skip_assignment = false;
    });
    let answer = test.joined(back);
    assert_ne!(answer.leader, answer.member_id);
    assert_eq!((answer.members, answer.skip_assignment), (vec![], false));
}

#[test]
fn static_members_keep_their_place_through_a_rebalance_they_miss() {
    let mut test = Test::new();
    let fixed = test.join_with(|join| {
        join.instance = Some("i1".to_owned());
        join.session_timeout = Duration::from_secs(100);
    });
    test.joined(fixed);
    let other = test.join("");
    assert_eq!(test.pass_to_timeout(), REBALANCE.as_secs());
    let answer = test.joined(other);
    assert_eq!((answer.leader.as_str(), answer.members.len()), ("m2", 2));
    let left = test.group.leave(test.now, "", Some("i1"), &mut test.due);
    assert_eq!(left, Ok(()), "an operator removes it by its instance");
    assert_eq!(test.group.members.len(), 1);
}

#[test]
fn a_new_group_waits_for_its_first_members_to_gather() {
    let mut test = Test::with_initial_delay(Duration::from_secs(3));
    let first = test.join("");
    test.pass(2);
    let second = test.join("");
    test.pass(2);
    assert_eq!(
        test.take(first),
        None,
        "the second member began the wait anew"
    );
    test.pass(1);
    assert_eq!(test.joined(first).generation, 1);
    assert_eq!(test.joined(second).generation, 1);
}

#[test]
fn the_protocol_with_most_votes_wins_among_those_all_have() {
    let protocols = |names: &[&str]| -> Vec<(String, Bytes)> {
        names
            .iter()
            .map(|n| ((*n).to_owned(), Bytes::new()))
            .collect()
    };
    let mut test = Test::with_initial_delay(Duration::from_secs(1));
    let mut tickets = Vec::new();
    for names in [
        &["a", "b", "c"][..],
        &["b", "c"],
        &["x", "b", "c"],
        &["c", "b"],
    ] {
        tickets.push(test.join_with(|join| join.protocols = protocols(names)));
    }
    test.pass(1);
    assert_eq!(test.joined(tickets[0]).protocol.as_deref(), Some("b"));
}

#[test]
fn a_repeated_join_takes_the_place_of_the_first() {
    let mut test = Test::stable_pair();
    let first = test.join("m1");
    let second = test.join("m1");
    assert_eq!(test.joined(first).code, Code::REBALANCE_IN_PROGRESS);
    let other = test.join("m2");
    assert_eq!(test.joined(second).generation, 3);
    assert_eq!(test.joined(other).generation, 3);
    let lost = test.join("m2");
    assert_eq!(
        test.joined(lost).generation,
        3,
        "its answer may have been lost"
    );
}
