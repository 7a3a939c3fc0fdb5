//! How a record is printed: kcat's format strings, or delimiters.

use ottla::consumer::ConsumerRecord;
use std::str::FromStr;

/// What a null key or value looks like where it shall be seen.
const NULL: &[u8] = b"NULL";

/// A format string, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    /// The value's length as four bytes, the highest first; -1 for null.
    ValuePrefix,
    Headers,
}

/// How null shows in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    /// As nothing.
    Hidden,
    /// As `NULL`.
    Shown,
}

impl Template {
    /// The value, perhaps after the key, and then a delimiter.
    pub(crate) fn delimited(key_delimiter: Option<&[u8]>, delimiter: &[u8]) -> Self {
        let mut parts = Vec::new();
        if let Some(between) = key_delimiter {
            parts.extend([Part::Key, Part::Bytes(between.to_vec())]);
        }
        parts.extend([Part::Value, Part::Bytes(delimiter.to_vec())]);
        Self(parts)
    }

    /// Appends the record's text.
    pub(crate) fn write(&self, record: &ConsumerRecord, null: Null, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Topic => out.extend_from_slice(record.topic().as_bytes()),
                Part::Partition => number(record.partition().into(), out),
                Part::Offset => number(record.offset, out),
                Part::Timestamp => number(record.timestamp, out),
                Part::Key => bytes(record.key.as_deref(), null, out),
                Part::KeyBytes => number(length(record.key.as_deref()), out),
                Part::Value => bytes(record.value.as_deref(), null, out),
                Part::ValueBytes => number(length(record.value.as_deref()), out),
                Part::ValuePrefix => {
                    let length = i32::try_from(length(record.value.as_deref()));
                    out.extend_from_slice(&length.unwrap_or(i32::MAX).to_be_bytes());
                }
                Part::Headers => headers(record, out),
            }
        }
    }
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

fn number(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn bytes(bytes: Option<&[u8]>, null: Null, out: &mut Vec<u8>) {
    match (bytes, null) {
        (Some(bytes), _) => out.extend_from_slice(bytes),
        (None, Null::Shown) => out.extend_from_slice(NULL),
        (None, Null::Hidden) => {}
    }
}

fn headers(record: &ConsumerRecord, out: &mut Vec<u8>) {
    for (at, header) in record.headers().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(header.key);
        out.push(b'=');
        bytes(header.value, Null::Shown, out);
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, directive) = rest.split_at(at);
            literal.extend(unescape(before)?);
            let mut after = directive.chars();
            after.next();
            let part = match after.next() {
                Some('%') => {
                    literal.push(b'%');
                    None
                }
                Some('t') => Some(Part::Topic),
                Some('p') => Some(Part::Partition),
                Some('o') => Some(Part::Offset),
                Some('T') => Some(Part::Timestamp),
                Some('k') => Some(Part::Key),
                Some('K') => Some(Part::KeyBytes),
                Some('s') => Some(Part::Value),
                Some('S') => Some(Part::ValueBytes),
                Some('R') => Some(Part::ValuePrefix),
                Some('h') => Some(Part::Headers),
                Some(other) => return Err(format!("%{other} means nothing")),
                None => return Err("a single % stands at its end".to_owned()),
            };
            if let Some(part) = part {
                if !literal.is_empty() {
                    parts.push(Part::Bytes(std::mem::take(&mut literal)));
                }
                parts.push(part);
            }
            rest = after.as_str();
        }
        literal.extend(unescape(rest)?);
        if !literal.is_empty() {
            parts.push(Part::Bytes(literal));
        }
        Ok(Self(parts))
    }
}

/// Resolves `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH`.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some('\\') => bytes.push(b'\\'),
            Some('x') => {
                let digits = chars.as_str().get(..2).unwrap_or("");
                let byte = u8::from_str_radix(digits, 16);
                bytes.push(byte.map_err(|_| "\\x wants two hex digits".to_owned())?);
                rest = chars.as_str().get(2..).unwrap_or("");
                continue;
            }
            Some(other) => return Err(format!("\\{other} means nothing")),
            None => return Err("a single \\ stands at its end".to_owned()),
        }
        rest = chars.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        text.parse::<Template>().unwrap().0
    }

    fn literal(text: &str) -> Part {
        Part::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn a_format_is_directives_and_bytes_between_them() {
        let expected = [
            Part::Topic,
            literal(" ["),
            Part::Partition,
            literal("]\t100% "),
            Part::Value,
            literal("\n"),
        ];
        assert_eq!(parts("%t [%p]\\t100%% %s\\n"), expected);
        let lengths = [Part::KeyBytes, Part::ValueBytes, Part::ValuePrefix];
        assert_eq!(parts("%K%S%R"), lengths);
        let rest = [Part::Offset, Part::Timestamp, Part::Key, Part::Headers];
        assert_eq!(parts("%o%T%k%h"), rest);
        assert_eq!(parts("%%"), [literal("%")]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let refusal = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(refusal("%y"), "%y means nothing");
        assert_eq!(refusal("%s%"), "a single % stands at its end");
        assert_eq!(refusal("%s\\q"), "\\q means nothing");
        assert_eq!(refusal("\\"), "a single \\ stands at its end");
        assert_eq!(refusal("\\x4"), "\\x wants two hex digits");
        assert_eq!(refusal("\\xé"), "\\x wants two hex digits");
    }

    #[test]
    fn escapes_give_any_byte() {
        let bytes = unescape("a\\\\n\\x00\\xfF\\0é\\r").unwrap();
        assert_eq!(bytes, b"a\\n\x00\xff\x00\xc3\xa9\r");
    }

    #[test]
    fn delimited_text_is_the_value_and_perhaps_the_key_before_it() {
        assert_eq!(Template::delimited(None, b"\n").0, parts("%s\\n"));
        assert_eq!(Template::delimited(Some(b":"), b";").0, parts("%k:%s;"));
    }

    #[test]
    fn null_is_hidden_or_shown() {
        let text = |null| {
            let mut out = Vec::new();
            bytes(None, null, &mut out);
            out
        };
        assert_eq!(text(Null::Hidden), b"");
        assert_eq!(text(Null::Shown), b"NULL");
        assert_eq!((length(None), length(Some(b""))), (-1, 0));
    }
}
