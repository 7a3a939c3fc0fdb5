//! The table a person reads.

use crate::broker::Counts;
use crate::measure::Cost;

/// One run of one client.
#[derive(Debug, Clone)]
pub struct Run {
    pub cost: Cost,
    pub counts: Counts,
}

/// All runs of one client in one cell, and a run that counted allocations.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub runs: Vec<Run>,
    pub allocations: Option<u64>,
    pub failure: Option<String>,
}

/// Nanoseconds a record: median, least and most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Some(Spread {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

impl Row {
    fn cpu(&self, records: usize) -> Option<Spread> {
        Spread::of(
            self.runs
                .iter()
                .map(|run| run.cost.cpu.as_nanos() as f64 / records as f64),
        )
    }

    fn wall(&self, records: usize) -> Option<Spread> {
        Spread::of(
            self.runs
                .iter()
                .map(|run| run.cost.wall.as_nanos() as f64 / records as f64),
        )
    }
}

/// Prints one cell; the ratio is that of client CPU to the first row's.
pub fn print(title: &str, records: usize, warm_up: usize, rows: &[Row]) {
    println!("\n{title}");
    println!(
        "{:<10} {:>9} {:>13} {:>7} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "client", "cpu ns", "(range)", "ratio", "wall ns", "allocs", "bytes", "records", "batches"
    );
    println!(
        "{:<10} {:>9} {:>13} {:>7} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "", "/record", "", "", "/record", "/record", "/record", "/batch", "/request"
    );
    let reference = rows
        .first()
        .and_then(|row| row.cpu(records))
        .map(|spread| spread.median);
    for row in rows {
        let (Some(cpu), Some(wall), Some(run)) =
            (row.cpu(records), row.wall(records), row.runs.first())
        else {
            println!(
                "{:<10} failed: {}",
                row.name,
                row.failure.as_deref().unwrap_or("no run")
            );
            continue;
        };
        let total = (records + warm_up) as f64;
        let counts = &run.counts;
        let allocations = row.allocations.map_or("-".to_owned(), |count| {
            format!("{:.3}", count as f64 / records as f64)
        });
        println!(
            "{:<10} {:>9.0} {:>13} {:>7.2} {:>9.0} {:>9} {:>9.1} {:>10.0} {:>9.1}",
            row.name,
            cpu.median,
            format!("({:.0}-{:.0})", cpu.least, cpu.most),
            cpu.median / reference.unwrap_or(cpu.median),
            wall.median,
            allocations,
            counts.bytes as f64 / total,
            total / counts.batches as f64,
            counts.batches as f64 / counts.requests as f64,
        );
        if let Some(failure) = &row.failure {
            println!("{:<10} one run failed: {failure}", "");
        }
    }
}
