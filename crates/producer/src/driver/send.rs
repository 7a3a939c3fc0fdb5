//! Requests out, answers in.

use super::Driver;
use super::transactions::Desk;
use crate::config::Acks;
use crate::inbox::Message;
use crate::producer::Shared;
use bytes::Bytes;
use ottla_proto::producer::transaction::Protocol;
use ottla_proto::producer::{Lane, RequestId, Transmit, TransmitBatch, Unanswered};
use ottla_proto::{BrokerId, Error, Result, WriteOutcome};
use ottla_wire::api::produce::{self, Head, PartitionBatch};
use ottla_wire::{ApiKey, Class, Connection, Frame, OnAnswer};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

impl Driver {
    pub(super) fn transmit(&mut self, now: Instant, transmit: Transmit) {
        let Transmit {
            request,
            broker,
            lane,
            batches,
        } = transmit;
        for batch in &batches {
            if let Some(place) = self.places.get(batch.partition.0 as usize) {
                place.slot.set_queued(self.core.queued(batch.partition));
            }
            if !self.core.has_room(batch.partition)
                && let Some(place) = self.places.get(batch.partition.0 as usize)
            {
                place.limit(now, self.shared.config.batch_bytes_max);
            }
        }
        let Some(connection) = self
            .connections
            .get(&(broker, lane))
            .filter(|c| c.is_open())
            .cloned()
        else {
            self.connections.remove(&(broker, lane));
            self.core.set_connected(broker, lane, false);
            self.core
                .handle_unanswered(now, request, Unanswered::NotSent);
            return;
        };
        for place in batches
            .iter()
            .filter_map(|b| self.places.get(b.partition.0 as usize))
        {
            // Only now does the leader take anything: its connection may have been closed already.
            place.slot.account().accept();
        }
        self.count_waits(now, &batches);
        let count = batches.len();
        let encoded = self.encode(&connection, &batches);
        self.core.reuse(batches);
        let frame = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                // The connection is well: another one would encode no better.
                tracing::warn!(%error, "a request could not be encoded");
                self.core
                    .handle_unanswered(now, request, Unanswered::NotSent);
                return;
            }
        };
        self.shared.counters.requested(count, frame.size_bytes());
        if self.shared.config.acks == Acks::None {
            let shared = Arc::clone(&self.shared);
            connection.submit_oneway(frame, move |written| {
                shared
                    .shop
                    .inbox
                    .push(Message::Written { request, written });
            });
            return;
        }
        let timeout = self.shared.cluster.settings().request_timeout;
        connection.submit_then(frame, timeout, request.0, &self.on_answer);
    }

    /// What becomes of an answer on its connection's task: one for all requests.
    pub(super) fn on_answer(shared: &Arc<Shared>) -> OnAnswer {
        let shared = Arc::clone(shared);
        Arc::new(move |asked, answer| {
            if answer.is_ok() {
                shared.counters.answered(asked.at.elapsed());
            }
            shared.shop.inbox.push(Message::Answered {
                request: RequestId(asked.request),
                version: asked.version,
                answer,
            });
        })
    }

    fn count_waits(&self, now: Instant, batches: &[TransmitBatch]) {
        for batch in batches {
            if batch.attempts > 1 {
                self.shared.counters.retried();
            } else {
                let begun = self.begun(now, batch.deadline);
                let waited = now.saturating_duration_since(begun);
                self.shared.counters.queued(waited);
            }
        }
    }

    /// Takes in that a request without an answer has left, or has not.
    pub(super) fn written(&mut self, now: Instant, request: RequestId, written: Result<Bytes>) {
        match written {
            Ok(_) => self.core.handle_written(now, request),
            Err(error) => self.unanswered(now, request, &error),
        }
    }

    fn unanswered(&mut self, now: Instant, request: RequestId, error: &Error) {
        tracing::debug!(%error, "a produce request was not answered");
        self.drop_closed();
        let why = match error.write_outcome() {
            Some(WriteOutcome::NotWritten) => Unanswered::NotSent,
            _ => Unanswered::Lost,
        };
        self.core.handle_unanswered(now, request, why);
    }

    fn encode(&mut self, connection: &Connection, batches: &[TransmitBatch]) -> Result<Frame> {
        let known = batches.iter().all(|batch| batch.topic_id.is_some());
        let protocol = self.desk.as_ref().map(Desk::protocol);
        let ours = versions(known, protocol);
        let version = connection.version(ApiKey::Produce, ours)?;
        let head = Head {
            acks: self.shared.config.acks.on_wire(),
            timeout: self.shared.cluster.settings().request_timeout,
            transactional_id: self.shared.config.transactional_id.clone(),
        };
        let places = &self.places;
        let batches = batches.iter().filter_map(|batch| {
            let slot = &places.get(batch.partition.0 as usize)?.slot;
            Some(PartitionBatch {
                topic: slot.topic(),
                topic_id: batch.topic_id,
                partition: slot.partition(),
                header: &batch.header,
                segments: &batch.segments,
            })
        });
        let room = &mut self.request_room;
        produce::encode(version, connection.client_id(), &head, batches, room)
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        request: RequestId,
        version: i16,
        answer: Result<Bytes>,
    ) {
        let read = &mut self.answer;
        match answer.and_then(|bytes| produce::decode_into(version, &bytes, read)) {
            Ok(endpoints) => {
                // Before the hints: a new leader may be a broker that metadata does not name yet.
                self.shared.cluster.learn_brokers(&endpoints);
                self.core.handle_answer(now, request, &self.answer);
                self.shared.counters.judged(&self.core.take_verdicts());
            }
            Err(error) => self.unanswered(now, request, &error),
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
        for (broker, lane) in closed {
            self.connections.remove(&(broker, lane));
            self.core.set_connected(broker, lane, false);
        }
    }

    pub(super) fn connect(&mut self, broker: BrokerId, lane: Lane) {
        let shared = Arc::clone(&self.shared);
        let class = match lane {
            Lane::Main => Class::Produce(self.lane),
            Lane::Apart => Class::ProduceApart(self.lane),
        };
        self.tasks.spawn(async move {
            let connection = shared.cluster.connection(broker, class).await;
            if connection.is_err() {
                // The cluster waits between its own attempts; this is for errors that come at once.
                tokio::time::sleep(shared.cluster.settings().retry_backoff).await;
            }
            shared.shop.inbox.push(Message::Connected {
                broker,
                lane,
                connection,
            });
        });
    }

    pub(super) fn connected(
        &mut self,
        broker: BrokerId,
        lane: Lane,
        connection: Result<Connection>,
    ) {
        match connection {
            Ok(connection) => {
                self.connections.insert((broker, lane), connection);
                self.core.set_connected(broker, lane, true);
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                self.shared.cluster.mark_stale(self.view_generation);
                self.core.set_connected(broker, lane, false);
            }
        }
    }

    /// Closes a connection that a stalled request holds up. The broker may still carry out what it
    /// has read; the repetition is then answered as a duplicate.
    pub(super) fn abandon(&mut self, broker: BrokerId, lane: Lane) {
        tracing::info!(broker = broker.0, ?lane, "a stalled request is given up");
        if let Some(connection) = self.connections.remove(&(broker, lane)) {
            connection.close();
        }
    }
}

/// The versions in which batches may be sent: topics without ids keep them at names, and from a
/// certain version on the leader adds its partitions to the transaction by itself.
fn versions(ids_known: bool, protocol: Option<Protocol>) -> RangeInclusive<i16> {
    let ours = match ids_known {
        true => produce::VERSIONS,
        false => produce::VERSIONS_BY_NAME,
    };
    match protocol {
        None => ours,
        Some(Protocol::One) => *ours.start()..=produce::ADDS_PARTITIONS_FROM - 1,
        Some(Protocol::Two) => produce::ADDS_PARTITIONS_FROM..=*ours.end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_of_transactions_has_versions_of_its_own() {
        for ids_known in [true, false] {
            assert_eq!(versions(ids_known, Some(Protocol::One)), 3..=11);
        }
        assert_eq!(versions(true, Some(Protocol::Two)), 12..=13);
        assert_eq!(versions(false, Some(Protocol::Two)), 12..=12);
        assert_eq!(versions(true, None), 3..=13);
        assert_eq!(versions(false, None), 3..=12);
    }
}
