//! What the tests of this crate share.

use bytes::Bytes;

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// A batch as a producer sends it, written by hand: records with these values, at this time and
/// each later one a millisecond later, and the stamp (producer id, epoch, first sequence).
pub(crate) fn batch_bytes(values: &[&str], time: i64, stamp: Option<(i64, i16, i32)>) -> Bytes {
    let count = values.len() as i32;
    let mut body = Vec::new();
    body.extend(0i16.to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    body.extend(time.to_be_bytes());
    body.extend((time + i64::from(count) - 1).to_be_bytes());
    let (id, epoch, sequence) = stamp.unwrap_or((-1, -1, -1));
    body.extend(id.to_be_bytes());
    body.extend(epoch.to_be_bytes());
    body.extend(sequence.to_be_bytes());
    body.extend(count.to_be_bytes());
    for (index, value) in (0..).zip(values) {
        let mut record = vec![0];
        varint(index, &mut record);
        varint(index, &mut record);
        varint(-1, &mut record);
        varint(value.len() as i64, &mut record);
        record.extend(value.as_bytes());
        varint(0, &mut record);
        varint(record.len() as i64, &mut body);
        body.extend(record);
    }
    let mut bytes = Vec::new();
    bytes.extend(0i64.to_be_bytes());
    bytes.extend((body.len() as i32 + 9).to_be_bytes());
    bytes.extend((-1i32).to_be_bytes());
    bytes.push(2);
    bytes.extend(crc32c::crc32c(&body).to_be_bytes());
    bytes.extend(body);
    Bytes::from(bytes)
}
