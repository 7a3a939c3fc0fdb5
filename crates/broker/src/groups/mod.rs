//! Consumer groups: the store of all groups and their committed offsets. Each group is a pure
//! state machine in [`group`] and [`join`].

pub(crate) mod group;
pub(crate) mod join;
mod pending;
#[cfg(test)]
mod tests;

use crate::settings::Settings;
use crate::state::Shared;
use group::{Answer, Due, Group, JoinAnswer, State, Sync, SyncAnswer, Ticket};
use join::Join;
use ottla_proto::Code;
use parking_lot::Mutex;
use pending::{Ordered, Pending};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How many groups the cluster keeps; at the limit one without members and offsets makes room, and
/// if there is none a new group is refused.
const GROUPS_MAX: usize = 10_000;

/// Kafka's `group.max.size`, which there has no limit by default.
const MEMBERS_MAX: usize = 1000;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// One group with its offsets.
#[derive(Debug)]
struct Kept {
    group: Group,
    /// By topic and partition.
    offsets: BTreeMap<String, BTreeMap<i32, Ordered>>,
    pending: Pending,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<String, Kept>,
    /// Requests that wait: at most one a member.
    waiting: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    next_ticket: Ticket,
    /// How many offsets were committed, in transactions or not: their order.
    commits: u64,
}

impl Inner {
    fn ticket(&mut self) -> (Ticket, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        self.next_ticket += 1;
        self.waiting.insert(self.next_ticket, sender);
        (self.next_ticket, receiver)
    }

    fn deliver(&mut self, due: Due) {
        for (ticket, answer) in due {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // A connection that is gone does not want its answer.
                drop(sender.send(answer));
            }
        }
    }
}

/// Every group of the cluster. Which node coordinates which is decided outside.
#[derive(Debug)]
pub(crate) struct Coordinator {
    inner: Mutex<Inner>,
    /// Notified when the earliest deadline may have changed.
    changed: Notify,
    initial_delay: Duration,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

impl Coordinator {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            initial_delay: settings.initial_rebalance_delay,
        }
    }

    fn ensure<'a>(&self, inner: &'a mut Inner, id: &str) -> Result<&'a mut Kept, Code> {
        if !inner.groups.contains_key(id) && inner.groups.len() >= GROUPS_MAX {
            let unused = |kept: &Kept| {
                kept.group.state == State::Empty
                    && kept.group.size() == 0
                    && kept.offsets.is_empty()
                    && kept.pending.is_empty()
            };
            let idle = inner.groups.iter().find(|(_, kept)| unused(kept));
            let idle = idle.map(|(id, _)| id.clone());
            inner
                .groups
                .remove(&idle.ok_or(Code::COORDINATOR_NOT_AVAILABLE)?);
        }
        Ok(inner.groups.entry(id.to_owned()).or_insert_with(|| Kept {
            group: Group::new(self.initial_delay),
            offsets: BTreeMap::new(),
            pending: Pending::default(),
        }))
    }

    /// JoinGroup. `join.ticket` is filled in here.
    pub(crate) async fn join(&self, id: &str, mut join: Join) -> JoinAnswer {
        let member_id = join.member_id.clone();
        let refused = |code| JoinAnswer::refused(code, &member_id);
        let receiver = {
            let mut inner = self.inner.lock();
            let (ticket, receiver) = inner.ticket();
            join.ticket = ticket;
            let mut due = Due::new();
            let group = if join.member_id.is_empty() {
                self.ensure(&mut inner, id).map(|kept| &mut kept.group)
            } else {
                let kept = inner.groups.get_mut(id);
                kept.map(|kept| &mut kept.group)
                    .ok_or(Code::UNKNOWN_MEMBER_ID)
            };
            match group {
                Ok(group) if group.size() >= MEMBERS_MAX && join.member_id.is_empty() => {
                    let full = refused(Code::GROUP_MAX_SIZE_REACHED);
                    due.push((ticket, Answer::Join(full)));
                }
                Ok(group) => group.join(Instant::now(), &join, &mut due),
                Err(code) => due.push((ticket, Answer::Join(refused(code)))),
            }
            inner.deliver(due);
            receiver
        };
        self.changed.notify_one();
        match receiver.await {
            Ok(Answer::Join(answer)) => answer,
            _ => refused(Code::UNKNOWN_MEMBER_ID),
        }
    }

    /// SyncGroup. `sync.ticket` is filled in here.
    pub(crate) async fn sync(&self, id: &str, mut sync: Sync) -> SyncAnswer {
        let receiver = {
            let mut inner = self.inner.lock();
            let (ticket, receiver) = inner.ticket();
            sync.ticket = ticket;
            let mut due = Due::new();
            match inner.groups.get_mut(id) {
                Some(kept) => kept.group.sync(Instant::now(), &sync, &mut due),
                None => {
                    let unknown = SyncAnswer::refused(Code::UNKNOWN_MEMBER_ID);
                    due.push((ticket, Answer::Sync(unknown)));
                }
            }
            inner.deliver(due);
            receiver
        };
        self.changed.notify_one();
        match receiver.await {
            Ok(Answer::Sync(answer)) => answer,
            _ => SyncAnswer::refused(Code::UNKNOWN_MEMBER_ID),
        }
    }

    /// Lets `act` work on a group that exists.
    ///
    /// # Errors
    /// `missing` if it does not, or what `act` answers.
    fn with<T>(
        &self,
        id: &str,
        missing: Code,
        act: impl FnOnce(&mut Group, &mut Due) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let mut inner = self.inner.lock();
        let mut due = Due::new();
        let kept = inner.groups.get_mut(id).ok_or(missing)?;
        let done = act(&mut kept.group, &mut due);
        inner.deliver(due);
        drop(inner);
        self.changed.notify_one();
        done
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// The code to answer.
    pub(crate) fn heartbeat(
        &self,
        id: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        self.with(id, Code::UNKNOWN_MEMBER_ID, |group, _| {
            group.heartbeat(Instant::now(), member, instance, generation)
        })
    }

    /// LeaveGroup for one member.
    ///
    /// # Errors
    /// The code to answer for it.
    pub(crate) fn leave(&self, id: &str, member: &str, instance: Option<&str>) -> Result<(), Code> {
        self.with(id, Code::UNKNOWN_MEMBER_ID, |group, due| {
            group.leave(Instant::now(), member, instance, due)
        })
    }

    /// Lets `look` read a group; `None` if there is none.
    pub(crate) fn look<T>(&self, id: &str, look: impl FnOnce(&Group) -> T) -> Option<T> {
        self.inner
            .lock()
            .groups
            .get(id)
            .map(|kept| look(&kept.group))
    }

    /// Every group, by id.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let inner = self.inner.lock();
        let listed = inner.groups.iter().map(|(id, kept)| Listed {
            id: id.clone(),
            protocol_type: kept.group.protocol_type.clone().unwrap_or_default(),
            state: kept.group.state.name(),
        });
        listed.collect()
    }

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, or `NON_EMPTY_GROUP` while it has members.
    pub(crate) fn delete(&self, id: &str) -> Result<(), Code> {
        let mut inner = self.inner.lock();
        let kept = inner.groups.get(id).ok_or(Code::GROUP_ID_NOT_FOUND)?;
        if kept.group.state != State::Empty {
            return Err(Code::NON_EMPTY_GROUP);
        }
        inner.groups.remove(id);
        Ok(())
    }

    /// Whether a commit may be taken; a simple consumer's first commit makes its group.
    ///
    /// # Errors
    /// The code to answer for every partition.
    pub(crate) fn check_commit(
        &self,
        id: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        let mut inner = self.inner.lock();
        if !inner.groups.contains_key(id) && generation >= 0 {
            return Err(Code::ILLEGAL_GENERATION);
        }
        let kept = self.ensure(&mut inner, id)?;
        kept.group
            .check_commit(Instant::now(), member, instance, generation)
    }

    /// Stores an offset for a group that [`Coordinator::check_commit`] let through.
    pub(crate) fn commit(&self, id: &str, topic: &str, partition: i32, committed: Committed) {
        let mut inner = self.inner.lock();
        inner.commits += 1;
        let order = inner.commits;
        if let Some(kept) = inner.groups.get_mut(id) {
            let of_topic = kept.offsets.entry(topic.to_owned()).or_default();
            of_topic.insert(partition, (order, committed));
        }
    }

    /// Whether offsets may be taken that a transaction commits. Without a member they always may:
    /// old producers do not name one.
    ///
    /// # Errors
    /// The code to answer for every partition.
    pub(crate) fn check_transactional_commit(
        &self,
        id: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        let mut inner = self.inner.lock();
        if !inner.groups.contains_key(id) && generation >= 0 {
            return Err(Code::ILLEGAL_GENERATION);
        }
        let kept = self.ensure(&mut inner, id)?;
        kept.group
            .check_transactional_commit(member, instance, generation)
    }

    /// Holds an offset until its producer's transaction ends.
    pub(crate) fn hold(
        &self,
        id: &str,
        producer_id: i64,
        topic: &str,
        partition: i32,
        offset: Committed,
    ) {
        let mut inner = self.inner.lock();
        inner.commits += 1;
        let order = inner.commits;
        if let Some(kept) = inner.groups.get_mut(id) {
            let pending = &mut kept.pending;
            pending.add(producer_id, topic, partition, (order, offset));
        }
    }

    /// Whether a transaction that is open holds an offset for a partition.
    pub(crate) fn holds(&self, id: &str, topic: &str, partition: i32) -> bool {
        let inner = self.inner.lock();
        let kept = inner.groups.get(id);
        kept.is_some_and(|kept| kept.pending.holds(topic, partition))
    }

    /// Ends a producer's transaction: the offsets that it held are committed, or dropped.
    pub(crate) fn end_transaction(&self, id: &str, producer_id: i64, committed: bool) {
        let mut inner = self.inner.lock();
        let Some(kept) = inner.groups.get_mut(id) else {
            return;
        };
        let held = kept.pending.take(producer_id);
        for ((topic, partition), offset) in held.into_iter().filter(|_| committed) {
            let of_topic = kept.offsets.entry(topic).or_default();
            let newer = of_topic
                .get(&partition)
                .is_some_and(|(order, _)| *order > offset.0);
            if !newer {
                of_topic.insert(partition, offset);
            }
        }
    }

    /// A committed offset.
    pub(crate) fn committed(&self, id: &str, topic: &str, partition: i32) -> Option<Committed> {
        let inner = self.inner.lock();
        let offsets = &inner.groups.get(id)?.offsets;
        let (_, committed) = offsets.get(topic)?.get(&partition)?;
        Some(committed.clone())
    }

    /// Every partition that a group has committed, by topic.
    pub(crate) fn committed_partitions(&self, id: &str) -> Vec<(String, Vec<i32>)> {
        let inner = self.inner.lock();
        let Some(kept) = inner.groups.get(id) else {
            return Vec::new();
        };
        let topics = kept.offsets.iter();
        topics
            .map(|(topic, partitions)| (topic.clone(), partitions.keys().copied().collect()))
            .collect()
    }

    /// Drops every group's offsets for a topic that was deleted.
    pub(crate) fn forget_topic(&self, topic: &str) {
        let mut inner = self.inner.lock();
        for kept in inner.groups.values_mut() {
            kept.offsets.remove(topic);
            kept.pending.forget_topic(topic);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let deadlines = inner.groups.values().filter_map(|k| k.group.poll_timeout());
        deadlines.min()
    }

    fn handle_timeout(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let mut due = Due::new();
        for kept in inner.groups.values_mut() {
            if kept.group.poll_timeout().is_some_and(|at| at <= now) {
                kept.group.handle_timeout(now, &mut due);
            }
        }
        inner.deliver(due);
    }

    /// Does what time brings, for ever.
    async fn keep_time(&self) {
        loop {
            let changed = self.changed.notified();
            match self.poll_timeout() {
                Some(at) => {
                    // Woken early it only looks again.
                    drop(tokio::time::timeout_at(at, changed).await);
                }
                None => changed.await,
            }
            self.handle_timeout(Instant::now());
        }
    }
}

/// Has the groups keep time until the cluster stops.
pub(crate) fn spawn_timer(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut running = shared.running.subscribe();
        tokio::select! {
            biased;
            _ = running.wait_for(|running| !running) => {}
            () = shared.groups.keep_time() => {}
        }
    });
}
