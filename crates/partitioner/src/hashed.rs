//! Keys by one of the known hashes, and no keys at all.

use crate::hashes::{crc32, fnv1a, java_partition, modulo, murmur3, uuid, uuid_modulo};
use crate::{KeyChoice, Partitioner, Run, Sticky, TopicView};
use std::time::Instant;

/// Which hash places keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHash {
    /// Java's murmur2 without its sign bit.
    Murmur2,
    /// CRC-32, librdkafka's `consistent`.
    Crc32,
    /// FNV-1a as librdkafka has it.
    Fnv1a,
    /// MurmurHash3 of 32 bits with seed 0: Python's `mmh3.hash(key, signed=False)`.
    Murmur3,
    /// The 128-bit number of a UUID in 16 bytes or in text. A key that is no UUID goes by murmur2,
    /// as in Java.
    Uuid,
}

impl KeyHash {
    fn partition(self, key: &[u8], count: i32) -> i32 {
        match self {
            Self::Murmur2 => java_partition(key, count),
            Self::Crc32 => modulo(crc32(key), count),
            Self::Fnv1a => modulo(fnv1a(key), count),
            Self::Murmur3 => modulo(murmur3(key), count),
            Self::Uuid => match uuid(key) {
                Some(number) => uuid_modulo(number, count),
                None => java_partition(key, count),
            },
        }
    }
}

/// Where records without a key go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    /// In runs to random partitions, as [`Sticky`] does. An empty key still counts as a key.
    Runs,
    /// As above, and an empty key counts as none: librdkafka's `consistent_random`.
    RunsAlsoForEmptyKeys,
    /// All to the partition of the empty key: librdkafka's names without `_random`.
    AsEmptyKey,
}

/// Keys by a hash, like librdkafka's partitioners.
#[derive(Debug, Clone, Copy)]
pub struct Hashed {
    hash: KeyHash,
    keyless: Keyless,
    runs: Sticky,
}

impl Hashed {
    /// Places keys by `hash` and records without one as `keyless` says.
    pub fn new(hash: KeyHash, keyless: Keyless) -> Self {
        Self {
            hash,
            keyless,
            runs: Sticky::default(),
        }
    }

    /// Places keyless records like this where they go in runs. Whether it ignores keys has no part
    /// here.
    #[must_use]
    pub fn runs(mut self, runs: Sticky) -> Self {
        self.runs = runs;
        self
    }
}

impl Partitioner for Hashed {
    fn keyed(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        if key.is_empty() && self.keyless == Keyless::RunsAlsoForEmptyKeys {
            return KeyChoice::Run;
        }
        KeyChoice::Partition(self.hash.partition(key, view.partition_count))
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        match self.keyless {
            Keyless::Runs | Keyless::RunsAlsoForEmptyKeys => {
                self.runs.begin_run(view, now, random, previous)
            }
            Keyless::AsEmptyKey => Run {
                partition: self.hash.partition(b"", view.partition_count),
                bytes: self.runs.bytes(view),
                records: Run::UNLIMITED,
            },
        }
    }
}
