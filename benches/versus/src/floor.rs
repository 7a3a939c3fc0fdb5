//! The floor: what encoding, compression, checksum and one socket write cost when nothing else is done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use ottla::Compression;
use ottla_proto::batch::Compressor;

use crate::job::{BATCH_BYTES, Codec, Job};
use crate::measure::{Cost, thread_cpu};
use crate::peers::Failure;

/// Requests sent and not yet answered.
const IN_FLIGHT_MAX: usize = 5;

/// A record's bytes besides its value, at most: six varints.
const RECORD_OVERHEAD_BYTES: usize = 24;

const HEADER_BYTES: usize = 61;

struct Floor {
    stream: TcpStream,
    /// The request before the batch, the batch, and what follows it: written as one piece.
    frame: Vec<u8>,
    /// Where the batch begins in `frame`.
    batch_at: usize,
    partition: i32,
    in_flight: usize,
    compressor: Compressor,
    /// Spent in the compressor alone.
    codec: Duration,
}

pub fn run(job: &Job) -> Result<Cost, Failure> {
    let stream = TcpStream::connect(&job.bootstrap)?;
    stream.set_nodelay(true)?;
    let mut floor = Floor {
        stream,
        frame: Vec::with_capacity(2 * BATCH_BYTES),
        batch_at: 0,
        partition: 0,
        in_flight: 0,
        compressor: Compressor::new(),
        codec: Duration::ZERO,
    };
    let cost = job.measure(|range| {
        floor.codec = Duration::ZERO;
        floor.send(job, range)
    })?;
    Ok(Cost {
        codec_ns: floor.codec.as_nanos() as u64,
        ..cost
    })
}

impl Floor {
    fn send(&mut self, job: &Job, range: Range<usize>) -> Result<(), Failure> {
        self.begin(job.topic);
        let mut in_batch: i32 = 0;
        for index in range {
            encode(&mut self.frame, in_batch, job.key(index), job.value(index));
            in_batch += 1;
            if self.frame.len() - self.batch_at + job.size + RECORD_OVERHEAD_BYTES > BATCH_BYTES {
                self.write(in_batch, job)?;
                self.begin(job.topic);
                in_batch = 0;
            }
        }
        if in_batch > 0 {
            self.write(in_batch, job)?;
        }
        while self.in_flight > 0 {
            self.read()?;
        }
        Ok(())
    }

    /// A Produce request of version 8 up to the first record.
    fn begin(&mut self, topic: &str) {
        let frame = &mut self.frame;
        frame.clear();
        frame.extend([0; 4]);
        frame.extend([0, 0, 0, 8, 0, 0, 0, 0]); // Produce 8, correlation id 0
        frame.extend((-1i16).to_be_bytes()); // no client id
        frame.extend((-1i16).to_be_bytes()); // no transactional id
        frame.extend((-1i16).to_be_bytes()); // acks all
        frame.extend(30_000i32.to_be_bytes());
        frame.extend(1i32.to_be_bytes());
        frame.extend((topic.len() as i16).to_be_bytes());
        frame.extend(topic.as_bytes());
        frame.extend(1i32.to_be_bytes());
        frame.extend(self.partition.to_be_bytes());
        frame.extend([0; 4]); // the size of the batch
        self.batch_at = frame.len();
        frame.extend([0; HEADER_BYTES]);
    }

    fn write(&mut self, record_count: i32, job: &Job) -> Result<(), Failure> {
        if self.in_flight == IN_FLIGHT_MAX {
            self.read()?;
        }
        self.compress(job.codec)?;
        let (at, size) = (self.batch_at, self.frame.len() - self.batch_at);
        let frame_size = (self.frame.len() - 4) as u32;
        self.frame[..4].copy_from_slice(&frame_size.to_be_bytes());
        self.frame[at - 4..at].copy_from_slice(&(size as u32).to_be_bytes());
        let batch = &mut self.frame[at..];
        batch[8..12].copy_from_slice(&(size as u32 - 12).to_be_bytes());
        batch[16] = 2;
        batch[22] = job.codec.bits() as u8;
        batch[23..27].copy_from_slice(&(record_count - 1).to_be_bytes());
        batch[43..57].fill(0xff); // no producer id, epoch, sequence
        batch[57..61].copy_from_slice(&record_count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        self.stream.write_all(&self.frame)?;
        self.in_flight += 1;
        self.partition = (self.partition + 1) % job.partitions;
        Ok(())
    }

    /// With the codecs of this repository: a client cannot be cheaper than the codec it uses.
    fn compress(&mut self, codec: Codec) -> Result<(), Failure> {
        let codec = match codec {
            Codec::None => return Ok(()),
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        };
        let records_at = self.batch_at + HEADER_BYTES;
        let before = thread_cpu();
        let compressed = self
            .compressor
            .compress(codec, None, &[&self.frame[records_at..]])?;
        self.codec += thread_cpu() - before;
        self.frame.truncate(records_at);
        self.frame.extend(compressed);
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut answer = [0; 256];
        let answer = answer
            .get_mut(..u32::from_be_bytes(size) as usize)
            .ok_or("an answer that is longer than one acknowledgement")?;
        self.stream.read_exact(answer)?;
        self.in_flight -= 1;
        Ok(())
    }
}

fn encode(out: &mut Vec<u8>, offset_delta: i32, key: Option<&[u8]>, value: &[u8]) {
    let key_bytes = key.map_or(0, <[u8]>::len);
    let key_length = key.map_or(-1, |key| key.len() as i32);
    let body = 1
        + 1
        + varint_bytes(offset_delta)
        + varint_bytes(key_length)
        + key_bytes
        + varint_bytes(value.len() as i32)
        + value.len()
        + 1;
    varint(out, body as i32);
    out.extend([0, 0]); // attributes, timestamp delta
    varint(out, offset_delta);
    varint(out, key_length);
    out.extend(key.unwrap_or_default());
    varint(out, value.len() as i32);
    out.extend(value);
    out.push(0); // no headers
}

fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

fn varint_bytes(value: i32) -> usize {
    (38 - (zigzag(value) | 1).leading_zeros() as usize) / 7
}

fn varint(out: &mut Vec<u8>, value: i32) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
