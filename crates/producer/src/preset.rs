//! Settings that belong together, under one name.

use crate::config::{Acks, Config, named};
use ottla_proto::Result;
use ottla_proto::batch::Compression;
use std::time::Duration;

/// Settings that belong together, to begin from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Nothing lost and nothing twice, at a good rate: `acks=all`, idempotence, as many retries as
    /// the delivery timeout allows, lz4, 10 ms linger.
    Production,
    /// As many records as possible, none lost: 50 ms linger, zstd, the largest batches and 128 MiB
    /// of buffer.
    Throughput,
    /// Each record as soon as possible, none lost: no linger and no compression.
    Latency,
}

impl Preset {
    /// Every preset with its name in the configuration.
    const NAMES: [(&'static str, Self); 3] = [
        ("production", Self::Production),
        ("throughput", Self::Throughput),
        ("latency", Self::Latency),
    ];

    /// The preset of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](ottla_proto::ErrorKind::Config), naming those that there are.
    pub fn by_name(name: &str) -> Result<Self> {
        named("preset", &Self::NAMES, name)
    }

    /// The settings; change what should be otherwise.
    pub fn config(self) -> Config {
        match self {
            Self::Production => Config::production(),
            Self::Throughput => Config::throughput(),
            Self::Latency => Config::latency(),
        }
    }
}

impl Config {
    /// [`Preset::Production`].
    pub fn production() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            retries: u32::MAX,
            linger: Duration::from_millis(10),
            compression: Compression::Lz4,
            ..Self::default()
        }
    }

    /// [`Preset::Throughput`].
    pub fn throughput() -> Self {
        Self {
            linger: Duration::from_millis(50),
            batch_bytes: 1 << 20,
            buffer_bytes: 128 << 20,
            compression: Compression::Zstd,
            ..Self::production()
        }
    }

    /// [`Preset::Latency`].
    pub fn latency() -> Self {
        Self {
            linger: Duration::ZERO,
            compression: Compression::None,
            ..Self::production()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_fit_together_and_never_give_durability_away() {
        for (name, preset) in Preset::NAMES {
            let config = Preset::by_name(name).unwrap().config();
            config.check().unwrap();
            assert_eq!(
                (config.acks, config.idempotence),
                (Acks::All, true),
                "{name}"
            );
            assert_eq!(config.retries, u32::MAX, "{name}");
            let (millis, codec, buffer_bytes) = match preset {
                Preset::Production => (10, Compression::Lz4, 32 << 20),
                Preset::Throughput => (50, Compression::Zstd, 128 << 20),
                Preset::Latency => (0, Compression::None, 32 << 20),
            };
            assert_eq!(config.linger, Duration::from_millis(millis), "{name}");
            assert_eq!(config.compression, codec, "{name}");
            assert_eq!(config.buffer_bytes, buffer_bytes, "{name}");
        }
        assert!(
            Preset::by_name("fast")
                .unwrap_err()
                .to_string()
                .contains("latency")
        );
    }
}
