use super::*;
use crate::testing::{Bits, Brokers, view};
use crate::{Drain, DrainPartition, PlanPublisher, TopicPlan, plan_channel};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);

fn drain(partitions: &[(f64, f64)]) -> Drain {
    let partitions = partitions.iter().map(|(rate, backlog)| DrainPartition {
        rate: *rate,
        backlog: *backlog,
        share: 0.1,
    });
    Drain {
        partitions: partitions.collect(),
        arrival_rate: 800.0,
        own_rate: 800.0,
    }
}

fn steered_by(taken_at: Instant, partitions: &[(f64, f64)]) -> (PlanPublisher, LagAware) {
    let (mut publisher, reader) = plan_channel();
    let plan = TopicPlan::drain("orders".into(), taken_at, SECOND, &drain(partitions));
    publisher.publish(vec![plan]);
    (publisher, LagAware::new(reader))
}

/// How many runs each partition gets at one instant, unused.
fn shares(steer: &LagAware, view: &TopicView<'_>, now: Instant) -> Vec<u32> {
    let mut counts = vec![0; view.partition_count as usize];
    let (mut bits, mut previous) = (Bits(8), None);
    for _ in 0..6_000 {
        let run = steer.begin_run(view, now, bits.next(), previous);
        steer.end_run(view, run, 0);
        previous = Some(run.partition);
        counts[run.partition as usize] += 1;
    }
    counts
}

fn fallbacks(steer: &LagAware, reason: Fallback) -> u64 {
    let counters = steer.counters();
    counters
        .fallbacks
        .iter()
        .find(|(r, _)| *r == reason)
        .unwrap()
        .1
}

const ALL: [i32; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[test]
fn a_partition_that_drowns_gets_nothing_and_the_others_share() {
    let now = Instant::now();
    let mut figures = [(100.0, 0.0); 12];
    figures[3] = (20.0, 4_000.0);
    let (_publisher, steer) = steered_by(now, &figures);
    let shares = shares(&steer, &view(12, &ALL), now);
    assert_eq!(shares[3], 0);
    for at in (0..12).filter(|at| *at != 3) {
        assert!(shares[at] > 300, "{shares:?}");
    }
}

#[test]
fn raw_lag_does_not_decide_but_the_time_to_read_it() {
    let now = Instant::now();
    let (_publisher, steer) = steered_by(now, &[(10_000.0, 2_000.0), (10.0, 20.0)]);
    let shares = shares(&steer, &view(2, &[0, 1]), now);
    // Of two, the worse one gets half of what goes by chance, and nothing else.
    assert!((240..360).contains(&shares[1]), "{shares:?}");
}

#[test]
fn own_sends_turn_the_choice_to_the_others_before_the_next_plan() {
    let now = Instant::now();
    let (publisher, steer) = steered_by(now, &[(100.0, 0.0); 12]);
    let view = view(12, &ALL);
    let mut bits = Bits(3);
    let mut counts = [0u32; 12];
    for _ in 0..240 {
        let run = steer.begin_run(&view, now, bits.next(), None);
        assert_eq!(run.records, 5, "50 ms of 100 records a second");
        steer.end_run(&view, run, 5);
        counts[run.partition as usize] += 1;
    }
    for count in counts {
        assert!((17..=23).contains(&count), "{counts:?}");
    }
    assert_eq!(publisher.sent("orders"), 1_200);
    let counters = steer.counters();
    assert_eq!(counters.topics[0].runs.iter().sum::<u64>(), 240);
}

#[test]
fn a_plan_with_the_same_figures_again_goes_on_with_what_was_sent() {
    let now = Instant::now();
    let plan = |id, taken_at| {
        let drain = drain(&[(100.0, 0.0); 3]);
        let plan = TopicPlan::drain("orders".into(), taken_at, SECOND, &drain);
        plan.with_topic_id(Some([id; 16]))
    };
    // Three that are alike take turns while it is known what was sent to each.
    let takes_turns = |next: &dyn Fn(u8) -> TopicPlan| {
        let (mut publisher, steer) = steered_by(now, &[(100.0, 0.0); 3]);
        let mut bits = Bits(5);
        let mut runs: Vec<i32> = (0..60)
            .map(|number| {
                publisher.publish(vec![next(number)]);
                let run = steer.begin_run(&view(3, &[0, 1, 2]), now, bits.next(), None);
                steer.end_run(&view(3, &[0, 1, 2]), run, run.records);
                run.partition
            })
            .collect();
        runs.chunks_mut(3).all(|turn| {
            turn.sort_unstable();
            turn == [0, 1, 2]
        })
    };
    assert!(takes_turns(&|_| plan(1, now)));
    let newer = |number: u8| plan(1, now - SECOND + u32::from(number) * SECOND / 1_000);
    assert!(!takes_turns(&newer), "newer figures tell of what was sent");
    assert!(
        !takes_turns(&|number| plan(number, now)),
        "it is another topic"
    );
}

#[test]
fn what_a_run_did_not_use_is_not_counted() {
    let now = Instant::now();
    let (publisher, steer) = steered_by(now, &[(100.0, 0.0), (100.0, 10.0)]);
    let view = view(2, &[0, 1]);
    // Not one of the runs that go by chance.
    let begin = || steer.begin_run(&view, now, u32::MAX.into(), None);
    let run = begin();
    assert_eq!((run.partition, run.records), (0, 5));
    steer.end_run(&view, run, 1);
    assert_eq!(publisher.sent("orders"), 1);
    // Of two runs of five one record was sent, so partition 0 is still the shorter.
    let run = begin();
    assert_eq!(run.partition, 0);
    steer.end_run(&view, run, 0);
    assert_eq!(begin().partition, 0);
    assert_eq!(begin().partition, 0);
    assert_eq!(begin().partition, 1, "now ten are counted as sent");
}

#[test]
fn a_slow_producer_does_not_hold_to_a_choice() {
    let (mut publisher, reader) = plan_channel();
    let now = Instant::now();
    let mut figures = drain(&[(10_000.0, 0.0); 3]);
    let steer = LagAware::new(reader);
    let view = view(3, &[0, 1, 2]);
    let mut records_at = |own_rate: f64| {
        figures.own_rate = own_rate;
        let plan = TopicPlan::drain("orders".into(), now, SECOND, &figures);
        publisher.publish(vec![plan]);
        steer.begin_run(&view, now, 1, None).records
    };
    assert_eq!(
        records_at(50_000.0),
        500,
        "50 ms of what the consumer reads"
    );
    assert_eq!(records_at(200.0), 20, "100 ms of what is written");
    assert_eq!(records_at(0.0), 1);
}

#[test]
fn a_run_without_a_plan_is_short_and_one_of_a_switched_off_partitioner_is_not() {
    let (_publisher, reader) = plan_channel();
    let steer = LagAware::new(reader);
    let (view, now) = (view(3, &[0, 1, 2]), Instant::now());
    assert_eq!(
        steer.begin_run(&view, now, 1, None).records,
        UNSURE_RUN_RECORDS
    );
    steer.set_steering(Steering::Off);
    assert_eq!(steer.begin_run(&view, now, 1, None).records, Run::UNLIMITED);
}

#[test]
fn partitions_without_a_leader_are_never_chosen() {
    let now = Instant::now();
    let mut figures = [(100.0, 1e6); 12];
    figures[4] = (100.0, 0.0);
    let (_publisher, steer) = steered_by(now, &figures);
    let available: Vec<i32> = ALL.into_iter().filter(|p| *p != 4).collect();
    let shares = shares(&steer, &view(12, &available), now);
    assert_eq!(shares[4], 0);
    assert_eq!(shares.iter().sum::<u32>(), 6_000);
}

#[test]
fn a_partition_whose_broker_hangs_is_passed_over() {
    let now = Instant::now();
    let (_publisher, steer) = steered_by(now, &[(100.0, 0.0), (100.0, 500.0), (100.0, 500.0)]);
    let view = TopicView {
        queued: &Brokers {
            waiting: vec![1_100_000, 20_000, 30_000],
            ..Brokers::default()
        },
        ..view(3, &[0, 1, 2])
    };
    let shares = shares(&steer, &view, now);
    assert_eq!(shares[0], 0, "not by chance either");
}

proptest! {
    /// The scorers' property, by drain time: whatever the figures, and whether own sends are counted
    /// or a plan is followed to its letter.
    #[test]
    fn never_all_weight_on_one_partition_and_never_none(
        figures in vec((1.0..1e4f64, 0.0..1e7f64), 2..=CANDIDATES),
        used in prop_oneof![Just(0), Just(u32::MAX)],
        first in any::<u64>(),
    ) {
        let now = Instant::now();
        let (_publisher, steer) = steered_by(now, &figures);
        let view = view(figures.len() as i32, &ALL[..figures.len()]);
        let (mut bits, mut runs) = (Bits(first | 1), vec![0u32; figures.len()]);
        for _ in 0..2_000 {
            let run = steer.begin_run(&view, now, bits.next(), None);
            steer.end_run(&view, run, used.min(run.records));
            runs[run.partition as usize] += 1;
        }
        for count in &runs {
            // A third of a tenth is 66.
            prop_assert!((20..1_960).contains(count), "{runs:?}");
        }
    }
}

#[test]
fn without_a_plan_or_with_one_of_another_topic_the_choice_is_uniform_and_counted() {
    let (mut publisher, reader) = plan_channel();
    let steer = LagAware::new(reader);
    let now = Instant::now();
    let view = view(12, &ALL);
    let even = |counts: Vec<u32>| counts.iter().all(|c| (400..600).contains(c));
    assert!(even(shares(&steer, &view, now)));
    assert_eq!(fallbacks(&steer, Fallback::NoPlan), 6_000);
    let other: Arc<str> = "other".into();
    let plan = TopicPlan::drain(other, now, SECOND, &drain(&[(1.0, 1.0)]));
    publisher.publish(vec![plan]);
    assert!(even(shares(&steer, &view, now)));
    assert_eq!(fallbacks(&steer, Fallback::UnknownTopic), 6_000);
    let denied = Fallback::Denied;
    let plan = TopicPlan::uniform("orders".into(), now, SECOND, 12, denied);
    publisher.publish(vec![plan]);
    assert!(even(shares(&steer, &view, now)));
    assert_eq!(fallbacks(&steer, denied), 6_000);
}

#[test]
fn old_data_loses_its_backlog_first_and_its_rates_later() {
    let now = Instant::now();
    let mut figures = [(100.0, 0.0); 12];
    figures[0] = (100.0, 1e9);
    figures[1] = (2.0, 0.0);
    let (_publisher, steer) = steered_by(now, &figures);
    let view = view(12, &ALL);
    let fresh = shares(&steer, &view, now + 2 * SECOND);
    assert_eq!((fresh[0], fresh[1]), (0, 0));
    let stale = shares(&steer, &view, now + 5 * SECOND);
    assert!(
        stale[0] > 300,
        "its backlog is not believed any more: {stale:?}"
    );
    assert_eq!(stale[1], 0, "its rate is");
    assert_eq!(steer.counters().stale_runs, 6_000);
    let old = shares(&steer, &view, now + 61 * SECOND);
    assert!(old[1] > 300);
    assert_eq!(fallbacks(&steer, Fallback::TooOld), 6_000);
}

#[test]
fn a_partition_newer_than_the_plan_gets_at_most_twice_its_share() {
    let now = Instant::now();
    let (_publisher, steer) = steered_by(now, &[(100.0, 200.0); 11]);
    let shares = shares(&steer, &view(12, &ALL), now);
    let fair = 6_000 / 12;
    assert!(shares[11] > fair / 2, "{shares:?}");
    assert!(shares[11] <= 2 * fair + fair / 5, "{shares:?}");
}

#[test]
fn everything_lagging_alike_is_nothing_special() {
    let now = Instant::now();
    let (_publisher, steer) = steered_by(now, &[(100.0, 1e6); 12]);
    let shares = shares(&steer, &view(12, &ALL), now);
    assert!(shares.iter().all(|s| *s > 300), "{shares:?}");
}

#[test]
fn watching_counts_choices_and_steers_nothing() {
    let now = Instant::now();
    let mut figures = [(100.0, 0.0); 12];
    figures[3] = (100.0, 1e6);
    let (publisher, steer) = steered_by(now, &figures);
    steer.set_steering(Steering::Watch);
    let sent = shares(&steer, &view(12, &ALL), now);
    assert!(sent[3] > 300, "placed as without steering");
    let counters = steer.counters();
    assert_eq!(
        counters.topics[0].runs[3], 0,
        "but would have been left alone"
    );
    assert_eq!(counters.topics[0].runs.iter().sum::<u64>(), 6_000);
    assert_eq!(publisher.sent("orders"), 0);
    steer.set_steering(Steering::Off);
    let sent = shares(&steer, &view(12, &ALL), now);
    assert!(sent[3] > 300);
    assert_eq!(steer.counters().topics[0].runs.iter().sum::<u64>(), 6_000);
}

#[test]
fn weights_steer_too() {
    let (mut publisher, reader) = plan_channel();
    let now = Instant::now();
    let weights = [3.0, 0.0, 1.0];
    publisher.publish(vec![TopicPlan::weighted(
        "orders".into(),
        now,
        SECOND,
        &weights,
    )]);
    let steer = LagAware::new(reader);
    let shares = shares(&steer, &view(3, &[0, 1, 2]), now);
    assert!((4_300..4_700).contains(&shares[0]), "{shares:?}");
    assert_eq!(shares[1], 0);
}

#[test]
fn keyed_records_never_move() {
    let now = Instant::now();
    let mut figures = [(100.0, 0.0); 12];
    figures[5] = (100.0, 1e9);
    let (_publisher, steer) = steered_by(now, &figures);
    let view = view(12, &ALL);
    for key in 0..200u32 {
        let key = key.to_string();
        assert_eq!(
            steer.keyed(&view, key.as_bytes()),
            Sticky::default().keyed(&view, key.as_bytes())
        );
    }
}

#[test]
fn three_places_are_different_and_even() {
    let mut bits = Bits(4);
    for count in [1usize, 2, 3, 4, 5, 12, 1_000] {
        let mut seen = vec![0u32; count];
        let rounds = 400 * count as u32;
        for _ in 0..rounds {
            let places = &places(count, bits.next())[..count.min(CANDIDATES)];
            for (i, place) in places.iter().enumerate() {
                assert!(!places[..i].contains(place), "{count}: {places:?}");
                seen[*place] += 1;
            }
        }
        let expected = 400 * count.min(CANDIDATES) as u32;
        for times in seen {
            assert!(
                times.abs_diff(expected) < expected / 4 + 20,
                "{count}: {times}"
            );
        }
    }
}

#[test]
fn a_next_run_is_an_end_and_a_beginning() {
    let now = Instant::now();
    let figures: Vec<_> = (0..12).map(|at| (100.0, f64::from(at * 9))).collect();
    let both = [0; 2].map(|_| steered_by(now, &figures));
    let [(_, at_once), (_, apart)] = &both;
    let (mut bits, mut last) = (Bits(5), None::<(Run, u32)>);
    for step in 0..4_000u32 {
        let view = TopicView {
            available: if step % 50 == 49 { &[] } else { &ALL },
            ..view(12, &ALL)
        };
        if step % 1_000 == 0 {
            let modes = [Steering::On, Steering::Watch, Steering::Off, Steering::On];
            let mode = modes[step as usize / 1_000];
            for steer in [at_once, apart] {
                steer.set_steering(mode);
            }
        }
        let (at, random) = (now + Duration::from_millis(step.into()), bits.next());
        let run = at_once.next_run(&view, at, random, last);
        if let Some((run, records)) = last {
            apart.end_run(&view, run, records);
        }
        let previous = last.map(|(run, _)| run.partition);
        assert_eq!(run, apart.begin_run(&view, at, random, previous));
        last = Some((run, bits.next() as u32 % run.records.min(9)));
    }
    assert_eq!(at_once.counters(), apart.counters());
}
