//! Compression off the driver's task: a queue in the order of sealing, and as many threads as the
//! machine has cores. More threads than that would only take turns, each with a codec's working
//! memory of its own; the queue holds batches of the pool and is bounded by it.

use crate::inbox::Message;
use crate::pool::Account;
use crate::producer::Shared;
use bytes::Bytes;
use ottla_proto::batch::{BatchWriter, Compression, Compressor, SealedRecords, Segments};
use ottla_proto::producer::PartitionIndex;
use ottla_proto::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A sealed batch that is to be compressed.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) partition: PartitionIndex,
    pub(crate) ordinal: u128,
    pub(crate) raw: Raw,
}

/// The records of a sealed batch that is to be compressed, in chunks that nobody shares; they go back
/// to their account whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Raw {
    writer: BatchWriter,
    account: Arc<Account>,
}

impl Raw {
    pub(crate) fn new(mut writer: BatchWriter, account: Arc<Account>) -> Self {
        writer.chunk_sizes().for_each(|bytes| account.sealed(bytes));
        writer
            .unused_chunks()
            .for_each(|chunk| account.take_back(chunk));
        Self { writer, account }
    }

    pub(crate) fn count(&self) -> u32 {
        self.writer.count()
    }

    /// Size before compression, header included.
    pub(crate) fn size_bytes(&self) -> usize {
        self.writer.size_bytes()
    }

    /// Seals the batch, compressed if that makes it smaller; `keep` copies what the codec made.
    fn seal(
        mut self,
        how: (Compression, Option<i32>),
        keep: impl FnOnce(&[u8]) -> Segments,
    ) -> (SealedRecords, Result<()>) {
        let account = &self.account;
        let wrap = |chunk: Vec<u8>| {
            if chunk.is_empty() {
                account.take_back(chunk);
                return Bytes::new();
            }
            account.lend(chunk, 0)
        };
        let writer = &mut self.writer;
        let packed = with_codec(|compressor| writer.pack(compressor, how, keep));
        let (packed, done) = match packed {
            Ok(packed) => (packed, Ok(())),
            Err(error) => (None, Err(error)),
        };
        (self.writer.seal_packed(packed, wrap), done)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let mut writer = std::mem::take(&mut self.writer);
        writer
            .chunks()
            .for_each(|chunk| self.account.take_back(chunk));
    }
}

/// The batches that wait for a thread.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    threads_max: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
}

/// A thread that takes from the queue; counted until it ends, however it ends.
#[derive(Debug)]
pub(crate) struct Worker {
    queue: Arc<Queue>,
    counted: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let threads_max = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(threads_max)
    }
}

impl Queue {
    fn new(threads_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            threads_max,
        }
    }

    /// Adds a batch. Gives a worker if another thread is to be started for it.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> Option<Worker> {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        (state.threads < self.threads_max).then(|| {
            state.threads += 1;
            Worker {
                queue: Arc::clone(self),
                counted: true,
            }
        })
    }

    /// Forgets what waits: nobody sends it any more.
    pub(crate) fn clear(&self) {
        let jobs = std::mem::take(&mut self.state.lock().jobs);
        drop(jobs);
    }
}

impl Worker {
    /// Compresses until nothing waits.
    pub(crate) fn run(mut self, shared: &Shared) {
        while let Some(job) = self.next() {
            shared.shop.inbox.push(Message::Compressed {
                partition: job.partition,
                ordinal: job.ordinal,
                records: compress_raw(shared, job.raw),
            });
        }
    }

    /// The oldest batch. Without one the thread is counted out at once: a batch that comes after
    /// must find that it needs another.
    fn next(&mut self) -> Option<Job> {
        let mut state = self.queue.state.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.threads -= usize::from(std::mem::take(&mut self.counted));
        }
        job
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.counted {
            self.queue.state.lock().threads -= 1;
        }
    }
}

thread_local! {
    /// A codec's working memory is worth keeping: making it anew costs zstd a third of its time.
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new());
}

/// A codec that panics on a batch is one that fails: the batch goes as it is, and what waits behind it
/// goes on.
fn with_codec<T>(work: impl FnOnce(&mut Compressor) -> Result<T>) -> Result<T> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        let done = catch_unwind(AssertUnwindSafe(|| work(compressor)));
        done.unwrap_or_else(|_| {
            // Nobody knows what it left behind.
            *compressor = Compressor::new();
            Err(Error::new(ErrorKind::State, "the codec panicked"))
        })
    })
}

/// Compresses a batch that was sealed for it.
pub(crate) fn compress_raw(shared: &Shared, raw: Raw) -> SealedRecords {
    let account = Arc::clone(&raw.account);
    let raw_bytes = raw.size_bytes();
    let keep = |packed: &[u8]| account.adopt([packed], raw_bytes);
    let (records, done) = raw.seal(how(shared), keep);
    note(shared, &records, done);
    records
}

/// Compresses a sealed batch as the configuration says.
pub(crate) fn compress(shared: &Shared, account: &Arc<Account>, records: &mut SealedRecords) {
    let raw_bytes = records.raw_size_bytes();
    let keep = |packed: &[u8]| account.adopt([packed], raw_bytes);
    let (codec, level) = how(shared);
    let done = with_codec(|compressor| records.compress(compressor, codec, level, keep));
    note(shared, records, done);
}

fn how(shared: &Shared) -> (Compression, Option<i32>) {
    let codec = shared.config.compression;
    (codec, shared.config.compression_levels.of(codec))
}

fn note(shared: &Shared, records: &SealedRecords, done: Result<()>) {
    if let Err(error) = done {
        // Each batch says for itself how it is compressed, so this one goes as it is.
        tracing::warn!(%error, "a batch is sent uncompressed");
    }
    if shared.config.compression != Compression::None {
        let (before, after) = (records.raw_size_bytes(), records.size_bytes());
        shared.counters.compressed(before, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use ottla_proto::Record;
    use std::panic::resume_unwind;

    const CODEC: (Compression, Option<i32>) = (Compression::Lz4, None);

    fn account() -> Arc<Account> {
        Pool::new(8 << 20).account(None)
    }

    /// A batch of one record in two chunks, which was expected to grow by so much.
    fn raw(account: &Arc<Account>, value: &[u8], expected: usize) -> Raw {
        let mut writer = BatchWriter::to_be_compressed();
        for _ in 0..2 {
            assert!(account.take(value.len(), expected, 0, None, |chunk| {
                writer.add_chunk(chunk)
            }));
        }
        let record = Record::to("orders").value(value);
        writer.append(&record, 0).unwrap();
        Raw::new(writer, Arc::clone(account))
    }

    fn job(ordinal: u128) -> Job {
        Job {
            partition: PartitionIndex(0),
            ordinal,
            raw: Raw::new(BatchWriter::new(), Pool::new(1 << 20).account(None)),
        }
    }

    #[test]
    fn at_most_so_many_threads_take_batches_in_their_order() {
        let queue = Arc::new(Queue::new(2));
        let mut first = queue.push(job(0)).unwrap();
        let mut second = queue.push(job(1)).unwrap();
        assert!(queue.push(job(2)).is_none(), "two threads are enough");
        let ordinal = |worker: &mut Worker| worker.next().unwrap().ordinal;
        let taken = [
            ordinal(&mut first),
            ordinal(&mut second),
            ordinal(&mut first),
        ];
        assert_eq!(taken, [0, 1, 2]);
        assert!(first.next().is_none());
        // The first has ended, though it is still there.
        let third = queue.push(job(3));
        assert!(third.is_some() && queue.push(job(4)).is_none());
        drop(first);
        assert!(queue.push(job(5)).is_none(), "it is counted out once");
    }

    #[test]
    fn a_thread_that_dies_is_counted_out() {
        let queue = Arc::new(Queue::new(1));
        let mut worker = queue.push(job(0)).unwrap();
        assert!(worker.next().is_some());
        drop(worker);
        assert!(queue.push(job(1)).is_some());
    }

    #[test]
    fn a_batch_that_waits_holds_only_the_chunks_that_it_needs() {
        let account = account();
        let raw = raw(&account, &[b'v'; 100], 1000);
        assert_eq!(account.used(), 1 << 10, "one of two");
        drop(raw);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn batches_that_wait_leave_the_large_chunks_to_open_ones() {
        let account = account();
        let large = |_| raw(&account, &[b'v'; 100], 1 << 20);
        let waiting: Vec<Raw> = (0..4).map(large).collect();
        assert_eq!(account.used(), 4 << 20);
        drop(waiting);
    }

    #[test]
    fn the_memory_of_a_batch_comes_free_whatever_the_codec_makes_of_it() {
        let account = account();
        let keep = |packed: &[u8]| account.adopt([packed], 0);
        let text = [b'v'; 30_000];
        let (packed, done) = raw(&account, &text, 0).seal(CODEC, keep);
        done.unwrap();
        assert_eq!(account.used(), 1 << 10, "what the codec made, and no more");
        drop(packed);
        // It does not shrink.
        let (plain, done) = raw(&account, b"v", 0).seal(CODEC, keep);
        done.unwrap();
        assert_eq!(
            (plain.compression(), account.used()),
            (Compression::None, 1 << 10)
        );
        drop(plain);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn a_batch_goes_as_it_is_when_the_codec_panics() {
        let account = account();
        let dies = |_: &[u8]| resume_unwind(Box::new("a codec"));
        let (plain, done) = raw(&account, &[b'v'; 30_000], 0).seal(CODEC, dies);
        assert!(done.unwrap_err().to_string().contains("panicked"));
        assert_eq!((plain.compression(), plain.count()), (Compression::None, 1));
        assert!(plain.size_bytes() > 30_000);
        drop(plain);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn a_cleared_queue_gives_nothing() {
        let queue = Arc::new(Queue::new(1));
        let mut worker = queue.push(job(0)).unwrap();
        queue.clear();
        assert!(worker.next().is_none());
    }
}
