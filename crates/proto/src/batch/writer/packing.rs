//! Compressing what a batch holds.

use super::super::segments::Segments;
use super::super::{Compression, Compressor};
use super::{BatchWriter, SealedRecords};
use crate::error::Result;
use bytes::Bytes;

impl BatchWriter {
    /// How large its chunks are, the empty ones too.
    pub fn chunk_sizes(&self) -> impl Iterator<Item = usize> {
        let all = self.room.chunks.iter().chain([&self.open]);
        all.map(Vec::capacity)
    }

    /// Takes the chunks that it did not need.
    pub fn unused_chunks(&mut self) -> impl Iterator<Item = Vec<u8>> {
        let spare_bytes = &mut self.spare_bytes;
        let unused = self.room.chunks.drain(self.full..);
        unused.inspect(|chunk| *spare_bytes -= chunk.capacity())
    }

    /// Takes all chunks, and with them the records.
    pub fn chunks(&mut self) -> impl Iterator<Item = Vec<u8>> {
        let Self { open, room, .. } = std::mem::take(self);
        let all = room.chunks.into_iter().chain([open]);
        all.filter(|chunk| chunk.capacity() > 0)
    }

    /// The chunks that hold records; more are not added to them.
    fn filled(&mut self) -> &[Vec<u8>] {
        if self.full == 0 {
            return std::slice::from_ref(&self.open);
        }
        self.room
            .chunks
            .insert(self.full, std::mem::take(&mut self.open));
        self.full += 1;
        self.room.chunks.get(..self.full).unwrap_or_default()
    }

    /// Whether it was begun [to be compressed](Self::to_be_compressed).
    pub fn is_to_be_compressed(&self) -> bool {
        self.crc.is_none()
    }

    /// Ends a batch that was begun [to be compressed](Self::to_be_compressed), and compresses it: as
    /// [`seal`](Self::seal) and [`SealedRecords::compress`], but chunks are shared only if the section
    /// stays as it is. Else `wrap` gets them back empty.
    ///
    /// The writer is empty then; should the codec panic, it still has its chunks.
    ///
    /// # Errors
    /// When the codec fails; the batch is then sealed as it is.
    pub fn seal_compressed(
        &mut self,
        compressor: &mut Compressor,
        (codec, level): (Compression, Option<i32>),
        keep: impl FnOnce(&[u8]) -> Segments,
        wrap: impl FnMut(Vec<u8>) -> Bytes,
    ) -> (SealedRecords, Result<()>) {
        if !self.room.kept.is_empty() {
            // It was not begun so, and holds more than its chunks.
            let mut sealed = std::mem::take(self).seal(wrap);
            let done = sealed.compress(compressor, codec, level, keep);
            return (sealed, done);
        }
        let packed = compressor.compress(codec, level, self.filled());
        match packed {
            Ok(packed) if codec != Compression::None && packed.len() < self.bytes => {
                let (crc, bytes) = (crc32c::crc32c(packed), packed.len());
                // Before the chunks are free: else others take their place, and all hold too much.
                let kept = keep(packed);
                let chunks = self.room.chunks.iter_mut();
                chunks.chain([&mut self.open]).for_each(Vec::clear);
                let mut sealed = std::mem::take(self).seal(wrap);
                sealed.segments = kept;
                (sealed.crc, sealed.bytes) = (Some(crc), bytes);
                sealed.compression = codec;
                (sealed, Ok(()))
            }
            packed => {
                let done = packed.map(|_| ());
                let mut sealed = std::mem::take(self).seal(wrap);
                // Here, and not by whoever sends the batch, at each attempt.
                sealed.crc = Some(sealed.section_crc());
                (sealed, done)
            }
        }
    }
}

impl SealedRecords {
    /// Compresses the section. A section that would not shrink stays as it is, which Kafka allows:
    /// each batch says for itself how it is compressed. `keep` copies the result into shared
    /// bytes; `compressor` keeps its working memory from batch to batch.
    ///
    /// # Errors
    /// When the codec fails; the batch is lost to the caller only in its compressed form.
    pub fn compress(
        &mut self,
        compressor: &mut Compressor,
        codec: Compression,
        level: Option<i32>,
        keep: impl FnOnce(&[u8]) -> Segments,
    ) -> Result<()> {
        if codec == Compression::None || self.compression != Compression::None {
            return Ok(());
        }
        let packed = compressor.compress(codec, level, &self.segments)?;
        if packed.len() < self.bytes {
            self.crc = Some(crc32c::crc32c(packed));
            self.bytes = packed.len();
            self.compression = codec;
            self.segments = keep(packed);
        }
        Ok(())
    }
}
