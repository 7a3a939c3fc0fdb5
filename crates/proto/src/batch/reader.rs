//! Walking the batches of a record set, borrowed.

use super::compression::{Compression, Decompressor};
use super::header::{
    BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES, check_magic, corrupt,
};
use crate::error::Result;
use std::borrow::Cow;

/// One whole batch in a record set: its header read, its bytes borrowed.
#[derive(Debug, Clone)]
pub struct BatchRef<'a> {
    /// The header, checked as [`BatchHeader::parse`] does.
    pub header: BatchHeader,
    /// The whole batch, header included: `header.size_bytes()` bytes.
    pub bytes: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// Reads the batch at the start of `bytes`, which must be whole; bytes behind it are left out.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`], and `Corrupt` when the batch's length reaches past the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size_bytes();
        let Some(bytes) = bytes.get(..size) else {
            return Err(corrupt(format!(
                "the record batch at offset {} says it has {size} bytes and {} are there",
                header.base_offset,
                bytes.len()
            )));
        };
        Ok(Self { header, bytes })
    }

    /// Compares the batch's checksum with its bytes. Nothing else does, so call it before you
    /// believe the batch.
    ///
    /// # Errors
    /// `Corrupt`, naming the batch's offset, when they differ.
    pub fn verify_crc(&self) -> Result<()> {
        let covered = self.bytes.get(CRC_START..).unwrap_or_default();
        let actual = crc32c::crc32c(covered);
        if actual == self.header.crc {
            return Ok(());
        }
        Err(corrupt(format!(
            "the record batch at offset {} fails its checksum: its bytes give {actual:08x}, its \
             header says {:08x}",
            self.header.base_offset, self.header.crc
        )))
    }

    /// The bytes behind the header, compressed or not.
    pub fn records_section(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// The records section as [`Records`](super::Records) reads it: borrowed when the batch is not
    /// compressed, else inflated to at most `cap_bytes`.
    ///
    /// # Errors
    /// `Corrupt`, naming the batch's offset, when the section does not inflate, or not within
    /// `cap_bytes`.
    pub fn decompressed(&self, cap_bytes: usize) -> Result<Cow<'a, [u8]>> {
        self.decompressed_with(&mut Decompressor::new(), cap_bytes)
    }

    /// [`BatchRef::decompressed`] with the working memory of `decompressor`.
    ///
    /// # Errors
    /// As [`BatchRef::decompressed`].
    pub fn decompressed_with(
        &self,
        decompressor: &mut Decompressor,
        cap_bytes: usize,
    ) -> Result<Cow<'a, [u8]>> {
        let section = self.records_section();
        let codec = self.header.compression()?;
        // Compaction can leave a batch that claims a codec and holds nothing at all.
        if codec == Compression::None || section.is_empty() {
            return Ok(Cow::Borrowed(section));
        }
        let inflated = decompressor
            .decompress(codec, section, cap_bytes)
            .map_err(|error| {
                corrupt(format!(
                    "the record batch at offset {} cannot be read: {error}",
                    self.header.base_offset
                ))
            })?;
        Ok(Cow::Owned(inflated))
    }
}

/// The unfinished batch at the end of a record set: a broker cuts a Fetch answer at its size limit,
/// wherever that falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruncatedTail {
    /// The bytes of it that are there.
    pub present_bytes: usize,
    /// The bytes it says it has, when enough is there to tell.
    pub batch_bytes: Option<usize>,
}

/// Walks the batches of a record set without allocating.
///
/// It ends at the first error, which is its last item. A batch that the set's end cuts off ends it
/// silently; [`Batches::truncated_tail`] then tells. When such a tail is all there is, the reader
/// cannot get past it by reading the same bytes again: the batch is larger than what was asked for,
/// or its length lies.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    truncated_tail: Option<TruncatedTail>,
}

impl<'a> Batches<'a> {
    /// Begins at the start of a record set.
    pub fn new(record_set: &'a [u8]) -> Self {
        Self {
            rest: record_set,
            truncated_tail: None,
        }
    }

    /// The unfinished batch at the end, once the walk has come to it.
    pub fn truncated_tail(&self) -> Option<TruncatedTail> {
        self.truncated_tail
    }

    /// The size in bytes of the batch at the front, as far as it can be told; an error for lengths
    /// that no batch has.
    fn front_size(&self) -> Result<Option<usize>> {
        check_magic(self.rest)?;
        if self.rest.len() >= HEADER_BYTES {
            return BatchHeader::parse(self.rest).map(|header| Some(header.size_bytes()));
        }
        let Some((prefix, _)) = self.rest.split_first_chunk::<LENGTH_PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [.., a, b, c, d] = *prefix;
        let length = i32::from_be_bytes([a, b, c, d]);
        // Too short for a header means that the whole of it would be here: not cut off, but wrong.
        match usize::try_from(length).map(|length| length + LENGTH_PREFIX_BYTES) {
            Ok(size) if size > self.rest.len() => Ok(Some(size)),
            _ => Err(corrupt(format!(
                "a record batch has length {length}, less than its header"
            ))),
        }
    }

    fn take_front(&mut self) -> Result<Option<BatchRef<'a>>> {
        let size = self.front_size()?;
        if size.is_none_or(|size| size > self.rest.len()) {
            self.truncated_tail = Some(TruncatedTail {
                present_bytes: self.rest.len(),
                batch_bytes: size,
            });
            return Ok(None);
        }
        BatchRef::parse(self.rest).map(Some)
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let front = self.take_front();
        self.rest = match &front {
            Ok(Some(batch)) => self.rest.get(batch.bytes.len()..).unwrap_or_default(),
            Ok(None) | Err(_) => &[],
        };
        front.transpose()
    }
}

impl std::iter::FusedIterator for Batches<'_> {}
