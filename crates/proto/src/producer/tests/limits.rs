//! Each limit, and each thing that must be said, alone.

use super::hard::{self, STALL, many, stalling};
use super::*;
use crate::error::{Error, ErrorKind};

#[test]
fn partitions_that_stood_ready_when_their_lane_was_given_up_get_a_new_connection() {
    let config = Config {
        requests_max: 1,
        ..stalling()
    };
    let mut many = many(2, config).proven(2);
    many.push(0, 10, 1);
    let stuck = many.sent();
    many.push(1, 11, 1);
    many.pass(STALL * 2);
    let asked = |event: &Event<u32>| matches!(event, Event::Connect(LEADER, Lane::Main));
    assert!(many.events.iter().any(asked), "{stuck:?} {:?}", many.events);
}

#[test]
fn a_producer_id_that_is_refused_says_that_the_windows_are_open_again() {
    let mut sender: Sender<u32> = Sender::new(config());
    let now = Instant::now();
    let partition = sender.add_partition(TopicPartition::new("t", 0));
    sender.set_leader(now, partition, Some(LEADER), Some(1), None);
    let batch = Batch::new(1, 1, now + SECOND, Some(hard::records(1)));
    sender.push(now, partition, batch);
    assert!(!sender.has_room(partition));
    let events = |sender: &mut Sender<u32>| {
        std::iter::from_fn(|| sender.poll_event())
            .filter(|event| matches!(event, Event::Room(_)))
            .count()
    };
    assert_eq!(events(&mut sender), 0);
    let error = Error::new(ErrorKind::State, "no producer id");
    sender.refuse_identity(&error);
    // An open batch that lingered meanwhile waits for this word alone.
    assert!(sender.has_room(partition));
    assert_eq!(events(&mut sender), 1);
}

fn without(idempotent: bool, change: impl FnOnce(&mut Config)) -> Bench {
    let mut bench = bench();
    let mut config = Config {
        idempotent,
        ..config()
    };
    change(&mut config);
    bench.sender = Sender::new(config);
    bench.partition = bench.sender.add_partition(TopicPartition::new("t", 0));
    let identity = Identity {
        producer_id: 9,
        epoch: 0,
    };
    bench.sender.set_identity(bench.now, identity);
    for broker in [LEADER, OTHER] {
        bench.sender.set_connected(broker, Lane::Main, true);
    }
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(LEADER), Some(1), None);
    bench
}

fn with(change: impl FnOnce(&mut Config)) -> Bench {
    without(true, change)
}

#[test]
fn retries_are_as_many_as_allowed_and_no_more() {
    let mut bench = with(|config| config.retries = 2).proven();
    let batch = bench.push();
    for attempt in 0..3 {
        assert_eq!(bench.failed, [], "after {attempt} attempts");
        let sent = bench.sent().unwrap();
        bench.answer(sent, Code::NOT_ENOUGH_REPLICAS);
        bench.pass(2 * SECOND);
    }
    assert_eq!(bench.failed, [(batch, WriteOutcome::NotWritten)]);
    assert_eq!(bench.sent(), None);
}

#[test]
fn requests_in_flight_are_as_many_as_allowed_and_no_more() {
    for most in [1, 3] {
        let mut bench = with(|config| config.requests_max = most).proven();
        for _ in 0..5 {
            bench.push();
        }
        let sent = bench.all_sent();
        assert_eq!(sent.len(), most);
        bench.answer(sent[0], Code::NONE);
        assert_eq!(bench.all_sent().len(), 1, "one answer makes room for one");
    }
}

#[test]
fn without_sequences_one_batch_of_a_partition_is_in_flight() {
    let mut bench = without(false, |_| {}).proven();
    let batches = [bench.push(), bench.push()];
    let first = bench.all_sent();
    assert_eq!(first.len(), 1);
    bench.lose(first[0]);
    bench.pass(2 * SECOND);
    let again = bench.all_sent();
    assert_eq!((again.len(), again[0].batch), (1, batches[0]), "in order");
}

#[test]
fn behind_a_hole_nothing_new_goes_out_until_everything_is_answered() {
    let mut bench = bench().proven();
    bench.push();
    bench.push();
    let sent = bench.all_sent();
    bench.answer(sent[0], Code::INVALID_RECORD);
    let new = bench.push();
    bench.pass(SECOND);
    assert_eq!(bench.sent(), None, "the second one is unanswered");
    bench.answer(sent[1], Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    bench.pass(SECOND);
    let second = bench.sent().unwrap();
    assert_eq!((second.epoch, second.sequence), (1, 0));
    bench.answer(second, Code::NONE);
    assert_eq!(bench.sent().map(|sent| sent.batch), Some(new));
}

/// Whether a newer view of the cluster was asked for since the last look.
fn refresh_asked(bench: &mut Bench) -> bool {
    let mut asked = false;
    while let Some(event) = bench.sender.poll_event() {
        asked |= matches!(event, Event::Refresh);
    }
    asked
}

fn lone_answer(code: Code, leader_hint: Option<LeaderHint>) -> ProduceAnswer {
    alone(PartitionAnswer {
        base_offset: Some(7).filter(|_| code == Code::NONE),
        log_append_time: Some(1_234).filter(|_| code == Code::NONE),
        leader_hint,
        ..answered(code)
    })
}

#[test]
fn a_newer_view_is_asked_for_when_something_says_that_ours_is_old() {
    let codes = [
        (Code::NOT_LEADER_OR_FOLLOWER, true),
        (Code::FENCED_LEADER_EPOCH, true),
        (Code::NOT_ENOUGH_REPLICAS, false),
        (Code::REQUEST_TIMED_OUT, false),
    ];
    for (code, wanted) in codes {
        let mut bench = bench().proven();
        bench.push();
        let sent = bench.sent().unwrap();
        refresh_asked(&mut bench);
        let answer = lone_answer(code, None);
        bench.sender.handle_answer(bench.now, sent.request, &answer);
        assert_eq!(refresh_asked(&mut bench), wanted, "{code}");
    }
    for why in [Unanswered::Lost, Unanswered::NotSent] {
        let mut bench = bench().proven();
        bench.push();
        let sent = bench.sent().unwrap();
        refresh_asked(&mut bench);
        bench.sender.handle_unanswered(bench.now, sent.request, why);
        assert!(refresh_asked(&mut bench), "{why:?}");
    }
    let mut bench = bench().proven();
    bench
        .sender
        .set_leader(bench.now, bench.partition, None, Some(2), None);
    refresh_asked(&mut bench);
    bench.push();
    assert!(refresh_asked(&mut bench), "a batch without a leader");
}

#[test]
fn only_a_request_that_left_may_have_been_written() {
    let outcomes = [
        (Unanswered::NotSent, WriteOutcome::NotWritten),
        (Unanswered::Lost, WriteOutcome::Unknown),
    ];
    for (why, outcome) in outcomes {
        let mut bench = bench().proven();
        let batch = bench.push();
        let sent = bench.sent().unwrap();
        bench.sender.handle_unanswered(bench.now, sent.request, why);
        bench.pass(121 * SECOND);
        assert_eq!(bench.failed, [(batch, outcome)], "{why:?}");
    }
}

#[test]
fn after_a_long_silence_one_batch_goes_first_again() {
    for (hours, together) in [(11, 3), (13, 1)] {
        let mut bench = bench().proven();
        bench.now += Duration::from_secs(hours * 3600);
        for _ in 0..3 {
            bench.push();
        }
        assert_eq!(bench.all_sent().len(), together, "after {hours} h");
    }
}

#[test]
fn waits_grow_with_each_failure_and_begin_anew_after_a_success() {
    let wait = |bench: &mut Bench| {
        let sent = bench.sent().unwrap();
        bench.answer(sent, Code::NOT_ENOUGH_REPLICAS);
        let due = bench.sender.poll_timeout().unwrap() - bench.now;
        bench.wait();
        due
    };
    let mut bench = bench().proven();
    bench.push();
    let waits: Vec<Duration> = (0..5).map(|_| wait(&mut bench)).collect();
    let between = |wait: Duration, millis: u64| {
        let usual = Duration::from_millis(millis);
        wait >= usual * 8 / 10 && wait <= usual * 12 / 10
    };
    let grown = waits.iter().zip([100, 200, 400, 800, 1_000]);
    assert!(grown.into_iter().all(|(w, m)| between(*w, m)), "{waits:?}");
    let sent = bench.sent().unwrap();
    bench.answer(sent, Code::NONE);
    bench.push();
    assert!(between(wait(&mut bench), 100), "a success forgets them");
}

#[test]
fn a_new_leader_ends_the_wait() {
    let mut bench = bench().proven();
    bench.push();
    let sent = bench.sent().unwrap();
    bench.answer(sent, Code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(bench.sent(), None);
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(LEADER), Some(1), None);
    assert_eq!(bench.sent(), None, "the same leader is no news");
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(OTHER), Some(2), None);
    assert_eq!(bench.sent().map(|sent| sent.broker), Some(OTHER));
}

#[test]
fn what_an_answer_says_of_leader_and_time_is_passed_on() {
    let mut bench = bench().proven();
    bench.push();
    let sent = bench.sent().unwrap();
    let hint = LeaderHint {
        leader: OTHER,
        leader_epoch: 2,
    };
    let answer = lone_answer(Code::NOT_LEADER_OR_FOLLOWER, Some(hint));
    bench.sender.handle_answer(bench.now, sent.request, &answer);
    let events: Vec<_> = std::iter::from_fn(|| bench.sender.poll_event()).collect();
    let moved = |event: &Event<u32>| {
        matches!(event, Event::Moved(partition, None, told)
            if *partition == TopicPartition::new("t", 0) && *told == hint)
    };
    assert!(events.iter().any(moved), "{events:?}");
    let sent = bench.sent().unwrap();
    let answer = lone_answer(Code::NONE, None);
    bench.sender.handle_answer(bench.now, sent.request, &answer);
    let told = std::iter::from_fn(|| bench.sender.poll_event()).find_map(|event| match event {
        Event::Acknowledged { ack, .. } => Some(ack),
        _ => None,
    });
    let ack = Ack {
        base_offset: Some(7),
        log_append_time: Some(1_234),
    };
    assert_eq!(told, Some(ack));
}

/// Pushes a batch that is given up after so many seconds, as one that is sent once more after it had
/// failed is later than one that was begun before.
fn push_until(many: &mut hard::Many, token: u32, seconds: u32) {
    let deadline = many.now + seconds * SECOND;
    let batch = Batch::new(token, 1, deadline, Some(hard::records(1)));
    many.sender.push(many.now, PartitionIndex(0), batch);
}

fn failed(many: &mut hard::Many) -> Vec<u32> {
    many.take_events();
    let failed = |event: &Event<u32>| match event {
        Event::Failed { token, .. } => Some(*token),
        _ => None,
    };
    many.events.iter().filter_map(failed).collect()
}

#[test]
fn a_batch_expires_in_its_time_behind_one_that_may_wait_longer() {
    let mut many = many(1, config());
    many.sender
        .set_leader(many.now, PartitionIndex(0), None, Some(2), None);
    for (token, seconds) in [(1, 120), (2, 50), (3, 90), (4, 20)] {
        push_until(&mut many, token, seconds);
    }
    let begun = many.now;
    for (seconds, expired) in [(20, &[4][..]), (50, &[4, 2]), (90, &[4, 2, 3])] {
        let due = many.sender.poll_timeout().unwrap();
        assert_eq!(due - begun, seconds * SECOND);
        many.pass(due - many.now);
        assert_eq!(failed(&mut many), expired);
    }
    many.sender
        .set_leader(many.now, PartitionIndex(0), Some(LEADER), Some(3), None);
    let sent = many.sent();
    many.answer(&sent, Code::NONE);
    assert_eq!(many.acked(), [1]);
}

#[test]
fn a_batch_that_is_put_back_before_one_of_less_time_does_not_hide_its_deadline() {
    let mut many = many(1, config());
    push_until(&mut many, 1, 120);
    let sent = many.sent();
    push_until(&mut many, 2, 1);
    many.answer(&sent, Code::NOT_ENOUGH_REPLICAS);
    many.pass(SECOND / 2);
    let due = many.sender.poll_timeout().unwrap();
    assert_eq!(due - many.now, SECOND / 2);
    many.pass(SECOND / 2);
    assert_eq!(failed(&mut many), [2]);
    let sent = many.sent();
    many.answer(&sent, Code::NONE);
    assert_eq!(many.acked(), [1]);
}

#[test]
fn a_timer_that_came_too_early_is_put_right_and_ends_nothing() {
    let mut many = many(1, config());
    push_until(&mut many, 1, 20);
    let sent = many.sent();
    many.answer(&sent, Code::NONE);
    assert_eq!(many.acked(), [1]);
    push_until(&mut many, 2, 50);
    let _unanswered = many.sent();
    push_until(&mut many, 3, 40);
    for due in [20, 20] {
        many.pass(due * SECOND);
    }
    assert_eq!(failed(&mut many), [3]);
    many.pass(10 * SECOND);
    assert_eq!(failed(&mut many), [3, 2]);
}
