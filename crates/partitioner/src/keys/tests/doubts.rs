//! Records of producers that have ended without knowing whether they were written.

use super::*;
use crate::keys::slots::DOUBTS_MAX;

const MINUTE: Duration = Duration::from_secs(60);

/// A plan whose figures were asked for then: partition 0 is slow, and the group has read it so far;
/// without an end its leader did not answer.
fn slow_at(taken_at: Instant, committed: i64, end: Option<i64>) -> TopicPlan {
    let figures = slow(committed);
    let mut offsets = figures.map(|(committed, end, _)| KeyOffsets {
        committed,
        end: Some(end),
    });
    offsets[0].end = end;
    let weights = [0.0, 1.0, 1.0, 1.0];
    TopicPlan::weighted("orders".into(), taken_at, SECOND, &weights)
        .with_health(health(figures))
        .with_key_offsets(offsets.to_vec())
}

/// A plan, somebody who reads it and a key of partition 0 which so many others, that have ended, left
/// in doubt.
struct Left {
    publisher: PlanPublisher,
    steer: LagAware,
    key: String,
    begun: Instant,
}

fn left_by(producers: usize) -> Left {
    let (publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    assert_eq!(send(&steer, &key, 10), 0);
    let left = Left {
        publisher,
        steer,
        key,
        begun: Instant::now(),
    };
    drop(left.doubts_of(producers));
    left
}

impl Left {
    /// So many others, each of which leaves the key in doubt.
    fn doubts_of(&self, producers: usize) -> Vec<LagAware> {
        let other = |_| {
            let other = LagAware::new(self.steer.plan().clone());
            ticket(&other, &self.key).settle(Written::Perhaps);
            other
        };
        (0..producers).map(other).collect()
    }

    /// Whether the key leaves partition 0 so long after the beginning, by a look of that moment.
    fn leaves(&mut self, after: Duration, committed: i64, end: Option<i64>) -> bool {
        let at = self.begun + after;
        self.publisher.publish(vec![slow_at(at, committed, end)]);
        let view = view(COUNT, &ALL);
        let ticket = self.steer.track(&view, self.key.as_bytes(), at).unwrap();
        ticket.partition() != 0
    }
}

#[test]
fn a_doubt_of_a_producer_that_is_gone_ends_below_what_a_look_long_after_finds() {
    let mut left = left_by(1);
    assert!(!left.leaves(SECOND, 999, Some(40)));
    assert!(
        !left.leaves(2 * SECOND, 999, Some(40)),
        "it answers from now"
    );
    assert!(!left.leaves(2 * MINUTE, 999, Some(1_000)));
    let after = 2 * MINUTE + 2 * SECOND;
    assert!(!left.leaves(after, 999, Some(1_000)), "it may lie at 999");
    assert!(left.leaves(after + SECOND, 1_000, Some(5_000)));
}

#[test]
fn a_leader_that_does_not_answer_may_have_what_it_was_sent_before_it() {
    let mut left = left_by(1);
    for minutes in 0..10 {
        assert!(!left.leaves(minutes * MINUTE, 999, None));
    }
    assert!(!left.leaves(10 * MINUTE, 999, Some(900)), "it is back");
    assert!(!left.leaves(11 * MINUTE, 999, Some(900)));
    assert!(left.leaves(12 * MINUTE, 999, Some(900)));
}

#[test]
fn figures_from_before_its_end_say_nothing_of_what_a_producer_left() {
    let mut left = left_by(1);
    let view = view(COUNT, &ALL);
    // Looks that were on their way when its end was noticed, five minutes later.
    for seconds in [60, 180, 290] {
        let old = left.begun + seconds * SECOND;
        left.publisher.publish(vec![slow_at(old, 999, Some(900))]);
        let at = left.begun + 5 * MINUTE;
        let ticket = left.steer.track(&view, left.key.as_bytes(), at);
        assert_eq!(ticket.unwrap().partition(), 0);
    }
    assert!(
        !left.leaves(6 * MINUTE, 999, Some(900)),
        "the first that counts"
    );
    assert!(left.leaves(8 * MINUTE, 999, Some(900)));
}

#[test]
fn a_doubt_of_a_producer_that_lives_stays_until_its_own_next_record() {
    let mut left = left_by(0);
    let lives = LagAware::new(left.steer.plan().clone());
    ticket(&lives, &left.key).settle(Written::Perhaps);
    for minutes in 0..10 {
        assert!(!left.leaves(minutes * MINUTE, 999, Some(900)));
    }
    assert_eq!(send(&lives, &left.key, 20), 0);
    assert!(left.leaves(11 * MINUTE, 999, Some(900)));
}

#[test]
fn of_more_producers_than_are_kept_apart_the_doubts_end_together() {
    for producers in DOUBTS_MAX..30 {
        let mut left = left_by(producers);
        // A later record of another one lies behind its own alone.
        assert_eq!(send(&left.steer, &left.key, 11), 0);
        for seconds in [1, 60, 120] {
            assert!(!left.leaves(seconds * SECOND, 999, Some(900)));
        }
        assert!(
            left.leaves(2 * MINUTE + SECOND, 999, Some(900)),
            "{producers}"
        );
    }
}

#[test]
fn who_ends_last_decides_when_the_gathered_doubts_end() {
    let mut left = left_by(1);
    assert!(!left.leaves(Duration::ZERO, 999, Some(900)));
    drop(left.doubts_of(DOUBTS_MAX));
    // One more, and the first one's doubt is put together with those of the others.
    let alive = left.doubts_of(1);
    assert!(!left.leaves(MINUTE, 999, Some(900)));
    assert_eq!(send(&alive[0], &left.key, 20), 0);
    assert!(!left.leaves(2 * MINUTE, 999, Some(900)));
    assert!(left.leaves(3 * MINUTE, 999, Some(900)));
}

#[test]
fn of_any_number_of_producers_that_live_each_ends_its_own_doubt() {
    let mut left = left_by(DOUBTS_MAX);
    let live = left.doubts_of(3 * DOUBTS_MAX);
    for minutes in 0..10 {
        assert!(!left.leaves(minutes * MINUTE, 999, Some(900)));
    }
    for (offset, producer) in (20..).zip(&live) {
        assert!(!left.leaves(11 * MINUTE, 999, Some(900)));
        assert_eq!(send(producer, &left.key, offset), 0);
    }
    assert!(left.leaves(12 * MINUTE, 999, Some(900)));
}
