//! Fetch: long polling, limits, sessions. The answer is written by hand around the stored bytes.

use super::list_offsets::READ_COMMITTED;
use super::{Context, Outcome};
use crate::faults::Action;
use crate::fetch_session::{SessionError, Told, TopicKey, Wanted};
use crate::frame::{Malformed, Output};
use crate::partition::Partition;
use crate::transaction_index::Aborted;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchRequest;
use ottla_proto::Code;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Kafka's `fetch.max.bytes` of a broker: no answer is larger, whatever a client asks for.
const ANSWER_BYTES_MAX: usize = 55 * 1024 * 1024;
/// The first version that names topics by id.
const BY_ID_SINCE: i16 = 13;
/// The first version whose answer can say where a leader lives (KIP-951).
const ENDPOINTS_SINCE: i16 = 16;

/// One partition's part of an answer.
#[derive(Debug)]
struct Part {
    topic: TopicKey,
    index: i32,
    code: Code,
    high_watermark: i64,
    last_stable: i64,
    /// `None` for a consumer that reads everything.
    aborted: Option<Vec<Aborted>>,
    log_start: i64,
    chunks: Vec<Bytes>,
    size_bytes: usize,
    /// The epoch and its end where the client's log parts from this one.
    diverging: Option<(i32, i64)>,
    leader: Option<(i32, i32)>,
}

impl Part {
    fn told(&self) -> Told {
        let marks = (self.high_watermark, self.log_start);
        if self.code != Code::NONE || self.diverging.is_some() {
            Told::Error
        } else if self.size_bytes > 0 {
            Told::Records(marks)
        } else {
            Told::Nothing(marks)
        }
    }
}

/// What the request's session has to say.
enum Session {
    /// Every partition is answered; the id is 0 where there is no session.
    Full { id: i32 },
    /// Only what changed is answered.
    Incremental { id: i32 },
}

pub(super) async fn handle(ctx: &Context<'_>, body: BytesMut) -> Result<Outcome, Malformed> {
    let request: FetchRequest = ctx.decode(body)?;
    let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let committed = request.isolation_level == READ_COMMITTED;
    let (session, wanted) = match join_session(ctx, &request) {
        Ok(joined) => joined,
        Err(code) => return Ok(write(ctx, code, 0, &[])),
    };
    let mut parts;
    loop {
        parts = read_all(ctx, &wanted, committed, bytes_max.min(ANSWER_BYTES_MAX));
        let size: usize = parts.iter().map(|part| part.size_bytes).sum();
        let at_once = parts.iter().any(|part| part.told() == Told::Error);
        if size >= bytes_min || at_once || wanted.is_empty() || Instant::now() >= deadline {
            break;
        }
        let woken = tokio::time::timeout_at(deadline, ctx.connection.wake.notified());
        if woken.await.is_err() {
            parts = read_all(ctx, &wanted, committed, bytes_max.min(ANSWER_BYTES_MAX));
            break;
        }
    }
    if ctx.fault == Some(Action::CorruptRecords) {
        corrupt(&mut parts);
    }
    let id = match session {
        Session::Full { id } => {
            retain_news(ctx, id, &mut parts, false);
            id
        }
        Session::Incremental { id } => {
            retain_news(ctx, id, &mut parts, true);
            id
        }
    };
    Ok(write(ctx, Code::NONE, id, &parts))
}

fn retain_news(ctx: &Context<'_>, id: i32, parts: &mut Vec<Part>, only_news: bool) {
    if id == 0 {
        return;
    }
    let mut sessions = ctx.shared().fetch_sessions.lock();
    parts.retain(|part| {
        let key = (part.topic.clone(), part.index);
        sessions.tell(id, &key, part.told()) || !only_news
    });
}

fn topic_key(ctx: &Context<'_>, name: &str, id: [u8; 16]) -> TopicKey {
    if ctx.version >= BY_ID_SINCE {
        TopicKey::Id(id)
    } else {
        TopicKey::Name(name.into())
    }
}

/// Works out what is to be fetched: what the request names, or what its session holds.
fn join_session(ctx: &Context<'_>, request: &FetchRequest) -> Result<(Session, Vec<Wanted>), Code> {
    if let Some(code @ (Code(70) | Code(71) | Code(106))) = ctx.forced() {
        return Err(code);
    }
    let mut named = Vec::new();
    for topic in &request.topics {
        let key = topic_key(ctx, &topic.topic, topic.topic_id.into_bytes());
        named.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: key.clone(),
            index: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
            leader_epoch: partition.current_leader_epoch,
            last_epoch: partition.last_fetched_epoch,
        }));
    }
    let mut sessions = ctx.shared().fetch_sessions.lock();
    let (id, epoch) = (request.session_id, request.session_epoch);
    if epoch <= 0 {
        sessions.end(id);
        let id = match epoch {
            0 if ctx.version >= 7 => sessions.begin(ctx.node(), named.clone()),
            _ => 0,
        };
        return Ok((Session::Full { id }, named));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(ctx, &topic.topic, topic.topic_id.into_bytes());
        forgotten.extend(topic.partitions.iter().map(|p| (key.clone(), *p)));
    }
    let all = sessions.go_on(ctx.node(), id, epoch, named, &forgotten);
    let all = all.map_err(|error| match error {
        SessionError::Unknown => Code::FETCH_SESSION_ID_NOT_FOUND,
        SessionError::WrongEpoch => Code::INVALID_FETCH_SESSION_EPOCH,
        SessionError::WrongTopicKind => Code::FETCH_SESSION_TOPIC_ID_ERROR,
    })?;
    Ok((Session::Incremental { id }, all))
}

/// Reads every wanted partition, in order, within the answer's limit; each is asked to notify this
/// connection of its next change.
fn read_all(ctx: &Context<'_>, wanted: &[Wanted], committed: bool, bytes_max: usize) -> Vec<Part> {
    let mut left = bytes_max;
    let mut first = true;
    let mut parts = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let part = read_one(ctx, wanted, committed, left, first);
        left = left.saturating_sub(part.size_bytes);
        first &= part.size_bytes == 0;
        parts.push(part);
    }
    parts
}

fn read_one(ctx: &Context<'_>, wanted: &Wanted, committed: bool, left: usize, first: bool) -> Part {
    let mut part = Part {
        topic: wanted.topic.clone(),
        index: wanted.index,
        code: Code::NONE,
        high_watermark: -1,
        last_stable: -1,
        aborted: committed.then(Vec::new),
        log_start: -1,
        chunks: Vec::new(),
        size_bytes: 0,
        diverging: None,
        leader: None,
    };
    let read = find(ctx, wanted)
        .and_then(|partition| read_partition(ctx, &partition, wanted, &mut part, left, first));
    if let Err(code) = read {
        part.code = code;
    }
    part
}

fn find(ctx: &Context<'_>, wanted: &Wanted) -> Result<Arc<Partition>, Code> {
    if let Some(code) = ctx.forced() {
        return Err(code);
    }
    let shared = ctx.shared();
    let topic = match &wanted.topic {
        TopicKey::Name(name) => shared.topic(name).ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?,
        TopicKey::Id(id) => shared.topic_by_id(*id).ok_or(Code::UNKNOWN_TOPIC_ID)?,
    };
    let partition = topic.partition(wanted.index);
    partition.ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)
}

fn read_partition(
    ctx: &Context<'_>,
    partition: &Partition,
    wanted: &Wanted,
    part: &mut Part,
    left: usize,
    first: bool,
) -> Result<(), Code> {
    let mut state = partition.lock();
    state.notify_later(&ctx.connection.wake);
    let led = state
        .led_by(ctx.node())
        .and_then(|()| state.check_epoch(wanted.leader_epoch));
    if led.is_err() {
        part.leader = state.leader.map(|leader| (leader, state.leader_epoch));
        return led;
    }
    part.high_watermark = state.high_watermark;
    part.last_stable = state.last_stable();
    part.log_start = state.log.start();
    if ctx.version >= 12 && wanted.last_epoch >= 0 {
        let (epoch, end) = state
            .log
            .end_of_epoch(wanted.last_epoch)
            .unwrap_or((-1, -1));
        if epoch < wanted.last_epoch || end < wanted.offset {
            part.diverging = Some((epoch, end));
            return Ok(());
        }
    }
    if wanted.offset < state.log.start() || wanted.offset > state.log.end() {
        part.high_watermark = -1;
        part.last_stable = -1;
        part.log_start = -1;
        return Err(Code::OFFSET_OUT_OF_RANGE);
    }
    let limit = wanted.bytes_max.min(left);
    let end = match part.aborted {
        Some(_) => part.last_stable,
        None => part.high_watermark,
    };
    let read = state.log.read(wanted.offset, end, limit, first);
    if let Some(aborted) = &mut part.aborted {
        *aborted = state.log.aborted_between(wanted.offset, read.end);
    }
    part.size_bytes = read.size_bytes;
    part.chunks = read.chunks;
    Ok(())
}

/// Changes the last byte of the first batch, in a copy.
fn corrupt(parts: &mut [Part]) {
    let chunk = parts.iter_mut().find_map(|part| part.chunks.first_mut());
    if let Some(chunk) = chunk {
        let mut copy = chunk.to_vec();
        if let Some(byte) = copy.last_mut() {
            *byte ^= 0xff;
        }
        *chunk = Bytes::from(copy);
    }
}

fn write(ctx: &Context<'_>, code: Code, session: i32, parts: &[Part]) -> Outcome {
    let mut output = ctx.begin();
    output.raw().put_i32(0);
    if ctx.version >= 7 {
        output.raw().put_i16(code.0);
        output.raw().put_i32(session);
    }
    // Partitions keep their order, so a topic may stand more than once, as in Kafka's own answer.
    let topics: Vec<&[Part]> = parts.chunk_by(|a, b| a.topic == b.topic).collect();
    output.length(Some(topics.len()));
    for topic in topics {
        match topic.first().map(|part| &part.topic) {
            Some(TopicKey::Id(id)) => output.raw().put_slice(id),
            Some(TopicKey::Name(name)) => output.string(name),
            None => {}
        }
        output.length(Some(topic.len()));
        for part in topic {
            write_part(ctx, &mut output, part);
        }
        output.tags(0);
    }
    write_endpoints(ctx, &mut output, parts);
    Outcome::Reply(output.finish())
}

fn write_part(ctx: &Context<'_>, output: &mut Output, part: &Part) {
    let raw = output.raw();
    raw.put_i32(part.index);
    raw.put_i16(part.code.0);
    raw.put_i64(part.high_watermark);
    raw.put_i64(part.last_stable);
    if ctx.version >= 5 {
        raw.put_i64(part.log_start);
    }
    output.length(part.aborted.as_ref().map(Vec::len));
    for aborted in part.aborted.iter().flatten() {
        output.raw().put_i64(aborted.producer_id);
        output.raw().put_i64(aborted.first_offset);
        output.tags(0);
    }
    if ctx.version >= 11 {
        output.raw().put_i32(-1);
    }
    output.length(Some(part.size_bytes));
    for chunk in &part.chunks {
        output.borrow(chunk.clone());
    }
    let leader = part.leader.filter(|_| ctx.version >= 12);
    output.tags(u32::from(part.diverging.is_some()) + u32::from(leader.is_some()));
    if let Some((epoch, end)) = part.diverging {
        let mut content = epoch.to_be_bytes().to_vec();
        content.extend(end.to_be_bytes());
        content.push(0);
        output.tagged(0, &content);
    }
    if let Some((leader, epoch)) = leader {
        let mut content = leader.to_be_bytes().to_vec();
        content.extend(epoch.to_be_bytes());
        content.push(0);
        output.tagged(1, &content);
    }
}

/// Where the leaders live that the partitions name.
fn write_endpoints(ctx: &Context<'_>, output: &mut Output, parts: &[Part]) {
    let leaders: BTreeSet<i32> = match ctx.version {
        ENDPOINTS_SINCE.. => parts.iter().filter_map(|p| p.leader.map(|l| l.0)).collect(),
        _ => BTreeSet::new(),
    };
    let nodes: Vec<_> = leaders
        .iter()
        .filter_map(|id| ctx.shared().node(*id))
        .collect();
    if nodes.is_empty() {
        output.tags(0);
        return;
    }
    let mut content = Output::new(true);
    content.length(Some(nodes.len()));
    for node in nodes {
        content.raw().put_i32(node.id);
        content.string(&node.host);
        content.raw().put_i32(i32::from(node.port));
        content.length(None);
        content.tags(0);
    }
    output.tags(1);
    let content = content.raw().split();
    output.tagged(0, &content);
}
