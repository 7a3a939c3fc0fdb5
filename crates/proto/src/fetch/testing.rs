//! Batches as a log has them, for tests.

use crate::batch::{BatchHeader, CRC_START, Compression, HEADER_BYTES, compress, varint};

/// A batch to be.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    header: BatchHeader,
    section: Vec<u8>,
    codec: Compression,
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [0; 10];
    let length = varint::write_i64(&mut buffer, 0, value);
    out.extend_from_slice(&buffer[..length]);
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put(
        out,
        field.map_or(-1, |field| i64::try_from(field.len()).unwrap()),
    );
    out.extend_from_slice(field.unwrap_or_default());
}

impl Batch {
    /// An empty batch.
    pub(super) fn at(base_offset: i64) -> Self {
        Self {
            header: BatchHeader {
                base_offset,
                base_timestamp: 1000,
                max_timestamp: 2000,
                partition_leader_epoch: 3,
                ..BatchHeader::default()
            },
            section: Vec::new(),
            codec: Compression::None,
        }
    }

    /// `count` records from `base_offset` on, each with its offset as its value.
    pub(super) fn of(base_offset: i64, count: i32) -> Self {
        (0..count).fold(Self::at(base_offset), |batch, delta| {
            let value = (base_offset + i64::from(delta)).to_string();
            batch.record(delta, None, Some(value.as_bytes()), &[])
        })
    }

    pub(super) fn record(
        mut self,
        delta: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Self {
        let mut body = vec![0];
        put(&mut body, delta.into());
        put(&mut body, delta.into());
        put_field(&mut body, key);
        put_field(&mut body, value);
        put(&mut body, i64::try_from(headers.len()).unwrap());
        for (key, value) in headers {
            put_field(&mut body, Some(key));
            put_field(&mut body, *value);
        }
        put_field(&mut self.section, Some(&body));
        self.header.record_count += 1;
        self.header.last_offset_delta = self.header.last_offset_delta.max(delta);
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut BatchHeader)) -> Self {
        change(&mut self.header);
        self
    }

    pub(super) fn compressed(mut self, codec: Compression) -> Self {
        self.codec = codec;
        self
    }

    pub(super) fn transactional(self, producer_id: i64) -> Self {
        self.with(|header| {
            header.producer_id = producer_id;
            header.producer_epoch = 0;
            header.attributes |= 1 << 4;
        })
    }

    /// The end of a transaction: 0 aborts, 1 commits.
    pub(super) fn marker(offset: i64, producer_id: i64, kind: u8) -> Self {
        Self::at(offset)
            .record(0, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[])
            .transactional(producer_id)
            .with(|header| header.attributes |= 1 << 5)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let section = compress(self.codec, None, &[&self.section]).unwrap();
        let mut header = self.header.clone();
        header.attributes |= self.codec.bits();
        header.batch_length = i32::try_from(HEADER_BYTES - 12 + section.len()).unwrap();
        let mut head = [0; HEADER_BYTES];
        header.write(&mut head);
        let mut bytes = [&head[..], &section].concat();
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// A record set.
pub(super) fn set(batches: &[Batch]) -> Vec<u8> {
    batches.iter().flat_map(Batch::bytes).collect()
}
