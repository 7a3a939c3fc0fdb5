//! How hard each codec tries.

use crate::config::config;
use ottla_proto::Result;
use ottla_proto::batch::Compression;

/// How hard each codec tries; `None` is the codec's own default. A level acts on its codec alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompressionLevels {
    /// `compression.gzip.level`; 1 to 9, 6 by default.
    pub gzip: Option<i32>,
    /// `compression.lz4.level`; 1 to 17. There is one way to write lz4 here, so it changes nothing.
    pub lz4: Option<i32>,
    /// `compression.zstd.level`; -131,072 to 22, 3 by default.
    pub zstd: Option<i32>,
    /// librdkafka's `compression.level`: for the codec in use, where its own level is not set.
    pub any: Option<i32>,
}

impl CompressionLevels {
    /// The level for a codec.
    pub fn of(&self, codec: Compression) -> Option<i32> {
        match codec {
            Compression::None | Compression::Snappy => None,
            Compression::Gzip => self.gzip.or(self.any),
            Compression::Lz4 => self.lz4.or(self.any),
            Compression::Zstd => self.zstd.or(self.any),
        }
    }

    /// # Errors
    /// Names the property whose level its codec does not have.
    pub(crate) fn check(&self, codec: Compression) -> Result<()> {
        let rows = [
            ("compression.gzip.level", self.gzip, GZIP_LEVELS),
            ("compression.lz4.level", self.lz4, LZ4_LEVELS),
            ("compression.zstd.level", self.zstd, ZSTD_LEVELS),
        ];
        let any = match codec {
            Compression::None | Compression::Snappy => None,
            Compression::Gzip => Some(GZIP_LEVELS),
            Compression::Lz4 => Some(LZ4_LEVELS),
            Compression::Zstd => Some(ZSTD_LEVELS),
        };
        let any = any.map(|range| ("compression.level", self.any, range));
        for (name, level, (from, to)) in rows.into_iter().chain(any) {
            // Kafka keeps 0, "do not compress", out of gzip's levels.
            let zero = from == GZIP_LEVELS.0 && level == Some(0);
            if let Some(level) = level
                && (zero || !(from..=to).contains(&level.into()))
            {
                let message = format!("{name} must be from {from} to {to}, not {level}");
                return Err(config(message));
            }
        }
        Ok(())
    }
}

/// The levels of Java's properties; -1 is gzip's own default there.
pub(crate) const GZIP_LEVELS: (i64, i64) = (-1, 9);
pub(crate) const LZ4_LEVELS: (i64, i64) = (1, 17);
pub(crate) const ZSTD_LEVELS: (i64, i64) = (-131_072, 22);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_compression_level_acts_on_its_own_codec_alone() {
        let mut config = Config::default();
        config.set("compression.gzip.level", "9").unwrap();
        config.set("compression.zstd.level", "19").unwrap();
        let level = |config: &Config, codec| config.compression_levels.of(codec);
        assert_eq!(level(&config, Compression::Gzip), Some(9));
        assert_eq!(level(&config, Compression::Zstd), Some(19));
        assert_eq!(level(&config, Compression::Lz4), None);
        config.set("compression.level", "2").unwrap();
        assert_eq!(level(&config, Compression::Gzip), Some(9), "its own wins");
        assert_eq!(level(&config, Compression::Lz4), Some(2));
        assert_eq!(level(&config, Compression::Snappy), None);
    }

    #[test]
    fn a_level_that_its_codec_does_not_have_names_the_property() {
        for (name, level, codec) in [
            ("compression.gzip.level", "10", "none"),
            ("compression.gzip.level", "0", "none"),
            ("compression.lz4.level", "18", "none"),
            ("compression.zstd.level", "23", "none"),
            ("compression.level", "22", "gzip"),
            ("compression.level", "-7", "lz4"),
        ] {
            let mut config = Config::default();
            config.set("compression.type", codec).unwrap();
            config.set(name, level).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let mut config = Config::default();
        config.set("compression.level", "22").unwrap();
        config.check().unwrap();
        config.set("compression.type", "zstd").unwrap();
        config.check().unwrap();
    }
}
