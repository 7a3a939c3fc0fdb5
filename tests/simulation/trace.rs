//! What happened, in order: a hash always, and the words when one seed is replayed.

use std::fmt::{self, Write};
use std::sync::Mutex;
use tokio::time::Instant;

/// The story of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    begun: Instant,
    told: bool,
    state: Mutex<(u64, String)>,
}

impl Trace {
    /// A story that begins now; `told` prints it as it goes.
    pub(crate) fn new(told: bool) -> Self {
        Self {
            begun: Instant::now(),
            told,
            state: Mutex::new((0xcbf2_9ce4_8422_2325, String::new())),
        }
    }

    /// Adds an event at the present time of the run's clock.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let millis = self.begun.elapsed().as_millis();
        let mut state = self.state.lock().unwrap();
        let (hash, line) = &mut *state;
        line.clear();
        // A string takes everything.
        let _ = write!(line, "{millis:>8} {what}");
        for byte in line.bytes() {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.told {
            eprintln!("{line}");
        }
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> u64 {
        self.state.lock().unwrap().0
    }
}
