use super::super::testing::{Batch, set};
use super::super::{OffsetReset, partition::scan};
use super::*;
use crate::batch::Compression;
use crate::topic::TopicPartition;
use std::time::Duration;

fn config(isolation: Isolation) -> FetchConfig {
    FetchConfig {
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        buffer_max_bytes: 1 << 20,
        isolation,
        reset: OffsetReset::Earliest,
        check_crcs: true,
        inflated_max_bytes: 1 << 20,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
        seed: 0,
    }
}

fn cursor(records: Vec<u8>, from: i64) -> Cursor {
    cursor_with(
        records,
        from,
        Vec::new(),
        &config(Isolation::ReadUncommitted),
    )
}

fn cursor_with(records: Vec<u8>, from: i64, aborted: Vec<Aborted>, config: &FetchConfig) -> Cursor {
    let progress = Arc::new(Progress::new(TopicPartition::new("t", 0)));
    progress.place(from, None);
    let end = scan(&records, from).next_offset;
    Cursor::new(progress, 0, records.into(), (from, end), aborted, config)
}

/// The offsets handed out, and the complaint that ended it, if any.
fn walk(cursor: &mut Cursor) -> (Vec<i64>, Option<Error>) {
    let mut offsets = Vec::new();
    loop {
        match cursor.next_record() {
            Ok(Some(record)) => {
                assert_eq!(cursor.progress.position(), Some(record.offset + 1));
                offsets.push(record.offset);
            }
            Ok(None) => return (offsets, None),
            Err(error) => return (offsets, Some(error)),
        }
    }
}

fn offsets(records: Vec<u8>, from: i64) -> (Vec<i64>, Option<i64>) {
    let mut cursor = cursor(records, from);
    let (offsets, error) = walk(&mut cursor);
    assert!(error.is_none(), "{error:?}");
    (offsets, cursor.progress.position())
}

#[test]
fn records_below_the_position_are_skipped() {
    let records = set(&[Batch::of(0, 5), Batch::of(5, 5)]);
    assert_eq!(offsets(records.clone(), 3), ((3..10).collect(), Some(10)));
    assert_eq!(offsets(records, 7), ((7..10).collect(), Some(10)));
}

#[test]
fn gaps_and_empty_batches_left_by_compaction_move_the_position() {
    let gap = Batch::at(0)
        .record(2, None, None, &[])
        .with(|h| h.last_offset_delta = 9);
    let empty = Batch::at(10).with(|h| h.last_offset_delta = 4);
    assert_eq!(
        offsets(set(&[gap, empty, Batch::of(20, 1)]), 0),
        (vec![2, 20], Some(21))
    );
    let last_is_empty = Batch::at(3).with(|h| h.last_offset_delta = 4);
    assert_eq!(offsets(set(&[last_is_empty]), 3), (vec![], Some(8)));
}

#[test]
fn control_batches_are_not_shown_and_move_the_position() {
    let records = set(&[Batch::of(0, 1), Batch::marker(1, 7, 1)]);
    assert_eq!(offsets(records, 0), (vec![0], Some(2)));
}

#[test]
fn a_tail_that_was_cut_off_is_for_the_next_answer() {
    let mut records = set(&[Batch::of(0, 2), Batch::of(2, 2)]);
    records.truncate(records.len() - 1);
    assert_eq!(offsets(records, 0), (vec![0, 1], Some(2)));
}

#[test]
fn every_part_of_a_record_comes_out_as_it_went_in() {
    for codec in [Compression::None, Compression::Gzip, Compression::Lz4] {
        let headers: [(&[u8], Option<&[u8]>); 3] = [
            (b"h", Some(b"1")),
            (b"h", None),
            (b"\xff", Some(b"\x00\x01")),
        ];
        let batch = Batch::at(40)
            .record(0, Some(b"k"), Some(&[7; 300]), &headers)
            .record(1, None, Some(b""), &[])
            .record(2, Some(b""), None, &[])
            .compressed(codec);
        let mut cursor = cursor(batch.bytes(), 40);
        let first = cursor.next_record().unwrap().unwrap();
        assert_eq!(
            (first.topic(), first.partition(), first.offset),
            ("t", 0, 40)
        );
        assert_eq!(
            (first.timestamp, first.timestamp_kind),
            (1000, TimestampKind::Create)
        );
        assert_eq!(first.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(first.value.as_deref(), Some(&[7u8; 300][..]));
        let seen: Vec<_> = first.headers().map(|h| (h.key, h.value)).collect();
        assert_eq!(seen, headers);
        let second = cursor.next_record().unwrap().unwrap();
        assert_eq!((second.timestamp, second.key.as_ref()), (1001, None));
        assert_eq!(second.value.as_deref(), Some(&b""[..]));
        assert_eq!(second.headers().len(), 0);
        let third = cursor.next_record().unwrap().unwrap();
        assert_eq!((third.key.as_deref(), third.value), (Some(&b""[..]), None));
        assert!(cursor.next_record().unwrap().is_none());
    }
}

#[test]
fn log_append_time_is_every_records_time() {
    let batch = Batch::of(0, 2).with(|h| h.attributes |= 1 << 3);
    let mut cursor = cursor(batch.bytes(), 0);
    while let Some(record) = cursor.next_record().unwrap() {
        assert_eq!(
            (record.timestamp, record.timestamp_kind),
            (2000, TimestampKind::LogAppend)
        );
    }
}

#[test]
fn damage_names_the_place_and_leaves_the_position_before_it() {
    let mut records = set(&[Batch::of(0, 2), Batch::of(2, 2)]);
    // The last record's value; behind it is only its header count.
    let last = records.len() - 2;
    records[last] ^= 1;
    let mut damaged = cursor(records.clone(), 0);
    let (offsets, error) = walk(&mut damaged);
    let error = error.unwrap();
    assert_eq!(offsets, [0, 1]);
    assert_eq!(damaged.progress.position(), Some(2));
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    assert_eq!(error.place().partition, Some(TopicPartition::new("t", 0)));
    assert!(
        error.to_string().contains("offset 2 fails its checksum"),
        "{error}"
    );

    let trusting = FetchConfig {
        check_crcs: false,
        ..config(Isolation::ReadUncommitted)
    };
    let (offsets, error) = walk(&mut cursor_with(records, 0, Vec::new(), &trusting));
    assert_eq!((offsets.len(), error.is_none()), (4, true));
}

#[test]
fn a_record_count_that_lies_is_damage_not_a_gap() {
    for (count, complaint) in [
        (3, "ends 1 records early"),
        (1, "bytes behind its last record"),
    ] {
        let batch = Batch::of(0, 2).with(|h| h.record_count = count);
        let (_, error) = walk(&mut cursor(batch.bytes(), 0));
        let error = error.unwrap().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

/// Bug class 28: a bomb stops at the cap.
#[test]
fn a_batch_that_inflates_too_far_is_damage() {
    let small = FetchConfig {
        inflated_max_bytes: 1000,
        ..config(Isolation::ReadUncommitted)
    };
    let batch = Batch::at(0)
        .record(0, None, Some(&[0; 5000]), &[])
        .compressed(Compression::Gzip);
    let (offsets, error) = walk(&mut cursor_with(batch.bytes(), 0, Vec::new(), &small));
    assert!(offsets.is_empty());
    assert!(error.unwrap().to_string().contains("limit of 1000 bytes"));
}

fn committed_only(records: Vec<u8>, aborted: &[(i64, i64)]) -> Vec<i64> {
    let aborted = aborted
        .iter()
        .map(|(producer_id, first_offset)| Aborted {
            producer_id: *producer_id,
            first_offset: *first_offset,
        })
        .collect();
    let (offsets, error) = walk(&mut cursor_with(
        records,
        0,
        aborted,
        &config(Isolation::ReadCommitted),
    ));
    assert!(error.is_none(), "{error:?}");
    offsets
}

/// Bug class 11: the list may come in any order; records of an aborted transaction are hidden from
/// its first offset to its marker, and no others.
#[test]
fn an_aborted_list_out_of_order_hides_the_aborted_records_and_no_others() {
    let log = set(&[
        Batch::of(0, 2).transactional(1),
        Batch::of(2, 2).transactional(2),
        Batch::of(4, 1),
        Batch::marker(5, 1, 0),
        Batch::of(6, 1).transactional(1),
        Batch::marker(7, 1, 1),
        Batch::of(8, 1).transactional(2),
        Batch::marker(9, 2, 0),
        Batch::of(10, 1).transactional(1),
        Batch::marker(11, 1, 0),
    ]);
    let shown = [4, 6];
    assert_eq!(
        committed_only(log.clone(), &[(1, 0), (2, 2), (1, 10)]),
        shown
    );
    assert_eq!(
        committed_only(log.clone(), &[(1, 10), (2, 2), (1, 0)]),
        shown
    );
    let (uncommitted, _) = offsets(log, 0);
    assert_eq!(uncommitted, [0, 1, 2, 3, 4, 6, 8, 10]);
}

/// Bug class 11: an abort marker whose transaction has no data here.
#[test]
fn an_abort_marker_without_data_hides_nothing() {
    let log = set(&[
        Batch::marker(0, 1, 0),
        Batch::of(1, 1).transactional(1),
        Batch::marker(2, 1, 1),
    ]);
    assert_eq!(committed_only(log, &[]), [1]);
}

#[test]
fn a_cursor_that_was_detached_goes_on_where_it_was() {
    let records = set(&[
        Batch::of(0, 3).compressed(Compression::Gzip),
        Batch::of(3, 2),
    ]);
    let mut cursor = cursor(records, 0);
    assert_eq!(cursor.next_record().unwrap().unwrap().offset, 0);
    cursor.detach();
    assert_eq!(walk(&mut cursor).0, [1, 2, 3, 4]);
}
