//! Produce: read by hand, so that a batch is stored in the bytes in which it arrived.

use super::transactions::for_writer;
use super::{Context, Outcome};
use crate::batch::{self, Head, Refusal};
use crate::faults::Action;
use crate::frame::{Input, Malformed};
use crate::log::{AppendAs, Appended};
use crate::partition::{Partition, PartitionState};
use crate::records;
use crate::state::Topic;
use crate::transactions::{Identity, Inner, Place, Protocol, moment};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_proto::Code;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The first version that names the records at fault (KIP-467).
const RECORD_ERRORS_SINCE: i16 = 8;
/// The first version that names topics by id.
const BY_ID_SINCE: i16 = 13;
/// The first version that adds its partitions to the transaction by itself (KIP-890).
const ADDS_SINCE: i16 = 12;
/// The first version that knows `TRANSACTION_ABORTABLE`.
const ABORTABLE_SINCE: i16 = 11;
/// The first version whose answer says who leads instead (KIP-951).
const LEADER_HINT_SINCE: i16 = 10;

struct Request {
    transactional_id: Option<String>,
    acks: i16,
    timeout: Duration,
    topics: Vec<TopicData>,
}

/// What a request says of all its batches.
#[derive(Debug, Clone, Copy)]
struct Terms<'a> {
    acks: i16,
    transactional_id: Option<&'a str>,
}

struct TopicData {
    name: String,
    id: [u8; 16],
    partitions: Vec<(i32, BytesMut)>,
}

fn parse(ctx: &Context<'_>, body: BytesMut) -> Result<Request, Malformed> {
    let frame_bytes = body.len();
    let mut input = Input::new(body, ctx.flexible());
    let transactional_id = match ctx.version {
        3.. => input.string()?,
        _ => None,
    };
    let acks = input.i16()?;
    let timeout = u64::try_from(input.i32()?).unwrap_or(0);
    let mut topics = Vec::new();
    for _ in 0..input.count(2)? {
        let mut topic = TopicData {
            name: String::new(),
            id: [0; 16],
            partitions: Vec::new(),
        };
        if ctx.version >= BY_ID_SINCE {
            topic.id.copy_from_slice(&input.take(16)?);
        } else {
            topic.name = input.string()?.ok_or(Malformed)?;
        }
        for _ in 0..input.count(5)? {
            let index = input.i32()?;
            let records = input.bytes()?.unwrap_or_default();
            input.skip_tags()?;
            topic
                .partitions
                .push((index, detached(records, frame_bytes)));
        }
        input.skip_tags()?;
        topics.push(topic);
    }
    Ok(Request {
        transactional_id,
        acks,
        timeout: Duration::from_millis(timeout),
        topics,
    })
}

/// A stored batch keeps the whole frame in memory that it arrived in. One that is the better part
/// of its frame stays there; a smaller one is copied out, or a few bytes on a partition that keeps
/// them for long would hold megabytes of its neighbours.
fn detached(records: BytesMut, frame_bytes: usize) -> BytesMut {
    if records.len() > frame_bytes / 2 {
        records
    } else {
        BytesMut::from(&records[..])
    }
}

/// What one partition is answered with.
struct Answer {
    index: i32,
    code: Code,
    reason: Option<&'static str>,
    /// The records found wrong (KIP-467).
    wrong: Vec<u32>,
    appended: Appended,
    log_start: i64,
    leader: Option<(i32, i32)>,
    /// The partition, the offset that must be replicated, and the epoch that appended.
    wait: Option<(Arc<Partition>, i64, i32)>,
}

struct TopicAnswer {
    name: String,
    id: [u8; 16],
    partitions: Vec<Answer>,
}

pub(super) async fn handle(ctx: &Context<'_>, body: BytesMut) -> Result<Outcome, Malformed> {
    let request = parse(ctx, body)?;
    let mut answers: Vec<TopicAnswer> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let terms = Terms {
            acks: request.acks,
            transactional_id: request.transactional_id.as_deref(),
        };
        answers.push(append_topic(ctx, topic, terms));
    }
    // A leader that is to fail after the append does not wait for its followers.
    each(&mut answers, |answer| {
        if let Some(Action::ApplyThenError(code)) = ctx.fault_of(answer.index) {
            answer.code = code;
            answer.wait = None;
        }
    });
    if request.acks == -1 {
        wait_until_replicated(ctx, &mut answers, request.timeout).await;
    }
    if request.acks == 0 {
        let mut all = answers.iter().flat_map(|topic| &topic.partitions);
        let failed = all.any(|answer| answer.code != Code::NONE);
        // The client waits for no answer, so only the end of the connection can tell it.
        return Ok(if failed {
            Outcome::Close
        } else {
            Outcome::NoReply
        });
    }
    if ctx.version < 3 {
        return Ok(reply_by_hand(ctx, &answers));
    }
    ctx.reply(&response(ctx, answers))
}

fn each(answers: &mut [TopicAnswer], change: impl FnMut(&mut Answer)) {
    answers
        .iter_mut()
        .flat_map(|topic| topic.partitions.iter_mut())
        .for_each(change);
}

fn append_topic(ctx: &Context<'_>, data: TopicData, terms: Terms<'_>) -> TopicAnswer {
    let shared = ctx.shared();
    let (topic, missing) = if ctx.version >= BY_ID_SINCE {
        (shared.topic_by_id(data.id), Code::UNKNOWN_TOPIC_ID)
    } else {
        (shared.topic(&data.name), Code::UNKNOWN_TOPIC_OR_PARTITION)
    };
    let partitions = data.partitions.into_iter().map(|(index, records)| {
        let mut answer = Answer {
            index,
            code: Code::NONE,
            reason: None,
            wrong: Vec::new(),
            appended: Appended {
                base_offset: -1,
                last_offset: -1,
                append_time: -1,
            },
            log_start: -1,
            leader: None,
            wait: None,
        };
        let forced = match ctx.fault_of(index) {
            Some(Action::Error(code)) => Some(code),
            Some(Action::NameLeader(node, epoch)) => {
                answer.leader = Some((node, epoch));
                Some(Code::NOT_LEADER_OR_FOLLOWER)
            }
            _ => None,
        };
        let done = match (&topic, forced) {
            (_, Some(code)) => Err((code, "a fault was ordered")),
            (Some(topic), None) => append(ctx, topic, &mut answer, records, terms),
            (None, None) => Err((missing, "the topic does not exist")),
        };
        if let Err((code, reason)) = done {
            answer.code = code;
            answer.reason = Some(reason);
        }
        tracing::trace!(
            node = ctx.node(),
            partition = index,
            code = %answer.code,
            base_offset = answer.appended.base_offset,
            "produced"
        );
        answer
    });
    TopicAnswer {
        partitions: partitions.collect(),
        name: data.name,
        id: data.id,
    }
}

fn append(
    ctx: &Context<'_>,
    topic: &Topic,
    answer: &mut Answer,
    records: BytesMut,
    terms: Terms<'_>,
) -> Result<(), Refusal> {
    if !(-1..=1).contains(&terms.acks) {
        return Err((Code::INVALID_REQUIRED_ACKS, "acks must be -1, 0 or 1"));
    }
    let settings = &ctx.shared().settings;
    let config = topic.config.read().clone();
    let missing = (
        Code::UNKNOWN_TOPIC_OR_PARTITION,
        "the partition does not exist",
    );
    let partition = topic.partition(answer.index).ok_or(missing)?;
    // Asked before the batch is looked at, as Kafka does, and again under the lock that appends.
    check_leader(ctx, &partition.lock(), answer)?;
    let head: Head = batch::check(&records, config.batch_bytes_max, ctx.version)?;
    if settings.validate_records {
        let reason = "the records do not fit the batch's header";
        records::validate(&records, settings.request_bytes_max)
            .map_err(|_| (Code::INVALID_RECORD, reason))?;
    }
    if config.compacted {
        let keyless = records::keyless(&records, settings.request_bytes_max);
        answer.wrong = keyless.unwrap_or_default();
        if !answer.wrong.is_empty() {
            return Err((
                Code::INVALID_RECORD,
                "a compacted topic takes no record without a key",
            ));
        }
    }
    let shares = topic.partition_count().max(1);
    let cap = settings.topic_bytes_max / shares;
    // Locked until the batch is appended: its transaction must not end meanwhile.
    let mut transactions = head
        .is_transactional()
        .then(|| ctx.shared().transactions.lock());
    let mut state = partition.lock();
    check_leader(ctx, &state, answer)?;
    if terms.acks == -1 && state.in_sync.len() < config.min_insync_replicas {
        return Err((Code::NOT_ENOUGH_REPLICAS, "too few replicas are in step"));
    }
    if let Some(transactions) = &mut transactions {
        let place = (topic.name.clone(), answer.index);
        admit(
            ctx,
            transactions,
            &state,
            &head,
            terms.transactional_id,
            place,
        )?;
    }
    let how = AppendAs {
        leader_epoch: state.leader_epoch,
        append_time: config.log_append_time.then(|| settings.clock.millis()),
        first_sequence: settings.first_sequence,
        retained_bytes_max: config.retention_bytes.map_or(cap, |bytes| bytes.min(cap)),
    };
    let lost = ctx.fault_of(answer.index) == Some(Action::AppendThenTruncate);
    let appended = if lost {
        state.append_and_lose(records, head, how)
    } else {
        state.append(records, head, how)
    };
    answer.log_start = state.log.start();
    let epoch = state.leader_epoch;
    answer.appended = appended.map_err(|code| (code, "the producer's state does not allow it"))?;
    if lost {
        answer.leader = state.leader.map(|leader| (leader, epoch));
        return Err((Code::NOT_LEADER_OR_FOLLOWER, "the leadership was lost"));
    }
    drop(state);
    answer.wait = Some((partition, answer.appended.last_offset + 1, epoch));
    Ok(())
}

/// Lets a batch into its transaction. One whose transaction is open in this log already needs
/// nothing, as in Kafka; else the coordinator is asked, and from version 12 on the partition is
/// added.
fn admit(
    ctx: &Context<'_>,
    transactions: &mut Inner,
    state: &PartitionState,
    head: &Head,
    id: Option<&str>,
    place: Place,
) -> Result<(), Refusal> {
    let id = id.ok_or((
        Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        "a transactional batch needs a transactional id",
    ))?;
    let who = Identity {
        producer_id: head.producer_id,
        epoch: head.producer_epoch,
    };
    if state.log.has_open(who.producer_id, who.epoch) {
        return Ok(());
    }
    let admitted = transactions.get(id).and_then(|transaction| {
        if ctx.version < ADDS_SINCE {
            return transaction.verify(who, |t| t.partitions.contains(&place));
        }
        let at = moment(ctx.shared());
        transaction.add_partitions(at, who, [place], Protocol::V2)
    });
    ctx.shared().transactions.begun();
    admitted.map_err(
        |code| match for_writer(code, ctx.version >= ABORTABLE_SINCE) {
            // Older clients would not try again, as they should.
            Code::CONCURRENT_TRANSACTIONS if ctx.version < ADDS_SINCE => (
                Code::NOT_ENOUGH_REPLICAS,
                "the producer's last transaction is being ended",
            ),
            Code::INVALID_TXN_STATE => (
                Code::INVALID_TXN_STATE,
                "the partition was not added to the transaction",
            ),
            code => (code, "the coordinator does not allow it"),
        },
    )
}

fn check_leader(
    ctx: &Context<'_>,
    state: &PartitionState,
    answer: &mut Answer,
) -> Result<(), Refusal> {
    state.led_by(ctx.node()).map_err(|code| {
        answer.leader = state.leader.map(|leader| (leader, state.leader_epoch));
        (code, "another node leads the partition")
    })
}

/// Waits until every appended batch is replicated, its partition has another leader, or the
/// request's timeout has passed: the whole answer waits for its slowest partition.
async fn wait_until_replicated(ctx: &Context<'_>, answers: &mut [TopicAnswer], timeout: Duration) {
    let deadline = Instant::now() + timeout;
    loop {
        let mut waiting = false;
        each(answers, |answer| waiting |= still_waits(ctx, answer));
        if !waiting {
            return;
        }
        let woken = tokio::time::timeout_at(deadline, ctx.connection.wake.notified());
        if woken.await.is_err() {
            each(answers, |answer| {
                if answer.wait.take().is_some() {
                    answer.code = Code::REQUEST_TIMED_OUT;
                    answer.reason = Some("the followers did not copy the batch in time");
                }
            });
            return;
        }
    }
}

fn still_waits(ctx: &Context<'_>, answer: &mut Answer) -> bool {
    let Some((partition, end, epoch)) = &answer.wait else {
        return false;
    };
    let mut state = partition.lock();
    // The leader that appended may be leader again in a later epoch, with the batch lost.
    let moved = state.leader_epoch != *epoch;
    match state.led_by(ctx.node()) {
        Ok(()) if !moved && state.high_watermark < *end => {
            state.notify_later(&ctx.connection.wake);
            return true;
        }
        Ok(()) if !moved => {}
        Err(code) if code != Code::NOT_LEADER_OR_FOLLOWER => answer.code = code,
        _ => {
            answer.code = Code::NOT_LEADER_OR_FOLLOWER;
            answer.leader = state.leader.map(|leader| (leader, state.leader_epoch));
        }
    }
    drop(state);
    answer.wait = None;
    false
}

fn response(ctx: &Context<'_>, answers: Vec<TopicAnswer>) -> ProduceResponse {
    let mut leaders = BTreeSet::new();
    let topics = answers.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|answer| {
            let hint = answer.leader.filter(|_| ctx.version >= LEADER_HINT_SINCE);
            leaders.extend(hint.map(|(leader, _)| leader));
            partition_response(ctx, answer, hint)
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_string(topic.name)))
            .with_topic_id(Uuid::from_bytes(topic.id))
            .with_partition_responses(partitions)
    });
    let topics = topics.collect();
    let nodes = leaders.iter().filter_map(|id| ctx.shared().node(*id));
    let endpoints = nodes.map(|node| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(node.id))
            .with_host(StrBytes::from_string(node.host.clone()))
            .with_port(i32::from(node.port))
    });
    ProduceResponse::default()
        .with_responses(topics)
        .with_node_endpoints(endpoints.collect())
        .with_throttle_time_ms(ctx.throttle_millis())
}

fn partition_response(
    ctx: &Context<'_>,
    answer: &Answer,
    hint: Option<(i32, i32)>,
) -> PartitionProduceResponse {
    let failed = answer.code != Code::NONE;
    let reason = answer.reason.filter(|_| failed && ctx.version >= 8);
    let mut response = PartitionProduceResponse::default()
        .with_index(answer.index)
        .with_error_code(answer.code.0)
        .with_base_offset(if failed {
            -1
        } else {
            answer.appended.base_offset
        })
        .with_log_append_time_ms(if failed {
            -1
        } else {
            answer.appended.append_time
        })
        .with_log_start_offset(if failed || ctx.version < 5 {
            -1
        } else {
            answer.log_start
        })
        .with_error_message(reason.map(StrBytes::from_static_str));
    if ctx.version >= RECORD_ERRORS_SINCE {
        let error = |place: &u32| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(place.cast_signed())
                .with_batch_index_error_message(Some(StrBytes::from_static_str(
                    "the record has no key",
                )))
        };
        response.record_errors = answer.wrong.iter().map(error).collect();
    }
    if let Some((leader, epoch)) = hint {
        response.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(epoch);
    }
    response
}

/// Versions 0 to 2, which the generated code does not know: always a refusal.
fn reply_by_hand(ctx: &Context<'_>, answers: &[TopicAnswer]) -> Outcome {
    let mut output = ctx.begin();
    output.length(Some(answers.len()));
    for topic in answers {
        output.string(&topic.name);
        output.length(Some(topic.partitions.len()));
        for answer in &topic.partitions {
            output.raw().put_i32(answer.index);
            output.raw().put_i16(answer.code.0);
            output.raw().put_i64(-1);
            if ctx.version >= 2 {
                output.raw().put_i64(-1);
            }
        }
    }
    if ctx.version >= 1 {
        output.raw().put_i32(0);
    }
    Outcome::Reply(output.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_batch_does_not_keep_its_frame() {
        let mut frame = BytesMut::with_capacity(1000);
        frame.resize(1000, 7);
        let small = frame.split_to(400);
        let small_at = small.as_ptr();
        let copied = detached(small, 1000);
        assert_eq!(copied.len(), 400);
        assert_ne!(copied.as_ptr(), small_at);
        let large_at = frame.as_ptr();
        assert_eq!(detached(frame, 1000).as_ptr(), large_at, "no copy");
    }
}
