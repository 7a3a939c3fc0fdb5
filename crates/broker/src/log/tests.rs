//! The log by itself.

use super::*;
use crate::testing::{batch_bytes, transactional};
use ottla_proto::batch::{BatchRef, Records};

fn how(leader_epoch: i32) -> AppendAs {
    AppendAs {
        leader_epoch,
        append_time: None,
        first_sequence: FirstSequence::Any,
        retained_bytes_max: usize::MAX,
    }
}

fn append(log: &mut Log, bytes: &[u8], how: AppendAs) -> Result<Appended, Code> {
    let head = batch::check(bytes, usize::MAX, 13).unwrap();
    log.append(BytesMut::from(bytes), head, how)
}

/// Three batches of two records each, each batch of the same size.
fn three() -> (Log, usize) {
    let mut log = Log::default();
    for index in 0..3 {
        let bytes = batch_bytes(
            &["a", "b"],
            1000 + index * 100,
            Some((9, 0, index as i32 * 2)),
        );
        append(&mut log, &bytes, how(0)).unwrap();
    }
    let size = log.batches[0].bytes.len();
    (log, size)
}

#[test]
fn a_read_keeps_its_limits_and_gives_the_first_batch_whole() {
    let (log, size) = three();
    let sizes = |offset, end, max, whole| {
        let read = log.read(offset, end, max, whole);
        (read.chunks.len(), read.size_bytes)
    };
    assert_eq!(sizes(0, 6, usize::MAX, true), (3, 3 * size));
    assert_eq!(
        sizes(3, 6, usize::MAX, true),
        (2, 2 * size),
        "the batch that holds 3"
    );
    assert_eq!(
        sizes(0, 4, usize::MAX, true),
        (2, 2 * size),
        "below the high watermark"
    );
    assert_eq!(sizes(0, 6, size + 7, true), (2, size + 7), "a cut tail");
    assert_eq!(sizes(0, 6, 1, true), (1, size), "the first is whole");
    assert_eq!(
        sizes(0, 6, 1, false),
        (0, 0),
        "unless another partition had it"
    );
    assert_eq!(sizes(6, 6, usize::MAX, true), (0, 0));
}

#[test]
fn batches_get_their_offset_and_epoch_without_touching_the_checksum() {
    let (log, _) = three();
    let stored = &log.batches[2];
    let head = Head::parse(&stored.bytes).unwrap();
    assert_eq!((head.base_offset, stored.last_offset), (4, 5));
    assert_eq!(crc32c::crc32c(&stored.bytes[21..]), head.crc);
}

#[test]
fn a_duplicate_is_answered_with_its_old_offset() {
    let (mut log, _) = three();
    let again = batch_bytes(&["a", "b"], 1100, Some((9, 0, 2)));
    let answer = append(&mut log, &again, how(0)).unwrap();
    assert_eq!((answer.base_offset, answer.last_offset), (2, 3));
    assert_eq!(log.end(), 6);
}

#[test]
fn a_cut_log_knows_its_producers_as_the_rest_shows_them() {
    let (mut log, size) = three();
    log.truncate(4);
    assert_eq!((log.end(), log.size_bytes), (4, 2 * size));
    let third = batch_bytes(&["a", "b"], 1200, Some((9, 0, 4)));
    assert_eq!(append(&mut log, &third, how(3)).unwrap().base_offset, 4);
    log.truncate(0);
    assert_eq!((log.start(), log.end(), log.size_bytes), (0, 0, 0));
    let first = batch_bytes(&["a", "b"], 1000, Some((9, 0, 0)));
    assert_eq!(append(&mut log, &first, how(4)).unwrap().base_offset, 0);
}

#[test]
fn the_oldest_batches_go_when_the_memory_cap_is_reached() {
    let (mut log, size) = three();
    let next = batch_bytes(&["a", "b"], 1300, Some((9, 0, 6)));
    let capped = AppendAs {
        retained_bytes_max: 2 * size,
        ..how(0)
    };
    append(&mut log, &next, capped).unwrap();
    assert_eq!((log.start(), log.end(), log.batches.len()), (4, 8, 2));
}

#[test]
fn log_append_time_replaces_the_time_and_the_checksum() {
    let mut log = Log::default();
    let stamped = AppendAs {
        append_time: Some(77_000),
        ..how(0)
    };
    let answer = append(&mut log, &batch_bytes(&["a"], 5, None), stamped).unwrap();
    assert_eq!(answer.append_time, 77_000);
    let head = Head::parse(&log.batches[0].bytes).unwrap();
    assert_eq!((head.attributes, head.max_timestamp), (0x08, 77_000));
    assert_eq!(crc32c::crc32c(&log.batches[0].bytes[21..]), head.crc);
}

fn marker(producer_id: i64, committed: bool) -> Marker {
    Marker {
        producer_id,
        producer_epoch: 0,
        committed,
        coordinator_epoch: 7,
    }
}

fn append_open(log: &mut Log, producer_id: i64, sequence: i32) {
    let bytes = transactional(&batch_bytes(&["a"], 0, Some((producer_id, 0, sequence))));
    append(log, &bytes, how(0)).unwrap();
}

#[test]
fn a_marker_is_a_control_batch_that_clients_can_read() {
    let mut log = Log::default();
    append_open(&mut log, 9, 0);
    assert_eq!(log.append_marker(marker(9, true), 3, 5000), 1);
    let stored = &log.batches[1];
    let batch = BatchRef::parse(&stored.bytes).unwrap();
    batch.verify_crc().unwrap();
    let header = &batch.header;
    assert!(header.is_control() && header.is_transactional());
    assert_eq!((header.producer_id, header.producer_epoch), (9, 0));
    assert_eq!((header.base_offset, header.base_timestamp), (1, 5000));
    let section = batch.decompressed(1000).unwrap();
    let record = Records::new(header, &section).next().unwrap().unwrap();
    assert_eq!(record.key, Some(&[0, 0, 0, 1][..]));
    assert_eq!(record.value, Some(&[0, 0, 0, 0, 0, 7][..]));
}

#[test]
fn a_cut_log_knows_its_transactions_as_the_rest_shows_them() {
    let mut log = Log::default();
    append_open(&mut log, 9, 0);
    append_open(&mut log, 8, 0);
    log.append_marker(marker(8, false), 0, 0);
    append_open(&mut log, 8, 1);
    log.append_marker(marker(9, false), 0, 0);
    let told = |log: &Log| (log.last_stable(9), log.aborted_between(0, 9).len());
    log.replicated(5);
    assert_eq!(told(&log), (3, 2));
    log.truncate(4);
    assert_eq!(told(&log), (0, 1), "9 is open again");
    assert!(log.has_open(8, 0) && log.has_open(9, 0) && !log.has_open(9, 1));
    log.truncate(2);
    assert_eq!(told(&log), (0, 0), "and so is 8, from its first batch on");
    log.append_marker(marker(9, true), 1, 0);
    log.replicated(3);
    assert_eq!(told(&log), (1, 0));
}

#[test]
fn what_is_dropped_takes_its_aborted_transactions_along() {
    let mut log = Log::default();
    append_open(&mut log, 9, 0);
    log.append_marker(marker(9, false), 0, 0);
    append_open(&mut log, 8, 0);
    log.delete_before(2);
    assert_eq!(log.aborted_between(0, 9), []);
    assert_eq!(log.last_stable(3), 2);
    log.delete_before(3);
    assert_eq!(log.last_stable(3), 3, "never before the start");
}

#[test]
fn epochs_end_where_the_next_begins() {
    let mut log = Log::default();
    for epoch in [0, 0, 3] {
        append(&mut log, &batch_bytes(&["a", "b"], 0, None), how(epoch)).unwrap();
    }
    assert_eq!(log.end_of_epoch(0), Some((0, 4)));
    assert_eq!(log.end_of_epoch(2), Some((0, 4)));
    assert_eq!(log.end_of_epoch(9), Some((3, 6)));
    assert_eq!(log.end_of_epoch(-1), None);
    assert_eq!((log.epoch_at(3), log.epoch_at(4)), (Some(0), Some(3)));
}

#[test]
fn times_find_batches() {
    let (log, _) = three();
    let base = |found: Option<&Stored>| found.map(|b| b.base_offset);
    assert_eq!(base(log.batch_at_time(0, 6)), Some(0));
    assert_eq!(base(log.batch_at_time(1101, 6)), Some(2));
    assert_eq!(base(log.batch_at_time(1101, 2)), None);
    assert_eq!(base(log.batch_at_time(9000, 6)), None);
    assert_eq!(base(log.batch_of_latest_time(6)), Some(4));
}
