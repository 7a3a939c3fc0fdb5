//! What the producer counts, a batch or a request at a time, never a record.
//!
//! The same figures go to whatever recorder the program has installed for the `metrics` crate when
//! it builds the producer. Each has the label `client_id`:
//!
//! | name | kind | further labels | what |
//! |---|---|---|---|
//! | `ottla_producer_records_total` | counter | `outcome` | records that ended: `acknowledged`, `not_written`, `unknown` |
//! | `ottla_producer_record_errors_total` | counter | `kind` | records that failed, by the error's kind |
//! | `ottla_producer_dead_letters_total` | counter | `outcome` | failed records: `written` to their dead letter topic, or `lost` |
//! | `ottla_producer_answers_total` | counter | `verdict` | batches that a broker answered, by what the answer meant, as in [`VerdictCounts`] |
//! | `ottla_producer_batches_total` | counter | | batches sent, repeated ones counted each time |
//! | `ottla_producer_batch_retries_total` | counter | | batches sent again |
//! | `ottla_producer_requests_total` | counter | | Produce requests sent |
//! | `ottla_producer_sent_bytes_total` | counter | | bytes of requests sent |
//! | `ottla_producer_batch_bytes` | histogram | | size of a full batch before compression |
//! | `ottla_producer_batch_records` | histogram | | records in a full batch |
//! | `ottla_producer_compression_ratio` | histogram | | size after compression over size before |
//! | `ottla_producer_queue_seconds` | histogram | | from a batch's first record to its first sending |
//! | `ottla_producer_request_seconds` | histogram | | from sending a request to its answer |
//! | `ottla_producer_delivery_seconds` | histogram | | from a batch's first record to its acknowledgement |
//! | `ottla_producer_buffer_used_bytes` | gauge | | buffer in use, of all producers with the label's client id |

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

use crate::histogram::{Histogram, Summary};
use ottla_proto::producer::VerdictCounts;
use ottla_proto::{Error, ErrorKind, WriteOutcome};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A snapshot of the producer's figures since it was built.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Records that a broker acknowledged.
    pub records_acknowledged: u64,
    /// Records that failed and are certainly not in the log.
    pub records_not_written: u64,
    /// Records that failed and may be in the log.
    pub records_unknown: u64,
    /// Records of full batches that are neither acknowledged nor failed.
    pub records_pending: u64,
    /// Records acknowledged a second, over the last 30 seconds or since the first one.
    pub records_per_second: f64,
    /// Failed records that were written to their dead letter topic.
    pub dead_letters_written: u64,
    /// Failed records that could not be written to their dead letter topic.
    pub dead_letters_lost: u64,
    /// Batches sent, repeated ones counted each time.
    pub batches_sent: u64,
    /// Batches sent again.
    pub batch_retries: u64,
    /// Requests sent.
    pub requests_sent: u64,
    /// Bytes of requests sent, after compression.
    pub bytes_sent: u64,
    /// Records that failed, by why.
    pub errors: ErrorCounts,
    /// Batches that a broker answered, by what the answer meant.
    pub verdicts: VerdictCounts,
    /// Size of full batches before compression, in bytes.
    pub batch_bytes: Summary<u64>,
    /// Records of full batches.
    pub batch_records: Summary<u64>,
    /// Bytes after compression over bytes before, over all batches; `None` when none was compressed.
    pub compression_ratio: Option<f64>,
    /// From a batch's first record to its first sending: linger, and waiting for its turn.
    pub queue_time: Summary<Duration>,
    /// From sending a request to its answer.
    pub request_latency: Summary<Duration>,
    /// From a batch's first record to its acknowledgement.
    pub delivery_latency: Summary<Duration>,
    /// Bytes of the buffer in use.
    pub buffer_used_bytes: usize,
    /// Size of the buffer (`buffer.memory`).
    pub buffer_bytes: usize,
    /// Callers that wait for a place in the buffer.
    pub callers_waiting: usize,
}

/// Records that failed, by the kind of their error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorCounts {
    /// Their delivery timeout passed.
    pub timeout: u64,
    /// The connection was lost.
    pub connection: u64,
    /// The topic or partition does not exist.
    pub unknown_topic: u64,
    /// The broker finds them too large.
    pub too_large: u64,
    /// The broker refused them with another code.
    pub broker: u64,
    /// Another instance took over the producer's identity.
    pub fenced: u64,
    /// The producer was closed before they were sent.
    pub closed: u64,
    /// Anything else.
    pub other: u64,
}

/// The names of [`ErrorCounts`], as the label `kind` has them.
const KINDS: [&str; 8] = [
    "timeout",
    "connection",
    "unknown_topic",
    "too_large",
    "broker",
    "fenced",
    "closed",
    "other",
];

fn kind_index(kind: &ErrorKind) -> usize {
    match kind {
        ErrorKind::Timeout => 0,
        ErrorKind::Connection => 1,
        ErrorKind::UnknownTopicOrPartition => 2,
        ErrorKind::RecordTooLarge => 3,
        ErrorKind::Broker(_) => 4,
        ErrorKind::Fenced => 5,
        ErrorKind::Closed => 6,
        _ => 7,
    }
}

/// The name of an error's kind, for labels and spans.
pub(crate) fn kind_name(kind: &ErrorKind) -> &'static str {
    KINDS.get(kind_index(kind)).copied().unwrap_or("other")
}

/// What a batch ended with, as far as figures go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) at: Instant,
    pub(crate) records: u32,
    /// Since the batch's first record.
    pub(crate) latency: Duration,
}

/// The counters themselves.
#[derive(Debug)]
pub(crate) struct Counters {
    sealed: AtomicU64,
    acknowledged: AtomicU64,
    not_written: AtomicU64,
    unknown: AtomicU64,
    dead_written: AtomicU64,
    dead_lost: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
    raw_bytes: AtomicU64,
    compressed_bytes: AtomicU64,
    errors: [AtomicU64; KINDS.len()],
    verdicts: Mutex<VerdictCounts>,
    /// What the gauge was told last.
    buffer_used: AtomicUsize,
    batch_bytes: Histogram,
    batch_records: Histogram,
    queue_micros: Histogram,
    request_micros: Histogram,
    delivery_micros: Histogram,
    rate: Mutex<Rate>,
    facade: Facade,
}

impl Counters {
    pub(crate) fn new(client_id: &str) -> Self {
        Self {
            sealed: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            not_written: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            dead_written: AtomicU64::new(0),
            dead_lost: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            raw_bytes: AtomicU64::new(0),
            compressed_bytes: AtomicU64::new(0),
            errors: Default::default(),
            verdicts: Mutex::default(),
            buffer_used: AtomicUsize::new(0),
            batch_bytes: Histogram::default(),
            batch_records: Histogram::default(),
            queue_micros: Histogram::default(),
            request_micros: Histogram::default(),
            delivery_micros: Histogram::default(),
            rate: Mutex::default(),
            facade: Facade::new(client_id),
        }
    }

    /// A batch is full.
    pub(crate) fn sealed(&self, records: u32, bytes: usize) {
        add(&self.sealed, u64::from(records));
        self.batch_bytes.record(bytes as u64);
        self.batch_records.record(u64::from(records));
        self.facade.batch_bytes.record(bytes as f64);
        self.facade.batch_records.record(f64::from(records));
    }

    /// A batch was compressed.
    pub(crate) fn compressed(&self, before_bytes: usize, after_bytes: usize) {
        add(&self.raw_bytes, before_bytes as u64);
        add(&self.compressed_bytes, after_bytes as u64);
        let ratio = after_bytes as f64 / before_bytes.max(1) as f64;
        self.facade.compression_ratio.record(ratio);
    }

    /// A request goes out.
    pub(crate) fn requested(&self, batches: usize, bytes: usize) {
        add(&self.requests, 1);
        add(&self.batches, batches as u64);
        add(&self.bytes, bytes as u64);
        self.facade.requests.increment(1);
        self.facade.batches.increment(batches as u64);
        self.facade.sent_bytes.increment(bytes as u64);
    }

    /// A batch goes out for the first time, so long after its first record.
    pub(crate) fn queued(&self, waited: Duration) {
        self.queue_micros.record(micros(waited));
        self.facade.queue.record(waited.as_secs_f64());
    }

    /// A batch goes out again.
    pub(crate) fn retried(&self) {
        add(&self.retries, 1);
        self.facade.retries.increment(1);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, latency: Duration) {
        self.request_micros.record(micros(latency));
        self.facade.request.record(latency.as_secs_f64());
    }

    /// So many batches more were told so.
    pub(crate) fn judged(&self, more: &VerdictCounts) {
        self.verdicts.lock().add(more);
        for ((_, count), facade) in more.named().iter().zip(&self.facade.verdicts) {
            if *count > 0 {
                facade.increment(*count);
            }
        }
    }

    /// Records were acknowledged, or failed with this error.
    pub(crate) fn ended(&self, ended: Ended, error: Option<&Error>) {
        let records = u64::from(ended.records);
        let Some(error) = error else {
            add(&self.acknowledged, records);
            self.facade.acknowledged.increment(records);
            self.delivery_micros.record(micros(ended.latency));
            self.facade.delivery.record(ended.latency.as_secs_f64());
            self.rate.lock().add(ended.at, records);
            return;
        };
        let (counter, facade) = match error.write_outcome() {
            Some(WriteOutcome::NotWritten) => (&self.not_written, &self.facade.not_written),
            _ => (&self.unknown, &self.facade.unknown),
        };
        add(counter, records);
        facade.increment(records);
        let kind = kind_index(error.kind());
        if let Some(counter) = self.errors.get(kind) {
            add(counter, records);
        }
        if let Some(facade) = self.facade.errors.get(kind) {
            facade.increment(records);
        }
    }

    /// Failed records were written to their dead letter topic, or could not be.
    pub(crate) fn dead_letters(&self, records: u64, written: bool) {
        let (counter, facade) = match written {
            true => (&self.dead_written, &self.facade.dead_written),
            false => (&self.dead_lost, &self.facade.dead_lost),
        };
        add(counter, records);
        facade.increment(records);
    }

    /// How much of the buffer is in use. Producers that share a client id add up.
    pub(crate) fn buffer(&self, used_bytes: usize) {
        let before = self.buffer_used.swap(used_bytes, Ordering::Relaxed);
        let gauge = &self.facade.buffer_used;
        if used_bytes > before {
            gauge.increment((used_bytes - before) as f64);
        } else if used_bytes < before {
            gauge.decrement((before - used_bytes) as f64);
        }
    }

    /// Records of full batches that have not ended.
    pub(crate) fn pending(&self) -> u64 {
        let ended = get(&self.acknowledged) + get(&self.not_written) + get(&self.unknown);
        get(&self.sealed).saturating_sub(ended)
    }

    /// Everything but what the pool knows.
    pub(crate) fn snapshot(&self, now: Instant) -> Metrics {
        let acknowledged = get(&self.acknowledged);
        let not_written = get(&self.not_written);
        let unknown = get(&self.unknown);
        let raw = get(&self.raw_bytes);
        let after = get(&self.compressed_bytes);
        let [
            timeout,
            connection,
            unknown_topic,
            too_large,
            broker,
            fenced,
            closed,
            other,
        ] = self.errors.each_ref().map(get);
        Metrics {
            records_acknowledged: acknowledged,
            records_not_written: not_written,
            records_unknown: unknown,
            records_pending: self.pending(),
            records_per_second: self.rate.lock().a_second(now),
            dead_letters_written: get(&self.dead_written),
            dead_letters_lost: get(&self.dead_lost),
            batches_sent: get(&self.batches),
            batch_retries: get(&self.retries),
            requests_sent: get(&self.requests),
            bytes_sent: get(&self.bytes),
            errors: ErrorCounts {
                timeout,
                connection,
                unknown_topic,
                too_large,
                broker,
                fenced,
                closed,
                other,
            },
            verdicts: *self.verdicts.lock(),
            batch_bytes: self.batch_bytes.summary(|bytes| bytes),
            batch_records: self.batch_records.summary(|records| records),
            compression_ratio: (raw > 0).then(|| after as f64 / raw as f64),
            queue_time: self.queue_micros.summary(Duration::from_micros),
            request_latency: self.request_micros.summary(Duration::from_micros),
            delivery_latency: self.delivery_micros.summary(Duration::from_micros),
            ..Metrics::default()
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// So long the rate looks back, as Java's does.
const RATE_OVER: Duration = Duration::from_secs(30);
const RATE_STEP: Duration = Duration::from_secs(1);

/// Acknowledged records over the last while, a second at a time.
#[derive(Debug, Default)]
struct Rate {
    first: Option<Instant>,
    /// At most one entry a second, so at most thirty-one.
    steps: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn add(&mut self, now: Instant, records: u64) {
        self.first.get_or_insert(now);
        match self.steps.back_mut() {
            Some((from, count)) if now.saturating_duration_since(*from) < RATE_STEP => {
                *count += records;
            }
            _ => {
                self.forget(now);
                self.steps.push_back((now, records));
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        let old = |from: &Instant| now.saturating_duration_since(*from) >= RATE_OVER;
        while self.steps.front().is_some_and(|(from, _)| old(from)) {
            self.steps.pop_front();
        }
    }

    fn a_second(&mut self, now: Instant) -> f64 {
        self.forget(now);
        let Some(first) = self.first else { return 0.0 };
        let seen = now.saturating_duration_since(first);
        let over = seen.clamp(RATE_STEP, RATE_OVER);
        let records: u64 = self.steps.iter().map(|(_, count)| count).sum();
        records as f64 / over.as_secs_f64()
    }
}

/// Handles of the `metrics` crate.
struct Facade {
    acknowledged: metrics::Counter,
    not_written: metrics::Counter,
    unknown: metrics::Counter,
    dead_written: metrics::Counter,
    dead_lost: metrics::Counter,
    errors: [metrics::Counter; KINDS.len()],
    verdicts: [metrics::Counter; 7],
    batches: metrics::Counter,
    retries: metrics::Counter,
    requests: metrics::Counter,
    sent_bytes: metrics::Counter,
    batch_bytes: metrics::Histogram,
    batch_records: metrics::Histogram,
    compression_ratio: metrics::Histogram,
    queue: metrics::Histogram,
    request: metrics::Histogram,
    delivery: metrics::Histogram,
    buffer_used: metrics::Gauge,
}

impl Facade {
    fn new(client_id: &str) -> Self {
        describe();
        let id = || client_id.to_owned();
        let records = |outcome| metrics::counter!("ottla_producer_records_total", "client_id" => id(), "outcome" => outcome);
        let dead = |outcome| metrics::counter!("ottla_producer_dead_letters_total", "client_id" => id(), "outcome" => outcome);
        let error = |kind| metrics::counter!("ottla_producer_record_errors_total", "client_id" => id(), "kind" => kind);
        let verdict = |name| metrics::counter!("ottla_producer_answers_total", "client_id" => id(), "verdict" => name);
        Self {
            acknowledged: records("acknowledged"),
            not_written: records("not_written"),
            unknown: records("unknown"),
            dead_written: dead("written"),
            dead_lost: dead("lost"),
            errors: KINDS.map(error),
            verdicts: VerdictCounts::default()
                .named()
                .map(|(name, _)| verdict(name)),
            batches: metrics::counter!("ottla_producer_batches_total", "client_id" => id()),
            retries: metrics::counter!("ottla_producer_batch_retries_total", "client_id" => id()),
            requests: metrics::counter!("ottla_producer_requests_total", "client_id" => id()),
            sent_bytes: metrics::counter!("ottla_producer_sent_bytes_total", "client_id" => id()),
            batch_bytes: metrics::histogram!("ottla_producer_batch_bytes", "client_id" => id()),
            batch_records: metrics::histogram!("ottla_producer_batch_records", "client_id" => id()),
            compression_ratio: metrics::histogram!("ottla_producer_compression_ratio", "client_id" => id()),
            queue: metrics::histogram!("ottla_producer_queue_seconds", "client_id" => id()),
            request: metrics::histogram!("ottla_producer_request_seconds", "client_id" => id()),
            delivery: metrics::histogram!("ottla_producer_delivery_seconds", "client_id" => id()),
            buffer_used: metrics::gauge!("ottla_producer_buffer_used_bytes", "client_id" => id()),
        }
    }
}

impl fmt::Debug for Facade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Facade")
    }
}

/// Tells the recorder what the names mean.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "ottla_producer_records_total",
        "records that ended, by outcome"
    );
    describe_counter!(
        "ottla_producer_record_errors_total",
        "records that failed, by the error's kind"
    );
    describe_counter!(
        "ottla_producer_dead_letters_total",
        "failed records written to their dead letter topic, or lost"
    );
    describe_counter!(
        "ottla_producer_answers_total",
        "batches that a broker answered, by what the answer meant"
    );
    describe_counter!(
        "ottla_producer_batches_total",
        "batches sent, repeated ones counted each time"
    );
    describe_counter!("ottla_producer_batch_retries_total", "batches sent again");
    describe_counter!("ottla_producer_requests_total", "Produce requests sent");
    describe_counter!(
        "ottla_producer_sent_bytes_total",
        Unit::Bytes,
        "bytes of requests sent"
    );
    describe_histogram!(
        "ottla_producer_batch_bytes",
        Unit::Bytes,
        "size of a full batch before compression"
    );
    describe_histogram!("ottla_producer_batch_records", "records in a full batch");
    describe_histogram!(
        "ottla_producer_compression_ratio",
        "size after compression over size before"
    );
    describe_histogram!(
        "ottla_producer_queue_seconds",
        Unit::Seconds,
        "from a batch's first record to its first sending"
    );
    describe_histogram!(
        "ottla_producer_request_seconds",
        Unit::Seconds,
        "from sending a request to its answer"
    );
    describe_histogram!(
        "ottla_producer_delivery_seconds",
        Unit::Seconds,
        "from a batch's first record to its acknowledgement"
    );
    describe_gauge!(
        "ottla_producer_buffer_used_bytes",
        Unit::Bytes,
        "buffer in use"
    );
}
