//! Record batches, version 2: what is in a log, in a Produce request and in a Fetch answer.
//!
//! A record set is read from the outside in, without copying: [`Batches`] walks its batches,
//! [`BatchRef`] checks one batch's checksum and gives its records section (inflated if need be),
//! [`Records`] walks the records in that section. Each layer trusts no length that it has not
//! compared with the bytes that are there. [`BatchWriter`] goes the other way.

mod compression;
mod control;
mod crc;
mod halves;
mod header;
mod reader;
mod record;
mod segments;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod varint;
mod writer;

pub use compression::{Compression, Compressor, Decompressor, compress, decompress};
pub use control::{ControlType, control_type};
pub use header::{BatchHeader, CRC_START, HEADER_BYTES};
pub use reader::{BatchRef, Batches, TruncatedTail};
pub use record::{HeaderRef, HeaderRefs, RecordRef, Records};
pub use segments::Segments;
pub use writer::{BatchRoom, BatchStamp, BatchWriter, NeedsRoom, Packed, SealedRecords};
