//! Asks brokers what the transaction's core wants to know.

use ottla_proto::producer::transaction::{Answer, Outcome, Request};
use ottla_proto::{BrokerId, Error, ErrorKind, Result};
use ottla_wire::{Class, Cluster, Connection, CoordinatorKind, api};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The cluster's agreement on how transactions are spoken of.
const FEATURE: &str = "transaction.version";

/// One transactional id's way to its coordinators.
#[derive(Debug, Clone)]
pub(crate) struct Office {
    pub(crate) cluster: Cluster,
    pub(crate) id: Arc<str>,
    pub(crate) transaction_timeout: Duration,
}

/// What became of a request, and who was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) outcome: Outcome,
    /// The coordinator, if one was found.
    pub(crate) coordinator: Option<(CoordinatorKind, Arc<str>, BrokerId)>,
}

impl Office {
    /// Asks once. A coordinator that cannot be reached is forgotten.
    ///
    /// Cancel safety: what was asked may or may not be done.
    pub(crate) async fn ask(&self, request: Request) -> Asked {
        let (kind, key) = match &request {
            Request::FindProtocol => return self.find_protocol().await,
            Request::CommitOffsets { group, .. } => (CoordinatorKind::Group, &group.group),
            _ => (CoordinatorKind::Transaction, &self.id),
        };
        let key = Arc::clone(key);
        let deadline = Instant::now() + self.cluster.settings().request_timeout;
        let broker = match self.cluster.coordinator(kind, &key, deadline).await {
            Ok(broker) => broker,
            Err(error) => return Asked::not_sent(error),
        };
        let connection = self.cluster.connection(broker, Class::Control);
        let outcome = match connection.await {
            Ok(connection) => self.call(&connection, request).await,
            Err(error) => Outcome::NotSent(error),
        };
        if matches!(outcome, Outcome::NotSent(_) | Outcome::Lost(_)) {
            self.cluster.forget_coordinator(kind, &key, broker);
        }
        Asked {
            outcome,
            coordinator: Some((kind, key, broker)),
        }
    }

    /// Any broker knows: all tell the same, though some a little later.
    async fn find_protocol(&self) -> Asked {
        let connection = match self.cluster.any_connection(Class::Control).await {
            Ok(connection) => connection,
            Err(error) => return Asked::not_sent(error),
        };
        let settings = self.cluster.settings();
        let outcome = match api::versions::call(&connection, settings).await {
            Ok(versions) => Outcome::Answered(Answer::Feature {
                level: versions.feature_level(FEATURE).unwrap_or(0),
                epoch: versions.finalized_epoch,
            }),
            Err(error) => Outcome::Lost(error),
        };
        Asked {
            outcome,
            coordinator: None,
        }
    }

    async fn call(&self, connection: &Connection, request: Request) -> Outcome {
        let answer = match request {
            Request::Identify { current } => {
                let request = api::init_producer_id::Request {
                    transactional_id: Some(Arc::clone(&self.id)),
                    transaction_timeout: self.transaction_timeout,
                    current,
                };
                match api::init_producer_id::ask(connection, &request).await {
                    Ok(Ok(response)) => Ok(Answer::Identity(response.identity)),
                    Ok(Err(code)) => return Outcome::Refused(code),
                    Err(error) => Err(error),
                }
            }
            other => self.call_in_transaction(connection, other).await,
        };
        match answer {
            Ok(answer) => Outcome::Answered(answer),
            Err(error) if *error.kind() == ErrorKind::UnsupportedVersion => Outcome::NotSent(error),
            Err(error) => Outcome::Lost(error),
        }
    }

    async fn call_in_transaction(
        &self,
        connection: &Connection,
        request: Request,
    ) -> Result<Answer> {
        let transactional_id = Arc::clone(&self.id);
        Ok(match request {
            Request::AddPartitions {
                identity,
                partitions,
            } => {
                let request = api::add_partitions_to_txn::Request {
                    transactional_id,
                    identity,
                    partitions,
                };
                let response = api::add_partitions_to_txn::call(connection, &request).await?;
                Answer::Partitions(response.partitions)
            }
            Request::AddOffsets { identity, group } => {
                let request = api::add_offsets_to_txn::Request {
                    transactional_id,
                    identity,
                    group,
                };
                let response = api::add_offsets_to_txn::call(connection, &request).await?;
                Answer::Added(response.code)
            }
            Request::CommitOffsets {
                identity,
                protocol,
                group,
                offsets,
            } => {
                let request = api::txn_offset_commit::Request {
                    transactional_id,
                    identity,
                    protocol,
                    group,
                    offsets,
                };
                let response = api::txn_offset_commit::call(connection, &request).await?;
                Answer::Partitions(response.partitions)
            }
            Request::End {
                identity,
                protocol,
                decision,
            } => {
                let request = api::end_txn::Request {
                    transactional_id,
                    identity,
                    protocol,
                    decision,
                };
                let response = api::end_txn::call(connection, &request).await?;
                Answer::Ended {
                    code: response.code,
                    next: response.next,
                }
            }
            // Asked elsewhere.
            Request::FindProtocol | Request::Identify { .. } => {
                let what = "the request belongs to no transaction";
                return Err(Error::new(ErrorKind::State, what));
            }
        })
    }
}

impl Asked {
    fn not_sent(error: Error) -> Self {
        Self {
            outcome: Outcome::NotSent(error),
            coordinator: None,
        }
    }
}
