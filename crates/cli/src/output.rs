//! Tables for people.

use std::io::{self, Write};

/// Rows of text under a row of names; a column is as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::default();
        table.push(names);
        table
    }

    pub(crate) fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Writes the table with its columns to the left, as Kafka's own tools do.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        self.write_aligned(to, |_| Align::Left)
    }

    /// Writes the table with columns aligned as `align` says of their numbers.
    pub(crate) fn write_aligned(
        &self,
        to: &mut impl Write,
        align: impl Fn(usize) -> Align,
    ) -> io::Result<()> {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align(column) {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        widths
    }
}

/// Where a cell's text stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A figure that may be unknown, as Kafka's tools show it.
pub(crate) fn or_dash(figure: Option<impl ToString>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string())
}

/// A count with commas between thousands.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_text() {
        let mut table = Table::new(["TOPIC", "LAG"]);
        table.push(["orders-été", "7"]);
        table.push(["a", "-"]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "TOPIC       LAG\norders-été  7\na           -\n");
    }

    #[test]
    fn figures_stand_to_the_right() {
        let mut table = Table::new(["", "n"]);
        table.push(["sent", "1,000"]);
        let mut out = Vec::new();
        let align = |column| match column {
            0 => Align::Left,
            _ => Align::Right,
        };
        table.write_aligned(&mut out, align).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "          n\nsent  1,000\n"
        );
    }

    #[test]
    fn thousands_are_grouped_from_the_right() {
        let grouped = [0, 999, 1000, 123_456, 1_234_567].map(thousands);
        assert_eq!(grouped, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_unknown_is_a_dash() {
        assert_eq!(or_dash(None::<u64>), "-");
        assert_eq!(or_dash(Some(0)), "0");
    }
}
