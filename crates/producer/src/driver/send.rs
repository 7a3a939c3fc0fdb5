//! Requests out, answers in.

use super::Driver;
use crate::config::Acks;
use crate::inbox::Message;
use crate::metrics::add;
use bytes::Bytes;
use ottla_proto::producer::{RequestId, Transmit, Unanswered};
use ottla_proto::{BrokerId, Error, Result, WriteOutcome};
use ottla_wire::api::produce::{self, Head, PartitionBatch, TopicBatches};
use ottla_wire::{ApiKey, Class, Connection, Frame};
use std::sync::Arc;
use std::time::Instant;

impl Driver {
    pub(super) fn transmit(&mut self, now: Instant, transmit: Transmit) {
        let Transmit {
            request,
            broker,
            batches,
        } = transmit;
        for batch in &batches {
            if !self.core.has_room(batch.partition)
                && let Some(lane) = self.lanes.get(batch.partition.0 as usize)
            {
                lane.slot.set_limit(self.shared.config.batch_bytes_max);
            }
        }
        let count = batches.len() as u64;
        let topics = self.by_topic(batches);
        let Some(connection) = self
            .connections
            .get(&broker)
            .filter(|c| c.is_open())
            .cloned()
        else {
            self.lost(now, broker, request);
            return;
        };
        let (frame, version) = match self.encode(&connection, &topics) {
            Ok(encoded) => encoded,
            Err(error) => {
                // The request is at fault, not the connection.
                tracing::warn!(%error, "a request could not be written");
                self.core
                    .handle_unanswered(now, request, Unanswered::NotSent);
                return;
            }
        };
        let counters = &self.shared.counters;
        add(&counters.requests, 1);
        add(&counters.batches, count);
        add(&counters.bytes, frame.size_bytes() as u64);
        if self.shared.config.acks == Acks::None {
            match connection.submit_oneway(frame) {
                Ok(()) => self.core.handle_written(now, request),
                Err(_) => self.lost(now, broker, request),
            }
            return;
        }
        let shared = Arc::clone(&self.shared);
        let timeout = self.shared.cluster.settings().request_timeout;
        connection.submit_then(frame, timeout, move |answer| {
            shared.shop.inbox.push(Message::Answered {
                request,
                version,
                answer,
            });
        });
    }

    fn lost(&mut self, now: Instant, broker: BrokerId, request: RequestId) {
        self.connections.remove(&broker);
        self.core.set_connected(broker, false);
        self.core
            .handle_unanswered(now, request, Unanswered::NotSent);
    }

    fn by_topic(&self, batches: Vec<ottla_proto::producer::TransmitBatch>) -> Vec<TopicBatches> {
        let mut topics: Vec<TopicBatches> = Vec::new();
        for batch in batches {
            let Some(lane) = self.lanes.get(batch.partition.0 as usize) else {
                continue;
            };
            let mut segments = Vec::with_capacity(batch.segments.len() + 1);
            segments.push(Bytes::copy_from_slice(&batch.header));
            segments.extend(batch.segments);
            let entry = PartitionBatch {
                partition: lane.slot.partition(),
                segments,
            };
            let topic_id = self.core.topic_id(batch.partition);
            let topic = lane.slot.topic();
            match topics
                .iter_mut()
                .find(|t| t.topic == *topic && t.topic_id == topic_id)
            {
                Some(found) => found.partitions.push(entry),
                None => topics.push(TopicBatches {
                    topic: Arc::clone(topic),
                    topic_id,
                    partitions: vec![entry],
                }),
            }
        }
        topics
    }

    fn encode(&self, connection: &Connection, topics: &[TopicBatches]) -> Result<(Frame, i16)> {
        let known = topics.iter().all(|topic| topic.topic_id.is_some());
        let ours = if known {
            produce::VERSIONS
        } else {
            produce::VERSIONS_BY_NAME
        };
        let version = connection.version(ApiKey::Produce, ours)?;
        let head = Head {
            acks: self.shared.config.acks.on_wire(),
            timeout: self.shared.cluster.settings().request_timeout,
            transactional_id: None,
        };
        let frame = produce::encode(version, connection.client_id(), &head, topics)?;
        Ok((frame, version))
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        request: RequestId,
        version: i16,
        answer: Result<Bytes>,
    ) {
        match answer.and_then(|bytes| produce::decode_with_endpoints(version, bytes)) {
            Ok((answer, endpoints)) => {
                // Before the hints: a new leader may be a broker that metadata does not name yet.
                self.shared.cluster.learn_brokers(&endpoints);
                self.core.handle_answer(now, request, &answer);
            }
            Err(error) => {
                tracing::debug!(%error, "a produce request was not answered");
                self.drop_closed();
                self.core
                    .handle_unanswered(now, request, unanswered(&error));
            }
        }
    }

    /// Forgets connections that have closed, so that new ones are made.
    fn drop_closed(&mut self) {
        let closed: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, c)| !c.is_open())
            .map(|(id, _)| *id)
            .collect();
        for broker in closed {
            self.connections.remove(&broker);
            self.core.set_connected(broker, false);
        }
    }

    pub(super) fn connect(&mut self, broker: BrokerId) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let connection = shared.cluster.connection(broker, Class::Produce).await;
            if connection.is_err() {
                // The cluster waits between its own attempts; this is for errors that come at once.
                tokio::time::sleep(shared.cluster.settings().retry_backoff).await;
            }
            shared
                .shop
                .inbox
                .push(Message::Connected { broker, connection });
        });
    }

    pub(super) fn connected(&mut self, broker: BrokerId, connection: Result<Connection>) {
        match connection {
            Ok(connection) => {
                self.connections.insert(broker, connection);
                self.core.set_connected(broker, true);
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                self.shared.cluster.mark_stale(self.view_generation);
                self.core.set_connected(broker, false);
            }
        }
    }
}

fn unanswered(error: &Error) -> Unanswered {
    match error.write_outcome() {
        Some(WriteOutcome::NotWritten) => Unanswered::NotSent,
        _ => Unanswered::Lost,
    }
}
