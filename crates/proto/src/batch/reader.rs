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

#[cfg(test)]
mod tests {
    use super::super::testing::{GOLDEN, OwnedRecord, batch, batch_of_section};
    use super::*;
    use crate::error::ErrorKind;

    fn at_offset(base_offset: i64, records: &[OwnedRecord]) -> Vec<u8> {
        let header = BatchHeader {
            base_offset,
            ..BatchHeader::default()
        };
        batch(header, Compression::None, records)
    }

    fn walk(record_set: &[u8]) -> (Vec<i64>, Option<String>, Option<TruncatedTail>) {
        let mut batches = Batches::new(record_set);
        let mut offsets = Vec::new();
        let mut complaint = None;
        for item in batches.by_ref() {
            assert_eq!(complaint, None, "nothing follows an error");
            match item {
                Ok(batch) => offsets.push(batch.header.base_offset),
                Err(error) => complaint = Some(error.to_string()),
            }
        }
        assert!(batches.next().is_none());
        (offsets, complaint, batches.truncated_tail())
    }

    #[test]
    fn batches_follow_one_another_to_the_end() {
        let mut set = at_offset(5, &[OwnedRecord::at(0, "a")]);
        set.extend(at_offset(
            6,
            &[OwnedRecord::at(0, "b"), OwnedRecord::at(1, "c")],
        ));
        set.extend_from_slice(&at_offset(8, &[]));
        assert_eq!(walk(&set), (vec![5, 6, 8], None, None));
        assert_eq!(walk(&[]), (vec![], None, None));
    }

    #[test]
    fn a_tail_cut_anywhere_ends_the_walk_silently_and_is_told() {
        let whole = at_offset(5, &[OwnedRecord::at(0, "a")]);
        let cut = at_offset(6, &[OwnedRecord::at(0, "quite a long value")]);
        for present_bytes in 1..cut.len() {
            let mut set = whole.clone();
            set.extend_from_slice(&cut[..present_bytes]);
            let tail = TruncatedTail {
                present_bytes,
                batch_bytes: (present_bytes >= LENGTH_PREFIX_BYTES).then_some(cut.len()),
            };
            assert_eq!(walk(&set), (vec![5], None, Some(tail)));
        }
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_walk_with_its_name() {
        let whole = at_offset(5, &[OwnedRecord::at(0, "a")]);
        for length in [-1, i32::MIN, 0, 3, 48] {
            let mut set = whole.clone();
            let mut bad = at_offset(6, &[OwnedRecord::at(0, "b")]);
            bad[8..12].copy_from_slice(&length.to_be_bytes());
            set.extend_from_slice(&bad);
            set.extend_from_slice(&whole);
            let (offsets, complaint, tail) = walk(&set);
            assert_eq!(offsets, [5]);
            assert!(complaint.unwrap().contains(&format!("length {length}")));
            assert_eq!(tail, None);
        }
        // Also with less than a header there, as long as it shows.
        let (_, complaint, _) =
            walk(b"\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x03\xfe\xb0\x1d");
        assert!(complaint.unwrap().contains("length 3"));
    }

    #[test]
    fn a_length_that_reaches_too_far_is_a_tail_to_the_walk_and_an_error_for_one_batch() {
        let mut set = at_offset(6, &[OwnedRecord::at(0, "b")]);
        let size = set.len();
        set[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        let batch_bytes = Some(i32::MAX as usize + LENGTH_PREFIX_BYTES);
        let tail = TruncatedTail {
            present_bytes: size,
            batch_bytes,
        };
        assert_eq!(walk(&set), (vec![], None, Some(tail)));
        let error = BatchRef::parse(&set).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Corrupt);
        assert_eq!(
            error.to_string(),
            format!(
                "the record batch at offset 6 says it has 2147483659 bytes and {size} are there"
            )
        );
    }

    #[test]
    fn an_old_message_set_ends_the_walk_with_its_magic() {
        let mut set = at_offset(5, &[OwnedRecord::at(0, "a")]);
        // "123" as a broker of version 0.10 stored it.
        set.extend_from_slice(&[
            0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0x11, 0xfe, 0xb0, 0x1d, 0xbf,
        ]);
        set.extend_from_slice(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 3]);
        set.extend_from_slice(b"123");
        let (offsets, complaint, tail) = walk(&set);
        assert_eq!(offsets, [5]);
        assert!(complaint.unwrap().contains("magic 0"));
        assert_eq!(tail, None);
    }

    #[test]
    fn the_checksum_covers_every_byte_behind_it() {
        let golden = BatchRef::parse(GOLDEN).unwrap();
        golden.verify_crc().unwrap();
        for at in 17..GOLDEN.len() {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= 0x10;
            let batch = BatchRef::parse(&bytes).unwrap();
            let error = batch.verify_crc().unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Corrupt, "byte {at}");
            assert!(error.to_string().contains("offset 0 fails its checksum"));
        }
        // A broker sets offset and epoch without touching the checksum.
        let mut bytes = GOLDEN.to_vec();
        bytes[..8].copy_from_slice(&77i64.to_be_bytes());
        bytes[12..16].copy_from_slice(&9i32.to_be_bytes());
        BatchRef::parse(&bytes).unwrap().verify_crc().unwrap();
    }

    #[test]
    fn only_a_compressed_section_is_copied() {
        let golden = BatchRef::parse(GOLDEN).unwrap();
        assert!(matches!(golden.decompressed(0).unwrap(), Cow::Borrowed(_)));
        let records = [OwnedRecord::at(0, "a"), OwnedRecord::at(1, "b")];
        let plain = at_offset(0, &records);
        let packed = batch(BatchHeader::default(), Compression::Lz4, &records);
        let packed = BatchRef::parse(&packed).unwrap();
        packed.verify_crc().unwrap();
        let section = packed.decompressed(1000).unwrap();
        assert!(matches!(section, Cow::Owned(_)));
        assert_eq!(*section, plain[HEADER_BYTES..]);
    }

    #[test]
    fn what_does_not_inflate_names_its_batch() {
        let records = [OwnedRecord::at(0, &"a".repeat(1000))];
        let header = BatchHeader {
            base_offset: 42,
            ..BatchHeader::default()
        };
        let packed = batch(header.clone(), Compression::Gzip, &records);
        let error = BatchRef::parse(&packed)
            .unwrap()
            .decompressed(999)
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Corrupt);
        assert_eq!(
            error.to_string(),
            "the record batch at offset 42 cannot be read: gzip records inflate to more than the \
             limit of 999 bytes"
        );
        let unknown = BatchHeader {
            attributes: 6,
            ..header
        };
        let unknown = batch_of_section(unknown, b"?");
        let error = BatchRef::parse(&unknown)
            .unwrap()
            .decompressed(99)
            .unwrap_err();
        assert!(error.to_string().contains("compression type 6"));
    }
}
