//! Who we are to the brokers, and where each partition's sequence stands.

/// A producer id with its epoch, as InitProducerId gave it or as we bumped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Producer id.
    pub producer_id: i64,
    /// Epoch; a broker refuses anything older than the newest it saw in that partition.
    pub epoch: i16,
}

impl Identity {
    /// The identity with the next epoch; `None` when the epochs of this producer id are used up.
    ///
    /// A broker keeps a producer's state a partition at a time, so outside transactions one
    /// partition may be on a later epoch than another.
    pub fn bumped(self) -> Option<Self> {
        // Kafka itself keeps the last value free for fencing.
        let epoch = self
            .epoch
            .checked_add(1)
            .filter(|&epoch| epoch < i16::MAX)?;
        Some(Self { epoch, ..self })
    }
}

/// The sequence number of a record within its partition; wraps from `i32::MAX` to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence(pub i32);

impl Sequence {
    /// The sequence `count` records further on.
    #[must_use]
    pub fn advance(self, count: u32) -> Self {
        let sum = (i64::from(self.0) + i64::from(count)) % (i64::from(i32::MAX) + 1);
        Self(i32::try_from(sum).unwrap_or(0))
    }
}

/// What a batch was first sent with. Under one stamp its bytes never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Who sent it.
    pub identity: Identity,
    /// Sequence of its first record.
    pub base_sequence: Sequence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_to_zero_after_the_largest_i32() {
        assert_eq!(Sequence(i32::MAX).advance(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).advance(5), Sequence(3));
        assert_eq!(Sequence(7).advance(3), Sequence(10));
    }

    #[test]
    fn the_last_epoch_is_never_handed_out() {
        let last = Identity {
            producer_id: 1,
            epoch: i16::MAX - 1,
        };
        assert_eq!(last.bumped(), None);
        let first = Identity {
            producer_id: 1,
            epoch: 0,
        };
        assert_eq!(
            first.bumped(),
            Some(Identity {
                producer_id: 1,
                epoch: 1
            })
        );
    }
}
