//! Snappy, in its two framings.
//!
//! Java's library cuts its input into blocks, each a raw snappy block behind its length, all behind
//! a header ("Xerial" framing); most other clients write one raw block. Brokers and consumers in
//! the field read both, so both are read here, and Java's is written.

use super::{Fault, Output};
use snap::raw;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

/// Version and least compatible version, both 1.
const HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];

/// What Java's library cuts its input into.
const BLOCK_BYTES: usize = 32 * 1024;

/// No snappy block inflates by more: its densest element copies 64 bytes by three.
const MAX_RATIO: usize = 22;

/// Compresses, keeping its hash table.
#[derive(Default)]
pub(super) struct Encoder {
    raw: Option<raw::Encoder>,
}

impl Encoder {
    pub(super) fn encode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(&HEADER);
        for block in input.chunks(BLOCK_BYTES) {
            self.encode_block(block, out)?;
        }
        Ok(())
    }

    fn encode_block(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let length_at = out.len();
        let block_at = length_at + size_of::<u32>();
        out.resize(block_at + raw::max_compress_len(block.len()), 0);
        let room = out.get_mut(block_at..).unwrap_or_default();
        let size = self
            .raw
            .get_or_insert_with(raw::Encoder::new)
            .compress(block, room)
            .map_err(|error| error.to_string())?;
        out.truncate(block_at + size);
        let length = u32::try_from(size).map_err(|error| error.to_string())?;
        if let Some(place) = out.get_mut(length_at..block_at) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

pub(super) fn decode(input: &[u8], out: &mut Output) -> Result<(), Fault> {
    if !input.starts_with(&MAGIC) {
        return decode_block(input, out);
    }
    let Some((_, mut rest)) = input.split_at_checked(HEADER.len()) else {
        return Err("it ends within its header".into());
    };
    while !rest.is_empty() {
        let (length, tail) = rest
            .split_first_chunk()
            .ok_or("it ends within a block's length")?;
        let length = usize::try_from(u32::from_be_bytes(*length))
            .map_err(|_| "a block's length reaches past its end")?;
        let (block, tail) = tail
            .split_at_checked(length)
            .ok_or("a block's length reaches past its end")?;
        decode_block(block, out)?;
        rest = tail;
    }
    Ok(())
}

fn decode_block(block: &[u8], out: &mut Output) -> Result<(), Fault> {
    let malformed = |error: snap::Error| Fault::Malformed(error.to_string().into());
    let size = raw::decompress_len(block).map_err(malformed)?;
    if size > block.len().saturating_mul(MAX_RATIO) {
        return Err("a block says it inflates to more than it can".into());
    }
    let room = out.room(size)?;
    let written = raw::Decoder::new()
        .decompress(block, room)
        .map_err(malformed)?;
    if written == size {
        Ok(())
    } else {
        Err("a block inflates to less than it says".into())
    }
}
