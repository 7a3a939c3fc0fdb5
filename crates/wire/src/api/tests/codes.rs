//! Our table of codes beside kafka-protocol's.

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use ottla_proto::Code;

/// `OFFSET_OUT_OF_RANGE` for `OffsetOutOfRange`.
fn as_kafka_writes(name: &str) -> String {
    let words = name.char_indices().map(|(at, letter)| {
        let begins = at > 0 && letter.is_uppercase();
        let gap = if begins { "_" } else { "" };
        format!("{gap}{}", letter.to_ascii_uppercase())
    });
    words.collect()
}

#[test]
fn our_codes_are_kafkas_by_number_name_and_whether_a_retry_may_help() {
    let mut passing_here_alone = Vec::new();
    for number in (i16::MIN..=i16::MAX).filter(|number| *number != 0) {
        let ours = Code(number);
        let theirs = number.err().unwrap();
        let name = match theirs {
            ResponseError::Unknown(_) => None,
            known => Some(as_kafka_writes(&format!("{known:?}"))),
        };
        assert_eq!(ours.name(), name.as_deref(), "{number}");
        if ours.is_retriable() != theirs.is_retriable() {
            assert!(ours.is_retriable(), "{ours}");
            passing_here_alone.push(ours);
        }
    }
    // The guide calls it final, but it passes when the transaction before it has ended.
    assert_eq!(passing_here_alone, [Code::CONCURRENT_TRANSACTIONS]);
}
