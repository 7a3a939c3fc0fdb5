//! Zigzag varints as record batches use them: small magnitudes of either sign take one byte.

/// The most bytes a 32-bit varint takes.
pub const MAX_BYTES_I32: usize = 5;

/// The most bytes a 64-bit varint takes.
pub const MAX_BYTES_I64: usize = 10;

/// Reads one from the front of `input` and moves past it. `None` when the input ends first or the
/// number does not fit; `input` is then where it was.
#[inline]
pub fn read_i32(input: &mut &[u8]) -> Option<i32> {
    // Nearly every varint of a record is one byte.
    if let [byte @ 0..0x80, rest @ ..] = *input {
        *input = rest;
        return Some(unzigzag_i32(u32::from(*byte)));
    }
    let mut rest = *input;
    let raw = u32::try_from(read_raw(&mut rest, MAX_BYTES_I32)?).ok()?;
    *input = rest;
    Some(unzigzag_i32(raw))
}

/// Reads one from the front of `input` and moves past it. `None` when the input ends first or the
/// number does not fit; `input` is then where it was.
#[inline]
pub fn read_i64(input: &mut &[u8]) -> Option<i64> {
    if let [byte @ 0..0x80, rest @ ..] = *input {
        *input = rest;
        return Some(unzigzag_i64(u64::from(*byte)));
    }
    read_raw(input, MAX_BYTES_I64).map(unzigzag_i64)
}

/// Writes `value` to `buffer` from `at` on and returns where it ends. Bytes that `buffer` has no
/// room for are left out, so give it [`MAX_BYTES_I32`].
#[inline]
pub fn write_i32(buffer: &mut [u8], at: usize, value: i32) -> usize {
    // Zigzag keeps small numbers small at either width, so that both encode alike.
    write_i64(buffer, at, i64::from(value))
}

/// Writes `value` to `buffer` from `at` on and returns where it ends. Bytes that `buffer` has no
/// room for are left out, so give it [`MAX_BYTES_I64`].
#[inline]
pub fn write_i64(buffer: &mut [u8], mut at: usize, value: i64) -> usize {
    let mut raw = zigzag_i64(value);
    loop {
        // The truncation keeps the low bits, seven of which go into this byte.
        let (byte, rest) = (raw as u8 & 0x7f, raw >> 7);
        let more = if rest == 0 { 0 } else { 0x80 };
        if let Some(place) = buffer.get_mut(at) {
            *place = byte | more;
        }
        at += 1;
        if rest == 0 {
            return at;
        }
        raw = rest;
    }
}

/// A few varints in one register: written to memory one by one they could not be read again as one
/// piece at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Packed {
    bits: u128,
    len: usize,
}

impl Packed {
    pub(super) const MAX_BYTES: usize = 16;

    /// Adds a varint; `None` when it takes more than four bytes or there is no room for it.
    #[inline]
    pub(super) fn with(self, value: i64) -> Option<Self> {
        let raw = zigzag_i64(value);
        if raw < 0x80 {
            return self.then(raw, 1);
        }
        // A batch's offsets and times are mostly so.
        if raw < 1 << 14 {
            return self.then(raw & 0x7f | (raw & 0x3f80) << 1 | 0x80, 2);
        }
        let groups = raw & 0x7f | (raw & 0x3f80) << 1 | (raw & 0x1f_c000) << 2;
        if raw < 1 << 21 {
            return self.then(groups | 0x8080, 3);
        }
        if raw >= 1 << 28 {
            return None;
        }
        self.then(groups | (raw & 0xfe0_0000) << 3 | 0x80_8080, 4)
    }

    /// Adds what another one holds.
    #[inline]
    pub(super) fn with_all(self, other: Self) -> Option<Self> {
        let len = self.len + other.len;
        if len > Self::MAX_BYTES || self.len == Self::MAX_BYTES {
            return None;
        }
        let bits = self.bits | other.bits << (8 * self.len);
        Some(Self { bits, len })
    }

    #[inline]
    fn then(self, bits: u64, len: usize) -> Option<Self> {
        let bits = u128::from(bits);
        self.with_all(Self { bits, len })
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    /// The bytes, of which the first [`len`](Self::len) count.
    #[inline]
    pub(super) fn bytes(self) -> [u8; Self::MAX_BYTES] {
        self.bits.to_le_bytes()
    }
}

/// How many bytes `value` takes.
#[inline]
pub const fn size_i32(value: i32) -> usize {
    size_i64(value as i64)
}

/// How many bytes `value` takes.
#[inline]
pub const fn size_i64(value: i64) -> usize {
    // Seven bits a byte, at least one byte: "| 1" makes zero count as one bit.
    let bits = 64 - (zigzag_i64(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

const fn zigzag_i64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag_i64(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

const fn unzigzag_i32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

fn read_raw(input: &mut &[u8], max_bytes: usize) -> Option<u64> {
    let mut raw = 0u64;
    for (index, &byte) in input.iter().take(max_bytes).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index;
        // The tenth byte has room for a single bit.
        if index + 1 == MAX_BYTES_I64 && bits > 1 {
            return None;
        }
        raw |= bits << shift;
        if byte < 0x80 {
            *input = input.get(index + 1..)?;
            return Some(raw);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(value: i64) -> Vec<u8> {
        let mut buffer = [0; MAX_BYTES_I64];
        let len = write_i64(&mut buffer, 0, value);
        buffer[..len].to_vec()
    }

    #[test]
    fn encodes_as_the_protocol_guide_says() {
        assert_eq!(bytes_of(0), [0x00]);
        assert_eq!(bytes_of(-1), [0x01]);
        assert_eq!(bytes_of(63), [0x7e]);
        assert_eq!(bytes_of(-64), [0x7f]);
        assert_eq!(bytes_of(64), [0x80, 0x01]);
        assert_eq!(bytes_of(-65), [0x81, 0x01]);
        assert_eq!(bytes_of(8191), [0xfe, 0x7f]);
        assert_eq!(bytes_of(8192), [0x80, 0x80, 0x01]);
        assert_eq!(
            bytes_of(i64::from(i32::MAX)),
            [0xfe, 0xff, 0xff, 0xff, 0x0f]
        );
        assert_eq!(
            bytes_of(i64::from(i32::MIN)),
            [0xff, 0xff, 0xff, 0xff, 0x0f]
        );
        assert_eq!(bytes_of(i64::MIN).len(), MAX_BYTES_I64);
    }

    #[test]
    fn refuses_what_ends_early_or_does_not_fit() {
        for bad in [
            &[][..],
            &[0x80],
            &[0xff; 5],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
        ] {
            let mut input = bad;
            assert_eq!(read_i32(&mut input), None, "{bad:x?}");
            assert_eq!(input, bad, "the input stays where it was");
        }
        let mut too_long = &[0xff; 11][..];
        assert_eq!(read_i64(&mut too_long), None);
        let mut overflowing = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..];
        assert_eq!(read_i64(&mut overflowing), None);
    }

    proptest! {
        #[test]
        fn a_register_holds_the_same_bytes_or_says_no(
            values in prop::collection::vec((any::<i64>(), 30u32..64), 0..8)
        ) {
            let values = values.into_iter().map(|(value, shift)| value >> shift);
            let mut wanted = Vec::new();
            let mut packed = Some(Packed::default());
            for value in values {
                wanted.extend(bytes_of(value));
                let fits = bytes_of(value).len() <= 4 && wanted.len() <= Packed::MAX_BYTES;
                let before = packed;
                packed = packed.and_then(|packed| packed.with(value));
                prop_assert_eq!(packed.is_some(), before.is_some() && fits);
                if let Some(packed) = packed {
                    prop_assert_eq!(&packed.bytes()[..packed.len()], &*wanted);
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(value: i64, shift in 0u32..64, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = bytes_of(value);
            prop_assert_eq!(bytes.len(), size_i64(value));
            bytes.extend_from_slice(&tail);
            let mut input = &bytes[..];
            prop_assert_eq!(read_i64(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);
            let mut input = &bytes[..];
            prop_assert_eq!(read_i32(&mut input), i32::try_from(value).ok());
            if let Ok(value) = i32::try_from(value) {
                prop_assert_eq!(size_i32(value), bytes.len() - tail.len());
            }
        }
    }
}
