//! One member's life in a classic group.
//!
//! The states are named by what they await. Requests carry a [`Ticket`]; an answer whose ticket is
//! not the current one is about an earlier life and is ignored. Partitions are given up in two
//! steps: [`Event::Release`] asks the user to be done with them, [`Membership::handle_released`]
//! says that this is so and that what was read is committed; only then does the member join again.
//! While it waits, its heart keeps beating.

mod answers;
#[cfg(test)]
mod tests;

use super::assignor::{Assignor, GroupMember, RebalanceProtocol, TopicCounts};
use super::codec::Subscription;
use crate::error::Error;
use crate::fetch::backoff::Backoff;
use crate::topic::TopicPartition;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a membership is given to work with.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// The group.
    pub group: Arc<str>,
    /// The member's own lasting name; makes it a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// Without a heartbeat for this long, the coordinator counts the member out.
    pub session_timeout: Duration,
    /// The pause between two heartbeats.
    pub heartbeat_interval: Duration,
    /// A user who does not ask for records for this long loses the partitions. It is also how long
    /// the coordinator waits for the members to join again.
    pub max_poll_interval: Duration,
    /// In order of preference.
    pub assignors: Vec<Assignor>,
    /// This client's rack.
    pub rack: Option<Arc<str>>,
    /// The first pause before a failed request is tried again,
    pub retry_backoff: Duration,
    /// and the longest.
    pub retry_backoff_max: Duration,
    /// Where the chance in the pauses starts.
    pub seed: u64,
}

/// Marks a request; its answer comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Who this member is in the group's current generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id that the coordinator gave it; empty before the first join.
    pub member_id: Arc<str>,
    /// The generation it is in; `None` outside one.
    pub generation: Option<i32>,
    /// Its own lasting name.
    pub instance: Option<Arc<str>>,
}

/// What to ask in JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Who asks.
    pub identity: Identity,
    /// See [`MembershipConfig::session_timeout`].
    pub session_timeout: Duration,
    /// How long the coordinator waits for the other members. The answer may take as long.
    pub rebalance_timeout: Duration,
    /// Each assignor's name with the member's [`Subscription`], encoded.
    pub protocols: Vec<(&'static str, Vec<u8>)>,
    /// Why the member joins, for the coordinator's log (KIP-800).
    pub reason: &'static str,
}

/// One member in a JoinGroup answer to the group's leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Arc<str>,
    /// Its own lasting name.
    pub instance: Option<Arc<str>>,
    /// Its encoded [`Subscription`].
    pub metadata: Vec<u8>,
}

/// A JoinGroup answer without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The group's new generation.
    pub generation: i32,
    /// The assignor that all members know; `None` in answers that carry an error.
    pub protocol: Option<Arc<str>>,
    /// The leader's member id.
    pub leader: Arc<str>,
    /// This member's id; also set in a MEMBER_ID_REQUIRED answer.
    pub member_id: Arc<str>,
    /// Everybody, if this member is the leader; else empty.
    pub members: Vec<JoinedMember>,
    /// The leader needs not assign: it is a static member that came back and nothing changed.
    pub skip_assignment: bool,
}

/// What to ask in SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// Who asks.
    pub identity: Identity,
    /// The assignor in use.
    pub protocol: Arc<str>,
    /// From the leader: each member's encoded assignment. From others: nothing.
    pub assignments: Vec<(Arc<str>, Vec<u8>)>,
    /// How long the leader may take; the answer waits for it.
    pub rebalance_timeout: Duration,
}

/// A SyncGroup answer without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    /// This member's encoded assignment.
    pub assignment: Vec<u8>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Outcome<A> {
    /// The coordinator did it.
    Done(A),
    /// The coordinator refused with a code. JoinGroup may name a member id beside it.
    Refused {
        /// Kafka's code.
        code: crate::Code,
        /// The member id that goes with MEMBER_ID_REQUIRED.
        member_id: Option<Arc<str>>,
    },
    /// No answer, or none that could be read.
    Failed(Error),
}

/// What to send to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// JoinGroup; answer with [`Membership::handle_join`].
    Join(Ticket, JoinRequest),
    /// SyncGroup; answer with [`Membership::handle_sync`].
    Sync(Ticket, SyncRequest),
    /// Heartbeat; answer with [`Membership::handle_heartbeat`].
    Heartbeat(Ticket, Identity),
    /// LeaveGroup; the answer changes nothing.
    Leave(Identity),
}

/// What the driver shall do or pass on.
#[derive(Debug, Clone)]
pub enum Event {
    /// Have the user be done with these, commit, then call [`Membership::handle_released`].
    Release(Vec<TopicPartition>),
    /// These are the member's from now on.
    Assigned(Vec<TopicPartition>),
    /// These were taken away: another member may read them already, so nothing may be committed.
    Lost(Vec<TopicPartition>),
    /// The member leads: call [`Membership::handle_topics`] with the partition counts of these.
    TopicsWanted(Vec<Arc<str>>),
    /// Find the coordinator anew before the next request.
    CoordinatorStale,
    /// The membership is over; nothing follows.
    Failed(Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing to do: no topics wanted yet.
    AwaitingSubscription,
    /// Out of the group because the user asked for no records; asking brings the member back.
    AwaitingPoll,
    /// The user holds partitions that have to be given up.
    AwaitingRelease,
    /// A pause before joining.
    AwaitingRetry(Instant),
    AwaitingJoin,
    /// We lead and need to know how many partitions there are.
    AwaitingTopics(Led),
    AwaitingSync,
    /// In the group. The member's own reading is the user's business.
    Stable,
    /// Left, or refused for good.
    Ended,
}

/// A generation that this member leads, before the assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Led {
    assignor: Assignor,
    members: Vec<GroupMember>,
    /// Everything that any member wants.
    topics: BTreeSet<Arc<str>>,
    /// The coordinator wants an assignment; not so when a static leader came back unchanged.
    assigns: bool,
}

/// The heart: beats while the member is in a generation.
#[derive(Debug, Clone)]
struct Pulse {
    next_at: Instant,
    heard_at: Instant,
    in_flight: Option<Ticket>,
}

/// One member of a classic group. See the module's documentation.
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    topics: BTreeSet<Arc<str>>,
    identity: Identity,
    state: State,
    /// The request whose answer the state awaits.
    awaited: Option<Ticket>,
    last_ticket: u64,
    pulse: Option<Pulse>,
    protocol: Option<Arc<str>>,
    owned: BTreeSet<TopicPartition>,
    /// Asked to be released, not yet given up.
    releasing: Vec<TopicPartition>,
    /// What the assignment we made rests on, if we lead: a change is a reason to join again.
    led_topics: Option<TopicCounts>,
    polled_at: Instant,
    /// The join under way carries an older subscription.
    outdated: bool,
    failures: u32,
    backoff: Backoff,
    outbox: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Membership {
    /// A membership that wants nothing yet.
    pub fn new(config: MembershipConfig, now: Instant) -> Self {
        let backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max, config.seed);
        Self {
            identity: Identity {
                member_id: "".into(),
                generation: None,
                instance: config.instance.clone(),
            },
            config,
            topics: BTreeSet::new(),
            state: State::AwaitingSubscription,
            awaited: None,
            last_ticket: 0,
            pulse: None,
            protocol: None,
            owned: BTreeSet::new(),
            releasing: Vec::new(),
            led_topics: None,
            polled_at: now,
            outdated: false,
            failures: 0,
            backoff,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Wants these topics from now on, and joins.
    pub fn subscribe(&mut self, now: Instant, topics: impl IntoIterator<Item = Arc<str>>) {
        let topics: BTreeSet<Arc<str>> = topics.into_iter().collect();
        if topics == self.topics {
            return;
        }
        self.topics = topics;
        match self.state {
            State::AwaitingSubscription => {
                self.polled_at = now;
                self.join("subscribed");
            }
            State::Stable => self.rejoin("the subscription changed"),
            // A second JoinGroup beside one under way could make a second member.
            State::AwaitingJoin | State::AwaitingTopics(_) | State::AwaitingSync => {
                self.outdated = true;
            }
            _ => {}
        }
    }

    /// Who this member is; a commit carries it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The partitions that are this member's, those still to be given up among them.
    pub fn owned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.iter()
    }

    /// Whether the member is in the group with an assignment.
    pub fn is_stable(&self) -> bool {
        self.state == State::Stable
    }

    /// Whether the member left because the user asked for no records, and comes back as soon as it
    /// does.
    pub fn awaits_poll(&self) -> bool {
        self.state == State::AwaitingPoll
    }

    /// The user asked for records, or is still waiting for some.
    pub fn handle_polled(&mut self, now: Instant) {
        self.polled_at = now;
        if self.state == State::AwaitingPoll {
            self.join("the user asks for records again");
        }
    }

    /// The user is done with what [`Event::Release`] named, and it is committed as far as it is to
    /// be.
    pub fn handle_released(&mut self) {
        if self.state != State::AwaitingRelease {
            return;
        }
        for partition in std::mem::take(&mut self.releasing) {
            self.owned.remove(&partition);
        }
        self.join("partitions were given up");
    }

    /// The cluster's view changed; a leader whose assignment rests on other partition counts joins
    /// again.
    pub fn handle_topics_changed(&mut self, counts: &TopicCounts) {
        let Some(led) = &self.led_topics else { return };
        // A topic that vanished may be a gap in the metadata; it is no reason to move anything.
        let grown = counts
            .iter()
            .any(|(topic, count)| led.get(topic).copied().unwrap_or(0) < *count);
        if grown && self.state == State::Stable {
            self.rejoin("topics have new partitions");
        }
    }

    /// The topics that this member must watch: its own, and when it leads those of all members.
    pub fn watched(&self) -> BTreeSet<Arc<str>> {
        let led = self.led_topics.iter().flat_map(|led| led.keys());
        self.topics.iter().chain(led).cloned().collect()
    }

    /// Leaves the group. What is owned is the driver's to commit beforehand.
    pub fn leave(&mut self) {
        self.send_leave();
        self.owned.clear();
        self.end();
    }

    /// Lets time pass. Call it when [`Membership::poll_timeout`] is reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_member() && now >= self.polled_at + self.config.max_poll_interval {
            self.leave_for_silence();
            return;
        }
        if let State::AwaitingRetry(until) = self.state
            && now >= until
        {
            self.join("trying again");
        }
        self.beat(now);
    }

    /// When to call [`Membership::handle_timeout`]; `None` when only an answer or the user can
    /// change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = match self.state {
            State::AwaitingRetry(until) => Some(until),
            _ => None,
        };
        let beat = self.pulse.as_ref().map(|pulse| match pulse.in_flight {
            None => pulse.next_at,
            Some(_) => (pulse.heard_at + self.config.session_timeout).max(pulse.next_at),
        });
        let silence = self
            .is_member()
            .then(|| self.polled_at + self.config.max_poll_interval);
        [retry, beat, silence].into_iter().flatten().min()
    }

    /// The next request to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// The next thing to do or pass on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn is_member(&self) -> bool {
        !matches!(
            self.state,
            State::AwaitingSubscription | State::AwaitingPoll | State::Ended
        )
    }

    fn protocol_kind(&self) -> RebalanceProtocol {
        Assignor::protocol(&self.config.assignors)
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Gives up what the protocol wants given up, then joins.
    fn rejoin(&mut self, reason: &'static str) {
        let eager = self.protocol_kind() == RebalanceProtocol::Eager;
        if eager && !self.owned.is_empty() {
            self.release(self.owned.iter().cloned().collect());
        } else {
            self.join(reason);
        }
    }

    fn release(&mut self, partitions: Vec<TopicPartition>) {
        self.releasing.clone_from(&partitions);
        self.state = State::AwaitingRelease;
        self.events.push_back(Event::Release(partitions));
    }

    fn join(&mut self, reason: &'static str) {
        self.pulse = None;
        self.led_topics = None;
        self.outdated = false;
        let ticket = self.ticket();
        self.awaited = Some(ticket);
        self.state = State::AwaitingJoin;
        let request = JoinRequest {
            identity: self.identity.clone(),
            session_timeout: self.config.session_timeout,
            rebalance_timeout: self.config.max_poll_interval,
            protocols: self.protocols(),
            reason,
        };
        self.outbox.push_back(Transmit::Join(ticket, request));
    }

    fn protocols(&self) -> Vec<(&'static str, Vec<u8>)> {
        let generation = self.identity.generation;
        let encoded = |assignor: &Assignor| {
            let subscription = Subscription {
                topics: self.topics.iter().cloned().collect(),
                user_data: assignor.user_data(generation),
                owned: self.owned.iter().cloned().collect(),
                generation,
                rack: self.config.rack.clone(),
            };
            (assignor.name(), subscription.encode())
        };
        self.config.assignors.iter().map(encoded).collect()
    }

    fn beat(&mut self, now: Instant) {
        let (session, interval) = (self.config.session_timeout, self.config.heartbeat_interval);
        let Some(pulse) = &mut self.pulse else { return };
        if now >= pulse.heard_at + session {
            // The coordinator has counted us out, or is gone: ask whoever holds the office now.
            pulse.heard_at = now;
            pulse.in_flight = None;
            self.events.push_back(Event::CoordinatorStale);
        }
        if pulse.in_flight.is_some() || now < pulse.next_at {
            return;
        }
        pulse.next_at = now + interval;
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        pulse.in_flight = Some(ticket);
        let beat = Transmit::Heartbeat(ticket, self.identity.clone());
        self.outbox.push_back(beat);
    }

    /// The user has not asked for records in time: other members shall have the partitions.
    fn leave_for_silence(&mut self) {
        self.send_leave();
        self.lose_all();
        self.forget_generation();
        self.state = State::AwaitingPoll;
    }

    /// A static member does not leave: it is expected back, and its session ends by itself.
    fn send_leave(&mut self) {
        let known = !self.identity.member_id.is_empty();
        if known && self.identity.instance.is_none() && self.is_member() {
            self.outbox.clear();
            self.outbox
                .push_back(Transmit::Leave(self.identity.clone()));
        }
    }

    fn lose_all(&mut self) {
        self.releasing.clear();
        if !self.owned.is_empty() {
            let lost = std::mem::take(&mut self.owned);
            self.events
                .push_back(Event::Lost(lost.into_iter().collect()));
        }
    }

    /// Back to a member that the coordinator does not know.
    fn forget_generation(&mut self) {
        self.identity.member_id = "".into();
        self.identity.generation = None;
        self.pulse = None;
        self.awaited = None;
        self.led_topics = None;
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.pulse = None;
        self.awaited = None;
        self.releasing.clear();
        self.led_topics = None;
    }

    fn fail(&mut self, error: Error) {
        self.lose_all();
        self.end();
        self.outbox.clear();
        self.events.push_back(Event::Failed(error));
    }

    fn retry_later(&mut self, now: Instant) {
        let pause = self.backoff.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.awaited = None;
        self.pulse = None;
        self.led_topics = None;
        self.state = State::AwaitingRetry(now + pause);
    }
}
