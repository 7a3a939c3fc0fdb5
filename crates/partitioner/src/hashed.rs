//! The partitioners by name: librdkafka's family and ours.

use crate::hashes::{crc32, fnv1a, modulo, murmur2};
use crate::{KeyChoice, Partitioner, RoundRobin, Run, Sticky, TopicView};
use std::sync::Arc;
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
}

impl KeyHash {
    fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32(key),
            Self::Fnv1a => fnv1a(key),
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
}

impl Partitioner for Hashed {
    fn keyed(&self, view: &TopicView<'_>, key: &[u8]) -> KeyChoice {
        if key.is_empty() && self.keyless == Keyless::RunsAlsoForEmptyKeys {
            return KeyChoice::Run;
        }
        KeyChoice::Partition(modulo(self.hash.of(key), view.partition_count))
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        let run = self.runs.begin_run(view, now, random, previous);
        match self.keyless {
            Keyless::Runs | Keyless::RunsAlsoForEmptyKeys => run,
            Keyless::AsEmptyKey => Run {
                partition: modulo(self.hash.of(b""), view.partition_count),
                ..run
            },
        }
    }
}

/// Keyed and keyless records alike in runs to random partitions: librdkafka's `random`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random(Sticky);

impl Partitioner for Random {
    fn keyed(&self, _view: &TopicView<'_>, _key: &[u8]) -> KeyChoice {
        KeyChoice::Run
    }

    fn begin_run(
        &self,
        view: &TopicView<'_>,
        now: Instant,
        random: u64,
        previous: Option<i32>,
    ) -> Run {
        self.0.begin_run(view, now, random, previous)
    }
}

/// The names that [`by_name`] knows.
pub const NAMES: &[&str] = &[
    "sticky",
    "round_robin",
    "random",
    "consistent",
    "consistent_random",
    "murmur2",
    "murmur2_random",
    "fnv1a",
    "fnv1a_random",
];

/// A partitioner by the name that librdkafka's `partitioner` setting has for it, by Java's class
/// name, or by ours; `None` if nothing has that name.
pub fn by_name(name: &str) -> Option<Arc<dyn Partitioner>> {
    use KeyHash::{Crc32, Fnv1a, Murmur2};
    use Keyless::{AsEmptyKey, Runs, RunsAlsoForEmptyKeys};
    let hashed = |hash, keyless| -> Arc<dyn Partitioner> { Arc::new(Hashed::new(hash, keyless)) };
    Some(match name {
        "sticky" | "default" | "org.apache.kafka.clients.producer.internals.DefaultPartitioner" => {
            Arc::new(Sticky::default())
        }
        "round_robin" | "org.apache.kafka.clients.producer.RoundRobinPartitioner" => {
            Arc::new(RoundRobin)
        }
        "random" => Arc::new(Random::default()),
        "consistent" => hashed(Crc32, AsEmptyKey),
        "consistent_random" => hashed(Crc32, RunsAlsoForEmptyKeys),
        "murmur2" => hashed(Murmur2, AsEmptyKey),
        "murmur2_random" => hashed(Murmur2, Runs),
        "fnv1a" => hashed(Fnv1a, AsEmptyKey),
        "fnv1a_random" => hashed(Fnv1a, Runs),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;

    fn keyless_partition(name: &str) -> i32 {
        let all: Vec<i32> = (0..7).collect();
        by_name(name)
            .unwrap()
            .begin_run(&view(7, &all), Instant::now(), u64::MAX, None)
            .partition
    }

    #[test]
    fn names_without_random_send_keyless_records_to_the_empty_keys_partition() {
        assert_eq!(keyless_partition("consistent"), 0);
        assert_eq!(
            keyless_partition("murmur2"),
            i32::try_from(0x106e_08d9u32 % 7).unwrap()
        );
        assert_eq!(
            keyless_partition("fnv1a"),
            i32::try_from(0x7ee3_623bu32 % 7).unwrap()
        );
        // All bits set choose the last partition when the choice is random.
        for name in ["consistent_random", "murmur2_random", "fnv1a_random"] {
            assert_eq!(keyless_partition(name), 6, "{name}");
        }
    }

    #[test]
    fn only_consistent_random_takes_an_empty_key_for_none() {
        let view = view(7, &[0]);
        let keyed = |name: &str| by_name(name).unwrap().keyed(&view, b"");
        assert_eq!(keyed("consistent_random"), KeyChoice::Run);
        assert_ne!(keyed("murmur2_random"), KeyChoice::Run);
        assert_eq!(keyed("consistent"), KeyChoice::Partition(0));
    }

    #[test]
    fn every_name_is_known_and_others_are_not() {
        for name in NAMES {
            assert!(by_name(name).is_some(), "{name}");
        }
        assert!(by_name("stickyy").is_none());
    }
}
