//! The layers together: what Java wrote is read, what is written is read back, and an encoder and
//! decoder by another hand agree.

use super::testing::{GOLDEN, OwnedHeader, OwnedRecord, batch_of_section, kept, section};
use super::*;
use crate::record::{Header, Record};
use bytes::Bytes;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as oracle;
use proptest::prelude::*;

const CAP: usize = 1 << 20;

/// Every record of a set, offsets and timestamps as they are.
fn read_all(record_set: &[u8]) -> crate::Result<Vec<OwnedRecord>> {
    let mut all = Vec::new();
    for batch in Batches::new(record_set) {
        let batch = batch?;
        batch.verify_crc()?;
        let section = batch.decompressed(CAP)?;
        for record in Records::new(&batch.header, &section) {
            let record = record?;
            all.push(OwnedRecord {
                offset_delta: record.offset.try_into().unwrap(),
                timestamp_delta: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            });
        }
    }
    Ok(all)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The same three records, by the Java client 3.9.2 with each codec: base offset 40, producer 4711,
/// epoch 3, sequence 17, leader epoch 5.
const BY_JAVA: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000028000000680000000502a163a1590000000000020000018bcfe568000000018bcfe56807\
         00000000000012670003000000110000000350000000046b312e68656c6c6f2068656c6c6f2068656c6c6f20\
         68656c6c6f060268023102680100000c000e020100000c000104000100",
    ),
    (
        Compression::Gzip,
        "0000000000000028000000690000000502a98a41a30001000000020000018bcfe568000000018bcfe56807\
         0000000000001267000300000011000000031f8b08000000000000ff0b60606060c936d4cb48cdc9c957c020\
         d99832980c99321819187818f898c014230b032303003113336037000000",
    ),
    (
        Compression::Snappy,
        "0000000000000028000000710000000502891483ec0002000000020000018bcfe568000000018bcfe56807\
         00000000000012670003000000110000000382534e415050590000000001000000010000002c373450000000\
         046b312e68656c6c6f204206005c060268023102680100000c000e020100000c000104000100",
    ),
    (
        Compression::Lz4,
        "00000000000000280000006b000000050263dd198b0003000000020000018bcfe568000000018bcfe56807\
         00000000000012670003000000110000000304224d186040822b000000ed50000000046b312e68656c6c6f20\
         0600f009060268023102680100000c000e020100000c00010400010000000000",
    ),
    (
        Compression::Zstd,
        "0000000000000028000000680000000502e6705a980004000000020000018bcfe568000000018bcfe56807\
         00000000000012670003000000110000000328b52ffd00585c0100140250000000046b312e68656c6c6f2006\
         0268023102680100000c000e02010400010002002a8292b92801010000",
    ),
];

#[test]
fn what_java_wrote_is_read_with_every_codec() {
    let expected = [
        OwnedRecord {
            timestamp_delta: 1_700_000_000_000,
            key: Some(b"k1".to_vec()),
            headers: vec![
                (b"h".to_vec(), Some(b"1".to_vec())),
                (b"h".to_vec(), None),
                (b"".to_vec(), Some(vec![])),
            ],
            ..OwnedRecord::at(40, "hello hello hello hello")
        },
        OwnedRecord {
            timestamp_delta: 1_700_000_000_007,
            ..OwnedRecord::at(41, "")
        },
        OwnedRecord {
            offset_delta: 42,
            timestamp_delta: 1_699_999_999_999,
            key: Some(vec![]),
            ..OwnedRecord::default()
        },
    ];
    for (codec, hex) in BY_JAVA {
        let bytes = unhex(hex);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(header.compression().unwrap(), codec);
        assert_eq!((header.producer_id, header.producer_epoch), (4711, 3));
        assert_eq!(
            (header.base_sequence, header.partition_leader_epoch),
            (17, 5)
        );
        assert_eq!(read_all(&bytes).unwrap(), expected, "{codec}");
    }
}

#[test]
fn batches_of_different_codecs_follow_one_another() {
    let set: Vec<u8> = BY_JAVA.iter().flat_map(|(_, hex)| unhex(hex)).collect();
    let offsets: Vec<_> = read_all(&set)
        .unwrap()
        .iter()
        .map(|r| r.offset_delta)
        .collect();
    assert_eq!(offsets, [40, 41, 42].repeat(5));
}

fn header_strategy() -> impl Strategy<Value = OwnedHeader> {
    // Few different keys, so that some repeat.
    ("[a-c]{0,2}", any::<Option<Vec<u8>>>()).prop_map(|(key, value)| (key.into_bytes(), value))
}

/// Records with ascending offsets and any timestamps that a batch can hold.
fn records_strategy() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let record = (
        any::<Option<Vec<u8>>>(),
        any::<Option<Vec<u8>>>(),
        prop::collection::vec(header_strategy(), 0..4),
        0i64..1 << 42,
    );
    prop::collection::vec(record, 1..40).prop_map(|records| {
        let owned = |(offset_delta, (key, value, headers, timestamp_delta))| OwnedRecord {
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        };
        (0..).zip(records).map(owned).collect()
    })
}

fn codec_strategy() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

/// The batch that the producer's writer makes of these records, in chunks of this size.
fn written(records: &[OwnedRecord], codec: Compression, chunk_bytes: usize) -> Vec<u8> {
    let mut writer = BatchWriter::new();
    for owned in records {
        let headers: Vec<_> = owned
            .headers
            .iter()
            .map(|(key, value)| Header {
                key: str::from_utf8(key).unwrap(),
                value: value.as_deref(),
            })
            .collect();
        let mut record = Record::to("topic").headers(&headers);
        record.key = owned.key.as_deref();
        record.value = owned.value.as_deref();
        while let Err(NeedsRoom(_)) = writer.append(&record, owned.timestamp_delta) {
            writer.add_chunk(Vec::with_capacity(chunk_bytes));
        }
    }
    let mut sealed = writer.seal(Bytes::from);
    sealed
        .compress(&mut Compressor::new(), codec, None, kept)
        .unwrap();
    let mut bytes = sealed.header(None).to_vec();
    sealed
        .segments()
        .iter()
        .for_each(|segment| bytes.extend_from_slice(segment));
    bytes
}

fn to_oracle(record: &OwnedRecord) -> oracle::Record {
    let headers: IndexMap<_, _> = record
        .headers
        .iter()
        .map(|(key, value)| {
            let key = StrBytes::from_string(String::from_utf8(key.clone()).unwrap());
            (key, value.clone().map(Bytes::from))
        })
        .collect();
    oracle::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: oracle::TimestampType::Creation,
        offset: record.offset_delta.into(),
        sequence: record.offset_delta,
        timestamp: record.timestamp_delta,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers,
    }
}

/// The oracle keeps one header a key, so none may repeat before it.
fn without_duplicate_headers(mut records: Vec<OwnedRecord>) -> Vec<OwnedRecord> {
    for record in &mut records {
        let mut seen = Vec::new();
        record.headers.retain(|(key, _)| {
            let fresh = !seen.contains(key);
            seen.push(key.clone());
            fresh
        });
    }
    records
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        records in records_strategy(),
        codec in codec_strategy(),
        chunk_bytes in 16usize..4096,
    ) {
        let bytes = written(&records, codec, chunk_bytes);
        prop_assert_eq!(read_all(&bytes).unwrap(), records);
    }

    #[test]
    fn what_another_encoder_wrote_is_read(records in records_strategy()) {
        let records = without_duplicate_headers(records);
        let theirs: Vec<_> = records.iter().map(to_oracle).collect();
        let options = oracle::RecordEncodeOptions {
            version: 2,
            compression: oracle::Compression::None,
        };
        let mut bytes = bytes::BytesMut::new();
        oracle::RecordBatchEncoder::encode(&mut bytes, &theirs, &options).unwrap();
        prop_assert_eq!(read_all(&bytes).unwrap(), records);
    }

    #[test]
    fn what_is_written_is_read_by_another_decoder(
        records in records_strategy(),
        chunk_bytes in 16usize..4096,
    ) {
        let records = without_duplicate_headers(records);
        let mut bytes = Bytes::from(written(&records, Compression::None, chunk_bytes));
        let theirs = oracle::RecordBatchDecoder::decode(&mut bytes).unwrap().records;
        let mut expected: Vec<_> = records.iter().map(to_oracle).collect();
        // It counts sequences on from the batch's, which is none here.
        for (expected, theirs) in expected.iter_mut().zip(&theirs) {
            expected.sequence = theirs.sequence;
        }
        prop_assert_eq!(theirs, expected);
    }

    #[test]
    fn damage_that_the_checksum_hides_is_an_error_or_harmless(
        records in records_strategy(),
        codec in codec_strategy(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = written(&records, codec, 1000);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        testing::seal(&mut bytes);
        // Whatever comes of it, it comes from the bytes that are there.
        for batch in Batches::new(&bytes).flatten() {
            prop_assert!(batch.bytes.len() <= bytes.len());
            let Ok(section) = batch.decompressed(CAP) else { continue };
            prop_assert!(Records::new(&batch.header, &section).count() <= section.len() / 7 + 1);
        }
    }

    #[test]
    fn any_section_is_walked_to_an_end(bytes: Vec<u8>, record_count: i32, last_offset_delta: i32) {
        let header = BatchHeader { record_count, last_offset_delta, ..BatchHeader::default() };
        let set = batch_of_section(header, &bytes);
        if let Ok(records) = read_all(&set) {
            prop_assert_eq!(records.len(), usize::try_from(record_count).unwrap());
        }
        let _ = read_all(&bytes);
    }

    #[test]
    fn a_cut_anywhere_keeps_the_batches_before_it(
        records in records_strategy(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut set = GOLDEN.to_vec();
        let second = batch_of_section(
            BatchHeader {
                record_count: records.len().try_into().unwrap(),
                last_offset_delta: records.len().try_into().unwrap(),
                ..BatchHeader::default()
            },
            &section(&records),
        );
        let cut = cut.index(second.len());
        set.extend_from_slice(&second[..cut]);
        let mut batches = Batches::new(&set);
        prop_assert_eq!(batches.next().unwrap().unwrap().bytes, &GOLDEN[..]);
        prop_assert!(batches.next().is_none());
        prop_assert_eq!(batches.truncated_tail().map(|tail| tail.present_bytes), (cut > 0).then_some(cut));
    }
}

#[test]
fn a_batch_without_a_running_checksum_is_the_same_batch() {
    let sealed = |mut writer: BatchWriter| {
        for _ in 0..100 {
            writer.add_chunk(Vec::with_capacity(64));
            let record = Record::to("t")
                .key("key")
                .value("some text, some text, some text");
            while let Err(NeedsRoom(bytes)) = writer.append(&record, 5) {
                writer.add_chunk(Vec::with_capacity(bytes));
            }
        }
        writer.seal(Bytes::from)
    };
    for codec in [Compression::None, Compression::Lz4] {
        let packed = |mut records: SealedRecords| {
            records
                .compress(&mut Compressor::new(), codec, None, kept)
                .unwrap();
            records.header(None)
        };
        let with = packed(sealed(BatchWriter::new()));
        assert_eq!(
            packed(sealed(BatchWriter::to_be_compressed())),
            with,
            "{codec}"
        );
    }
}
