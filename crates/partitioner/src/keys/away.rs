//! Keys that were sent elsewhere than their hash says: a table that never grows.

use parking_lot::Mutex;

/// How many entries stand together. A key that comes in takes the place of the one of these that was
/// not used for longest.
const WAYS: usize = 8;

/// A key by its hash, and where it is; `None` is free.
type Entry = Option<(u64, i32)>;

/// A bounded table from keys to partitions. Two keys of one hash, which is as good as never, share an
/// entry: they go the same way.
#[derive(Debug)]
pub(crate) struct Away {
    /// Latest use first.
    sets: Box<[Mutex<[Entry; WAYS]>]>,
    ways: usize,
}

impl Away {
    /// A table of at most so many entries, and at least one.
    pub(crate) fn new(entries: usize) -> Self {
        let entries = entries.clamp(1, super::KEYS_MAX);
        let ways = entries.min(WAYS);
        let sets = (0..entries / ways).map(|_| Mutex::default());
        Self {
            sets: sets.collect(),
            ways,
        }
    }

    fn set(&self, key: u64) -> Option<&Mutex<[Entry; WAYS]>> {
        // The low half chooses the set; the whole is compared.
        let at = (key & 0xffff_ffff) as usize % self.sets.len().max(1);
        self.sets.get(at)
    }

    /// Where the key is, if that is still good; else where `choose` says, which is remembered unless
    /// it is `home`.
    pub(crate) fn place(
        &self,
        key: u64,
        home: i32,
        is_good: impl Fn(i32) -> bool,
        choose: impl FnOnce() -> i32,
    ) -> i32 {
        let Some(set) = self.set(key) else {
            return home;
        };
        let mut set = set.lock();
        let entries = set.get_mut(..self.ways).unwrap_or_default();
        let of_key = |entry: &Entry| entry.is_some_and(|(known, _)| known == key);
        let found = entries.iter().position(of_key);
        if let Some(at) = found
            && let Some(entry) = entries.get(at).copied().flatten()
            && is_good(entry.1)
        {
            entries.get_mut(..=at).unwrap_or_default().rotate_right(1);
            return entry.1;
        }
        let chosen = match found {
            None if is_good(home) => return home,
            _ => choose(),
        };
        // In the place of its own old entry, of a free one, or of the one not used for longest.
        let free = || entries.iter().position(Option::is_none);
        let last = found
            .or_else(free)
            .unwrap_or(entries.len().saturating_sub(1));
        let upto = entries.get_mut(..=last).unwrap_or_default();
        if chosen == home {
            if let Some(entry) = upto.last_mut().filter(|_| found.is_some()) {
                *entry = None;
            }
            return home;
        }
        upto.rotate_right(1);
        if let Some(first) = upto.first_mut() {
            *first = Some((key, chosen));
        }
        chosen
    }

    /// How many keys are away.
    pub(crate) fn count(&self) -> usize {
        let used = |set: &Mutex<[Entry; WAYS]>| set.lock().iter().flatten().count();
        self.sets.iter().map(used).sum()
    }
}
