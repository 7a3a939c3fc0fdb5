//! The checksum of two pieces from the checksums of each.
//!
//! Appending `n` bytes to a piece multiplies its CRC, a polynomial over bits, by x^(8n). The crate
//! that computes our checksums does that by squaring matrices, which costs more than a whole small
//! batch; by multiplying polynomials, as zlib does, it is a few hundred nanoseconds.

/// The polynomial of CRC32C, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^(2^k) modulo the polynomial. It repeats from 31 on: the polynomial divides by x + 1, so
/// x^(2^31) is x again.
const POWERS: [u32; 31] = {
    let mut powers = [0; 31];
    powers[0] = 1 << 30;
    let mut k = 1;
    while k < 31 {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// x^(8n) for n = byte · 256^k, so that each byte of a length is one multiplication; lengths below
/// 16 MiB have three.
const SHIFTS: [[u32; 256]; 3] = {
    let mut shifts = [[1 << 31; 256]; 3];
    let mut k = 0;
    while k < 3 {
        let mut byte = 1;
        while byte < 256 {
            shifts[k][byte] = multiply(shifts[k][byte - 1], POWERS[3 + 8 * k]);
            byte += 1;
        }
        k += 1;
    }
    shifts
};

/// The product of two polynomials; the highest bit stands for x^0.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        if a & (1 << (31 - bit)) != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 {
            b >> 1
        } else {
            (b >> 1) ^ POLYNOMIAL
        };
        bit += 1;
    }
    product
}

/// The CRC32C of a piece followed by another of `second_bytes`.
pub(super) fn combine(first: u32, second: u32, second_bytes: usize) -> u32 {
    let [low, middle, high, ..] = second_bytes.to_le_bytes();
    let mut product = first;
    for (shifts, byte) in SHIFTS.iter().zip([low, middle, high]) {
        if byte != 0 {
            product = multiply(shifts[usize::from(byte)], product);
        }
    }
    // The rest one power of two at a time; the first 27 are the eight and those three bytes.
    let mut rest = second_bytes >> 24;
    let mut k = 27;
    while rest != 0 {
        if rest & 1 != 0 {
            product = multiply(POWERS[k % POWERS.len()], product);
        }
        rest >>= 1;
        k += 1;
    }
    product ^ second
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_checksum_of_both_pieces_together(
            first in prop::collection::vec(any::<u8>(), 0..100),
            second in prop::collection::vec(any::<u8>(), 0..70_000),
        ) {
            let whole = crc32c::crc32c_append(crc32c::crc32c(&first), &second);
            let pieces = (crc32c::crc32c(&first), crc32c::crc32c(&second));
            prop_assert_eq!(combine(pieces.0, pieces.1, second.len()), whole);
        }
    }

    #[test]
    fn a_piece_of_any_length_counts() {
        for bytes in [1, 1 << 20, (1 << 29) - 1, 1 << 29, (1 << 31) - 1] {
            let expected = crc32c::crc32c_combine(0x1234_5678, 0x9abc_def0, bytes);
            assert_eq!(
                combine(0x1234_5678, 0x9abc_def0, bytes),
                expected,
                "{bytes}"
            );
        }
    }
}
