//! What the brokers' answers do to the partitions.

use super::{
    Event, FetchedPartition, Fetcher, Found, InFlight, OffsetReset, Ready, Start, Ticket, Waiting,
};
use crate::code::Code;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::cursor::Cursor;
use crate::fetch::partition::{PartitionState, Phase, scan};
use crate::fetch::verdict::{FetchVerdict, fetch_verdict};
use crate::topic::{BrokerId, TopicPartition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

impl Fetcher {
    /// Takes in the answer to a [`Transmit::Fetch`](super::Transmit::Fetch). A code for the whole
    /// answer comes as an error.
    pub fn handle_fetch(
        &mut self,
        now: Instant,
        broker: BrokerId,
        ticket: Ticket,
        answer: Result<Vec<FetchedPartition>>,
    ) {
        let Some(asked) = answered(&mut self.fetches, broker, ticket) else {
            return;
        };
        let asked = self.land(asked);
        match answer {
            Ok(answers) => {
                for one in answers {
                    // A partition that was not asked for, or only in an earlier life, is dropped.
                    if asked.binary_search(&one.partition).is_ok() {
                        self.fetched(now, broker, one);
                    }
                }
            }
            Err(_) => self.unanswered(now, &asked),
        }
    }

    /// Takes in the answer to a [`Transmit::Offsets`](super::Transmit::Offsets).
    pub fn handle_offsets(
        &mut self,
        now: Instant,
        broker: BrokerId,
        ticket: Ticket,
        answer: Result<Vec<Found>>,
    ) {
        let Some(asked) = answered(&mut self.lookups, broker, ticket) else {
            return;
        };
        let asked = self.land(asked);
        match answer {
            Ok(answers) => {
                for one in answers {
                    if asked.binary_search(&one.partition).is_ok() {
                        self.found(now, broker, &one);
                    }
                }
            }
            Err(_) => self.unanswered(now, &asked),
        }
    }

    /// The partitions of a request that still are what they were when it went out.
    fn land(&mut self, request: InFlight) -> Vec<TopicPartition> {
        let mut current = Vec::with_capacity(request.partitions.len());
        for (partition, incarnation) in request.partitions {
            let state = self.partitions.get_mut(&partition);
            if let Some(state) = state.filter(|state| state.incarnation == incarnation) {
                state.in_flight = false;
                current.push(partition);
            }
        }
        current.sort_unstable();
        current
    }

    fn unanswered(&mut self, now: Instant, asked: &[TopicPartition]) {
        // One pause for all: they were asked together and are asked together again.
        let failures = |partition| self.partitions.get(partition).map_or(0, |s| s.failures);
        let failures = asked.iter().map(failures).max().unwrap_or(0);
        let pause = self.backoff.pause(failures);
        for partition in asked {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.back_off(now, pause);
            }
        }
        self.events.push_back(Event::ViewStale);
    }

    fn fetched(&mut self, now: Instant, broker: BrokerId, mut answer: FetchedPartition) {
        let partition = answer.partition.clone();
        if let Some(hint) = answer.leader_hint.take() {
            self.events
                .push_back(Event::Leader(partition.clone(), hint));
        }
        let number = self.next_number();
        let Some(state) = self.partitions.get_mut(&partition) else {
            return;
        };
        let Phase::AwaitingRecords(offset) = state.phase else {
            return;
        };
        match fetch_verdict(answer.code) {
            FetchVerdict::Take => {
                if let Some(to) = answer.diverges_at.filter(|to| *to < offset) {
                    self.truncated(&partition, offset, to);
                    return;
                }
                // Bytes may turn out to be damaged: whoever comes to their end reports success.
                if answer.records.is_empty() {
                    state.recovered();
                }
                state.served = number;
                self.take_records(now, &partition, offset, answer);
            }
            FetchVerdict::Reset => self.out_of_range(now, &partition, offset),
            verdict => self.refused(now, &partition, broker, ("Fetch", answer.code), verdict),
        }
    }

    fn take_records(
        &mut self,
        now: Instant,
        partition: &TopicPartition,
        offset: i64,
        answer: FetchedPartition,
    ) {
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        if let Some(high_watermark) = answer.high_watermark {
            state.progress.note_high_watermark(high_watermark);
        }
        if answer.records.is_empty() {
            return;
        }
        let scan = scan(&answer.records, offset);
        if scan.next_offset <= offset && !scan.is_damaged {
            let length = answer.records.len();
            let message = format!("{length} bytes hold no whole batch from offset {offset} on");
            let error = Error::new(ErrorKind::Corrupt, message);
            self.stuck(now, partition, error.at_partition(partition.clone()));
            return;
        }
        state.phase = Phase::AwaitingRecords(scan.next_offset);
        state.damaged = scan.is_damaged;
        state.last_fetched_epoch = scan.leader_epoch.or(state.last_fetched_epoch);
        let mut cursor = Cursor::new(
            Arc::clone(&state.progress),
            state.incarnation,
            answer.records,
            (offset, scan.next_offset),
            answer.aborted,
            &self.config,
        );
        if state.paused {
            cursor.detach();
            state.parked.push_back(cursor);
            return;
        }
        state.queued_bytes += cursor.held_bytes();
        self.ready.push_back(Waiting {
            partition: partition.clone(),
            ready: Ready::Records(cursor),
        });
    }

    /// The log lost what we have read: whoever leads now did not have it.
    fn truncated(&mut self, partition: &TopicPartition, from: i64, to: i64) {
        if self.config.reset == OffsetReset::None {
            let message =
                format!("the log was truncated to offset {to}, below the position {from}");
            let error = Error::new(ErrorKind::State, message).at_partition(partition.clone());
            self.lost_place(partition, error);
            return;
        }
        self.begin(partition, Start::Offset(to, None));
        self.events.push_back(Event::Truncated {
            partition: partition.clone(),
            from,
            to,
        });
    }

    fn out_of_range(&mut self, now: Instant, partition: &TopicPartition, offset: i64) {
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        if !state.is_drained() {
            // What was fetched is good; the user shall have it before the position moves.
            let pause = self.backoff.pause(state.failures);
            state.back_off(now, pause);
            return;
        }
        if self.config.reset == OffsetReset::None {
            let message = format!("offset {offset} is out of range and auto.offset.reset is none");
            let code = ErrorKind::Broker(Code::OFFSET_OUT_OF_RANGE);
            self.lost_place(
                partition,
                Error::new(code, message).at_partition(partition.clone()),
            );
            return;
        }
        self.begin(partition, Start::Policy);
        self.events.push_back(Event::OutOfRange {
            partition: partition.clone(),
            offset,
        });
    }

    /// Without a policy only the user can say where to go on.
    fn lost_place(&mut self, partition: &TopicPartition, error: Error) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.phase = Phase::AwaitingSeek;
            state.lost = Some(error);
        }
    }

    fn stuck(&mut self, now: Instant, partition: &TopicPartition, error: Error) {
        if let Some(state) = self.partitions.get_mut(partition)
            && !state.is_drained()
        {
            let pause = self.backoff.pause(state.failures);
            state.back_off(now, pause);
            return;
        }
        self.fault(partition, error);
    }

    fn refused(
        &mut self,
        now: Instant,
        partition: &TopicPartition,
        broker: BrokerId,
        (api, code): (&str, Code),
        verdict: FetchVerdict,
    ) {
        if verdict == FetchVerdict::Fail {
            let error = Error::broker(code, api).at_broker(broker);
            self.fault(partition, error.at_partition(partition.clone()));
            return;
        }
        if let Some(state) = self.partitions.get_mut(partition) {
            let pause = self.backoff.pause(state.failures);
            state.back_off(now, pause);
        }
        if verdict == FetchVerdict::Refresh {
            self.events.push_back(Event::ViewStale);
        }
    }

    fn found(&mut self, now: Instant, broker: BrokerId, answer: &Found) {
        let partition = &answer.partition;
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        let Phase::AwaitingOffset(point) = state.phase else {
            return;
        };
        match (fetch_verdict(answer.code), answer.offset) {
            (FetchVerdict::Take, Some(offset)) => {
                state.recovered();
                state.phase = Phase::AwaitingRecords(offset);
                state.progress.place(offset, answer.leader_epoch);
            }
            // No record is that young: whatever comes next is.
            (FetchVerdict::Take, None) if matches!(point, super::Point::At(_)) => {
                state.phase = Phase::AwaitingOffset(super::Point::Latest);
            }
            (FetchVerdict::Take | FetchVerdict::Reset, _) => {
                let pause = self.backoff.pause(state.failures);
                state.back_off(now, pause);
            }
            (verdict, _) => {
                self.refused(
                    now,
                    partition,
                    broker,
                    ("ListOffsets", answer.code),
                    verdict,
                );
            }
        }
    }
}

fn answered(
    requests: &mut BTreeMap<BrokerId, InFlight>,
    broker: BrokerId,
    ticket: Ticket,
) -> Option<InFlight> {
    if requests.get(&broker)?.ticket != ticket {
        return None;
    }
    requests.remove(&broker)
}

impl PartitionState {
    /// Whether the next bytes to ask for lie behind damaged ones that the user has not come to.
    pub(super) fn is_at_damage(&self) -> bool {
        self.damaged && !self.is_drained()
    }
}
