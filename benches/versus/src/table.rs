//! The tables that a person reads.

use crate::report::{Report, Row, Table};
use crate::targets::Verdict;

/// What is measured, where, and with whom.
pub fn print_head(report: &Report) {
    println!(
        "commit {}, {}; acks all, linger 5 ms, batches of 1 MB; medians of {} runs",
        report.commit, report.machine, report.runs
    );
    for note in &report.notes {
        println!("  {:<8} {}", note.client, note.note);
    }
}

/// One cell; the ratio is that of client CPU to the first row's.
pub fn print(table: &Table) {
    println!("\n{}, {} records", table.cell.title(), table.cell.records);
    println!(
        "{:<10} {:>9} {:>13} {:>7} {:>9} {:>9} {:>8} {:>9} {:>8}",
        "client", "cpu ns", "(range)", "ratio", "wall ns", "allocs", "bytes", "records", "batches"
    );
    println!(
        "{:<10} {:>9} {:>13} {:>7} {:>9} {:>9} {:>8} {:>9} {:>8}",
        "", "/record", "", "to ours", "/record", "/record", "/raw", "/batch", "/request"
    );
    let reference = table.rows.first().and_then(Row::cpu);
    for row in &table.rows {
        print_row(row, reference.map(|spread| spread.median));
    }
}

fn print_row(row: &Row, reference: Option<f64>) {
    let (Some(cpu), Some(wall)) = (row.cpu(), row.wall()) else {
        let failure = row.failure.as_deref().unwrap_or("no run");
        println!("{:<10} {:>9}  {failure}", row.client, "failed");
        return;
    };
    println!(
        "{:<10} {:>9.0} {:>13} {:>7.2} {:>9.0} {:>9} {:>8} {:>9} {:>8}",
        row.client,
        cpu.median,
        format!("({:.0}-{:.0})", cpu.least, cpu.most),
        cpu.median / reference.unwrap_or(cpu.median),
        wall.median,
        optional(row.allocations, 3),
        optional(row.bytes_ratio, 3),
        optional(row.records_per_batch, 0),
        optional(row.batches_per_request, 1),
    );
    if let Some(codec) = row.codec() {
        let range = format!("({:.0}-{:.0})", codec.least, codec.most);
        println!("{:<10} {:>9.0} {range:>13}", "  codec", codec.median);
    }
    if let Some(failure) = &row.failure {
        println!("{:<10} a run failed: {failure}", "");
    }
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Whether the targets hold, as far as their cells were measured.
pub fn print_end(report: &Report) {
    if !report.targets.is_empty() {
        println!("\n{:<7} target: measured", "");
    }
    for target in &report.targets {
        let verdict = match target.verdict {
            Verdict::Holds => "holds",
            Verdict::Missed => "MISSED",
        };
        println!("{verdict:<7} {}: {}", target.target, target.measured);
    }
    println!("\n{} s", report.seconds);
}
