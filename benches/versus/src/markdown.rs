//! The tables for the README.

use std::fmt::Write;

use crate::job::Codec;
use crate::job::Tuning;
use crate::peers::{FLOOR, PEERS};
use crate::report::{Report, Row, Table};

/// What a column's cell says of a client.
type Show = fn(&Row, &Table) -> Option<String>;

pub fn tables(report: &Report) -> String {
    let standard = |codec: Codec| -> Vec<&Table> {
        let tables = report.cells.iter();
        tables
            .filter(|table| table.cell.is_standard() && table.cell.codec == codec)
            .collect()
    };
    let mut text = format!("CPU ns a record, medians of {} runs.\n", report.runs);
    for codec in Codec::ALL {
        let cells = standard(codec);
        let heading = format!("{}, bytes a record", codec.name());
        write_table(&mut text, &heading, &cells, by_size, show_cpu);
        if codec == Codec::None {
            write_table(
                &mut text,
                "allocations a record",
                &cells,
                by_size,
                show_allocations,
            );
        } else {
            write_table(
                &mut text,
                "bytes sent / raw bytes",
                &cells,
                by_size,
                show_bytes,
            );
        }
    }
    let others = report
        .cells
        .iter()
        .filter(|table| !table.cell.is_standard());
    let (distant, varied): (Vec<&Table>, Vec<&Table>) =
        others.partition(|table| table.cell.partitions == 1);
    write_table(&mut text, "", &varied, by_condition, show_cpu);
    let heading = "wall ns a record, one partition";
    write_table(&mut text, heading, &distant, by_round_trip, show_wall);
    text
}

fn write_table(
    text: &mut String,
    heading: &str,
    tables: &[&Table],
    column: fn(&Table) -> String,
    show: Show,
) {
    if tables.is_empty() {
        return;
    }
    let columns: Vec<String> = tables.iter().map(|table| column(table)).collect();
    let _ = writeln!(text, "\n| {heading} | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
    for peer in PEERS.iter().chain([&FLOOR]) {
        let cells: Vec<Option<String>> = tables
            .iter()
            .map(|table| show_or_failed(table, peer.name, show))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> = cells
            .into_iter()
            .map(|cell| cell.unwrap_or_default())
            .collect();
        let name = if peer.name == PEERS[0].name {
            "**ottla**"
        } else {
            peer.name
        };
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
}

fn show_or_failed(table: &Table, client: &str, show: Show) -> Option<String> {
    let row = table.row(client)?;
    if row.cpu_ns.is_empty() {
        return Some("failed".to_owned());
    }
    show(row, table)
}

fn by_size(table: &Table) -> String {
    grouped(table.cell.size as f64)
}

fn by_condition(table: &Table) -> String {
    let cell = &table.cell;
    let mut words = Vec::new();
    if cell.tuning == Tuning::OwnDefaults {
        words.push("own defaults".to_owned());
    }
    if cell.callers != 1 {
        words.push(format!("{} callers", cell.callers));
    }
    if cell.partitions != 12 || cell.keyed {
        words.push(format!(
            "{} partitions",
            grouped(f64::from(cell.partitions))
        ));
    }
    if cell.keyed {
        words.push("keyed".to_owned());
    }
    words.join(", ")
}

fn by_round_trip(table: &Table) -> String {
    format!("{} ms", table.cell.rtt_ms)
}

/// With its ratio to ours.
fn show_cpu(row: &Row, table: &Table) -> Option<String> {
    let cpu = row.cpu()?.median;
    if row.client == PEERS[0].name {
        return Some(format!("**{}**", grouped(cpu)));
    }
    let mut shown = grouped(cpu);
    if row.client == FLOOR.name {
        if let Some(codec) = row.codec() {
            let _ = write!(shown, ", the codec alone {}", grouped(codec.median));
        }
    } else if let Some(ours) = table.row(PEERS[0].name).and_then(Row::cpu) {
        let _ = write!(shown, " ({:.1})", cpu / ours.median);
    }
    Some(shown)
}

fn show_wall(row: &Row, _: &Table) -> Option<String> {
    Some(grouped(row.wall()?.median))
}

fn show_allocations(row: &Row, _: &Table) -> Option<String> {
    let allocations = row.allocations?;
    let digits = if allocations < 1.0 { 3 } else { 1 };
    Some(format!("{allocations:.digits$}"))
}

fn show_bytes(row: &Row, _: &Table) -> Option<String> {
    Some(format!("{:.3}", row.bytes_ratio?))
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(112.4), "112");
        assert_eq!(grouped(1_025.0), "1,025");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }
}
