//! Something that is on or off, and that many connections wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// A flag. Those who wait for a change are woken in the order in which they came: a watch channel
/// wakes them in a random one, and a seed would then not replay.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    on: AtomicBool,
    changed: Notify,
}

impl Flag {
    /// A flag that is `on`.
    pub(crate) fn new(on: bool) -> Self {
        Self {
            on: AtomicBool::new(on),
            changed: Notify::new(),
        }
    }

    /// Whether it is on.
    pub(crate) fn get(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Sets it and wakes who waits.
    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until it is on, or off.
    pub(crate) async fn wait_for(&self, on: bool) {
        loop {
            // It hears of every change from here on, also before it is polled.
            let changed = self.changed.notified();
            if self.get() == on {
                return;
            }
            changed.await;
        }
    }
}
