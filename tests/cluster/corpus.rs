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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads back the first ten lines, but for what is done to their list.
    fn read(change: impl FnOnce(&mut Vec<Line>)) -> usize {
        let mut reading = Reading::of(lines(10));
        let mut read: Vec<_> = lines(10).collect();
        change(&mut read);
        for (offset, line) in (0..).zip(read) {
            reading.saw(0, offset, line.key.as_bytes(), line.value.as_bytes());
        }
        reading.missing()
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        assert_eq!(read(|_| {}), 0);
        assert_eq!(read(|lines| lines.truncate(9)), 1);
    }

    #[test]
    #[should_panic = "record 2 of 0ad should be"]
    fn a_lost_line_is_noticed() {
        read(|lines| {
            lines.remove(2);
        });
    }

    #[test]
    #[should_panic = "record 2 of 0ad should be"]
    fn swapped_lines_are_noticed() {
        read(|lines| lines.swap(2, 3));
    }

    #[test]
    #[should_panic = "has more than its"]
    fn a_repeated_line_is_noticed() {
        read(|lines| lines.push(lines[lines.len() - 1]));
    }

    #[test]
    #[should_panic = "goes on at another offset"]
    fn a_gap_in_the_offsets_is_noticed() {
        let mut reading = Reading::of(lines(2));
        reading.saw(0, 1, b"0ad", b"Package: 0ad");
    }

    #[test]
    #[should_panic = "lie in two partitions"]
    fn a_key_in_two_partitions_is_noticed() {
        let mut reading = Reading::of(lines(2));
        reading.saw(0, 0, b"0ad", b"Package: 0ad");
        reading.saw(1, 0, b"0ad", b"Version: 0.0.26-3");
    }

    #[test]
    fn the_text_goes_round_with_its_keys() {
        let count = TEXT.lines().count();
        let again: Vec<_> = lines(count + 3).skip(count).collect();
        assert_eq!(again, lines(3).collect::<Vec<_>>());
        assert!(lines(count).all(|line| !line.key.is_empty() && !line.key.contains('\t')));
    }
}
