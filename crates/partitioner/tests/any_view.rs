//! What holds for every partitioner, whatever it is shown.

use ottla_partitioner::{
    Drain, DrainPartition, KeyChoice, LagAware, NAMES, Partitioner, Queues, Sticky, TopicPlan,
    TopicView, by_name, plan_channel,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);

/// What waits for each partition, and whether its leader takes records.
#[derive(Debug, Clone)]
struct Brokers(Vec<(u64, bool)>);

impl Queues for Brokers {
    fn waiting_bytes(&self, partition: i32) -> u64 {
        let at = usize::try_from(partition).ok();
        at.and_then(|at| self.0.get(at))
            .map_or(0, |(bytes, _)| *bytes)
    }

    fn refused_for(&self, partition: i32, _now: Instant) -> Duration {
        let at = usize::try_from(partition).ok();
        match at.and_then(|at| self.0.get(at)) {
            Some((_, true)) => 2 * TIMEOUT,
            _ => Duration::ZERO,
        }
    }
}

/// Every partitioner there is; the lag-aware one by a plan of any figures, one by weights, and one
/// that waits for its plan.
fn partitioners(figures: &[(f64, f64, f64)]) -> Vec<(&'static str, Arc<dyn Partitioner>)> {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let runs = Sticky::default().availability_timeout(TIMEOUT);
    let named = |name: &&'static str| by_name(name, runs).map(|found| (*name, found));
    let mut all: Vec<_> = NAMES.iter().filter_map(named).collect();
    let drain = Drain {
        partitions: figures
            .iter()
            .map(|&(rate, backlog, share)| DrainPartition {
                rate,
                backlog,
                share,
            })
            .collect(),
        arrival_rate: 1_000.0,
        own_rate: 100.0,
    };
    let weights: Vec<f64> = figures.iter().map(|(rate, ..)| *rate).collect();
    let plans = [
        Some(TopicPlan::drain("orders".into(), now, second, &drain)),
        Some(TopicPlan::weighted("orders".into(), now, second, &weights)),
        None,
    ];
    for plan in plans {
        let (mut publisher, reader) = plan_channel();
        publisher.publish(plan.into_iter().collect());
        let steered = LagAware::new(reader).availability_timeout(TIMEOUT);
        all.push(("lag_aware", Arc::new(steered)));
    }
    all
}

/// Names without `_random` send keyless records to the partition of the empty key, led or not.
const FIXED: [&str; 3] = ["consistent", "murmur2", "fnv1a"];

proptest! {
    /// No view and no figures make a choice panic or leave the topic, and a partition with a leader
    /// is chosen if there is one.
    #[test]
    fn a_run_goes_to_a_partition_with_a_leader_if_there_is_one(
        led in vec(any::<bool>(), 0..90),
        brokers in vec((any::<u64>(), any::<bool>()), 0..90),
        figures in vec((any::<f64>(), any::<f64>(), any::<f64>()), 0..90),
        batch_bytes in any::<u32>(),
        draws in vec((any::<u64>(), 0u64..200, proptest::option::of(any::<i32>())), 1..20),
        key in vec(any::<u8>(), 0..40),
    ) {
        let available: Vec<i32> = (0i32..).zip(&led).filter(|(_, led)| **led).map(|(p, _)| p).collect();
        let brokers = Brokers(brokers);
        let count = led.len() as i32;
        let begun = Instant::now();
        for (name, partitioner) in partitioners(&figures) {
            for (random, seconds, previous) in &draws {
                let view = TopicView {
                    topic: "orders",
                    partition_count: count,
                    available: &available,
                    queued: &brokers,
                    batch_bytes,
                    stripe: *random as usize,
                };
                let now = begun + Duration::from_secs(*seconds);
                let run = partitioner.begin_run(&view, now, *random, *previous);
                partitioner.end_run(&view, run, (*random >> 40) as u32);
                prop_assert!((0..count.max(1)).contains(&run.partition), "{name}: {run:?}");
                prop_assert!(run.records > 0 && run.bytes > 0, "{name}: {run:?}");
                let free = available.is_empty() || FIXED.contains(&name);
                prop_assert!(free || available.contains(&run.partition), "{name}: {run:?}");
                if let KeyChoice::Partition(partition) = partitioner.keyed(&view, &key) {
                    prop_assert!((0..count.max(1)).contains(&partition), "{name}: {partition}");
                }
            }
        }
    }

    /// Whoever steers: a partition whose leader takes nothing is left alone while another leader
    /// takes records.
    #[test]
    fn steering_leaves_out_what_its_broker_refuses(
        refused in vec(any::<bool>(), 1..90),
        figures in vec((0.0..1e4f64, 0.0..1e6f64, 0.0..1.0f64), 90),
        draws in vec(any::<u64>(), 1..50),
    ) {
        let available: Vec<i32> = (0i32..).zip(&refused).map(|(p, _)| p).collect();
        let brokers = Brokers(refused.iter().map(|refused| (0, *refused)).collect());
        let some_take = refused.iter().any(|refused| !refused);
        let view = TopicView {
            topic: "orders",
            partition_count: refused.len() as i32,
            available: &available,
            queued: &brokers,
            batch_bytes: 16_384,
            stripe: 0,
        };
        for (name, partitioner) in partitioners(&figures) {
            if FIXED.contains(&name) || name == "round_robin" {
                continue;
            }
            for random in &draws {
                let run = partitioner.begin_run(&view, Instant::now(), *random, None);
                let taken = !refused[run.partition as usize];
                prop_assert!(taken || !some_take, "{name}: {run:?}");
            }
        }
    }
}
