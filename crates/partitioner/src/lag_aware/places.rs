//! Which places a choice draws from what is random. Pure.

use super::{CANDIDATES, CHANCE_RUNS};
use crate::sticky::below;

/// Three different places below `count`; all of them, turned, if there are no more, and then some
/// twice.
pub(super) fn places(count: usize, random: u64) -> [usize; CANDIDATES] {
    if count <= CANDIDATES {
        return few_places(count, random, 1);
    }
    three_places(count, random)
}

/// The places that a run has the choice of: as [`places`], but now and then a single one of few.
#[inline]
pub(super) fn candidates(count: usize, random: u64) -> [usize; CANDIDATES] {
    if count <= CANDIDATES {
        // The turn takes the other half of what is random.
        let step = usize::from(below(random as u32, CHANCE_RUNS) > 0);
        return few_places(count, random, step);
    }
    three_places(count, random)
}

/// Places below `count`, which is no more than [`CANDIDATES`], from a random one on.
#[inline]
pub(super) fn few_places(count: usize, random: u64, step: usize) -> [usize; CANDIDATES] {
    let turn = below((random >> 32) as u32, count);
    [0, step, 2 * step].map(|at| (at + turn) % count.max(1))
}

/// Three different places below `count`, which is more than that.
#[inline]
fn three_places(count: usize, random: u64) -> [usize; CANDIDATES] {
    let (low, high) = (random as u32, (random >> 32) as u32);
    // Each draw is among the places not taken yet: with replacement, a stalled partition would be
    // chosen whenever it stands against itself.
    let first = below(high, count);
    let mut second = below(low, count - 1);
    second += usize::from(second >= first);
    let mixed = low.wrapping_mul(0x9e37_79b9) ^ high.rotate_left(15).wrapping_mul(0x85eb_ca6b);
    let mut third = below(mixed, count - 2);
    third += usize::from(third >= first.min(second));
    third += usize::from(third >= first.max(second));
    [first, second, third]
}
