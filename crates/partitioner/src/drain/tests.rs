use super::*;
use proptest::prelude::*;

fn lanes(partitions: &[(f64, f64)], arrival_rate: f64, own_rate: f64) -> Lanes {
    let share = 1.0 / partitions.len() as f64;
    let partitions = partitions
        .iter()
        .map(|(rate, backlog)| DrainPartition {
            rate: *rate,
            backlog: *backlog,
            share,
        })
        .collect();
    Lanes::new(&Drain {
        partitions,
        arrival_rate,
        own_rate,
    })
    .unwrap()
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-3 * b.abs().max(1.0)
}

fn fresh(lanes: &Lanes, micros: u32) -> Seen<'_> {
    at(lanes, micros, Age::Fresh, 0)
}

fn at(lanes: &Lanes, micros: u32, age: Age, stripe: usize) -> Seen<'_> {
    let when = When::new(micros as f32 * 1e-6, age);
    lanes.seen(when, stripe).unwrap()
}

impl Seen<'_> {
    fn send(self, partition: i32, records: u32) {
        if let Some(lane) = self.lane(partition) {
            self.add(partition, lane, records);
        }
    }
}

/// How many records a run of a second has.
fn second(lanes: &Lanes, partition: i32) -> u32 {
    let length = RunLength {
        records_max: 1e9,
        ..lanes.run_length(1.0, 0.0)
    };
    fresh(lanes, 0).reserve(partition, length, false)
}

fn wait(lanes: &Lanes, partition: i32, micros: u32) -> f32 {
    fresh(lanes, micros).wait(partition).unwrap()
}

#[test]
fn a_lane_is_half_a_cache_line() {
    assert_eq!(size_of::<Lane>(), 32);
}

#[test]
fn a_backlog_drains_at_half_speed_and_own_sends_after_it_at_full_speed() {
    let lanes = lanes(&[(100.0, 50.0)], 80.0, 80.0);
    assert!(close(wait(&lanes, 0, 0), 0.51));
    assert!(close(wait(&lanes, 0, 500_000), 0.26));
    fresh(&lanes, 500_000).send(0, 100);
    assert!(close(wait(&lanes, 0, 500_000), 1.26));
    // The backlog is gone at 1 s; then the 100 drain in another second.
    assert!(close(wait(&lanes, 0, 1_000_000), 1.01));
    assert!(close(wait(&lanes, 0, 1_500_000), 0.51));
    assert!(close(wait(&lanes, 0, 3_000_000), 0.01));
}

#[test]
fn an_unused_reservation_is_taken_back() {
    let lanes = lanes(&[(100.0, 0.0)], 80.0, 80.0);
    fresh(&lanes, 0).send(0, 50);
    lanes.take_back(0, 0, 40);
    assert!(close(wait(&lanes, 0, 0), 0.11));
    lanes.take_back(0, 0, 1_000);
    assert!(close(wait(&lanes, 0, 0), 0.01), "never below nothing");
}

#[test]
fn figures_that_are_no_newer_go_on_with_what_was_sent() {
    let last = lanes(&[(100.0, 50.0), (100.0, 0.0)], 80.0, 80.0);
    fresh(&last, 500_000).send(0, 40);
    // So soon after it is kept by the stripe.
    fresh(&last, 500_100).send(0, 60);
    let mut next = lanes(&[(100.0, 50.0), (100.0, 0.0), (100.0, 0.0)], 80.0, 80.0);
    next.follow(&last);
    for micros in [500_100, 1_000_000, 1_500_000, 3_000_000] {
        for partition in [0, 1] {
            let (was, is) = (
                wait(&last, partition, micros),
                wait(&next, partition, micros),
            );
            assert!(close(was, is), "{micros}: {was} {is}");
        }
    }
    // Half as fast, its consumer takes twice as long for the same records.
    let mut slower = lanes(&[(50.0, 0.0), (100.0, 0.0)], 80.0, 80.0);
    slower.follow(&last);
    assert!(close(wait(&slower, 0, 500_100), 2.02));
    // What was reserved and not used comes back, whichever lanes it was counted in.
    next.take_back(0, 0, 100);
    assert!(close(wait(&next, 0, 1_000_000), 0.01));
}

#[test]
fn other_producers_count_as_a_flow_and_by_the_scale() {
    // One of four alike producers: one own record stands for four, nothing is left as a flow.
    let lanes_of_four = lanes(&[(100.0, 0.0), (100.0, 0.0)], 160.0, 40.0);
    fresh(&lanes_of_four, 0).send(0, 1);
    assert!(close(wait(&lanes_of_four, 0, 0), 0.08));
    // One of a thousand: the scale stops at a quarter of a second of drain; 0.975 is a flow.
    let lanes_of_many = lanes(&[(100.0, 0.0), (100.0, 0.0)], 1_000.0, 1.0);
    assert!(close(wait(&lanes_of_many, 0, 0), 0.25));
    // 975 records a second over two partitions, against 100 read: 387.5 more a second.
    assert!(close(wait(&lanes_of_many, 0, 1_000_000), 4.125));
}

#[test]
fn a_stripe_knows_its_own_sends_at_once_and_the_others_do_a_moment_later() {
    let lanes = lanes(&[(100.0, 0.0)], 80.0, 80.0);
    let waits = |micros: u32| {
        let of = |stripe| at(&lanes, micros, Age::Fresh, stripe).wait(0).unwrap();
        (of(1), of(0))
    };
    fresh(&lanes, 10_000).send(0, 10);
    // One has looked at it: now there are two stripes.
    waits(10_000);
    let (other, own) = waits(10_000);
    assert!(close(other, 0.11) && close(own, 0.11), "told at once");
    fresh(&lanes, 10_500).send(0, 10);
    let (other, own) = waits(10_500);
    assert!(close(own, 0.21), "{own}");
    assert!(close(other, 0.11), "kept for a moment: {other}");
    waits(11_500);
    let (other, own) = waits(11_500);
    assert!(close(other, 0.2085) && close(own, 0.2085), "{other} {own}");
}

#[test]
fn a_stale_backlog_is_dropped_and_the_rates_stay() {
    let lanes = lanes(&[(100.0, 1e6), (20.0, 0.0)], 80.0, 80.0);
    assert!(wait(&lanes, 0, 4_000_000) > 1_000.0);
    assert!(close(
        at(&lanes, 4_000_000, Age::Stale, 0).wait(0).unwrap(),
        0.01
    ));
    assert!(close(
        at(&lanes, 4_000_000, Age::Stale, 0).wait(1).unwrap(),
        0.05
    ));
}

#[test]
fn a_partition_without_a_rate_has_the_median() {
    let lanes = lanes(
        &[
            (f64::NAN, 0.0),
            (10.0, 0.0),
            (20.0, 0.0),
            (30.0, 0.0),
            (0.0, 0.0),
        ],
        0.0,
        0.0,
    );
    assert_eq!([0, 4, 99].map(|at| second(&lanes, at)), [20; 3]);
    let none = Drain {
        partitions: vec![],
        arrival_rate: 1.0,
        own_rate: 1.0,
    };
    assert!(Lanes::new(&none).is_none());
}

proptest! {
    /// The estimate does not depend on how often it is looked at and brought up to date.
    #[test]
    fn looking_often_changes_nothing(
        backlog in 0.0..500.0f64,
        inflow in 0.0..300.0f64,
        sent in 0u32..200,
        steps in proptest::collection::vec(0u32..400_000, 1..20),
    ) {
        let make = || lanes(&[(100.0, backlog)], inflow + 100.0, 100.0);
        let (often, once) = (make(), make());
        // No scale: all others are a flow.
        fresh(&often, 0).send(0, sent);
        fresh(&once, 0).send(0, sent);
        let mut micros = 0;
        for step in steps {
            micros += step;
            fresh(&often, micros).send(0, 0);
        }
        let (a, b) = (wait(&often, 0, micros), wait(&once, 0, micros));
        prop_assert!((a - b).abs() <= 1e-2 * b.max(1.0), "{a} {b}");
    }

    #[test]
    fn any_figures_give_finite_waits(
        rate in any::<f64>(), backlog in any::<f64>(), share in any::<f64>(),
        all in any::<f64>(), own in any::<f64>(), micros in any::<u32>(), other in any::<f64>(),
    ) {
        let drain = Drain {
            partitions: vec![
                DrainPartition { rate, backlog, share },
                DrainPartition { rate: 100.0, backlog: 0.0, share: 0.5 },
            ],
            arrival_rate: all,
            own_rate: own,
        };
        let lanes = Lanes::new(&drain).unwrap();
        for partition in 0..3 {
            fresh(&lanes, micros).send(partition, 7);
            let wait = fresh(&lanes, micros).wait(partition);
            prop_assert!(wait.unwrap_or(lanes.wait_when_new()).is_finite());
        }
        let other = DrainPartition { rate: other, backlog, share };
        let partitions = vec![other, drain.partitions[1]];
        let mut next = Lanes::new(&Drain { partitions, ..drain }).unwrap();
        next.follow(&lanes);
        prop_assert!(wait(&next, 0, micros).is_finite());
    }
}
