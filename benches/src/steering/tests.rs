//! The choice held to what it is for, in runs short enough for every test run. The benchmark holds it
//! to closer bounds, in longer ones.

use super::*;

fn setup(scenario: Scenario, commit: f64, seed: u64) -> Setup {
    Setup {
        length: 150.0,
        seed,
        ..Setup::new(scenario, commit)
    }
}

/// The p99 of uniform and of lag-aware placement.
fn compare(setup: &Setup) -> (f64, f64) {
    let p99 = |rule| play(setup, rule).figures.p99;
    (p99(Rule::Uniform), p99(Rule::LagAware))
}

fn holds(setup: &Setup, most: f64) {
    let (uniform, steered) = compare(setup);
    assert!(
        steered <= most * uniform,
        "{setup:?}: {steered} against {uniform}"
    );
}

#[test]
fn a_healthy_group_waits_no_longer_than_without_steering() {
    for (commit, seed) in [(0.1, 101), (5.0, 102), (30.0, 103)] {
        holds(&setup(Scenario::Healthy, commit, seed), 0.75);
    }
}

#[test]
fn runs_of_fifty_milliseconds_do_not_hurt_a_healthy_group() {
    let runs = Setup {
        run: u32::MAX,
        ..setup(Scenario::Healthy, 0.1, 103)
    };
    let uniform = play(&Setup { run: 1, ..runs }, Rule::Uniform).figures.p99;
    let steered = play(&runs, Rule::LagAware).figures.p99;
    assert!(steered <= 1.25 * uniform, "{steered} against {uniform}");
}

#[test]
fn a_consumer_five_times_slower_costs_no_tail() {
    for (commit, seed, most) in [(0.1, 104, 0.004), (5.0, 105, 0.03)] {
        holds(&setup(Scenario::Slow, commit, seed), most);
    }
}

#[test]
fn a_stall_of_a_minute_holds_only_what_was_there() {
    for (commit, seed) in [(0.1, 106), (5.0, 107)] {
        holds(&setup(Scenario::Stall, commit, seed), 0.02);
    }
}

#[test]
fn behind_an_open_transaction_wait_only_what_was_there() {
    for (commit, seed) in [(0.1, 111), (5.0, 112)] {
        holds(&setup(Scenario::OpenTransaction, commit, seed), 0.02);
    }
}

#[test]
fn consumers_of_mixed_speed_get_what_they_can_read() {
    holds(&setup(Scenario::Mixed, 0.1, 108), 0.01);
}

#[test]
fn consumers_that_share_partitions_get_what_they_can_read() {
    holds(&setup(Scenario::Shared, 0.1, 113), 0.02);
}

#[test]
fn producers_that_look_together_at_old_data_do_not_herd() {
    for (producers, seed) in [(4, 109), (20, 110)] {
        let together = Setup {
            refresh: 5.0,
            producers,
            synchronised: true,
            ..setup(Scenario::Healthy, 0.1, seed)
        };
        let mean = play(&together, Rule::LagAware).figures.mean;
        assert!(mean < 0.1, "{producers} producers: {mean}");
    }
}

#[test]
fn the_same_setup_brings_the_same_run() {
    let setup = Setup {
        length: 40.0,
        ..setup(Scenario::Random, 5.0, 114)
    };
    for rule in Rule::ALL {
        assert_eq!(play(&setup, rule), play(&setup, rule), "{}", rule.name());
    }
}
