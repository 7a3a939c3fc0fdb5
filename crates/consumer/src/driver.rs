//! The task that keeps the membership alive and commits, however long the user takes.

mod requests;

use crate::commit::{Office, Offsets};
use crate::fetcher::at;
use crate::shared::{Rebalance, Shared, now};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ottla_proto::fetch::{Progress, Start};
use ottla_proto::group::{
    Committed, Event, Identity, Membership, OffsetLedger, TopicCounts, Transmit,
};
use ottla_proto::{ClusterView, Code, Error, ErrorKind, Result, TopicPartition};
use requests::Done;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the driver. Filled by a user who asks for commits faster than the
/// coordinator answers; the next one then waits to hand its command over.
pub(crate) const COMMANDS_MAX: usize = 16;

/// Commits that wait their turn; beyond it no command is taken.
const COMMITS_MAX: usize = 16;

/// Requests under way. Filled by look-ups whose asker went away; beyond it no command is taken.
const WORK_MAX: usize = 64;

/// What the user asks for.
pub(crate) enum Command {
    Commit {
        offsets: Offsets,
        reply: oneshot::Sender<Result<()>>,
    },
    Committed {
        partitions: Vec<TopicPartition>,
        reply: oneshot::Sender<Result<BTreeMap<TopicPartition, Option<Committed>>>>,
    },
    Close {
        reply: oneshot::Sender<Result<()>>,
    },
}

/// A commit to be made, and what follows it.
struct CommitJob {
    offsets: Offsets,
    then: Then,
}

enum Then {
    Reply(oneshot::Sender<Result<()>>),
    /// The user gave partitions up; the group waits for us.
    Release,
    /// The consumer closes.
    Close,
    Nothing,
}

/// How far closing is.
enum Closing {
    No,
    /// The commit or the farewell is under way; whoever asked waits here, unless nobody does.
    Yes(Option<oneshot::Sender<Result<()>>>),
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    office: Option<Arc<Office>>,
    membership: Option<Membership>,
    /// The identity that the user was told last.
    told: Option<Identity>,
    commands: mpsc::Receiver<Command>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// One at a time and in order, or an older commit could overtake a newer one.
    commits: VecDeque<CommitJob>,
    committing: Option<Then>,
    ledger: OffsetLedger,
    auto_commit_at: Option<Instant>,
    polls: u64,
    /// Topics that the membership made us watch.
    watched: BTreeSet<Arc<str>>,
    /// Topics subscribed to that do not exist, and when the user is to hear of it.
    missing: BTreeSet<Arc<str>>,
    missing_at: Option<Instant>,
    close_error: Option<Error>,
    closing: Closing,
    /// The group is being told that this member closes.
    parting: bool,
    done: bool,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        office: Option<Arc<Office>>,
        membership: Option<Membership>,
        topics: &[Arc<str>],
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let config = &shared.config;
        let commits_itself = config.auto_commit && office.is_some();
        let missing_at = now() + shared.cluster.settings().api_timeout;
        Self {
            auto_commit_at: commits_itself.then(|| now() + config.auto_commit_interval),
            missing: topics.iter().cloned().collect(),
            missing_at: (!topics.is_empty()).then_some(missing_at),
            shared,
            office,
            membership,
            told: None,
            commands,
            work: FuturesUnordered::new(),
            commits: VecDeque::new(),
            committing: None,
            ledger: OffsetLedger::default(),
            polls: 0,
            watched: BTreeSet::new(),
            close_error: None,
            closing: Closing::No,
            parting: false,
            done: false,
        }
    }

    /// Reads these partitions from the start on; for a consumer that is no member.
    pub(crate) fn assign(&mut self, partitions: Vec<(TopicPartition, Start)>) {
        let topics = partitions.iter().map(|(partition, _)| &partition.topic);
        let topics: BTreeSet<Arc<str>> = topics.cloned().collect();
        // Whoever only asked for a topic loses it when its last watcher leaves.
        self.shared.cluster.watch_topics(topics.iter().cloned());
        self.watched.extend(topics);
        let view = self.shared.cluster.view();
        let mut fetcher = self.shared.fetcher.lock();
        let mut awaited = Vec::new();
        for (partition, start) in partitions {
            let progress = fetcher.assign(&partition, start);
            if start == Start::Awaited {
                awaited.push(progress);
            }
        }
        fetcher.handle_view(&view);
        drop(fetcher);
        self.find_positions(awaited, 0);
    }

    pub(crate) async fn run(mut self) {
        let mut changes = self.shared.cluster.changes();
        self.look();
        loop {
            self.turn(now());
            if self.done {
                return self.end();
            }
            let wake_at = self.wake_at();
            let takes_commands =
                self.is_open() && self.commits.len() < COMMITS_MAX && self.work.len() < WORK_MAX;
            tokio::select! {
                biased;
                Some(done) = self.work.next(), if !self.work.is_empty() => self.take_in(done),
                command = self.commands.recv(), if takes_commands => self.obey(command),
                Ok(()) = changes.changed() => self.look(),
                () = self.shared.group.notified() => {}
                () = at(wake_at) => {}
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.closing, Closing::No)
    }

    fn end(self) {
        for topic in &self.watched {
            self.shared.cluster.unwatch_topic(topic);
        }
        if let Closing::Yes(Some(reply)) = self.closing {
            let _gone = reply.send(self.close_error.map_or(Ok(()), Err));
        }
    }

    /// Everything that needs no waiting.
    fn turn(&mut self, now: Instant) {
        self.note_polls(now);
        self.take_released();
        if let Some(membership) = &mut self.membership {
            membership.handle_timeout(now);
        }
        self.auto_commit(now);
        self.report_missing(now);
        loop {
            self.pass_on_events();
            self.start_commit();
            let Some(transmit) = self.membership.as_mut().and_then(Membership::poll_transmit)
            else {
                break;
            };
            self.send(transmit);
        }
        self.watch_topics();
    }

    fn wake_at(&self) -> Option<Instant> {
        let membership = self.membership.as_ref().and_then(Membership::poll_timeout);
        let auto_commit = self.auto_commit_at.filter(|_| self.is_open());
        [membership, auto_commit, self.missing_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The user's calls are counted, not announced: a call must not cost a lock.
    fn note_polls(&mut self, now: Instant) {
        let polls = self.shared.polls.load(Ordering::Acquire);
        let waits = self.shared.waiting.load(Ordering::Acquire);
        let Some(membership) = &mut self.membership else {
            return;
        };
        if polls != self.polls || waits {
            self.polls = polls;
            membership.handle_polled(now);
        }
    }

    /// The user is done with what it was asked to give up.
    fn take_released(&mut self) {
        let released = self.shared.desk.lock().released.take();
        let Some(released) = released else { return };
        let offsets = match self.auto_commit_at {
            Some(_) => self.ledger.moved(released.iter().filter_map(handled)),
            None => Offsets::new(),
        };
        for progress in &released {
            self.ledger.forget(progress.partition());
        }
        self.commits.push_back(CommitJob {
            offsets,
            then: Then::Release,
        });
    }

    fn auto_commit(&mut self, now: Instant) {
        let Some(due) = self.auto_commit_at else {
            return;
        };
        if now < due || !self.is_open() {
            return;
        }
        self.auto_commit_at = Some(now + self.shared.config.auto_commit_interval);
        // One that still waits will not be overtaken by another.
        if self.committing.is_some() || !self.commits.is_empty() {
            return;
        }
        let offsets = self.moved();
        if !offsets.is_empty() {
            self.commits.push_back(CommitJob {
                offsets,
                then: Then::Nothing,
            });
        }
    }

    /// What was handed out before the user's latest call and is not committed.
    fn moved(&self) -> Offsets {
        let fetcher = self.shared.fetcher.lock();
        let progress: Vec<Arc<Progress>> = fetcher.assignment().cloned().collect();
        drop(fetcher);
        self.ledger.moved(progress.iter().filter_map(handled))
    }

    fn report_missing(&mut self, now: Instant) {
        if self.missing_at.is_none_or(|at| now < at) {
            return;
        }
        self.missing_at = None;
        for topic in &self.missing {
            let message = format!("the topic {topic} does not exist");
            let error = Error::new(ErrorKind::UnknownTopicOrPartition, message);
            self.shared.tell_error(error);
        }
    }

    /// Takes in the cluster's view.
    fn look(&mut self) {
        let view = self.shared.cluster.view();
        self.missing.retain(|topic| view.topic(topic).is_none());
        if self.missing.is_empty() {
            self.missing_at = None;
        }
        let shared = &self.shared;
        self.missing.retain(|topic| {
            let code = view.refused.get(topic).copied();
            let refused = code.filter(|code| !code.is_retriable());
            if let Some(code) = refused {
                shared.tell_error(Error::broker(code, &format!("Metadata of topic {topic}")));
            }
            refused.is_none()
        });
        if let Some(membership) = &mut self.membership {
            let counts = counts(&view, membership.watched().iter());
            membership.handle_topics_changed(&counts);
        }
    }

    /// A leader watches the topics of all members.
    fn watch_topics(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let wanted = membership.watched();
        let new: Vec<Arc<str>> = wanted.difference(&self.watched).cloned().collect();
        for topic in self.watched.difference(&wanted) {
            self.shared.cluster.unwatch_topic(topic);
        }
        if !new.is_empty() {
            self.shared.cluster.watch_topics(new);
        }
        self.watched = wanted;
    }

    fn pass_on_events(&mut self) {
        while let Some(event) = self.membership.as_mut().and_then(Membership::poll_event) {
            match event {
                Event::Release(partitions) => {
                    self.shared.tell(|desk| desk.release = Some(partitions));
                }
                Event::Assigned(partitions) => self.assigned(partitions),
                Event::Lost(partitions) => self.lost(partitions),
                Event::TopicsWanted(topics) => self.find_topics(topics),
                Event::CoordinatorStale => {
                    if let Some(office) = &self.office {
                        office.forget();
                    }
                }
                Event::Failed(error) => {
                    self.shared.tell(|desk| {
                        desk.errors.push_back(error);
                        desk.ended = true;
                    });
                }
            }
        }
        self.tell_identity();
        if self
            .membership
            .as_ref()
            .is_some_and(Membership::awaits_poll)
        {
            let mut desk = self.shared.desk.lock();
            if !std::mem::replace(&mut desk.wants_poll, true) {
                self.shared.attention.store(true, Ordering::Release);
            }
        }
    }

    /// After what was lost: offsets of a partition that is gone must not go out under an identity
    /// that is still good.
    fn tell_identity(&mut self) {
        let identity = self.membership.as_ref().map(Membership::identity);
        if let Some(identity) = identity.filter(|own| self.told.as_ref() != Some(own)) {
            let identity = identity.clone();
            self.told = Some(identity.clone());
            self.shared.tell(|desk| desk.identity = Some(identity));
        }
    }

    fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let view = self.shared.cluster.view();
        let mut fetcher = self.shared.fetcher.lock();
        let assign = |partition| fetcher.assign(partition, Start::Awaited);
        let progress: Vec<Arc<Progress>> = partitions.iter().map(assign).collect();
        fetcher.handle_view(&view);
        drop(fetcher);
        self.find_positions(progress, 0);
        self.shared
            .tell(|desk| desk.rebalances.push_back(Rebalance::Assigned(partitions)));
    }

    fn lost(&mut self, partitions: Vec<TopicPartition>) {
        let mut fetcher = self.shared.fetcher.lock();
        for partition in &partitions {
            fetcher.unassign(partition);
            self.ledger.forget(partition);
        }
        drop(fetcher);
        self.shared.tell(|desk| {
            desk.release = None;
            desk.released = None;
            desk.rebalances.push_back(Rebalance::Lost(partitions));
        });
    }

    /// Sends the next commit if none is under way.
    fn start_commit(&mut self) {
        while self.committing.is_none() {
            let Some(CommitJob { mut offsets, then }) = self.commits.pop_front() else {
                return;
            };
            let Some(office) = self.office.clone().filter(|_| !offsets.is_empty()) else {
                self.committed(then, Ok(Offsets::new()));
                continue;
            };
            if let Some(membership) = &self.membership {
                let owned: BTreeSet<&TopicPartition> = membership.owned().collect();
                if let Some(other) = offsets.keys().find(|one| !owned.contains(one)).cloned()
                    && matches!(then, Then::Reply(_))
                {
                    let message = "a partition that this member does not read cannot be committed";
                    let error = Error::new(ErrorKind::State, message).at_partition(other);
                    self.committed(then, Err((error, None)));
                    continue;
                }
                offsets.retain(|partition, _| owned.contains(partition));
            }
            self.committing = Some(then);
            self.send_commit(office, self.identity(), offsets);
        }
    }

    /// A consumer that is no member commits from outside.
    fn identity(&self) -> Identity {
        match &self.membership {
            Some(membership) => membership.identity().clone(),
            None => Identity {
                member_id: "".into(),
                generation: None,
                instance: None,
            },
        }
    }

    /// A commit ended; a refusal comes with the generation that was refused.
    fn committed(&mut self, then: Then, result: Result<Offsets, (Error, Option<i32>)>) {
        let result = match result {
            Ok(offsets) => {
                for (partition, committed) in offsets {
                    self.ledger.record(partition, committed.offset);
                }
                Ok(())
            }
            Err((error, generation)) => {
                if let (Some(code), Some(membership)) = (code(&error), &mut self.membership) {
                    membership.handle_commit_refused(now(), generation, code);
                }
                Err(error)
            }
        };
        if let (Err(error), Then::Nothing | Then::Release) = (&result, &then) {
            tracing::warn!(%error, "an automatic commit failed");
        }
        match then {
            Then::Reply(reply) => {
                let _gone = reply.send(result);
            }
            Then::Release => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_released();
                }
            }
            Then::Close => {
                self.close_error = result.err();
                self.leave();
            }
            Then::Nothing => {}
        }
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Commit { offsets, reply }) => self.commits.push_back(CommitJob {
                offsets,
                then: Then::Reply(reply),
            }),
            Some(Command::Committed { partitions, reply }) => {
                self.tell_committed(partitions, reply)
            }
            Some(Command::Close { reply }) => {
                let offsets = match self.auto_commit_at {
                    Some(_) => self.moved(),
                    None => Offsets::new(),
                };
                self.closing = Closing::Yes(Some(reply));
                self.commits.push_back(CommitJob {
                    offsets,
                    then: Then::Close,
                });
            }
            // Dropped without a close: the group shall not have to wait for the session's end.
            None => {
                self.closing = Closing::Yes(None);
                self.commits.clear();
                self.leave();
            }
        }
    }

    fn leave(&mut self) {
        let Some(membership) = &mut self.membership else {
            self.done = true;
            return;
        };
        membership.leave();
        let farewell = std::iter::from_fn(|| membership.poll_transmit());
        match farewell.last() {
            Some(transmit @ Transmit::Leave(_)) => {
                self.parting = true;
                self.send(transmit);
            }
            _ => self.done = true,
        }
    }
}

fn handled(progress: &Arc<Progress>) -> Option<(TopicPartition, Committed)> {
    let committed = Committed {
        offset: progress.handled()?,
        leader_epoch: progress.leader_epoch(),
        metadata: None,
    };
    Some((progress.partition().clone(), committed))
}

/// How many partitions each of these topics has, as far as the view knows them.
fn counts<'a>(view: &ClusterView, topics: impl Iterator<Item = &'a Arc<str>>) -> TopicCounts {
    let count = |topic: &Arc<str>| {
        let partitions = view.topic(topic)?.partitions.len();
        Some((Arc::clone(topic), i32::try_from(partitions).ok()?))
    };
    topics.filter_map(count).collect()
}

fn code(error: &Error) -> Option<Code> {
    match error.kind() {
        ErrorKind::Fenced => Some(Code::FENCED_INSTANCE_ID),
        _ => error.code(),
    }
}
