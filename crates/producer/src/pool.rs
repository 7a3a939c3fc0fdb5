//! The memory that records wait in: chunks, of which there are only so many bytes.
//!
//! The bytes are shared out by leader, so that a broker that is slow or dead cannot take them all.
//! Each leader has an account, which may grow while it holds at most twice what is free: a *dynamic
//! threshold*, as switches share packet memory between their ports. One stuck leader so ends at two
//! thirds of the memory, while the others' batches come and go in the rest; a fixed share would
//! instead leave most of the memory unused whenever few leaders are busy. With one account there is
//! no threshold.

mod account;
mod line;

pub(crate) use account::Account;
pub(crate) use line::Reservation;

use line::Line;
use ottla_proto::BrokerId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// The smallest chunk: a quiet partition's batch costs no more.
const CHUNK_BYTES_MIN: usize = 1 << 10;
/// The largest chunk that a batch gets before it is known how large it becomes, and while memory is
/// short: a batch wastes half a chunk at its end.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 15;
/// The largest chunk for a batch that is expected to fill it: each chunk costs an allocation on its
/// way out, and a batch of large records has few records to share it.
const LARGE_BYTES_MAX: usize = 1 << 20;
/// Larger chunks of open batches are at most this part of the memory: one that turns out to be too
/// large for its batch keeps memory from others.
const LARGE_SHARE: usize = 4;
/// One list of free chunks for each power of two from the smallest to the largest, and for what lies
/// in the middle between two.
const CLASSES: usize = 21;
/// Free chunks beyond so many bytes go back to the allocator.
const FREE_BYTES_MAX: usize = 64 << 20;
/// This part of the limit may be free beyond what is unused. While a full buffer is compressed,
/// memory goes to and fro between large chunks and small ones, and each page that the system takes
/// back and gives again costs more than compressing some of its records.
const FREE_SHARE: usize = 8;

/// The pool of one producer (`buffer.memory`).
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    used: AtomicUsize,
    free_bytes: AtomicUsize,
    /// In larger chunks of open batches.
    large_bytes: AtomicUsize,
    free: [Mutex<Vec<Vec<u8>>>; CLASSES],
    /// Callers in the line.
    waiting: AtomicUsize,
    line: Mutex<Line>,
    /// One for each leader that a partition or a chunk belongs to.
    accounts: Mutex<Vec<Weak<Account>>>,
    account_count: AtomicUsize,
}

fn chunk_bytes(wanted: usize) -> usize {
    wanted
        .next_power_of_two()
        .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
}

/// The size of a larger chunk for so many bytes, of which they fill at least seven eighths.
fn large_chunk_bytes(wanted: usize) -> Option<usize> {
    let most = wanted.saturating_add(wanted / 7).min(LARGE_BYTES_MAX);
    let bytes = 1 << most.checked_ilog2()?;
    (bytes > CHUNK_BYTES_MAX).then_some(bytes)
}

/// The size of a chunk for what is left of so many bytes that are all there: one for the whole, of
/// which they fill at least two thirds, since each chunk costs an allocation on its way out.
fn whole_chunk_bytes(left: usize) -> usize {
    if left <= CHUNK_BYTES_MAX {
        return chunk_bytes(left);
    }
    let power = left.min(LARGE_BYTES_MAX).next_power_of_two();
    let between = power / 4 * 3;
    if left <= between { between } else { power }
}

/// The same, which takes no more than what it stands for: else the buffer held half as much again of
/// records that hardly compress.
fn section_chunk_bytes(left: usize, replaced_bytes: usize) -> usize {
    let whole = whole_chunk_bytes(left);
    if whole <= left.max(replaced_bytes) {
        return whole;
    }
    large_chunk_bytes(left).unwrap_or_else(|| chunk_bytes(left))
}

fn class(chunk_bytes: usize) -> Option<usize> {
    let log = chunk_bytes.checked_ilog2()?;
    let beyond = match chunk_bytes - (1 << log) {
        0 => 0,
        middle if 2 * middle == 1 << log => 1,
        _ => return None,
    };
    let class = 2 * log.checked_sub(CHUNK_BYTES_MIN.ilog2())? as usize + beyond;
    (class < CLASSES).then_some(class)
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            free_bytes: AtomicUsize::new(0),
            large_bytes: AtomicUsize::new(0),
            free: Default::default(),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            accounts: Mutex::default(),
            account_count: AtomicUsize::new(0),
        })
    }

    /// Bytes in chunks that hold records, and of values that are kept beside them.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The largest record that fits into the empty pool, whatever chunks it takes.
    pub(crate) fn largest_record(&self) -> usize {
        self.limit - self.limit % CHUNK_BYTES_MAX
    }

    /// Callers that wait for memory.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The account of a leader; partitions without one share an account too.
    pub(crate) fn account(self: &Arc<Self>, leader: Option<BrokerId>) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        accounts.retain(|account| account.strong_count() > 0);
        let known = accounts
            .iter()
            .filter_map(Weak::upgrade)
            .find(|account| account.leader() == leader);
        known.unwrap_or_else(|| {
            let account = Arc::new(Account::new(Arc::clone(self), leader));
            accounts.push(Arc::downgrade(&account));
            account
        })
    }

    fn unused(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Ordering::SeqCst))
    }

    fn claim(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// A larger chunk, if open batches do not hold too many of them.
    fn claim_large(&self, bytes: usize) -> bool {
        let most = self.limit / LARGE_SHARE;
        let fits = |open: usize| open.checked_add(bytes).filter(|&sum| sum <= most);
        self.large_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn release_large(&self, bytes: usize) {
        self.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An empty chunk; its bytes are claimed already.
    fn chunk(&self, bytes: usize) -> Vec<u8> {
        let free = class(bytes).and_then(|class| self.free.get(class)?.lock().pop());
        if free.is_some() {
            self.free_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        free.unwrap_or_else(|| {
            self.trim();
            Vec::with_capacity(bytes)
        })
    }

    /// Gives free chunks of other sizes back to the allocator, the largest first, as far as they and
    /// what is used are more than the limit and a little.
    fn trim(&self) {
        let most = self.unused() + self.limit / FREE_SHARE;
        for free in self.free.iter().rev() {
            while self.free_bytes.load(Ordering::Relaxed) > most {
                let Some(chunk) = free.lock().pop() else {
                    break;
                };
                let bytes = chunk.capacity();
                self.free_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    fn give_back(&self, chunk: Vec<u8>) {
        let bytes = chunk.capacity();
        if let Some(free) = class(bytes).and_then(|class| self.free.get(class))
            && self.free_bytes.load(Ordering::Relaxed) < FREE_BYTES_MAX
        {
            self.free_bytes.fetch_add(bytes, Ordering::Relaxed);
            free.lock().push(chunk);
        }
    }

    /// Gives the free chunks back to the allocator, and those that come later at once.
    pub(crate) fn drain(&self) {
        self.free_bytes.store(FREE_BYTES_MAX, Ordering::Relaxed);
        self.free.iter().for_each(|class| class.lock().clear());
    }

    /// Notes of which accounts someone wants memory: of those that someone waits for, and of those
    /// that hold more than the least of these, since they keep it small. A stuck leader holds most,
    /// so that whoever waits for it does not cut the batches of the others short.
    pub(crate) fn heed(&self) {
        let accounts = self.accounts.lock();
        let all = || accounts.iter().filter_map(Weak::upgrade);
        let asked = all().filter(|account| account.heed());
        let least = asked.map(|account| account.used()).min();
        let least = least.unwrap_or(usize::MAX);
        for account in all() {
            if account.used() > least {
                account.want();
            }
        }
    }
}

#[cfg(test)]
mod tests;
