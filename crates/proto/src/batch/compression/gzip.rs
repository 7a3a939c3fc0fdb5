//! gzip: RFC 1952, also several members one behind the other, as Java reads them.

use super::{Fault, Output, size_bytes};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

/// The largest window there is, 32 KiB; smaller ones save nothing worth having.
const WINDOW_BITS: u8 = 15;

/// The default of zlib, and so of Java.
const DEFAULT_LEVEL: i32 = 6;

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Compresses, keeping the working memory of the level last used.
#[derive(Default)]
pub(super) struct Deflater {
    state: Option<(i32, Compress)>,
}

impl Deflater {
    pub(super) fn deflate(
        &mut self,
        level: Option<i32>,
        input: &[impl AsRef<[u8]>],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let state = self.at_level(level);
        out.reserve(size_bytes(input) / 4);
        for piece in input {
            let mut rest = piece.as_ref();
            while !rest.is_empty() {
                step(state, &mut rest, out, FlushCompress::None)?;
            }
        }
        while step(state, &mut &[][..], out, FlushCompress::Finish)? != Status::StreamEnd {}
        Ok(())
    }

    fn at_level(&mut self, level: Option<i32>) -> &mut Compress {
        let level = match level {
            None | Some(-1) => DEFAULT_LEVEL,
            Some(level) => level.clamp(1, 9),
        };
        if self
            .state
            .as_ref()
            .is_none_or(|(made_for, _)| *made_for != level)
        {
            self.state = None;
        }
        let make = || {
            let level = flate2::Compression::new(level.unsigned_abs());
            Compress::new_gzip(level, WINDOW_BITS)
        };
        let (_, state) = self.state.get_or_insert_with(|| (level, make()));
        state.reset();
        state
    }
}

fn step(
    state: &mut Compress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    flush: FlushCompress,
) -> Result<Status, String> {
    /// Room enough that a call is worth making, and that the end of a stream fits.
    const MIN_ROOM_BYTES: usize = 1024;
    if out.capacity() - out.len() < MIN_ROOM_BYTES {
        out.reserve(MIN_ROOM_BYTES.max(out.len()));
    }
    let before = state.total_in();
    let status = state
        .compress_vec(input, out, flush)
        .map_err(|error| error.to_string())?;
    let taken = usize::try_from(state.total_in() - before).unwrap_or(input.len());
    *input = input.get(taken..).unwrap_or_default();
    Ok(status)
}

pub(super) fn inflate(mut input: &[u8], out: &mut Output) -> Result<(), Fault> {
    loop {
        inflate_member(&mut input, out)?;
        if input.is_empty() {
            return Ok(());
        }
        if !input.starts_with(&MAGIC) {
            return Err("bytes behind its end".into());
        }
    }
}

fn inflate_member(input: &mut &[u8], out: &mut Output) -> Result<(), Fault> {
    // Not kept between calls: its reset turns a gzip reader into a zlib one.
    let mut state = Decompress::new_gzip(WINDOW_BITS);
    loop {
        let (in_before, out_before) = (state.total_in(), state.total_out());
        let status = if out.left() == 0 {
            // Exactly full: the end may still follow, but not a byte more.
            let mut overflow = [0];
            let status = state.decompress(input, &mut overflow, FlushDecompress::None);
            if state.total_out() != out_before {
                return Err(Fault::OverCap);
            }
            status
        } else {
            out.grow_some(input.len());
            state.decompress_vec(input, &mut out.bytes, FlushDecompress::None)
        };
        let status = status.map_err(|error| Fault::Malformed(error.to_string().into()))?;
        let taken = usize::try_from(state.total_in() - in_before).unwrap_or(input.len());
        *input = input.get(taken..).unwrap_or_default();
        if status == Status::StreamEnd {
            return Ok(());
        }
        if taken == 0 && state.total_out() == out_before {
            return Err("it ends early".into());
        }
    }
}
