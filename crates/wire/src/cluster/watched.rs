//! Which topics are watched, who asked for a refresh, and what was asked when.

use super::{Inner, closed};
use ottla_proto::cluster::Topic;
use ottla_proto::{ClusterView, Code, Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

#[derive(Debug, Default)]
struct Watch {
    /// Calls to watch that were not undone.
    count: usize,
    /// Whether somebody asked for the topic itself.
    asked: bool,
    /// Those who wait for it just now.
    waiting: usize,
}

/// What the metadata task is to do.
#[derive(Debug, Default)]
pub(super) struct Watched {
    topics: BTreeMap<Arc<str>, Watch>,
    /// Grows with every wish; a refresh that began later fulfils it.
    wishes: u64,
    /// The wishes that the last refresh fulfilled.
    taken: u64,
    stale: bool,
}

/// What the last refresh fulfilled, and how it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Covered {
    wishes: u64,
    error: Option<Error>,
}

/// One refresh to be made.
pub(super) struct Round {
    pub(super) wishes: u64,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) because_stale: bool,
}

impl Covered {
    pub(super) fn new(wishes: u64, error: Option<Error>) -> Self {
        Self { wishes, error }
    }
}

impl Watched {
    pub(super) fn watch(&mut self, name: &Arc<str>) {
        let known = self.topics.contains_key(name);
        self.topics.entry(Arc::clone(name)).or_default().count += 1;
        if !known {
            self.wishes += 1;
        }
    }

    pub(super) fn unwatch(&mut self, name: &str) {
        let Some(watch) = self.topics.get_mut(name) else {
            return;
        };
        watch.count = watch.count.saturating_sub(1);
        // Whoever only asked hears of it again when it asks again; the others count on each other.
        watch.asked &= watch.count > 0;
        self.drop_unused(name);
    }

    fn drop_unused(&mut self, name: &str) {
        let unused = |watch: &Watch| watch.count == 0 && !watch.asked && watch.waiting == 0;
        if self.topics.get(name).is_some_and(unused) {
            self.topics.remove(name);
        }
    }

    /// Returns whether that was news.
    pub(super) fn mark_stale(&mut self) -> bool {
        !std::mem::replace(&mut self.stale, true)
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    pub(super) fn has_wishes(&self) -> bool {
        self.wishes > self.taken
    }

    pub(super) fn is_watched(&self, name: &str) -> bool {
        self.topics.contains_key(name)
    }

    fn wish(&mut self) -> u64 {
        self.wishes += 1;
        self.wishes
    }

    /// One more waits for the topic: nobody else's end takes it away meanwhile.
    fn wait_for(&mut self, name: &str) {
        match self.topics.get_mut(name) {
            Some(watch) => watch.waiting += 1,
            None => self.topics.entry(name.into()).or_default().waiting = 1,
        }
    }

    fn end_wait(&mut self, name: &str) {
        if let Some(watch) = self.topics.get_mut(name) {
            watch.waiting = watch.waiting.saturating_sub(1);
            self.drop_unused(name);
        }
    }

    /// Somebody waited for the topic and has it: it is watched until it is given up or unwatched.
    fn found(&mut self, name: &str) {
        if let Some(watch) = self.topics.get_mut(name) {
            watch.asked = true;
        }
    }

    /// A topic that nobody found is not asked for any more.
    fn give_up(&mut self, name: &str) {
        if let Some(watch) = self.topics.get_mut(name) {
            watch.asked = false;
            self.drop_unused(name);
        }
    }

    /// Begins a refresh: everything wished so far is its business.
    pub(super) fn begin_round(&mut self) -> Round {
        self.taken = self.wishes;
        Round {
            wishes: self.wishes,
            topics: self.topics.keys().cloned().collect(),
            because_stale: std::mem::take(&mut self.stale),
        }
    }

    /// Whether a watched topic is not what it should be, so that asking again may help.
    pub(super) fn is_unsettled(&self, view: &ClusterView) -> bool {
        self.topics.keys().any(|name| match view.topic(name) {
            Some(topic) => topic.available.len() < topic.partitions.len(),
            None => view
                .refused
                .get(name)
                .is_none_or(|code| code.is_retriable()),
        })
    }
}

/// Waits for a refresh that began after this call.
pub(super) async fn await_refresh(inner: &Inner) -> Result<()> {
    let mut covered = inner.covered.subscribe();
    let wish = inner.watched.lock().wish();
    inner.wake.notify_one();
    tokio::select! {
        biased;
        () = inner.stopped() => Err(closed()),
        ended = covered.wait_for(|covered| covered.wishes >= wish) => match ended {
            Ok(covered) => covered.error.clone().map_or(Ok(()), Err),
            Err(_) => Err(closed()),
        }
    }
}

/// One who waits for a topic, until it is dropped.
struct Waiting<'a> {
    inner: &'a Inner,
    name: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner, name: &'a str) -> Self {
        inner.watched.lock().wait_for(name);
        Self { inner, name }
    }

    /// The topic, if the view has it.
    fn look(&self) -> Option<Arc<Topic>> {
        let topic = self.inner.view.load().topic(self.name).cloned()?;
        self.inner.watched.lock().found(self.name);
        Some(topic)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inner.watched.lock().end_wait(self.name);
    }
}

/// Waits until the topic is known, refused for good, or the deadline passes.
pub(super) async fn await_topic(
    inner: &Inner,
    name: &str,
    deadline: Instant,
) -> Result<Arc<Topic>> {
    let waiting = Waiting::new(inner, name);
    if let Some(topic) = waiting.look() {
        return Ok(topic);
    }
    let mut changes = inner.generation.subscribe();
    let mut covered = inner.covered.subscribe();
    let wish = inner.watched.lock().wish();
    inner.wake.notify_one();
    let mut asked = false;
    loop {
        // Marked before the look, so that no change in between is missed.
        changes.mark_unchanged();
        if let Some(topic) = waiting.look() {
            return Ok(topic);
        }
        let view = inner.view.load_full();
        // What was refused before we asked may be allowed by now.
        let refused = view.refused.get(name).copied().filter(|_| asked);
        if let Some(code) = refused.filter(|code| !code.is_retriable()) {
            inner.watched.lock().give_up(name);
            return Err(Error::broker(code, &format!("Metadata for topic {name}")));
        }
        tokio::select! {
            biased;
            () = inner.stopped() => return Err(closed()),
            _ = changes.changed() => {}
            _ = covered.wait_for(|covered| covered.wishes >= wish), if !asked => asked = true,
            () = tokio::time::sleep_until(deadline) => {
                let last = inner.covered.borrow().error.clone();
                return Err(give_up(inner, name, view.refused.get(name).copied(), last));
            }
        }
    }
}

fn give_up(inner: &Inner, name: &str, refused: Option<Code>, last: Option<Error>) -> Error {
    inner.watched.lock().give_up(name);
    match (refused, last) {
        (_, Some(last)) => {
            let what = format!("no metadata of topic {name} within its deadline: {last}");
            Error::new(ErrorKind::Timeout, what).caused_by(last)
        }
        (Some(Code::UNKNOWN_TOPIC_OR_PARTITION), None) => {
            let what = format!("topic {name} does not exist");
            Error::new(ErrorKind::UnknownTopicOrPartition, what)
        }
        (Some(code), None) => Error::broker(code, &format!("Metadata for topic {name}")),
        (None, None) => {
            let what = format!("no metadata of topic {name} within its deadline");
            Error::new(ErrorKind::Timeout, what)
        }
    }
}
