//! Lines of any bytes, read in large blocks.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// How much is read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Blocks that are read ahead. The reading thread fills it, and waits when records are taken more
/// slowly than they are read.
const BLOCKS_MAX: usize = 4;
/// The longest line. No broker takes such a record, and a line must fit into memory.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Reads a file, or standard input, on a thread of its own.
pub(super) fn read(file: Option<PathBuf>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_MAX);
    std::thread::spawn(move || {
        let source: io::Result<Box<dyn Read>> = match &file {
            Some(file) => std::fs::File::open(file).map(|file| Box::new(file) as Box<dyn Read>),
            None => Ok(Box::new(io::stdin())),
        };
        let end = source.and_then(|source| read_blocks(source, &sender));
        if let Err(error) = end {
            // If nobody listens any more, nobody wants to know.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_blocks(
    mut source: impl Read,
    blocks: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        match source.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(bytes) => block.truncate(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if blocks.blocking_send(Ok(block)).is_err() {
            return Ok(());
        }
    }
}

/// Cuts blocks into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no newline was found.
    searched: usize,
}

impl Lines {
    /// Adds a block, once all of its predecessors' lines were taken.
    ///
    /// # Errors
    /// When a line is too long to go on with.
    pub(super) fn push(&mut self, block: Vec<u8>) -> Result<(), String> {
        if self.start == self.buffer.len() {
            self.buffer = block;
            (self.start, self.searched) = (0, 0);
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.searched = self.searched.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.len() > LINE_BYTES_MAX {
            let limit = LINE_BYTES_MAX >> 20;
            return Err(format!("a line is longer than {limit} MiB"));
        }
        self.buffer.extend_from_slice(&block);
        Ok(())
    }

    /// The next whole line, without its newline.
    pub(super) fn next_line(&mut self) -> Option<&[u8]> {
        let mut rest = self.buffer.get(self.searched..)?;
        // A slice never fails to be read.
        let skipped = rest.skip_until(b'\n').unwrap_or(0);
        let end = self.searched + skipped;
        self.searched = end;
        let line = self.buffer.get(self.start..end)?.strip_suffix(b"\n")?;
        self.start = end;
        Some(line)
    }

    /// What follows the last newline, if anything: it counts as a line.
    pub(super) fn last_line(&self) -> Option<&[u8]> {
        self.buffer
            .get(self.start..)
            .filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(blocks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for block in blocks {
            lines.push(block.to_vec()).unwrap();
            while let Some(line) = lines.next_line() {
                found.push(line.to_vec());
            }
        }
        found.extend(lines.last_line().map(<[u8]>::to_vec));
        found
    }

    #[test]
    fn lines_go_over_blocks_and_a_last_one_without_newline_counts() {
        let lines = cut(&[b"one\ntw", b"o", b"", b"\n\nfour\nfi", b"ve"]);
        let expected: [&[u8]; 5] = [b"one", b"two", b"", b"four", b"five"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_newline_at_the_end_begins_no_further_line() {
        assert_eq!(cut(&[b"one\n"]), [b"one"]);
        assert_eq!(cut(&[b"one", b"\n"]), [b"one"]);
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn bytes_stay_as_they_are() {
        assert_eq!(cut(&[b"\xff\0\r\n"]), [b"\xff\0\r"]);
    }

    #[test]
    fn blocks_of_any_size_give_the_same_lines() {
        let text: Vec<u8> = (0..200u32)
            .flat_map(|n| format!("{}\n", "x".repeat(n as usize % 37)).into_bytes())
            .collect();
        let whole = cut(&[&text]);
        assert_eq!(whole.len(), 200);
        for size in [1, 2, 3, 7, 36, 37, 38, 1000] {
            let blocks: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(cut(&blocks), whole, "blocks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        let block = vec![b'x'; 16 << 20];
        let pushed = (0..6).try_for_each(|_| {
            lines.push(block.clone())?;
            assert!(lines.next_line().is_none());
            Ok::<_, String>(())
        });
        assert_eq!(pushed.unwrap_err(), "a line is longer than 64 MiB");
    }

    #[test]
    fn everything_that_is_read_arrives() {
        let (sender, mut receiver) = mpsc::channel(BLOCKS_MAX);
        let text = vec![b'a'; 3 * BLOCK_BYTES / 2];
        read_blocks(text.as_slice(), &sender).unwrap();
        drop(sender);
        let mut bytes = 0;
        while let Some(block) = receiver.blocking_recv() {
            bytes += block.unwrap().len();
        }
        assert_eq!(bytes, text.len());
    }
}
