//! Records to standard output.

use super::format::{Null, Template};
use super::json;
use crate::arguments::{ConsumeArguments, Delimiter};
use ottla::consumer::ConsumerRecord;
use std::io::{self, Write};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 256 << 10;

#[derive(Debug)]
enum Style {
    Text(Template, Null),
    Json,
}

/// Prints records. Whoever reads standard output slowly holds the caller up, and nothing else: the
/// group is kept alive on other threads.
#[derive(Debug)]
pub(super) struct Printer {
    style: Style,
    gathered: Vec<u8>,
}

impl Printer {
    pub(super) fn new(arguments: &ConsumeArguments) -> Self {
        let null = match arguments.null {
            true => Null::Shown,
            false => Null::Hidden,
        };
        let style = match (&arguments.format, arguments.json) {
            (_, true) => Style::Json,
            (Some(template), false) => Style::Text(template.clone(), null),
            (None, false) => {
                let bytes = |delimiter: &Delimiter| delimiter.0.clone();
                let between = arguments.key_delimiter.as_ref().map(bytes);
                let after = arguments.delimiter.as_ref().map(bytes);
                let after = after.unwrap_or_else(|| b"\n".to_vec());
                Style::Text(Template::delimited(between.as_deref(), &after), null)
            }
        };
        Self {
            style,
            gathered: Vec::with_capacity(GATHERED_BYTES),
        }
    }

    /// Prints a record, soon.
    pub(super) fn print(
        &mut self,
        record: &ConsumerRecord,
        leader: impl FnOnce(&ConsumerRecord) -> Option<i32>,
    ) -> io::Result<()> {
        match &self.style {
            Style::Text(template, null) => template.write(record, *null, &mut self.gathered),
            Style::Json => json::write(record, leader(record), &mut self.gathered),
        }
        match self.gathered.len() < GATHERED_BYTES {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// Prints what is left, now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.write()?;
        io::stdout().flush()
    }

    fn write(&mut self) -> io::Result<()> {
        let written = io::stdout().write_all(&self.gathered);
        self.gathered.clear();
        // One huge record shall not hold its memory for good.
        self.gathered.shrink_to(4 * GATHERED_BYTES);
        written
    }
}
