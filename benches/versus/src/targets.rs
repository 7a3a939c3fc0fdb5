//! What the producer promises against its peers, held against what was measured.

use serde::Serialize;

use crate::job::{Codec, Tuning};
use crate::peers::{FLOOR, PEERS};
use crate::plan::Cell;
use crate::report::{Row, Table};

/// The floor is counted at so much at most, and ours may cost twice of it.
const FLOOR_MAX_NS: f64 = 60.0;
const HUNDRED_BYTES_NS: f64 = 110.0;

/// What a compressed record may cost beside the one thread that encodes, compresses and sends it.
const BESIDES_FLOOR_NS: f64 = 80.0;

/// How much larger our batches may be than the smallest of a peer's.
const BYTES_RATIO_MAX: f64 = 1.03;

const ALLOCATIONS_MAX: f64 = 0.05;

/// Eight callers against one, and 1,000 partitions against 12.
const VARIATION_MAX: f64 = 1.3;

/// How often faster than krafka at a distance.
const DISTANT_FACTOR: f64 = 5.0;

/// Two clients that wait for the same round trips end this close together.
const DISTANT_NOISE: f64 = 1.02;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Holds,
    Missed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    pub target: String,
    pub measured: String,
    pub verdict: Verdict,
}

/// The targets whose cells are there.
pub fn check(tables: &[Table]) -> Vec<Target> {
    let mut targets = Vec::new();
    for table in tables.iter().filter(|table| table.cell.is_standard()) {
        match table.cell.codec {
            Codec::None => targets.extend(uncompressed(table)),
            Codec::Lz4 | Codec::Zstd => targets.extend(compressed(table)),
        }
        targets.extend(allocations(table));
    }
    let standard = Cell::standard(100, Codec::None);
    let find = |cell: &Cell| {
        tables.iter().find(|table| {
            let records = table.cell.records;
            table.cell
                == Cell {
                    records,
                    ..cell.clone()
                }
        })
    };
    let varied = |change: fn(&mut Cell)| {
        let mut cell = standard.clone();
        change(&mut cell);
        find(&cell)
    };
    if let Some(table) = varied(|cell| cell.tuning = Tuning::OwnDefaults) {
        targets.extend(below_peers(table));
    }
    let usual = find(&standard);
    targets.extend(at_most(usual, varied(|cell| cell.callers = 8)));
    targets.extend(at_most(usual, varied(|cell| cell.partitions = 1000)));
    let keyed = |cell: &mut Cell| (cell.partitions, cell.keyed) = (1000, true);
    targets.extend(varied(keyed).and_then(below_peers));
    let distant = |cell: &mut Cell| (cell.partitions, cell.rtt_ms) = (1, 50);
    if let Some(table) = varied(distant) {
        targets.extend(far_from_krafka(table));
        targets.extend(no_slower(table));
    }
    targets
}

fn target(target: String, measured: String, holds: bool) -> Target {
    let verdict = if holds {
        Verdict::Holds
    } else {
        Verdict::Missed
    };
    Target {
        target,
        measured,
        verdict,
    }
}

fn ours(table: &Table) -> Option<&Row> {
    table.row(PEERS[0].name)
}

fn cpu(row: &Row) -> Option<f64> {
    row.cpu().map(|spread| spread.median)
}

fn wall(row: &Row) -> Option<f64> {
    row.wall().map(|spread| spread.median)
}

/// The peer with the lowest value, and that value.
fn best(table: &Table, value: impl Fn(&Row) -> Option<f64>) -> Option<(&'static str, f64)> {
    table
        .rows
        .iter()
        .filter(|row| row.client != PEERS[0].name && row.client != FLOOR.name)
        .filter_map(|row| Some((row.client, value(row)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

fn uncompressed(table: &Table) -> Vec<Target> {
    let mut targets = Vec::from_iter(below_peers(table));
    if table.cell.size == 100
        && let Some(ours) = ours(table).and_then(cpu)
        && let Some(floor) = table.row(FLOOR.name).and_then(cpu)
    {
        let limit = HUNDRED_BYTES_NS.max(2.0 * floor.min(FLOOR_MAX_NS));
        targets.push(target(
            format!("100 bytes, none: at most {limit:.0} ns"),
            format!("{ours:.0} ns, floor {floor:.0} ns"),
            ours <= limit,
        ));
    }
    targets
}

fn compressed(table: &Table) -> Vec<Target> {
    let mut targets = Vec::new();
    let (size, codec) = (table.cell.size, table.cell.codec.name());
    let Some(row) = ours(table) else {
        return targets;
    };
    if let Some(ours) = cpu(row)
        && let Some(row) = table.row(FLOOR.name)
        && let (Some(floor), Some(alone)) = (cpu(row), row.codec())
    {
        targets.push(target(
            format!("{size} bytes, {codec}: at most the floor and {BESIDES_FLOOR_NS:.0} ns"),
            format!(
                "{ours:.0} ns, floor {floor:.0} ns ({:+.0}), codec alone {:.0} ns",
                ours - floor,
                alone.median
            ),
            ours <= floor + BESIDES_FLOOR_NS,
        ));
    }
    if let Some(ours) = row.bytes_ratio
        && let Some((name, ratio)) = best(table, |row| row.bytes_ratio)
    {
        let more = (ours / ratio - 1.0) * 100.0;
        targets.push(target(
            format!("{size} bytes, {codec}: batches at most 3 % larger than any peer's"),
            format!("{ours:.3} of the raw bytes, {name} {ratio:.3} ({more:+.1} %)"),
            ours <= ratio * BYTES_RATIO_MAX,
        ));
    }
    targets
}

fn allocations(table: &Table) -> Option<Target> {
    let measured = ours(table)?.allocations?;
    let (size, codec) = (table.cell.size, table.cell.codec.name());
    Some(target(
        format!("{size} bytes, {codec}: at most {ALLOCATIONS_MAX} allocations a record"),
        format!("{measured:.3}"),
        measured <= ALLOCATIONS_MAX,
    ))
}

fn below_peers(table: &Table) -> Option<Target> {
    let ours = cpu(ours(table)?)?;
    let (name, best) = best(table, cpu)?;
    Some(target(
        format!("{}: below every peer", table.cell.title()),
        format!("{ours:.0} ns, {name} {best:.0} ns"),
        ours < best,
    ))
}

fn at_most(usual: Option<&Table>, varied: Option<&Table>) -> Option<Target> {
    let (usual, varied) = (usual?, varied?);
    let (before, after) = (cpu(ours(usual)?)?, cpu(ours(varied)?)?);
    Some(target(
        format!(
            "{}: at most {VARIATION_MAX} times 12 partitions and 1 caller",
            varied.cell.title()
        ),
        format!("{after:.0} ns, {before:.0} ns ({:.2})", after / before),
        after <= before * VARIATION_MAX,
    ))
}

fn far_from_krafka(table: &Table) -> Option<Target> {
    let ours = wall(ours(table)?)?;
    let krafka = wall(table.row("krafka")?)?;
    Some(target(
        format!(
            "{}: at least {DISTANT_FACTOR} times as fast as krafka",
            table.cell.title()
        ),
        format!(
            "{ours:.0} ns of wall time, {krafka:.0} ns ({:.1})",
            krafka / ours
        ),
        krafka >= ours * DISTANT_FACTOR,
    ))
}

fn no_slower(table: &Table) -> Option<Target> {
    let ours = wall(ours(table)?)?;
    let (name, best) = best(table, wall)?;
    Some(target(
        format!(
            "{}: no slower than any peer (2 % apart is even)",
            table.cell.title()
        ),
        format!("{ours:.0} ns of wall time, {name} {best:.0} ns"),
        ours <= best * DISTANT_NOISE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(client: &'static str, ns: f64) -> Row {
        Row {
            cpu_ns: vec![ns],
            wall_ns: vec![ns],
            ..Row::new(client)
        }
    }

    fn table(cell: Cell, rows: Vec<Row>) -> Table {
        Table { cell, rows }
    }

    fn verdicts(tables: &[Table]) -> Vec<Verdict> {
        check(tables).iter().map(|target| target.verdict).collect()
    }

    #[test]
    fn a_hundred_bytes_are_held_against_the_peers_and_the_floor() {
        let cell = Cell::standard(100, Codec::None);
        let measured = |ours, floor| {
            let rows = vec![row("ours", ours), row("krafka", 115.0), row("floor", floor)];
            verdicts(&[table(cell.clone(), rows)])
        };
        use Verdict::{Holds, Missed};
        assert_eq!(measured(109.0, 20.0), [Holds, Holds]);
        assert_eq!(measured(112.0, 20.0), [Holds, Missed]);
        assert_eq!(measured(112.0, 58.0), [Holds, Holds]);
        assert_eq!(measured(119.0, 90.0), [Missed, Holds]);
    }

    #[test]
    fn a_compressed_cell_is_held_against_the_floor_and_the_smallest_batches() {
        let compressed = |ours: f64, ratio| {
            let ours = Row {
                bytes_ratio: Some(ratio),
                ..row("ours", ours)
            };
            let peer = Row {
                bytes_ratio: Some(0.5),
                ..row("java", 1.0)
            };
            let floor = Row {
                codec_ns: vec![500.0],
                bytes_ratio: Some(0.1),
                ..row("floor", 550.0)
            };
            let cell = Cell::standard(1000, Codec::Zstd);
            verdicts(&[table(cell, vec![ours, peer, floor])])
        };
        use Verdict::{Holds, Missed};
        assert_eq!(compressed(630.0, 0.515), [Holds, Holds]);
        assert_eq!(compressed(631.0, 0.516), [Missed, Missed]);
    }

    #[test]
    fn a_client_that_failed_is_no_best_peer_and_a_missing_cell_no_target() {
        let cell = Cell {
            partitions: 1000,
            keyed: true,
            ..Cell::standard(100, Codec::None)
        };
        let rows = vec![row("ours", 150.0), Row::new("kacrab"), row("java", 200.0)];
        let targets = check(&[table(cell, rows)]);
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].measured, "150 ns, java 200 ns");
        assert_eq!(targets[0].verdict, Verdict::Holds);
    }
}
