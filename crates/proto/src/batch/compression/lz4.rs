//! The LZ4 frame format, framed here so that no size in a frame's header costs memory.

use super::xxh32::xxh32;
use super::{Fault, Output};
use block::{Table, Writer};
use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};

mod block;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// What Java's producer writes too: version 1, independent blocks, no checksums, no content size.
const FLAGS: u8 = 0x60;

const END_MARK: [u8; 4] = [0; 4];

/// The sizes a block may have, and how a header says so. Java always takes the smallest; a larger
/// one, in which matches reach further, is 3 % smaller. The largest, 4 MiB, gains nothing more.
const BLOCK_SIZES: [(usize, u8); 3] = [(64 << 10, 0x40), (256 << 10, 0x50), (1 << 20, 0x60)];

/// A block whose length has this bit is stored as it is.
const STORED: u32 = 1 << 31;

/// A length byte of 255 adds as many bytes: no element is denser.
const MAX_RATIO: usize = 255;

/// How far back a block may reach into its predecessors where blocks are not independent.
const WINDOW_BYTES: usize = 64 * 1024;

/// Compresses, keeping its memory.
#[derive(Default)]
pub(super) struct Encoder {
    table: Table,
    /// Room for frames. It is never cleared: for large batches that would cost as much as copying
    /// them.
    room: Vec<u8>,
}

impl Encoder {
    /// None if the frame has no room, which it always has.
    pub(super) fn encode(&mut self, input: &[u8]) -> Option<&[u8]> {
        const BESIDES_BLOCKS: usize = 7 + END_MARK.len();
        let [.., largest] = BLOCK_SIZES;
        let fits = |(bytes, _): &(usize, u8)| *bytes >= input.len();
        let (block_bytes, code) = BLOCK_SIZES.into_iter().find(fits).unwrap_or(largest);
        let blocks = input.chunks(block_bytes);
        let most = BESIDES_BLOCKS + blocks.len() * size_of::<u32>() + input.len();
        if self.room.len() < most {
            self.room.resize(most, 0);
        }
        let mut out = Writer::new(&mut self.room);
        let [_, checksum, ..] = xxh32(&[FLAGS, code]).to_le_bytes();
        out.push(&MAGIC)?;
        out.push(&[FLAGS, code, checksum])?;
        for block in blocks {
            encode_block(&mut self.table, block, &mut out)?;
        }
        out.push(&END_MARK)?;
        let len = out.len();
        self.room.get(..len)
    }
}

fn encode_block(table: &mut Table, block: &[u8], out: &mut Writer<'_>) -> Option<()> {
    // The format asks for a block that would not shrink to be stored.
    let most = block.len().saturating_sub(1);
    let packed = out.sized(most, |room| table.compress(block, room));
    packed.or_else(|| {
        out.push(&(block.len() as u32 | STORED).to_le_bytes())?;
        out.push(block)
    })
}

pub(super) fn decode(mut input: &[u8], out: &mut Output) -> Result<(), Fault> {
    loop {
        decode_frame(&mut input, out)?;
        if input.is_empty() {
            return Ok(());
        }
    }
}

/// What a frame's header says of its blocks.
struct Descriptor {
    independent_blocks: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_max_bytes: usize,
}

impl Descriptor {
    fn take(input: &mut &[u8]) -> Result<Self, Fault> {
        const CUT: &str = "it ends within its header";
        if take::<4>(input).ok_or(CUT)? != MAGIC {
            return Err("it does not begin as a frame does".into());
        }
        let start = *input;
        let [flags, block_size] = take(input).ok_or(CUT)?;
        // Version 1; a dictionary, which nobody could know, and the reserved bit must be off.
        if flags & 0b1100_0011 != 0b0100_0000 {
            return Err(Fault::Malformed(
                format!("its header has flags {flags:#04x}").into(),
            ));
        }
        let block_max_bytes = match block_size {
            0x40 => 64 * 1024,
            0x50 => 256 * 1024,
            0x60 => 1024 * 1024,
            0x70 => 4 * 1024 * 1024,
            other => {
                let what = format!("its header has block size {other:#04x}");
                return Err(Fault::Malformed(what.into()));
            }
        };
        let content_size = if flags & 0b1000 != 0 {
            Some(u64::from_le_bytes(take(input).ok_or(CUT)?))
        } else {
            None
        };
        let described = start.get(..start.len() - input.len()).unwrap_or_default();
        let [checksum] = take(input).ok_or(CUT)?;
        let [_, expected, ..] = xxh32(described).to_le_bytes();
        if checksum != expected {
            return Err("its header fails its checksum".into());
        }
        Ok(Self {
            independent_blocks: flags & 0b10_0000 != 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_size,
            block_max_bytes,
        })
    }
}

fn decode_frame(input: &mut &[u8], out: &mut Output) -> Result<(), Fault> {
    let descriptor = Descriptor::take(input)?;
    let start = out.bytes.len();
    loop {
        let length = take(input).ok_or("it ends before its end mark")?;
        if length == END_MARK {
            break;
        }
        let length = u32::from_le_bytes(length);
        let size = usize::try_from(length & !STORED).unwrap_or(usize::MAX);
        if size > descriptor.block_max_bytes {
            return Err("a block is larger than its header allows".into());
        }
        let (block, rest) = input
            .split_at_checked(size)
            .ok_or("a block's length reaches past its end")?;
        *input = rest;
        if descriptor.block_checksums {
            check(input, block, "a block fails its checksum")?;
        }
        if length & STORED != 0 {
            out.append(block)?;
        } else {
            decode_block(&descriptor, start, block, out)?;
        }
    }
    let content = out.bytes.get(start..).unwrap_or_default();
    if descriptor.content_checksum {
        check(input, content, "its content fails its checksum")?;
    }
    if descriptor
        .content_size
        .is_some_and(|size| size != content.len() as u64)
    {
        return Err("its content has not the size its header says".into());
    }
    Ok(())
}

/// Inflates one block behind what is there; `frame_start` is where the frame's own content begins.
fn decode_block(
    descriptor: &Descriptor,
    frame_start: usize,
    block: &[u8],
    out: &mut Output,
) -> Result<(), Fault> {
    let most = descriptor
        .block_max_bytes
        .min(block.len().saturating_mul(MAX_RATIO));
    let start = out.bytes.len();
    let room = most.min(out.left());
    out.grow(room);
    out.bytes.resize(start + room, 0);
    let (before, place) = out
        .bytes
        .split_at_mut_checked(start)
        .ok_or("it is too large")?;
    let written = if descriptor.independent_blocks {
        decompress_into(block, place)
    } else {
        let reach = frame_start.max(start.saturating_sub(WINDOW_BYTES));
        decompress_into_with_dict(block, place, before.get(reach..).unwrap_or_default())
    };
    match written {
        Ok(written) => {
            out.bytes.truncate(start + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < most => Err(Fault::OverCap),
        Err(error) => Err(Fault::Malformed(error.to_string().into())),
    }
}

fn check(input: &mut &[u8], covered: &[u8], complaint: &'static str) -> Result<(), Fault> {
    let checksum = take(input).ok_or("it ends within a checksum")?;
    if u32::from_le_bytes(checksum) == xxh32(covered) {
        Ok(())
    } else {
        Err(complaint.into())
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}
