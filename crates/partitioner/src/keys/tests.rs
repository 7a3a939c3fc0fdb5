use super::*;
use crate::explain::{PartitionHealth, Status};
use crate::hashes::java_partition;
use crate::testing::view;
use crate::{
    Drain, DrainPartition, Fallback, KeyChoice, LagAware, Partitioner, PlanPublisher, Steering,
    TopicPlan, plan_channel,
};
use std::time::{Duration, Instant};

mod changes;
mod doubts;

const SECOND: Duration = Duration::from_secs(1);
const COUNT: i32 = 4;
const ALL: [i32; 4] = [0, 1, 2, 3];

/// A plan of four partitions by weights, which these tests set by hand: what each has committed, its
/// end, and the drain time in milliseconds.
fn plan(figures: [(Committed, i64, u64); 4]) -> TopicPlan {
    let health = health(figures);
    let weights: Vec<f64> = health.iter().map(|p| p.weight).collect();
    let offsets = figures.map(|(committed, end, _)| KeyOffsets {
        committed,
        end: Some(end),
    });
    TopicPlan::weighted("orders".into(), Instant::now(), SECOND, &weights)
        .with_health(health)
        .with_key_offsets(offsets.to_vec())
}

fn health(figures: [(Committed, i64, u64); 4]) -> Vec<PartitionHealth> {
    let health = (0..COUNT).zip(figures).map(|(partition, (_, _, drain))| {
        let is_slow = drain > 1_000;
        PartitionHealth {
            partition,
            lag: None,
            backlog: None,
            rate: None,
            drain_time: Some(Duration::from_millis(drain)),
            weight: if is_slow { 0.0 } else { 1.0 },
            status: Status::CaughtUp,
            reason: "",
            group: None,
            taken_at: None,
        }
    });
    health.collect()
}

const READ: (Committed, i64, u64) = (Committed::At(10), 10, 0);

/// A producer that has asked for a key once, and the look after that.
fn producer(policy: KeyPolicy, first: [(Committed, i64, u64); 4]) -> (PlanPublisher, LagAware) {
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![plan(first)]);
    let steer = LagAware::new(reader).keys(policy);
    drop(steer.track(&view(COUNT, &ALL), key_at(3, 0).as_bytes(), Instant::now()));
    publisher.publish(vec![plan(first)]);
    (publisher, steer)
}

/// A key whose hash falls on this partition.
fn key_at(partition: i32, skip: usize) -> String {
    let keys = (0..).map(|n: u32| format!("k{n}"));
    let at = |key: &String| java_partition(key.as_bytes(), COUNT) == partition;
    keys.filter(at).nth(skip).unwrap()
}

fn key_at_0(skip: usize) -> String {
    key_at(0, skip)
}

fn track(steer: &LagAware, key: &str) -> Option<Box<KeyTicket>> {
    let view = view(COUNT, &ALL);
    assert_eq!(steer.keyed(&view, key.as_bytes()), KeyChoice::Tracked);
    steer.track(&view, key.as_bytes(), Instant::now())
}

fn ticket(steer: &LagAware, key: &str) -> Box<KeyTicket> {
    track(steer, key).unwrap()
}

/// Sends one record that comes to lie at this offset.
fn send(steer: &LagAware, key: &str, offset: i64) -> i32 {
    let mut ticket = ticket(steer, key);
    let partition = ticket.partition();
    ticket.sent();
    ticket.settle(Written::At(offset));
    partition
}

/// Partition 0 is slow, and has committed so far.
fn slow(committed: i64) -> [(Committed, i64, u64); 4] {
    [(Committed::At(committed), 1_000, 9_000), READ, READ, READ]
}

#[test]
fn a_slot_moves_only_when_all_it_wrote_is_committed() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    assert_eq!(send(&steer, &key, 10), 0);
    assert_eq!(send(&steer, &key, 500), 0);
    publisher.publish(vec![plan(slow(500))]);
    assert_eq!(send(&steer, &key, 501), 0, "the group reads 500 next");
    publisher.publish(vec![plan(slow(502))]);
    let open = ticket(&steer, &key);
    let place = open.partition();
    assert_ne!(place, 0, "all is read");
    assert_eq!(steer.counters().topics[0].keys_away, 1);
    drop(open);
    // And it stays while the other is well, however the first one does.
    publisher.publish(vec![plan([
        (Committed::At(502), 1_000, 900),
        READ,
        READ,
        READ,
    ])]);
    assert_eq!(send(&steer, &key, 10), place);
    // Home is empty, and the group has read what was written here.
    let read = [(Committed::At(1_000), 1_000, 0); 4];
    publisher.publish(vec![plan(read)]);
    assert_eq!(send(&steer, &key, 1_000), 0);
    let counters = steer.counters();
    assert_eq!(
        (counters.topics[0].keys_away, counters.topics[0].key_moves),
        (0, 2)
    );
}

#[test]
fn what_lay_at_home_before_the_start_holds_a_slot_there() {
    let behind = (Committed::At(3), 10, 0);
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [behind, READ, READ, READ]);
    let key = key_at_0(0);
    drop(ticket(&steer, &key));
    publisher.publish(vec![plan(slow(9))]);
    assert_eq!(ticket(&steer, &key).partition(), 0, "9 is still to be read");
    publisher.publish(vec![plan(slow(10))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_slot_moves_only_where_that_is_worth_it_and_somebody_leads() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    drop(ticket(&steer, &key));
    let soon_read = (Committed::At(999), 1_000, 900);
    publisher.publish(vec![plan([soon_read, READ, READ, READ])]);
    assert_eq!(ticket(&steer, &key).partition(), 0, "less than a second");
    publisher.publish(vec![plan(slow(999))]);
    let home_alone = view(COUNT, &[0]);
    let place = steer
        .track(&home_alone, key.as_bytes(), Instant::now())
        .map(|t| t.partition());
    assert_eq!(place, Some(0), "no other has a leader");
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_record_on_its_way_or_in_doubt_holds_its_slot() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    let mut open = ticket(&steer, &key);
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(ticket(&steer, &key).partition(), 0, "one is on its way");
    open.sent();
    drop(open);
    assert_eq!(ticket(&steer, &key).partition(), 0, "it may lie anywhere");
    // A later record that is known to lie somewhere lies behind it.
    assert_eq!(send(&steer, &key, 700), 0);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn an_acknowledgement_of_an_earlier_record_ends_no_doubt() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    let mut earlier = ticket(&steer, &key);
    let later = ticket(&steer, &key);
    later.settle(Written::Perhaps);
    earlier.sent();
    earlier.settle(Written::At(20));
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(
        ticket(&steer, &key).partition(),
        0,
        "the later one may lie beyond 999"
    );
}

#[test]
fn a_record_handed_out_before_the_doubt_began_ends_it_as_little() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    let earlier = ticket(&steer, &key);
    let later = ticket(&steer, &key);
    earlier.settle(Written::Perhaps);
    later.settle(Written::At(20));
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_record_that_was_not_written_holds_nothing() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let key = key_at_0(0);
    let refused = ticket(&steer, &key);
    let mut failed = ticket(&steer, &key);
    failed.sent();
    drop(refused);
    failed.settle(Written::No);
    publisher.publish(vec![plan(slow(999))]);
    assert_ne!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn after_a_start_a_key_goes_where_it_can_overtake_nothing() {
    let behind = (Committed::At(3), 10, 0);
    let key = key_at_0(0);
    let place = |figures| {
        let (_publisher, steer) = producer(KeyPolicy::MIGRATE, figures);
        track(&steer, &key).map(|ticket| ticket.partition())
    };
    let alternative = place([behind, READ, READ, READ]);
    assert_eq!(
        alternative,
        Some(0),
        "what is unread at home is read before"
    );
    let alternative = place([READ, behind, behind, behind]).unwrap();
    assert_ne!(alternative, 0, "it may have unread records only there");
    assert_eq!(place([behind; 4]), None);
    assert_eq!(place([(Committed::Unknown, 10, 0); 4]), None);
    assert_eq!(
        place([(Committed::Nothing, 10, 0); 4]),
        Some(0),
        "none was ever moved"
    );
    let unknown = (Committed::Unknown, 10, 0);
    assert_eq!(place([READ, unknown, unknown, unknown]), None);
    let unread = (Committed::Nothing, 10, 0);
    assert_eq!(place([unread, behind, behind, behind]), None);
    let empty = (Committed::Nothing, 0, 0);
    assert_ne!(place([empty, behind, behind, behind]), Some(0));
}

#[test]
fn a_group_that_may_not_be_seen_has_moved_no_key() {
    let (mut publisher, reader) = plan_channel();
    let uniform = |reason| {
        let now = Instant::now();
        TopicPlan::uniform("orders".into(), now, SECOND, COUNT as usize, reason)
    };
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    let key = key_at_0(0);
    publisher.publish(vec![uniform(Fallback::NoRates)]);
    assert!(track(&steer, &key).is_none());
    let nothing = KeyOffsets {
        committed: Committed::Nothing,
        end: None,
    };
    let offsets = vec![nothing; COUNT as usize];
    publisher.publish(vec![
        uniform(Fallback::NoRates).with_key_offsets(offsets.clone()),
    ]);
    assert!(track(&steer, &key).is_none(), "it may be an old look");
    publisher.publish(vec![uniform(Fallback::Denied).with_key_offsets(offsets)]);
    assert_eq!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn a_topic_that_grew_holds_no_key_back() {
    let (mut publisher, reader) = plan_channel();
    let small = TopicPlan::weighted("orders".into(), Instant::now(), SECOND, &[1.0; 2]);
    publisher.publish(vec![small]);
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    assert!(
        steer
            .track(&view(2, &[0, 1]), b"any", Instant::now())
            .is_none()
    );
    publisher.publish(vec![plan([(Committed::At(3), 10, 0); 4])]);
    assert_eq!(ticket(&steer, &key_at_0(0)).partition(), 0);
}

#[test]
fn a_key_that_waited_goes_home_when_the_group_has_read_what_was_there() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [(Committed::At(3), 10, 0); 4]);
    let key = key_at_0(0);
    assert!(track(&steer, &key).is_none());
    // Others write on: what counts is the end as it was first seen.
    publisher.publish(vec![plan([(Committed::At(10), 5_000, 0); 4])]);
    assert_eq!(ticket(&steer, &key).partition(), 0);
}

#[test]
fn before_the_first_look_no_key_is_placed_and_a_topic_that_is_not_watched_goes_by_hash() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::MIGRATE);
    let key = key_at_0(0);
    let choice = || steer.keyed(&view(COUNT, &ALL), key.as_bytes());
    assert!(track(&steer, &key).is_none());
    publisher.publish(vec![]);
    assert_eq!(choice(), KeyChoice::Partition(0));
}

#[test]
fn slots_at_home_are_where_the_java_client_puts_their_keys() {
    for count in [1, 3, 12, 1_000] {
        let slots = Slots::new(count, MIGRATE_SLOTS);
        for n in 0..1_000 {
            let key = format!("key-{n}");
            let (slot, home, other) = slots.find(key.as_bytes());
            assert_eq!(home, java_partition(key.as_bytes(), count as i32));
            assert!(slot < MIGRATE_SLOTS && (other != home || count == 1));
        }
    }
}

#[test]
fn slots_of_one_partition_have_different_second_places() {
    let slots = Slots::new(12, MIGRATE_SLOTS);
    let mut seen = [0; 12];
    for n in 0..12_000 {
        let (_, home, other) = slots.find(format!("key-{n}").as_bytes());
        if home == 5 {
            seen[other as usize] += 1;
        }
    }
    let others = seen.iter().filter(|times| **times > 40).count();
    assert_eq!(others, 11, "{seen:?}");
}

#[test]
fn producers_that_share_a_plan_share_its_slots() {
    let (mut publisher, one) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let other = LagAware::new(one.plan().clone());
    let key = key_at_0(0);
    let open = ticket(&one, &key);
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(ticket(&other, &key).partition(), 0);
    drop(open);
    assert_ne!(ticket(&other, &key).partition(), 0);
}

#[test]
fn switched_off_nothing_moves_and_nothing_is_brought_home() {
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    let (moved, kept) = (key_at_0(0), key_at_0(1));
    assert_eq!(send(&steer, &kept, 1), 0);
    publisher.publish(vec![plan(slow(999))]);
    assert_eq!(send(&steer, &moved, 1), 0);
    let away = ticket(&steer, &moved).partition();
    assert_ne!(away, 0);
    steer.set_steering(Steering::Off);
    assert_eq!(ticket(&steer, &kept).partition(), 0);
    publisher.publish(vec![plan([READ; 4])]);
    assert_eq!(ticket(&steer, &moved).partition(), away);
}

fn place(steer: &LagAware, key: &str) -> i32 {
    match steer.keyed(&view(COUNT, &ALL), key.as_bytes()) {
        KeyChoice::Partition(partition) => partition,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sticky_key_leaves_an_unhealthy_partition_and_stays_where_it_went() {
    let (mut publisher, steer) = producer(KeyPolicy::STICKY, [READ; 4]);
    let key = key_at_0(0);
    assert_eq!(place(&steer, &key), 0);
    publisher.publish(vec![plan(slow(5))]);
    let away = place(&steer, &key);
    assert_ne!(away, 0);
    publisher.publish(vec![plan([READ; 4])]);
    assert_eq!(
        place(&steer, &key),
        away,
        "also when the first one is well again"
    );
    assert_eq!(
        place(&steer, &key_at_0(1)),
        0,
        "a key that did not write meanwhile"
    );
    let mut figures = [READ; 4];
    figures[away as usize] = (Committed::At(5), 1_000, 9_000);
    publisher.publish(vec![plan(figures)]);
    assert_ne!(place(&steer, &key), away);
    let ill = [(Committed::At(5), 1_000, 9_000); 4];
    publisher.publish(vec![plan(ill)]);
    assert_eq!(
        place(&steer, &key_at_0(2)),
        0,
        "none is healthy: by its hash"
    );
}

#[test]
fn without_any_more_plans_keys_stay_where_they_are() {
    let (mut publisher, steer) = producer(KeyPolicy::STICKY, [READ; 4]);
    publisher.publish(vec![plan(slow(5))]);
    let away = place(&steer, &key_at_0(0));
    assert_ne!(away, 0);
    drop(publisher);
    assert_eq!(place(&steer, &key_at_0(0)), away);
    assert_eq!(
        place(&steer, &key_at_0(1)),
        0,
        "it was slow, long ago perhaps"
    );
    let (mut publisher, steer) = producer(KeyPolicy::MIGRATE, [READ; 4]);
    assert_eq!(send(&steer, &key_at_0(0), 10), 0);
    publisher.publish(vec![plan(slow(500))]);
    drop(publisher);
    assert_eq!(ticket(&steer, &key_at_0(0)).partition(), 0);
}

#[test]
fn a_partition_is_unhealthy_by_drain_time_only_when_it_stays_slow() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader).keys(KeyPolicy::STICKY);
    let key = key_at_0(0);
    let now = Instant::now();
    let mut look = |seconds: u32, slow_seconds: u64, rate: Option<f64>| {
        let health = (0..COUNT).map(|partition| PartitionHealth {
            partition,
            lag: None,
            backlog: None,
            rate,
            drain_time: Some(Duration::from_secs(if partition == 0 {
                slow_seconds
            } else {
                0
            })),
            weight: 0.25,
            status: Status::Lagging,
            reason: "",
            group: None,
            taken_at: None,
        });
        let drain = Drain {
            partitions: vec![
                DrainPartition {
                    rate: 9.0,
                    backlog: 0.0,
                    share: 0.25
                };
                4
            ],
            arrival_rate: 1.0,
            own_rate: 1.0,
        };
        let plan = TopicPlan::drain("orders".into(), now + seconds * SECOND, SECOND, &drain);
        publisher.publish(vec![plan.with_health(health.collect())]);
        place(&steer, &key)
    };
    let rate = Some(9.0);
    assert_eq!([look(0, 5, rate), look(1, 5, rate)], [0; 2]);
    assert_eq!(
        [look(2, 0, rate), look(3, 5, rate), look(4, 5, rate)],
        [0; 3]
    );
    assert_eq!(look(4, 5, rate), 0, "the same look twice");
    assert_ne!(look(5, 5, rate), 0);
    // Another key would leave too; but not where no speed is known, however long.
    for seconds in 10..20 {
        look(seconds, 5, None);
    }
    assert_eq!(place(&steer, &key_at_0(1)), 0);
}

#[test]
fn a_table_of_sticky_keys_keeps_the_last_used_and_never_grows() {
    let away = Away::new(3);
    let is_good = |partition| partition == 7;
    let put = |key: u64| away.place(key, 0, is_good, || 7);
    let is_known = |key: u64| away.place(key, 0, |partition| partition == 7, || 9) == 7;
    for key in [1, 2, 3] {
        assert_eq!(put(key), 7);
    }
    assert!(is_known(1), "used again");
    assert_eq!(put(4), 7);
    assert!(is_known(1) && is_known(3) && is_known(4));
    assert_eq!(away.count(), 3);
    assert!(!is_known(2), "it was not used for longest");
    for entries in [0, 1, 7, 8, 1_000, usize::MAX] {
        let away = Away::new(entries);
        for key in 0..20_000u64 {
            away.place(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0, is_good, || 7);
        }
        assert!(away.count() <= entries.max(1), "{entries}");
        assert!(
            away.count() * 4 >= entries.clamp(1, 1_000) * 3,
            "{entries}: most are used"
        );
    }
}

#[test]
fn a_key_that_goes_home_leaves_its_entry() {
    let away = Away::new(8);
    assert_eq!(away.place(1, 0, |p| p != 0, || 5), 5);
    assert_eq!(away.place(1, 0, |p| p == 0, || 0), 0);
    assert_eq!(away.count(), 0);
}

#[test]
fn blind_keys_go_with_the_run_unless_steering_is_off() {
    let (_publisher, steer) = producer(KeyPolicy::Blind, [READ; 4]);
    let key = key_at_0(0);
    assert_eq!(
        steer.keyed(&view(COUNT, &ALL), key.as_bytes()),
        KeyChoice::Run
    );
    steer.set_steering(Steering::Off);
    assert_eq!(place(&steer, &key), 0);
}

#[test]
fn the_plan_says_the_policy_and_so_does_its_explanation() {
    let (mut publisher, reader) = plan_channel();
    publisher.set_key_policy(KeyPolicy::Blind);
    publisher.publish(vec![plan([READ; 4])]);
    let steer = LagAware::new(reader.clone());
    assert_eq!(steer.keyed(&view(COUNT, &ALL), b"k"), KeyChoice::Run);
    assert_eq!(
        reader.explain("orders").unwrap().key_policy,
        KeyPolicy::Blind
    );
    let _steer = steer.keys(KeyPolicy::Keep);
    assert_eq!(
        reader.explain("orders").unwrap().key_policy,
        KeyPolicy::Keep
    );
}

#[test]
fn policies_are_read_by_their_names() {
    for policy in [
        KeyPolicy::Keep,
        KeyPolicy::Blind,
        KeyPolicy::STICKY,
        KeyPolicy::MIGRATE,
    ] {
        assert_eq!(policy.name().parse(), Ok(policy));
    }
    assert_eq!("murmur2".parse::<KeyPolicy>(), Err(UnknownPolicy));
}

#[test]
fn of_several_groups_the_one_that_has_read_least_counts() {
    let of = |one, other| {
        let offsets = |committed| KeyOffsets {
            committed,
            end: Some(9),
        };
        offsets(one).joined(offsets(other)).committed
    };
    use Committed::{At, Nothing, Partly, Unknown};
    assert_eq!(of(At(3), At(7)), At(3));
    assert_eq!(of(At(3), Nothing), Partly(3));
    assert_eq!(of(Nothing, Partly(3)), Partly(3));
    assert_eq!(of(Partly(7), At(3)), Partly(3));
    assert_eq!(of(Nothing, Nothing), Nothing);
    assert_eq!(of(Nothing, Unknown), Unknown);
    assert_eq!(of(Partly(3), Unknown), Unknown);
    assert_eq!(of(Unknown, At(3)), Unknown);
}
