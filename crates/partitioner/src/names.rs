//! The partitioners by name: Java's classes, librdkafka's family and ours.

use crate::{Hashed, KeyHash, Keyless, Partitioner, RoundRobin, Sticky};
use std::sync::Arc;

/// The names that [`by_name`] knows, without Java's classes.
pub const NAMES: &[&str] = &[
    "sticky",
    "uniform_sticky",
    "round_robin",
    "random",
    "consistent",
    "consistent_random",
    "murmur2",
    "murmur2_random",
    "fnv1a",
    "fnv1a_random",
    "murmur3_modulo",
    "uuid_modulo",
];

/// A partitioner by the name that librdkafka's `partitioner` setting has for it, by Java's class
/// name, or by ours; `None` if nothing has that name. `runs` places keyless records wherever they go
/// in runs; that it ignores keys acts on `sticky` alone, as in Java.
///
/// | name | keyed records | keyless records |
/// |---|---|---|
/// | `sticky`, `default`, Java's `DefaultPartitioner` | murmur2, as Java | runs |
/// | `uniform_sticky`, Java's `UniformStickyPartitioner`, librdkafka's `random` | runs | runs |
/// | `round_robin`, Java's `RoundRobinPartitioner` | each to the next partition | the same |
/// | `consistent` | CRC-32 | as an empty key |
/// | `consistent_random` (librdkafka's default) | CRC-32; an empty key as none | runs |
/// | `murmur2` | murmur2 | as an empty key |
/// | `murmur2_random` | murmur2, also an empty key | runs |
/// | `fnv1a` | FNV-1a | as an empty key |
/// | `fnv1a_random` | FNV-1a, also an empty key | runs |
/// | `murmur3_modulo` | murmur3, as Python's `mmh3.hash(key, signed=False)` | runs |
/// | `uuid_modulo` | the UUID's number; murmur2 if the key is none | runs |
///
/// Every hash counts modulo the number of partitions, those without a leader included. Where
/// librdkafka draws a partition for each record, ours draws one for each run.
pub fn by_name(name: &str, runs: Sticky) -> Option<Arc<dyn Partitioner>> {
    use KeyHash::{Crc32, Fnv1a, Murmur2, Murmur3, Uuid};
    use Keyless::{AsEmptyKey, Runs, RunsAlsoForEmptyKeys};
    let hashed =
        |hash, keyless| -> Arc<dyn Partitioner> { Arc::new(Hashed::new(hash, keyless).runs(runs)) };
    Some(match name {
        "sticky" | "default" | "org.apache.kafka.clients.producer.internals.DefaultPartitioner" => {
            Arc::new(runs)
        }
        "uniform_sticky"
        | "random"
        | "org.apache.kafka.clients.producer.UniformStickyPartitioner" => {
            Arc::new(runs.ignore_keys(true))
        }
        "round_robin" | "org.apache.kafka.clients.producer.RoundRobinPartitioner" => {
            Arc::new(RoundRobin)
        }
        "consistent" => hashed(Crc32, AsEmptyKey),
        "consistent_random" => hashed(Crc32, RunsAlsoForEmptyKeys),
        "murmur2" => hashed(Murmur2, AsEmptyKey),
        "murmur2_random" => hashed(Murmur2, Runs),
        "fnv1a" => hashed(Fnv1a, AsEmptyKey),
        "fnv1a_random" => hashed(Fnv1a, Runs),
        "murmur3_modulo" => hashed(Murmur3, Runs),
        "uuid_modulo" => hashed(Uuid, Runs),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;
    use crate::{KeyChoice, TopicView};
    use std::time::Instant;

    fn named(name: &str) -> Arc<dyn Partitioner> {
        by_name(name, Sticky::default()).unwrap()
    }

    fn keyless_partition(name: &str, view: &TopicView<'_>) -> i32 {
        named(name)
            .begin_run(view, Instant::now(), u64::MAX, None)
            .partition
    }

    /// Key, then its partition of 997 by `consistent`, `murmur2` and `fnv1a` (where librdkafka 2.16
    /// put it), and by `murmur3_modulo` (from mmh3 5).
    const PLACED: [(&[u8], i32, i32, i32, i32); 18] = [
        (b"", 0, 109, 743, 0),
        (b"a", 219, 104, 204, 213),
        (b"hejsan", 558, 117, 8, 342),
        (b"23456", 728, 702, 656, 388),
        (
            b"this is another string with more length to it perhaps",
            24,
            467,
            615,
            211,
        ),
        (b"kafka", 523, 697, 34, 590),
        (b"giberish123456789", 39, 859, 698, 643),
        (b"1234", 475, 646, 405, 301),
        (b"234", 114, 294, 643, 159),
        (b"\x00", 784, 460, 204, 270),
        (b"\xff\xff\xff\xff\xff", 531, 62, 964, 891),
        (b"\x5a\x6f\xc3\xab", 106, 5, 813, 111),
        (b"00000000-0000-0000-0000-000000000001", 148, 168, 514, 495),
        (b"customer-42", 690, 125, 532, 240),
        (b"order:7", 456, 360, 704, 787),
        (b"\xcb\x19\x71\x17\x44\x94\xd6", 369, 642, 611, 632),
        (
            b"\x91\xc5\xb1\x0b\xec\xb5\x56\x3b\xfc\x1e\x6f\x93\x42",
            906,
            881,
            743,
            352,
        ),
        (
            b"\xee\x4a\xf2\xb3\x4f\x43\x0a\x07\x34\x47\xde\x63\x6c\x0e\x80\x6c\x95\x7b\xa6\x84\xd6\x43",
            374,
            443,
            549,
            354,
        ),
    ];

    #[test]
    fn keys_go_where_librdkafka_and_mmh3_put_them() {
        // Most have no leader now: a hash does not care.
        let view = view(997, &[5]);
        for (key, crc32, murmur2, fnv1a, murmur3) in PLACED {
            let expect = |name: &str, partition: i32| {
                let choice = named(name).keyed(&view, key);
                assert_eq!(choice, KeyChoice::Partition(partition), "{name} {key:?}");
            };
            expect("consistent", crc32);
            if !key.is_empty() {
                expect("consistent_random", crc32);
            }
            for name in ["murmur2", "murmur2_random", "sticky"] {
                expect(name, murmur2);
            }
            expect("fnv1a", fnv1a);
            expect("fnv1a_random", fnv1a);
            expect("murmur3_modulo", murmur3);
        }
    }

    #[test]
    fn names_without_random_send_keyless_records_to_the_empty_keys_partition() {
        let all: Vec<i32> = (0..997).collect();
        let view = view(997, &all);
        // Where librdkafka 2.16 put records without a key.
        assert_eq!(keyless_partition("consistent", &view), 0);
        assert_eq!(keyless_partition("murmur2", &view), 109);
        assert_eq!(keyless_partition("fnv1a", &view), 743);
        // All bits set choose the last partition when the choice is random.
        for name in NAMES {
            if !["consistent", "murmur2", "fnv1a"].contains(name) {
                assert_eq!(keyless_partition(name, &view), 996, "{name}");
            }
        }
    }

    #[test]
    fn only_consistent_random_takes_an_empty_key_for_none() {
        let view = view(7, &[0]);
        let keyed = |name: &str| named(name).keyed(&view, b"");
        assert_eq!(keyed("consistent_random"), KeyChoice::Run);
        assert_ne!(keyed("murmur2_random"), KeyChoice::Run);
        assert_eq!(keyed("consistent"), KeyChoice::Partition(0));
    }

    #[test]
    fn some_names_ignore_keys() {
        let view = view(7, &[0]);
        for name in [
            "uniform_sticky",
            "org.apache.kafka.clients.producer.UniformStickyPartitioner",
            "random",
            "round_robin",
            "org.apache.kafka.clients.producer.RoundRobinPartitioner",
        ] {
            assert_eq!(named(name).keyed(&view, b"key"), KeyChoice::Run, "{name}");
        }
    }

    #[test]
    fn a_uuid_goes_by_its_number_and_another_key_as_in_java() {
        let view = view(997, &[0]);
        let keyed = |key: &[u8]| named("uuid_modulo").keyed(&view, key);
        let text = b"f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(keyed(text), KeyChoice::Partition(227));
        assert_eq!(keyed(b"hejsan"), KeyChoice::Partition(117));
    }

    #[test]
    fn every_name_is_known_and_others_are_not() {
        for name in NAMES {
            assert!(by_name(name, Sticky::default()).is_some(), "{name}");
        }
        assert!(by_name("stickyy", Sticky::default()).is_none());
    }
}
