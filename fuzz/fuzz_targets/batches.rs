//! A record set as a broker might send it, walked to its end whatever its checksums say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_proto::batch::{Batches, Records};

const CAP_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut batches = Batches::new(data);
    let mut walked_bytes = 0;
    for batch in batches.by_ref() {
        let Ok(batch) = batch else { continue };
        walked_bytes += batch.bytes.len();
        let _ = batch.verify_crc();
        let Ok(section) = batch.decompressed(CAP_BYTES) else {
            continue;
        };
        let offsets = batch.header.base_offset..=batch.header.last_offset();
        for record in Records::new(&batch.header, &section).flatten() {
            assert!(offsets.contains(&record.offset));
            let claimed = record.headers.len();
            assert_eq!(record.headers.count(), claimed);
        }
    }
    let tail_bytes = batches
        .truncated_tail()
        .map_or(0, |tail| tail.present_bytes);
    assert!(walked_bytes + tail_bytes <= data.len());
});
