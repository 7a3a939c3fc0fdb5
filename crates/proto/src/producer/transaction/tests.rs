//! The core against answers made up by hand.

mod offsets;

use super::*;
use crate::code::Code;
use crate::error::ErrorKind;

const FIRST: Identity = Identity {
    producer_id: 7,
    epoch: 0,
};
const NEXT: Identity = Identity {
    producer_id: 7,
    epoch: 1,
};
const LEVEL_ONE: Answer = Answer::Feature {
    level: 1,
    epoch: Some(3),
};
const LEVEL_TWO: Answer = Answer::Feature {
    level: 2,
    epoch: Some(4),
};

/// The core with a clock that moves only when a request has to wait.
struct Bench {
    core: Transactions,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let core = Transactions::new(TransactionConfig {
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            seed: 5,
        });
        let now = Instant::now();
        Self { core, now }
    }

    /// A producer with the identity [`FIRST`] in an open transaction.
    fn open(feature: Answer) -> Self {
        let mut bench = Self::new();
        bench.answer(Answer::Identity(FIRST));
        bench.core.begin().unwrap();
        assert_eq!(bench.answer(feature), Request::FindProtocol);
        assert_eq!(bench.told(), "identified 7/0; begun");
        bench
    }

    /// The next request, after the wait that it asks for.
    fn request(&mut self) -> Option<(Ticket, Request)> {
        if let Some(at) = self.core.poll_timeout() {
            assert!(at - self.now <= Duration::from_millis(1200), "a long wait");
            assert_eq!(self.core.poll_request(self.now), None, "it should wait");
            self.now = at;
        }
        self.core.poll_request(self.now)
    }

    /// Gives an outcome to the next request, which is returned.
    fn end(&mut self, outcome: Outcome) -> Request {
        let (ticket, request) = self.request().expect("a request");
        assert_eq!(self.core.poll_request(self.now), None, "one at a time");
        self.core.handle_outcome(self.now, ticket, outcome);
        request
    }

    fn answer(&mut self, answer: Answer) -> Request {
        self.end(Outcome::Answered(answer))
    }

    fn lose(&mut self) -> Request {
        let error = Error::new(ErrorKind::Connection, "the connection broke");
        self.end(Outcome::Lost(error))
    }

    fn ended(&mut self, code: Code, next: Option<Identity>) -> Request {
        self.answer(Answer::Ended { code, next })
    }

    fn want(&mut self, number: u32) {
        self.core.want(PartitionIndex(number), partition(number));
    }

    /// The events so far, in words.
    fn told(&mut self) -> String {
        let mut words = Vec::new();
        while let Some(event) = self.core.poll_event() {
            words.push(match event {
                Event::Identified(identity) => {
                    format!("identified {}/{}", identity.producer_id, identity.epoch)
                }
                Event::Begun => "begun".to_owned(),
                Event::Admitted(index) => format!("admitted {}", index.0),
                Event::Offsets(Ok(())) => "offsets".to_owned(),
                Event::Offsets(Err(_)) => "no offsets".to_owned(),
                Event::Broken(error) => format!("broken{}", kind(&error)),
                Event::Refused(error) => format!("refused{}", kind(&error)),
                Event::Ended(decision) => format!("ended {decision:?}"),
                Event::Dead(error) => format!("dead{}", kind(&error)),
                Event::FindCoordinator => "find coordinator".to_owned(),
                Event::FindGroupCoordinator(group) => format!("find coordinator of {group}"),
            });
        }
        words.join("; ")
    }
}

/// What a caller is to do about it.
fn kind(error: &Error) -> String {
    let remedy = match (error.is_fatal(), error.requires_abort()) {
        (true, false) => " for good",
        (false, true) => " until the abort",
        other => panic!("{other:?}"),
    };
    match error.write_outcome() {
        Some(outcome) => format!("{remedy}, {outcome:?}"),
        None => remedy.to_owned(),
    }
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new("orders", i32::try_from(number).unwrap())
}

fn codes(codes: &[(u32, Code)]) -> Answer {
    let codes = codes
        .iter()
        .map(|(number, code)| (partition(*number), *code));
    Answer::Partitions(codes.collect())
}

fn end(identity: Identity, protocol: Protocol, decision: Decision) -> Request {
    Request::End {
        identity,
        protocol,
        decision,
    }
}

const fn identify(current: Identity) -> Request {
    Request::Identify {
        current: Some(current),
    }
}

#[test]
fn the_older_protocol_adds_partitions_and_keeps_its_epoch() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.want(1);
    let added = bench.answer(codes(&[(1, Code::NONE), (0, Code::NONE)]));
    let wanted = Request::AddPartitions {
        identity: FIRST,
        partitions: vec![partition(0), partition(1)],
    };
    assert_eq!(added, wanted);
    assert_eq!(bench.told(), "admitted 1; admitted 0");
    bench.core.end(Decision::Commit).unwrap();
    let request = bench.ended(Code::NONE, None);
    assert_eq!(request, end(FIRST, Protocol::One, Decision::Commit));
    assert_eq!(bench.told(), "ended Commit");
    bench.core.begin().unwrap();
    assert_eq!(bench.told(), "begun");
    assert_eq!(bench.request().unwrap().1, Request::FindProtocol);
}

#[test]
fn the_newer_protocol_adds_nothing_and_takes_the_epoch_of_each_end() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    assert_eq!(bench.told(), "admitted 0");
    assert_eq!(bench.request(), None);
    bench.core.end(Decision::Commit).unwrap();
    let request = bench.ended(Code::NONE, Some(NEXT));
    assert_eq!(request, end(FIRST, Protocol::Two, Decision::Commit));
    assert_eq!(bench.told(), "ended Commit; identified 7/1");
}

#[test]
fn used_up_epochs_bring_a_new_producer_id_with_the_end() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench.core.end(Decision::Abort).unwrap();
    let fresh = Identity {
        producer_id: 8,
        epoch: 0,
    };
    bench.ended(Code::NONE, Some(fresh));
    assert_eq!(bench.told(), "admitted 0; ended Abort; identified 8/0");
}

#[test]
fn an_end_that_tells_no_epoch_in_the_newer_protocol_is_followed_by_a_question_for_one() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench.core.end(Decision::Commit).unwrap();
    bench.ended(Code::NONE, None);
    assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
    assert_eq!(bench.told(), "admitted 0; ended Commit; identified 7/1");
}

#[test]
fn a_transaction_without_anything_ends_without_a_request() {
    for feature in [LEVEL_ONE, LEVEL_TWO] {
        for decision in [Decision::Commit, Decision::Abort] {
            let mut bench = Bench::open(feature.clone());
            bench.core.end(decision).unwrap();
            assert_eq!(bench.told(), format!("ended {decision:?}"));
            assert_eq!(bench.request(), None);
        }
    }
}

#[test]
fn the_protocol_is_looked_up_for_each_transaction_and_an_old_answer_does_not_count() {
    let mut bench = Bench::open(LEVEL_ONE);
    let mut next = |level, epoch| {
        bench.core.end(Decision::Commit).unwrap();
        bench.core.begin().unwrap();
        bench.answer(Answer::Feature { level, epoch });
        bench.core.protocol().unwrap()
    };
    assert_eq!(next(2, Some(4)), Protocol::Two);
    assert_eq!(next(1, Some(3)), Protocol::Two, "an older picture");
    assert_eq!(next(0, None), Protocol::Two, "no picture at all");
    assert_eq!(next(1, Some(5)), Protocol::One);
}

#[test]
fn the_protocol_stays_the_same_while_a_transaction_is_open() {
    let mut bench = Bench::new();
    bench.answer(Answer::Identity(FIRST));
    bench.core.begin().unwrap();
    bench.want(0);
    bench.told();
    bench.end(Outcome::NotSent(Error::new(
        ErrorKind::Connection,
        "nobody",
    )));
    assert_eq!(bench.told(), "", "nothing is sent before it is known");
    bench.answer(LEVEL_TWO);
    assert_eq!(bench.told(), "admitted 0");
    bench.want(1);
    assert_eq!(bench.told(), "admitted 1");
    assert_eq!(bench.request(), None);
}

#[test]
fn a_partition_that_waits_for_the_coordinator_holds_up_no_other() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.want(1);
    bench.answer(codes(&[
        (0, Code::UNKNOWN_TOPIC_OR_PARTITION),
        (1, Code::NONE),
    ]));
    assert_eq!(bench.told(), "admitted 1");
    let again = bench.answer(codes(&[(0, Code::NONE)]));
    assert!(matches!(again, Request::AddPartitions { partitions, .. } if partitions.len() == 1));
    assert_eq!(bench.told(), "admitted 0");
}

#[test]
fn an_answer_that_passes_a_partition_over_is_asked_for_again() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.answer(codes(&[]));
    assert_eq!(bench.told(), "");
    assert!(bench.core.poll_timeout().is_some(), "not at once");
    bench.answer(codes(&[(0, Code::NONE)]));
    assert_eq!(bench.told(), "admitted 0");
}

#[test]
fn a_partition_that_may_not_be_written_breaks_the_transaction_and_names_itself() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.want(1);
    bench.answer(codes(&[
        (0, Code::OPERATION_NOT_ATTEMPTED),
        (1, Code::TOPIC_AUTHORIZATION_FAILED),
    ]));
    let Some(Event::Broken(error)) = bench.core.poll_event() else {
        panic!("it is broken");
    };
    assert_eq!(error.place().partition, Some(partition(1)));
    assert!(error.requires_abort() && !error.is_fatal() && !error.is_retriable());
}

#[test]
fn a_broken_transaction_is_aborted_and_only_then_gets_a_new_epoch() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.answer(codes(&[(0, Code::NONE)]));
    bench
        .core
        .fail(Error::new(ErrorKind::Timeout, "a batch expired"));
    assert_eq!(bench.told(), "admitted 0; broken until the abort");
    assert_eq!(bench.request(), None, "the epoch stays while it is open");
    assert!(
        bench
            .core
            .end(Decision::Commit)
            .unwrap_err()
            .requires_abort()
    );
    let late = bench
        .core
        .commit_offsets(GroupMetadata::outside("g"), offsets::offsets(&[0]));
    assert!(late.unwrap_err().requires_abort());
    bench.core.end(Decision::Abort).unwrap();
    bench.core.begin().unwrap();
    bench.ended(Code::NONE, None);
    assert_eq!(
        bench.told(),
        "ended Abort",
        "the next one waits for the epoch"
    );
    assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
    assert_eq!(bench.told(), "identified 7/1; begun");
}

#[test]
fn a_broken_transaction_of_the_newer_protocol_gets_its_epoch_from_the_abort() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench
        .core
        .fail(Error::new(ErrorKind::Timeout, "a batch expired"));
    bench.core.end(Decision::Abort).unwrap();
    bench.ended(Code::NONE, Some(NEXT));
    let told = "admitted 0; broken until the abort; ended Abort; identified 7/1";
    assert_eq!(bench.told(), told);
    assert_eq!(bench.request(), None);
}

#[test]
fn an_end_without_an_answer_is_asked_for_again_and_its_epoch_is_never_used_again() {
    for decision in [Decision::Commit, Decision::Abort] {
        let mut bench = Bench::open(LEVEL_ONE);
        bench.want(0);
        bench.answer(codes(&[(0, Code::NONE)]));
        bench.core.end(decision).unwrap();
        bench.core.begin().unwrap();
        assert_eq!(bench.lose(), end(FIRST, Protocol::One, decision));
        assert_eq!(
            bench.ended(Code::NONE, None),
            end(FIRST, Protocol::One, decision)
        );
        assert_eq!(bench.told(), format!("admitted 0; ended {decision:?}"));
        assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
        assert_eq!(bench.told(), "identified 7/1; begun");
    }
}

#[test]
fn a_partition_added_without_an_answer_spends_the_epoch_too() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.lose();
    bench.answer(codes(&[(0, Code::NONE)]));
    bench.core.end(Decision::Commit).unwrap();
    bench.ended(Code::NONE, None);
    assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
}

#[test]
fn an_unknown_server_error_ends_nothing() {
    for feature in [LEVEL_ONE, LEVEL_TWO] {
        let mut bench = Bench::open(feature.clone());
        bench.want(0);
        if feature == LEVEL_ONE {
            bench.answer(codes(&[(0, Code::NONE)]));
        }
        bench.core.end(Decision::Commit).unwrap();
        let request = bench.ended(Code::UNKNOWN_SERVER_ERROR, Some(NEXT));
        assert_eq!(bench.told(), "admitted 0");
        let again = bench.ended(Code::NONE, Some(NEXT));
        assert_eq!(request, again);
        assert!(bench.told().starts_with("ended Commit"));
    }
}

#[test]
fn a_commit_that_is_fenced_says_whether_an_earlier_try_may_have_been_carried_out() {
    for code in [Code::PRODUCER_FENCED, Code::INVALID_PRODUCER_EPOCH] {
        let mut bench = Bench::open(LEVEL_TWO);
        bench.want(0);
        bench.core.end(Decision::Commit).unwrap();
        bench.ended(code, None);
        assert_eq!(bench.told(), "admitted 0; dead for good, NotWritten");
        let mut bench = Bench::open(LEVEL_TWO);
        bench.want(0);
        bench.core.end(Decision::Commit).unwrap();
        bench.lose();
        bench.ended(code, None);
        assert_eq!(bench.told(), "admitted 0; dead for good, Unknown");
        assert_eq!(bench.core.begin().unwrap_err().kind(), &ErrorKind::Fenced);
    }
}

#[test]
fn a_commit_that_the_coordinator_refuses_leaves_an_abort_to_be_done() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench.core.end(Decision::Commit).unwrap();
    bench.ended(Code::TRANSACTION_ABORTABLE, None);
    assert_eq!(
        bench.told(),
        "admitted 0; refused until the abort, NotWritten"
    );
    bench.core.end(Decision::Abort).unwrap();
    bench.ended(Code::NONE, Some(NEXT));
    assert_eq!(bench.told(), "ended Abort; identified 7/1");
}

#[test]
fn an_abort_of_what_never_reached_the_coordinator_is_told_once_a_new_epoch_proves_it() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.lose();
    bench.core.end(Decision::Abort).unwrap();
    bench.ended(Code::INVALID_TXN_STATE, None);
    assert_eq!(bench.told(), "");
    assert_eq!(bench.answer(Answer::Identity(NEXT)), identify(FIRST));
    assert_eq!(bench.told(), "ended Abort; identified 7/1");
}

#[test]
fn a_producer_that_is_refused_an_identity_is_of_no_use() {
    let mut bench = Bench::new();
    bench.core.begin().unwrap();
    bench.end(Outcome::Refused(Code::COORDINATOR_LOAD_IN_PROGRESS));
    bench.end(Outcome::Refused(Code::NOT_COORDINATOR));
    assert_eq!(bench.told(), "find coordinator");
    bench.end(Outcome::Refused(Code::INVALID_TRANSACTION_TIMEOUT));
    assert_eq!(bench.told(), "dead for good");
    assert_eq!(bench.request(), None);
    assert!(bench.core.begin().unwrap_err().is_fatal());
}

#[test]
fn a_new_epoch_that_is_refused_tells_of_the_one_who_took_over() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    bench.lose();
    bench.core.end(Decision::Abort).unwrap();
    bench.ended(Code::NONE, None);
    assert_eq!(
        bench.end(Outcome::Refused(Code::PRODUCER_FENCED)),
        identify(FIRST)
    );
    assert_eq!(bench.told(), "ended Abort; dead for good");
}

#[test]
fn a_producer_that_is_of_no_use_says_so_once() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    let (ticket, _) = bench.request().unwrap();
    bench
        .core
        .fail(Error::new(ErrorKind::Fenced, "a batch was fenced"));
    assert_eq!(bench.told(), "dead for good");
    let outcome = Outcome::Answered(codes(&[(0, Code::PRODUCER_FENCED)]));
    bench.core.handle_outcome(bench.now, ticket, outcome);
    assert_eq!(bench.told(), "");
    assert_eq!(bench.request(), None);
}

#[test]
fn waits_grow_to_the_longest_and_a_success_ends_them() {
    let mut bench = Bench::open(LEVEL_ONE);
    bench.want(0);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = bench.now;
        bench.lose();
        waits.push(bench.now - before);
    }
    assert_eq!(waits[0], Duration::ZERO);
    for (wait, nominal) in waits[1..].iter().zip([100, 200, 400, 800, 1000]) {
        let nominal = Duration::from_millis(nominal);
        assert!(
            *wait >= nominal * 8 / 10 && *wait <= nominal * 12 / 10,
            "{waits:?}"
        );
    }
    bench.answer(codes(&[(0, Code::NONE)]));
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn an_end_that_meets_its_predecessor_waits_only_shortly() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench.core.end(Decision::Commit).unwrap();
    bench.ended(Code::CONCURRENT_TRANSACTIONS, None);
    let wait = bench.core.poll_timeout().unwrap() - bench.now;
    assert!(wait <= CONCURRENT_WAIT * 12 / 10, "{wait:?}");
}

#[test]
fn an_outcome_under_an_old_ticket_changes_nothing() {
    let mut bench = Bench::open(LEVEL_TWO);
    bench.want(0);
    bench.core.end(Decision::Commit).unwrap();
    let (ticket, _) = bench.request().unwrap();
    let ended = |code| {
        Outcome::Answered(Answer::Ended {
            code,
            next: Some(NEXT),
        })
    };
    bench
        .core
        .handle_outcome(bench.now, ticket, ended(Code::NONE));
    let before = bench.told();
    assert_eq!(before, "admitted 0; ended Commit; identified 7/1");
    bench
        .core
        .handle_outcome(bench.now, ticket, ended(Code::PRODUCER_FENCED));
    assert_eq!(bench.told(), "");
}
