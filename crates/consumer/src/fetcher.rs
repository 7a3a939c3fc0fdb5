//! The task that fetches ahead of the user.

use crate::shared::{Shared, now};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ottla_proto::fetch::{
    Aborted, Event, FetchRequest, FetchedPartition, Found, Isolation, OffsetsRequest, Point,
    Ticket, Transmit,
};
use ottla_proto::{BrokerId, Error, ErrorKind, Result, TopicPartition};
use ottla_wire::{Class, api};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A request that came back.
struct Done {
    broker: BrokerId,
    ticket: Ticket,
    /// The view's generation when it went out.
    generation: u64,
    answer: Answer,
}

enum Answer {
    Fetched(Result<Vec<FetchedPartition>>),
    Found(Result<Vec<Found>>),
}

/// Fetches until told to stop. At most one Fetch and one ListOffsets are in flight a broker.
pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut changes = shared.cluster.changes();
    let mut requests: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    look(&shared);
    loop {
        let wake_at = ask(&shared, &requests);
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            Some(done) = requests.next(), if !requests.is_empty() => take_in(&shared, done),
            Ok(()) = changes.changed() => look(&shared),
            () = shared.fetch.notified() => {}
            () = at(wake_at) => {}
        }
    }
}

/// Waits until a time, or for ever.
pub(crate) async fn at(time: Option<std::time::Instant>) {
    match time {
        Some(time) => sleep_until(Instant::from_std(time)).await,
        None => std::future::pending().await,
    }
}

/// Takes in the cluster's view.
fn look(shared: &Shared) {
    let view = shared.cluster.view();
    shared.fetcher.lock().handle_view(&view);
}

/// Sends what is to be sent; gives the time to look again.
fn ask(
    shared: &Arc<Shared>,
    requests: &FuturesUnordered<BoxFuture<'static, Done>>,
) -> Option<std::time::Instant> {
    let now = now();
    let mut fetcher = shared.fetcher.lock();
    while let Some(transmit) = fetcher.poll_transmit(now) {
        requests.push(Box::pin(send(Arc::clone(shared), transmit)));
    }
    let wake_at = fetcher.poll_timeout();
    let has_ready = fetcher.has_ready();
    drop(fetcher);
    if has_ready {
        shared.user.notify_one();
    }
    wake_at
}

async fn send(shared: Arc<Shared>, transmit: Transmit) -> Done {
    let generation = shared.cluster.view_guard().generation;
    let (broker, ticket, answer) = match transmit {
        Transmit::Fetch(ticket, request) => {
            let answer = fetch(&shared, &request).await;
            (request.broker, ticket, Answer::Fetched(answer))
        }
        Transmit::Offsets(ticket, request) => {
            let answer = look_up(&shared, &request).await;
            (request.broker, ticket, Answer::Found(answer))
        }
    };
    Done {
        broker,
        ticket,
        generation,
        answer,
    }
}

fn take_in(shared: &Shared, done: Done) {
    let now = now();
    let mut fetcher = shared.fetcher.lock();
    match done.answer {
        Answer::Fetched(answer) => {
            note(shared, done.broker, "Fetch", answer.as_ref().err());
            fetcher.handle_fetch(now, done.broker, done.ticket, answer);
        }
        Answer::Found(answer) => {
            note(shared, done.broker, "ListOffsets", answer.as_ref().err());
            fetcher.handle_offsets(now, done.broker, done.ticket, answer);
        }
    }
    let mut events = Vec::new();
    while let Some(event) = fetcher.poll_event() {
        events.push(event);
    }
    drop(fetcher);
    for event in events {
        pass_on(shared, done.generation, event);
    }
}

/// A failed request is tried again. The user hears of it only where that alone will hardly help.
fn note(shared: &Shared, broker: BrokerId, api: &str, error: Option<&Error>) {
    let Some(error) = error else { return };
    tracing::debug!(%broker, api, %error, "a request failed and is tried again");
    match error.kind() {
        ErrorKind::Closed => shared.tell(|desk| {
            if !std::mem::replace(&mut desk.ended, true) {
                desk.errors.push_back(error.clone());
            }
        }),
        ErrorKind::Protocol | ErrorKind::UnsupportedVersion | ErrorKind::Config => {
            shared.tell_error(error.clone());
        }
        _ => {}
    }
}

fn pass_on(shared: &Shared, generation: u64, event: Event) {
    match event {
        Event::ViewStale => shared.cluster.mark_stale(generation),
        Event::Leader(partition, hint) => shared.cluster.apply_leader(&partition, None, hint),
        Event::OutOfRange { partition, offset } => {
            tracing::warn!(%partition, offset, "the offset is out of range; it is reset");
        }
        Event::Truncated {
            partition,
            from,
            to,
        } => {
            tracing::warn!(%partition, from, to, "the log was truncated; the position went back");
        }
        Event::Recreated(partition) => {
            tracing::warn!(%partition, "the topic was made anew; it is read as the policy says");
        }
    }
}

async fn fetch(shared: &Shared, request: &FetchRequest) -> Result<Vec<FetchedPartition>> {
    let connection = shared
        .cluster
        .connection(request.broker, shared.lanes.fetch)
        .await?;
    let answer = api::fetch::call(&connection, &fetch_body(shared, request)).await?;
    if let Some(code) = answer.error {
        return Err(Error::broker(code, "Fetch").at_broker(request.broker));
    }
    shared.cluster.learn_brokers(&answer.endpoints);
    let mut fetched = Vec::new();
    for topic in answer.topics {
        // The adapter gives topics asked for by id their names; one that was not asked for has none.
        let Some(name) = topic.topic else { continue };
        for partition in topic.partitions {
            let aborted = partition.aborted.iter().map(|one| Aborted {
                producer_id: one.producer_id,
                first_offset: one.first_offset,
            });
            fetched.push(FetchedPartition {
                partition: TopicPartition::new(Arc::clone(&name), partition.partition),
                code: partition.code,
                high_watermark: partition.high_watermark,
                aborted: aborted.collect(),
                diverges_at: partition.diverging.map(|one| one.end_offset),
                leader_hint: partition.leader_hint,
                records: partition.records,
            });
        }
    }
    Ok(fetched)
}

fn fetch_body(shared: &Shared, request: &FetchRequest) -> api::fetch::Request {
    let config = &shared.config;
    let partition_max_bytes = limit(request.partition_max_bytes);
    let same_topic = |a: &ottla_proto::fetch::FetchQuery, b: &ottla_proto::fetch::FetchQuery| {
        a.partition.topic == b.partition.topic
    };
    let topics = request
        .partitions
        .chunk_by(same_topic)
        .filter_map(|of_one| {
            let first = of_one.first()?;
            let partitions = of_one.iter().map(|query| api::fetch::PartitionRequest {
                partition: query.partition.partition,
                leader_epoch: query.leader_epoch,
                offset: query.offset,
                last_fetched_epoch: query.last_fetched_epoch,
                max_bytes: partition_max_bytes,
            });
            Some(api::fetch::TopicRequest {
                topic: Arc::clone(&first.partition.topic),
                topic_id: first.topic_id,
                partitions: partitions.collect(),
            })
        });
    api::fetch::Request {
        max_wait: config.fetch_max_wait,
        min_bytes: limit(config.fetch_min_bytes),
        max_bytes: limit(request.max_bytes),
        isolation: isolation(config.isolation),
        session: api::fetch::Session::NONE,
        topics: topics.collect(),
        forgotten: Vec::new(),
        // A rack would have the broker send us to a follower, which we do not read from yet.
        rack: None,
    }
}

async fn look_up(shared: &Shared, request: &OffsetsRequest) -> Result<Vec<Found>> {
    let connection = shared
        .cluster
        .connection(request.broker, Class::Control)
        .await?;
    let mut topics: Vec<(Arc<str>, Vec<api::list_offsets::PartitionRequest>)> = Vec::new();
    for query in &request.partitions {
        let one = api::list_offsets::PartitionRequest {
            partition: query.partition.partition,
            leader_epoch: query.leader_epoch,
            timestamp: timestamp(query.point),
        };
        match topics.last_mut() {
            Some((topic, partitions)) if *topic == query.partition.topic => partitions.push(one),
            _ => topics.push((Arc::clone(&query.partition.topic), vec![one])),
        }
    }
    let body = api::list_offsets::Request {
        isolation: isolation(shared.config.isolation),
        topics,
    };
    let answer = api::list_offsets::call(&connection, &body).await?;
    let mut found = Vec::new();
    for (topic, partitions) in answer.topics {
        found.extend(partitions.into_iter().map(|one| Found {
            partition: TopicPartition::new(Arc::clone(&topic), one.partition),
            code: one.code,
            offset: one.offset,
            leader_epoch: one.leader_epoch,
        }));
    }
    Ok(found)
}

fn timestamp(point: Point) -> api::list_offsets::Timestamp {
    use api::list_offsets::Timestamp;
    match point {
        Point::Earliest => Timestamp::Earliest,
        Point::Latest => Timestamp::Latest,
        Point::At(time) => Timestamp::At(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
    }
}

fn isolation(isolation: Isolation) -> api::list_offsets::Isolation {
    match isolation {
        Isolation::ReadUncommitted => api::list_offsets::Isolation::ReadUncommitted,
        Isolation::ReadCommitted => api::list_offsets::Isolation::ReadCommitted,
    }
}

fn limit(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
