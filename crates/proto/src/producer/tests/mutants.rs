//! Corners of the core that a small change breaks unseen.

use super::hard::*;
use super::transaction::{Answer, Decision, Outcome, Request, TransactionConfig, Transactions};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::topic::TopicId;

impl Many {
    pub(super) fn has(&self, is: impl Fn(&Event<u32>) -> bool) -> bool {
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
    many.sender.fail_waiting(&aborted, false);
    assert_eq!(many.failed(), [2]);
}

#[test]
fn an_abort_ends_what_waits_but_only_a_fenced_one_ends_what_may_be_written() {
    for (fenced, ended) in [(false, vec![2]), (true, vec![1, 2])] {
        let mut many = transactional();
        many.sender.admit(many.now, PartitionIndex(0));
        let mut many = many.proven(1);
        many.push(0, 1, 1);
        let sent = many.sent();
        many.push(0, 2, 1);
        lose(&mut many, &sent);
        let aborted = Error::new(ErrorKind::State, "aborted");
        many.sender.fail_waiting(&aborted, fenced);
        assert_eq!(many.failed(), ended);
        assert_eq!(many.sender.is_in_flight(), !fenced);
        many.pass(SECOND);
        if !fenced {
            let again = many.sent();
            many.answer(&again, Code::NONE);
            assert_eq!(many.acked(), [1]);
        }
    }
}

#[test]
fn a_partition_listed_at_the_end_of_a_transaction_asks_for_the_next_one_at_once() {
    let mut many = transactional();
    let partition = PartitionIndex(0);
    many.sender.set_connected(LEADER, Lane::Main, false);
    many.push(0, 1, 1);
    many.sender.admit(many.now, partition);
    let aborted = Error::new(ErrorKind::State, "aborted");
    many.sender.fail_waiting(&aborted, false);
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

fn outcomes(many: &mut Many) -> Vec<(u32, Option<WriteOutcome>)> {
    many.take_events();
    let failed = |event: &Event<u32>| match event {
        Event::Failed { token, error, .. } => Some((*token, error.write_outcome())),
        _ => None,
    };
    many.events.iter().filter_map(failed).collect()
}

fn lose(many: &mut Many, sent: &Transmit) {
    many.sender
        .handle_unanswered(many.now, sent.request, Unanswered::Lost);
    many.take_events();
}

fn lead(many: &mut Many, leader: BrokerId, epoch: i32, id: u128) {
    let id = Some(TopicId(id.to_be_bytes()));
    many.sender
        .set_leader(many.now, PartitionIndex(0), Some(leader), Some(epoch), id);
}

#[test]
fn a_topic_made_anew_counts_its_leaders_epochs_anew() {
    let mut many = many(1, config());
    many.sender.set_connected(OTHER, Lane::Main, true);
    lead(&mut many, LEADER, 7, 1);
    lead(&mut many, OTHER, 0, 2);
    many.push(0, 1, 1);
    assert_eq!(many.sent().broker, OTHER);
}

#[test]
fn bug_7_a_batch_in_doubt_goes_alone_to_the_new_log_and_is_stamped_anew_when_refused() {
    let mut many = many(1, config());
    lead(&mut many, LEADER, 1, 1);
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    let sent = many.sent();
    lose(&mut many, &sent);
    lead(&mut many, LEADER, 0, 2);
    many.push(0, 2, 1);
    many.pass(SECOND);
    let again = many.sent();
    assert_eq!(stamp(&again), stamp(&sent));
    assert!(many.sender.poll_transmit(many.now).is_none());
    many.answer(&again, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    many.pass(SECOND);
    let again = many.sent();
    assert_eq!(stamp(&again), stamp(&sent));
    many.answer(&again, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    many.pass(SECOND);
    let anew = many.sent();
    assert_eq!(stamp(&anew), (1, 0));
    many.answer(&anew, Code::NONE);
    assert_eq!(many.acked(), [1]);
}

#[test]
fn of_two_holes_the_first_explains_a_refused_sequence() {
    let mut many = many(1, config()).proven(1);
    for token in 1..=3 {
        many.push(0, token, 1);
    }
    let [first, doubt, third] = [many.sent(), many.sent(), many.sent()];
    many.answer(&first, Code::INVALID_RECORD);
    lose(&mut many, &doubt);
    many.answer(&third, Code::INVALID_RECORD);
    many.pass(SECOND);
    for _ in 0..2 {
        let asked = many.sent();
        many.answer(&asked, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        many.pass(2 * SECOND);
    }
    let anew = many.sent();
    assert_eq!(stamp(&anew), (1, 0));
    many.answer(&anew, Code::NONE);
    assert_eq!(many.acked(), [2]);
}

#[test]
fn under_an_epoch_of_the_coordinator_the_first_batch_goes_alone() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    let mut many = many.proven(1);
    many.sender.begin_epoch(
        many.now,
        Identity {
            producer_id: 9,
            epoch: 1,
        },
    );
    many.push(0, 1, 1);
    many.push(0, 2, 1);
    assert_eq!(stamp(&many.sent()), (1, 0));
    assert!(many.sender.poll_transmit(many.now).is_none());
}

#[test]
fn both_halves_of_a_cut_batch_count_among_the_five_that_the_broker_remembers() {
    for behind in [4, 3] {
        let mut many = many(1, config()).proven(1);
        many.push(0, 1, 2);
        for token in 2..2 + behind {
            many.push(0, token, 1);
        }
        let whole = many.sent();
        let refused: Vec<_> = (0..behind).map(|_| many.sent()).collect();
        many.answer(&whole, Code::MESSAGE_TOO_LARGE);
        for sent in &refused {
            many.answer(sent, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        many.cut(10, 11);
        let five: Vec<_> = (0..5).map(|_| many.sent()).collect();
        lose(&mut many, &five[0]);
        for sent in &five[1..] {
            many.answer(sent, Code::NONE);
        }
        many.push(0, 20, 1);
        many.pass(SECOND);
        assert_eq!(stamp(&many.sent()), stamp(&five[0]));
        assert!(
            many.sender.poll_transmit(many.now).is_none(),
            "one more would push the doubt out of the broker's memory"
        );
    }
}

#[test]
fn until_what_is_in_flight_behind_it_is_answered_no_half_is_sent() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 2);
    many.push(0, 2, 1);
    let [whole, behind] = [many.sent(), many.sent()];
    many.answer(&whole, Code::MESSAGE_TOO_LARGE);
    many.cut(10, 11);
    assert!(many.sender.poll_transmit(many.now).is_none());
    many.answer(&behind, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(stamp(&many.sent()), stamp(&whole));
}

#[test]
fn both_halves_of_a_batch_that_was_in_doubt_once_are_called_unknown() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 1);
    many.push(0, 2, 2);
    let [hole, doubt] = [many.sent(), many.sent()];
    many.answer(&hole, Code::INVALID_RECORD);
    lose(&mut many, &doubt);
    many.pass(SECOND);
    for _ in 0..2 {
        let asked = many.sent();
        many.answer(&asked, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        many.pass(2 * SECOND);
    }
    let anew = many.sent();
    many.answer(&anew, Code::MESSAGE_TOO_LARGE);
    many.cut(10, 11);
    many.events.clear();
    many.pass(121 * SECOND);
    let unknown = Some(WriteOutcome::Unknown);
    assert_eq!(outcomes(&mut many), [(10, unknown), (11, unknown)]);
}

#[test]
fn a_request_given_up_is_doubt_but_no_attempt() {
    let config = Config {
        retries: 0,
        ..stalling()
    };
    let mut many = many(2, config).proven(2);
    many.push(0, 1, 1);
    many.push(1, 2, 1);
    assert_eq!(many.sent().batches.len(), 2);
    many.pass(2 * STALL);
    assert_eq!(many.failed(), []);
    many.pass(121 * SECOND);
    let unknown = Some(WriteOutcome::Unknown);
    assert_eq!(outcomes(&mut many), [(1, unknown), (2, unknown)]);
}

#[test]
fn a_batch_too_large_whose_time_is_over_is_not_cut() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 2);
    let sent = many.sent();
    many.now += 121 * SECOND;
    many.answer(&sent, Code::MESSAGE_TOO_LARGE);
    let refused = Some(WriteOutcome::NotWritten);
    assert_eq!(outcomes(&mut many), [(1, refused)]);
}

#[test]
fn a_hint_that_is_no_news_is_not_followed_at_once() {
    let mut bench = bench().proven();
    bench.push();
    let sent = bench.sent().unwrap();
    let hint = LeaderHint {
        leader: LEADER,
        leader_epoch: 1,
    };
    bench.answer_with(sent, Code::NOT_LEADER_OR_FOLLOWER, Some(hint));
    assert_eq!(bench.sent(), None, "it would be asked without a pause");
}

#[test]
fn bug_7_a_late_hint_of_a_topic_that_was_made_anew_moves_nothing() {
    let ids = [1, 2].map(|id| Some(TopicId([id; 16])));
    for remade in [true, false] {
        let mut many = many(1, config()).proven(1);
        let index = PartitionIndex(0);
        let set_leader = |many: &mut Many, id| {
            let (now, epoch) = (many.now, Some(2));
            many.sender.set_leader(now, index, Some(LEADER), epoch, id);
        };
        set_leader(&mut many, ids[0]);
        many.push(0, 1, 1);
        let sent = many.sent();
        set_leader(&mut many, ids[usize::from(remade)]);
        let hint = LeaderHint {
            leader: OTHER,
            leader_epoch: 40,
        };
        let answer = PartitionAnswer {
            topic: AnsweredTopic::Id(ids[0].unwrap()),
            leader_hint: Some(hint),
            ..answered(Code::NOT_LEADER_OR_FOLLOWER)
        };
        let answer = alone(answer);
        many.sender.handle_answer(many.now, sent.request, &answer);
        many.take_events();
        let moved = |event: &Event<u32>| matches!(event, Event::Moved(..));
        assert_eq!(many.has(moved), !remade);
    }
}

#[test]
fn records_that_the_broker_names_are_told_with_the_failure() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 3);
    let sent = many.sent();
    super::lanes::refuse(&mut many, &sent, &[2]);
    let names = |event: &Event<u32>| match event {
        Event::Failed { record_errors, .. } => *record_errors == refused(&[2]).record_errors,
        _ => false,
    };
    assert!(many.has(names));
}

#[test]
fn a_batch_that_an_answer_passes_over_may_be_written() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 1);
    let sent = many.sent();
    let empty = ProduceAnswer::default();
    many.sender.handle_answer(many.now, sent.request, &empty);
    many.pass(121 * SECOND);
    assert_eq!(outcomes(&mut many), [(1, Some(WriteOutcome::Unknown))]);
}

#[test]
fn only_the_oldest_request_of_a_lane_that_stalls_goes_apart_and_one_at_a_time() {
    let mut many = many(3, stalling()).proven(3);
    many.push(0, 1, 1);
    many.push(1, 2, 1);
    assert_eq!(many.sent().batches.len(), 2);
    many.push(2, 3, 1);
    many.sent();
    many.pass(2 * STALL);
    many.sender.set_connected(LEADER, Lane::Main, true);
    let mut sent: Vec<_> = std::iter::from_fn(|| many.sender.poll_transmit(many.now))
        .map(|t| (t.lane, t.batches[0].partition.0, t.batches.len()))
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, [(Lane::Main, 2, 1), (Lane::Apart, 0, 1)]);
}

#[test]
fn each_request_of_a_lane_is_given_its_own_time_once_it_is_the_oldest() {
    let mut many = many(3, stalling()).proven(3);
    many.push(0, 1, 1);
    let first = many.sent();
    many.push(1, 2, 1);
    many.push(2, 3, 1);
    assert_eq!(many.sent().batches.len(), 2);
    many.now += STALL / 2;
    many.answer(&first, Code::NONE);
    let due = many.sender.poll_timeout().unwrap();
    assert!(due >= many.now + STALL && due < many.now + 4 * STALL);
}

#[test]
fn a_partition_that_went_apart_begins_on_the_main_lane_of_its_next_leader() {
    let mut many = many(2, stalling()).proven(2);
    many.sender.set_connected(OTHER, Lane::Main, true);
    many.push(0, 1, 1);
    many.push(1, 2, 1);
    many.sent();
    many.pass(2 * STALL);
    let moved = PartitionIndex(0);
    many.sender
        .set_leader(many.now, moved, Some(OTHER), Some(2), None);
    let sent: Vec<_> = std::iter::from_fn(|| many.sender.poll_transmit(many.now))
        .map(|transmit| (transmit.broker, transmit.lane))
        .collect();
    assert!(sent.contains(&(OTHER, Lane::Main)), "{sent:?}");
}

#[test]
fn bug_7_a_topic_made_anew_within_a_transaction_breaks_it_at_once() {
    let mut many = transactional();
    lead(&mut many, LEADER, 1, 1);
    many.sender.admit(many.now, PartitionIndex(0));
    let mut many = many.proven(1);
    lead(&mut many, LEADER, 0, 2);
    many.take_events();
    assert!(many.has(|event| matches!(event, Event::TransactionBroken(_))));
}

fn breaks(many: &mut Many) -> bool {
    many.take_events();
    many.has(|event| matches!(event, Event::TransactionBroken(_)))
}

#[test]
fn a_record_that_fails_breaks_its_transaction_also_with_nothing_behind_it() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    many.push(0, 1, 1);
    let sent = many.sent();
    many.answer(&sent, Code::INVALID_RECORD);
    assert!(breaks(&mut many));
}

#[test]
fn a_record_that_expires_in_flight_breaks_its_transaction_before_it_is_answered() {
    let mut many = transactional();
    many.sender.admit(many.now, PartitionIndex(0));
    many.push(0, 1, 1);
    many.sent();
    many.pass(121 * SECOND);
    assert!(breaks(&mut many));
}

#[test]
fn what_is_in_flight_when_the_producer_ends_may_be_written_and_the_rest_is_not() {
    let mut many = many(1, config());
    many.push(0, 1, 1);
    many.sent();
    many.push(0, 2, 1);
    many.sender.fail_all();
    let mut told = outcomes(&mut many);
    told.sort_unstable_by_key(|(token, _)| *token);
    let (unknown, not) = (WriteOutcome::Unknown, WriteOutcome::NotWritten);
    assert_eq!(told, [(1, Some(unknown)), (2, Some(not))]);
}

#[test]
fn bug_7_of_two_batches_in_doubt_only_the_first_goes_to_the_new_log() {
    let mut many = many(1, config());
    lead(&mut many, LEADER, 1, 1);
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    many.push(0, 2, 1);
    for sent in [many.sent(), many.sent()] {
        lose(&mut many, &sent);
    }
    lead(&mut many, LEADER, 0, 2);
    many.pass(SECOND);
    many.sent();
    assert!(many.sender.poll_transmit(many.now).is_none());
}

#[test]
fn a_batch_that_cannot_be_cut_fails_and_the_next_goes_on() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 2);
    let sent = many.sent();
    many.push(0, 2, 1);
    many.sender.poll_event();
    many.answer(&sent, Code::MESSAGE_TOO_LARGE);
    let split = many.events.iter().find_map(|event| match event {
        Event::Split(split) => Some((split.partition, split.ordinal)),
        _ => None,
    });
    let (partition, ordinal) = split.unwrap();
    let error = Error::new(ErrorKind::State, "unreadable");
    many.sender
        .refuse_halves(many.now, partition, ordinal, 1, &error);
    let not_written = Some(WriteOutcome::NotWritten);
    assert_eq!(outcomes(&mut many), [(1, not_written)]);
    assert_eq!(stamp(&many.sent()), (1, 0));
}

#[test]
fn each_broken_transaction_is_told() {
    let mut many = transactional();
    for token in 1..=2 {
        many.sender.admit(many.now, PartitionIndex(0));
        many.push(0, token, 1);
        let sent = many.sent();
        many.events.clear();
        many.answer(&sent, Code::INVALID_RECORD);
        assert!(breaks(&mut many));
        many.sender.close_admissions();
        let epoch = i16::try_from(token).unwrap();
        let next = Identity {
            producer_id: 9,
            epoch,
        };
        many.sender.begin_epoch(many.now, next);
    }
}
