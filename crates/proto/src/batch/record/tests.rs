use super::super::testing::{
    GOLDEN, OwnedRecord, batch, batch_of_section, put_field, put_varint, section,
};
use super::super::{BatchRef, Compression, ControlType, control_type};
use super::*;
use crate::error::ErrorKind;

fn owned(record: &RecordRef<'_>) -> OwnedRecord {
    OwnedRecord {
        offset_delta: record.offset.try_into().unwrap(),
        timestamp_delta: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers
            .clone()
            .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// A header under which offsets and timestamps are their deltas.
fn bare(record_count: i32, last_offset_delta: i32) -> BatchHeader {
    BatchHeader {
        base_timestamp: 0,
        record_count,
        last_offset_delta,
        ..BatchHeader::default()
    }
}

fn read(header: &BatchHeader, section: &[u8]) -> Result<Vec<OwnedRecord>> {
    Records::new(header, section)
        .map(|record| record.map(|record| owned(&record)))
        .collect()
}

fn complaint(header: &BatchHeader, section: &[u8]) -> String {
    let error = read(header, section).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    error.to_string()
}

#[test]
fn reads_what_a_real_broker_wrote() {
    let batch = BatchRef::parse(GOLDEN).unwrap();
    let mut records = Records::new(&batch.header, batch.records_section());
    let record = records.next().unwrap().unwrap();
    assert_eq!((record.offset, record.timestamp), (0, 1_503_229_838_908));
    assert_eq!((record.key, record.value), (None, Some(&b"123"[..])));
    assert_eq!(record.headers.len(), 0);
    assert!(records.next().is_none());
}

#[test]
fn null_and_empty_duplicates_and_binary_stay_apart() {
    let records = [
        OwnedRecord {
            key: Some(vec![]),
            value: None,
            headers: vec![
                (b"trace".to_vec(), Some(b"1".to_vec())),
                (b"trace".to_vec(), None),
                (b"trace".to_vec(), Some(vec![])),
                (b"".to_vec(), Some(vec![0xff, 0, 0xfe])),
                (vec![0xc3, 0x28], Some(b"key is not UTF-8".to_vec())),
            ],
            ..OwnedRecord::default()
        },
        OwnedRecord {
            offset_delta: 1,
            key: None,
            value: Some(vec![]),
            ..OwnedRecord::default()
        },
    ];
    let section = section(&records);
    assert_eq!(read(&bare(2, 1), &section).unwrap(), records);
    let first = Records::new(&bare(2, 1), &section).next().unwrap().unwrap();
    assert_eq!(first.headers.len(), 5);
    let keys: Vec<_> = first.headers.map(|header| header.key_str()).collect();
    assert_eq!(
        keys,
        [Some("trace"), Some("trace"), Some("trace"), Some(""), None]
    );
}

#[test]
fn timestamps_count_from_the_base_or_are_the_append_time() {
    let records = [
        OwnedRecord::at(0, "a"),
        OwnedRecord {
            timestamp_delta: -7,
            ..OwnedRecord::at(1, "b")
        },
    ];
    let mut header = BatchHeader {
        base_timestamp: 1000,
        max_timestamp: 5000,
        ..bare(2, 1)
    };
    let times = |header: &BatchHeader| -> Vec<i64> {
        Records::new(header, &section(&records))
            .map(|record| record.unwrap().timestamp)
            .collect()
    };
    assert_eq!(times(&header), [1000, 993]);
    header.attributes = 0b1000;
    assert_eq!(times(&header), [5000, 5000]);
}

#[test]
fn compaction_leaves_gaps_and_may_leave_nothing() {
    let header = BatchHeader {
        base_offset: 100,
        last_offset_delta: 9,
        ..BatchHeader::default()
    };
    let survivors = [OwnedRecord::at(2, "c"), OwnedRecord::at(7, "h")];
    let bytes = batch(header.clone(), Compression::None, &survivors);
    let kept = BatchRef::parse(&bytes).unwrap();
    let offsets: Vec<_> = Records::new(&kept.header, kept.records_section())
        .map(|record| record.unwrap().offset)
        .collect();
    assert_eq!(offsets, [102, 107]);
    assert_eq!(kept.header.last_offset(), 109);

    let header = BatchHeader {
        attributes: Compression::Zstd.bits(),
        ..header
    };
    let bytes = batch_of_section(header, &[]);
    let empty = BatchRef::parse(&bytes).unwrap();
    let section = empty.decompressed(0).unwrap();
    assert_eq!(Records::new(&empty.header, &section).count(), 0);
    assert_eq!(empty.header.last_offset(), 109);
}

#[test]
fn a_control_batch_is_told_by_its_flag_and_read_by_its_key() {
    let marker = OwnedRecord {
        key: Some(vec![0, 0, 0, 1]),
        value: Some(vec![0, 0, 0, 0, 0, 3]),
        ..OwnedRecord::default()
    };
    let header = BatchHeader {
        attributes: 0b11_0000,
        producer_id: 7,
        producer_epoch: 1,
        ..BatchHeader::default()
    };
    let bytes = batch(header, Compression::None, &[marker]);
    let batch = BatchRef::parse(&bytes).unwrap();
    assert!(batch.header.is_control() && batch.header.is_transactional());
    let record = Records::new(&batch.header, batch.records_section()).next();
    let key = record.unwrap().unwrap().key.unwrap();
    assert_eq!(control_type(key), Some(ControlType::Commit));
}

#[test]
fn a_record_length_that_lies_is_named() {
    let body = OwnedRecord::at(0, "value").body();
    let with_length = |length: i64| {
        let mut section = Vec::new();
        put_varint(&mut section, length);
        section.extend_from_slice(&body);
        section
    };
    let right = body.len() as i64;
    assert!(read(&bare(1, 0), &with_length(right)).is_ok());
    for length in [
        -1,
        -2,
        i64::from(i32::MIN),
        i64::from(i32::MAX),
        i64::MAX,
        right + 1,
    ] {
        let text = complaint(&bare(1, 0), &with_length(length));
        assert!(text.contains("malformed: its length"), "{length}: {text}");
    }
    let text = complaint(&bare(1, 0), &with_length(0));
    assert!(text.contains("its attributes"), "{text}");
    // One byte short: the header count is cut off.
    let text = complaint(&bare(1, 0), &with_length(right - 1));
    assert!(text.contains("its header count"), "{text}");
    // One byte long, and the byte is there.
    let mut section = with_length(right + 1);
    section.push(0);
    let text = complaint(&bare(1, 0), &section);
    assert!(text.contains("its length, more than its fields"), "{text}");
}

/// The section of one record whose fields behind the offset delta are these varints.
fn fields(varints: &[i64]) -> Vec<u8> {
    let mut body = vec![0, 0, 0];
    varints
        .iter()
        .for_each(|varint| put_varint(&mut body, *varint));
    let mut section = Vec::new();
    put_field(&mut section, Some(&body));
    section
}

#[test]
fn field_lengths_that_lie_are_named() {
    assert!(read(&bare(1, 0), &fields(&[-1, -1, 0])).is_ok());
    let most = i64::from(i32::MAX);
    for (varints, named) in [
        (&[-2, -1, 0][..], "its key's length"),
        (&[3, -1, 0], "its key's length"),
        (&[most, -1, 0], "its key's length"),
        (&[-1, -2, 0], "its value's length"),
        (&[-1, most, 0], "its value's length"),
        (&[-1, -1, -1], "its header count"),
        (&[-1, -1, most], "a header key's length"),
        (&[-1, -1, 1, -1, -1], "a header key's length"),
        (&[-1, -1, 1, 0, -2], "a header value's length"),
        (&[-1, -1, 1, 0, most], "a header value's length"),
        (&[-1, -1, 2, 0, -1], "a header key's length"),
    ] {
        let text = complaint(&bare(1, 0), &fields(varints));
        assert!(text.contains(named), "{varints:?}: {text}");
    }
}

#[test]
fn an_offset_outside_the_batch_is_refused() {
    for delta in [-1, 4] {
        let section = section(&[OwnedRecord::at(delta, "a")]);
        let text = complaint(&bare(1, 3), &section);
        assert!(text.contains("its offset delta"), "{text}");
    }
}

#[test]
fn a_record_count_that_lies_is_named() {
    let section = section(&[OwnedRecord::at(0, "a"), OwnedRecord::at(1, "b")]);
    let text = complaint(&bare(3, 2), &section);
    assert!(text.contains("its length (1 records before"), "{text}");
    let text = complaint(&bare(1, 2), &section);
    assert!(text.contains("8 bytes behind its last record"), "{text}");
    // A claim of two thousand million records reserves nothing by itself.
    let claimed = Records::new(&bare(i32::MAX, i32::MAX), &section).size_hint();
    assert_eq!(claimed, (0, Some(3)));
}

#[test]
fn an_error_is_the_last_item() {
    let good = section(&[OwnedRecord::at(0, "a")]);
    let mut bytes = good.clone();
    bytes.push(0);
    bytes.extend(good);
    let header = bare(3, 2);
    let mut records = Records::new(&header, &bytes);
    assert!(records.next().unwrap().is_ok());
    assert!(records.next().unwrap().is_err());
    assert!(records.next().is_none());
}
