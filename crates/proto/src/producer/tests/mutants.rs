//! Corners of the core that a small change breaks unseen.

use super::hard::*;
use super::transaction::{Answer, Decision, Outcome, Request, TransactionConfig, Transactions};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::topic::TopicId;

impl Many {
    fn has(&self, is: impl Fn(&Event<u32>) -> bool) -> bool {
        self.events.iter().any(is)
    }

    fn failed(&mut self) -> Vec<u32> {
        self.take_events();
        let failed = |event: &Event<u32>| match event {
            Event::Failed { token, .. } => Some(*token),
            _ => None,
        };
        self.events.iter().filter_map(failed).collect()
    }
}

fn transactional() -> Many {
    let config = Config {
        transactional: true,
        ..config()
    };
    many(1, config)
}

#[test]
fn two_batches_in_doubt_behind_a_hole_do_not_wait_for_each_others_proof() {
    let mut bench = bench().proven();
    let hole = bench.push();
    let behind = [bench.push(), bench.push()];
    for sent in bench.all_sent() {
        bench.lose(sent);
    }
    bench.wait();
    let again = bench.all_sent();
    bench.answer(again[0], Code::INVALID_RECORD);
    assert_eq!(bench.failed, [(hole, WriteOutcome::Unknown)]);
    bench.lose(again[1]);
    bench.lose(again[2]);
    for _ in 0..10 {
        for sent in bench.all_sent() {
            let known = sent.epoch == 1;
            let code = match known {
                true => Code::NONE,
                false => Code::OUT_OF_ORDER_SEQUENCE_NUMBER,
            };
            bench.answer(sent, code);
        }
        bench.pass(SECOND);
    }
    assert_eq!(bench.acked, behind);
}

#[test]
fn a_request_that_never_left_is_no_attempt() {
    let config = Config {
        retries: 0,
        ..config()
    };
    let mut many = many(1, config);
    many.push(0, 1, 1);
    let first = many.sent();
    many.sender
        .handle_unanswered(many.now, first.request, Unanswered::NotSent);
    assert!(many.failed().is_empty());
    many.pass(SECOND);
    let second = many.sent();
    many.sender
        .handle_unanswered(many.now, second.request, Unanswered::Lost);
    assert_eq!(many.failed(), [1], "now it was tried");
}

#[test]
fn bug_13_an_older_view_of_a_leaderless_partition_asks_for_a_newer_one() {
    let mut bench = bench().proven();
    bench.push();
    let set = |bench: &mut Bench, leader, epoch| {
        bench
            .sender
            .set_leader(bench.now, bench.partition, leader, Some(epoch), None);
        std::iter::from_fn(|| bench.sender.poll_event()).any(|e| matches!(e, Event::Refresh))
    };
    assert!(set(&mut bench, None, 3));
    assert!(set(&mut bench, Some(LEADER), 2));
    assert!(bench.sent().is_none());
}

#[test]
fn bug_7_a_topic_made_anew_between_transactions_breaks_the_next_one_at_once() {
    let mut many = transactional();
    let partition = PartitionIndex(0);
    let leads = |many: &mut Many, id: u128| {
        let id = Some(TopicId(id.to_be_bytes()));
        many.sender
            .set_leader(many.now, partition, Some(LEADER), Some(1), id);
    };
    leads(&mut many, 1);
    many.sender.admit(many.now, partition);
    many.push(0, 1, 1);
    let sent = many.sent();
    many.answer(&sent, Code::NONE);
    many.sender.close_admissions();
    leads(&mut many, 2);
    let is_broken = |event: &Event<u32>| matches!(event, Event::TransactionBroken(_));
    many.take_events();
    assert!(!many.has(is_broken), "nothing of a transaction is lost yet");
    many.push(0, 2, 1);
    many.take_events();
    assert!(
        many.has(is_broken),
        "the new log does not know its sequences"
    );
    let aborted = Error::new(ErrorKind::State, "aborted");
    many.sender.fail_unsent(&aborted);
    assert_eq!(many.failed(), [2]);
}

#[test]
fn an_abort_ends_unsent_batches_also_behind_one_that_waits_for_its_retry() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    let sent = many.sent();
    many.push(0, 2, 1);
    many.answer(&sent, Code::NOT_ENOUGH_REPLICAS);
    let aborted = Error::new(ErrorKind::State, "aborted");
    many.sender.fail_unsent(&aborted);
    assert_eq!(many.failed(), [2]);
    many.pass(SECOND);
    let again = many.sent();
    many.answer(&again, Code::NONE);
    assert_eq!(many.acked(), [1]);
}

#[test]
fn a_partition_listed_at_the_end_of_a_transaction_asks_for_the_next_one_at_once() {
    let mut many = transactional();
    let partition = PartitionIndex(0);
    many.sender.set_connected(LEADER, Lane::Main, false);
    many.push(0, 1, 1);
    many.sender.admit(many.now, partition);
    let aborted = Error::new(ErrorKind::State, "aborted");
    many.sender.fail_unsent(&aborted);
    many.sender.close_admissions();
    many.take_events();
    many.events.clear();
    many.push(0, 2, 1);
    many.take_events();
    let asks = |event: &Event<u32>| matches!(event, Event::NeedAdmission(_));
    assert!(many.has(asks));
}

#[test]
fn a_transaction_that_broke_before_anything_was_sent_is_followed_by_a_new_epoch() {
    let now = Instant::now();
    let mut core = Transactions::new(TransactionConfig {
        retry_backoff: SECOND,
        retry_backoff_max: SECOND,
        seed: 1,
    });
    let identity = Identity {
        producer_id: 9,
        epoch: 0,
    };
    let (ticket, _) = core.poll_request(now).unwrap();
    core.handle_outcome(now, ticket, Outcome::Answered(Answer::Identity(identity)));
    core.begin().unwrap();
    core.fail(Error::new(ErrorKind::State, "made anew"));
    core.end(Decision::Abort).unwrap();
    let asked = core.poll_request(now).map(|(_, request)| request);
    let current = Some(identity);
    assert_eq!(asked, Some(Request::Identify { current }));
}
