//! What a client process spends: CPU time, wall time, allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Counts the allocations of Rust code when asked to; C libraries call malloc themselves and are not counted.
/// It counts only in a run of its own, for the count is an atomic that threads would share.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    if COUNTING.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

pub fn count_allocations() {
    COUNTING.store(true, Relaxed);
}

/// What one run of a client cost; the clients in other languages print the same.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time of the whole process, all its threads.
    pub cpu_ns: u64,
    pub wall_ns: u64,
    /// Zero unless counted.
    pub allocations: u64,
    /// The part of the CPU time that compressing took; only the floor knows.
    pub codec_ns: u64,
    /// What was sent before the measuring began.
    pub warm_up: u64,
}

/// Begun after connecting and warming up.
pub struct Meter {
    cpu: Duration,
    wall: Instant,
    allocations: u64,
}

impl Meter {
    pub fn start() -> Meter {
        Meter {
            allocations: ALLOCATIONS.load(Relaxed),
            wall: Instant::now(),
            cpu: process_cpu(),
        }
    }

    pub fn stop(self, warm_up: usize) -> Cost {
        Cost {
            cpu_ns: (process_cpu() - self.cpu).as_nanos() as u64,
            wall_ns: self.wall.elapsed().as_nanos() as u64,
            allocations: ALLOCATIONS.load(Relaxed) - self.allocations,
            codec_ns: 0,
            warm_up: warm_up as u64,
        }
    }
}

/// User plus system time of this process so far.
fn process_cpu() -> Duration {
    // SAFETY: a zeroed rusage is a valid one, and getrusage writes into it and nowhere else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |of: libc::timeval| Duration::new(of.tv_sec as u64, of.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// CPU time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    // SAFETY: a zeroed timespec is a valid one, and clock_gettime writes into it and nowhere else.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
