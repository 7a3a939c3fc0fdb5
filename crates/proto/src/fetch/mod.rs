//! Fetching, seen by one consumer: where it stands in each partition, what to ask of which broker,
//! and how the bytes that come back become records.
//!
//! [`Fetcher`] is a state machine in quinn's manner and knows partitions; [`Cursor`] walks what was
//! fetched of one of them, lazily, on the user's side; [`Progress`] is the little that both share.

pub(crate) mod backoff;
mod cursor;
mod fetcher;
mod partition;
mod progress;
#[cfg(test)]
mod testing;
mod verdict;

pub use cursor::{Cursor, FetchedRecord, TimestampKind};
pub use fetcher::{
    Event, FetchConfig, FetchQuery, FetchRequest, FetchedPartition, Fetcher, Found, OffsetQuery,
    OffsetsRequest, Pause, Ready, Ticket, Transmit,
};
pub use partition::{Aborted, Start};
pub use progress::Progress;
pub use verdict::{FetchVerdict, fetch_verdict};

use std::time::Duration;

/// Where to begin when there is no offset to begin at, or none that the log still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    #[default]
    Latest,
    /// Nowhere: the user is told, and seeks.
    None,
}

/// Which records may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All below the high watermark, also those of transactions that were aborted or are open.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions, up to the first open one.
    ReadCommitted,
}

/// A point in a log to look up an offset for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The log's start.
    Earliest,
    /// The log's end, as far as the isolation allows to see.
    Latest,
    /// The first record of this time or later, since the Unix epoch.
    At(Duration),
}
