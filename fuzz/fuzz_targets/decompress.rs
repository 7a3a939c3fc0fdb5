//! Each codec with any input, under a cap that the input's first bytes choose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_proto::batch::{Compression, Decompressor};

fuzz_target!(|data: &[u8]| {
    let [codec, cap_low, cap_high, input @ ..] = data else {
        return;
    };
    let codec = Compression::ALL[usize::from(*codec) % 5];
    let cap_bytes = usize::from(u16::from_le_bytes([*cap_low, *cap_high])) * 16;
    let mut decompressor = Decompressor::new();
    let first = decompressor.decompress(codec, input, cap_bytes);
    if let Ok(out) = &first {
        assert!(out.capacity() <= cap_bytes);
    }
    // What one input leaves behind must not change what the next one gives.
    let again = decompressor.decompress(codec, input, cap_bytes);
    assert_eq!(first.ok(), again.ok());
});
