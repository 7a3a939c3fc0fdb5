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

/// MurmurHash3 for 32 bits with seed 0, as `mmh3.hash(key, signed=False)` has it in Python.
pub fn murmur3(data: &[u8]) -> u32 {
    let mix = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let mut words = data.chunks_exact(4);
    let mut h = (&mut words)
        .filter_map(|word| <[u8; 4]>::try_from(word).ok())
        .fold(0u32, |h, word| {
            let h = (h ^ mix(u32::from_le_bytes(word))).rotate_left(13);
            h.wrapping_mul(5).wrapping_add(0xe654_6b64)
        });
    let rest = words.remainder().iter().rev();
    h ^= mix(rest.fold(0, |k, byte| k << 8 | u32::from(*byte)));
    // The length counts modulo 2^32 in every implementation.
    h ^= data.len() as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The number that a UUID is, read from its 16 bytes or from text: 32 hexadecimal digits, with or
/// without hyphens, braces and `urn:uuid:`. `None` if the key is no UUID.
pub fn uuid(key: &[u8]) -> Option<u128> {
    if let Ok(bytes) = <[u8; 16]>::try_from(key) {
        return Some(u128::from_be_bytes(bytes));
    }
    let key = key.strip_prefix(b"urn:uuid:").unwrap_or(key);
    let braced = key
        .strip_prefix(b"{")
        .and_then(|key| key.strip_suffix(b"}"));
    let mut number = 0u128;
    let mut digits = 0;
    for byte in braced.unwrap_or(key).iter().filter(|byte| **byte != b'-') {
        let digit = char::from(*byte).to_digit(16)?;
        number = number << 4 | u128::from(digit);
        digits += 1;
    }
    (digits == 32).then_some(number)
}

/// A UUID modulo the partition count; a count under 1 counts as 1.
pub(crate) fn uuid_modulo(uuid: u128, partition_count: i32) -> i32 {
    let count = u128::try_from(partition_count).unwrap_or(1).max(1);
    i32::try_from(uuid % count).unwrap_or(0)
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
    fn murmur3_is_that_of_mmh3() {
        let table: [(&[u8], u32); 8] = [
            (b"", 0),
            (b"a", 0x3c25_69b2),
            (b"ab", 0x9bbf_d75f),
            (b"abc", 0xb3dd_93fa),
            (b"abcd", 0x43ed_676a),
            (b"hejsan", 0xa031_dc47),
            (&[0xff; 7], 0x011d_1da7),
            (LONG.as_bytes(), 0x9971_0572),
        ];
        for (key, hash) in table {
            assert_eq!(murmur3(key), hash, "{key:?}");
        }
    }

    #[test]
    fn a_uuid_is_its_number_however_it_is_written() {
        // The remainders are Python's: uuid.UUID(text).int % n.
        let table: [(&str, u128, i32, i32); 4] = [
            ("00000000-0000-0000-0000-000000000001", 1, 1, 1),
            (
                "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
                329_800_735_698_586_629_295_641_978_511_506_172_918,
                10,
                227,
            ),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", u128::MAX, 3, 298),
            (
                "8c1e0b1a-5a7f-4f0e-9c43-2d1f6f0f7a55",
                186_247_913_510_089_690_374_114_915_111_742_175_829,
                9,
                833,
            ),
        ];
        for (text, number, of_12, of_997) in table {
            let bare = text.replace('-', "");
            let (upper, braced) = (text.to_uppercase(), format!("{{{text}}}"));
            let urn = format!("urn:uuid:{text}");
            for written in [text, &bare, &upper, &braced, &urn] {
                assert_eq!(uuid(written.as_bytes()), Some(number), "{written}");
            }
            assert_eq!(uuid(&number.to_be_bytes()), Some(number));
            assert_eq!(uuid_modulo(number, 12), of_12);
            assert_eq!(uuid_modulo(number, 997), of_997);
        }
        assert_eq!(uuid_modulo(u128::MAX, 0), 0);
    }

    #[test]
    fn what_is_no_uuid_is_none() {
        let text = "f81d4fae-7dec-11d0-a765-00a0c91e6bf";
        for key in ["", "order:7", text, "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6"] {
            assert_eq!(uuid(key.as_bytes()), None, "{key}");
        }
        assert_eq!(uuid(format!("{text}66").as_bytes()), None);
        assert_eq!(uuid(format!("{text}g").as_bytes()), None);
    }

    #[test]
    fn a_senseless_partition_count_still_gives_a_partition() {
        assert_eq!(java_partition(b"k", 0), 0);
        assert_eq!(java_partition(b"k", -3), 0);
        assert!((0..i32::MAX).contains(&java_partition(b"23456", i32::MAX)));
    }
}
