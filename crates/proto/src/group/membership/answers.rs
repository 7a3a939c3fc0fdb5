//! What the coordinator's answers do to a membership.

use super::{
    Assignor, Event, GroupMember, JoinAnswer, Led, Membership, Outcome, Pulse, State, SyncAnswer,
    SyncRequest, Ticket, TopicCounts, Transmit,
};
use crate::code::Code;
use crate::error::{Error, ErrorKind, Result};
use crate::group::codec::{Assignment, Subscription};
use crate::topic::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What a refusal of any of the group's requests means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Join again at once, with the member id that the answer names.
    TakeMemberId,
    /// Join again; the generation is over, the membership is not.
    Rejoin,
    /// The coordinator does not know this member: what it holds is lost.
    Unknown,
    /// Ask again after a pause.
    Retry,
    /// Ask the right coordinator after a pause.
    FindCoordinator,
    /// It will never be different.
    Fail,
}

/// The one table of what the codes of JoinGroup, SyncGroup and Heartbeat mean.
fn refusal(code: Code) -> Refusal {
    match code {
        Code::MEMBER_ID_REQUIRED => Refusal::TakeMemberId,
        Code::REBALANCE_IN_PROGRESS => Refusal::Rejoin,
        Code::UNKNOWN_MEMBER_ID | Code::ILLEGAL_GENERATION => Refusal::Unknown,
        Code::NOT_COORDINATOR | Code::COORDINATOR_NOT_AVAILABLE => Refusal::FindCoordinator,
        // Transient at the broker, though Kafka does not call it retriable.
        Code::UNKNOWN_SERVER_ERROR => Refusal::Retry,
        code if code.is_retriable() => Refusal::Retry,
        _ => Refusal::Fail,
    }
}

/// Whether asking again is of no use. An answer that made no sense may be an accident; a refusal
/// can also come from looking for the coordinator.
fn is_final(error: &Error) -> bool {
    !error.is_retriable() && error.kind() != &ErrorKind::Protocol
}

impl Membership {
    /// Takes in the answer to a [`Transmit::Join`].
    pub fn handle_join(&mut self, now: Instant, ticket: Ticket, outcome: Outcome<JoinAnswer>) {
        if self.awaited != Some(ticket) {
            return;
        }
        self.awaited = None;
        match outcome {
            Outcome::Done(answer) => {
                if let Err(error) = self.joined(answer) {
                    self.fail(error);
                }
            }
            Outcome::Refused { code, member_id } => {
                self.refused(now, "JoinGroup", code, member_id);
            }
            Outcome::Failed(error) => self.unanswered(now, error),
        }
    }

    fn joined(&mut self, answer: JoinAnswer) -> Result<()> {
        let named = answer.protocol.as_deref().and_then(Assignor::from_name);
        let known = named.filter(|one| self.config.assignors.contains(one));
        let (Some(protocol), Some(assignor)) = (answer.protocol, known) else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "the coordinator of group {} chose no assignor of ours",
                    self.config.group
                ),
            ));
        };
        self.protocol = Some(protocol);
        self.identity.generation = Some(answer.generation);
        let leads = answer.leader == answer.member_id;
        self.identity.member_id = answer.member_id;
        if !leads {
            self.sync(Vec::new());
            return Ok(());
        }
        let mut members = Vec::new();
        for member in answer.members {
            members.push(GroupMember {
                id: member.member_id,
                instance: member.instance,
                subscription: Subscription::decode(&member.metadata)?,
            });
        }
        let topics = members
            .iter()
            .flat_map(|member| &member.subscription.topics);
        let topics: BTreeSet<Arc<str>> = topics.cloned().collect();
        let wanted = topics.iter().cloned().collect();
        self.events.push_back(Event::TopicsWanted(wanted));
        self.state = State::AwaitingTopics(Led {
            assignor,
            members,
            topics,
            assigns: !answer.skip_assignment,
        });
        Ok(())
    }

    /// Takes in the partition counts of the topics that [`Event::TopicsWanted`] named; topics that
    /// do not exist are left out. This member leads: it assigns.
    pub fn handle_topics(&mut self, counts: TopicCounts) {
        let State::AwaitingTopics(led) = &self.state else {
            return;
        };
        let shares = if led.assigns {
            led.assignor.assign(&led.members, &counts)
        } else {
            BTreeMap::new()
        };
        // A topic that does not exist yet counts as one without partitions: its making is a change.
        let missing = led.topics.iter().map(|topic| (Arc::clone(topic), 0));
        let led_topics = missing.chain(counts).collect();
        let encoded = |(id, partitions): (Arc<str>, Vec<TopicPartition>)| {
            let assignment = Assignment {
                partitions,
                user_data: None,
            };
            (id, assignment.encode())
        };
        let assignments = shares.into_iter().map(encoded).collect();
        self.led_topics = Some(led_topics);
        self.sync(assignments);
    }

    fn sync(&mut self, assignments: Vec<(Arc<str>, Vec<u8>)>) {
        let ticket = self.ticket();
        self.awaited = Some(ticket);
        self.state = State::AwaitingSync;
        let request = SyncRequest {
            identity: self.identity.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignments,
            rebalance_timeout: self.config.max_poll_interval,
        };
        self.outbox.push_back(Transmit::Sync(ticket, request));
    }

    /// Takes in the answer to a [`Transmit::Sync`].
    pub fn handle_sync(&mut self, now: Instant, ticket: Ticket, outcome: Outcome<SyncAnswer>) {
        if self.awaited != Some(ticket) {
            return;
        }
        self.awaited = None;
        match outcome {
            Outcome::Done(answer) => match Assignment::decode(&answer.assignment) {
                Ok(assignment) => self.assigned(now, assignment),
                Err(error) => self.fail(error),
            },
            Outcome::Refused { code, .. } => self.refused(now, "SyncGroup", code, None),
            Outcome::Failed(error) => self.unanswered(now, error),
        }
    }

    fn assigned(&mut self, now: Instant, assignment: Assignment) {
        self.failures = 0;
        self.pulse = Some(Pulse {
            next_at: now + self.config.heartbeat_interval,
            heard_at: now,
            in_flight: None,
        });
        self.state = State::Stable;
        let target: BTreeSet<TopicPartition> = assignment.partitions.into_iter().collect();
        let gone: Vec<TopicPartition> = self.owned.difference(&target).cloned().collect();
        let added: Vec<TopicPartition> = target.difference(&self.owned).cloned().collect();
        self.owned.extend(added.iter().cloned());
        self.events.push_back(Event::Assigned(added));
        if !gone.is_empty() {
            self.release(gone);
        } else if self.outdated {
            self.rejoin("the subscription changed");
        }
    }

    /// Takes in the answer to a [`Transmit::Heartbeat`].
    pub fn handle_heartbeat(&mut self, now: Instant, ticket: Ticket, outcome: Outcome<()>) {
        let Some(pulse) = &mut self.pulse else { return };
        if pulse.in_flight != Some(ticket) {
            return;
        }
        pulse.in_flight = None;
        match outcome {
            Outcome::Done(()) => {
                pulse.heard_at = now;
                self.failures = 0;
            }
            Outcome::Refused { code, .. } => self.heart_refused(now, code),
            Outcome::Failed(error) => {
                if is_final(&error) {
                    self.fail(error);
                } else {
                    self.beat_again_soon(now);
                    self.events.push_back(Event::CoordinatorStale);
                }
            }
        }
    }

    fn heart_refused(&mut self, now: Instant, code: Code) {
        match refusal(code) {
            Refusal::Rejoin => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.heard_at = now;
                }
                // Whoever waits for the user to release is on the way to join already.
                if self.state == State::Stable {
                    self.rejoin("the group is rebalancing");
                }
            }
            Refusal::Retry => self.beat_again_soon(now),
            Refusal::FindCoordinator => {
                self.beat_again_soon(now);
                self.events.push_back(Event::CoordinatorStale);
            }
            Refusal::TakeMemberId | Refusal::Unknown | Refusal::Fail => {
                self.refused(now, "Heartbeat", code, None);
            }
        }
    }

    fn beat_again_soon(&mut self, now: Instant) {
        let pause = self.backoff.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        if let Some(pulse) = &mut self.pulse {
            pulse.next_at = now + pause.min(self.config.heartbeat_interval);
        }
    }

    /// A commit of `generation` was refused with this code: the group moved on without us, and a
    /// heartbeat would say so only later.
    pub fn handle_commit_refused(&mut self, now: Instant, generation: Option<i32>, code: Code) {
        if generation != self.identity.generation || self.state != State::Stable {
            return;
        }
        match refusal(code) {
            Refusal::Rejoin => self.rejoin("a commit found the group rebalancing"),
            Refusal::Unknown => self.refused(now, "OffsetCommit", code, None),
            Refusal::Fail if code == Code::FENCED_INSTANCE_ID => {
                self.refused(now, "OffsetCommit", code, None);
            }
            _ => {}
        }
    }

    fn refused(&mut self, now: Instant, api: &str, code: Code, member_id: Option<Arc<str>>) {
        match refusal(code) {
            Refusal::TakeMemberId => match member_id.filter(|id| !id.is_empty()) {
                Some(member_id) => {
                    self.identity.member_id = member_id;
                    self.join("the coordinator gave a member id");
                }
                None => self.retry_later(now),
            },
            Refusal::Unknown => {
                self.lose_all();
                self.forget_generation();
                // A coordinator that forgets everybody must not be asked in a tight loop.
                if self.failures == 0 {
                    self.failures = 1;
                    self.join("the coordinator does not know this member");
                } else {
                    self.retry_later(now);
                }
            }
            Refusal::Rejoin | Refusal::Retry => self.retry_later(now),
            Refusal::FindCoordinator => {
                self.events.push_back(Event::CoordinatorStale);
                self.retry_later(now);
            }
            Refusal::Fail => {
                let group = Arc::clone(&self.config.group);
                self.fail(Error::broker(code, &format!("{api} of group {group}")));
            }
        }
    }

    fn unanswered(&mut self, now: Instant, error: Error) {
        if is_final(&error) {
            self.fail(error);
            return;
        }
        self.events.push_back(Event::CoordinatorStale);
        self.retry_later(now);
    }
}
