//! The traps of lag arithmetic, a test each.

use super::*;
use proptest::prelude::*;

fn at(high_watermark: i64) -> End {
    End::At {
        high_watermark,
        log_start: Some(0),
        last_stable: None,
    }
}

fn one(committed: Committed, end: End) -> PartitionLag {
    partition_lag(0, Offsets { committed, end }, Instant::now())
}

#[test]
fn lag_is_the_end_less_the_commit() {
    let lag = one(Committed::At(40), at(100));
    assert_eq!((lag.lag, lag.lost), (Some(60), 0));
    assert_eq!(lag.status, LagStatus::Known);
    assert_eq!(one(Committed::At(100), at(100)).lag, Some(0));
}

#[test]
fn no_commit_is_unknown_and_neither_zero_nor_the_whole_log() {
    let lag = one(Committed::Nothing, at(100));
    assert_eq!((lag.lag, lag.committed), (None, None));
    assert_eq!(lag.end, Some(100));
    assert_eq!(lag.status, LagStatus::NoCommit);
}

#[test]
fn a_commit_beyond_the_end_is_a_status_and_no_wrapped_number() {
    let lag = one(Committed::At(1_000_000), at(10));
    assert_eq!(lag.lag, None);
    assert_eq!(lag.committed, Some(1_000_000));
    assert_eq!(lag.status, LagStatus::BeyondEnd);
}

#[test]
fn a_commit_below_the_log_start_is_clamped_and_counted_as_lost() {
    let end = End::At {
        high_watermark: 100,
        log_start: Some(70),
        last_stable: None,
    };
    let lag = one(Committed::At(20), end);
    assert_eq!((lag.lag, lag.lost), (Some(30), 50));
}

#[test]
fn an_unknown_end_or_commit_keeps_the_brokers_code() {
    let code = Some(Code::GROUP_AUTHORIZATION_FAILED);
    let lag = one(Committed::Unknown(code), at(100));
    assert_eq!((lag.lag, lag.status), (None, LagStatus::Unknown(code)));
    assert_eq!(
        lag.status.to_string(),
        "unknown (GROUP_AUTHORIZATION_FAILED)"
    );
    let code = Some(Code::NOT_LEADER_OR_FOLLOWER);
    let lag = one(Committed::At(4), End::Unknown(code));
    assert_eq!((lag.lag, lag.status), (None, LagStatus::Unknown(code)));
}

#[test]
fn senseless_offsets_are_unknown() {
    assert_eq!(
        one(Committed::At(-7), at(100)).status,
        LagStatus::Unknown(None)
    );
    assert_eq!(
        one(Committed::At(7), at(-1)).status,
        LagStatus::Unknown(None)
    );
    let end = End::At {
        high_watermark: 100,
        log_start: Some(i64::MAX),
        last_stable: None,
    };
    let lag = one(Committed::At(20), end);
    assert_eq!((lag.lag, lag.lost), (Some(80), 0));
}

fn topic(id: u8, partitions: &[Offsets]) -> Vec<TopicOffsets> {
    vec![TopicOffsets {
        topic: "orders".into(),
        id: Some(TopicId([id; 16])),
        refused: None,
        partitions: partitions.to_vec(),
    }]
}

const FINE: Offsets = Offsets {
    committed: Committed::At(5),
    end: End::At {
        high_watermark: 9,
        log_start: None,
        last_stable: None,
    },
};
const FAILED: Offsets = Offsets {
    committed: Committed::At(5),
    end: End::Unknown(None),
};

#[test]
fn a_partition_that_cannot_be_asked_ages_and_the_rest_stays_fresh() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let first = Snapshot::new("g".into(), start, &topic(1, &[FINE, FINE]), None);
    let later = start + 20 * second;
    let next = Snapshot::new("g".into(), later, &topic(1, &[FAILED, FINE]), Some(&first));
    let old = next.partition("orders", 0).unwrap();
    assert_eq!((old.lag, old.age(later)), (Some(4), 20 * second));
    let fresh = next.partition("orders", 1).unwrap();
    assert_eq!(fresh.age(later), Duration::ZERO);
    // Its age goes on to grow, until it counts for nothing.
    let later = start + 61 * second;
    let last = Snapshot::new("g".into(), later, &topic(1, &[FAILED, FINE]), Some(&next));
    let gone = last.partition("orders", 0).unwrap();
    assert_eq!((gone.lag, gone.status), (None, LagStatus::Unknown(None)));
    assert_eq!(gone.age(later), 61 * second);
    assert_eq!(last.lag(), Some(4));
    let later = start + 3_600 * second;
    let last = Snapshot::new("g".into(), later, &topic(1, &[FAILED, FINE]), Some(&last));
    assert_eq!(last.topics[0].partitions[0].age(later), 3_600 * second);
}

#[test]
fn a_coordinator_that_is_away_does_not_hold_still_how_the_log_grows() {
    let start = Instant::now();
    let later = start + Duration::from_secs(20);
    let first = Snapshot::new("g".into(), start, &topic(1, &[FINE]), None);
    let grown = Offsets {
        committed: Committed::Unknown(None),
        end: at(50),
    };
    let next = Snapshot::new("g".into(), later, &topic(1, &[grown]), Some(&first));
    let lag = next.partition("orders", 0).unwrap();
    assert_eq!((lag.lag, lag.taken_at), (Some(4), start), "as it was");
    assert_eq!((lag.end, lag.log_start), (Some(50), Some(0)));
}

#[test]
fn a_coordinator_that_knows_of_no_commit_is_believed_after_a_while() {
    let begun = Instant::now();
    let told = |committed, end| {
        topic(
            1,
            &[Offsets {
                committed,
                end: at(end),
            }],
        )
    };
    let look = |after: u64, committed, end, previous: Option<&Snapshot>| {
        let now = begun + Duration::from_secs(after);
        let snapshot = Snapshot::new("billing".into(), now, &told(committed, end), previous);
        let lag = *snapshot.partition("orders", 0).unwrap();
        (
            snapshot,
            (lag.committed, lag.lag, lag.end, lag.age(now).as_secs()),
        )
    };
    let (known, _) = look(0, Committed::At(3), 10, None);
    let (moved, lag) = look(1, Committed::Nothing, 12, Some(&known));
    assert_eq!(
        lag,
        (Some(3), Some(7), Some(12), 1),
        "the lag is as old as its commit"
    );
    let (again, lag) = look(2, Committed::At(4), 12, Some(&moved));
    assert_eq!(lag, (Some(4), Some(8), Some(12), 0));
    let (held, lag) = look(32, Committed::Nothing, 12, Some(&again));
    assert_eq!(lag.0, Some(4));
    let (gone, lag) = look(33, Committed::Nothing, 12, Some(&held));
    assert_eq!(lag, (None, None, Some(12), 0));
    let (_, lag) = look(34, Committed::Nothing, 13, Some(&gone));
    assert_eq!(
        lag,
        (None, None, Some(13), 0),
        "and is as fresh as it is heard from then on"
    );
}

#[test]
fn an_end_that_is_heard_is_fresh_however_long_the_commit_is_unknown() {
    let start = Instant::now();
    let refused = Offsets {
        committed: Committed::Unknown(Some(Code::GROUP_AUTHORIZATION_FAILED)),
        end: at(50),
    };
    let first = Snapshot::new("g".into(), start, &topic(1, &[refused]), None);
    let later = start + Duration::from_secs(100);
    let next = Snapshot::new("g".into(), later, &topic(1, &[refused]), Some(&first));
    let lag = next.partition("orders", 0).unwrap();
    assert_eq!((lag.lag, lag.end, lag.taken_at), (None, Some(50), later));
}

#[test]
fn nothing_is_carried_over_to_a_topic_made_anew() {
    let start = Instant::now();
    let first = Snapshot::new("g".into(), start, &topic(1, &[FINE]), None);
    let next = Snapshot::new("g".into(), start, &topic(2, &[FAILED]), Some(&first));
    assert_eq!(next.partition("orders", 0).unwrap().lag, None);
    assert_eq!(next.lag(), None);
}

#[test]
fn what_is_not_there_is_none() {
    let snapshot = Snapshot::new("g".into(), Instant::now(), &topic(1, &[FINE]), None);
    assert!(snapshot.partition("orders", 1).is_none());
    assert!(snapshot.partition("orders", -1).is_none());
    assert!(snapshot.partition("order", 0).is_none());
}

proptest! {
    /// Whatever brokers say: no overflow, and a lag that is told is a true difference.
    #[test]
    fn any_offsets_are_survived(
        committed in any::<i64>(), high_watermark in any::<i64>(),
        log_start in proptest::option::of(any::<i64>()),
    ) {
        let end = End::At { high_watermark, log_start, last_stable: None };
        let told = one(Committed::At(committed), end);
        if let Some(lag) = told.lag {
            prop_assert!(committed >= 0 && committed <= high_watermark);
            prop_assert!(lag <= high_watermark.unsigned_abs());
        } else {
            prop_assert!(told.status != LagStatus::Known);
        }
    }
}
