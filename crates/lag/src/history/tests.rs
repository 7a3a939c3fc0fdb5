//! What a row of observations tells, above all where others' figures have misled people.

use super::*;
use crate::snapshot::{Committed, End, Offsets, Snapshot};
use ottla_proto::TopicId;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// One partition of one group, looked at every second.
struct Partition {
    start: Instant,
    seconds: u32,
    growths: Growths,
    tracks: Tracks,
    last: Option<PartitionLag>,
}

impl Partition {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            seconds: 0,
            growths: Growths::default(),
            tracks: Tracks::default(),
            last: None,
        }
    }

    fn look_at(&mut self, id: u8, committed: i64, end: End) -> PartitionLag {
        let taken_at = self.start + self.seconds * SECOND;
        self.seconds += 1;
        let mut found = Found::nothing(
            &crate::source::Asked {
                group: "billing".into(),
                topics: vec!["orders".into()],
            },
            crate::source::Standing::Told,
            taken_at,
        );
        found.topics[0].id = Some(TopicId([id; 16]));
        found.topics[0].partitions = vec![Offsets {
            committed: Committed::At(committed),
            end,
        }];
        self.growths.note(std::slice::from_ref(&found));
        let mut snapshot = Snapshot::new("billing".into(), taken_at, &found.topics, None);
        let topic = &mut snapshot.topics[0];
        self.tracks.fill(topic, taken_at, SECOND, &self.growths);
        self.last = Some(topic.partitions[0]);
        topic.partitions[0]
    }

    fn look(&mut self, committed: i64, end: i64) -> PartitionLag {
        self.look_at(1, committed, at(end, end))
    }
}

fn at(high_watermark: i64, last_stable: i64) -> End {
    End::At {
        high_watermark,
        log_start: Some(0),
        last_stable: Some(last_stable),
    }
}

fn about(lag: PartitionLag) -> f64 {
    match lag.time_lag {
        Some(TimeLag::About(time)) => time.as_secs_f64(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn seconds_behind_are_those_since_the_next_record_was_written() {
    let mut partition = Partition::new();
    for second in 0..100 {
        // A hundred records a second; the group is seven seconds behind.
        let lag = partition.look((second * 100 - 700).max(0), second * 100);
        if second > 10 {
            assert!((about(lag) - 7.0).abs() < 0.02, "{lag:?}");
        }
    }
}

/// Trap: extrapolation. A group that is further behind than we have watched has a least time, which
/// grows, and no invented one that stops at the length of the history.
#[test]
fn a_lag_older_than_the_history_is_told_as_at_least() {
    let mut partition = Partition::new();
    for second in 0..5_000 {
        let lag = partition.look(10, 1_000_000 + second * 100);
        let least = TimeLag::AtLeast(u32::try_from(second).unwrap() * SECOND);
        assert_eq!(lag.time_lag, Some(least));
    }
}

/// Trap: idle topics. Nothing is written any more, and what is unread goes on to age.
#[test]
fn an_idle_topic_goes_on_to_age() {
    let mut partition = Partition::new();
    partition.look(0, 0);
    for second in 1..2_000 {
        let lag = partition.look(50, 100);
        assert!((about(lag) - (f64::from(second) - 0.5)).abs() < 0.02);
    }
    assert_eq!(
        partition.look(100, 100).time_lag,
        Some(TimeLag::About(Duration::ZERO))
    );
    // The next record is new, whatever time has passed before it.
    assert!(about(partition.look(100, 101)) <= 1.0);
}

/// Trap: a history of even steps tells long lags or short ones, never both.
#[test]
fn hours_and_seconds_behind_are_both_told_from_a_bounded_history() {
    let mut partition = Partition::new();
    for second in 0..20_000 {
        partition.look(0, second * 100);
    }
    let growth = &partition.growths.0["orders"].1[0];
    assert!(growth.0.len() <= POINTS_MAX);
    assert!((about(partition.look(2_000_000 - 500, 2_000_000)) - 5.0).abs() < 0.1);
    let hours = about(partition.look(2_000_000 - 1_440_000, 2_000_100));
    assert!((hours - 14_400.0).abs() < 150.0, "{hours}");
}

#[test]
fn a_topic_made_anew_or_cut_has_no_history() {
    let mut partition = Partition::new();
    for second in 0..10 {
        partition.look(0, second * 100);
    }
    let lag = partition.look_at(2, 0, at(10, 10));
    assert_eq!(lag.time_lag, Some(TimeLag::AtLeast(Duration::ZERO)));
    assert_eq!(lag.progress, Progress::Waiting);
    let lag = partition.look_at(2, 0, at(5, 5));
    assert_eq!(lag.time_lag, Some(TimeLag::AtLeast(Duration::ZERO)));
}

#[test]
fn progress_is_burrows_with_stop_and_stall_as_one() {
    // The lag at second s, the committed offset at it, and what that is after two minutes.
    type Course = fn(i64) -> (i64, i64);
    let courses: [(Course, Progress); 6] = [
        (|s| (s * 100, s * 100), Progress::Ok),
        (|s| (s * 100 - s * 100 % 3_000, s * 100), Progress::Ok),
        (|s| (s * 50, s * 100), Progress::Behind),
        (|s| (700, 800 + s * 100), Progress::Stalled),
        (|_| (700, 800), Progress::Stalled),
        (|s| (s * 100, 20_000 + s * 50), Progress::Ok),
    ];
    for (number, (course, expected)) in courses.into_iter().enumerate() {
        let mut partition = Partition::new();
        for second in 1..=120 {
            let (committed, end) = course(second);
            partition.look(committed, end);
        }
        assert_eq!(partition.last.unwrap().progress, expected, "{number}");
    }
}

#[test]
fn nothing_is_called_stalled_before_it_was_watched_for_a_minute() {
    let mut partition = Partition::new();
    for _ in 0..60 {
        assert_eq!(partition.look(700, 800).progress, Progress::Waiting);
    }
    assert_eq!(partition.look(700, 800).progress, Progress::Stalled);
}

#[test]
fn an_offset_that_went_back_is_rewound_until_it_recovers() {
    let mut partition = Partition::new();
    for second in 0..100 {
        partition.look(second * 10, 10_000);
    }
    assert_eq!(partition.look(500, 10_000).progress, Progress::Rewound);
    assert_eq!(partition.look(600, 10_000).progress, Progress::Rewound);
    assert_ne!(partition.look(1_000, 10_000).progress, Progress::Rewound);
}

/// Trap: the marker of a transaction takes an offset, so a group that has read all stays at lag 1 for
/// ever.
#[test]
fn a_lag_of_one_that_stays_is_a_marker_and_no_stall() {
    let mut partition = Partition::new();
    for _ in 0..600 {
        assert_eq!(partition.look(99, 100).progress, Progress::Ok);
    }
}

/// Trap: a group that reads committed records ends at the last stable offset, which an open
/// transaction holds still. It is named, and the lag stays what it is.
#[test]
fn a_group_held_by_an_open_transaction_is_blocked_and_not_stalled_and_keeps_its_lag() {
    let mut partition = Partition::new();
    for second in 0..100 {
        let lag = partition.look_at(1, 500, at(600 + second * 10, 500));
        assert_eq!(lag.lag, Some(100 + u64::try_from(second).unwrap() * 10));
        assert_eq!(lag.stable_lag(), Some(0));
        let expected = if second < 3 {
            Progress::Waiting
        } else {
            Progress::Blocked
        };
        assert_eq!(lag.progress, expected, "{second}");
    }
    // It commits, and the group reads on.
    let lag = partition.look_at(1, 1_200, at(2_000, 2_000));
    assert_eq!((lag.progress, lag.stable_lag()), (Progress::Ok, Some(800)));
}

#[test]
fn a_group_that_reads_past_an_open_transaction_is_not_blocked_by_it() {
    let mut partition = Partition::new();
    for second in 0..100 {
        let lag = partition.look_at(1, 700, at(1_000 + second, 500));
        assert_ne!(lag.progress, Progress::Blocked);
    }
    assert_eq!(partition.last.unwrap().progress, Progress::Stalled);
}

/// A metrics server may have measured one group and not, or not all of, another.
#[test]
fn what_is_not_heard_for_one_group_takes_nothing_from_what_is_for_another() {
    use crate::snapshot::TopicOffsets;
    use crate::source::{Asked, Standing};
    let start = Instant::now();
    let mut growths = Growths::default();
    let asked = |group: &str| Asked {
        group: group.into(),
        topics: vec!["orders".into()],
    };
    for second in 0..30u32 {
        let taken_at = start + second * SECOND;
        let measured = |group: &str, partitions: usize| {
            let mut found = Found::nothing(&asked(group), Standing::Told, taken_at);
            let offsets = Offsets {
                committed: Committed::At(1_000),
                end: at(100 * i64::from(second), 0),
            };
            found.topics = vec![TopicOffsets {
                id: (partitions > 0).then_some(TopicId([1; 16])),
                partitions: vec![offsets; partitions],
                ..TopicOffsets::nothing(&"orders".into())
            }];
            found
        };
        let (all, one, none) = (measured("a", 2), measured("b", 1), measured("c", 0));
        growths.note(&[all, one, none]);
    }
    let behind = growths.0["orders"].1[1].behind(1_000, start + 29 * SECOND);
    assert_eq!(behind, Some(TimeLag::About(19 * SECOND)));
}

proptest! {
    /// Whatever offsets come: no panic, a bounded history, and no time before it began.
    #[test]
    fn any_course_of_offsets_is_survived(
        course in proptest::collection::vec((0..i64::MAX, 0..i64::MAX, any::<i64>()), 1..200)
    ) {
        let mut partition = Partition::new();
        for (committed, end, stable) in course {
            let lag = partition.look_at(1, committed, at(end, stable));
            if let Some(time) = lag.time_lag {
                prop_assert!(time.duration() <= partition.seconds * SECOND);
            }
            prop_assert!(partition.growths.0["orders"].1[0].0.len() <= POINTS_MAX);
        }
    }
}
