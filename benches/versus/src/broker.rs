//! The null broker: a process of its own that acknowledges everything and stores nothing.
//!
//! One node leads every partition of the one topic. It reads each connection in large pieces with a blocking
//! thread, walks the batch headers (records, codec, CRC, sequence), hands out base offsets and answers. What it
//! counted it prints when its standard input closes, so that a client that loses a record, sends one twice or
//! leaves compression out is noticed.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::protocol::{self, Answer, Request};

/// Answers that may wait for their time when a round trip is simulated: more than a client has in flight.
const DELAYED_ANSWERS_MAX: usize = 1024;

/// What one read asks the kernel for.
const READ_BYTES: usize = 1 << 20;

/// What the broker saw.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Counts {
    /// Produce requests.
    pub requests: u64,
    pub batches: u64,
    pub records: u64,
    /// Bytes of record batches, headers included.
    pub bytes: u64,
    /// Batches by the codec in their attributes.
    pub codecs: [u64; 8],
    /// Batches that carried a producer id.
    pub idempotent: u64,
    /// Batches whose checksum was wrong.
    pub corrupt: u64,
    /// Batches whose sequence did not follow that of the batch before.
    pub gaps: u64,
}

#[derive(Default)]
struct State {
    counts: Counts,
    next_offsets: HashMap<i32, i64>,
    next_sequences: HashMap<(i64, i32), i32>,
    next_producer_id: i64,
}

/// Serves until standard input ends, then prints the counts as one line of JSON.
pub fn run(partitions: i32, delay: Duration) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    println!("{port}");
    io::stdout().flush()?;

    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&shared);
            // A client that goes away ends its own connection only.
            thread::spawn(move || serve(stream, &state, port, partitions, delay));
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", serde_json::to_string(&state.counts)?);
    Ok(())
}

fn serve(
    mut stream: TcpStream,
    state: &Mutex<State>,
    port: u16,
    partitions: i32,
    delay: Duration,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = Answers::new(&stream, delay)?;
    let mut buffer = vec![0; 2 * READ_BYTES];
    let mut filled = 0;
    loop {
        let mut done = 0;
        while let Some(frame) = frame(&buffer[done..filled]) {
            if let Some(answer) = handle(frame, state, port, partitions) {
                answers.send(answer)?;
            }
            done += 4 + frame.len();
        }
        buffer.copy_within(done..filled, 0);
        filled -= done;
        if buffer.len() - filled < READ_BYTES {
            buffer.resize(2 * buffer.len(), 0);
        }
        let count = stream.read(&mut buffer[filled..filled + READ_BYTES])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
    }
}

/// The first whole frame, without its size.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..u32::from_be_bytes(*size) as usize)
}

fn handle(frame: &[u8], state: &Mutex<State>, port: u16, partitions: i32) -> Option<Vec<u8>> {
    let (request, correlation_id) = Request::parse(frame)?;
    let answer = match request {
        Request::ApiVersions { version } => Answer::api_versions(correlation_id, version),
        Request::Metadata { version } => {
            Answer::metadata(correlation_id, version, port, partitions)
        }
        Request::InitProducerId { version } => {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.next_producer_id += 1;
            Answer::init_producer_id(correlation_id, version, state.next_producer_id)
        }
        Request::Produce(produce) => {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.counts.requests += 1;
            let mut offsets = Vec::new();
            for (topic, partition, records) in produce.partitions() {
                offsets.push((topic, partition, append(&mut state, partition, records)));
            }
            drop(state);
            if produce.acks == 0 {
                return None;
            }
            Answer::produce(correlation_id, produce.version, &offsets)
        }
    };
    Some(answer)
}

/// Counts the batches of one partition and gives the base offset.
fn append(state: &mut State, partition: i32, records: &[u8]) -> i64 {
    let State {
        counts,
        next_offsets,
        next_sequences,
        ..
    } = state;
    let next_offset = next_offsets.entry(partition).or_default();
    let base_offset = *next_offset;
    for batch in protocol::batches(records) {
        counts.batches += 1;
        counts.records += batch.record_count as u64;
        counts.bytes += batch.bytes.len() as u64;
        counts.codecs[usize::from(batch.attributes & 7)] += 1;
        if crc32c::crc32c(&batch.bytes[21..]) != batch.crc {
            counts.corrupt += 1;
        }
        if batch.producer_id >= 0 {
            counts.idempotent += 1;
            let next = next_sequences
                .entry((batch.producer_id, partition))
                .or_default();
            if batch.base_sequence != *next {
                counts.gaps += 1;
            }
            *next = batch.base_sequence.wrapping_add(batch.record_count) & i32::MAX;
        }
        *next_offset += i64::from(batch.record_count);
    }
    base_offset
}

/// Writes answers, at once or after the simulated round trip.
enum Answers {
    AtOnce(TcpStream),
    Delayed {
        queue: SyncSender<(Instant, Vec<u8>)>,
        delay: Duration,
    },
}

impl Answers {
    fn new(stream: &TcpStream, delay: Duration) -> io::Result<Answers> {
        let mut stream = stream.try_clone()?;
        if delay.is_zero() {
            return Ok(Answers::AtOnce(stream));
        }
        let (queue, due): (_, Receiver<(Instant, Vec<u8>)>) = sync_channel(DELAYED_ANSWERS_MAX);
        thread::spawn(move || {
            for (at, answer) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        Ok(Answers::Delayed { queue, delay })
    }

    fn send(&mut self, answer: Vec<u8>) -> io::Result<()> {
        match self {
            Answers::AtOnce(stream) => stream.write_all(&answer),
            Answers::Delayed { queue, delay } => queue
                .send((Instant::now() + *delay, answer))
                .map_err(io::Error::other),
        }
    }
}
