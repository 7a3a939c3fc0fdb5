//! Zstandard.

use super::{Fault, Output};
use rust_zstd::{CompressOptions, Compressor, Decompressor};

/// Zstandard's own default, and so Java's.
const DEFAULT_LEVEL: i32 = 3;

const MIN_LEVEL: i32 = -131_072;
const MAX_LEVEL: i32 = 22;

/// Compresses, keeping the working memory of the level last used.
#[derive(Default)]
pub(super) struct Encoder {
    state: Option<(i32, Compressor)>,
}

impl Encoder {
    pub(super) fn encode(&mut self, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
        let level = level.unwrap_or(DEFAULT_LEVEL).clamp(MIN_LEVEL, MAX_LEVEL);
        if self
            .state
            .as_ref()
            .is_none_or(|(made_for, _)| *made_for != level)
        {
            self.state = None;
        }
        let make = || {
            Compressor::new(CompressOptions {
                level,
                ..CompressOptions::default()
            })
        };
        let (_, state) = self.state.get_or_insert_with(|| (level, make()));
        state.compress(input, out);
    }
}

/// Inflates, keeping tables and window. The window grows with what a frame holds, not with what its
/// header says.
#[derive(Default)]
pub(super) struct Decoder {
    state: Option<Decompressor>,
}

impl Decoder {
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Output) -> Result<(), Fault> {
        if input.is_empty() {
            return Err("it is empty".into());
        }
        let state = self.state.get_or_insert_with(Decompressor::new);
        state.reset();
        let mut taken = 0;
        loop {
            let mut written = out.bytes.len();
            let taken_before = taken;
            let written_before = written;
            let hint = if out.left() == 0 {
                // Exactly full: the end may still follow, but not a byte more.
                let mut overflow = 0;
                let hint = state.decompress_stream(input, &mut taken, &mut [0], &mut overflow);
                if overflow != 0 {
                    return Err(Fault::OverCap);
                }
                hint
            } else {
                out.grow_some(input.len());
                out.bytes.resize(out.bytes.capacity().min(out.cap_bytes), 0);
                let hint = state.decompress_stream(input, &mut taken, &mut out.bytes, &mut written);
                out.bytes.truncate(written);
                hint
            };
            hint.map_err(|what| Fault::Malformed(what.into()))?;
            if taken == input.len() && taken == taken_before && written == written_before {
                return state.finish().map_err(|what| Fault::Malformed(what.into()));
            }
        }
    }
}
