//! The key hashes that Kafka clients use, bit for bit.
//!
//! Two clients that write the same topic must place a key alike, so these functions are fixed for
//! ever: each is held to vectors of the client it comes from.

/// Java's murmur2, as `org.apache.kafka.common.utils.Utils.murmur2` computes it.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Java's array length is an int; a key is never longer than that, so the cut loses nothing.
    let mut h = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        if let Ok(bytes) = <[u8; 4]>::try_from(word) {
            let mut k = u32::from_le_bytes(bytes).wrapping_mul(M);
            k ^= k >> 24;
            h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
        }
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in (0u32..).zip(rest) {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0u32;
    while i < 256 {
        let mut c = i;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 {
                0xedb8_8320 ^ (c >> 1)
            } else {
                c >> 1
            };
            bit += 1;
        }
        table[i as usize] = c;
        i += 1;
    }
    table
}

const CRC32: [u32; 256] = crc32_table();

/// The CRC-32 of zlib, which librdkafka's `consistent` partitioners use.
pub fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| CRC32[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
    !data.iter().fold(!0, step)
}

/// FNV-1a, made non-negative the way librdkafka does it (the negative of a negative hash).
pub fn fnv1a(data: &[u8]) -> u32 {
    let step = |h: u32, byte: &u8| (h ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    (data.iter().fold(0x811c_9dc5, step) as i32).unsigned_abs()
}

/// Java's placement of a key: murmur2 without its sign bit, modulo the partition count.
///
/// A partition count under 1 counts as 1.
pub fn java_partition(key: &[u8], partition_count: i32) -> i32 {
    modulo(murmur2(key) & 0x7fff_ffff, partition_count)
}

/// `hash` modulo the partition count; a count under 1 counts as 1.
pub(crate) fn modulo(hash: u32, partition_count: i32) -> i32 {
    let count = u32::try_from(partition_count).unwrap_or(1).max(1);
    // The remainder is below an i32, so the conversion cannot fail.
    i32::try_from(hash % count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_javas() {
        // Kafka's own UtilsTest.
        let java: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ];
        for (key, hash) in java {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        // librdkafka's rdmurmur2.c.
        let librdkafka: [(&str, u32); 7] = [
            ("kafka", 0xd067_cf64),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("", 0x106e_08d9),
        ];
        for (key, hash) in librdkafka {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    const LONG: &str = "this is another string with more length to it perhaps";

    #[test]
    fn every_hash_places_keys_as_librdkafka_does() {
        // librdkafka's test 0048: consistent, murmur2 (without its sign), fnv1a.
        let table: [(&str, u32, u32, u32); 4] = [
            ("", 0, 0x106e_08d9, 0x7ee3_623b),
            ("23456", 0xb1b4_51d7, 0x058d_780f, 0x27e6_f469),
            (LONG, 0xb015_0df7, 0x4f77_03da, 0x155e_3e5f),
            ("hejsan", 0xd077_037e, 0x5ec1_9395, 0x17b1_e27a),
        ];
        for (key, consistent, murmur, fnv) in table {
            let bytes = key.as_bytes();
            assert_eq!(crc32(bytes), consistent, "{key}");
            assert_eq!(murmur2(bytes) & 0x7fff_ffff, murmur, "{key}");
            assert_eq!(fnv1a(bytes), fnv, "{key}");
            assert_eq!(
                java_partition(bytes, 12),
                i32::try_from(murmur % 12).unwrap()
            );
        }
    }

    #[test]
    fn a_senseless_partition_count_still_gives_a_partition() {
        assert_eq!(java_partition(b"k", 0), 0);
        assert_eq!(java_partition(b"k", -3), 0);
        assert!((0..i32::MAX).contains(&java_partition(b"23456", i32::MAX)));
    }
}
