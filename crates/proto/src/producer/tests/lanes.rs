//! How long a broker's answers are waited for, and what giving them up leaves behind.

use super::hard::{STALL, many, records, stalling};
use super::*;
use crate::error::{Error, ErrorKind};

impl super::hard::Many {
    fn all_sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.sender.poll_transmit(self.now)).collect()
    }

    /// Sends a batch of each of two partitions and gives the request up, however long that takes.
    fn stall(&mut self) -> Duration {
        for partition in 0..2 {
            if self.sender.queued(PartitionIndex(partition)) == 0 {
                self.push(partition, partition, 1);
            }
        }
        assert_eq!(self.sent().batches.len(), 2);
        let waited = self.sender.poll_timeout().unwrap() - self.now;
        self.pass(waited);
        self.reconnect();
        waited
    }

    fn reconnect(&mut self) {
        for lane in Lane::ALL {
            self.sender.set_connected(LEADER, lane, true);
        }
    }

    /// Everything that is sent from now on is answered at once, until nothing is left.
    fn recover(&mut self) {
        for _ in 0..10 {
            for transmit in self.all_sent() {
                self.answer(&transmit, Code::NONE);
            }
            self.pass(SECOND);
        }
    }
}

#[test]
fn a_broker_that_is_quick_again_is_given_no_more_time_than_at_first() {
    let mut many = many(2, stalling()).proven(2);
    let first = many.stall();
    many.recover();
    assert_eq!(many.stall(), first);
}

#[test]
fn a_lost_connection_says_nothing_of_how_quick_the_broker_is() {
    let mut many = many(2, stalling()).proven(2);
    let first = many.stall();
    // Both partitions, apart now, meet a broken connection at once.
    let lost = many.sent();
    many.sender
        .handle_unanswered(many.now, lost.request, Unanswered::NotSent);
    many.pass(2 * SECOND);
    let partitions = many.all_sent();
    assert!(!partitions.is_empty());
    let waited = many.sender.poll_timeout().unwrap() - many.now;
    assert!(waited > first + STALL / 2, "{waited:?} after {first:?}");
}

#[test]
fn a_request_that_stalls_apart_too_waits_before_it_is_sent_again() {
    let mut many = many(2, stalling()).proven(2);
    many.stall();
    let apart = many.sent();
    assert_eq!((apart.lane, apart.batches.len()), (Lane::Apart, 1));
    let stuck = apart.batches[0].partition;
    let due = many.sender.poll_timeout().unwrap();
    many.pass(due - many.now);
    many.reconnect();
    let again = many.all_sent();
    let sent = |transmit: &Transmit| transmit.batches.iter().any(|b| b.partition == stuck);
    assert!(!again.iter().any(sent), "{again:?}");
    for transmit in &again {
        many.answer(transmit, Code::NONE);
    }
    assert!(many.all_sent().is_empty(), "nothing else is left to send");
    many.pass(SECOND / 4);
    assert!(many.all_sent().iter().any(sent), "it waited too long");
}

#[test]
fn a_large_request_is_given_the_time_that_a_slow_line_needs() {
    let mut many = many(2, stalling()).proven(2);
    let value = vec![0u8; 1 << 20];
    let mut writer = BatchWriter::new();
    writer.add_chunk(Vec::with_capacity(2 << 20));
    writer.append(&Record::to("t").value(&value), 0).unwrap();
    let large = writer.seal(Bytes::from);
    let deadline = many.now + 120 * SECOND;
    let batch = Batch::new(1, 1, deadline, Some(large));
    many.sender.push(many.now, PartitionIndex(0), batch);
    many.push(1, 2, 1);
    assert_eq!(many.sent().batches.len(), 2);
    let waited = many.sender.poll_timeout().unwrap() - many.now;
    // A megabyte a second is no stall.
    assert!(waited >= STALL + SECOND && waited < STALL + 2 * SECOND);
}

#[test]
fn the_batches_of_a_topic_stand_together_in_a_request() {
    let mut many = many(2, config());
    for number in 0..2 {
        let other = many.sender.add_partition(TopicPartition::new("s", number));
        many.sender
            .set_leader(many.now, other, Some(LEADER), Some(1), None);
    }
    for partition in [0, 2, 1, 3] {
        many.push(partition, partition, 1);
    }
    let sent = many.sent();
    let order = sent.batches.iter().map(|batch| batch.partition.0);
    assert_eq!(order.collect::<Vec<_>>(), [2, 3, 0, 1]);
}

#[test]
fn the_halves_of_a_batch_have_no_more_attempts_than_the_whole() {
    let config = Config {
        retries: 1,
        ..config()
    };
    let mut many = many(1, config).proven(1);
    many.push(0, 1, 2);
    let whole = many.sent();
    many.answer(&whole, Code::MESSAGE_TOO_LARGE);
    many.cut(10, 11);
    for half in many.all_sent() {
        many.answer(&half, Code::NOT_ENOUGH_REPLICAS);
    }
    many.pass(2 * SECOND);
    let failed = many.events.iter().filter_map(|event| match event {
        Event::Failed { token, .. } => Some(*token),
        _ => None,
    });
    assert_eq!(failed.collect::<Vec<_>>(), [10, 11]);
}

/// The tokens that failed, with what was said of their records.
fn ends(many: &mut super::hard::Many) -> Vec<(u32, Option<WriteOutcome>)> {
    many.take_events();
    let failed = |event: &Event<u32>| match event {
        Event::Failed { token, error, .. } => Some((*token, error.write_outcome())),
        _ => None,
    };
    many.events.iter().filter_map(failed).collect()
}

/// The batch that waits to be cut, after its time is over.
fn too_late_to_cut(many: &mut super::hard::Many) -> Split<u32> {
    many.push(0, 1, 2);
    let whole = many.sent();
    many.answer(&whole, Code::MESSAGE_TOO_LARGE);
    many.pass(121 * SECOND);
    let is_split = |event: &Event<u32>| matches!(event, Event::Split(_));
    let at = many.events.iter().position(is_split).unwrap();
    let Event::Split(split) = many.events.remove(at) else {
        unreachable!()
    };
    assert_eq!(ends(many), [], "nobody holds its token");
    *split
}

#[test]
fn halves_that_come_when_their_batch_has_ended_are_told_so() {
    let mut many = many(1, config()).proven(1);
    let split = too_late_to_cut(&mut many);
    let (first, second) = ((10, records(1)), (11, records(1)));
    many.sender
        .provide_halves(many.now, split.partition, split.ordinal, first, second);
    let unknown = Some(WriteOutcome::Unknown);
    assert_eq!(ends(&mut many), [(10, unknown), (11, unknown)]);
}

#[test]
fn a_batch_that_cannot_be_cut_and_has_ended_is_told_so() {
    let mut many = many(1, config()).proven(1);
    let split = too_late_to_cut(&mut many);
    let error = Error::new(ErrorKind::State, "it cannot be cut");
    many.sender
        .refuse_halves(many.now, split.partition, split.ordinal, 12, &error);
    assert_eq!(ends(&mut many), [(12, Some(WriteOutcome::Unknown))]);
}

#[test]
fn what_was_lost_is_proven_unwritten_only_when_it_is_refused_twice_with_a_wait_between() {
    let mut bench = bench().proven();
    let hole = bench.push();
    let behind = bench.push();
    let sent = bench.all_sent();
    bench.answer(sent[0], Code::INVALID_RECORD);
    bench.lose(sent[1]);
    bench.wait();
    let asked = bench.sent().unwrap();
    bench.answer(asked, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(bench.sent(), None, "what was given up may be read yet");
    bench.pass(2 * SECOND);
    let again = bench.sent().unwrap();
    assert_eq!(
        (again.epoch, again.sequence),
        (sent[1].epoch, sent[1].sequence)
    );
    // The broker has read the old connection meanwhile.
    bench.answer(again, Code::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(bench.acked, [behind]);
    assert_eq!(bench.failed, [(hole, WriteOutcome::NotWritten)]);
}

#[test]
fn a_proof_that_a_loss_came_between_is_asked_for_anew() {
    let mut bench = bench().proven();
    bench.push();
    let behind = bench.push();
    let sent = bench.all_sent();
    bench.answer(sent[0], Code::INVALID_RECORD);
    bench.lose(sent[1]);
    for lost in [false, true, false, false] {
        bench.pass(2 * SECOND);
        let asked = bench.sent().unwrap();
        assert_eq!(asked.epoch, sent[1].epoch);
        match lost {
            true => bench.lose(asked),
            false => bench.answer(asked, Code::OUT_OF_ORDER_SEQUENCE_NUMBER),
        }
    }
    bench.pass(2 * SECOND);
    let anew = bench.sent().unwrap();
    assert_eq!((anew.epoch, anew.sequence), (sent[1].epoch + 1, 0));
    bench.answer(anew, Code::NONE);
    assert_eq!(bench.acked, [behind]);
}

#[test]
fn also_behind_another_one_in_doubt_a_proof_is_asked_for_again_only_after_a_while() {
    let mut bench = bench().proven();
    bench.push();
    let behind = [bench.push(), bench.push()];
    let sent = bench.all_sent();
    bench.answer(sent[0], Code::INVALID_RECORD);
    bench.lose(sent[1]);
    bench.lose(sent[2]);
    bench.wait();
    let asked = bench.all_sent();
    assert_eq!(asked.len(), 2);
    // The broker may answer them in any order, and the second one alone.
    bench.answer(asked[1], Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    bench.answer(asked[0], Code::NONE);
    assert_eq!(bench.sent(), None);
    bench.pass(2 * SECOND);
    let again = bench.sent().unwrap();
    bench.answer(again, Code::NONE);
    assert_eq!(bench.acked, behind);
}

pub(super) fn refuse(many: &mut super::hard::Many, sent: &Transmit, wrong: &[u32]) {
    let answer = alone(refused(wrong));
    many.sender.handle_answer(many.now, sent.request, &answer);
    many.take_events();
}

#[test]
fn a_wrong_record_is_cut_out_and_the_others_go_on_in_their_order() {
    let config = Config {
        cut_out_wrong: true,
        ..config()
    };
    let mut many = many(1, config).proven(1);
    many.push(0, 1, 5);
    many.push(0, 2, 1);
    let (whole, behind) = (many.sent(), many.sent());
    refuse(&mut many, &whole, &[2]);
    many.answer(&behind, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    many.cut(10, 11);
    // It is named already, so it is not sent to be named again.
    many.cut(20, 21);
    many.take_events();
    assert_eq!(ends(&mut many), [(20, Some(WriteOutcome::NotWritten))]);
    for _ in 0..4 {
        many.pass(2 * SECOND);
        for sent in many.all_sent() {
            assert_eq!(super::hard::stamp(&sent).0, 1, "a new epoch");
            many.answer(&sent, Code::NONE);
        }
    }
    assert_eq!(many.acked(), [10, 21, 2]);
    assert_eq!(ends(&mut many).len(), 1);
}

#[test]
fn of_a_batch_that_may_be_written_nothing_is_cut_out() {
    for (wrong, lost) in [
        (vec![1], true),
        ((0..33).collect(), false),
        (vec![40], false),
    ] {
        let config = Config {
            cut_out_wrong: true,
            ..config()
        };
        let mut many = many(1, config).proven(1);
        many.push(0, 1, 40);
        let mut sent = many.sent();
        if lost {
            many.sender
                .handle_unanswered(many.now, sent.request, Unanswered::Lost);
            many.pass(2 * SECOND);
            sent = many.sent();
        }
        refuse(&mut many, &sent, &wrong);
        let outcome = match lost {
            true => WriteOutcome::Unknown,
            false => WriteOutcome::NotWritten,
        };
        assert_eq!(ends(&mut many), [(1, Some(outcome))], "{wrong:?}");
    }
}

#[test]
fn a_throttle_on_one_lane_hides_no_stall_on_the_other() {
    let mut many = many(5, stalling()).proven(5);
    for partition in 0..4 {
        many.push(partition, partition, 1);
    }
    assert_eq!(many.sent().batches.len(), 4);
    many.pass(2 * STALL);
    many.reconnect();
    // Half of them go apart together, and one of those is stuck. Main goes on, throttled each time.
    assert_eq!(many.sent().lane, Lane::Apart);
    many.events.clear();
    let gives_up = |event: &Event<u32>| matches!(event, Event::Abandon(_, Lane::Apart));
    let mut waited = Duration::ZERO;
    while !many.has(gives_up) {
        assert!(waited < 20 * STALL, "it is never given up");
        many.push(4, 100, 1);
        while let Some(sent) = many.sender.poll_transmit(many.now) {
            assert_eq!(sent.lane, Lane::Main);
            many.answer_throttled(&sent, Code::NONE, STALL / 2);
        }
        many.pass(STALL / 2);
        waited += STALL / 2;
    }
}
