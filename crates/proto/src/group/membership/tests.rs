use super::*;
use crate::code::Code;
use crate::error::ErrorKind;
use crate::group::Assignment;

fn config(assignors: &[Assignor]) -> MembershipConfig {
    MembershipConfig {
        group: "g".into(),
        instance: None,
        session_timeout: Duration::from_secs(45),
        heartbeat_interval: Duration::from_secs(3),
        max_poll_interval: Duration::from_secs(300),
        assignors: assignors.to_vec(),
        rack: None,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
        seed: 1,
    }
}

/// A member and the clock it lives by.
struct Life {
    member: Membership,
    now: Instant,
}

const EAGER: &[Assignor] = &[Assignor::Range];
const COOPERATIVE: &[Assignor] = &[Assignor::CooperativeSticky];

fn partitions(numbers: &[i32]) -> Vec<TopicPartition> {
    numbers
        .iter()
        .map(|n| TopicPartition::new("t", *n))
        .collect()
}

impl Life {
    fn subscribed(config: MembershipConfig) -> Self {
        let now = Instant::now();
        let mut member = Membership::new(config, now);
        member.subscribe(now, [Arc::from("t")]);
        Self { member, now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.member.handle_timeout(self.now);
    }

    /// Steps to the next timeout.
    fn step(&mut self) {
        let at = self.member.poll_timeout().expect("something is due");
        self.now = self.now.max(at);
        self.member.handle_timeout(self.now);
    }

    fn join_request(&mut self) -> (Ticket, JoinRequest) {
        match self.member.poll_transmit() {
            Some(Transmit::Join(ticket, request)) => (ticket, request),
            other => panic!("a JoinGroup was due, not {other:?}"),
        }
    }

    fn sync_request(&mut self) -> (Ticket, SyncRequest) {
        match self.member.poll_transmit() {
            Some(Transmit::Sync(ticket, request)) => (ticket, request),
            other => panic!("a SyncGroup was due, not {other:?}"),
        }
    }

    fn heartbeat(&mut self) -> Ticket {
        match self.member.poll_transmit() {
            Some(Transmit::Heartbeat(ticket, _)) => ticket,
            other => panic!("a heartbeat was due, not {other:?}"),
        }
    }

    /// Joins as a follower and is given these partitions.
    fn join_as_follower(&mut self, generation: i32, numbers: &[i32]) {
        let (ticket, request) = self.join_request();
        let protocol = request.protocols[0].0;
        let answer = JoinAnswer {
            generation,
            protocol: Some(protocol.into()),
            leader: "other".into(),
            member_id: "me".into(),
            members: Vec::new(),
            skip_assignment: false,
        };
        self.member
            .handle_join(self.now, ticket, Outcome::Done(answer));
        let (ticket, request) = self.sync_request();
        assert!(request.assignments.is_empty());
        self.answer_sync(ticket, numbers);
    }

    fn answer_sync(&mut self, ticket: Ticket, numbers: &[i32]) {
        let assignment = Assignment {
            partitions: partitions(numbers),
            user_data: None,
        };
        let answer = SyncAnswer {
            assignment: assignment.encode(),
        };
        self.member
            .handle_sync(self.now, ticket, Outcome::Done(answer));
    }

    fn stable(config: MembershipConfig, numbers: &[i32]) -> Self {
        let mut life = Self::subscribed(config);
        life.join_as_follower(1, numbers);
        assert_eq!(life.events(), [format!("assigned {numbers:?}")]);
        life
    }

    fn beat(&mut self, answer: Outcome<()>) {
        self.step();
        let ticket = self.heartbeat();
        self.member.handle_heartbeat(self.now, ticket, answer);
    }

    fn events(&mut self) -> Vec<String> {
        let numbers =
            |p: Vec<TopicPartition>| p.into_iter().map(|p| p.partition).collect::<Vec<_>>();
        let mut shown = Vec::new();
        while let Some(event) = self.member.poll_event() {
            shown.push(match event {
                Event::Release(p) => format!("release {:?}", numbers(p)),
                Event::Assigned(p) => format!("assigned {:?}", numbers(p)),
                Event::Lost(p) => format!("lost {:?}", numbers(p)),
                Event::TopicsWanted(topics) => format!("topics {topics:?}"),
                Event::CoordinatorStale => "coordinator".to_owned(),
                Event::Failed(error) => format!("failed: {error}"),
            });
        }
        shown
    }
}

fn refuse<A>(code: Code) -> Outcome<A> {
    Outcome::Refused {
        code,
        member_id: None,
    }
}

#[test]
fn the_member_id_that_the_coordinator_names_is_taken_at_once() {
    let mut life = Life::subscribed(config(EAGER));
    let (ticket, request) = life.join_request();
    assert_eq!(&*request.identity.member_id, "");
    assert_eq!(request.rebalance_timeout, Duration::from_secs(300));
    let answer = Outcome::Refused {
        code: Code::MEMBER_ID_REQUIRED,
        member_id: Some("me-1".into()),
    };
    life.member.handle_join(life.now, ticket, answer);
    let (_, again) = life.join_request();
    assert_eq!(&*again.identity.member_id, "me-1");
    assert_eq!(again.identity.generation, None);
}

#[test]
fn the_leader_assigns_by_the_counts_it_asked_for() {
    let mut life = Life::subscribed(config(EAGER));
    let (ticket, request) = life.join_request();
    let metadata = request.protocols[0].1.clone();
    let joined = |id: &str| JoinedMember {
        member_id: id.into(),
        instance: None,
        metadata: metadata.clone(),
    };
    let answer = JoinAnswer {
        generation: 4,
        protocol: Some("range".into()),
        leader: "a".into(),
        member_id: "a".into(),
        members: vec![joined("a"), joined("b")],
        skip_assignment: false,
    };
    life.member
        .handle_join(life.now, ticket, Outcome::Done(answer));
    assert_eq!(life.events(), ["topics [\"t\"]"]);
    assert!(life.member.poll_transmit().is_none());
    life.member
        .handle_topics(TopicCounts::from([("t".into(), 3)]));
    let (ticket, request) = life.sync_request();
    let of = |index: usize| Assignment::decode(&request.assignments[index].1).unwrap();
    assert_eq!(of(0).partitions, partitions(&[0, 1]));
    assert_eq!(of(1).partitions, partitions(&[2]));
    life.answer_sync(ticket, &[0, 1]);
    assert_eq!(life.events(), ["assigned [0, 1]"]);

    // Bug class 22: the leader sees that a partition was added, and the group shares it out.
    life.member
        .handle_topics_changed(&TopicCounts::from([("t".into(), 3)]));
    assert!(life.events().is_empty());
    life.member
        .handle_topics_changed(&TopicCounts::from([("t".into(), 4)]));
    assert_eq!(life.events(), ["release [0, 1]"]);
}

#[test]
fn an_eager_member_gives_everything_up_before_it_joins_again_and_its_heart_beats_on() {
    let mut life = Life::stable(config(EAGER), &[0, 1]);
    life.beat(refuse(Code::REBALANCE_IN_PROGRESS));
    assert_eq!(life.events(), ["release [0, 1]"]);
    assert!(
        life.member.poll_transmit().is_none(),
        "joined before the user was done"
    );
    life.beat(refuse(Code::REBALANCE_IN_PROGRESS));
    assert!(life.events().is_empty());
    life.member.handle_released();
    let (_, request) = life.join_request();
    assert_eq!(request.identity.generation, Some(1));
    let subscription = Subscription::decode(&request.protocols[0].1).unwrap();
    assert!(subscription.owned.is_empty());
}

#[test]
fn a_cooperative_member_keeps_its_partitions_and_gives_up_only_what_moved() {
    let mut life = Life::stable(config(COOPERATIVE), &[0, 1]);
    life.beat(refuse(Code::REBALANCE_IN_PROGRESS));
    assert!(
        life.events().is_empty(),
        "nothing is given up before the join"
    );
    life.join_as_follower(2, &[0, 2]);
    assert_eq!(life.events(), ["assigned [2]", "release [1]"]);
    assert!(life.member.poll_transmit().is_none());
    life.member.handle_released();
    let (_, request) = life.join_request();
    let subscription = Subscription::decode(&request.protocols[0].1).unwrap();
    assert_eq!(subscription.owned, partitions(&[0, 2]));
    assert_eq!(subscription.generation, Some(2));
}

#[test]
fn a_member_the_coordinator_does_not_know_loses_all_and_joins_anew() {
    for code in [Code::UNKNOWN_MEMBER_ID, Code::ILLEGAL_GENERATION] {
        let mut life = Life::stable(config(EAGER), &[0]);
        life.beat(refuse(code));
        assert_eq!(life.events(), ["lost [0]"]);
        let (_, request) = life.join_request();
        assert_eq!(&*request.identity.member_id, "");
    }
}

#[test]
fn a_commit_that_was_fenced_costs_the_partitions_at_once() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.member
        .handle_commit_refused(life.now, Some(0), Code::ILLEGAL_GENERATION);
    assert!(
        life.events().is_empty(),
        "a commit of an earlier generation says nothing"
    );
    life.member
        .handle_commit_refused(life.now, Some(1), Code::ILLEGAL_GENERATION);
    assert_eq!(life.events(), ["lost [0]"]);
}

#[test]
fn a_user_who_asks_for_nothing_is_taken_out_and_comes_back_by_asking() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.now += Duration::from_secs(200);
    life.member.handle_polled(life.now);
    life.now += Duration::from_secs(299);
    life.member.handle_timeout(life.now);
    assert!(!life.events().iter().any(|event| event.starts_with("lost")));
    life.pass(Duration::from_secs(1));
    assert_eq!(life.events(), ["lost [0]"]);
    assert!(matches!(
        life.member.poll_transmit(),
        Some(Transmit::Leave(_))
    ));
    assert_eq!(
        life.member.poll_timeout(),
        None,
        "out of the group nothing is due"
    );
    life.member.handle_polled(life.now);
    let (_, request) = life.join_request();
    assert_eq!(&*request.identity.member_id, "");
}

#[test]
fn a_static_member_does_not_leave() {
    let mut life = Life::stable(
        MembershipConfig {
            instance: Some("i".into()),
            ..config(EAGER)
        },
        &[0],
    );
    life.member.leave();
    assert!(life.member.poll_transmit().is_none());
    let mut life = Life::stable(config(EAGER), &[0]);
    life.member.leave();
    assert!(matches!(
        life.member.poll_transmit(),
        Some(Transmit::Leave(_))
    ));
    assert_eq!(life.member.poll_timeout(), None);
}

#[test]
fn a_fenced_instance_is_final() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.beat(refuse(Code::FENCED_INSTANCE_ID));
    assert_eq!(
        life.events(),
        [
            "lost [0]",
            "failed: Heartbeat of group g was answered with FENCED_INSTANCE_ID"
        ]
    );
    assert_eq!(life.member.poll_timeout(), None);
}

#[test]
fn a_coordinator_that_moves_is_found_again_without_losing_the_partitions() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.beat(refuse(Code::NOT_COORDINATOR));
    assert_eq!(life.events(), ["coordinator"]);
    let before = life.now;
    life.beat(Outcome::Failed(Error::new(ErrorKind::Connection, "gone")));
    assert!(life.now > before, "asked again without a pause");
    assert!(life.now < before + Duration::from_secs(1));
    assert_eq!(life.events(), ["coordinator"]);
    life.beat(Outcome::Done(()));
    assert!(life.events().is_empty());
    assert_eq!(life.member.owned().count(), 1);
}

/// Bug class 24: a coordinator that refuses every join is asked at a growing distance.
#[test]
fn joins_that_fail_are_tried_at_growing_pauses() {
    let mut life = Life::subscribed(config(EAGER));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let (ticket, _) = life.join_request();
        let refused = refuse(Code::UNKNOWN_MEMBER_ID);
        life.member.handle_join(life.now, ticket, refused);
        let before = life.now;
        if life
            .member
            .poll_timeout()
            .is_some_and(|at| at < life.now + Duration::from_secs(10))
        {
            life.step();
        }
        pauses.push(life.now - before);
    }
    assert_eq!(
        pauses[0],
        Duration::ZERO,
        "the first time a fresh join follows at once"
    );
    assert!(pauses[1] >= Duration::from_millis(80));
    assert!(pauses[5] >= Duration::from_millis(800), "{pauses:?}");
}

/// Bug class 19: the answer to a join of an earlier life must not give partitions.
#[test]
fn answers_of_an_earlier_life_are_ignored() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.step();
    let beat = life.heartbeat();
    life.member
        .handle_commit_refused(life.now, Some(1), Code::UNKNOWN_MEMBER_ID);
    let (stale, _) = life.join_request();
    life.member
        .handle_heartbeat(life.now, beat, refuse(Code::FENCED_INSTANCE_ID));
    life.member
        .handle_join(life.now, stale, refuse(Code::COORDINATOR_LOAD_IN_PROGRESS));
    life.step();
    let answer = JoinAnswer {
        generation: 9,
        protocol: Some("range".into()),
        leader: "other".into(),
        member_id: "stale".into(),
        members: Vec::new(),
        skip_assignment: false,
    };
    life.member
        .handle_join(life.now, stale, Outcome::Done(answer));
    assert_eq!(life.member.identity().generation, None);
    assert_eq!(life.events(), ["lost [0]"]);
}

#[test]
fn an_assignment_that_cannot_be_read_ends_the_membership() {
    let mut life = Life::subscribed(config(EAGER));
    let (ticket, _) = life.join_request();
    let answer = JoinAnswer {
        generation: 1,
        protocol: Some("nobody-knows".into()),
        leader: "x".into(),
        member_id: "y".into(),
        members: Vec::new(),
        skip_assignment: false,
    };
    life.member
        .handle_join(life.now, ticket, Outcome::Done(answer));
    assert_eq!(
        life.events(),
        ["failed: the coordinator of group g chose no assignor of ours"]
    );
}

#[test]
fn a_subscription_that_changes_during_a_join_is_followed_by_another() {
    let mut life = Life::subscribed(config(EAGER));
    life.member
        .subscribe(life.now, [Arc::from("t"), Arc::from("u")]);
    life.join_as_follower(1, &[0]);
    assert_eq!(life.events(), ["assigned [0]", "release [0]"]);
    life.member.handle_released();
    let (_, request) = life.join_request();
    let subscription = Subscription::decode(&request.protocols[0].1).unwrap();
    assert_eq!(subscription.topics.len(), 2);
}

#[test]
fn a_silent_coordinator_is_given_up_after_the_session() {
    let mut life = Life::stable(config(EAGER), &[0]);
    life.step();
    let _unanswered = life.heartbeat();
    life.step();
    assert_eq!(life.events(), ["coordinator"]);
    let _again = life.heartbeat();
    assert_eq!(life.member.owned().count(), 1);
}

#[test]
fn a_group_that_may_not_be_joined_fails_and_a_lost_connection_does_not() {
    let refused = Error::broker(
        Code::GROUP_AUTHORIZATION_FAILED,
        "FindCoordinator of group g",
    );
    let lost = Error::new(ErrorKind::Connection, "gone");
    for (error, fails) in [(refused, true), (lost, false)] {
        let mut life = Life::subscribed(config(EAGER));
        let (ticket, _) = life.join_request();
        life.member
            .handle_join(life.now, ticket, Outcome::Failed(error));
        let failed = life
            .events()
            .iter()
            .any(|event| event.starts_with("failed"));
        assert_eq!(failed, fails);
        assert_eq!(life.member.poll_timeout().is_none(), fails);
    }
}
