//! Batches too large, lanes that stall, topics made anew, transactions.

use super::*;
use crate::batch::SealedRecords;
use crate::error::{Error, ErrorKind};
use crate::topic::TopicId;

pub(super) const STALL: Duration = Duration::from_millis(500);

pub(super) fn records(count: u32) -> SealedRecords {
    let mut writer = BatchWriter::new();
    writer.add_chunk(Vec::with_capacity(4096));
    for _ in 0..count {
        writer.append(&Record::to("t").value("v"), 0).unwrap();
    }
    writer.seal(Bytes::from)
}

pub(super) fn stamp(transmit: &Transmit) -> (i16, i32) {
    let header = transmit.batches[0].header;
    (
        i16::from_be_bytes(header[51..53].try_into().unwrap()),
        i32::from_be_bytes(header[53..57].try_into().unwrap()),
    )
}

/// A sender over several partitions of one broker.
pub(super) struct Many {
    pub(super) sender: Sender<u32>,
    pub(super) now: Instant,
    pub(super) events: Vec<Event<u32>>,
}

pub(super) fn many(partitions: i32, config: Config) -> Many {
    let now = Instant::now();
    let mut sender = Sender::new(config);
    sender.set_identity(
        now,
        Identity {
            producer_id: 9,
            epoch: 0,
        },
    );
    for lane in Lane::ALL {
        sender.set_connected(LEADER, lane, true);
    }
    for number in 0..partitions {
        let index = sender.add_partition(TopicPartition::new("t", number));
        sender.set_leader(now, index, Some(LEADER), Some(1), None);
    }
    let events = vec![];
    Many {
        sender,
        now,
        events,
    }
}

impl Many {
    pub(super) fn push(&mut self, partition: u32, token: u32, count: u32) {
        let deadline = self.now + 120 * SECOND;
        let batch = Batch::new(token, count, deadline, Some(records(count)));
        self.sender.push(self.now, PartitionIndex(partition), batch);
    }

    pub(super) fn sent(&mut self) -> Transmit {
        self.sender
            .poll_transmit(self.now)
            .expect("nothing to send")
    }

    pub(super) fn answer(&mut self, transmit: &Transmit, code: Code) {
        self.answer_throttled(transmit, code, Duration::ZERO);
    }

    pub(super) fn answer_throttled(&mut self, transmit: &Transmit, code: Code, throttle: Duration) {
        let partitions = transmit
            .batches
            .iter()
            .map(|batch| PartitionAnswer {
                topic: match batch.topic_id {
                    Some(id) => AnsweredTopic::Id(id),
                    None => AnsweredTopic::Name("t".into()),
                },
                partition: batch.partition.0.cast_signed(),
                base_offset: Some(100),
                ..answered(code)
            })
            .collect();
        let answer = ProduceAnswer {
            throttle,
            partitions,
        };
        self.sender
            .handle_answer(self.now, transmit.request, &answer);
        self.take_events();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.sender.handle_timeout(self.now);
        self.take_events();
    }

    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.sender.poll_event() {
            self.events.push(event);
        }
    }

    pub(super) fn acked(&mut self) -> Vec<u32> {
        self.take_events();
        let acked = |event: &Event<u32>| match event {
            Event::Acknowledged { token, .. } => Some(*token),
            _ => None,
        };
        self.events.iter().filter_map(acked).collect()
    }

    /// Cuts the batch that waits for it, as the driver does.
    pub(super) fn cut(&mut self, first: u32, second: u32) {
        self.take_events();
        let at = self
            .events
            .iter()
            .position(|e| matches!(e, Event::Split(_)));
        let Event::Split(split) = self.events.remove(at.expect("no split was asked for")) else {
            unreachable!()
        };
        let at = split.cut_at.unwrap_or(split.records.count() / 2);
        let (front, back) = split.records.cut_at(at).unwrap();
        let Split {
            partition, ordinal, ..
        } = *split;
        self.sender
            .provide_halves(self.now, partition, ordinal, (first, front), (second, back));
    }

    /// Acknowledges a first batch of each partition, so that the windows are open.
    pub(super) fn proven(mut self, partitions: u32) -> Self {
        for partition in 0..partitions {
            self.push(partition, 1_000, 1);
        }
        while let Some(transmit) = self.sender.poll_transmit(self.now) {
            self.answer(&transmit, Code::NONE);
        }
        self.events.clear();
        self
    }
}

pub(super) fn stalling() -> Config {
    Config {
        stall_after: STALL,
        ..config()
    }
}

#[test]
fn a_batch_too_large_goes_out_in_halves_under_its_own_sequences_and_in_order() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 5);
    many.push(0, 2, 1);
    let whole = many.sent();
    let behind = many.sent();
    assert_eq!((stamp(&whole), stamp(&behind)), ((0, 1), (0, 6)));
    many.answer(&whole, Code::MESSAGE_TOO_LARGE);
    many.answer(&behind, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    many.cut(10, 11);
    let sent = [many.sent(), many.sent(), many.sent()];
    let stamps = sent.each_ref().map(stamp);
    assert_eq!(stamps, [(0, 1), (0, 3), (0, 6)], "no new epoch was needed");
    for transmit in &sent {
        many.answer(transmit, Code::NONE);
    }
    assert_eq!(many.acked(), [10, 11, 2]);
}

#[test]
fn a_batch_is_halved_until_a_single_record_fails_alone() {
    let mut many = many(1, config()).proven(1);
    many.push(0, 1, 2);
    let whole = many.sent();
    many.answer(&whole, Code::MESSAGE_TOO_LARGE);
    many.cut(10, 11);
    let [first, second] = [many.sent(), many.sent()];
    many.answer(&first, Code::MESSAGE_TOO_LARGE);
    many.answer(&second, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let failed: Vec<_> = many
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Failed { token, error, .. } => Some((*token, error.write_outcome())),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [(10, Some(WriteOutcome::NotWritten))]);
    many.pass(2 * SECOND);
    let again = many.sent();
    assert_eq!(
        stamp(&again),
        (1, 0),
        "its sequence is spent, so the next epoch begins"
    );
    many.answer(&again, Code::NONE);
    assert_eq!(many.acked(), [11]);
}

#[test]
fn no_more_than_five_batches_are_sent_behind_one_in_doubt_also_after_a_cut() {
    let mut many = many(1, config()).proven(1);
    for token in 1..=7 {
        many.push(0, token, 2);
    }
    let five: Vec<_> = (0..5).map(|_| many.sent()).collect();
    many.answer(&five[0], Code::MESSAGE_TOO_LARGE);
    for transmit in &five[1..] {
        many.answer(transmit, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    many.cut(10, 11);
    let sent: Vec<_> = std::iter::from_fn(|| many.sender.poll_transmit(many.now)).collect();
    assert_eq!(sent.len(), 5);
}

#[test]
fn bug_29_one_partition_with_a_stuck_follower_does_not_hold_up_the_others_of_its_leader() {
    let mut many = many(3, stalling()).proven(3);
    let start = many.now;
    for partition in 0..3 {
        many.push(partition, partition, 1);
    }
    let shared = many.sent();
    assert_eq!((shared.lane, shared.batches.len()), (Lane::Main, 3));
    let due = many.sender.poll_timeout().unwrap();
    assert!(due >= many.now + STALL, "not before its time");
    many.pass(due - many.now);
    let abandoned = |event: &Event<u32>| matches!(event, Event::Abandon(LEADER, Lane::Main));
    assert!(many.events.iter().any(abandoned));
    many.sender.set_connected(LEADER, Lane::Main, true);
    // Apart, one at a time: the first is well and goes back, the second is the stuck one.
    let first = many.sent();
    assert_eq!((first.lane, first.batches.len()), (Lane::Apart, 1));
    many.answer(&first, Code::NONE);
    let stuck = many.sent();
    assert_eq!((stuck.lane, stuck.batches.len()), (Lane::Apart, 1));
    let stuck_partition = stuck.batches[0].partition.0;
    // Meanwhile the others go on as before.
    many.push(first.batches[0].partition.0, 10, 1);
    let main = many.sent();
    assert_eq!((main.lane, main.batches.len()), (Lane::Main, 1));
    many.answer(&main, Code::NONE);
    // The third waits for the stuck one only until that is given up as well.
    while many.sender.poll_transmit(many.now).is_none() {
        let due = many
            .sender
            .poll_timeout()
            .expect("the third waits for ever");
        many.pass(due - many.now);
        many.sender.set_connected(LEADER, Lane::Apart, true);
    }
    assert!(many.now < start + 10 * SECOND);
    let acked = many.acked();
    assert!(!acked.contains(&stuck_partition), "{acked:?}");
}

#[test]
fn a_thousand_partitions_of_a_stalled_request_are_soon_back_but_for_the_stuck_one() {
    let mut many = many(1_000, stalling()).proven(1_000);
    for partition in 0..1_000 {
        many.push(partition, partition, 1);
    }
    assert_eq!(many.sent().batches.len(), 1_000);
    let start = many.now;
    let stuck = PartitionIndex(700);
    while many.acked().len() < 999 {
        let due = many.sender.poll_timeout().expect("nothing is due");
        many.pass(due.saturating_duration_since(many.now));
        for lane in Lane::ALL {
            many.sender.set_connected(LEADER, lane, true);
        }
        while let Some(transmit) = many.sender.poll_transmit(many.now) {
            if transmit
                .batches
                .iter()
                .all(|batch| batch.partition != stuck)
            {
                many.now += SECOND / 20;
                many.answer(&transmit, Code::NONE);
            }
        }
    }
    let took = many.now - start;
    assert!(took < 20 * SECOND, "{took:?}");
}

#[test]
fn a_slow_partition_with_nobody_behind_it_is_left_alone() {
    let mut many = many(2, stalling()).proven(2);
    many.push(0, 1, 1);
    many.sent();
    many.push(0, 2, 1);
    many.sent();
    assert_eq!(
        many.sender.poll_timeout(),
        Some(many.now + 120 * SECOND),
        "only the delivery timeouts are due"
    );
    many.push(1, 3, 1);
    many.sent();
    assert!(many.sender.poll_timeout().unwrap() < many.now + SECOND);
}

#[test]
fn without_idempotence_nothing_is_given_up_because_it_could_not_be_sent_again() {
    let plain = Config {
        idempotent: false,
        ..stalling()
    };
    let mut many = many(2, plain);
    many.push(0, 1, 1);
    many.push(1, 2, 1);
    assert_eq!(many.sent().batches.len(), 2);
    assert_eq!(many.sender.poll_timeout(), Some(many.now + 120 * SECOND));
}

#[test]
fn a_broker_that_is_slow_as_a_whole_is_given_ever_more_time() {
    let mut many = many(2, stalling()).proven(2);
    many.push(0, 1, 1);
    many.push(1, 2, 1);
    let mut waits = vec![];
    for _ in 0..4 {
        while many.sender.poll_transmit(many.now).is_some() {}
        let stalls = many.sender.poll_timeout().unwrap();
        waits.push(stalls - many.now);
        many.pass(stalls - many.now);
        for lane in Lane::ALL {
            many.sender.set_connected(LEADER, lane, true);
        }
        many.pass(2 * SECOND);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    assert!(
        many.events
            .iter()
            .all(|e| !matches!(e, Event::Failed { .. }))
    );
}

#[test]
fn the_partitions_of_a_broker_that_is_slow_as_a_whole_do_not_stay_apart() {
    let mut many = many(8, stalling()).proven(8);
    let slow = 2 * SECOND;
    let mut sent: Vec<(Instant, Transmit)> = vec![];
    let mut apart = 0;
    for round in 0..120u32 {
        for partition in 0..8 {
            if many.sender.queued(PartitionIndex(partition)) == 0 {
                many.push(partition, round, 1);
            }
        }
        while let Some(transmit) = many.sender.poll_transmit(many.now) {
            apart = if transmit.lane == Lane::Apart {
                round
            } else {
                apart
            };
            sent.push((many.now + slow, transmit));
        }
        many.pass(SECOND / 4);
        for lane in Lane::ALL {
            many.sender.set_connected(LEADER, lane, true);
        }
        let due = |(at, _): &mut (Instant, Transmit)| *at <= many.now;
        let answered: Vec<_> = sent.extract_if(.., due).collect();
        for (_, transmit) in answered {
            many.answer(&transmit, Code::NONE);
        }
    }
    assert!(apart > 0, "nothing was given up");
    assert!(apart < 100, "still apart after {} s", apart / 4);
}

#[test]
fn bug_12_a_view_of_an_older_epoch_is_believed_at_once_and_newer_hints_are_measured_by_it() {
    let mut bench = bench().proven();
    let lied = LeaderHint {
        leader: OTHER,
        leader_epoch: i32::MAX,
    };
    bench.push();
    let sent = bench.sent().unwrap();
    bench.answer_with(sent, Code::NOT_LEADER_OR_FOLLOWER, Some(lied));
    let sent = bench.sent().unwrap();
    assert_eq!(sent.broker, OTHER);
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(LEADER), Some(3), None);
    bench.answer(sent, Code::NOT_LEADER_OR_FOLLOWER);
    bench.wait();
    let sent = bench.sent().unwrap();
    assert_eq!(sent.broker, LEADER);
    let hint = LeaderHint {
        leader: OTHER,
        leader_epoch: 4,
    };
    bench.answer_with(sent, Code::NOT_LEADER_OR_FOLLOWER, Some(hint));
    assert_eq!(bench.sent().map(|sent| sent.broker), Some(OTHER));
}

#[test]
fn bug_7_a_topic_made_anew_starts_with_one_batch_and_its_answers_are_told_apart_by_id() {
    let mut many = many(1, config());
    let leads = |many: &mut Many, id: u128| {
        let id = Some(TopicId(id.to_be_bytes()));
        many.sender
            .set_leader(many.now, PartitionIndex(0), Some(LEADER), Some(1), id);
    };
    leads(&mut many, 1);
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    many.push(0, 2, 1);
    let old = [many.sent(), many.sent()];
    leads(&mut many, 2);
    // The old log's answer still counts for the batch that was sent to it.
    many.answer(&old[0], Code::NONE);
    assert_eq!(many.acked(), [1]);
    many.answer(&old[1], Code::UNKNOWN_TOPIC_ID);
    many.pass(2 * SECOND);
    many.push(0, 3, 1);
    let first = many.sent();
    assert_eq!(stamp(&first), (1, 0));
    assert!(
        many.sender.poll_transmit(many.now).is_none(),
        "one until it is acknowledged"
    );
}

#[test]
fn bug_7_two_batches_in_doubt_when_a_topic_is_made_anew_do_not_wait_for_their_deadline() {
    let mut many = many(1, config());
    let leads = |many: &mut Many, id: u128| {
        let id = Some(TopicId(id.to_be_bytes()));
        many.sender
            .set_leader(many.now, PartitionIndex(0), Some(LEADER), Some(1), id);
    };
    leads(&mut many, 1);
    let mut many = many.proven(1);
    many.push(0, 1, 1);
    many.push(0, 2, 1);
    let old = [many.sent(), many.sent()];
    for sent in &old {
        many.sender
            .handle_unanswered(many.now, sent.request, Unanswered::Lost);
    }
    leads(&mut many, 2);
    for _ in 0..20 {
        while let Some(sent) = many.sender.poll_transmit(many.now) {
            let code = if stamp(&sent).1 == 0 || stamp(&sent).0 == 1 {
                Code::NONE
            } else {
                Code::OUT_OF_ORDER_SEQUENCE_NUMBER
            };
            many.answer(&sent, code);
        }
        many.pass(SECOND);
    }
    assert_eq!(many.acked(), [1, 2], "still refused after {} s", 20);
}

#[test]
fn a_later_shorter_throttle_does_not_end_a_longer_one() {
    let mut many = many(1, config()).proven(1);
    for token in 1..=3 {
        many.push(0, token, 1);
    }
    let [first, second] = [many.sent(), many.sent()];
    for (transmit, throttle) in [(&first, 5), (&second, 1)] {
        let answer = ProduceAnswer {
            throttle: throttle * SECOND,
            partitions: vec![],
        };
        many.sender
            .handle_answer(many.now, transmit.request, &answer);
    }
    many.pass(2 * SECOND);
    assert!(many.sender.poll_transmit(many.now).is_none());
    many.pass(4 * SECOND);
    assert!(many.sender.poll_transmit(many.now).is_some());
}

#[test]
fn a_broker_that_throttles_is_not_taken_for_one_that_stalls() {
    let mut many = many(2, stalling()).proven(2);
    let mut sent = Vec::new();
    for partition in 0..2 {
        many.push(partition, partition, 1);
        sent.push(many.sent());
    }
    let answer = ProduceAnswer {
        throttle: 20 * STALL,
        partitions: vec![],
    };
    many.sender
        .handle_answer(many.now, sent[0].request, &answer);
    many.push(0, 2, 1);
    let given_up = |many: &Many| {
        let gives_up = |event: &Event<u32>| matches!(event, Event::Abandon(..));
        many.events.iter().any(gives_up)
    };
    many.pass(20 * STALL);
    assert!(!given_up(&many), "it reads nothing until then");
    many.pass(2 * STALL);
    assert!(given_up(&many), "and then it should");
}

#[test]
fn a_request_takes_no_batch_that_would_make_it_too_large() {
    let small = Config {
        request_bytes_max: 250,
        ..config()
    };
    let mut many = many(3, small);
    for partition in 0..3 {
        many.push(partition, partition, 4);
    }
    let size = records(4).size_bytes();
    assert!(2 * size <= 250 && 3 * size > 250);
    assert_eq!(many.sent().batches.len(), 2);
    assert_eq!(many.sent().batches.len(), 1);
}

#[test]
fn a_forgotten_partition_gives_its_place_to_another_with_a_sequence_of_its_own() {
    let mut many = many(2, config()).proven(2);
    let index = PartitionIndex(1);
    many.push(1, 1, 1);
    assert!(!many.sender.forget(index), "it has something to send");
    let sent = many.sent();
    assert!(!many.sender.forget(index), "and something in flight");
    many.answer(&sent, Code::NONE);
    assert!(many.sender.forget(index));
    let again = many.sender.add_partition(TopicPartition::new("other", 7));
    assert_eq!(again, index);
    assert_eq!(
        many.sender.name(index),
        Some(&TopicPartition::new("other", 7))
    );
    many.push(1, 2, 1);
    assert!(
        many.sender.poll_transmit(many.now).is_none(),
        "it has no leader yet"
    );
    many.sender
        .set_leader(many.now, index, Some(LEADER), Some(1), None);
    let first = stamp(&many.sent());
    assert_eq!(
        first,
        (1, 0),
        "under the old epoch the broker would call it a duplicate"
    );
}

#[test]
fn a_forgotten_partition_wakes_nobody() {
    let mut many = many(2, config()).proven(2);
    assert!(many.sender.poll_timeout().is_some(), "of what was sent");
    for partition in 0..2 {
        assert!(many.sender.forget(PartitionIndex(partition)));
    }
    assert_eq!(many.sender.poll_timeout(), None);
}

mod transactions;
