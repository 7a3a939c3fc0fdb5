//! Each adapter with any answer, in any version.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let [api, version, answer @ ..] = data {
        ottla_wire::fuzzing::decode_any((*api).into(), (*version).into(), answer);
    }
});
