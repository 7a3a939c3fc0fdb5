use super::*;
use proptest::prelude::*;

const CAP: usize = 1 << 20;

const PACKED: [Compression; 4] = [
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Text that repeats itself as records do, of `len` bytes.
pub(super) fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "order", "paid", "refund", "cart", "user", "address", "late", "shipped",
    ];
    let line = |chunk: &[u8]| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| usize::from(chunk[i]));
        let (one, two) = (WORDS[a % 8], WORDS[b % 8]);
        format!(
            "{{\"id\":{c}{d},\"{one}\":\"{two}\",\"total\":{}}}\n",
            a * b
        )
        .into_bytes()
    };
    let mut text: Vec<u8> = noise(4 + len / 4).chunks_exact(4).flat_map(line).collect();
    text.truncate(len);
    text
}

/// Bytes that do not compress, of `len` bytes.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn complaint(codec: Compression, input: &[u8], cap_bytes: usize) -> String {
    let error = decompress(codec, input, cap_bytes).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    error.to_string()
}

#[test]
fn names_and_numbers_are_those_of_kafka() {
    let names = ["none", "gzip", "snappy", "lz4", "zstd"];
    for ((number, name), codec) in (0..).zip(names).zip(Compression::ALL) {
        assert_eq!(name.parse::<Compression>().unwrap(), codec);
        assert_eq!(codec.to_string(), name);
        assert_eq!(codec.bits(), number);
        let attributes = number | !0b111;
        assert_eq!(Compression::from_attributes(attributes).unwrap(), codec);
    }
    let error = "brotli".parse::<Compression>().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    assert!(error.to_string().contains("\"brotli\""));
    for number in 5..8 {
        assert!(Compression::from_attributes(number).is_err());
    }
}

#[test]
fn every_codec_gives_back_what_it_took_in_pieces_of_any_size() {
    let mut compressor = Compressor::new();
    let mut decompressor = Decompressor::new();
    for len in [0, 1, 100, 32 * 1024, 64 * 1024, 64 * 1024 + 1, 300_000] {
        for input in [text(len), noise(len), vec![7; len]] {
            for piece in [1000, 32 * 1024, 1 << 20] {
                let pieces: Vec<_> = input.chunks(piece).collect();
                for codec in Compression::ALL {
                    let packed = compressor.compress(codec, None, &pieces).unwrap();
                    let back = decompressor.decompress(codec, packed, len).unwrap();
                    assert!(back == input, "{codec}, {len} bytes by {piece}");
                }
            }
        }
    }
}

#[test]
fn text_shrinks() {
    let input = text(100_000);
    for codec in PACKED {
        let packed = compress(codec, None, &[&input]).unwrap();
        assert!(packed.len() < input.len() / 2, "{codec}: {}", packed.len());
        assert!(packed.capacity() < 2 * packed.len());
    }
}

#[test]
fn levels_are_clamped_and_kept_apart() {
    let input = text(200_000);
    let mut compressor = Compressor::new();
    for codec in [Compression::Gzip, Compression::Zstd] {
        let mut size = |level| {
            let packed = compressor.compress(codec, level, &[&input]).unwrap();
            assert!(decompress(codec, packed, CAP).unwrap() == input);
            packed.len()
        };
        let (fast, default, best) = (size(Some(1)), size(None), size(Some(9)));
        assert!(
            fast != default && fast > best,
            "{codec}: {fast} {default} {best}"
        );
        assert_eq!(size(None), default, "the level before does not stick");
        match codec {
            Compression::Gzip => {
                assert_eq!(size(Some(-1)), default);
                assert_eq!(size(Some(i32::MIN)), fast);
                assert_eq!(size(Some(i32::MAX)), best);
            }
            _ => {
                assert_eq!(size(Some(0)), default);
                assert!(size(Some(i32::MIN)) > fast);
                assert!(size(Some(i32::MAX)) < best);
            }
        }
    }
}

#[test]
fn the_cap_is_a_limit_and_not_a_byte_less() {
    let input = text(150_000);
    for codec in Compression::ALL {
        let packed = compress(codec, None, &[&input]).unwrap();
        assert!(decompress(codec, &packed, input.len()).unwrap() == input);
        for cap in [0, 1, 70_000, input.len() - 1] {
            let text = complaint(codec, &packed, cap);
            assert!(
                text.contains(&format!("the limit of {cap} bytes")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_refused_input_leaves_no_trace_on_the_next() {
    let mut decompressor = Decompressor::new();
    let input = text(150_000);
    for codec in PACKED {
        let packed = compress(codec, None, &[&input]).unwrap();
        assert!(decompressor.decompress(codec, &packed, 70_000).is_err());
        assert!(decompressor.decompress(codec, &packed[..500], CAP).is_err());
        assert!(decompressor.decompress(codec, &packed, CAP).unwrap() == input);
    }
}

#[test]
fn bug_28_memory_follows_the_output_of_a_decompression_bomb_and_not_its_claim() {
    let input = text(10_000);
    for codec in PACKED {
        let packed = compress(codec, None, &[&input]).unwrap();
        let back = decompress(codec, &packed, usize::MAX).unwrap();
        assert!(
            back.capacity() <= 128 * 1024,
            "{codec}: {}",
            back.capacity()
        );
    }
    // A bomb: the output never takes more than the cap before it is refused.
    let bomb = compress(Compression::Zstd, None, &[&vec![0; 8 << 20]]).unwrap();
    assert!(bomb.len() < 2000);
    complaint(Compression::Zstd, &bomb, CAP);
}

#[test]
fn sizes_that_are_only_claimed_cost_nothing() {
    let snappy = &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a'];
    let text = complaint(Compression::Snappy, snappy, usize::MAX);
    assert!(text.contains("more than it can"), "{text}");
    // A zstd frame of four gigabytes, by its header.
    let zstd = [
        0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0,
    ];
    complaint(Compression::Zstd, &zstd, usize::MAX);
}

#[test]
fn what_is_cut_short_is_refused() {
    let input = text(70_000);
    for codec in PACKED {
        let packed = compress(codec, None, &[&input]).unwrap();
        for len in (0..40)
            .chain((40..packed.len()).step_by(997))
            .chain([packed.len() - 1])
        {
            // Snappy alone marks no end: what ends between two blocks is whole to it.
            if codec == Compression::Snappy && decompress(codec, &packed[..len], CAP).is_ok() {
                continue;
            }
            complaint(codec, &packed[..len], CAP);
        }
    }
}

#[test]
fn what_another_codec_wrote_is_refused() {
    let input = text(1000);
    for codec in PACKED {
        for other in PACKED.into_iter().filter(|other| *other != codec) {
            let packed = compress(other, None, &[&input]).unwrap();
            complaint(codec, &packed, CAP);
        }
        complaint(codec, &noise(100), CAP);
    }
}

#[test]
fn several_gzip_members_are_one_section() {
    let (one, two) = (text(1000), noise(500));
    let mut packed = compress(Compression::Gzip, None, &[&one]).unwrap();
    packed.extend(compress(Compression::Gzip, None, &[&two]).unwrap());
    let whole = [one, two].concat();
    assert!(decompress(Compression::Gzip, &packed, 1500).unwrap() == whole);
    packed.push(0);
    let text = complaint(Compression::Gzip, &packed, CAP);
    assert!(text.contains("bytes behind its end"), "{text}");
}

#[test]
fn snappy_is_read_in_both_framings_and_written_in_that_of_java() {
    let input = text(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    assert!(decompress(Compression::Snappy, &raw, CAP).unwrap() == input);

    let framed = compress(Compression::Snappy, None, &[&input]).unwrap();
    assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut lengths = Vec::new();
    let mut rest = &framed[16..];
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (block, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        lengths.push(snap::raw::decompress_len(block).unwrap());
        rest = tail;
    }
    assert_eq!(lengths, [32_768, 32_768, 32_768, 1696]);

    let mut lying = framed;
    lying[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    let text = complaint(Compression::Snappy, &lying, CAP);
    assert!(text.contains("reaches past its end"), "{text}");
}

#[test]
fn lz4_is_framed_as_java_frames_it() {
    let packed = compress(Compression::Lz4, None, &[&text(1000)]).unwrap();
    assert_eq!(packed[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    assert_eq!(packed[packed.len() - 4..], [0; 4]);
    // What does not shrink is stored.
    let input = noise(1000);
    let packed = compress(Compression::Lz4, None, &[&input]).unwrap();
    assert_eq!(packed[7..11], (1000u32 | 1 << 31).to_le_bytes());
    assert_eq!(packed[11..1011], input);
}

/// A frame as another encoder writes it, with every option of the format.
fn foreign_lz4(input: &[u8], linked: bool, size: lz4_flex::frame::BlockSize) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
    use std::io::Write;
    let mode = if linked {
        BlockMode::Linked
    } else {
        BlockMode::Independent
    };
    let info = FrameInfo::new()
        .block_size(size)
        .block_mode(mode)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(input.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lz4_frames_of_other_encoders_are_read() {
    use lz4_flex::frame::BlockSize;
    let input = text(300_000);
    for linked in [false, true] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            let packed = foreign_lz4(&input, linked, size);
            let back = decompress(Compression::Lz4, &packed, input.len()).unwrap();
            assert!(back == input, "linked {linked}, {size:?}");
            let twice = packed.repeat(2);
            let back = decompress(Compression::Lz4, &twice, CAP).unwrap();
            assert!(back == input.repeat(2));
        }
    }
}

#[test]
fn lz4_checksums_and_sizes_are_compared() {
    let packed = foreign_lz4(&text(1000), false, lz4_flex::frame::BlockSize::Max64KB);
    let end = packed.len();
    for (at, named) in [
        (0, "does not begin as a frame does"),
        (4, "has flags 0x3c"),
        (5, "has block size 0x00"),
        (6, "its header fails its checksum"),
        (14, "its header fails its checksum"),
        (18, "a block is larger than its header allows"),
        (end - 9, "a block fails its checksum"),
        (end - 1, "its content fails its checksum"),
    ] {
        let mut bad = packed.clone();
        bad[at] ^= 0x40;
        let text = complaint(Compression::Lz4, &bad, CAP);
        assert!(text.contains(named), "byte {at}: {text}");
    }
    let mut bad = packed;
    bad[6] += 1;
    bad[14] = xxh32::xxh32(&bad[4..14]).to_le_bytes()[1];
    let text = complaint(Compression::Lz4, &bad, CAP);
    assert!(text.contains("not the size its header says"), "{text}");
}

#[test]
fn a_zstd_frame_without_its_size_is_read_whatever_window_it_names() {
    use std::io::Write;
    let input = text(300_000);
    // Java writes like this: a stream whose length it does not know, at level 22 with the largest
    // window, 128 MiB.
    for level in [3, 22] {
        let options = rust_zstd::CompressOptions {
            level,
            ..rust_zstd::CompressOptions::default()
        };
        let mut encoder = rust_zstd::Encoder::new(Vec::new(), options);
        encoder.write_all(&input).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(decompress(Compression::Zstd, &packed, input.len()).unwrap() == input);
    }
}

proptest! {
    #[test]
    fn damage_is_an_error_or_stays_within_the_cap(
        input: Vec<u8>,
        repeat in 1usize..50,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cap in 0usize..10_000,
    ) {
        let input = input.repeat(repeat);
        for codec in PACKED {
            let mut packed = compress(codec, None, &[&input]).unwrap();
            for (at, value) in &flips {
                let at = at.index(packed.len());
                packed[at] = *value;
            }
            if let Ok(back) = decompress(codec, &packed, cap) {
                prop_assert!(back.len() <= cap);
                prop_assert!(back.capacity() <= cap);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_stay_within_the_cap(
        input: Vec<u8>,
        magic in prop::sample::select(vec![
            &b""[..],
            b"\x1f\x8b\x08",
            b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
            b"\x04\x22\x4d\x18\x60\x40\x82",
            b"\x28\xb5\x2f\xfd",
        ]),
    ) {
        let input = [magic, &input].concat();
        for codec in PACKED {
            if let Ok(back) = decompress(codec, &input, 1000) {
                prop_assert!(back.capacity() <= 1000);
            }
        }
    }
}
