//! The driver's requests: what goes to the coordinator and what comes back.

use super::{Driver, Then, counts};
use crate::commit::{Office, Offsets};
use crate::shared::{Shared, now};
use bytes::Bytes;
use ottla_proto::fetch::{Progress, Start};
use ottla_proto::group::{
    Committed, Identity, JoinAnswer, JoinRequest, JoinedMember, Outcome, SyncAnswer, SyncRequest,
    Ticket, TopicCounts, Transmit,
};
use ottla_proto::{Code, Error, Result, TopicPartition};
use ottla_wire::retry::Backoff;
use ottla_wire::{Class, api};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The kind of group that consumers form.
const PROTOCOL_TYPE: &str = "consumer";

/// What came back.
pub(super) enum Done {
    Joined(Ticket, Outcome<JoinAnswer>),
    Synced(Ticket, Outcome<SyncAnswer>),
    Beaten(Ticket, Outcome<()>),
    Left,
    Topics(TopicCounts),
    Committed(Result<Offsets, (Error, Option<i32>)>),
    Positions {
        of: Vec<Arc<Progress>>,
        attempt: u32,
        found: Result<BTreeMap<TopicPartition, Option<Committed>>>,
    },
    /// Whoever asked has been told.
    Told,
}

impl Driver {
    pub(super) fn take_in(&mut self, done: Done) {
        let now = now();
        match done {
            // A member also leaves when its user is silent, and comes back.
            Done::Left => self.done |= self.parting,
            Done::Told => {}
            Done::Committed(result) => {
                let then = self.committing.take().unwrap_or(Then::Nothing);
                self.committed(then, result);
            }
            Done::Positions { of, attempt, found } => self.positions_found(of, attempt, found),
            Done::Joined(ticket, outcome) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_join(now, ticket, outcome);
                }
            }
            Done::Synced(ticket, outcome) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_sync(now, ticket, outcome);
                }
            }
            Done::Beaten(ticket, outcome) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_heartbeat(now, ticket, outcome);
                }
            }
            Done::Topics(counts) => {
                if let Some(membership) = &mut self.membership {
                    membership.handle_topics(counts);
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.cluster.settings().api_timeout
    }

    pub(super) fn send(&mut self, transmit: Transmit) {
        let Some(office) = self.office.clone() else {
            return;
        };
        let (lane, deadline) = (self.shared.lanes.group, self.deadline());
        self.work.push(Box::pin(async move {
            match transmit {
                Transmit::Join(ticket, request) => {
                    Done::Joined(ticket, join(&office, lane, deadline, request).await)
                }
                Transmit::Sync(ticket, request) => {
                    Done::Synced(ticket, sync(&office, lane, deadline, request).await)
                }
                Transmit::Heartbeat(ticket, identity) => {
                    Done::Beaten(ticket, beat(&office, lane, deadline, identity).await)
                }
                Transmit::Leave(identity) => {
                    if let Err(error) = leave(&office, deadline, identity).await {
                        tracing::debug!(%error, "the group was not told that a member left");
                    }
                    Done::Left
                }
            }
        }));
    }

    pub(super) fn send_commit(
        &mut self,
        office: Arc<Office>,
        identity: Identity,
        offsets: Offsets,
    ) {
        let deadline = self.deadline();
        self.work.push(Box::pin(async move {
            let result = office.commit(&identity, &offsets, deadline).await;
            let generation = identity.generation;
            Done::Committed(
                result
                    .map(|()| offsets)
                    .map_err(|error| (error, generation)),
            )
        }));
    }

    /// A leader assigns by what the cluster says now; if it says nothing, by what it said last.
    pub(super) fn find_topics(&mut self, topics: Vec<Arc<str>>) {
        self.watch_also(&topics);
        let shared = Arc::clone(&self.shared);
        self.work.push(Box::pin(async move {
            let view = match shared.cluster.refresh().await {
                Ok(view) => view,
                Err(error) => {
                    tracing::debug!(%error, "the group's topics could not be refreshed");
                    shared.cluster.view()
                }
            };
            Done::Topics(counts(&view, topics.iter()))
        }));
    }

    fn watch_also(&mut self, topics: &[Arc<str>]) {
        let new: Vec<Arc<str>> = topics
            .iter()
            .filter(|topic| !self.watched.contains(*topic))
            .cloned()
            .collect();
        if !new.is_empty() {
            self.watched.extend(new.iter().cloned());
            self.shared.cluster.watch_topics(new);
        }
    }

    /// Finds out where to begin in partitions that were assigned.
    pub(super) fn find_positions(&mut self, of: Vec<Arc<Progress>>, attempt: u32) {
        let (Some(office), false) = (self.office.clone(), of.is_empty()) else {
            return;
        };
        let (shared, deadline) = (Arc::clone(&self.shared), self.deadline());
        self.work.push(Box::pin(async move {
            if attempt > 0 {
                tokio::time::sleep(pause(&shared, attempt)).await;
            }
            let partitions: Vec<TopicPartition> = of
                .iter()
                .map(|progress| progress.partition().clone())
                .collect();
            let found = office.committed(&partitions, deadline).await;
            Done::Positions { of, attempt, found }
        }));
    }

    fn positions_found(
        &mut self,
        mut of: Vec<Arc<Progress>>,
        attempt: u32,
        found: Result<BTreeMap<TopicPartition, Option<Committed>>>,
    ) {
        of.retain(|progress| !progress.is_revoked());
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                if !of.is_empty() {
                    self.shared.tell_error(error);
                    self.find_positions(of, attempt.saturating_add(1));
                }
                return;
            }
        };
        let mut fetcher = self.shared.fetcher.lock();
        let mut forgotten = Vec::new();
        for progress in of {
            let partition = progress.partition();
            match found.remove(partition) {
                Some(Some(committed)) => {
                    self.ledger.record(partition.clone(), committed.offset);
                    let start = Start::Offset(committed.offset, committed.leader_epoch);
                    fetcher.start(partition, start);
                }
                Some(None) => fetcher.start(partition, Start::Policy),
                None => forgotten.push(progress),
            }
        }
        drop(fetcher);
        self.shared.fetch.notify_one();
        // An answer that leaves a partition out says nothing about it.
        self.find_positions(forgotten, attempt.saturating_add(1));
    }

    pub(super) fn tell_committed(
        &mut self,
        partitions: Vec<TopicPartition>,
        reply: oneshot::Sender<Result<BTreeMap<TopicPartition, Option<Committed>>>>,
    ) {
        let Some(office) = self.office.clone() else {
            return;
        };
        let deadline = self.deadline();
        self.work.push(Box::pin(async move {
            let _gone = reply.send(office.committed(&partitions, deadline).await);
            Done::Told
        }));
    }
}

/// Between two look-ups of the same positions.
fn pause(shared: &Shared, attempt: u32) -> Duration {
    let settings = shared.cluster.settings();
    let backoff = Backoff {
        first: settings.retry_backoff,
        ceiling: settings.retry_backoff_max,
    };
    // No two consumers do this in step: their coordinators' answers came at different times.
    backoff.wait(attempt, settings.seed)
}

/// Without an error, the answer; with one, the code.
fn outcome<A>(answer: Result<(Code, A)>) -> Outcome<A> {
    match answer {
        Ok((Code::NONE, answer)) => Outcome::Done(answer),
        Ok((code, _)) => Outcome::Refused {
            code,
            member_id: None,
        },
        Err(error) => Outcome::Failed(error),
    }
}

async fn join(
    office: &Office,
    lane: Class,
    deadline: Instant,
    request: JoinRequest,
) -> Outcome<JoinAnswer> {
    let protocols = request.protocols.into_iter();
    let body = api::join_group::Request {
        group: Arc::clone(office.group()),
        session_timeout: request.session_timeout,
        rebalance_timeout: request.rebalance_timeout,
        member_id: request.identity.member_id,
        instance_id: request.identity.instance,
        protocol_type: PROTOCOL_TYPE.into(),
        protocols: protocols
            .map(|(name, data)| (name.into(), Bytes::from(data)))
            .collect(),
        reason: Some(request.reason.into()),
    };
    let answer = async {
        let connection = office.connection(lane, deadline).await?;
        api::join_group::call(&connection, &body).await
    };
    match answer.await {
        Ok(answer) if answer.code == Code::NONE => {
            let members = answer.members.into_iter().map(|member| JoinedMember {
                member_id: member.member_id,
                instance: member.instance_id,
                metadata: member.metadata.to_vec(),
            });
            Outcome::Done(JoinAnswer {
                generation: answer.generation,
                protocol: answer.protocol_name,
                leader: answer.leader,
                member_id: answer.member_id,
                members: members.collect(),
                skip_assignment: answer.skip_assignment,
            })
        }
        Ok(answer) => Outcome::Refused {
            code: answer.code,
            member_id: Some(answer.member_id),
        },
        Err(error) => Outcome::Failed(error),
    }
}

async fn sync(
    office: &Office,
    lane: Class,
    deadline: Instant,
    request: SyncRequest,
) -> Outcome<SyncAnswer> {
    let assignments = request.assignments.into_iter();
    let body = api::sync_group::Request {
        group: Arc::clone(office.group()),
        generation: request.identity.generation.unwrap_or(-1),
        member_id: request.identity.member_id,
        instance_id: request.identity.instance,
        protocol_type: Some(PROTOCOL_TYPE.into()),
        protocol_name: Some(request.protocol),
        assignments: assignments
            .map(|(id, data)| (id, Bytes::from(data)))
            .collect(),
        rebalance_timeout: request.rebalance_timeout,
    };
    let answer = async {
        let connection = office.connection(lane, deadline).await?;
        let answer = api::sync_group::call(&connection, &body).await?;
        let assignment = answer.assignment.to_vec();
        Ok((answer.code, SyncAnswer { assignment }))
    };
    outcome(answer.await)
}

async fn beat(office: &Office, lane: Class, deadline: Instant, identity: Identity) -> Outcome<()> {
    let body = api::heartbeat::Request {
        group: Arc::clone(office.group()),
        generation: identity.generation.unwrap_or(-1),
        member_id: identity.member_id,
        instance_id: identity.instance,
    };
    let answer = async {
        let connection = office.connection(lane, deadline).await?;
        let answer = api::heartbeat::call(&connection, &body).await?;
        Ok((answer.code, ()))
    };
    outcome(answer.await)
}

/// Not on the membership's own connection, where a JoinGroup may be waiting.
async fn leave(office: &Office, deadline: Instant, identity: Identity) -> Result<()> {
    let connection = office.connection(Class::Control, deadline).await?;
    let body = api::leave_group::Request {
        group: Arc::clone(office.group()),
        members: vec![api::leave_group::Leaving {
            member_id: identity.member_id,
            instance_id: identity.instance,
            reason: Some("the consumer closed".into()),
        }],
    };
    let answer = api::leave_group::call(&connection, &body).await?;
    match answer.code {
        Code::NONE => Ok(()),
        code => Err(Error::broker(code, "LeaveGroup")),
    }
}
