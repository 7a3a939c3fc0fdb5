//! What a record costs before it reaches a socket: `cargo bench -p ottla-benches --bench hot_path`.

use bytes::Bytes;
use ottla_benches::{best_ns, payload};
use ottla_proto::Record;
use ottla_proto::batch::{BatchStamp, BatchWriter};
use std::hint::black_box;

const RECORDS: usize = 9_000;

fn main() {
    for bytes in [10, 100, 1_000] {
        let value = payload(bytes);
        let mut chunks: Vec<Vec<u8>> = (0..RECORDS * (bytes + 16) / 32_768 + 2)
            .map(|_| Vec::with_capacity(32_768))
            .collect();
        let ns = best_ns(200, RECORDS, || {
            let mut writer = BatchWriter::new();
            let mut next = std::mem::take(&mut chunks);
            for at in 0..RECORDS {
                let record = Record::to("orders").value(&value);
                while writer.append(&record, at as i64 / 100).is_err() {
                    writer.add_chunk(next.pop().unwrap_or_default());
                }
            }
            let sealed = writer.seal(Bytes::from);
            let stamp = BatchStamp {
                producer_id: 1,
                epoch: 0,
                base_sequence: 0,
                transactional: false,
            };
            black_box(sealed.header(Some(stamp)));
            chunks.extend(next);
            chunks.extend(Vec::from(sealed.into_segments()).into_iter().map(|s| {
                s.try_into_mut()
                    .map(|b| {
                        let mut v: Vec<u8> = b.into();
                        v.clear();
                        v
                    })
                    .unwrap_or_default()
            }));
        });
        println!("append and checksum, {bytes:>5} bytes a record: {ns:6.1} ns a record");
    }
}
