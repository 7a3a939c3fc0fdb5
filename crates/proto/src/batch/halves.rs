//! Cutting a batch in two, because a broker found it too large.

use super::header::corrupt;
use super::{BatchRef, BatchWriter, HEADER_BYTES, RecordRef, Records, SealedRecords, Segments};
use crate::error::Result;
use crate::record::{Header, Record};
use bytes::Bytes;
use std::borrow::Cow;

impl SealedRecords {
    /// Replaces the pieces of a section that was made outside the pool, so that they are counted.
    pub fn adopt(&mut self, keep: impl FnOnce(&[Bytes]) -> Segments) {
        let kept = keep(self.segments());
        *self.segments_mut() = kept;
    }

    /// The whole batch in one piece, without a stamp.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.size_bytes());
        whole.extend_from_slice(&self.header(None));
        for segment in self.segments() {
            whole.extend_from_slice(segment);
        }
        whole
    }

    /// The first half of the records and the second, uncompressed, each with at least one. A batch
    /// of fewer than two records gives an empty half.
    ///
    /// # Errors
    /// As [`cut_at`](Self::cut_at).
    pub fn halves(&self) -> Result<(Self, Self)> {
        self.cut_at(self.count() / 2)
    }

    /// So many first records, and those behind them, uncompressed.
    ///
    /// # Errors
    /// When the section does not read as it was written, which a compression codec may be guilty of.
    pub fn cut_at(&self, first_count: u32) -> Result<(Self, Self)> {
        let whole = self.to_bytes();
        let batch = BatchRef::parse(&whole)?;
        let section = batch.decompressed(self.raw_size_bytes())?;
        let mut first = BatchWriter::new();
        let mut second = BatchWriter::new();
        for (place, record) in (0u32..).zip(Records::new(&batch.header, &section)) {
            let half = if place < first_count {
                &mut first
            } else {
                &mut second
            };
            copy(half, &record?)?;
        }
        Ok((first.seal(Bytes::from), second.seal(Bytes::from)))
    }
}

fn copy(half: &mut BatchWriter, record: &RecordRef<'_>) -> Result<()> {
    let headers: Vec<Header<'_>> = record
        .headers
        .clone()
        .map(|header| {
            let key = header
                .key_str()
                .ok_or_else(|| corrupt("a header's key".to_owned()))?;
            Ok(Header {
                key,
                value: header.value,
            })
        })
        .collect::<Result<_>>()?;
    let record = Record {
        key: record.key,
        value: record.value,
        headers: Cow::Owned(headers),
        timestamp: Some(record.timestamp),
        ..Record::to("")
    };
    let timestamp = record.timestamp.unwrap_or_default();
    if half.append(&record, timestamp).is_ok() {
        return Ok(());
    }
    // Chunks as large as what is there already, so that their number stays small.
    let room = BatchWriter::upper_bound(&record).max(half.size_bytes() - HEADER_BYTES);
    half.add_chunk(Vec::with_capacity(room.max(1 << 10)));
    half.append(&record, timestamp)
        .map(drop)
        .map_err(|_| corrupt("a record that is larger than it can be".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::kept;
    use super::super::{Compression, Compressor};
    use super::*;

    fn sealed(count: usize) -> SealedRecords {
        let mut writer = BatchWriter::new();
        writer.add_chunk(Vec::with_capacity(1 << 20));
        for number in 0..count {
            let value = vec![b'v'; number * 10];
            let record = Record::to("t")
                .key("same")
                .value(&value)
                .header("twice", "a")
                .header("twice", "b");
            writer.append(&record, 1_000 + number as i64).unwrap();
        }
        writer.seal(Bytes::from)
    }

    fn read(records: &SealedRecords) -> Vec<(i64, i64, Vec<u8>, usize)> {
        let mut bytes = records.header(None).to_vec();
        records
            .segments()
            .iter()
            .for_each(|s| bytes.extend(s.iter()));
        let batch = BatchRef::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        let section = batch.decompressed(1 << 20).unwrap();
        Records::new(&batch.header, &section)
            .map(|record| {
                let record = record.unwrap();
                let value = record.value.unwrap().to_vec();
                (record.offset, record.timestamp, value, record.headers.len())
            })
            .collect()
    }

    #[test]
    fn two_halves_hold_every_record_once_with_its_time_and_headers() {
        let mut whole = sealed(7);
        let before = read(&whole);
        for codec in [Compression::None, Compression::Zstd] {
            whole
                .compress(&mut Compressor::new(), codec, None, kept)
                .unwrap();
            let (first, second) = whole.halves().unwrap();
            assert_eq!((first.count(), second.count()), (3, 4));
            assert_eq!(first.base_timestamp(), 1_000);
            assert_eq!(second.base_timestamp(), 1_003);
            let again: Vec<_> = read(&first)
                .into_iter()
                .chain(read(&second).into_iter().map(|mut record| {
                    record.0 += 3;
                    record
                }))
                .collect();
            assert_eq!(again, before);
        }
    }
}
