//! What every client is asked to do.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{Cost, Meter};

/// What all clients are given to hold unsent records in; enough that none has to wait for the other core.
pub const BUFFER_BYTES: usize = 64 << 20;
pub const BATCH_BYTES: usize = 1 << 20;
pub const LINGER: Duration = Duration::from_millis(5);

/// How many keys there are in a keyed run.
const KEYS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

    /// As in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// As in a batch's attributes.
    pub fn bits(self) -> usize {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    pub fn parse(name: &str) -> Result<Codec, String> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| format!("no codec {name}: none, lz4 or zstd"))
    }
}

/// Codec, batch size, linger and buffer: the same for all, or what each client comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tuning {
    Same,
    OwnDefaults,
}

#[derive(Debug, Clone)]
pub struct Job {
    /// What values and keys are cut from.
    pub text: &'static [u8],
    pub bootstrap: String,
    pub topic: &'static str,
    /// Bytes of a value.
    pub size: usize,
    pub records: usize,
    /// Sent and acknowledged before the measuring begins.
    pub warm_up: usize,
    pub codec: Codec,
    pub tuning: Tuning,
    pub keyed: bool,
    /// Tasks or threads that share one producer.
    pub callers: usize,
    pub partitions: i32,
}

impl Job {
    pub fn value(&self, index: usize) -> &'static [u8] {
        let start = index % (self.text.len() / self.size) * self.size;
        &self.text[start..start + self.size]
    }

    /// Eight bytes that differ from their neighbours', when the run is keyed.
    pub fn key(&self, index: usize) -> Option<&'static [u8]> {
        let start = (index.wrapping_mul(0x9e37_79b9) >> 7) % KEYS * 16;
        self.keyed.then(|| &self.text[start..start + 8])
    }

    /// The part of `range` that caller number `caller` sends.
    pub fn share(&self, range: &Range<usize>, caller: usize) -> Range<usize> {
        let part = |n: usize| range.start + range.len() * n / self.callers;
        part(caller)..part(caller + 1)
    }

    /// Runs `send` over the warm-up, then over the records, and measures the second.
    pub fn measure<E>(
        &self,
        mut send: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<Cost, E> {
        send(0..self.warm_up)?;
        let meter = Meter::start();
        send(self.warm_up..self.warm_up + self.records)?;
        Ok(meter.stop(self.warm_up))
    }
}
