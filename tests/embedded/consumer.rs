//! The consumer against the embedded cluster, in memory and under a paused clock.

mod groups;
mod weather;

use ottla::consumer::{Builder, Committed, Consumer, ConsumerRecord, OffsetReset, Start};
use ottla::{Client, Compression, ErrorKind, Producer, Record, TopicPartition};
use ottla_broker::{ApiKey, Cluster as Broker, Code};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

async fn broker(partitions: i32) -> Broker {
    let builder = Broker::builder()
        .nodes(3)
        .topic("t", partitions)
        .replication(3);
    builder.in_memory().seed(1).start().await.unwrap()
}

async fn client(broker: &Broker) -> Client {
    ottla_tests::client(broker).connect().await.unwrap()
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn write(producer: &Producer, partition: i32, values: impl IntoIterator<Item = u32>) {
    let mut deliveries = Vec::new();
    for value in values {
        let value = value.to_string();
        let record = Record::to("t").partition(partition).key("k").value(&value);
        let record = record.header("h", &value);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

fn value(record: &ConsumerRecord) -> u32 {
    let value = record.value.as_deref().unwrap();
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn earliest(client: &Client) -> Builder {
    client
        .consumer()
        .unwrap()
        .auto_offset_reset(OffsetReset::Earliest)
}

async fn next(consumer: &mut Consumer) -> ConsumerRecord {
    // No record in time, the consumer's end, an error: each fails the test.
    timeout(PATIENCE, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<u32> {
    let mut values = Vec::new();
    while values.len() < count {
        values.push(value(&next(consumer).await));
    }
    values
}

#[tokio::test(start_paused = true)]
async fn assigned_partitions_are_read_from_where_they_were_told_to_begin() {
    let broker = broker(3).await;
    let client = client(&broker).await;
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let producer = client.producer().compression(codec).build().unwrap();
        write(&producer, 0, 0..100).await;
        producer.close().await.unwrap();
    }
    let producer = client.producer().build().unwrap();
    write(&producer, 1, 0..10).await;
    let starts = [(tp(0), Start::Policy), (tp(1), Start::Offset(7, None))];
    let mut consumer = earliest(&client).assign(starts).build().await.unwrap();
    let mut seen: BTreeMap<i32, Vec<(i64, u32)>> = BTreeMap::new();
    for _ in 0..303 {
        let record = next(&mut consumer).await;
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        let headers: Vec<_> = record.headers().map(|h| (h.key_str(), h.value)).collect();
        assert_eq!(headers, [(Some("h"), record.value.as_deref())]);
        seen.entry(record.partition())
            .or_default()
            .push((record.offset, value(&record)));
    }
    let expected: Vec<(i64, u32)> = (0i64..).zip((0..100).chain(0..100).chain(0..100)).collect();
    assert_eq!(seen[&0], expected);
    assert_eq!(seen[&1], [(7, 7), (8, 8), (9, 9)]);
    assert_eq!(consumer.position(&tp(1)), Some(10));
    assert_eq!(consumer.lag(&tp(0)), Some(0));
    assert!(consumer.poll(10, SECOND).await.unwrap().is_empty());
    write(&producer, 1, [10]).await;
    assert_eq!(take(&mut consumer, 1).await, [10]);
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_member_commits_what_it_read_and_the_next_one_goes_on_there() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..10).await;
    let group = || earliest(&client).group("g").topics(["t"]);
    let mut first = group().build().await.unwrap();
    assert_eq!(take(&mut first, 4).await, [0, 1, 2, 3]);
    first.close().await.unwrap();
    assert_eq!(broker.committed("g", "t", 0), Some(4));
    assert_eq!(
        broker.member_count("g"),
        0,
        "a closed member stays in the group"
    );
    let mut second = group().build().await.unwrap();
    assert_eq!(take(&mut second, 6).await, [4, 5, 6, 7, 8, 9]);
    // So does one that is no member, and it commits for the group all the same.
    let starts = || [(tp(0), Start::Awaited)];
    let alone = earliest(&client).group("g2").assign(starts());
    let mut alone = alone.build().await.unwrap();
    assert_eq!(take(&mut alone, 2).await, [0, 1]);
    alone.close().await.unwrap();
    assert_eq!(broker.committed("g2", "t", 0), Some(2));
    let again = earliest(&client).group("g2").assign(starts());
    assert_eq!(take(&mut again.build().await.unwrap(), 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn an_automatic_commit_says_only_what_the_user_came_back_from() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..10).await;
    let mut consumer = earliest(&client)
        .group("g")
        .topics(["t"])
        .build()
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 3).await, [0, 1, 2]);
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(
        broker.committed("g", "t", 0),
        Some(2),
        "record 2 is still being worked on"
    );
    assert_eq!(take(&mut consumer, 1).await, [3]);
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(broker.committed("g", "t", 0), Some(3));
    consumer.commit().await.unwrap();
    assert_eq!(
        broker.committed("g", "t", 0),
        Some(4),
        "a commit asked for says all of it"
    );
}

#[tokio::test(start_paused = true)]
async fn commits_by_hand_are_found_again() {
    let broker = broker(2).await;
    let client = client(&broker).await;
    let group = || earliest(&client).group("g").topics(["t"]).auto_commit(None);
    let mut consumer = group().build().await.unwrap();
    while consumer.assignment().len() < 2 {
        consumer.poll(1, SECOND).await.unwrap();
    }
    let commit = Committed {
        metadata: Some("mine".into()),
        ..Committed::at(17)
    };
    let offsets = BTreeMap::from([(tp(0), commit.clone())]);
    consumer.commit_offsets(offsets).await.unwrap();
    let found = consumer.committed(&[tp(0), tp(1)]).await.unwrap();
    assert_eq!(
        found,
        BTreeMap::from([(tp(0), Some(commit)), (tp(1), None)])
    );
    let not_mine = BTreeMap::from([(tp(9), Committed::at(1))]);
    let error = consumer.commit_offsets(not_mine).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::State);
    assert_eq!(error.place().partition, Some(tp(9)));
}

#[tokio::test(start_paused = true)]
async fn leaders_that_move_and_nodes_that_stop_cost_no_record_and_repeat_none() {
    let broker = broker(3).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    let mut consumer = earliest(&client)
        .group("g")
        .topics(["t"])
        .build()
        .await
        .unwrap();
    let mut seen: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    for round in 0..9u32 {
        for partition in 0..3 {
            write(&producer, partition, round * 10..round * 10 + 10).await;
        }
        let node = i32::try_from(round % 3).unwrap();
        match round {
            0..3 => {
                let leader = broker.leader("t", node).unwrap();
                broker.move_leader("t", node, (leader + 1) % 3).unwrap();
            }
            3..6 => broker.stop_node(node).await.unwrap(),
            _ => {}
        }
        for _ in 0..30 {
            let record = next(&mut consumer).await;
            seen.entry(record.partition())
                .or_default()
                .push(value(&record));
        }
        if let 3..6 = round {
            broker.start_node(node).await.unwrap();
        }
    }
    for partition in 0..3 {
        assert_eq!(seen[&partition], (0..90).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn faults_of_every_request_delay_and_lose_nothing() {
    for api in [
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::FindCoordinator,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::OffsetFetch,
        ApiKey::OffsetCommit,
    ] {
        let broker = broker(2).await;
        let client = client(&broker).await;
        let producer = client.producer().build().unwrap();
        write(&producer, 0, 0..5).await;
        write(&producer, 1, 0..5).await;
        let faults = [
            broker.faults().on(api).disconnect_before_apply(),
            broker.faults().on(api).after(1).apply_then_lose_answer(),
            broker.faults().on(api).after(2).delay(40 * SECOND),
            broker.faults().on(api).after(3).cut_answer(9),
            broker
                .faults()
                .on(api)
                .after(4)
                .error(Code::UNKNOWN_SERVER_ERROR),
        ];
        let builder = earliest(&client).group("g").topics(["t"]);
        let mut consumer = builder.build().await.unwrap();
        let mut values = Vec::new();
        let began = Instant::now();
        while values.len() < 10 || began.elapsed() < 120 * SECOND {
            assert!(began.elapsed() < PATIENCE, "{api:?}: no record came");
            match consumer.poll(3, SECOND).await {
                Ok(records) => values.extend(records.iter().map(value)),
                Err(error) => assert!(!error.is_fatal(), "{api:?}: {error}"),
            }
        }
        values.sort_unstable();
        assert_eq!(values, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "{api:?}");
        assert!(
            faults.iter().any(|fault| fault.fired() > 0),
            "{api:?} was never struck"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_is_told_with_its_place_and_read_once_it_is_whole() {
    let broker = broker(2).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..5).await;
    broker.faults().on(ApiKey::Fetch).always().corrupt_records();
    let mut consumer = earliest(&client)
        .assign([(tp(0), Start::Policy)])
        .build()
        .await
        .unwrap();
    for told in 1..=3 {
        let began = Instant::now();
        let error = consumer.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Corrupt);
        assert_eq!(error.place().partition, Some(tp(0)));
        assert!(
            error.to_string().contains("offset 0 fails its checksum"),
            "{error}"
        );
        assert!(
            told == 1 || began.elapsed() >= Duration::from_millis(80),
            "it spins"
        );
        assert_eq!(consumer.position(&tp(0)), Some(0));
    }
    let fetches = broker.requests(ApiKey::Fetch);
    tokio::time::sleep(60 * SECOND).await;
    let fetches = broker.requests(ApiKey::Fetch) - fetches;
    // What waits behind the damage, twice a second.
    assert!(
        fetches <= 130,
        "{fetches} fetches in a minute for a user who does not come back"
    );
    broker.faults().clear();
    while timeout(PATIENCE, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .is_err()
    {}
    assert_eq!(take(&mut consumer, 4).await, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn paused_partitions_wait_and_sought_ones_jump() {
    let broker = broker(2).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..50).await;
    write(&producer, 1, 100..150).await;
    let starts = [(tp(0), Start::Policy), (tp(1), Start::Policy)];
    let mut consumer = earliest(&client).assign(starts).build().await.unwrap();
    let first = next(&mut consumer).await;
    let (paused, other) = (first.partition(), 1 - first.partition());
    consumer.pause([&tp(paused)]);
    assert_eq!(consumer.paused(), [tp(paused)]);
    for _ in 0..50 {
        assert_eq!(next(&mut consumer).await.partition(), other);
    }
    assert!(consumer.poll(1, SECOND).await.unwrap().is_empty());
    consumer.resume([&tp(paused)]);
    let resumed = next(&mut consumer).await;
    assert_eq!((resumed.partition(), resumed.offset), (paused, 1));
    consumer.seek(&tp(paused), Start::Offset(40, None)).unwrap();
    assert_eq!(next(&mut consumer).await.offset, 40);
    consumer.seek(&tp(other), Start::Offset(0, None)).unwrap();
    let rest = timeout(PATIENCE, async {
        let mut rest = Vec::new();
        while rest.len() < 59 {
            rest.extend(consumer.poll(7, SECOND).await.unwrap());
        }
        rest
    });
    assert_eq!(rest.await.unwrap().len(), 59);
}

#[tokio::test(start_paused = true)]
async fn bad_input_has_its_own_errors() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let refused = async |builder: Builder| builder.build().await.unwrap_err();
    let error = refused(client.consumer().unwrap().topics(["t"])).await;
    assert_eq!(
        (error.kind(), error.to_string().contains("group.id")),
        (&ErrorKind::Config, true)
    );
    let error = refused(client.consumer().unwrap()).await;
    assert_eq!(error.kind(), &ErrorKind::Config);
    for partition in [TopicPartition::new("nowhere", 0), tp(5)] {
        let began = Instant::now();
        let assigned = earliest(&client).assign([(partition.clone(), Start::Policy)]);
        let error = refused(assigned).await;
        assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition, "{error}");
        assert!(error.to_string().contains(&*partition.topic), "{error}");
        assert!(began.elapsed() <= 61 * SECOND);
    }
    let subscribed = earliest(&client).group("g").topics(["nowhere"]);
    let mut consumer = subscribed.build().await.unwrap();
    let error = timeout(61 * SECOND, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("nowhere"), "{error}");

    let strict = client
        .consumer()
        .unwrap()
        .auto_offset_reset(OffsetReset::None);
    let mut consumer = strict.group("g").topics(["t"]).build().await.unwrap();
    let error = timeout(PATIENCE, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("auto.offset.reset is none for t-0"),
        "{error}"
    );
    consumer.seek(&tp(0), Start::Offset(0, None)).unwrap();
    client
        .producer()
        .build()
        .unwrap()
        .send(Record::to("t").value("0"))
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 1).await, [0]);
}

/// Bug class 22: a partition that is added is read.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_added_is_shared_out_and_read() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let mut consumer = earliest(&client)
        .group("g")
        .topics(["t"])
        .build()
        .await
        .unwrap();
    while consumer.assignment().is_empty() {
        consumer.poll(1, SECOND).await.unwrap();
    }
    broker.add_partitions("t", 3).unwrap();
    client.cluster().refresh().await.unwrap();
    let producer = client.producer().build().unwrap();
    write(&producer, 2, [5]).await;
    assert_eq!(take(&mut consumer, 1).await, [5]);
    assert_eq!(consumer.assignment().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_ends_its_consumers() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let starts = [(tp(0), Start::Policy)];
    let mut consumer = earliest(&client).assign(starts).build().await.unwrap();
    assert!(consumer.poll(1, SECOND).await.unwrap().is_empty());
    client.cluster().close().await;
    let told = timeout(PATIENCE, consumer.next()).await.unwrap();
    assert_eq!(told.unwrap().unwrap_err().kind(), &ErrorKind::Closed);
    assert!(consumer.next().await.is_none());
    let error = consumer.poll(1, SECOND).await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
}

/// What else in the client watched the topic may leave: the consumer still hears of new leaders.
#[tokio::test(start_paused = true)]
async fn an_assigned_consumer_keeps_its_topic_when_somebody_else_gives_it_up() {
    let broker = broker(1).await;
    let client = client(&broker).await;
    let producer = client.producer().build().unwrap();
    write(&producer, 0, 0..5).await;
    let starts = [(tp(0), Start::Policy)];
    let consumer = earliest(&client).assign(starts).build().await.unwrap();
    client.cluster().watch_topics(["t".into()]);
    client.cluster().unwatch_topic("t");
    producer.close().await.unwrap();
    for _ in 0..3 {
        client.cluster().refresh().await.unwrap();
    }
    assert!(client.cluster().view().topic("t").is_some());
    consumer.close().await.unwrap();
    client.cluster().refresh().await.unwrap();
    assert!(client.cluster().view().topic("t").is_none());
}
