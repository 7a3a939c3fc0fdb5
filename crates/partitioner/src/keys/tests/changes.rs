//! What happens around the producers: another process takes over, and topics go, come and grow.

use super::*;

fn unread(end: i64) -> [(Committed, i64, u64); 4] {
    [
        READ,
        (Committed::At(5), end, 0),
        (Committed::At(5), end, 0),
        (Committed::At(5), end, 0),
    ]
}

fn with_id(id: u8, figures: [(Committed, i64, u64); 4]) -> TopicPlan {
    plan(figures).with_topic_id(Some([id; 16]))
}

fn key_choice(steer: &LagAware, count: i32, key: &str) -> KeyChoice {
    steer.keyed(&view(count, &ALL), key.as_bytes())
}

/// A producer that moved this key away from partition 0, and where to.
fn moved(policy: KeyPolicy) -> (PlanPublisher, LagAware, String, i32) {
    let (mut publisher, steer) = producer(policy, [READ; 4]);
    publisher.publish(vec![with_id(1, [READ; 4])]);
    let key = key_at_0(0);
    if policy == KeyPolicy::MIGRATE {
        assert_eq!(send(&steer, &key, 10), 0);
    }
    publisher.publish(vec![with_id(1, slow(999))]);
    let away = match policy {
        KeyPolicy::MIGRATE => send(&steer, &key, 500),
        _ => place(&steer, &key),
    };
    assert_ne!(away, 0);
    (publisher, steer, key, away)
}

#[test]
fn who_takes_over_counts_from_the_first_key_and_not_from_the_first_look() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    // Another process writes on, in the second places too.
    publisher.publish(vec![plan([READ; 4])]);
    let key = key_at_0(0);
    publisher.publish(vec![plan(unread(900))]);
    assert!(track(&steer, &key).is_none(), "the other one may write on");
    publisher.publish(vec![plan(unread(900))]);
    assert_ne!(
        ticket(&steer, &key).partition(),
        0,
        "what is unread is there"
    );
}

#[test]
fn a_look_that_began_before_the_first_key_says_nothing_of_the_others() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    let before = plan([(Committed::Nothing, 0, 0); 4]);
    publisher.publish(vec![plan([READ; 4])]);
    let key = key_at_0(0);
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![before]);
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![plan([READ; 4])]);
    assert_eq!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_topic_that_one_plan_leaves_out_keeps_its_keys() {
    let (mut publisher, steer, key, away) = moved(KeyPolicy::MIGRATE);
    for _ in 0..3 {
        publisher.publish(vec![]);
        assert_eq!(send(&steer, &key, 501), away);
        assert_eq!(steer.counters().topics[0].keys_away, 1);
    }
    publisher.publish(vec![with_id(1, slow(999))]);
    assert_eq!(send(&steer, &key, 502), away);
    let (mut publisher, steer, key, away) = moved(KeyPolicy::STICKY);
    publisher.publish(vec![]);
    assert_eq!(place(&steer, &key), away);
    publisher.publish(vec![with_id(1, [READ; 4])]);
    assert_eq!(place(&steer, &key), away);
}

#[test]
fn a_topic_that_is_left_out_before_its_first_key_waits_to_come_back() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    publisher.publish(vec![plan(unread(900))]);
    publisher.publish(vec![]);
    let key = key_at_0(0);
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![plan(unread(900))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_topic_that_is_gone_and_not_written_to_is_let_go() {
    let (mut publisher, steer, key, away) = moved(KeyPolicy::MIGRATE);
    for _ in 0..ABSENT_PLANS {
        publisher.publish(vec![]);
    }
    assert_eq!(send(&steer, &key, 501), away, "it is written to");
    for _ in 0..ABSENT_PLANS {
        publisher.publish(vec![]);
    }
    assert_eq!(steer.counters().topics.len(), 1);
    publisher.publish(vec![]);
    assert_eq!(steer.counters().topics.len(), 0);
}

#[test]
fn a_topic_made_anew_begins_anew() {
    let (mut publisher, steer, key, _) = moved(KeyPolicy::MIGRATE);
    let far = [(Committed::At(500), 1_000_000, 0); 4];
    publisher.publish(vec![with_id(1, far)]);
    // Nothing is known of its first moment, and then of its commits.
    publisher.publish(vec![TopicPlan::uniform(
        "orders".into(),
        Instant::now(),
        SECOND,
        0,
        crate::Fallback::NoRates,
    )]);
    let beyond = [(Committed::Unknown, 7, 0); 4];
    publisher.publish(vec![with_id(2, beyond)]);
    for key in [&key, &key_at_0(1)] {
        assert_eq!(send(&steer, key, 7), 0);
    }
    // And from there keys move as ever.
    publisher.publish(vec![with_id(2, slow(7))]);
    assert_eq!(send(&steer, &key, 8), 0);
    publisher.publish(vec![with_id(2, slow(9))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn without_an_id_a_log_that_begins_anew_is_seen_by_its_end() {
    let behind = |end| [(Committed::At(7), end, 0); 4];
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, behind(1_000_000));
    let key = key_at_0(0);
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![plan(behind(7))]);
    publisher.publish(vec![plan(behind(9_000))]);
    assert_eq!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn who_has_written_no_key_yet_learns_nothing_from_a_topic_that_grows() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    let of_two = TopicPlan::weighted("orders".into(), Instant::now(), SECOND, &[1.0; 2]);
    publisher.publish(vec![of_two]);
    publisher.publish(vec![plan(unread(900))]);
    let key = key_at_0(0);
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![plan(unread(900))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn keys_of_a_topic_that_grows_go_by_hash_until_both_sides_know() {
    let (mut publisher, steer, key, _) = moved(KeyPolicy::MIGRATE);
    let home = java_partition(key.as_bytes(), 5);
    assert_eq!(key_choice(&steer, 5, &key), KeyChoice::Partition(home));
    let grown = TopicPlan::weighted("orders".into(), Instant::now(), SECOND, &[1.0; 5]);
    publisher.publish(vec![grown.with_topic_id(Some([1; 16]))]);
    assert_eq!(key_choice(&steer, 4, &key), KeyChoice::Partition(0));
    assert_eq!(key_choice(&steer, 5, &key), KeyChoice::Tracked);
    let five = view(5, &[0, 1, 2, 3, 4]);
    let ticket = steer.track(&five, key.as_bytes(), Instant::now());
    assert_eq!(ticket.unwrap().partition(), home);
}

#[test]
fn no_sticky_key_goes_to_a_partition_that_is_not_there() {
    let (mut publisher, steer, key, away) = moved(KeyPolicy::STICKY);
    // Whether or not the topic's id says that it is another one.
    for count in 1..=away {
        let view = view(count, &ALL[..count as usize]);
        match steer.keyed(&view, key.as_bytes()) {
            KeyChoice::Partition(partition) => assert!(partition < count, "{count}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(steer.counters().topics[0].keys_away, 0);
    publisher.publish(vec![with_id(1, slow(999))]);
    assert_ne!(place(&steer, &key), 0);
    publisher.publish(vec![with_id(2, [READ; 4])]);
    assert_eq!(place(&steer, &key), 0);
}

#[test]
fn of_several_groups_those_that_have_never_committed_hold_nothing_at_the_start() {
    use Committed::{At, Nothing};
    let place = |one: Committed, other: Committed| {
        let joined = |committed| KeyOffsets {
            committed,
            end: Some(10),
        };
        let committed = joined(one).joined(joined(other)).committed;
        let mut figures = [(committed, 10, 0); 4];
        figures[0] = READ;
        let (_publisher, steer) = producer(KeyPolicy::MIGRATE, figures);
        track(&steer, &key_at_0(0)).map(|ticket| ticket.partition())
    };
    assert_eq!(place(Nothing, Nothing), Some(0));
    assert_eq!(place(At(10), Nothing), Some(0));
    assert_eq!(place(At(3), Nothing), None, "the other one has to read on");
    assert!(place(At(3), At(10)).is_some_and(|place| place != 0));
}

#[test]
fn no_key_is_sent_away_to_where_one_of_the_groups_has_never_committed() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    assert_eq!(send(&steer, &key, 10), 0);
    let mut figures = [(Committed::Partly(10), 10, 0); 4];
    figures[0] = (Committed::At(999), 1_000, 9_000);
    publisher.publish(vec![plan(figures)]);
    assert_eq!(send(&steer, &key, 11), 0);
    publisher.publish(vec![plan(slow(999))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn one_producers_offset_ends_no_doubt_of_another_one() {
    let (mut publisher, one) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let other = LagAware::new(one.plan().clone());
    let key = key_at_0(0);
    for steer in [&one, &other] {
        let mut lost = ticket(steer, &key);
        lost.sent();
        drop(lost);
    }
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(send(&other, &key, 20), 0);
    assert_eq!(
        ticket(&other, &key).partition(),
        0,
        "the first one's is out"
    );
    assert_eq!(send(&one, &key, 30), 0);
    assert_ne!(ticket(&other, &key).partition(), 0);
}
