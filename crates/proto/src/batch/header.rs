//! The 61 bytes before a batch's records.

use super::compression::Compression;
use crate::error::{Error, ErrorKind, Result};

/// The size of a batch's header, in bytes.
pub const HEADER_BYTES: usize = 61;

/// The bytes before the length field's count begins: base offset and the length itself.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;

/// Where the bytes begin that the checksum covers: everything from the attributes on.
pub const CRC_START: usize = 21;

/// The only batch format that we read and write.
pub(super) const MAGIC: i8 = 2;

const MAGIC_AT: usize = 16;

/// The smallest value of the length field: a header and no records.
const MIN_BATCH_LENGTH: i32 = (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// A batch's header, field by field as on the wire.
///
/// One made by [`BatchHeader::parse`] has been checked: the length has room for the header, counts
/// and deltas are not negative, and the offsets do not overflow. What the checksum and the
/// attributes say is checked where they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, as it was when the batch was written.
    pub base_offset: i64,
    /// Bytes after this field. See [`BatchHeader::size_bytes`].
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; -1 when a producer sends it.
    pub partition_leader_epoch: i32,
    /// Format version: 2.
    pub magic: i8,
    /// CRC32C of everything from the attributes to the end of the batch.
    pub crc: u32,
    /// Compression, timestamp kind, transactional and control flags.
    pub attributes: i16,
    /// Offset of the last record less the base offset; stays when compaction removes records.
    pub last_offset_delta: i32,
    /// Milliseconds since the Unix epoch that the records' timestamps count from; -1 for none.
    pub base_timestamp: i64,
    /// The largest timestamp, or the append time of a log-append batch; -1 for none.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 without idempotence.
    pub base_sequence: i32,
    /// Records that are there: less than the offsets suggest, even none, after compaction.
    pub record_count: i32,
}

impl Default for BatchHeader {
    /// An empty batch by a producer without idempotence, uncompressed, without timestamps.
    fn default() -> Self {
        Self {
            base_offset: 0,
            batch_length: MIN_BATCH_LENGTH,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        }
    }
}

impl BatchHeader {
    /// Reads and checks the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// `UnsupportedVersion` for the message sets of before Kafka 0.11 (magic 0 and 1); `Corrupt`,
    /// naming the field, for anything that is not a batch's header.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        check_magic(bytes)?;
        let mut fields = Fields(bytes);
        let header = Self::read(&mut fields).ok_or_else(|| {
            corrupt(format!(
                "a record batch's header needs {HEADER_BYTES} bytes and {} are there",
                bytes.len()
            ))
        })?;
        header.check()?;
        Ok(header)
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            base_offset: i64::from_be_bytes(fields.take()?),
            batch_length: i32::from_be_bytes(fields.take()?),
            partition_leader_epoch: i32::from_be_bytes(fields.take()?),
            magic: i8::from_be_bytes(fields.take()?),
            crc: u32::from_be_bytes(fields.take()?),
            attributes: i16::from_be_bytes(fields.take()?),
            last_offset_delta: i32::from_be_bytes(fields.take()?),
            base_timestamp: i64::from_be_bytes(fields.take()?),
            max_timestamp: i64::from_be_bytes(fields.take()?),
            producer_id: i64::from_be_bytes(fields.take()?),
            producer_epoch: i16::from_be_bytes(fields.take()?),
            base_sequence: i32::from_be_bytes(fields.take()?),
            record_count: i32::from_be_bytes(fields.take()?),
        })
    }

    fn check(&self) -> Result<()> {
        let offset = self.base_offset;
        if offset < 0 {
            return Err(corrupt(format!("a record batch has base offset {offset}")));
        }
        if self.batch_length < MIN_BATCH_LENGTH {
            return Err(corrupt(format!(
                "the record batch at offset {offset} has length {}, below the {MIN_BATCH_LENGTH} \
                 of its header",
                self.batch_length
            )));
        }
        if self.last_offset_delta < 0
            || offset
                .checked_add(i64::from(self.last_offset_delta))
                .is_none_or(|last| last == i64::MAX)
        {
            return Err(corrupt(format!(
                "the record batch at offset {offset} has last offset delta {}",
                self.last_offset_delta
            )));
        }
        if self.record_count < 0 {
            return Err(corrupt(format!(
                "the record batch at offset {offset} has record count {}",
                self.record_count
            )));
        }
        Ok(())
    }

    /// Writes the header.
    pub fn write(&self, out: &mut [u8; HEADER_BYTES]) {
        let mut rest = &mut out[..];
        put(&mut rest, self.base_offset.to_be_bytes());
        put(&mut rest, self.batch_length.to_be_bytes());
        put(&mut rest, self.partition_leader_epoch.to_be_bytes());
        put(&mut rest, self.magic.to_be_bytes());
        put(&mut rest, self.crc.to_be_bytes());
        put(&mut rest, self.attributes.to_be_bytes());
        put(&mut rest, self.last_offset_delta.to_be_bytes());
        put(&mut rest, self.base_timestamp.to_be_bytes());
        put(&mut rest, self.max_timestamp.to_be_bytes());
        put(&mut rest, self.producer_id.to_be_bytes());
        put(&mut rest, self.producer_epoch.to_be_bytes());
        put(&mut rest, self.base_sequence.to_be_bytes());
        put(&mut rest, self.record_count.to_be_bytes());
    }

    /// The whole batch's size in bytes, header included.
    pub fn size_bytes(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| length + LENGTH_PREFIX_BYTES)
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `Corrupt` when the attributes name a codec that does not exist.
    pub fn compression(&self) -> Result<Compression> {
        Compression::from_attributes(self.attributes)
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which no application may see.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether every record's timestamp is the broker's append time, `max_timestamp`.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Offset of the batch's last record, also when compaction has removed that record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }
}

/// Refuses what is not a version 2 batch, as soon as the bytes reach to the magic: the older
/// message sets can be shorter than a version 2 header.
pub(super) fn check_magic(bytes: &[u8]) -> Result<()> {
    match bytes.get(MAGIC_AT) {
        None | Some(2) => Ok(()),
        Some(magic @ (0 | 1)) => Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!(
                "the log holds a message set of magic {magic}, from before Kafka 0.11; only \
                 record batches of magic {MAGIC} can be read"
            ),
        )),
        Some(magic) => Err(corrupt(format!("a record batch has magic {magic}"))),
    }
}

pub(super) fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((place, tail)) = std::mem::take(rest).split_first_chunk_mut() {
        *place = field;
        *rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::GOLDEN;
    use super::*;

    fn complaint(bytes: &[u8]) -> (ErrorKind, String) {
        let error = BatchHeader::parse(bytes).unwrap_err();
        (error.kind().clone(), error.to_string())
    }

    /// The golden batch with some bytes overwritten.
    fn golden_with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut golden = GOLDEN.to_vec();
        golden[at..at + bytes.len()].copy_from_slice(bytes);
        golden
    }

    #[test]
    fn reads_what_a_real_broker_wrote() {
        let header = BatchHeader::parse(GOLDEN).unwrap();
        let expected = BatchHeader {
            batch_length: 59,
            partition_leader_epoch: 1,
            crc: 0x0318_a270,
            base_timestamp: 1_503_229_838_908,
            max_timestamp: 1_503_229_838_908,
            record_count: 1,
            ..BatchHeader::default()
        };
        assert_eq!(header, expected);
        assert_eq!(header.size_bytes(), GOLDEN.len());
        assert_eq!(header.last_offset(), 0);
        assert_eq!(header.compression().unwrap(), Compression::None);
    }

    #[test]
    fn writes_every_field_where_it_is_read() {
        let header = BatchHeader {
            base_offset: 0x0102_0304_0506_0708,
            batch_length: 0x1112_1314,
            partition_leader_epoch: 0x2122_2324,
            magic: 2,
            crc: 0x3132_3334,
            attributes: 0x4142,
            last_offset_delta: 0x5152_5354,
            base_timestamp: 0x6162_6364_6566_6768,
            max_timestamp: 0x7172_7374_7576_7778,
            producer_id: 0x0a0b_0c0d_0e0f_1011,
            producer_epoch: 0x1a1b,
            base_sequence: 0x2a2b_2c2d,
            record_count: 0x3a3b_3c3d,
        };
        let mut bytes = [0; HEADER_BYTES];
        header.write(&mut bytes);
        assert_eq!(BatchHeader::parse(&bytes).unwrap(), header);
        assert!(!bytes.contains(&0), "a gap in {bytes:x?}");
        let mut golden = [0; HEADER_BYTES];
        BatchHeader::parse(GOLDEN).unwrap().write(&mut golden);
        assert_eq!(golden, GOLDEN[..HEADER_BYTES]);
    }

    #[test]
    fn the_attributes_are_told_apart() {
        let with = |attributes| BatchHeader {
            attributes,
            ..BatchHeader::default()
        };
        assert_eq!(with(4).compression().unwrap(), Compression::Zstd);
        assert!(with(0b00_1000).is_log_append_time());
        assert!(with(0b01_0000).is_transactional());
        assert!(with(0b10_0000).is_control());
        let plain = with(!0b11_1000);
        assert!(!plain.is_log_append_time() && !plain.is_transactional() && !plain.is_control());
        let error = plain.compression().unwrap_err();
        assert_eq!(error.to_string(), "a record batch has compression type 7");
    }

    #[test]
    fn an_old_message_set_is_named_even_when_it_is_shorter_than_a_header() {
        // Offset, size, checksum, magic, attributes, null key, empty value.
        let mut message = vec![0; 12];
        message.extend_from_slice(&[0x79, 0x57, 0x48, 0xe0, 0, 0]);
        message.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        for magic in [0, 1] {
            message[MAGIC_AT] = magic;
            let (kind, text) = complaint(&message);
            assert_eq!(kind, ErrorKind::UnsupportedVersion);
            assert!(text.contains(&format!("magic {magic}")), "{text}");
        }
    }

    #[test]
    fn fields_that_cannot_be_are_named() {
        for (at, bytes, named) in [
            (0, &[0xff; 8][..], "base offset -1"),
            (8, &(-1i32).to_be_bytes(), "length -1"),
            (8, &48i32.to_be_bytes(), "length 48"),
            (16, &[3], "magic 3"),
            (23, &(-2i32).to_be_bytes(), "last offset delta -2"),
            (57, &(-3i32).to_be_bytes(), "record count -3"),
        ] {
            let (kind, text) = complaint(&golden_with(at, bytes));
            assert_eq!(kind, ErrorKind::Corrupt);
            assert!(text.contains(named), "{text}");
        }
        let (kind, text) = complaint(&GOLDEN[..60]);
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(text.contains("60 are there"), "{text}");
    }

    #[test]
    fn the_offset_after_the_last_can_always_be_told() {
        let mut bytes = golden_with(0, &(i64::MAX - 2).to_be_bytes());
        bytes[23..27].copy_from_slice(&1i32.to_be_bytes());
        assert!(BatchHeader::parse(&bytes).is_ok());
        bytes[23..27].copy_from_slice(&2i32.to_be_bytes());
        let (_, text) = complaint(&bytes);
        assert!(text.contains("last offset delta 2"), "{text}");
    }
}
