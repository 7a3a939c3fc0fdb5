//! Compressing what a batch holds.

use super::super::segments::Segments;
use super::super::{Compression, Compressor};
use super::{BatchWriter, SealedRecords};
use crate::error::Result;
use bytes::Bytes;

/// A batch's section as a codec made it. It was copied before the chunks that it stands for are free:
/// else others took their place, and all held too much.
#[derive(Debug)]
pub struct Packed {
    section: Segments,
    bytes: usize,
    crc: u32,
    codec: Compression,
}

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

    /// Has a codec compress the records; `keep` copies what it made, which is for
    /// [`seal_packed`](Self::seal_packed). `None` if the section stays as it is: it would not shrink, or
    /// the batch was not begun [to be compressed](Self::to_be_compressed) and keeps values.
    ///
    /// Whatever becomes of it, and should the codec panic, the batch still has its records.
    ///
    /// # Errors
    /// When the codec fails.
    pub fn pack(
        &mut self,
        compressor: &mut Compressor,
        (codec, level): (Compression, Option<i32>),
        keep: impl FnOnce(&[u8]) -> Segments,
    ) -> Result<Option<Packed>> {
        if codec == Compression::None || !self.room.kept.is_empty() {
            return Ok(None);
        }
        let packed = compressor.compress(codec, level, self.filled())?;
        let shrinks = packed.len() < self.bytes;
        Ok(shrinks.then(|| Packed {
            bytes: packed.len(),
            crc: crc32c::crc32c(packed),
            section: keep(packed),
            codec,
        }))
    }

    /// Ends a batch: as [`seal`](Self::seal), but of one that was [packed](Self::pack) no chunks are
    /// shared, and `wrap` gets them back empty. The writer is empty then.
    pub fn seal_packed(
        &mut self,
        packed: Option<Packed>,
        wrap: impl FnMut(Vec<u8>) -> Bytes,
    ) -> SealedRecords {
        let Some(packed) = packed else {
            let mut sealed = std::mem::take(self).seal(wrap);
            // Here, and not by whoever sends the batch, at each attempt.
            sealed.crc = Some(sealed.section_crc());
            return sealed;
        };
        let chunks = self.room.chunks.iter_mut();
        chunks.chain([&mut self.open]).for_each(Vec::clear);
        let mut sealed = std::mem::take(self).seal(wrap);
        (sealed.crc, sealed.bytes) = (Some(packed.crc), packed.bytes);
        (sealed.segments, sealed.compression) = (packed.section, packed.codec);
        sealed
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
            let (crc, bytes) = (crc32c::crc32c(packed), packed.len());
            // First of all: should it panic, the section is whole still.
            self.segments = keep(packed);
            (self.crc, self.bytes) = (Some(crc), bytes);
            self.compression = codec;
        }
        Ok(())
    }
}
