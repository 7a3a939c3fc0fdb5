//! What was measured, as numbers.

use std::process::Command;

use serde::Serialize;

use crate::broker::Counts;
use crate::measure::Cost;
use crate::plan::Cell;
use crate::targets::Target;

/// All of it, as `--json` writes it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub commit: String,
    pub machine: String,
    pub runs: usize,
    /// How long all of it took.
    pub seconds: u64,
    pub notes: Vec<Note>,
    pub cells: Vec<Table>,
    pub targets: Vec<Target>,
}

/// Which version a name stands for.
#[derive(Debug, Serialize)]
pub struct Note {
    pub client: &'static str,
    pub note: String,
}

/// One cell and a row for each client.
#[derive(Debug, Serialize)]
pub struct Table {
    #[serde(flatten)]
    pub cell: Cell,
    pub rows: Vec<Row>,
}

/// All runs of one client in one cell. Times are nanoseconds a record, an entry a run.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub client: &'static str,
    pub cpu_ns: Vec<f64>,
    pub wall_ns: Vec<f64>,
    /// The compressor's part; only the floor's is known.
    pub codec_ns: Vec<f64>,
    /// Allocations a record.
    pub allocations: Option<f64>,
    /// Bytes of record batches over bytes of values.
    pub bytes_ratio: Option<f64>,
    pub records_per_batch: Option<f64>,
    pub batches_per_request: Option<f64>,
    /// Why a run is missing.
    pub failure: Option<String>,
}

impl Row {
    pub fn new(client: &'static str) -> Row {
        Row {
            client,
            cpu_ns: Vec::new(),
            wall_ns: Vec::new(),
            codec_ns: Vec::new(),
            allocations: None,
            bytes_ratio: None,
            records_per_batch: None,
            batches_per_request: None,
            failure: None,
        }
    }

    /// Takes in one run of `records` records of `size` bytes; the broker counted the warm-up too.
    pub fn add(&mut self, cost: &Cost, counts: Option<&Counts>, records: usize, size: usize) {
        let each = |ns: u64| ns as f64 / records as f64;
        self.cpu_ns.push(each(cost.cpu_ns));
        self.wall_ns.push(each(cost.wall_ns));
        if cost.codec_ns > 0 {
            self.codec_ns.push(each(cost.codec_ns));
        }
        if let Some(counts) = counts {
            let (sent, batches) = (counts.records as f64, counts.batches as f64);
            self.bytes_ratio = Some(counts.bytes as f64 / (sent * size as f64));
            self.records_per_batch = Some(sent / batches);
            self.batches_per_request = Some(batches / counts.requests as f64);
        }
    }

    pub fn cpu(&self) -> Option<Spread> {
        Spread::of(&self.cpu_ns)
    }

    pub fn wall(&self) -> Option<Spread> {
        Spread::of(&self.wall_ns)
    }

    pub fn codec(&self) -> Option<Spread> {
        Spread::of(&self.codec_ns)
    }
}

/// Median, least and most of some runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], upper)
        } else {
            upper
        };
        Some(Spread {
            median,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

impl Table {
    pub fn row(&self, client: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.client == client)
    }
}

/// The commit that is measured; a plus sign says that the tree has changes besides.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let changed = git(&["status", "--porcelain"]).is_some_and(|lines| !lines.is_empty());
    format!("{}{}", commit.trim(), if changed { "+" } else { "" })
}

/// Cores and their kind.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let description = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = description
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown processor");
    format!("{cores} cores, {model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 9.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
