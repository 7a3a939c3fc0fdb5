//! What the producer counts.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_rate_is_that_of_the_last_thirty_seconds() {
    let start = Instant::now();
    let mut rate = Rate::default();
    assert_eq!(rate.a_second(start), 0.0);
    for step in 0..100u32 {
        rate.add(start + step * SECOND / 10, 10);
    }
    let ten = start + 10 * SECOND;
    assert_eq!(rate.a_second(ten), 100.0, "since the first record");
    assert_eq!(rate.a_second(start + 60 * SECOND), 0.0);
    assert!(rate.steps.is_empty());
    for step in 0..1000u32 {
        rate.add(ten + step * SECOND / 10, 5);
        assert!(rate.steps.len() <= 31);
    }
    let found = rate.a_second(ten + 100 * SECOND);
    assert!((45.0..=50.0).contains(&found), "{found}");
}

#[test]
fn every_record_that_ended_is_counted_once_by_outcome_and_by_kind() {
    let counters = Counters::new("test");
    let at = Instant::now();
    let ended = |records| Ended {
        at,
        records,
        latency: SECOND,
    };
    counters.sealed(10, 1000);
    counters.ended(ended(4), None);
    let timeout = Error::new(ErrorKind::Timeout, "too late");
    counters.ended(
        ended(3),
        Some(&timeout.clone().with_outcome(WriteOutcome::Unknown)),
    );
    counters.ended(
        ended(2),
        Some(&timeout.with_outcome(WriteOutcome::NotWritten)),
    );
    let metrics = counters.snapshot(at);
    assert_eq!(metrics.records_acknowledged, 4);
    assert_eq!(metrics.records_unknown, 3);
    assert_eq!(metrics.records_not_written, 2);
    assert_eq!(metrics.records_pending, 1);
    assert_eq!(metrics.errors.timeout, 5);
    assert_eq!(metrics.delivery_latency.max, SECOND);
    assert_eq!(metrics.compression_ratio, None);
    counters.compressed(1000, 400);
    assert_eq!(counters.snapshot(at).compression_ratio, Some(0.4));
}

#[test]
fn a_failure_without_a_word_about_the_log_counts_as_unknown() {
    let counters = Counters::new("test");
    let ended = Ended {
        at: Instant::now(),
        records: 1,
        latency: SECOND,
    };
    counters.ended(ended, Some(&Error::new(ErrorKind::Protocol, "odd")));
    let metrics = counters.snapshot(ended.at);
    assert_eq!((metrics.records_unknown, metrics.errors.other), (1, 1));
}
