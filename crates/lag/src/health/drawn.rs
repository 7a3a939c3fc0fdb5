//! What a choice between a few random partitions makes of shares. Pure.

use ottla_partitioner::{CANDIDATES, CHANCE_RUNS, Drain, DrainPartition};

/// Drain times that differ by less than this factor are taken for the same.
const ALIKE: f64 = 1.05;

/// The shares that partitions get when they should have those of the plan, but each choice is the best
/// of [`CANDIDATES`] random ones: where few partitions are well, those that are not stand against each
/// other now and then, and the best of them gets the record. Where all are candidates, some runs go by
/// chance alone.
pub(super) fn drawn(drain: &Drain) -> Vec<f64> {
    let mut shares = chosen(&drain.partitions);
    if (2..=CANDIDATES).contains(&shares.len()) {
        add_chance(&mut shares, drain);
    }
    shares
}

/// Gives each partition at least what chance sends to it, at the cost of those that have more.
fn add_chance(shares: &mut [f64], drain: &Drain) {
    let run = |one: &DrainPartition| f64::from(drain.run_records(one.rate));
    let lengths: Vec<f64> = drain.partitions.iter().map(run).collect();
    let runs: f64 = shares
        .iter()
        .zip(&lengths)
        .map(|(share, run)| share / run)
        .sum();
    if runs <= 0.0 {
        return;
    }
    // Records by the run: of all that are chosen, and of those by chance to each partition.
    let chance = 1.0 / CHANCE_RUNS as f64;
    let chosen = (1.0 - chance) / runs;
    let lengths = lengths
        .iter()
        .map(|run| chance * run / lengths.len() as f64);
    let least: Vec<f64> = lengths.collect();
    let by_chance: f64 = least.iter().sum();
    let all = chosen + by_chance;
    // What chance sends counts like other records: who was to get more gets no more for it.
    let above: Vec<f64> = shares
        .iter()
        .zip(&least)
        .map(|(share, least)| (share - least / all).max(0.0))
        .collect();
    let sum: f64 = above.iter().sum();
    for ((share, above), least) in shares.iter_mut().zip(above).zip(least) {
        *share = (least + chosen * above / sum.max(f64::MIN_POSITIVE)) / all;
    }
}

fn chosen(partitions: &[DrainPartition]) -> Vec<f64> {
    let count = partitions.len();
    let drain_time = |one: &DrainPartition| one.backlog / one.rate;
    let mut order: Vec<(usize, &DrainPartition)> = partitions.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| {
        let by_share = b.share.total_cmp(&a.share);
        by_share.then(drain_time(a).total_cmp(&drain_time(b)))
    });
    let alike = |(_, a): &(usize, &DrainPartition), (_, b): &(usize, &DrainPartition)| {
        (a.share - b.share).abs() < 1e-6 && drain_time(b) <= drain_time(a) * ALIKE
    };
    let mut shares = vec![0.0; count];
    let (mut placed, mut left_over, mut best) = (0.0, 0.0, 0);
    for group in order.chunk_by(alike) {
        best += group.len();
        let wanted: f64 = group.iter().map(|(_, one)| one.share).sum::<f64>() + left_over;
        let given = wanted.min((drawn_of(best, count) - placed).max(0.0));
        (placed, left_over) = (placed + given, wanted - given);
        for (at, _) in group {
            if let Some(share) = shares.get_mut(*at) {
                *share = given / group.len() as f64;
            }
        }
    }
    shares
}

/// How often one at least of the `best` partitions is among the candidates.
fn drawn_of(best: usize, count: usize) -> f64 {
    let others = count.saturating_sub(best);
    let missed = (0..CANDIDATES.min(count)).map(|taken| {
        let left = others.saturating_sub(taken) as f64;
        left / (count - taken) as f64
    });
    1.0 - missed.product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Placing};
    use ottla_partitioner::{LagAware, NoQueues, Partitioner, TopicView, plan_channel};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn partition(share: f64, backlog: f64) -> DrainPartition {
        DrainPartition {
            rate: 100.0,
            backlog,
            share,
        }
    }

    #[test]
    fn the_only_partition_that_is_well_gets_a_record_whenever_it_is_drawn() {
        let mut partitions = vec![partition(0.0, 1_000.0); 12];
        partitions[4] = partition(1.0, 0.0);
        let shares = chosen(&partitions);
        assert!((shares[4] - 0.25).abs() < 1e-9, "{shares:?}");
        assert!((shares[0] - 0.75 / 11.0).abs() < 1e-9, "{shares:?}");
        partitions.truncate(5);
        partitions.drain(..2);
        assert_eq!(chosen(&partitions), [0.0, 0.0, 1.0], "it is always drawn");
    }

    #[test]
    fn a_few_that_are_behind_get_nothing_as_they_should() {
        let mut partitions = vec![partition(0.25, 0.0); 4];
        partitions.extend([partition(0.0, 50.0), partition(0.0, 1_000.0)]);
        let shares = chosen(&partitions);
        assert_eq!(shares, [0.25, 0.25, 0.25, 0.25, 0.0, 0.0]);
    }

    /// What part of the records goes to the one of twelve partitions that is well until the next
    /// look, where so many producers look at the same moment and write alike.
    fn sent_to_the_one_that_is_well(producers: u32) -> f64 {
        let arrival_rate = 900.0;
        let mut partitions = vec![partition(0.0, 100.0); 12];
        partitions.iter_mut().for_each(|ill| ill.rate = 20.0);
        partitions[4] = partition(1.0, 0.0);
        let health = Health {
            partitions: Vec::new(),
            choice: Ok(Placing::Drain(Drain {
                partitions,
                arrival_rate,
                own_rate: arrival_rate / f64::from(producers),
            })),
        };
        let (taken_at, refresh) = (Instant::now(), Duration::from_secs(1));
        let steered = |_| {
            let (mut publisher, reader) = plan_channel();
            let plan = health.clone().into_plan("orders".into(), taken_at, refresh);
            publisher.publish(vec![plan]);
            let steer = LagAware::new(reader).run_drain(Duration::ZERO);
            (steer, publisher)
        };
        let steered: Vec<_> = (0..producers).map(steered).collect();
        let view = TopicView {
            topic: "orders",
            partition_count: 12,
            available: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            queued: &NoQueues,
            batch_bytes: 1_000_000,
            stripe: 0,
        };
        let (mut rng, mut all, mut well) = (fastrand::Rng::with_seed(1), 0, 0);
        while f64::from(all) < arrival_rate * refresh.as_secs_f64() {
            let now = taken_at + Duration::from_secs_f64(f64::from(all) / arrival_rate);
            let (steer, _) = &steered[rng.usize(..steered.len())];
            let run = steer.begin_run(&view, now, rng.u64(..), None);
            all += run.records;
            well += if run.partition == 4 { run.records } else { 0 };
        }
        f64::from(well) / f64::from(all)
    }

    #[test]
    fn the_only_partition_that_is_well_is_not_left_to_the_others() {
        for producers in [1, 10, 40, 100] {
            let sent = sent_to_the_one_that_is_well(producers);
            assert!((sent - 0.25).abs() < 0.04, "{producers} producers: {sent}");
        }
    }

    proptest! {
        #[test]
        fn shares_sum_to_one(
            weights in proptest::collection::vec((0.0..1.0f64, 0.0..1e6f64), 1..40),
        ) {
            let sum: f64 = weights.iter().map(|(weight, _)| weight).sum();
            prop_assume!(sum > 0.0);
            let partitions = weights.iter().map(|(weight, b)| partition(weight / sum, *b));
            let shares = drawn(&Drain {
                partitions: partitions.collect(),
                arrival_rate: 400.0,
                own_rate: 400.0,
            });
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
            prop_assert!(shares.iter().all(|share| *share >= 0.0), "{shares:?}");
            let few = (2..=CANDIDATES).contains(&shares.len());
            let each = shares.iter().all(|share| (0.03..0.97).contains(share));
            prop_assert!(!few || each, "{shares:?}");
        }
    }
}
