//! Several groups that read one topic: each partition is as far behind as its slowest group.

use super::{Health, Placing, scorer};
use ottla_partitioner::DrainPartition;

impl Health {
    /// Joins what several groups led to for one topic: of each partition the figures of the group
    /// that decides, which is the one that needs the longest to drain it. While one group cannot be steered by, none is: its
    /// reason stands for all. By weights, each partition has the least of its weights.
    ///
    /// Without a group the choice is uniform, because nothing is known.
    pub fn of_groups(groups: Vec<Self>) -> Self {
        let none = Self {
            partitions: Vec::new(),
            choice: Err(ottla_partitioner::Fallback::NoRates),
        };
        groups.into_iter().reduce(Self::joined).unwrap_or(none)
    }

    fn joined(mut self, other: Self) -> Self {
        let others_decide: Vec<bool> = match (&mut self.choice, other.choice) {
            (Err(_), _) => return self,
            (Ok(_), Err(reason)) => {
                self.choice = Err(reason);
                self.partitions = other.partitions;
                return self;
            }
            (Ok(Placing::Drain(own)), Ok(Placing::Drain(others))) => {
                let drain_time = |one: &DrainPartition| one.backlog / one.rate;
                let both = own.partitions.iter_mut().zip(others.partitions);
                let decide = both.map(|(own, other)| {
                    let is_slower = drain_time(&other) > drain_time(own);
                    if is_slower {
                        *own = other;
                    }
                    is_slower
                });
                decide.collect()
            }
            (Ok(Placing::Weights(own)), Ok(Placing::Weights(others))) => {
                let both = own.iter_mut().zip(others);
                let decide = both.map(|(own, other)| {
                    let is_less = other < *own;
                    *own = own.min(other);
                    is_less
                });
                decide.collect()
            }
            // Scores and drain times cannot be compared; the first group is asked for.
            (Ok(_), Ok(_)) => Vec::new(),
        };
        let figures = self.partitions.iter_mut().zip(other.partitions);
        for ((own, other), other_decides) in figures.zip(others_decide) {
            if other_decides {
                *own = other;
            }
        }
        self.share_out();
        self
    }

    /// Makes the shares, which came from several groups, sum to one again.
    fn share_out(&mut self) {
        let shares: Vec<f64> = match &mut self.choice {
            Ok(Placing::Drain(drain)) => {
                let mut shares: Vec<f64> = drain.partitions.iter().map(|p| p.share).collect();
                even_out(&mut shares);
                for (partition, share) in drain.partitions.iter_mut().zip(&shares) {
                    partition.share = *share;
                }
                shares
            }
            Ok(Placing::Weights(weights)) => {
                even_out(weights);
                // The only partition that is well for all of them is still not to get everything.
                scorer::spread(weights);
                weights.clone()
            }
            Err(_) => return,
        };
        for (partition, share) in self.partitions.iter_mut().zip(shares) {
            partition.weight = share;
        }
    }
}

fn even_out(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    let count = shares.len() as f64;
    for share in shares {
        // When each partition is hopeless for one of the groups, no place is better.
        *share = if sum > 0.0 { *share / sum } else { 1.0 / count };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::scorer::SHARE_MAX;

    fn weighted<const N: usize>(weights: [f64; N]) -> Health {
        Health {
            partitions: Vec::new(),
            choice: Ok(Placing::Weights(weights.to_vec())),
        }
    }

    fn joined(groups: Vec<Health>) -> Vec<f64> {
        match Health::of_groups(groups).choice {
            Ok(Placing::Weights(weights)) => weights,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_one_partition_that_is_well_for_all_groups_does_not_get_everything() {
        let weights = joined(vec![weighted([0.5, 0.5, 0.0]), weighted([0.5, 0.0, 0.5])]);
        assert!((weights[0] - SHARE_MAX).abs() < 1e-9, "{weights:?}");
        assert!(weights[1] > 0.0 && weights[1] == weights[2], "{weights:?}");
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn when_each_partition_is_hopeless_for_one_group_all_share_alike() {
        let weights = joined(vec![weighted([1.0, 0.0]), weighted([0.0, 1.0])]);
        assert_eq!(weights, [0.5, 0.5]);
    }
}
