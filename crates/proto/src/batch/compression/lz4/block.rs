//! One LZ4 block: sequences of literal bytes and a match each, which says how far back and how long
//! to copy.
//!
//! `lz4_flex` compresses as C's fast level does, by a table of 4,096 places; with four times as
//! many, batches of text are 6 % smaller. What that costs in time is mostly won back by entries
//! that say more of their bytes than their place does.

/// The table's size as a power of two: 64 KiB of entries, which stay near the core. With twice as
/// many, blocks are 2 % smaller and take 10 % longer.
const BITS: u32 = 14;

/// So many bytes are hashed. Fewer find more matches, but shorter ones.
const HASHED_BYTES: u32 = 6;

/// Below, there is less to find, and clearing all of the table would cost more than it gives.
const SMALL_BLOCK_BYTES: usize = 32 * 1024;
const SMALL_BITS: u32 = 12;
const SMALL_HASHED_BYTES: u32 = 5;

/// A shorter match would be no shorter than its bytes.
const MATCH_MIN_BYTES: usize = 4;

/// The format wants so many literals last.
const LAST_LITERALS: usize = 5;

/// Lengths from here on go on in bytes of their own.
const TOKEN_LENGTH_MAX: usize = 15;

/// After so many places without a match (as a power of two) every second one is looked at, after
/// as many more every third: what does not compress passes quickly.
const PATIENCE_BITS: u32 = 5;

/// Where bytes were last seen, by their hash. The lower half of an entry is the position modulo
/// 64 KiB, which is as far as a match reaches; the upper half is more of the hash, so that bytes
/// that are not the same are seldom looked at.
#[derive(Default)]
pub(super) struct Table(Vec<u32>);

impl Table {
    /// Compresses `input` to the beginning of `out`; gives the size. None if it does not fit, which
    /// leaves anything in `out`.
    pub(super) fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.resize(1 << BITS, 0);
        if input.len() < SMALL_BLOCK_BYTES {
            let places = self.0.first_chunk_mut()?;
            compress::<SMALL_BITS, SMALL_HASHED_BYTES, { 1 << SMALL_BITS }>(input, out, places)
        } else {
            let places = self.0.first_chunk_mut()?;
            compress::<BITS, HASHED_BYTES, { 1 << BITS }>(input, out, places)
        }
    }
}

/// `len` bytes at `at` are the same as at `from`.
struct Match {
    at: usize,
    from: usize,
    len: usize,
}

fn compress<const BITS: u32, const HASHED: u32, const PLACES: usize>(
    input: &[u8],
    out: &mut [u8],
    table: &mut [u32; PLACES],
) -> Option<usize> {
    table.fill(0);
    let mut out = Writer::new(out);
    let mut written = 0;
    // Matches lie within. They begin where eight bytes can be read, thirteen before the end; the
    // format asks for twelve.
    let body = input
        .get(..input.len().saturating_sub(LAST_LITERALS))
        .unwrap_or_default();
    while let Some(found) = seek::<BITS, HASHED, PLACES>(body, written, table) {
        let found = found.widened(body, written);
        out.sequence(input.get(written..)?, found.at - written, &found)?;
        written = found.at + found.len;
        // What follows a match often follows it again.
        let at = written - 2;
        if let Some(bytes) = read(body, at) {
            exchange::<BITS, HASHED, PLACES>(table, bytes, at);
        }
    }
    let last = input.get(written..)?;
    out.literals(last, last.len(), 0)?;
    Some(out.len)
}

/// The first match from `pos` on.
#[inline(always)]
fn seek<const BITS: u32, const HASHED: u32, const PLACES: usize>(
    body: &[u8],
    mut pos: usize,
    table: &mut [u32; PLACES],
) -> Option<Match> {
    let mut tries = 1 << PATIENCE_BITS;
    loop {
        let bytes = read(body, pos)?;
        if let Some(back) = exchange::<BITS, HASHED, PLACES>(table, bytes, pos)
            && let Some(from) = pos.checked_sub(back)
            && let Some(before) = read(body, from)
            && before as u32 == bytes as u32
            && back > 0
        {
            let same = (before ^ bytes).trailing_zeros() as usize / 8;
            let len = if same < 8 {
                same
            } else {
                8 + common(body, from + 8, pos + 8)
            };
            return Some(Match { at: pos, from, len });
        }
        pos += tries >> PATIENCE_BITS;
        tries += 1;
    }
}

/// Enters a position. Gives how far back the bytes were seen before, if they are likely the same.
#[inline(always)]
fn exchange<const BITS: u32, const HASHED: u32, const PLACES: usize>(
    table: &mut [u32; PLACES],
    bytes: u64,
    at: usize,
) -> Option<usize> {
    /// The golden ratio of 64 bits, by which hashes spread well.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    // Shifted, so that the other bytes fall out.
    let hash = bytes.wrapping_mul(MULTIPLIER << (u64::BITS - 8 * HASHED));
    let entry = table.get_mut((hash >> (u64::BITS - BITS)) as usize)?;
    let more = (hash >> (u64::BITS - BITS - 16)) as u32 & 0xffff;
    let before = std::mem::replace(entry, more << 16 | u32::from(at as u16));
    let back = (at as u16).wrapping_sub(before as u16);
    (before >> 16 == more).then_some(usize::from(back))
}

impl Match {
    /// The match, begun up to eight bytes earlier: no earlier than `from`.
    #[inline(always)]
    fn widened(self, body: &[u8], from: usize) -> Self {
        let Self {
            at,
            from: source,
            len,
        } = self;
        if at == from {
            return self;
        }
        let before = |at: usize| read(body, at.checked_sub(8)?);
        let same = match (before(at), before(source)) {
            (Some(a), Some(b)) => (a ^ b).leading_zeros() as usize / 8,
            _ => 0,
        };
        let more = same.min(at - from);
        Self {
            at: at - more,
            from: source - more,
            len: len + more,
        }
    }
}

/// How many bytes are the same.
#[inline(always)]
fn common(body: &[u8], from: usize, at: usize) -> usize {
    let from = body.get(from..).unwrap_or_default();
    let at = body.get(at..).unwrap_or_default();
    let (from_words, _) = from.as_chunks();
    let (at_words, rest) = at.as_chunks();
    let mut len = 0;
    for (a, b) in from_words.iter().zip(at_words) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let from = from.get(len..).unwrap_or_default();
    len + from.iter().zip(rest).take_while(|(a, b)| a == b).count()
}

#[inline(always)]
fn read(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Fills a slice from its beginning; gives None when it is full.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// How many bytes are written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes what `compress` makes of the room given to it, at most so many bytes, behind their
    /// count. None, and nothing is written, if it makes nothing.
    pub(super) fn sized(
        &mut self,
        most: usize,
        compress: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<()> {
        let (count, room) = self.out.get_mut(self.len..)?.split_first_chunk_mut()?;
        let most = most.min(room.len());
        let size = compress(room.get_mut(..most)?)?;
        *count = (size as u32).to_le_bytes();
        self.len += count.len() + size;
        Some(())
    }

    /// Writes a match and the literals before it, with which `begun` begins.
    #[inline(always)]
    fn sequence(&mut self, begun: &[u8], literals: usize, found: &Match) -> Option<()> {
        const PIECE: usize = 16;
        let length = found.len - MATCH_MIN_BYTES;
        let back = ((found.at - found.from) as u16).to_le_bytes();
        // The usual case without a loop: a piece is copied whole, and what follows is written over
        // what was too much.
        if literals < TOKEN_LENGTH_MAX
            && let Some(piece) = begun.first_chunk::<PIECE>()
            && let Some(room) = self.out.get_mut(self.len..)
            && let Some([token, room @ ..]) = room.first_chunk_mut::<{ 1 + PIECE + 2 }>()
        {
            *token = token_of(literals, length);
            *room.first_chunk_mut()? = *piece;
            *room.get_mut(literals..)?.first_chunk_mut()? = back;
            self.len += 1 + literals + back.len();
        } else {
            self.literals(begun, literals, length)?;
            self.push(&back)?;
        }
        if length >= TOKEN_LENGTH_MAX {
            self.length(length - TOKEN_LENGTH_MAX)?;
        }
        Some(())
    }

    /// Writes a token and `literals` bytes, with which `begun` begins.
    #[inline(never)]
    fn literals(&mut self, begun: &[u8], literals: usize, match_length: usize) -> Option<()> {
        const PIECE: usize = 32;
        self.push(&[token_of(literals, match_length)])?;
        if literals >= TOKEN_LENGTH_MAX {
            self.length(literals - TOKEN_LENGTH_MAX)?;
        }
        if literals <= PIECE
            && let Some(piece) = begun.first_chunk::<PIECE>()
            && let Some(room) = self.out.get_mut(self.len..)
            && let Some(room) = room.first_chunk_mut()
        {
            *room = *piece;
            self.len += literals;
            return Some(());
        }
        self.push(begun.get(..literals)?)
    }

    /// Writes what a length has beyond the token.
    #[inline(always)]
    fn length(&mut self, mut rest: usize) -> Option<()> {
        while rest >= 255 {
            self.push(&[255])?;
            rest -= 255;
        }
        self.push(&[rest as u8])
    }

    #[inline(always)]
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

/// The byte that begins a sequence: both lengths, as far as they fit.
fn token_of(literals: usize, length: usize) -> u8 {
    (literals.min(TOKEN_LENGTH_MAX) << 4 | length.min(TOKEN_LENGTH_MAX)) as u8
}

#[cfg(test)]
mod tests;
