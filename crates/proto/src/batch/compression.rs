//! The five codecs of a records section, each pure Rust, each with a cap on what it may inflate to.

mod gzip;
mod lz4;
mod snappy;
mod xxh32;
mod zstd;

use super::header::corrupt;
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy: raw, or in the framing that Java's library adds.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard, for brokers from 2.1 on.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of its number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Reads the codec from a batch's attributes; the other attributes are not looked at.
    ///
    /// # Errors
    /// `Corrupt` for a number that stands for no codec.
    pub fn from_attributes(attributes: i16) -> Result<Self> {
        let number = attributes & 0b111;
        Self::ALL
            .into_iter()
            .find(|codec| codec.bits() == number)
            .ok_or_else(|| corrupt(format!("a record batch has compression type {number}")))
    }

    /// The codec's number, which is also its bits in a batch's attributes.
    pub fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec's name as `compression.type` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Reads a name as `compression.type` has it.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    format!("{name:?} is no compression type: none, gzip, snappy, lz4, zstd"),
                )
            })
    }
}

/// Compresses records sections, keeping each codec's working memory from one to the next. One a
/// thread; making one allocates nothing.
#[derive(Default)]
pub struct Compressor {
    gzip: gzip::Deflater,
    snappy: snappy::Encoder,
    lz4: lz4::Encoder,
    zstd: zstd::Encoder,
    /// The pieces of an input joined, for the codecs that want it whole.
    joined: Vec<u8>,
    out: Vec<u8>,
}

impl Compressor {
    /// One without working memory; each codec takes its own at its first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses the pieces of `input`, which together are a records section. The result lies in
    /// the working memory, until the next call.
    ///
    /// `level` is of the codec's own scale, clamped to it: gzip 1 to 9, zstd up to 22 (0 is its
    /// default, negative ones are faster); the others have none. `None` is the codec's default,
    /// as in Kafka's Java client: gzip 6 (also written -1), zstd 3.
    ///
    /// # Errors
    /// `State` if the input is beyond what the codec can hold (4 GiB for snappy).
    pub fn compress(
        &mut self,
        codec: Compression,
        level: Option<i32>,
        input: &[impl AsRef<[u8]>],
    ) -> Result<&[u8]> {
        self.out.clear();
        match codec {
            Compression::None => {
                input
                    .iter()
                    .for_each(|piece| self.out.extend_from_slice(piece.as_ref()));
                Ok(())
            }
            Compression::Gzip => self.gzip.deflate(level, input, &mut self.out),
            Compression::Snappy => {
                let whole = join(&mut self.joined, input);
                self.snappy.encode(whole, &mut self.out)
            }
            Compression::Lz4 => {
                let whole = join(&mut self.joined, input);
                let no_room = || Error::new(ErrorKind::State, "lz4 has no room for its frame");
                return self.lz4.encode(whole).ok_or_else(no_room);
            }
            Compression::Zstd => {
                let whole = join(&mut self.joined, input);
                self.zstd.encode(level, whole, &mut self.out);
                Ok(())
            }
        }
        .map_err(|what| Error::new(ErrorKind::State, format!("{codec} cannot compress: {what}")))?;
        Ok(&self.out)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Inflates records sections, keeping working memory from one to the next: for zstd a window, as
/// large as the largest section so far, at most 129 MiB. One a thread; making one allocates nothing.
#[derive(Default)]
pub struct Decompressor {
    zstd: zstd::Decoder,
}

impl Decompressor {
    /// One without working memory; each codec takes its own at its first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inflates a records section to at most `cap_bytes`.
    ///
    /// The cap is checked while inflating, and memory is taken as output comes: sizes that the
    /// input merely claims allocate nothing.
    ///
    /// # Errors
    /// `Corrupt` when the input is not what the codec writes, is cut short, or inflates to more
    /// than the cap.
    pub fn decompress(
        &mut self,
        codec: Compression,
        input: &[u8],
        cap_bytes: usize,
    ) -> Result<Vec<u8>> {
        let mut out = Output::new(cap_bytes);
        match codec {
            Compression::None => out.append(input),
            Compression::Gzip => gzip::inflate(input, &mut out),
            Compression::Snappy => snappy::decode(input, &mut out),
            Compression::Lz4 => lz4::decode(input, &mut out),
            Compression::Zstd => self.zstd.decode(input, &mut out),
        }
        .map_err(|fault| match fault {
            Fault::OverCap => corrupt(format!(
                "{codec} records inflate to more than the limit of {cap_bytes} bytes"
            )),
            Fault::Malformed(what) => corrupt(format!("{codec} records are malformed: {what}")),
        })?;
        Ok(out.bytes)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

/// [`Compressor::compress`] without working memory to keep.
///
/// # Errors
/// As [`Compressor::compress`].
pub fn compress(codec: Compression, level: Option<i32>, input: &[&[u8]]) -> Result<Vec<u8>> {
    let mut compressor = Compressor::new();
    compressor.compress(codec, level, input).map(<[u8]>::to_vec)
}

/// [`Decompressor::decompress`] without working memory to keep.
///
/// # Errors
/// As [`Decompressor::decompress`].
pub fn decompress(codec: Compression, input: &[u8], cap_bytes: usize) -> Result<Vec<u8>> {
    Decompressor::new().decompress(codec, input, cap_bytes)
}

/// Why a section does not inflate.
enum Fault {
    OverCap,
    Malformed(Cow<'static, str>),
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what.into())
    }
}

/// Inflated bytes, never more than the cap.
struct Output {
    bytes: Vec<u8>,
    cap_bytes: usize,
}

impl Output {
    fn new(cap_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            cap_bytes,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// `len` zeroed bytes at the end, for a codec that knows how much comes. The caller sees to it
    /// that its input justifies them.
    fn room(&mut self, len: usize) -> Result<&mut [u8], Fault> {
        if len > self.left() {
            return Err(Fault::OverCap);
        }
        self.grow(len);
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        Ok(self.bytes.get_mut(start..).unwrap_or_default())
    }

    fn left(&self) -> usize {
        self.cap_bytes - self.bytes.len()
    }

    /// Capacity for some more bytes, for a codec that does not know how much comes: at first some
    /// times the input's size, then as much again as came so far. At least one byte must be left.
    fn grow_some(&mut self, input_len: usize) {
        /// Text and JSON inflate to three to six times their size.
        const USUAL_RATIO: usize = 4;
        const MIN_STEP_BYTES: usize = 512;
        if self.bytes.capacity() == self.bytes.len() {
            let step = match self.bytes.len() {
                0 => input_len.saturating_mul(USUAL_RATIO),
                len => len,
            };
            self.grow(step.max(MIN_STEP_BYTES).min(self.left()));
        }
    }

    /// Capacity for `len` more bytes; doubling, but never beyond the cap.
    fn grow(&mut self, len: usize) {
        if self.bytes.capacity() - self.bytes.len() < len {
            let wanted = len.max(self.bytes.len()).min(self.left());
            self.bytes.reserve_exact(wanted);
        }
    }
}

/// The pieces as one slice, copied into `joined` only if there are several.
fn join<'a>(joined: &'a mut Vec<u8>, pieces: &'a [impl AsRef<[u8]>]) -> &'a [u8] {
    match pieces {
        [] => &[],
        [whole] => whole.as_ref(),
        _ => {
            joined.clear();
            joined.reserve(size_bytes(pieces));
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece.as_ref()));
            joined
        }
    }
}

fn size_bytes(pieces: &[impl AsRef<[u8]>]) -> usize {
    pieces.iter().map(|piece| piece.as_ref().len()).sum()
}

#[cfg(test)]
mod tests;
