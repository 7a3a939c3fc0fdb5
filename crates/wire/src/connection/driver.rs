//! The one task of a connection: a loop that writes and a loop that reads, over one line of
//! requests. Whatever is in doubt poisons the connection: it closes and every request on it fails.

use super::line::{Begun, later};
use super::waiter::Waiter;
use super::{Core, Request};
use crate::dial::BoxStream;
use crate::throttle;
use bytes::{Buf, Bytes, BytesMut};
use ottla_proto::{Error, ErrorKind, Result, WriteOutcome};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much the reader asks the system for at a time.
const READ_CHUNK_BYTES: usize = 64 << 10;
/// With less room than this the buffer is renewed before a read.
const SPARE_MIN_BYTES: usize = 8 << 10;
/// The writer stops gathering requests for one write at about this size.
const WRITE_BATCH_BYTES: usize = 1 << 20;
/// Slices of one vectored write: megabytes where it matters, and few enough to list them on the
/// stack.
const SLICES_MAX: usize = 128;
const LENGTH_BYTES: usize = 4;
const CORRELATION_BYTES: usize = 4;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

pub(super) struct Driver {
    core: Arc<Core>,
    queue: mpsc::Receiver<Request>,
}

impl Driver {
    pub(super) fn new(core: Arc<Core>, queue: mpsc::Receiver<Request>) -> Self {
        Self { core, queue }
    }

    pub(super) async fn run(mut self, stream: BoxStream) {
        let BoxStream { reader, writer } = stream;
        let core = Arc::clone(&self.core);
        let error = tokio::select! {
            biased;
            () = core.close_asked.notified() => core.closed_here(),
            error = read(&core, reader) => error,
            error = write(&core, &mut self.queue, writer) => error,
        };
        tracing::debug!(%error, "connection ended");
        core.fail(error);
    }
}

impl Drop for Driver {
    /// Also runs when the runtime stops: nobody is left waiting.
    fn drop(&mut self) {
        let mut error = self.core.fail(self.core.closed_here());
        self.queue.close();
        let unanswered = self.core.line.lock().drain();
        for entry in unanswered {
            entry.waiter.fail(&error, WriteOutcome::Unknown);
            // What went wrong is the oldest request's; the others lost their connection.
            error = self.core.reason();
        }
        let error = self.core.reason();
        while let Ok(request) = self.queue.try_recv() {
            request.waiter.fail(&error, WriteOutcome::NotWritten);
        }
        self.core.in_flight.store(0, Ordering::Relaxed);
        self.core.ended.send_replace(true);
    }
}

/// Reads answers until the connection fails.
async fn read(core: &Core, mut reader: Reader) -> Error {
    let mut buffer = BytesMut::new();
    loop {
        let missing = loop {
            match take_answer(core, &mut buffer) {
                Ok(Taken::Answer(answer)) => {
                    if let Err(error) = deliver(core, answer) {
                        return error;
                    }
                }
                Ok(Taken::Missing(missing)) => break missing,
                Err(error) => return error,
            }
        };
        make_room(&mut buffer, missing);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return ended_by_peer(core, &buffer),
            Ok(_) => {}
            Err(error) => return core.broken("failed while reading", error),
        }
    }
}

/// Makes room for what is missing. The buffer grows with what has arrived, never by the announced
/// length alone.
fn make_room(buffer: &mut BytesMut, missing: usize) {
    let spare = buffer.capacity() - buffer.len();
    let wanted = missing.clamp(SPARE_MIN_BYTES, buffer.len().max(READ_CHUNK_BYTES));
    if spare < wanted {
        buffer.reserve(wanted.max(READ_CHUNK_BYTES));
    }
}

enum Taken {
    Answer(Bytes),
    /// At least so many bytes are still to come.
    Missing(usize),
}

/// Splits one answer off the buffer without copying it.
fn take_answer(core: &Core, buffer: &mut BytesMut) -> Result<Taken> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Taken::Missing(LENGTH_BYTES));
    };
    let announced = i32::from_be_bytes(*length);
    let Some(limit) = core.line.lock().answer_max_bytes() else {
        // Servers of other protocols greet before they are asked.
        return Err(match core.spoken.load(Ordering::Relaxed) {
            false => not_kafka(core, buffer),
            true => core.error(
                ErrorKind::Protocol,
                "brought an answer that nobody asked for",
            ),
        });
    };
    let length = usize::try_from(announced)
        .ok()
        .filter(|length| (CORRELATION_BYTES..=limit).contains(length))
        .ok_or_else(|| bad_length(core, announced, limit, buffer))?;
    let missing = (LENGTH_BYTES + length).saturating_sub(buffer.len());
    if missing > 0 {
        return Ok(Taken::Missing(missing));
    }
    let mut answer = buffer.split_to(LENGTH_BYTES + length).freeze();
    Ok(Taken::Answer(answer.split_off(LENGTH_BYTES)))
}

fn bad_length(core: &Core, announced: i32, limit: usize, buffer: &[u8]) -> Error {
    if !core.spoken.load(Ordering::Relaxed) {
        return not_kafka(core, buffer);
    }
    core.error(
        ErrorKind::Protocol,
        &format!("announced an answer of {announced} bytes where at most {limit} may come"),
    )
}

fn not_kafka(core: &Core, buffer: &[u8]) -> Error {
    let guess = match buffer {
        [b'H', b'T', b'T', b'P', ..] => "it looks like HTTP",
        [0x15 | 0x16, 0x03, ..] => "it looks like TLS",
        [b'S', b'S', b'H', b'-', ..] => "it looks like SSH",
        _ => "the first answer makes no sense",
    };
    core.error(
        ErrorKind::Protocol,
        &format!("failed: the peer does not speak Kafka ({guess})"),
    )
}

/// Hands an answer to the request it belongs to.
fn deliver(core: &Core, mut answer: Bytes) -> Result<()> {
    let Some(correlation) = answer.first_chunk::<CORRELATION_BYTES>() else {
        return Err(core.error(ErrorKind::Protocol, "brought an answer without a number"));
    };
    let correlation = i32::from_be_bytes(*correlation);
    let taken = core.line.lock().answered(Instant::now(), correlation);
    let entry = match taken {
        Ok(entry) => entry,
        Err(_) if !core.spoken.load(Ordering::Relaxed) => return Err(not_kafka(core, &answer)),
        Err(mismatch) => {
            let due = mismatch
                .due
                .map_or("none".to_owned(), |due| due.to_string());
            let what = format!("brought answer {correlation} where {due} was due");
            return Err(core.error(ErrorKind::Protocol, &what));
        }
    };
    core.spoken.store(true, Ordering::Relaxed);
    core.in_flight.fetch_sub(1, Ordering::Relaxed);
    let answer = answer.split_off(CORRELATION_BYTES);
    let throttle = throttle::of(entry.api, entry.version, &answer);
    if !throttle.is_zero() {
        let until = later(Instant::now(), throttle);
        tracing::debug!(broker = ?core.peer.broker, ?throttle, "a broker asks for a pause");
        core.line.lock().mute(until);
    }
    let writer_waits = core.writer_waits.swap(false, Ordering::Relaxed);
    if writer_waits || !throttle.is_zero() {
        core.window.notify_one();
    }
    entry.waiter.answer(answer);
    Ok(())
}

fn ended_by_peer(core: &Core, buffer: &[u8]) -> Error {
    let unanswered = core.line.lock().len();
    let what = if !buffer.is_empty() {
        "was closed by the peer in the middle of an answer".to_owned()
    } else if !core.spoken.load(Ordering::Relaxed) {
        "was closed by the peer before its first answer (is it a Kafka listener without TLS \
         and SASL?)"
            .to_owned()
    } else if unanswered > 0 {
        format!("was closed by the peer with {unanswered} requests unanswered")
    } else {
        "was closed by the peer".to_owned()
    };
    core.error(ErrorKind::Connection, &what)
}

/// Writes requests, and keeps the time of the oldest, until the connection fails or nobody holds
/// it any more.
async fn write(core: &Core, queue: &mut mpsc::Receiver<Request>, mut writer: Writer) -> Error {
    let mut out = VecDeque::new();
    let mut alarm = pin!(tokio::time::sleep_until(later(
        Instant::now(),
        core.max_idle
    )));
    let mut released = false;
    loop {
        let (full, muted) = {
            let line = core.line.lock();
            let full = line.len() >= core.max_in_flight;
            (full, line.muted_until(Instant::now()))
        };
        core.writer_waits.store(full || released, Ordering::Relaxed);
        tokio::select! {
            biased;
            // First: an answer that asks for a pause must be seen before the next request.
            () = core.window.notified() => {}
            received = queue.recv(), if !full && !released && muted.is_none() => match received {
                Some(first) => {
                    let (soonest, oneway) = gather(core, first, queue, &mut out);
                    if soonest < alarm.deadline() {
                        alarm.as_mut().reset(soonest);
                    }
                    let written = write_out(core, &mut writer, &mut out).await;
                    core.in_flight.fetch_sub(oneway.len(), Ordering::Relaxed);
                    tell(oneway, &written);
                    if let Err(error) = written {
                        return error;
                    }
                }
                None => released = true,
            },
            () = tokio::time::sleep_until(muted.unwrap_or_else(Instant::now)), if muted.is_some() => {}
            () = alarm.as_mut() => match check(core, queue) {
                Ok(next) => alarm.as_mut().reset(next),
                Err(error) => return error,
            }
        }
        if released && core.line.lock().len() == 0 {
            return core.closed_here();
        }
    }
}

/// Tells those who expect no answer that their requests are written, or may be in part.
fn tell(oneway: Vec<Waiter>, written: &Result<()>) {
    for waiter in oneway {
        match written {
            Ok(()) => waiter.answer(Bytes::new()),
            Err(error) => waiter.fail(error, WriteOutcome::Unknown),
        }
    }
}

/// Takes every request that is ready, up to the window and the size of one write. Returns the
/// earliest moment at which one of them can be late, and who expects no answer.
fn gather(
    core: &Core,
    first: Request,
    queue: &mut mpsc::Receiver<Request>,
    out: &mut VecDeque<Bytes>,
) -> (Instant, Vec<Waiter>) {
    let now = Instant::now();
    let mut oneway = Vec::new();
    let mut line = core.line.lock();
    let mut soonest = later(now, core.max_idle);
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(request) = next {
        let correlation = line.correlation();
        let begun = Begun {
            api: request.frame.api(),
            version: request.frame.version(),
            timeout: request.timeout,
            answer_max_bytes: request.frame.answer_max_bytes(),
            waiter: request.waiter,
        };
        bytes += request.frame.size_bytes();
        out.extend(request.frame.into_segments(correlation));
        if begun.waiter.expects_answer() {
            soonest = soonest.min(later(now, begun.timeout));
            line.begin(now, correlation, begun);
        } else {
            line.touch(now);
            oneway.push(begun.waiter);
        }
        let more = bytes < WRITE_BATCH_BYTES && line.len() < core.max_in_flight;
        next = if more { queue.try_recv().ok() } else { None };
    }
    (soonest, oneway)
}

/// Whether the oldest request is late or the connection idle; else when to look again.
fn check(core: &Core, queue: &mut mpsc::Receiver<Request>) -> Result<Instant> {
    let now = Instant::now();
    let mut line = core.line.lock();
    if let Some(late) = line.take_overdue(now) {
        drop(line);
        let what = format!(
            "was closed: {} was not answered within {:?}",
            late.api, late.timeout
        );
        late.waiter.fail(
            &core.error(ErrorKind::Timeout, &what),
            WriteOutcome::Unknown,
        );
        return Err(core.error(ErrorKind::Connection, &what));
    }
    if line.is_idle(now, core.max_idle) && queue.is_empty() {
        return Err(core.error(ErrorKind::Connection, "was closed after being idle"));
    }
    let next = line.next_check(now, core.max_idle);
    Ok(next.max(now + Duration::from_millis(1)))
}

/// Writes every segment with as few system calls as possible.
async fn write_out(core: &Core, writer: &mut Writer, out: &mut VecDeque<Bytes>) -> Result<()> {
    while !out.is_empty() {
        let step = poll_fn(|cx| {
            if !writer.is_write_vectored() {
                let first = out.front().map_or(&[][..], |segment| segment);
                return Pin::new(&mut *writer).poll_write(cx, first);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, segment) in slices.iter_mut().zip(&*out) {
                *slice = IoSlice::new(segment);
            }
            let slices = slices.get(..out.len()).unwrap_or(&slices);
            Pin::new(&mut *writer).poll_write_vectored(cx, slices)
        });
        let written = match tokio::time::timeout(core.request_timeout, step).await {
            Ok(Ok(0)) => {
                return Err(core.broken("failed while writing", io::ErrorKind::WriteZero.into()));
            }
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(core.broken("failed while writing", error)),
            Err(_) => {
                let what = format!(
                    "was closed: it took no bytes for {:?}",
                    core.request_timeout
                );
                return Err(core.error(ErrorKind::Timeout, &what));
            }
        };
        advance(out, written);
    }
    writer
        .flush()
        .await
        .map_err(|error| core.broken("failed while writing", error))
}

/// Drops what was written from the front of the segments.
fn advance(out: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = out.front_mut() {
        if front.len() > written {
            front.advance(written);
            return;
        }
        written -= front.len();
        out.pop_front();
    }
}
