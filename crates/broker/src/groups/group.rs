//! One classic consumer group as a pure state machine: time comes in as an argument, answers go
//! out as a list. Joining is in [`super::join`].

use bytes::Bytes;
use ottla_proto::Code;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Names a request that waits for its answer.
pub(crate) type Ticket = u64;

/// Answers that became due, each for a waiting request.
pub(crate) type Due = Vec<(Ticket, Answer)>;

/// The answer to a request that may have waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinAnswer {
    pub(crate) code: Code,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// Member, instance and metadata; only the leader is told.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
    /// The leader need not assign: it came back under its old instance id and nothing changed.
    pub(crate) skip_assignment: bool,
}

impl JoinAnswer {
    pub(crate) fn refused(code: Code, member_id: &str) -> Self {
        Self {
            code,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.to_owned(),
            members: Vec::new(),
            skip_assignment: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncAnswer {
    pub(crate) code: Code,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl SyncAnswer {
    pub(crate) fn refused(code: Code) -> Self {
        Self {
            code,
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no members; it may have offsets.
    Empty,
    /// Members are to join anew: all of them, or those that have by `deadline`; not before
    /// `not_before`, so that a new group waits for its first members to gather.
    PreparingRebalance {
        not_before: Instant,
        deadline: Instant,
    },
    /// The leader is to assign; who has not asked by `deadline` is removed.
    CompletingRebalance { deadline: Instant },
    /// Every member has its assignment.
    Stable,
}

impl State {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a member's request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Join(Ticket),
    Sync(Ticket),
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) session_timeout: Duration,
    /// Protocol name and metadata, the preferred one first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(crate) waits: Option<Waits>,
    pub(crate) expires_at: Instant,
    /// Members are ordered by when they first joined.
    pub(crate) order: u64,
}

impl Member {
    pub(crate) fn renew(&mut self, now: Instant) {
        self.expires_at = now + self.session_timeout;
    }

    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let chosen = self
            .protocols
            .iter()
            .find(|p| Some(p.0.as_str()) == protocol);
        chosen.map(|p| p.1.clone()).unwrap_or_default()
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) state: State,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Member id by instance id.
    pub(crate) instances: BTreeMap<String, String>,
    /// Member ids that were given out, and until when they are kept.
    pub(crate) pending: BTreeMap<String, Instant>,
    pub(crate) next_order: u64,
    pub(crate) initial_delay: Duration,
}

/// A SyncGroup request.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: BTreeMap<String, Bytes>,
    pub(crate) ticket: Ticket,
}

impl Group {
    pub(crate) fn new(initial_delay: Duration) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_order: 0,
            initial_delay,
        }
    }

    /// How many members there are, with those that were only given an id.
    pub(crate) fn size(&self) -> usize {
        self.members.len() + self.pending.len()
    }

    /// Checks that a member is who it says.
    ///
    /// # Errors
    /// `FENCED_INSTANCE_ID` when another member took over the instance, `UNKNOWN_MEMBER_ID`.
    pub(crate) fn identify(&self, member_id: &str, instance: Option<&str>) -> Result<(), Code> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                Some(known) if known != member_id => return Err(Code::FENCED_INSTANCE_ID),
                Some(_) => {}
                None => return Err(Code::UNKNOWN_MEMBER_ID),
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(Code::UNKNOWN_MEMBER_ID)
        }
    }

    fn identify_in(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        self.identify(member_id, instance)?;
        if generation == self.generation {
            Ok(())
        } else {
            Err(Code::ILLEGAL_GENERATION)
        }
    }

    /// SyncGroup: at once if the group is stable or the request is wrong, else when the leader has
    /// assigned.
    pub(crate) fn sync(&mut self, now: Instant, sync: &Sync, due: &mut Due) {
        if let Err(code) = self.check_sync(sync) {
            due.push((sync.ticket, Answer::Sync(SyncAnswer::refused(code))));
            return;
        }
        let from_leader = self.leader.as_deref() == Some(sync.member_id.as_str());
        let Some(member) = self.members.get_mut(&sync.member_id) else {
            return;
        };
        member.renew(now);
        if let Some(Waits::Sync(old)) = member.waits.replace(Waits::Sync(sync.ticket)) {
            let superseded = SyncAnswer::refused(Code::REBALANCE_IN_PROGRESS);
            due.push((old, Answer::Sync(superseded)));
        }
        if from_leader && matches!(self.state, State::CompletingRebalance { .. }) {
            for (id, member) in &mut self.members {
                member.assignment = sync.assignments.get(id).cloned().unwrap_or_default();
            }
            self.state = State::Stable;
        }
        if self.state == State::Stable {
            self.answer_syncs(now, Code::NONE, due);
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), Code> {
        self.identify_in(&sync.member_id, sync.instance.as_deref(), sync.generation)?;
        let differs = |said: &Option<String>, ours: &Option<String>| said.is_some() && said != ours;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(Code::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.state {
            State::Empty => Err(Code::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance { .. } => Err(Code::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance { .. } | State::Stable => Ok(()),
        }
    }

    /// Answers everyone who waits for an assignment.
    pub(crate) fn answer_syncs(&mut self, now: Instant, code: Code, due: &mut Due) {
        for member in self.members.values_mut() {
            let Some(Waits::Sync(ticket)) = member.waits else {
                continue;
            };
            member.waits = None;
            member.renew(now);
            let answer = if code == Code::NONE {
                SyncAnswer {
                    code,
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                }
            } else {
                SyncAnswer::refused(code)
            };
            due.push((ticket, Answer::Sync(answer)));
        }
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// The code to answer.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        self.identify_in(member_id, instance, generation)?;
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
        match self.state {
            State::Empty => Err(Code::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance { .. } => Err(Code::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance { .. } | State::Stable => Ok(()),
        }
    }

    /// LeaveGroup for one member. A static member may leave by its instance id alone.
    ///
    /// # Errors
    /// The code to answer for it.
    pub(crate) fn leave(
        &mut self,
        now: Instant,
        member_id: &str,
        instance: Option<&str>,
        due: &mut Due,
    ) -> Result<(), Code> {
        let id = match instance.and_then(|i| self.instances.get(i)) {
            Some(known) if member_id.is_empty() => known.clone(),
            _ => member_id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.try_complete_join(now, due);
            return Ok(());
        }
        self.identify(&id, instance)?;
        self.remove(now, &id, due);
        Ok(())
    }

    /// Removes a member; the others are to join anew.
    fn remove(&mut self, now: Instant, id: &str, due: &mut Due) {
        self.forget(id, due);
        match self.state {
            State::Stable | State::CompletingRebalance { .. } => {
                self.prepare_rebalance(now, Duration::ZERO, due);
            }
            State::PreparingRebalance { .. } | State::Empty => {}
        }
        self.try_complete_join(now, due);
    }

    /// Forgets a member; a request of it that waits is refused.
    pub(crate) fn forget(&mut self, id: &str, due: &mut Due) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        self.refuse_waiting(&member, id, Code::UNKNOWN_MEMBER_ID, due);
    }

    pub(crate) fn refuse_waiting(&self, member: &Member, id: &str, code: Code, due: &mut Due) {
        match member.waits {
            Some(Waits::Join(ticket)) => {
                due.push((ticket, Answer::Join(JoinAnswer::refused(code, id))));
            }
            Some(Waits::Sync(ticket)) => {
                due.push((ticket, Answer::Sync(SyncAnswer::refused(code))));
            }
            None => {}
        }
    }

    /// Whether a commit by this member may be taken now; it counts as a heartbeat.
    ///
    /// # Errors
    /// The code to answer for every partition.
    pub(crate) fn check_commit(
        &mut self,
        now: Instant,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance.is_none() {
            // Only a group without members takes commits from outside.
            return Err(Code::UNKNOWN_MEMBER_ID);
        }
        self.identify_in(member_id, instance, generation)?;
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
        match self.state {
            State::CompletingRebalance { .. } => Err(Code::REBALANCE_IN_PROGRESS),
            _ => Ok(()),
        }
    }

    /// Whether offsets may be taken that a transaction commits: only who names a member or a
    /// generation must be right about it.
    ///
    /// # Errors
    /// The code to answer for every partition.
    pub(crate) fn check_transactional_commit(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Code> {
        let names_nobody = generation < 0 && member_id.is_empty() && instance.is_none();
        if names_nobody || (generation < 0 && self.state == State::Empty) {
            return Ok(());
        }
        self.identify_in(member_id, instance, generation)
    }

    /// When [`Group::handle_timeout`] must be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self
            .members
            .values()
            .filter(|m| m.waits.is_none())
            .map(|m| m.expires_at);
        let state = match self.state {
            State::PreparingRebalance {
                not_before,
                deadline,
            } if not_before < deadline && self.all_joined() => Some(not_before),
            State::PreparingRebalance { deadline, .. }
            | State::CompletingRebalance { deadline } => Some(deadline),
            State::Empty | State::Stable => None,
        };
        let pending = self.pending.values().copied();
        sessions.chain(pending).chain(state).min()
    }

    /// Does what time brings: sessions expire, a rebalance goes on without the late ones.
    pub(crate) fn handle_timeout(&mut self, now: Instant, due: &mut Due) {
        self.pending.retain(|_, until| *until > now);
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.waits.is_none() && m.expires_at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            tracing::debug!(member = id, "a group member's session expired");
            self.remove(now, &id, due);
        }
        if let State::CompletingRebalance { deadline } = self.state
            && deadline <= now
        {
            self.drop_unless(due, |m| matches!(m.waits, Some(Waits::Sync(_))));
            self.prepare_rebalance(now, Duration::ZERO, due);
        }
        self.try_complete_join(now, due);
    }

    /// Forgets the members that are not `kept`.
    pub(crate) fn drop_unless(&mut self, due: &mut Due, kept: impl Fn(&Member) -> bool) {
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| !kept(m))
            .map(|(id, _)| id.clone())
            .collect();
        late.iter().for_each(|id| self.forget(id, due));
    }
}
