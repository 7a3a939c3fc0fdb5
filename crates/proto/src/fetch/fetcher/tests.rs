use super::super::testing::{Batch, set};
use super::*;
use crate::cluster::{Partition, Topic};

const MIB: usize = 1 << 20;

fn config() -> FetchConfig {
    FetchConfig {
        max_bytes: 50 * MIB,
        partition_max_bytes: MIB,
        buffer_max_bytes: 64 * MIB,
        isolation: Isolation::ReadUncommitted,
        reset: OffsetReset::Earliest,
        check_crcs: true,
        inflated_max_bytes: 16 * MIB,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
        seed: 3,
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// A view in which partition `i` of topic `t` is led by `leaders[i]`; a negative one is none.
fn view(leaders: &[i32], topic_id: u8) -> ClusterView {
    let partition = |leader: &i32| Partition {
        leader: (*leader >= 0).then_some(BrokerId(*leader)),
        leader_epoch: Some(3),
        ..Partition::default()
    };
    let partitions = leaders.iter().map(partition).collect();
    let topic = Topic::new("t".into(), Some(TopicId([topic_id; 16])), false, partitions);
    let mut view = ClusterView::default();
    view.topics.insert("t".into(), Arc::new(topic));
    view
}

struct Run {
    fetcher: Fetcher,
    now: Instant,
}

impl Run {
    /// Partitions 0.. led by these brokers, all to begin at offset 0.
    fn with(config: FetchConfig, leaders: &[i32]) -> Self {
        let mut fetcher = Fetcher::new(config);
        for partition in (0i32..).take(leaders.len()) {
            fetcher.assign(&tp(partition), Start::Offset(0, None));
        }
        fetcher.handle_view(&view(leaders, 1));
        Self {
            fetcher,
            now: Instant::now(),
        }
    }

    fn fetch(&mut self) -> (Ticket, FetchRequest) {
        match self.fetcher.poll_transmit(self.now) {
            Some(Transmit::Fetch(ticket, request)) => (ticket, request),
            other => panic!("a fetch was due, not {other:?}"),
        }
    }

    fn asks(&mut self) -> Option<Vec<(i32, i64)>> {
        match self.fetcher.poll_transmit(self.now)? {
            Transmit::Fetch(_, request) => Some(
                request
                    .partitions
                    .iter()
                    .map(|q| (q.partition.partition, q.offset))
                    .collect(),
            ),
            other @ Transmit::Offsets(..) => panic!("a fetch was due, not {other:?}"),
        }
    }

    fn answer(&mut self, ticket: Ticket, broker: i32, answers: Vec<FetchedPartition>) {
        self.fetcher
            .handle_fetch(self.now, BrokerId(broker), ticket, Ok(answers));
    }

    fn fetch_and_answer(&mut self, answers: Vec<FetchedPartition>) {
        let (ticket, request) = self.fetch();
        self.answer(ticket, request.broker.0, answers);
    }

    /// Answers the ListOffsets that is due; gives the point that was asked for.
    fn look_up(&mut self, code: Code, offset: Option<i64>) -> Point {
        let (ticket, request) = match self.fetcher.poll_transmit(self.now) {
            Some(Transmit::Offsets(ticket, request)) => (ticket, request),
            other => panic!("a look-up was due, not {other:?}"),
        };
        let query = &request.partitions[0];
        let found = Found {
            partition: query.partition.clone(),
            code,
            offset,
            leader_epoch: None,
        };
        let point = query.point;
        self.fetcher
            .handle_offsets(self.now, request.broker, ticket, Ok(vec![found]));
        point
    }

    /// Steps to the next timeout.
    fn step(&mut self) {
        let at = self.fetcher.poll_timeout().expect("something is due");
        assert!(at > self.now, "a timeout that is over would spin");
        self.now = at;
    }

    fn cursor(&mut self) -> Cursor {
        match self.fetcher.take(self.now) {
            Some(Ready::Records(cursor)) => cursor,
            other => panic!("records were due, not {other:?}"),
        }
    }

    fn fault(&mut self) -> Error {
        match self.fetcher.take(self.now) {
            Some(Ready::Fault(error)) => error,
            other => panic!("a fault was due, not {other:?}"),
        }
    }

    /// Reads one cursor to its end.
    fn read(&mut self) -> Vec<(i32, i64)> {
        let mut cursor = self.cursor();
        let mut seen = Vec::new();
        while let Some(record) = cursor.next_record().unwrap() {
            seen.push((record.partition(), record.offset));
        }
        self.fetcher.finish(&cursor);
        seen
    }

    fn position(&self, partition: i32) -> Option<i64> {
        self.fetcher
            .progress(&tp(partition))
            .and_then(|progress| progress.position())
    }
}

fn records(partition: i32, batches: &[Batch]) -> FetchedPartition {
    FetchedPartition {
        partition: tp(partition),
        code: Code::NONE,
        high_watermark: Some(100),
        aborted: Vec::new(),
        diverges_at: None,
        leader_hint: None,
        records: set(batches).into(),
    }
}

fn refusal(partition: i32, code: Code) -> FetchedPartition {
    FetchedPartition {
        code,
        ..records(partition, &[])
    }
}

fn big(offset: i64) -> Batch {
    Batch::at(offset).record(0, None, Some(&[0; 600 << 10]), &[])
}

#[test]
fn one_fetch_is_in_flight_a_broker_and_goes_on_behind_what_came() {
    let mut run = Run::with(config(), &[1, 2, 1]);
    let (first, one) = run.fetch();
    let (_, two) = run.fetch();
    assert_eq!((one.broker, one.partitions.len()), (BrokerId(1), 2));
    assert_eq!((two.broker, two.partitions.len()), (BrokerId(2), 1));
    assert_eq!(one.partitions[0].leader_epoch, Some(3));
    assert!(run.fetcher.poll_transmit(run.now).is_none());
    run.answer(
        first,
        1,
        vec![records(0, &[Batch::of(0, 4)]), records(2, &[])],
    );
    // What holds little is asked for while the user reads.
    assert_eq!(run.asks(), Some(vec![(0, 4), (2, 0)]));
    assert_eq!(run.read(), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert_eq!(run.position(0), Some(4));
    assert_eq!(
        run.fetcher.progress(&tp(0)).unwrap().high_watermark(),
        Some(100)
    );
}

#[test]
fn a_partition_left_out_of_a_full_answer_is_asked_for_first_next_time() {
    let mut run = Run::with(config(), &[1, 1, 1]);
    run.fetch_and_answer(vec![
        records(0, &[Batch::of(0, 1)]),
        records(1, &[Batch::of(0, 1)]),
    ]);
    assert_eq!(run.asks(), Some(vec![(2, 0), (0, 1), (1, 1)]));
}

#[test]
fn a_broker_is_not_asked_while_one_of_its_partitions_holds_enough() {
    let mut run = Run::with(config(), &[1, 1]);
    run.fetch_and_answer(vec![records(0, &[big(0)]), records(1, &[])]);
    assert_eq!(
        run.asks(),
        None,
        "the quiet one would make the busy one wait"
    );
    let _open = run.cursor();
    assert_eq!(run.asks(), Some(vec![(0, 1), (1, 0)]));
}

/// Bug class 23: what waits for a user who does not come is bounded.
#[test]
fn a_user_who_does_not_read_stops_the_fetching() {
    let small = FetchConfig {
        buffer_max_bytes: 3 * MIB,
        ..config()
    };
    let mut run = Run::with(small, &[1, 1, 1, 1, 1, 1]);
    let mut fetched = 0;
    while let Some(Transmit::Fetch(ticket, request)) = run.fetcher.poll_transmit(run.now) {
        assert!(request.max_bytes <= 3 * MIB);
        let mut room = request.max_bytes;
        let mut answers = Vec::new();
        for query in &request.partitions {
            let batch = records(
                query.partition.partition,
                &[Batch::at(query.offset).record(0, None, Some(&[0; 400 << 10]), &[])],
            );
            if batch.records.len() <= room {
                room -= batch.records.len();
                fetched += batch.records.len();
                answers.push(batch);
            }
        }
        run.answer(ticket, 1, answers);
        assert!(fetched <= 3 * MIB, "{fetched}");
    }
    assert!(fetched > 2 * MIB - (400 << 10), "{fetched}");
    assert_eq!(run.fetcher.poll_timeout(), None);
}

#[test]
fn a_buffer_smaller_than_a_partition_still_moves() {
    let tiny = FetchConfig {
        buffer_max_bytes: 1,
        ..config()
    };
    let mut run = Run::with(tiny, &[1]);
    run.fetch_and_answer(vec![records(0, &[big(0)])]);
    assert_eq!(run.asks(), None);
    assert_eq!(run.read(), [(0, 0)]);
    assert_eq!(run.asks(), Some(vec![(0, 1)]));
}

/// Bug class 17: nothing of a revoked partition is handed out, wherever it was.
#[test]
fn a_revoked_partitions_records_are_never_handed_out() {
    let mut run = Run::with(config(), &[1, 1]);
    let (ticket, _) = run.fetch();
    run.fetcher.unassign(&tp(0));
    run.answer(
        ticket,
        1,
        vec![
            records(0, &[Batch::of(0, 1)]),
            records(1, &[Batch::of(0, 1)]),
        ],
    );
    assert_eq!(run.read(), [(1, 0)]);
    assert!(
        !run.fetcher.has_ready(),
        "the answer came after the revocation"
    );

    run.fetch_and_answer(vec![records(1, &[Batch::of(1, 1), Batch::of(2, 1)])]);
    let held = run.cursor();
    run.fetcher.unassign(&tp(1));
    assert!(held.progress().is_revoked());

    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![records(0, &[Batch::of(0, 1)])]);
    run.fetcher.unassign(&tp(0));
    let again = run.fetcher.assign(&tp(0), Start::Offset(5, None));
    assert!(
        !run.fetcher.has_ready(),
        "what was buffered is of the earlier assignment"
    );
    assert!(!again.is_revoked());
}

#[test]
fn a_seek_forgets_what_was_asked_and_fetched_before() {
    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![records(0, &[Batch::of(0, 5)])]);
    let (stale, _) = run.fetch();
    assert!(run.fetcher.seek(&tp(0), Start::Offset(50, None)));
    assert_eq!(run.position(0), Some(50));
    assert!(!run.fetcher.has_ready());
    run.answer(stale, 1, vec![records(0, &[Batch::of(5, 5)])]);
    assert!(!run.fetcher.has_ready(), "an answer to an older question");
    assert_eq!(run.asks(), Some(vec![(0, 50)]));
    assert!(!run.fetcher.seek(&tp(9), Start::Offset(0, None)));
    let progress = run.fetcher.progress(&tp(0)).unwrap();
    assert_eq!(
        progress.leader_epoch(),
        None,
        "the epoch of what was read before the seek"
    );
}

/// Bug class 18: a paused partition's records, fetched before or after, wait.
#[test]
fn a_paused_partition_hands_out_nothing_until_it_is_resumed() {
    let mut run = Run::with(config(), &[1, 1]);
    run.fetch_and_answer(vec![
        records(0, &[Batch::of(0, 2)]),
        records(1, &[Batch::of(0, 1)]),
    ]);
    let mut cursor = run.cursor();
    assert_eq!(cursor.next_record().unwrap().unwrap().offset, 0);
    let (ticket, _) = run.fetch();
    run.fetcher.pause(&tp(0), Pause::On);
    run.fetcher.put_back(cursor);
    run.answer(ticket, 1, vec![records(0, &[Batch::of(2, 1)])]);
    assert_eq!(run.read(), [(1, 0)]);
    assert!(!run.fetcher.has_ready());
    assert_eq!(
        run.asks(),
        Some(vec![(1, 1)]),
        "a paused partition is not asked for"
    );
    run.fetcher.pause(&tp(0), Pause::Off);
    assert_eq!(run.read(), [(0, 1)]);
    assert_eq!(run.read(), [(0, 2)]);
}

/// Bug class 18: a rebalance does not resume what the user paused.
#[test]
fn a_pause_outlives_the_assignment() {
    let mut run = Run::with(config(), &[1]);
    run.fetcher.pause(&tp(0), Pause::On);
    run.fetcher.unassign(&tp(0));
    run.fetcher.assign(&tp(0), Start::Offset(0, None));
    run.fetcher.handle_view(&view(&[1], 1));
    assert_eq!(run.asks(), None);
    run.fetcher.pause(&tp(0), Pause::Off);
    assert_eq!(run.asks(), Some(vec![(0, 0)]));
}

#[test]
fn an_offset_out_of_range_goes_where_the_policy_says_once_all_is_read() {
    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![records(0, &[Batch::of(0, 1)])]);
    run.fetch_and_answer(vec![refusal(0, Code::OFFSET_OUT_OF_RANGE)]);
    assert!(
        run.fetcher.poll_event().is_none(),
        "what was fetched comes first"
    );
    assert_eq!(run.read(), [(0, 0)]);
    run.step_past_backoff();
    run.fetch_and_answer(vec![refusal(0, Code::OFFSET_OUT_OF_RANGE)]);
    assert!(matches!(
        run.fetcher.poll_event(),
        Some(Event::OutOfRange { offset: 1, .. })
    ));
    assert_eq!(run.position(0), None);
    assert_eq!(run.look_up(Code::NONE, Some(70)), Point::Earliest);
    assert_eq!(run.position(0), Some(70));
    assert_eq!(run.asks(), Some(vec![(0, 70)]));
}

#[test]
fn without_a_policy_the_user_is_told_at_every_call_and_seeks() {
    let strict = FetchConfig {
        reset: OffsetReset::None,
        ..config()
    };
    let mut run = Run::with(strict, &[1]);
    run.fetch_and_answer(vec![refusal(0, Code::OFFSET_OUT_OF_RANGE)]);
    for _ in 0..3 {
        assert_eq!(run.asks(), None);
        let error = run.fault();
        assert_eq!(error.code(), Some(Code::OFFSET_OUT_OF_RANGE));
        assert_eq!(error.place().partition, Some(tp(0)));
        assert!(run.fetcher.take(run.now).is_none());
        run.step();
    }
    run.fetcher.seek(&tp(0), Start::Offset(3, None));
    assert_eq!(run.asks(), Some(vec![(0, 3)]));

    run.fetcher.assign(&tp(0), Start::Awaited);
    run.fetcher.handle_view(&view(&[1], 1));
    assert_eq!(run.asks(), None, "nobody has said where to begin");
    run.fetcher.start(&tp(0), Start::Policy);
    assert_eq!(run.asks(), None);
    assert!(
        run.fault()
            .to_string()
            .contains("auto.offset.reset is none")
    );
}

#[test]
fn a_leader_that_moved_is_looked_for_and_asked_at_once_when_found() {
    for code in [Code::NOT_LEADER_OR_FOLLOWER, Code::FENCED_LEADER_EPOCH] {
        let mut run = Run::with(config(), &[1]);
        run.fetch_and_answer(vec![refusal(0, code)]);
        assert!(matches!(run.fetcher.poll_event(), Some(Event::ViewStale)));
        assert_eq!(run.asks(), None, "no answer can differ yet");
        run.fetcher.handle_view(&view(&[2], 1));
        let (_, request) = run.fetch();
        assert_eq!(request.broker, BrokerId(2));
    }
}

/// Bug class 24: refusals and lost connections are met with growing pauses.
#[test]
fn failures_are_met_with_growing_pauses() {
    let mut run = Run::with(config(), &[1]);
    let mut pauses = Vec::new();
    for round in 0..6 {
        let before = run.now;
        if round % 2 == 0 {
            run.fetch_and_answer(vec![refusal(0, Code::UNKNOWN_SERVER_ERROR)]);
        } else {
            let (ticket, request) = run.fetch();
            let error = Error::new(ErrorKind::Connection, "gone");
            run.fetcher
                .handle_fetch(run.now, request.broker, ticket, Err(error));
        }
        run.step();
        pauses.push((run.now - before).as_millis());
    }
    assert!(pauses[0] >= 80 && pauses[5] >= 800, "{pauses:?}");
}

/// Bug class 13: a partition without a leader waits for one and causes no timer to spin.
#[test]
fn a_partition_without_a_leader_waits_for_the_view() {
    let mut run = Run::with(config(), &[-1]);
    assert_eq!(run.asks(), None);
    assert_eq!(run.fetcher.poll_timeout(), None);
    run.fetcher.handle_view(&view(&[1], 1));
    assert_eq!(run.asks(), Some(vec![(0, 0)]));
}

#[test]
fn damage_is_told_once_a_pause_and_is_not_skipped() {
    let mut run = Run::with(config(), &[1]);
    let mut answer = set(&[Batch::of(0, 1), Batch::of(1, 1)]);
    let last = answer.len() - 1;
    answer[last] ^= 1;
    let damaged = FetchedPartition {
        records: answer.into(),
        ..records(0, &[])
    };
    run.fetch_and_answer(vec![damaged]);
    let mut cursor = run.cursor();
    assert_eq!(cursor.next_record().unwrap().unwrap().offset, 0);
    let error = cursor.next_record().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    run.fetcher.handle_corrupt(run.now, &cursor);
    assert_eq!(run.position(0), Some(1));
    assert_eq!(
        cursor.progress().handled(),
        Some(0),
        "offset 0 was handed out, not done with"
    );
    assert_eq!(run.asks(), None, "asked again without a pause");
    run.step();
    assert_eq!(run.asks(), Some(vec![(0, 1)]));
}

#[test]
fn bytes_that_are_no_batch_stop_the_partition_at_them() {
    let mut run = Run::with(config(), &[1]);
    let mut answer = set(&[Batch::of(0, 1)]);
    answer.extend([0; 100]);
    let damaged = FetchedPartition {
        records: answer.into(),
        ..records(0, &[])
    };
    run.fetch_and_answer(vec![damaged]);
    assert_eq!(run.asks(), None, "nothing behind the damage is asked for");
    let mut cursor = run.cursor();
    assert!(cursor.next_record().unwrap().is_some());
    assert!(cursor.next_record().is_err());
}

#[test]
fn an_answer_without_a_whole_batch_is_an_error_with_its_place() {
    let mut run = Run::with(config(), &[1]);
    let mut answer = Batch::of(0, 9).bytes();
    answer.truncate(80);
    let cut = FetchedPartition {
        records: answer.into(),
        ..records(0, &[])
    };
    run.fetch_and_answer(vec![cut]);
    let error = run.fault();
    assert_eq!(
        error.to_string(),
        "80 bytes hold no whole batch from offset 0 on for t-0"
    );
    assert_eq!(run.asks(), None);
    run.step();
    assert_eq!(run.asks(), Some(vec![(0, 0)]));
}

#[test]
fn a_refusal_for_good_is_told_and_tried_again_when_the_user_comes_back() {
    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![refusal(0, Code::TOPIC_AUTHORIZATION_FAILED)]);
    assert_eq!(run.asks(), None);
    assert_eq!(run.fetcher.poll_timeout(), None, "the user has not come");
    let error = run.fault().to_string();
    assert_eq!(
        error,
        "broker 1: Fetch was answered with TOPIC_AUTHORIZATION_FAILED for t-0"
    );
    run.step();
    assert_eq!(run.asks(), Some(vec![(0, 0)]));
}

#[test]
fn a_log_that_lost_records_takes_the_position_back() {
    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![records(0, &[Batch::of(0, 9)])]);
    run.read();
    let (ticket, request) = run.fetch();
    assert_eq!(request.partitions[0].last_fetched_epoch, Some(3));
    let diverging = FetchedPartition {
        diverges_at: Some(4),
        ..records(0, &[])
    };
    run.answer(ticket, 1, vec![diverging]);
    assert!(matches!(
        run.fetcher.poll_event(),
        Some(Event::Truncated { from: 9, to: 4, .. })
    ));
    assert_eq!(run.asks(), Some(vec![(0, 4)]));
}

/// Bug class 7: a topic made anew under the same name is another log.
#[test]
fn a_topic_made_anew_is_read_as_the_policy_says() {
    let mut run = Run::with(config(), &[1]);
    run.fetch_and_answer(vec![records(0, &[Batch::of(0, 9)])]);
    run.read();
    run.fetcher.handle_view(&view(&[1], 2));
    assert!(matches!(
        run.fetcher.poll_event(),
        Some(Event::Recreated(_))
    ));
    assert_eq!(run.look_up(Code::NONE, Some(0)), Point::Earliest);
    assert_eq!(run.asks(), Some(vec![(0, 0)]));
}

#[test]
fn a_time_after_the_last_record_begins_at_the_end() {
    let mut run = Run::with(config(), &[1]);
    let point = Point::At(Duration::from_secs(5));
    run.fetcher.seek(&tp(0), Start::At(point));
    assert_eq!(run.look_up(Code::NONE, None), point);
    assert_eq!(run.look_up(Code::OFFSET_NOT_AVAILABLE, None), Point::Latest);
    assert!(
        run.fetcher.poll_transmit(run.now).is_none(),
        "asked again without a pause"
    );
    run.step();
    assert_eq!(run.look_up(Code::NONE, Some(8)), Point::Latest);
    assert_eq!(run.position(0), Some(8));
}

impl Run {
    fn step_past_backoff(&mut self) {
        self.now += Duration::from_secs(2);
    }
}
