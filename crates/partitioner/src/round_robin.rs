//! One record to each partition in turn.

use crate::sticky::uniform;
use crate::{KeyChoice, Partitioner, Run, TopicView};
use std::time::Instant;

/// Every record, keyed or not, goes to the next partition that has a leader, as Java's
/// `RoundRobinPartitioner`. Batches stay small: prefer [`Sticky`](crate::Sticky).
///
/// The turn is taken from the run before on the same stripe, so that two topics written in turn do
/// not skip each other's partitions, as a counter shared by them would.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

impl Partitioner for RoundRobin {
    fn keyed(&self, _view: &TopicView<'_>, _key: &[u8]) -> KeyChoice {
        KeyChoice::Run
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        _now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        let partition = match (previous, view.available) {
            (Some(previous), [first, ..]) => {
                let next = view.available.partition_point(|p| *p <= previous);
                view.available.get(next).copied().unwrap_or(*first)
            }
            _ => uniform(view, random, None),
        };
        Run {
            partition,
            bytes: view.batch_bytes.max(1),
            records: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;

    #[test]
    fn every_available_partition_has_its_turn() {
        let view = view(6, &[0, 2, 5]);
        let now = Instant::now();
        let mut previous = Some(2);
        let mut order = Vec::new();
        for _ in 0..4 {
            let run = RoundRobin.begin_run(&view, now, 7, previous);
            assert_eq!(run.records, 1);
            previous = Some(run.partition);
            order.push(run.partition);
        }
        assert_eq!(order, [5, 0, 2, 5]);
        assert_eq!(RoundRobin.keyed(&view, b"k"), KeyChoice::Run);
    }

    #[test]
    fn a_partition_that_lost_its_leader_keeps_the_turn_going() {
        let view = view(6, &[0, 4]);
        let run = RoundRobin.begin_run(&view, Instant::now(), 7, Some(3));
        assert_eq!(run.partition, 4);
    }
}
