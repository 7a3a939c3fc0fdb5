//! The core against a model of a partition's log that keeps Kafka's sequence rules.

mod cuts;
mod hard;
mod lanes;
mod limits;
mod mutants;
pub(super) mod strange;
mod weather;

use super::*;
use crate::batch::BatchWriter;
use crate::code::Code;
use crate::error::WriteOutcome;
use crate::record::Record;
use crate::topic::{BrokerId, TopicPartition};
use bytes::Bytes;
use std::time::{Duration, Instant};

const LEADER: BrokerId = BrokerId(1);
const OTHER: BrokerId = BrokerId(2);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        idempotent: true,
        acks_all: true,
        transactional: false,
        stall_after: Duration::MAX,
        retries: u32::MAX,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: SECOND,
        request_bytes_max: 8 << 20,
        requests_max: 5,
        cut_out_wrong: false,
        seed: 7,
    }
}

/// A sender with one partition, its token a batch's number, and the clock in our hand.
struct Bench {
    sender: Sender<u32>,
    now: Instant,
    partition: PartitionIndex,
    next: u32,
    acked: Vec<u32>,
    failed: Vec<(u32, WriteOutcome)>,
    asked_identity: u32,
}

fn bench() -> Bench {
    let now = Instant::now();
    let mut sender = Sender::new(config());
    let partition = sender.add_partition(TopicPartition::new("t", 0));
    sender.set_identity(
        now,
        Identity {
            producer_id: 9,
            epoch: 0,
        },
    );
    sender.set_connected(LEADER, Lane::Main, true);
    sender.set_connected(OTHER, Lane::Main, true);
    sender.set_leader(now, partition, Some(LEADER), Some(1), None);
    Bench {
        sender,
        now,
        partition,
        next: 0,
        acked: vec![],
        failed: vec![],
        asked_identity: 0,
    }
}

/// What of a request the tests look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    request: RequestId,
    broker: BrokerId,
    epoch: i16,
    sequence: i32,
    batch: u32,
}

/// What a broker answers for partition 0 of the topic `t`, with nothing but a code.
fn answered(code: Code) -> PartitionAnswer {
    PartitionAnswer {
        topic: AnsweredTopic::Name("t".into()),
        partition: 0,
        code,
        base_offset: None,
        log_append_time: None,
        log_start: None,
        record_errors: vec![],
        message: None,
        leader_hint: None,
    }
}

/// What a broker answers that finds these records of the batch wrong.
fn refused(wrong: &[u32]) -> PartitionAnswer {
    let error = |&index: &u32| RecordError {
        index,
        message: None,
    };
    PartitionAnswer {
        record_errors: wrong.iter().map(error).collect(),
        ..answered(Code::INVALID_RECORD)
    }
}

/// The answer to a request with one batch.
fn alone(partition: PartitionAnswer) -> ProduceAnswer {
    ProduceAnswer {
        throttle: Duration::ZERO,
        partitions: vec![partition],
    }
}

impl Bench {
    /// Pushes a batch of two records that expires after 120 s.
    fn push(&mut self) -> u32 {
        let mut writer = BatchWriter::new();
        writer.add_chunk(Vec::with_capacity(256));
        for _ in 0..2 {
            writer
                .append(&Record::to("t").value(&self.next.to_be_bytes()), 0)
                .unwrap();
        }
        let records = writer.seal(Bytes::from);
        let deadline = self.now + 120 * SECOND;
        let batch = Batch::new(self.next, 2, deadline, Some(records));
        self.sender.push(self.now, self.partition, batch);
        self.next += 1;
        self.next - 1
    }

    fn sent(&mut self) -> Option<Sent> {
        let transmit = self.sender.poll_transmit(self.now)?;
        let header = transmit.batches[0].header;
        // Behind the record's six one-byte fields stands the batch's number.
        let number = &transmit.batches[0].segments[0][6..10];
        Some(Sent {
            request: transmit.request,
            broker: transmit.broker,
            epoch: i16::from_be_bytes(header[51..53].try_into().unwrap()),
            sequence: i32::from_be_bytes(header[53..57].try_into().unwrap()),
            batch: u32::from_be_bytes(number.try_into().unwrap()),
        })
    }

    fn all_sent(&mut self) -> Vec<Sent> {
        std::iter::from_fn(|| self.sent()).collect()
    }

    fn answer(&mut self, sent: Sent, code: Code) {
        self.answer_with(sent, code, None);
    }

    fn answer_with(&mut self, sent: Sent, code: Code, leader_hint: Option<LeaderHint>) {
        let answer = alone(PartitionAnswer {
            base_offset: Some(0).filter(|_| code == Code::NONE),
            log_start: Some(0),
            leader_hint,
            ..answered(code)
        });
        self.sender.handle_answer(self.now, sent.request, &answer);
        self.events();
    }

    fn lose(&mut self, sent: Sent) {
        self.sender
            .handle_unanswered(self.now, sent.request, Unanswered::Lost);
        self.events();
    }

    /// Lets time pass until the next thing is due.
    fn wait(&mut self) {
        self.now = self
            .sender
            .poll_timeout()
            .expect("nothing is due")
            .max(self.now);
        self.sender.handle_timeout(self.now);
        self.events();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.sender.handle_timeout(self.now);
        self.events();
    }

    fn events(&mut self) {
        while let Some(event) = self.sender.poll_event() {
            match event {
                Event::Acknowledged { token, .. } => self.acked.push(token),
                Event::Failed { token, error, .. } => {
                    self.failed.push((token, error.write_outcome().unwrap()));
                }
                Event::NeedIdentity => self.asked_identity += 1,
                _ => {}
            }
        }
    }

    /// Acknowledges a first batch, so that the window is open.
    fn proven(mut self) -> Self {
        self.push();
        let first = self.sent().unwrap();
        self.answer(first, Code::NONE);
        self.acked.clear();
        self
    }
}

#[test]
fn bug_1_a_second_batch_never_overtakes_the_first_on_a_fresh_partition() {
    let mut bench = bench();
    for _ in 0..6 {
        bench.push();
    }
    let first = bench.all_sent();
    assert_eq!(first.len(), 1, "one until the first is acknowledged");
    bench.answer(first[0], Code::NONE);
    let rest = bench.all_sent();
    let sequences: Vec<_> = rest.iter().map(|sent| sent.sequence).collect();
    assert_eq!(sequences, [2, 4, 6, 8, 10], "then five");
}

#[test]
fn a_lost_answer_repeats_the_batch_under_the_same_stamp_and_a_duplicate_is_an_acknowledgement() {
    let mut bench = bench().proven();
    let batch = bench.push();
    let first = bench.sent().unwrap();
    bench.lose(first);
    assert!(bench.sent().is_none(), "it waits a backoff");
    bench.wait();
    let again = bench.sent().unwrap();
    assert_eq!((again.sequence, again.epoch), (first.sequence, first.epoch));
    bench.answer(again, Code::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(bench.acked, [batch]);
}

#[test]
fn leader_moves_while_in_flight_keeps_order() {
    let mut bench = bench().proven();
    let batches: Vec<_> = (0..4).map(|_| bench.push()).collect();
    let first = bench.all_sent();
    bench.answer(first[0], Code::NOT_LEADER_OR_FOLLOWER);
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(OTHER), Some(2), None);
    assert!(bench.all_sent().is_empty(), "three are still unanswered");
    for &sent in &first[1..] {
        bench.answer(sent, Code::NOT_LEADER_OR_FOLLOWER);
    }
    let again: Vec<_> = {
        if bench.sender.poll_timeout().is_some() {
            bench.pass(SECOND);
        }
        bench.all_sent()
    };
    let of = |sent: &[Sent]| sent.iter().map(|sent| sent.sequence).collect::<Vec<_>>();
    assert_eq!(of(&again), of(&first));
    assert!(again.iter().all(|sent| sent.broker == OTHER));
    again
        .into_iter()
        .for_each(|sent| bench.answer(sent, Code::NONE));
    assert_eq!(bench.acked, batches);
}

#[test]
fn a_leader_that_comes_back_gets_one_batch_of_the_partition_in_a_request() {
    let mut bench = bench().proven();
    bench.push();
    bench.push();
    for (leader, epoch) in [(OTHER, 2), (LEADER, 3), (OTHER, 4), (LEADER, 5)] {
        bench
            .sender
            .set_leader(bench.now, bench.partition, Some(leader), Some(epoch), None);
    }
    let transmit = bench.sender.poll_transmit(bench.now).unwrap();
    assert_eq!((transmit.broker, transmit.batches.len()), (LEADER, 1));
}

#[test]
fn a_leader_hint_is_followed_without_waiting() {
    let mut bench = bench().proven();
    bench.push();
    let sent = bench.sent().unwrap();
    let hint = LeaderHint {
        leader: OTHER,
        leader_epoch: 2,
    };
    bench.answer_with(sent, Code::NOT_LEADER_OR_FOLLOWER, Some(hint));
    assert_eq!(bench.sent().map(|sent| sent.broker), Some(OTHER));
}

#[test]
fn bug_12_a_hint_of_an_older_epoch_does_not_move_the_leader_back() {
    let mut bench = bench().proven();
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(OTHER), Some(5), None);
    bench.push();
    for leader_epoch in [4, 5] {
        let sent = bench.sent().unwrap();
        assert_eq!(sent.broker, OTHER);
        let hint = LeaderHint {
            leader: LEADER,
            leader_epoch,
        };
        bench.answer_with(sent, Code::NOT_LEADER_OR_FOLLOWER, Some(hint));
        assert_eq!(bench.sent(), None, "it is asked again after a wait");
        bench.wait();
    }
    assert_eq!(bench.sent().map(|sent| sent.broker), Some(OTHER));
}

#[test]
fn bug_13_a_partition_without_leader_waits_and_goes_on_when_it_has_one() {
    let mut bench = bench().proven();
    bench
        .sender
        .set_leader(bench.now, bench.partition, None, Some(2), None);
    let batch = bench.push();
    assert!(bench.sent().is_none());
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(OTHER), Some(3), None);
    let sent = bench.sent().unwrap();
    bench.answer(sent, Code::NONE);
    assert_eq!(bench.acked, [batch]);
}

#[test]
fn an_unsent_batch_that_expires_spends_no_sequence() {
    let mut bench = bench().proven();
    bench
        .sender
        .set_leader(bench.now, bench.partition, None, Some(2), None);
    let batch = bench.push();
    bench.pass(121 * SECOND);
    assert_eq!(bench.failed, [(batch, WriteOutcome::NotWritten)]);
    bench
        .sender
        .set_leader(bench.now, bench.partition, Some(OTHER), Some(3), None);
    bench.push();
    let sent = bench.sent().unwrap();
    assert_eq!((sent.sequence, sent.epoch), (2, 0));
}

#[test]
fn bug_5_an_expired_batch_that_may_be_written_never_shares_its_sequences_with_new_records() {
    let mut bench = bench().proven();
    let expired = bench.push();
    let sent = bench.sent().unwrap();
    bench.lose(sent);
    bench.pass(121 * SECOND);
    assert_eq!(bench.failed, [(expired, WriteOutcome::Unknown)]);
    let next = bench.push();
    let sent = bench.sent().unwrap();
    assert_eq!((sent.sequence, sent.epoch), (0, 1), "a new epoch, from 0");
    bench.answer(sent, Code::NONE);
    assert_eq!(bench.acked, [next]);
}

#[test]
fn a_batch_that_expires_in_flight_is_unknown_and_its_late_answer_tells_of_the_sequence() {
    let mut bench = bench().proven();
    let expired = bench.push();
    let late = bench.sent().unwrap();
    bench.pass(121 * SECOND);
    assert_eq!(bench.failed, [(expired, WriteOutcome::Unknown)]);
    bench.answer(late, Code::NONE);
    assert!(bench.acked.is_empty(), "its caller was told already");
    bench.push();
    let sent = bench.sent().unwrap();
    assert_eq!(
        (sent.sequence, sent.epoch),
        (4, 0),
        "it was written: no hole, no new epoch"
    );
}

#[test]
fn bug_3_batches_behind_a_refused_one_are_sent_again_under_the_new_epoch() {
    let mut bench = bench().proven();
    let refused = bench.push();
    let behind: Vec<_> = (0..2).map(|_| bench.push()).collect();
    let sent = bench.all_sent();
    bench.answer(sent[0], Code::INVALID_RECORD);
    assert_eq!(bench.failed, [(refused, WriteOutcome::NotWritten)]);
    bench.answer(sent[1], Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    bench.answer(sent[2], Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    bench.pass(SECOND);
    let first = bench.all_sent();
    assert_eq!(first.len(), 1, "the first under a new epoch goes alone");
    assert_eq!((first[0].sequence, first[0].epoch), (0, 1));
    bench.answer(first[0], Code::NONE);
    let second = bench.sent().unwrap();
    assert_eq!((second.sequence, second.epoch), (2, 1));
    bench.answer(second, Code::NONE);
    assert_eq!(bench.acked, behind);
}

#[test]
fn behind_a_hole_a_batch_that_may_be_written_is_asked_about_before_it_is_stamped_anew() {
    let mut bench = bench().proven();
    let hole = bench.push();
    let behind = bench.push();
    let sent = bench.all_sent();
    bench.lose(sent[0]);
    bench.lose(sent[1]);
    bench.now += 119 * SECOND;
    bench.sender.handle_timeout(bench.now);
    let again = bench.sent().unwrap();
    assert_eq!(again.sequence, sent[0].sequence);
    bench.answer(again, Code::INVALID_RECORD);
    assert_eq!(bench.failed, [(hole, WriteOutcome::Unknown)]);
    // The second one lies in the log, written under the old epoch: it must not be sent anew.
    let asked = bench.sent().unwrap();
    assert_eq!((asked.sequence, asked.epoch), (sent[1].sequence, 0));
    bench.answer(asked, Code::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(bench.acked, [behind]);
    bench.push();
    let next = bench.sent().unwrap();
    assert_eq!((next.sequence, next.epoch), (0, 1));
}

#[test]
fn bug_4_a_forgotten_producer_id_starts_a_new_epoch_when_nothing_may_be_written() {
    let mut bench = bench().proven();
    let batch = bench.push();
    let sent = bench.sent().unwrap();
    bench.answer(sent, Code::UNKNOWN_PRODUCER_ID);
    bench.pass(SECOND);
    let again = bench.sent().unwrap();
    assert_eq!((again.sequence, again.epoch), (0, 1));
    bench.answer(again, Code::NONE);
    assert_eq!((bench.acked, bench.failed), (vec![batch], vec![]));
}

#[test]
fn bug_2_a_refused_sequence_after_an_outage_does_not_make_the_producer_useless() {
    let mut bench = bench().proven();
    let lost = bench.push();
    let sent = bench.sent().unwrap();
    bench.lose(sent);
    bench.wait();
    let again = bench.sent().unwrap();
    bench.answer(again, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(bench.failed, [(lost, WriteOutcome::Unknown)]);
    let next = bench.push();
    let sent = bench.sent().unwrap();
    assert_eq!((sent.sequence, sent.epoch), (0, 1));
    bench.answer(sent, Code::NONE);
    assert_eq!(bench.acked, [next]);
}

#[test]
fn a_partition_that_the_answer_passes_over_is_tried_again() {
    let mut bench = bench().proven();
    let batch = bench.push();
    let sent = bench.sent().unwrap();
    bench
        .sender
        .handle_answer(bench.now, sent.request, &ProduceAnswer::default());
    bench.wait();
    let again = bench.sent().unwrap();
    bench.answer(again, Code::NONE);
    assert_eq!(bench.acked, [batch]);
}

#[test]
fn epochs_that_are_used_up_make_the_producer_ask_for_a_new_id() {
    let mut bench = bench();
    let last = Identity {
        producer_id: 9,
        epoch: i16::MAX - 1,
    };
    bench.sender.set_identity(bench.now, last);
    let mut bench = bench.proven();
    bench.push();
    let sent = bench.sent().unwrap();
    bench.answer(sent, Code::INVALID_RECORD);
    bench.push();
    bench.events();
    assert_eq!((bench.sent(), bench.asked_identity), (None, 1));
    bench.sender.set_identity(
        bench.now,
        Identity {
            producer_id: 10,
            epoch: 0,
        },
    );
    assert_eq!(
        bench.sent().map(|sent| (sent.sequence, sent.epoch)),
        Some((0, 0))
    );
}

#[test]
fn a_throttled_broker_is_left_alone_for_as_long_as_it_asked() {
    let mut bench = bench().proven();
    bench.push();
    let sent = bench.sent().unwrap();
    let answer = ProduceAnswer {
        throttle: SECOND,
        ..ProduceAnswer::default()
    };
    bench.sender.handle_answer(bench.now, sent.request, &answer);
    bench.push();
    bench.pass(Duration::from_millis(900));
    assert!(bench.sent().is_none());
    bench.pass(Duration::from_millis(100));
    assert!(bench.sent().is_some());
}

#[test]
fn a_batch_in_doubt_is_never_pushed_out_of_the_five_that_the_broker_remembers() {
    let mut bench = bench().proven();
    for _ in 0..8 {
        bench.push();
    }
    let first = bench.all_sent();
    assert_eq!(first.len(), 5);
    bench.answer(first[0], Code::REQUEST_TIMED_OUT);
    for &sent in &first[1..] {
        bench.answer(sent, Code::NONE);
    }
    bench.pass(SECOND);
    let again = bench.all_sent();
    let sequences: Vec<_> = again.iter().map(|sent| sent.sequence).collect();
    assert_eq!(
        sequences,
        [first[0].sequence],
        "nothing new before its fate is known"
    );
    bench.answer(again[0], Code::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(bench.all_sent().len(), 3);
}
