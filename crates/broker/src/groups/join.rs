//! Joining a group, and the rebalance that follows.

use super::group::{Answer, Due, Group, JoinAnswer, Member, State, Ticket, Waits};
use bytes::Bytes;
use ottla_proto::Code;
use std::time::Duration;
use tokio::time::Instant;

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) ticket: Ticket,
    /// The id for a new member.
    pub(crate) new_id: String,
    /// Whether a new dynamic member must ask again with the id it is given (KIP-394).
    pub(crate) must_know_id: bool,
    /// Whether the client understands that its leader need not assign (KIP-814).
    pub(crate) may_skip_assignment: bool,
}

impl Group {
    /// JoinGroup: answered when the rebalance completes, or at once where none is needed.
    pub(crate) fn join(&mut self, now: Instant, join: &Join, due: &mut Due) {
        if let Err(code) = self.try_join(now, join, due) {
            let id = if code == Code::MEMBER_ID_REQUIRED {
                &join.new_id
            } else {
                &join.member_id
            };
            due.push((join.ticket, Answer::Join(JoinAnswer::refused(code, id))));
        }
    }

    fn try_join(&mut self, now: Instant, join: &Join, due: &mut Due) -> Result<(), Code> {
        let instance = join.instance.as_deref();
        let known = instance.and_then(|i| self.instances.get(i));
        let old_id = if join.member_id.is_empty() {
            known.cloned()
        } else {
            None
        };
        let own_id = old_id.as_deref().unwrap_or(&join.member_id);
        if !self.supports(join, own_id) {
            return Err(Code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if let Some(old_id) = old_id {
            self.replace_static(now, join, &old_id, due);
            return Ok(());
        }
        if join.member_id.is_empty() {
            if instance.is_none() && join.must_know_id {
                let until = now + join.session_timeout;
                self.pending.insert(join.new_id.clone(), until);
                return Err(Code::MEMBER_ID_REQUIRED);
            }
            self.add(now, join, &join.new_id, due);
            return Ok(());
        }
        if self.pending.remove(&join.member_id).is_some() {
            self.add(now, join, &join.member_id, due);
            return Ok(());
        }
        self.identify(&join.member_id, instance)?;
        self.rejoin(now, join, due);
        Ok(())
    }

    /// Whether the group can work with these protocols: its type, and at least one protocol that
    /// every other member has too.
    fn supports(&self, join: &Join, own_id: &str) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        let mut others = self
            .members
            .iter()
            .filter(|(id, _)| *id != own_id)
            .peekable();
        if others.peek().is_none() {
            return true;
        }
        let others: Vec<&Member> = others.map(|(_, m)| m).collect();
        let common = |name: &str| others.iter().all(|m| has_protocol(m, name));
        self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
            && join.protocols.iter().any(|(name, _)| common(name))
    }

    fn add(&mut self, now: Instant, join: &Join, id: &str, due: &mut Due) {
        let member = Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout: join.rebalance_timeout,
            session_timeout: join.session_timeout,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            waits: Some(Waits::Join(join.ticket)),
            expires_at: now + join.session_timeout,
            order: self.next_order,
        };
        self.next_order += 1;
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        self.members.insert(id.to_owned(), member);
        match self.state {
            State::Empty => self.prepare_rebalance(now, self.initial_delay, due),
            State::Stable | State::CompletingRebalance { .. } => {
                self.prepare_rebalance(now, Duration::ZERO, due);
            }
            State::PreparingRebalance {
                not_before,
                deadline,
            } if not_before > now => {
                // A new group waits on while members keep coming.
                let not_before = (now + self.initial_delay).min(deadline);
                self.state = State::PreparingRebalance {
                    not_before,
                    deadline,
                };
            }
            State::PreparingRebalance { .. } => {}
        }
        self.try_complete_join(now, due);
    }

    fn update(&mut self, now: Instant, join: &Join, id: &str, due: &mut Due) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.protocols = join.protocols.clone();
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id.clone();
        member.client_host = join.client_host.clone();
        member.renew(now);
        if let Some(Waits::Join(old)) = member.waits.replace(Waits::Join(join.ticket)) {
            let superseded = JoinAnswer::refused(Code::REBALANCE_IN_PROGRESS, id);
            due.push((old, Answer::Join(superseded)));
        }
    }

    fn rejoin(&mut self, now: Instant, join: &Join, due: &mut Due) {
        let id = join.member_id.as_str();
        let unchanged = self
            .members
            .get(id)
            .is_some_and(|m| m.protocols == join.protocols);
        let leads = self.leader.as_deref() == Some(id);
        let answer_now = match self.state {
            // The answer to its last join may have been lost.
            State::CompletingRebalance { .. } => unchanged,
            // A leader that joins again wants a rebalance; a follower only asks what is.
            State::Stable => unchanged && !leads,
            State::Empty | State::PreparingRebalance { .. } => false,
        };
        if answer_now {
            let answer = self.join_answer(id);
            due.push((join.ticket, Answer::Join(answer)));
            if let Some(member) = self.members.get_mut(id) {
                member.renew(now);
            }
            return;
        }
        if !matches!(self.state, State::PreparingRebalance { .. }) {
            self.prepare_rebalance(now, Duration::ZERO, due);
        }
        self.update(now, join, id, due);
        self.try_complete_join(now, due);
    }

    /// A static member came back without its member id: it gets a new one, the old one is fenced,
    /// and a stable group goes on without a rebalance if its protocols are the same (KIP-345).
    fn replace_static(&mut self, now: Instant, join: &Join, old_id: &str, due: &mut Due) {
        let Some(mut member) = self.members.remove(old_id) else {
            return;
        };
        self.refuse_waiting(&member, old_id, Code::FENCED_INSTANCE_ID, due);
        member.waits = None;
        let unchanged = member.protocols == join.protocols;
        let id = &join.new_id;
        self.members.insert(id.clone(), member);
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let led = self.leader.as_deref() == Some(old_id);
        if led {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && unchanged {
            let mut answer = self.join_answer(id);
            if led && join.may_skip_assignment {
                answer.skip_assignment = true;
            } else if led {
                // An older client must not think that it leads, or it would assign.
                answer.leader = old_id.to_owned();
                answer.members.clear();
            }
            due.push((join.ticket, Answer::Join(answer)));
            if let Some(member) = self.members.get_mut(id) {
                member.renew(now);
            }
            return;
        }
        if !matches!(self.state, State::PreparingRebalance { .. }) {
            self.prepare_rebalance(now, Duration::ZERO, due);
        }
        self.update(now, join, id, due);
        self.try_complete_join(now, due);
    }

    /// Asks every member to join anew.
    pub(crate) fn prepare_rebalance(&mut self, now: Instant, delay: Duration, due: &mut Due) {
        self.answer_syncs(now, Code::REBALANCE_IN_PROGRESS, due);
        let longest = self.longest_rebalance();
        self.state = State::PreparingRebalance {
            not_before: now + delay.min(longest),
            deadline: now + longest,
        };
    }

    fn longest_rebalance(&self) -> Duration {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }

    pub(crate) fn all_joined(&self) -> bool {
        let joined = |m: &Member| matches!(m.waits, Some(Waits::Join(_)));
        self.pending.is_empty() && self.members.values().all(joined)
    }

    /// Completes the rebalance if everyone has joined or the time for it is over.
    pub(crate) fn try_complete_join(&mut self, now: Instant, due: &mut Due) {
        let State::PreparingRebalance {
            not_before,
            deadline,
        } = self.state
        else {
            return;
        };
        let over = now >= deadline;
        if now < not_before || !(over || self.all_joined()) {
            return;
        }
        if over {
            // Static members keep their place until their session ends.
            let keeps = |m: &Member| m.instance.is_some() || m.waits.is_some();
            self.drop_unless(due, keeps);
            let waits = self.members.values().any(|m| m.waits.is_some());
            if !waits && !self.members.is_empty() {
                self.state = State::PreparingRebalance {
                    not_before: now,
                    deadline: now + self.longest_rebalance().max(Duration::from_millis(1)),
                };
                return;
            }
        }
        self.complete_join(now, due);
    }

    fn complete_join(&mut self, now: Instant, due: &mut Due) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            return;
        }
        let waits = |m: &Member| m.waits.is_some();
        let leader_is_here = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(waits);
        if !leader_is_here {
            let here = self.members.iter().filter(|(_, m)| waits(m));
            let first = here.min_by_key(|(_, m)| m.order);
            self.leader = first.map(|(id, _)| id.clone());
        }
        self.protocol = self.vote();
        self.state = State::CompletingRebalance {
            deadline: now + self.longest_rebalance(),
        };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.join_answer(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if let Some(Waits::Join(ticket)) = member.waits.take() {
                member.renew(now);
                due.push((ticket, Answer::Join(answer)));
            }
        }
    }

    /// The protocol most members prefer among those that all have.
    fn vote(&self) -> Option<String> {
        let all = |name: &str| self.members.values().all(|m| has_protocol(m, name));
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let candidates: Vec<&str> = leader
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| all(name))
            .collect();
        let votes = |candidate: &str| {
            let first = |m: &&Member| {
                let mut names = m.protocols.iter().map(|(name, _)| name.as_str());
                names.find(|name| candidates.contains(name)) == Some(candidate)
            };
            self.members.values().filter(first).count()
        };
        // Of equal ones the leader's preference: `max_by_key` takes the last, hence the reversal.
        let chosen = candidates.iter().rev().max_by_key(|name| votes(name));
        chosen.map(|name| (*name).to_owned())
    }

    fn join_answer(&self, id: &str) -> JoinAnswer {
        let leads = self.leader.as_deref() == Some(id);
        let protocol = self.protocol.as_deref();
        let mut members: Vec<(&String, &Member)> = self.members.iter().collect();
        members.sort_by_key(|(_, m)| m.order);
        let members = members
            .into_iter()
            .filter(|_| leads)
            .map(|(id, m)| (id.clone(), m.instance.clone(), m.metadata(protocol)));
        JoinAnswer {
            code: Code::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: members.collect(),
            skip_assignment: false,
        }
    }
}

fn has_protocol(member: &Member, name: &str) -> bool {
    member.protocols.iter().any(|(own, _)| own == name)
}
