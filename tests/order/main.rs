//! The order of keyed records under every key policy, as consumer groups process them: a producer,
//! brokers and groups in invented time, by seeds. The placing, the tickets, the observing and the
//! plans are the real ones; logs, consumers and faults are the world's.
//!
//! `ORDER_SEED=7` runs one seed, `ORDER_SEEDS=5000` runs more of them.

mod groups;
mod world;
mod writer;

use ottla_partitioner::KeyPolicy;
use std::ops::Range;
use world::{Outcome, Scene, play};

/// How many seeds of each kind are run.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Range<u64> {
    match number("ORDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ORDER_SEEDS").unwrap_or(SEEDS),
    }
}

/// Plays every seed and adds up; a violation where order is promised names its seed.
fn play_all(policy: KeyPolicy, scene: Scene, is_promised: bool) -> Outcome {
    let mut sum = Outcome::default();
    let every = if scene == Scene::Ends { 4 } else { 1 };
    for seed in seeds().step_by(every) {
        let outcome = play(seed, policy, scene);
        assert!(
            !is_promised || outcome.overtaken.is_none(),
            "{policy} {scene:?}: ORDER_SEED={seed}: {}",
            outcome.overtaken.unwrap_or_default()
        );
        assert!(
            outcome.processed > 500,
            "seed {seed}: next to nothing was read"
        );
        sum.add(outcome);
    }
    sum
}

/// Whether there are enough seeds to say that something happens at all.
fn are_many() -> bool {
    seeds().count() as u64 >= SEEDS
}

#[test]
fn kept_keys_are_processed_in_order_in_any_weather() {
    let outcome = play_all(KeyPolicy::Keep, Scene::Storm, true);
    assert_eq!((outcome.moves, outcome.held), (0, 0));
    assert!(
        !are_many() || outcome.repeated > 1_000,
        "consumers start anew: {outcome:?}"
    );
}

#[test]
fn migrating_keys_are_processed_in_order_in_any_weather() {
    let outcome = play_all(KeyPolicy::Migrate { slots: 4_096 }, Scene::Storm, true);
    if are_many() {
        assert!(
            outcome.moves > 100,
            "the test must see keys move: {outcome:?}"
        );
        assert!(
            outcome.held > 100,
            "and records wait after a start: {outcome:?}"
        );
        assert!(outcome.restarts > 20, "{outcome:?}");
        assert!(outcome.repeated > 1_000, "consumers too: {outcome:?}");
    }
}

#[test]
fn migrating_keys_in_few_slots_are_processed_in_order() {
    let outcome = play_all(KeyPolicy::Migrate { slots: 64 }, Scene::Storm, true);
    if are_many() {
        assert!(outcome.moves > 50, "{outcome:?}");
        assert!(outcome.crossed > 1_000, "threads cross: {outcome:?}");
    }
}

#[test]
fn migrating_keys_are_processed_in_order_when_threads_cross_and_answers_are_lost() {
    let outcome = play_all(KeyPolicy::Migrate { slots: 60 }, Scene::Threads, true);
    if are_many() {
        assert!(outcome.moves > 50, "{outcome:?}");
        assert!(outcome.crossed > 3_000, "{outcome:?}");
    }
}

#[test]
fn migrating_keys_are_processed_in_order_between_changes_of_their_topic() {
    let policy = KeyPolicy::Migrate { slots: 4_096 };
    let outcome = play_all(policy, Scene::Changes, true);
    if are_many() {
        assert!(outcome.moves > 50, "{outcome:?}");
        assert!(outcome.changes > 50, "{outcome:?}");
    }
}

#[test]
fn migrating_keys_are_processed_in_order_when_what_a_dead_producer_sent_arrives_late() {
    let outcome = play_all(KeyPolicy::Migrate { slots: 60 }, Scene::Ends, true);
    if are_many() {
        assert!(outcome.restarts > 60, "{outcome:?}");
        assert!(outcome.moves > 100, "{outcome:?}");
    }
}

#[test]
fn sticky_keys_are_processed_in_order_while_consumers_are_well() {
    play_all(KeyPolicy::STICKY, Scene::Well, true);
}

#[test]
fn sticky_keys_lose_their_order_when_a_consumer_falls_behind() {
    let outcome = play_all(KeyPolicy::STICKY, Scene::Storm, false);
    assert!(
        !are_many() || outcome.violations > 0,
        "the checker must see it"
    );
}

#[test]
fn blind_keys_have_no_order() {
    for scene in [Scene::Well, Scene::Storm] {
        let outcome = play_all(KeyPolicy::Blind, scene, false);
        assert!(
            !are_many() || outcome.violations > 100,
            "{scene:?}: {outcome:?}"
        );
    }
}
