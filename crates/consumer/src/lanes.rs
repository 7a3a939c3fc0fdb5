//! A consumer's own connections.
//!
//! A broker answers one connection strictly in order. Two consumers of one client on one connection
//! would wait for each other: the second one's JoinGroup, which the first one's is waiting for,
//! would not even be read.

use ottla_wire::Class;
use std::sync::atomic::{AtomicU32, Ordering};

/// Far above the numbers that producers count up from 0.
const FIRST: u32 = 1 << 31;

static NEXT: AtomicU32 = AtomicU32::new(FIRST);

/// The connection classes of one consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes {
    /// Fetches, which wait at the broker.
    pub(crate) fetch: Class,
    /// The membership; a JoinGroup can wait for minutes.
    pub(crate) group: Class,
}

impl Lanes {
    /// Lanes that no other consumer of the process has.
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(2, Ordering::Relaxed);
        Self {
            fetch: Class::ProduceApart(number),
            group: Class::ProduceApart(number | 1),
        }
    }
}
