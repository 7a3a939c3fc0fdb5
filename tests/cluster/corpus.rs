//! Real text as keyed records, and what was read compared with what was written.

use std::collections::HashMap;

/// A Debian package list: the key of each line is its paragraph's package.
static TEXT: &str = include_str!("../../benches/versus/corpus.txt");

/// A record as a line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
}

/// The first `count` lines, over and over if the text has fewer.
pub(crate) fn lines(count: usize) -> impl Iterator<Item = Line> {
    let rounds = std::iter::repeat_with(|| {
        let mut key = "";
        TEXT.lines().map(move |value| {
            key = value.strip_prefix("Package: ").unwrap_or(key);
            Line { key, value }
        })
    });
    rounds.flatten().take(count)
}

/// The lines as a file: key, tab, value.
pub(crate) fn as_file(lines: impl Iterator<Item = Line>) -> Vec<u8> {
    let mut file = Vec::new();
    for Line { key, value } in lines {
        file.extend_from_slice(key.as_bytes());
        file.push(b'\t');
        file.extend_from_slice(value.as_bytes());
        file.push(b'\n');
    }
    file
}

/// Follows a reader and holds it to the lines that were written: all of them, each once, each key's
/// in order and in one partition, a partition's offsets without a gap.
#[derive(Debug)]
pub(crate) struct Reading {
    expected: HashMap<&'static str, (Vec<&'static str>, usize, Option<i32>)>,
    missing: usize,
    next_offset: HashMap<i32, i64>,
}

impl Reading {
    pub(crate) fn of(lines: impl Iterator<Item = Line>) -> Self {
        let mut expected: HashMap<&str, (Vec<&str>, usize, Option<i32>)> = HashMap::new();
        let mut missing = 0;
        for Line { key, value } in lines {
            expected.entry(key).or_default().0.push(value);
            missing += 1;
        }
        Self {
            expected,
            missing,
            next_offset: HashMap::new(),
        }
    }

    pub(crate) fn saw(&mut self, partition: i32, offset: i64, key: &[u8], value: &[u8]) {
        let next = self.next_offset.entry(partition).or_insert(0);
        assert_eq!(
            offset, *next,
            "partition {partition} goes on at another offset"
        );
        *next += 1;
        let name = std::str::from_utf8(key).unwrap();
        let Some((values, seen, place)) = self.expected.get_mut(name) else {
            panic!("nobody wrote the key {name}");
        };
        let home = *place.get_or_insert(partition);
        assert_eq!(
            home, partition,
            "the records of {name} lie in two partitions"
        );
        let Some(wanted) = values.get(*seen) else {
            panic!("{name} has more than its {} records", values.len());
        };
        assert!(
            wanted.as_bytes() == value,
            "record {seen} of {name} should be {wanted:?} and is {:?}",
            String::from_utf8_lossy(value)
        );
        *seen += 1;
        self.missing -= 1;
    }

    /// How many records are still to come.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// Where each key lies.
    pub(crate) fn places(&self) -> HashMap<&'static str, i32> {
        let places = self.expected.iter();
        places
            .filter_map(|(key, (_, _, place))| Some((*key, (*place)?)))
            .collect()
    }
}
