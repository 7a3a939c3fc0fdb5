//! Several groups that read one topic: each partition is as far behind as its slowest group.

use super::{Health, Placing};

impl Health {
    /// Joins what several groups led to for one topic: of each partition the figures of the group
    /// that needs the longest to drain it. While one group cannot be steered by, none is: its
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
        let choice = match (&mut self.choice, other.choice) {
            (Err(_), _) => return self,
            (Ok(_), Err(reason)) => Err(reason),
            (Ok(Placing::Drain(own)), Ok(Placing::Drain(others))) => {
                let drain_time = |rate: f64, backlog: f64| backlog / rate;
                for (own, other) in own.partitions.iter_mut().zip(others.partitions) {
                    if drain_time(other.rate, other.backlog) > drain_time(own.rate, own.backlog) {
                        *own = other;
                    }
                }
                Ok(())
            }
            (Ok(Placing::Weights(own)), Ok(Placing::Weights(others))) => {
                for (own, other) in own.iter_mut().zip(others) {
                    *own = own.min(other);
                }
                Ok(())
            }
            // Scores and drain times cannot be compared; the first group is asked for.
            (Ok(_), Ok(_)) => Ok(()),
        };
        if let Err(reason) = choice {
            self.choice = Err(reason);
            self.partitions = other.partitions;
            return self;
        }
        for (own, other) in self.partitions.iter_mut().zip(other.partitions) {
            if other.drain_time > own.drain_time {
                *own = other;
            }
        }
        self.share_out();
        self
    }

    /// Makes the shares, which came from several groups, sum to one again.
    fn share_out(&mut self) {
        let mut shares: Vec<&mut f64> = match &mut self.choice {
            Ok(Placing::Drain(drain)) => {
                drain.partitions.iter_mut().map(|p| &mut p.share).collect()
            }
            Ok(Placing::Weights(weights)) => weights.iter_mut().collect(),
            Err(_) => return,
        };
        let sum: f64 = shares.iter().map(|share| **share).sum();
        let count = shares.len() as f64;
        for share in &mut shares {
            // When each partition is hopeless for one of the groups, no place is better.
            **share = if sum > 0.0 {
                **share / sum
            } else {
                1.0 / count
            };
        }
        for (partition, share) in self.partitions.iter_mut().zip(shares) {
            partition.weight = *share;
        }
    }
}
