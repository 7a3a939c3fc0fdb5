//! From a line to a record.

use crate::arguments::ProduceArguments;
use crate::failure::{Failure, Result};
use ottla::{Header, Record};

/// What every record has in common.
#[derive(Debug)]
pub(super) struct Shape {
    topic: String,
    partition: Option<i32>,
    line: Line,
    headers: Vec<(String, Option<String>)>,
    null: bool,
}

/// What a line is.
#[derive(Debug)]
enum Line {
    /// The value; the key is always the same, or null.
    Value(Option<Vec<u8>>),
    /// Key and value, with this between them.
    KeyAndValue(Vec<u8>),
    /// The key of a null value.
    Key,
}

impl Shape {
    pub(super) fn new(arguments: &ProduceArguments) -> Result<Self> {
        let line = match (&arguments.key_delimiter, arguments.tombstone) {
            (Some(delimiter), _) => Line::KeyAndValue(delimiter.0.clone()),
            (None, true) => Line::Key,
            (None, false) => Line::Value(arguments.key.clone().map(String::into_bytes)),
        };
        let headers = arguments.headers.iter().map(|text| header(text));
        Ok(Self {
            topic: arguments.topic.clone(),
            partition: arguments.partition,
            line,
            headers: headers.collect::<Result<_>>()?,
            null: arguments.null,
        })
    }

    /// The headers, to be lent to every record.
    pub(super) fn headers(&self) -> Vec<Header<'_>> {
        self.headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref().map(str::as_bytes),
            })
            .collect()
    }

    /// The record that a line is.
    pub(super) fn record<'a>(&'a self, line: &'a [u8], headers: &'a [Header<'a>]) -> Record<'a> {
        let (key, value) = match &self.line {
            Line::Value(key) => (key.as_deref(), Some(line)),
            Line::Key => (Some(line), None),
            Line::KeyAndValue(delimiter) => match find(line, delimiter) {
                Some(at) => {
                    let (key, rest) = line.split_at(at);
                    (Some(key), rest.get(delimiter.len()..))
                }
                None => (None, Some(line)),
            },
        };
        let mut record = Record::to(&self.topic).headers(headers);
        record.partition = self.partition;
        record.key = key;
        record.value = value.filter(|value| !(self.null && value.is_empty()));
        record
    }
}

fn header(text: &str) -> Result<(String, Option<String>)> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(Failure::usage(format!("the header {text} has no name")));
    }
    Ok((key.to_owned(), value))
}

fn find(line: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [byte] => line.iter().position(|other| other == byte),
        bytes => line.windows(bytes.len()).position(|window| window == bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn shape(flags: &[&str]) -> Shape {
        let words = ["ottla", "produce", "orders"].iter().chain(flags);
        let Command::Produce(arguments) = Arguments::parse_from(words).command else {
            panic!("produce");
        };
        Shape::new(&arguments).unwrap()
    }

    fn parts(shape: &Shape, line: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let record = shape.record(line, &[]);
        (record.key.map(Vec::from), record.value.map(Vec::from))
    }

    fn some(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn the_first_delimiter_parts_key_and_value() {
        let colon = shape(&["-K", ":"]);
        assert_eq!(parts(&colon, b"a:b:c"), (some("a"), some("b:c")));
        assert_eq!(parts(&colon, b":b"), (some(""), some("b")));
        assert_eq!(parts(&colon, b"a:"), (some("a"), some("")));
        assert_eq!(parts(&colon, b"plain"), (None, some("plain")));
        let arrow = shape(&["-K", "=>"]);
        assert_eq!(parts(&arrow, b"a=b=>c"), (some("a=b"), some("c")));
        assert_eq!(parts(&arrow, b"="), (None, some("=")));
    }

    #[test]
    fn an_empty_value_is_null_only_when_asked_for() {
        assert_eq!(parts(&shape(&[]), b""), (None, some("")));
        assert_eq!(parts(&shape(&["-Z"]), b""), (None, None));
        let keyed = shape(&["-Z", "-K", ":"]);
        assert_eq!(parts(&keyed, b"a:"), (some("a"), None));
        assert_eq!(parts(&shape(&["-k", "x"]), b"v"), (some("x"), some("v")));
    }

    #[test]
    fn a_tombstones_line_is_its_key() {
        assert_eq!(parts(&shape(&["--tombstone"]), b"a"), (some("a"), None));
    }

    #[test]
    fn headers_keep_their_order_their_repetitions_and_null() {
        let shape = shape(&["-H", "a=1", "-H", "a=2=3", "-H", "b", "-H", "c="]);
        let headers = shape.headers();
        let flat: Vec<_> = headers.iter().map(|h| (h.key, h.value)).collect();
        let expected: [(&str, Option<&[u8]>); 4] = [
            ("a", Some(b"1")),
            ("a", Some(b"2=3")),
            ("b", None),
            ("c", Some(b"")),
        ];
        assert_eq!(flat, expected);
        assert!(header("=1").is_err());
    }
}
