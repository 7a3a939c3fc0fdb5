//! What a codec makes of any input gives that input back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_proto::batch::{Compression, Compressor, decompress};

fuzz_target!(|data: &[u8]| {
    let [codec, level, repeat, input @ ..] = data else {
        return;
    };
    let codec = Compression::ALL[usize::from(*codec) % 5];
    let level = i32::from(level.cast_signed()).min(12);
    let input = input.repeat(usize::from(*repeat) + 1);
    let pieces: Vec<&[u8]> = input.chunks(1000).collect();
    let packed = Compressor::new()
        .compress(codec, Some(level), &pieces)
        .expect("compresses");
    let back = decompress(codec, &packed, input.len()).expect("inflates");
    assert!(back == input);
});
