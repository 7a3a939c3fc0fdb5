use super::super::super::tests::{noise, text};
use super::*;
use lz4_flex::block;
use proptest::prelude::*;

fn packed(input: &[u8]) -> Vec<u8> {
    compressed(&mut Table::default(), input)
}

fn compressed(table: &mut Table, input: &[u8]) -> Vec<u8> {
    let mut out = vec![0xaa; block::get_maximum_output_size(input.len())];
    let size = table.compress(input, &mut out).unwrap();
    out.truncate(size);
    out
}

/// Reads a block as strictly as the format is written.
fn read_strictly(mut block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last_match = None;
    loop {
        let (token, rest) = block.split_first().unwrap();
        block = rest;
        let literals = length(&mut block, token >> 4);
        out.extend_from_slice(block.split_off(..literals).unwrap());
        let Some((back, rest)) = block.split_first_chunk() else {
            assert!(block.is_empty());
            if let Some(at) = last_match {
                assert!(literals >= 5, "{literals} literals at the end");
                assert!(out.len() - at >= 12, "a match begins at {at}");
            }
            return out;
        };
        block = rest;
        last_match = Some(out.len());
        let back = usize::from(u16::from_le_bytes(*back));
        assert!((1..=out.len()).contains(&back), "{back} bytes back");
        for _ in 0..length(&mut block, token & 15) + MATCH_MIN_BYTES {
            out.push(out[out.len() - back]);
        }
    }
}

fn length(block: &mut &[u8], in_token: u8) -> usize {
    let mut length = usize::from(in_token);
    let mut more = in_token == 15;
    while more {
        let byte = *block.split_off_first().unwrap();
        length += usize::from(byte);
        more = byte == 255;
    }
    length
}

fn check(input: &[u8]) {
    let packed = packed(input);
    assert!(packed.len() <= input.len() + input.len() / 255 + 16);
    assert!(read_strictly(&packed) == input, "{} bytes", input.len());
    let back = block::decompress(&packed, input.len()).unwrap();
    assert!(back == input, "{} bytes by another decoder", input.len());
}

#[test]
fn blocks_of_any_length_come_back_and_end_as_the_format_asks() {
    let near = [SMALL_BLOCK_BYTES, 1 << 16, 1 << 18].map(|at| at - 6..at + 6);
    for len in (0..400).chain(near.into_iter().flatten()) {
        for input in [text(len), vec![7; len], b"abcde".repeat(len / 5)] {
            check(&input);
        }
    }
    check(&noise(100_000));
}

#[test]
fn a_match_reaches_no_further_than_the_format_can_say() {
    let phrase = text(100);
    for apart in [65_434, 65_435, 65_436, 65_437, 70_000, 131_000, 131_072] {
        let between = vec![7; apart];
        let input = [&phrase[..], &between, &phrase, b"and the end of it"].concat();
        check(&input);
        let found = packed(&input).len() < packed(&between).len() + phrase.len() + 50;
        let distance = phrase.len() + apart;
        assert_eq!(found, distance <= 65_535, "{distance} bytes apart");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    for input in [text(2000), noise(2000), vec![7; 2000]] {
        let size = packed(&input).len();
        for room in 0..size + 40 {
            let mut out = vec![0; room];
            let written = Table::default().compress(&input, &mut out);
            assert_eq!(written, (room >= size).then_some(size));
            assert!(written.is_none() || read_strictly(&out[..size]) == input);
        }
    }
}

#[test]
fn blocks_before_leave_no_trace() {
    let mut table = Table::default();
    for len in [300, 40_000, 5000, 100_000, 33_000, 32_000] {
        let input = text(len);
        let _ = compressed(&mut table, &noise(len + 7));
        let _ = compressed(&mut table, &input[len / 3..]);
        assert!(compressed(&mut table, &input) == packed(&input), "{len}");
    }
}

#[test]
fn large_blocks_of_text_are_clearly_smaller_than_with_a_small_table() {
    let input = text(1 << 20);
    let (ours, small) = (packed(&input).len(), block::compress(&input).len());
    assert!(ours * 100 < small * 97, "{ours} bytes, {small}");
}

#[test]
fn what_does_not_compress_passes_quickly() {
    // A place that is looked at leaves an entry.
    let mut table = Table::default();
    let _ = compressed(&mut table, &noise(1 << 20));
    let entered = table.0.iter().filter(|entry| **entry != 0).count();
    assert!(entered < 1 << (BITS - 1), "{entered}");
}

proptest! {
    #[test]
    fn pieces_repeated_at_any_distance_come_back(
        pieces in prop::collection::vec(
            (any::<prop::sample::Index>(), 1usize..400, prop::collection::vec(any::<u8>(), 0..40)),
            0..200,
        ),
        begin in 0usize..40_000,
    ) {
        let mut input = noise(begin);
        for (from, len, fresh) in pieces {
            if !input.is_empty() {
                let from = from.index(input.len());
                let piece = input[from..input.len().min(from + len)].to_vec();
                input.extend(piece);
            }
            input.extend(fresh);
        }
        check(&input);
    }
}
