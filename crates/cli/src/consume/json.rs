//! A record as a line of JSON, in kcat's words.

use ottla::consumer::{ConsumerRecord, TimestampKind};
use serde::Serialize;
use std::borrow::Cow;

/// The order is kcat's.
#[derive(Debug, Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    tstype: &'static str,
    ts: i64,
    /// The partition's leader; -1 when it is not known.
    broker: i32,
    /// Keys and values in turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Option<Cow<'a, str>>>,
    key: Option<Cow<'a, str>>,
    payload: Option<Cow<'a, str>>,
}

/// Appends the record as one line. JSON is text: what is not UTF-8 shows as U+FFFD.
pub(crate) fn write(record: &ConsumerRecord, broker: Option<i32>, out: &mut Vec<u8>) {
    let line = Line {
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset,
        tstype: match (record.timestamp, record.timestamp_kind) {
            (-1, _) => "unknown",
            (_, TimestampKind::Create) => "create",
            (_, TimestampKind::LogAppend) => "logappend",
        },
        ts: record.timestamp,
        broker: broker.unwrap_or(-1),
        headers: headers(record),
        key: record.key.as_deref().map(String::from_utf8_lossy),
        payload: record.value.as_deref().map(String::from_utf8_lossy),
    };
    // Numbers and strings always have a JSON form, and a Vec takes all that is written to it.
    let _ = serde_json::to_writer(&mut *out, &line);
    out.push(b'\n');
}

fn headers(record: &ConsumerRecord) -> Vec<Option<Cow<'_, str>>> {
    let flat = record.headers().flat_map(|header| {
        let key = Some(String::from_utf8_lossy(header.key));
        [key, header.value.map(String::from_utf8_lossy)]
    });
    flat.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_kcats_names_in_kcats_order() {
        let line = Line {
            topic: "orders",
            partition: 3,
            offset: 7,
            tstype: "create",
            ts: 1_700_000_000_000,
            broker: 1,
            headers: vec![Some("a".into()), None],
            key: None,
            payload: Some(String::from_utf8_lossy(b"x\"\xff")),
        };
        let text = serde_json::to_string(&line).unwrap();
        let expected = concat!(
            r#"{"topic":"orders","partition":3,"offset":7,"tstype":"create","ts":1700000000000,"#,
            r#""broker":1,"headers":["a",null],"key":null,"payload":"x\""#,
            "\u{fffd}\"}"
        );
        assert_eq!(text, expected);
    }
}
