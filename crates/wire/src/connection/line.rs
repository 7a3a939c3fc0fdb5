//! The requests that were written and wait for their answers, oldest first. Pure.

use super::waiter::Waiter;
use crate::api_key::ApiKey;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// "Never", as far as a timer is concerned.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// One request on its way.
pub(super) struct Entry {
    correlation: i32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    began: Instant,
    pub(super) timeout: Duration,
    answer_max_bytes: usize,
    pub(super) waiter: Waiter,
}

/// What the line needs to know of a request.
pub(super) struct Begun {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) timeout: Duration,
    pub(super) answer_max_bytes: usize,
    pub(super) waiter: Waiter,
}

/// Requests in the order they were written. A broker answers in that order, so only the oldest can
/// be late: its clock starts when it was written or when the one before it was answered, whichever
/// is later.
pub(super) struct Line {
    entries: VecDeque<Entry>,
    head_since: Instant,
    last_activity: Instant,
    next_correlation: i32,
    muted_until: Option<Instant>,
}

/// An answer that does not belong to the oldest request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) due: Option<i32>,
}

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            entries: VecDeque::new(),
            head_since: now,
            last_activity: now,
            next_correlation: 0,
            muted_until: None,
        }
    }

    /// The broker wants to be left alone until then.
    pub(super) fn mute(&mut self, until: Instant) {
        self.muted_until = self.muted_until.max(Some(until));
    }

    /// Until when nothing may be written, if that is still to come.
    pub(super) fn muted_until(&self, now: Instant) -> Option<Instant> {
        self.muted_until.filter(|until| *until > now)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number for the next request.
    pub(super) fn correlation(&mut self) -> i32 {
        let correlation = self.next_correlation;
        self.next_correlation = correlation.wrapping_add(1) & i32::MAX;
        correlation
    }

    /// Notes that a request is being written now.
    pub(super) fn begin(&mut self, now: Instant, correlation: i32, begun: Begun) {
        self.last_activity = now;
        if self.entries.is_empty() {
            self.head_since = now;
        }
        self.entries.push_back(Entry {
            correlation,
            api: begun.api,
            version: begun.version,
            began: now,
            timeout: begun.timeout,
            answer_max_bytes: begun.answer_max_bytes,
            waiter: begun.waiter,
        });
    }

    /// Notes traffic that nobody answers.
    pub(super) fn touch(&mut self, now: Instant) {
        self.last_activity = now;
    }

    /// How large the next answer may be; `None` when none is due.
    pub(super) fn answer_max_bytes(&self) -> Option<usize> {
        self.entries.front().map(|entry| entry.answer_max_bytes)
    }

    /// Takes the oldest request out, which must have this number.
    pub(super) fn answered(&mut self, now: Instant, correlation: i32) -> Result<Entry, Mismatch> {
        let due = self.entries.front().map(|entry| entry.correlation);
        if due != Some(correlation) {
            return Err(Mismatch { due });
        }
        self.head_since = now;
        self.last_activity = now;
        self.entries.pop_front().ok_or(Mismatch { due })
    }

    /// Takes the oldest request out if its answer is late.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<Entry> {
        let late = self.head_deadline().is_some_and(|deadline| deadline <= now);
        late.then(|| self.entries.pop_front()).flatten()
    }

    /// When to look again: nothing can be late, or idle too long, before.
    pub(super) fn next_check(&self, now: Instant, max_idle: Duration) -> Instant {
        let Some(head) = self.head_deadline() else {
            return later(self.last_activity, max_idle);
        };
        // One behind the head may have a shorter timeout, which starts when it becomes the head.
        let behind = self.entries.iter().skip(1).map(|entry| entry.timeout).min();
        behind.map_or(head, |timeout| head.min(later(now, timeout)))
    }

    /// Whether nothing was written or answered for this long.
    pub(super) fn is_idle(&self, now: Instant, max_idle: Duration) -> bool {
        self.entries.is_empty() && later(self.last_activity, max_idle) <= now
    }

    /// Takes everything out, oldest first.
    pub(super) fn drain(&mut self) -> VecDeque<Entry> {
        std::mem::take(&mut self.entries)
    }

    fn head_deadline(&self) -> Option<Instant> {
        let head = self.entries.front()?;
        Some(later(head.began.max(self.head_since), head.timeout))
    }
}

pub(super) fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by.min(FAR)).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(timeout_ms: u64) -> Begun {
        Begun {
            api: ApiKey::Metadata,
            version: 12,
            timeout: Duration::from_millis(timeout_ms),
            answer_max_bytes: 100,
            waiter: Waiter::oneway(ApiKey::Metadata, Box::new(|_| {})),
        }
    }

    #[test]
    fn waiting_behind_a_predecessor_is_not_counted() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut line = Line::new(start);
        for timeout in [1000, 100] {
            let correlation = line.correlation();
            line.begin(at(0), correlation, request(timeout));
        }
        assert_eq!(
            line.next_check(at(0), FAR),
            at(100),
            "the second may be head by then"
        );
        assert!(line.take_overdue(at(999)).is_none());
        line.answered(at(900), 0).unwrap();
        assert!(line.take_overdue(at(999)).is_none());
        assert_eq!(line.next_check(at(999), FAR), at(1000));
        assert!(line.take_overdue(at(1000)).is_some());
    }

    #[test]
    fn answers_out_of_order_are_refused() {
        let now = Instant::now();
        let mut line = Line::new(now);
        for _ in 0..2 {
            let correlation = line.correlation();
            line.begin(now, correlation, request(10));
        }
        assert_eq!(line.answered(now, 1).err(), Some(Mismatch { due: Some(0) }));
        assert!(line.answered(now, 0).is_ok());
        assert!(line.answered(now, 1).is_ok());
        assert_eq!(line.answered(now, 2).err(), Some(Mismatch { due: None }));
    }

    #[test]
    fn correlation_numbers_wrap_without_going_negative() {
        let mut line = Line::new(Instant::now());
        line.next_correlation = i32::MAX;
        assert_eq!(line.correlation(), i32::MAX);
        assert_eq!(line.correlation(), 0);
    }
}
