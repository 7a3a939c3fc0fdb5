//! Values that a batch keeps instead of copies of them.

use super::*;
use crate::batch::Compressor;
use crate::batch::testing::kept;
use crate::record::KEPT_VALUE_BYTES_MIN;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A value's length, whether it is shared, and how many bytes the key and a header's value have.
type Shape = (usize, bool, usize, usize);

fn value(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// The batch of these records, whose shared values may be kept up to `keepable` bytes in all.
fn batch(shapes: &[Shape], chunk_bytes: usize, keepable: usize) -> SealedRecords {
    let mut writer = BatchWriter::new();
    writer.allow_kept(keepable);
    for &(length, shared, key, header) in shapes {
        let (value, rest) = (value(length), value(key.max(header)));
        let headers = [Header {
            key: "h",
            value: Some(&rest[..header]),
        }];
        let mut record = Record::to("t").value(&value);
        if shared {
            record = record.value_bytes(&value);
        }
        if key > 0 {
            record = record.key(&rest[..key]);
        }
        if header > 0 {
            record = record.headers(&headers);
        }
        while writer.append(&record, 7).is_err() {
            writer.add_chunk(Vec::with_capacity(chunk_bytes));
        }
    }
    writer.seal(Bytes::from)
}

fn shape() -> impl Strategy<Value = Shape> {
    let around = KEPT_VALUE_BYTES_MIN - 2..KEPT_VALUE_BYTES_MIN + 40;
    let length = prop_oneof![Just(0), 1..40usize, around];
    let side = prop_oneof![Just(0), 1..50usize];
    (length, any::<bool>(), side.clone(), side)
}

proptest! {
    #[test]
    fn the_batch_is_the_same_whether_values_are_kept_or_copied(
        shapes in prop::collection::vec(shape(), 1..12),
        chunk_bytes in 16..300usize,
        keepable in 0..12 * KEPT_VALUE_BYTES_MIN,
    ) {
        let copied = batch(&shapes, chunk_bytes, 0).to_bytes();
        let kept = batch(&shapes, chunk_bytes, keepable).to_bytes();
        prop_assert!(kept == copied);
        let whole = crate::batch::BatchRef::parse(&copied);
        prop_assert!(whole.is_ok_and(|batch| batch.header.record_count as usize == shapes.len()));
    }
}

#[test]
fn a_large_shared_value_is_sent_from_where_it_is() {
    let large = value(KEPT_VALUE_BYTES_MIN);
    let small = value(KEPT_VALUE_BYTES_MIN - 1);
    let mut writer = BatchWriter::new();
    writer.add_chunk(Vec::with_capacity(1 << 20));
    writer.allow_kept(1 << 20);
    for value in [&large, &small] {
        writer
            .append(&Record::to("t").value_bytes(value), 0)
            .unwrap();
    }
    assert_eq!(writer.keepable_bytes(), (1 << 20) - large.len());
    assert_eq!(writer.size_bytes() - writer.copied_bytes(), large.len());
    assert_eq!(writer.capacity_bytes(), 2 << 20);
    let mut told = Vec::new();
    let (sealed, _) = writer.seal_kept(|chunk, kept| {
        told.push(kept);
        Bytes::from(chunk)
    });
    assert_eq!(told, [1 << 20], "what was allowed comes back as a whole");
    let at = |bytes: &Bytes| bytes.as_ptr();
    assert!(
        sealed
            .segments()
            .iter()
            .any(|piece| at(piece) == at(&large))
    );
    assert!(
        sealed
            .segments()
            .iter()
            .all(|piece| at(piece) != at(&small))
    );
}

#[test]
fn kept_values_are_told_with_the_chunk_of_their_records() {
    let large = value(KEPT_VALUE_BYTES_MIN);
    let key = value(90);
    let mut writer = BatchWriter::new();
    writer.allow_kept(3 * large.len());
    for _ in 0..3 {
        let record = Record::to("t").key(&key).value_bytes(&large);
        while writer.append(&record, 0).is_err() {
            writer.add_chunk(Vec::with_capacity(250));
        }
    }
    let mut told = Vec::new();
    drop(writer.seal_kept(|chunk, kept| {
        told.push((chunk.len(), kept / large.len()));
        Bytes::from(chunk)
    }));
    assert_eq!(told, [(250, 2), (50, 1)]);
}

#[test]
fn a_value_that_was_replaced_is_not_kept() {
    let shared = value(KEPT_VALUE_BYTES_MIN);
    let other = vec![b'o'; KEPT_VALUE_BYTES_MIN];
    let keeps = |record: &Record<'_>| record.value_to_keep().is_some();
    let mut record = Record::to("t").value_bytes(&shared);
    assert!(keeps(&record) && keeps(&record.borrowed()));
    record.value = Some(&other);
    assert!(!keeps(&record));
    record.value = None;
    assert!(!keeps(&record));
    assert!(!keeps(
        &Record::to("t").value_bytes(&shared).value(&*shared)
    ));
}

#[test]
fn a_batch_that_will_be_compressed_keeps_nothing() {
    let large = value(KEPT_VALUE_BYTES_MIN);
    let mut writer = BatchWriter::to_be_compressed();
    writer.add_chunk(Vec::with_capacity(1 << 20));
    writer.allow_kept(1 << 20);
    writer
        .append(&Record::to("t").value_bytes(&large), 0)
        .unwrap();
    assert_eq!(writer.copied_bytes(), writer.size_bytes());
}

#[test]
fn a_batch_compressed_in_its_chunks_is_that_which_was_sealed_before() {
    let mut state = 1u64;
    let random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as u8
    };
    let noise: Vec<u8> = std::iter::repeat_with(random).take(15_000).collect();
    let text = b"to be or not to be ".repeat(1000);
    for (values, chunks) in [(&text, 1), (&text, 4), (&noise, 1), (&noise, 4)] {
        let filled = |mut writer: BatchWriter| {
            for _ in 0..chunks {
                writer.add_chunk(Vec::with_capacity(24_000 / chunks));
            }
            for (value, at) in values.chunks(5000).take(3).zip(0..) {
                let record = Record::to("orders").value(value);
                writer.append(&record, at).unwrap();
            }
            writer
        };
        let mut compressor = Compressor::new();
        let mut before = filled(BatchWriter::new()).seal(Bytes::from);
        let codec = Compression::Lz4;
        before.compress(&mut compressor, codec, None, kept).unwrap();
        let mut shared = 0;
        let wrap = |chunk: Vec<u8>| {
            shared += chunk.len();
            Bytes::from(chunk)
        };
        let mut writer = filled(BatchWriter::to_be_compressed());
        let how = (codec, None);
        let packed = writer.pack(&mut compressor, how, kept).unwrap();
        let sealed = writer.seal_packed(packed, wrap);
        let has_checksum = sealed.crc.is_some();
        assert!(has_checksum, "whoever sends it would make one each time");
        assert_eq!(sealed.to_bytes(), before.to_bytes());
        assert_eq!(sealed.raw_size_bytes(), before.raw_size_bytes());
        let packed = sealed.compression() != Compression::None;
        assert_eq!(packed, values == &text);
        assert_eq!(shared > 0, !packed, "{shared} bytes are shared");
        assert_eq!(writer.chunks().count(), 0);
    }
}

#[test]
fn a_codec_that_panics_leaves_the_batch_its_chunks_and_records() {
    let mut writer = BatchWriter::to_be_compressed();
    for _ in 0..3 {
        writer.add_chunk(Vec::with_capacity(1000));
    }
    let text = [b'x'; 1500];
    writer.append(&Record::to("t").value(&text), 0).unwrap();
    let chunks: usize = writer.chunk_sizes().sum();
    let dies = |_: &[u8]| resume_unwind(Box::new("a codec"));
    let mut compressor = Compressor::new();
    let how = (Compression::Lz4, None);
    let pack = || writer.pack(&mut compressor, how, dies);
    catch_unwind(AssertUnwindSafe(pack)).unwrap_err();
    assert_eq!(writer.chunk_sizes().sum::<usize>(), chunks);
    let mut sealed = writer.seal_packed(None, Bytes::from);
    assert_eq!(
        (sealed.count(), sealed.compression()),
        (1, Compression::None)
    );
    assert!(sealed.segments().iter().map(Bytes::len).sum::<usize>() > text.len());
    let before = sealed.to_bytes();
    let compress = || sealed.compress(&mut compressor, Compression::Lz4, None, dies);
    catch_unwind(AssertUnwindSafe(compress)).unwrap_err();
    assert_eq!(sealed.to_bytes(), before, "nor is a sealed one changed");
}
