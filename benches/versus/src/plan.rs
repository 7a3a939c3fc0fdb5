//! Which cells are measured.

use serde::Serialize;

use crate::arguments::{Arguments, Plan};
use crate::job::{BUFFER_BYTES, Codec, Tuning};
use crate::peers::{FLOOR, PEERS, Peer};

/// A cell moves about this much, so that every cell takes about as long.
const CELL_BYTES: usize = 256 << 20;
const RECORDS_MIN: usize = 25_000;
const RECORDS_MAX: usize = 2_000_000;

/// With a round trip there is waiting to be measured, not work: fewer records show it as well.
const RECORDS_MAX_DISTANT: usize = 1_000_000;

/// The size at which everything besides sizes and codecs is compared.
const SIZE: usize = 100;

/// What is sent, and how far away the broker is: one table of clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    pub size: usize,
    pub codec: Codec,
    pub tuning: Tuning,
    pub keyed: bool,
    pub callers: usize,
    pub partitions: i32,
    pub rtt_ms: usize,
    /// Records that are measured.
    pub records: usize,
}

impl Cell {
    /// The conditions of the comparison, with what differs left to the caller.
    pub fn standard(size: usize, codec: Codec) -> Cell {
        Cell {
            size,
            codec,
            tuning: Tuning::Same,
            keyed: false,
            callers: 1,
            partitions: 12,
            rtt_ms: 0,
            records: (CELL_BYTES / size).clamp(RECORDS_MIN, RECORDS_MAX),
        }
    }

    fn distant(rtt_ms: usize) -> Cell {
        let cell = Cell::standard(SIZE, Codec::None);
        Cell {
            rtt_ms,
            partitions: 1,
            records: cell.records.min(RECORDS_MAX_DISTANT),
            ..cell
        }
    }

    /// Whether it belongs to the table of sizes and codecs, under which the floor stands.
    pub fn is_standard(&self) -> bool {
        let standard = Cell {
            records: self.records,
            ..Cell::standard(self.size, self.codec)
        };
        *self == standard
    }

    /// Records that a client sends before the measuring begins, at least: enough to have touched the
    /// memory that it holds unsent records in, which is paid for once.
    pub fn warm_up(&self) -> usize {
        let buffer = match self.rtt_ms {
            0 => BUFFER_BYTES / 4 * 5 / self.size,
            _ => 0,
        };
        buffer.min(self.records).max(self.records / 10)
    }

    /// Whether some client may compress, so that repeated text would show.
    pub fn compressed(&self) -> bool {
        self.codec != Codec::None || self.tuning == Tuning::OwnDefaults
    }

    pub fn title(&self) -> String {
        let mut title = format!("{} bytes, {}", self.size, self.codec.name());
        if self.tuning == Tuning::OwnDefaults {
            title = format!("{} bytes, each client's own defaults", self.size);
        }
        title += &format!(
            ", {} partition{}, {}, {} caller{}",
            self.partitions,
            plural(self.partitions as usize),
            if self.keyed { "keyed" } else { "no key" },
            self.callers,
            plural(self.callers),
        );
        if self.rtt_ms > 0 {
            title += &format!(", {} ms round trip", self.rtt_ms);
        }
        title
    }

    /// The clients in the order in which they take turns.
    pub fn peers<'a>(
        &self,
        wanted: &'a [&'static Peer],
    ) -> impl Iterator<Item = &'static Peer> + 'a {
        // It has no partitioner to be compared, and no promise that its batches keep their order.
        let all = self.is_standard();
        let floor = all.then_some(&FLOOR);
        let wanted = wanted.iter().copied();
        wanted
            .filter(move |peer| all || peer.idempotent)
            .chain(floor)
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The clients that the arguments name, in their usual order.
pub fn peers(arguments: &Arguments) -> Vec<&'static Peer> {
    PEERS
        .iter()
        .filter(|peer| arguments.peers.iter().any(|name| name == peer.name))
        .collect()
}

pub fn cells(arguments: &Arguments) -> Vec<Cell> {
    let mut cells = match arguments.plan {
        Plan::Named => named(arguments),
        Plan::Quick => quick(),
        Plan::Full => full(),
    };
    if arguments.bootstrap.is_some() {
        // A real cluster has the round trip that it has.
        for cell in &mut cells {
            cell.rtt_ms = 0;
        }
        cells.dedup();
    }
    if let Some(records) = arguments.records {
        for cell in &mut cells {
            cell.records = records;
        }
    }
    cells
}

fn named(arguments: &Arguments) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &rtt_ms in &arguments.rtts {
        for &codec in &arguments.codecs {
            for &size in &arguments.sizes {
                cells.push(Cell {
                    tuning: arguments.tuning,
                    keyed: arguments.keyed,
                    callers: arguments.callers,
                    partitions: arguments.partitions,
                    rtt_ms,
                    ..Cell::standard(size, codec)
                });
            }
        }
    }
    cells
}

fn quick() -> Vec<Cell> {
    let fewer = |cell: Cell| Cell {
        records: cell.records / 4,
        ..cell
    };
    vec![
        fewer(Cell::standard(100, Codec::None)),
        fewer(Cell::standard(1000, Codec::None)),
        fewer(Cell::standard(1000, Codec::Lz4)),
        fewer(Cell::distant(50)),
    ]
}

fn full() -> Vec<Cell> {
    let mut cells = Vec::new();
    for codec in Codec::ALL {
        for size in [10, 100, 1000, 10_000] {
            cells.push(Cell::standard(size, codec));
        }
    }
    let same = || Cell::standard(SIZE, Codec::None);
    cells.push(Cell {
        tuning: Tuning::OwnDefaults,
        ..same()
    });
    for (callers, partitions, keyed) in [
        (8, 12, false),
        (1, 12, true),
        (1, 1000, false),
        (1, 1000, true),
    ] {
        cells.push(Cell {
            callers,
            partitions,
            keyed,
            ..same()
        });
    }
    cells.extend([0, 1, 5, 50].map(Cell::distant));
    cells
}
