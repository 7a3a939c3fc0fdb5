//! What an observation takes in.

use crate::snapshot::{LagStatus, PartitionLag};
use std::time::Instant;

/// One partition as an observation saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// End and committed offset fit together.
    Lag {
        /// The high watermark.
        end: i64,
        /// Where the group reads on.
        committed: i64,
        /// Records in between that are still there.
        lag: u64,
        /// Records that were deleted before the group read them.
        lost: u64,
    },
    /// The group has no committed offset.
    NoCommit {
        /// The high watermark.
        end: i64,
    },
    /// The committed offset lies beyond the end.
    BeyondEnd {
        /// The high watermark.
        end: i64,
    },
    /// It could not be asked this time.
    Missing,
}

impl Observed {
    /// One partition of a snapshot that was taken at `taken_at`; figures carried over from an
    /// earlier one count as missing.
    pub fn of(partition: &PartitionLag, taken_at: Instant) -> Self {
        let fresh = partition.end.filter(|_| partition.taken_at == taken_at);
        match (partition.status, fresh, partition.committed, partition.lag) {
            (LagStatus::Known, Some(end), Some(committed), Some(lag)) => Self::Lag {
                end,
                committed,
                lag,
                lost: partition.lost,
            },
            (LagStatus::NoCommit, Some(end), ..) => Self::NoCommit { end },
            (LagStatus::BeyondEnd, Some(end), ..) => Self::BeyondEnd { end },
            _ => Self::Missing,
        }
    }

    pub(super) fn lag(self) -> Option<u64> {
        match self {
            Self::Lag { lag, .. } => Some(lag),
            _ => None,
        }
    }

    pub(super) fn end(self) -> Option<i64> {
        match self {
            Self::Lag { end, .. } | Self::NoCommit { end } | Self::BeyondEnd { end } => Some(end),
            Self::Missing => None,
        }
    }
}
