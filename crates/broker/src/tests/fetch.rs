//! Fetch and ListOffsets over the wire.

use crate::testing::{Client, batch_bytes, fetch_request, name, produce_request};
use crate::{Cluster, Code};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest};
use std::time::Duration;
use tokio::time::Instant;

async fn two_partitions() -> (Cluster, Client) {
    let builder = Cluster::builder().topic("t", 2).in_memory();
    let cluster = builder.start().await.unwrap();
    let client = Client::to(&cluster, 0).await;
    (cluster, client)
}

/// A request for both partitions.
fn both(offsets: [i64; 2]) -> FetchRequest {
    let mut request = fetch_request("t", 0, offsets[0]);
    let second = fetch_request("t", 1, offsets[1]).topics[0].partitions[0].clone();
    request.topics[0].partitions.push(second);
    request
}

fn sizes(response: &kafka_protocol::messages::FetchResponse) -> Vec<usize> {
    let partitions = response.responses.iter().flat_map(|t| &t.partitions);
    partitions
        .map(|p| p.records.as_ref().map_or(0, |r| r.len()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_fetch_returns_what_was_produced_and_the_marks() {
    let (_cluster, mut client) = two_partitions().await;
    let batch = batch_bytes(&["a", "b"], 0, None);
    client.produce(-1, "t", 0, batch.clone()).await.unwrap();
    let part = client.fetch("t", 0, 0).await.unwrap();
    assert_eq!(
        (
            part.high_watermark,
            part.last_stable_offset,
            part.log_start_offset
        ),
        (2, 2, 0)
    );
    let records = part.records.unwrap();
    assert_eq!(
        records[16..],
        batch[16..],
        "as it was sent, behind offset and epoch"
    );
    for (offset, code) in [
        (2, Code::NONE),
        (3, Code::OFFSET_OUT_OF_RANGE),
        (-1, Code::OFFSET_OUT_OF_RANGE),
    ] {
        let part = client.fetch("t", 0, offset).await.unwrap();
        assert_eq!(Code(part.error_code), code, "from {offset}");
    }
    let part = client.fetch("t", 7, 0).await.unwrap();
    assert_eq!(Code(part.error_code), Code::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_over_partitions_and_the_first_batch_comes_whole() {
    let (_cluster, mut client) = two_partitions().await;
    let batch = batch_bytes(&["a", "b"], 0, None);
    for partition in [0, 0, 1] {
        client
            .produce(-1, "t", partition, batch.clone())
            .await
            .unwrap();
    }
    let size = batch.len();
    let cases = [
        (1 << 20, 1 << 20, vec![2 * size, size], "ample"),
        (
            1,
            1 << 20,
            vec![size, 0],
            "the first batch although it does not fit",
        ),
        (
            1 << 20,
            1,
            vec![size, 0],
            "a partition limit spares only the first",
        ),
        (
            size + 10,
            1 << 20,
            vec![size + 10, 0],
            "cut at the answer's limit",
        ),
        (
            1 << 20,
            size + 10,
            vec![size + 10, size],
            "cut at the partition's limit",
        ),
        (
            2 * size + 10,
            1 << 20,
            vec![2 * size, 0],
            "too little is left for the second",
        ),
    ];
    for (max, partition_max, wanted, what) in cases {
        let mut request = both([0, 0]);
        request.max_bytes = max as i32;
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max as i32;
        }
        let response = client.call(12, &request).await.unwrap();
        assert_eq!(sizes(&response), wanted, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_enough_bytes_or_its_time() {
    let (cluster, mut client) = two_partitions().await;
    let batch = batch_bytes(&["a", "b"], 0, None);
    let mut request = both([0, 0]);
    request.max_wait_ms = 5000;
    request.min_bytes = batch.len() as i32 + 1;
    let begun = Instant::now();
    let response = client.call(12, &request).await.unwrap();
    assert_eq!(
        (begun.elapsed(), sizes(&response)),
        (Duration::from_secs(5), vec![0, 0])
    );

    client.send(12, &request).await;
    let mut writer = Client::to(&cluster, 0).await;
    for partition in [0, 1] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer
            .produce(-1, "t", partition, batch.clone())
            .await
            .unwrap();
    }
    let response = client.receive::<FetchRequest>(12).await.unwrap();
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(7),
        "the second write was enough"
    );
    assert_eq!(sizes(&response), [batch.len(), batch.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_a_long_poll_waits_for_it() {
    let (_cluster, mut client) = two_partitions().await;
    let mut request = both([0, 0]);
    request.max_wait_ms = 3000;
    request.min_bytes = 1;
    let begun = Instant::now();
    client.send(12, &request).await;
    let batch = batch_bytes(&["a"], 0, None);
    client.send(9, &produce_request(1, "t", 0, batch)).await;
    // Had the broker looked at the Produce request, it would have ended the poll.
    let first = client.receive_raw().await.unwrap();
    assert_eq!((begun.elapsed(), first[3]), (Duration::from_secs(3), 1));
    assert_eq!(client.receive_raw().await.unwrap()[3], 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_answers_only_what_changed() {
    let (_cluster, mut client) = two_partitions().await;
    let batch = batch_bytes(&["a"], 0, None);
    client.produce(-1, "t", 1, batch.clone()).await.unwrap();
    let mut first = both([0, 0]);
    first.session_epoch = 0;
    let response = client.call(12, &first).await.unwrap();
    assert_eq!(sizes(&response), [0, batch.len()]);
    let id = response.session_id;
    assert_ne!(id, 0);

    let next = |epoch| {
        FetchRequest::default()
            .with_session_id(id)
            .with_session_epoch(epoch)
            .with_max_bytes(1 << 20)
    };
    // Partition 1 is still at offset 0 in the session, so its batch comes again.
    let response = client.call(12, &next(1)).await.unwrap();
    assert_eq!(response.responses[0].partitions[0].partition_index, 1);
    let mut moved = next(2);
    moved.topics = fetch_request("t", 1, 1).topics;
    let response = client.call(12, &moved).await.unwrap();
    assert!(response.responses.is_empty(), "nothing new");
    client.produce(-1, "t", 0, batch).await.unwrap();
    let response = client.call(12, &next(3)).await.unwrap();
    assert_eq!(response.responses[0].partitions[0].partition_index, 0);
    let response = client.call(12, &next(3)).await.unwrap();
    assert_eq!(Code(response.error_code), Code::INVALID_FETCH_SESSION_EPOCH);
    let unknown = next(4).with_session_id(id + 50);
    let response = client.call(12, &unknown).await.unwrap();
    assert_eq!(Code(response.error_code), Code::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn believed_epochs_are_compared() {
    let builder = Cluster::builder().nodes(2).replication(2).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    let to = 1 - cluster.leader("t", 0).unwrap();
    cluster.move_leader("t", 0, to).unwrap();
    let mut client = Client::to(&cluster, to).await;
    let cases = [
        (0, Code::FENCED_LEADER_EPOCH),
        (1, Code::NONE),
        (2, Code::UNKNOWN_LEADER_EPOCH),
    ];
    for (epoch, code) in cases {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(12, &request).await.unwrap();
        assert_eq!(Code(response.responses[0].partitions[0].error_code), code);
    }
    let mut old = Client::to(&cluster, 1 - to).await;
    let part = old.fetch("t", 0, 0).await.unwrap();
    assert_eq!(Code(part.error_code), Code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(
        (
            part.current_leader.leader_id.0,
            part.current_leader.leader_epoch
        ),
        (to, 1)
    );
}

async fn list(client: &mut Client, timestamp: i64) -> (i64, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let response = client.call(7, &request).await.unwrap();
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    (partition.offset, partition.timestamp)
}

#[tokio::test(start_paused = true)]
async fn offsets_are_listed_by_end_and_by_time() {
    let (_cluster, mut client) = two_partitions().await;
    // Times 100, 101, 102 and then 50, 51.
    for (values, time) in [(&["a", "b", "c"][..], 100), (&["d", "e"], 50)] {
        let batch = batch_bytes(values, time, None);
        client.produce(-1, "t", 0, batch).await.unwrap();
    }
    let cases = [
        (-1, (5, -1), "latest"),
        (-2, (0, -1), "earliest"),
        (-3, (2, 102), "the latest time"),
        (0, (0, 100), "by time: the first record"),
        (101, (1, 101), "by time: inside a batch"),
        (103, (-1, -1), "by time: beyond"),
    ];
    for (asked, wanted, what) in cases {
        assert_eq!(list(&mut client, asked).await, wanted, "{what}");
    }
    let mut twice = ListOffsetsTopic::default().with_name(name("t"));
    twice.partitions = vec![ListOffsetsPartition::default(); 2];
    let request = ListOffsetsRequest::default().with_topics(vec![twice]);
    let response = client.call(7, &request).await.unwrap();
    let code = Code(response.topics[0].partitions[0].error_code);
    assert_eq!(
        code,
        Code::INVALID_REQUEST,
        "a partition may stand only once"
    );
}
