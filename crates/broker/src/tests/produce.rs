//! Produce over the wire.

use crate::testing::{Client, batch_bytes, produce_request};
use crate::{Cluster, Code};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;
use tokio::time::Instant;

async fn one_node() -> (Cluster, Client) {
    let builder = Cluster::builder().topic("t", 1).in_memory();
    let cluster = builder.start().await.unwrap();
    let client = Client::to(&cluster, 0).await;
    (cluster, client)
}

#[tokio::test(start_paused = true)]
async fn records_are_in_the_log_with_their_stamp() {
    let (cluster, mut client) = one_node().await;
    let batch = batch_bytes(&["a", "b"], 1000, Some((7, 3, 40)));
    let answer = client.produce(-1, "t", 0, batch.clone()).await.unwrap();
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let log = cluster.log("t", 0);
    let second = &log[1];
    assert_eq!((second.offset, second.timestamp), (1, 1001));
    assert_eq!(
        (second.producer_id, second.epoch, second.sequence),
        (Some(7), 3, 41)
    );
    assert_eq!(
        (second.key.as_deref(), second.value.as_deref()),
        (None, Some(&b"b"[..]))
    );

    let again = client.produce(-1, "t", 0, batch).await.unwrap();
    assert_eq!(
        (again.error_code, again.base_offset),
        (0, 0),
        "a duplicate is acknowledged"
    );
    assert_eq!(cluster.end_offset("t", 0), Some(2));
}

/// A good batch with one byte changed, under a checksum made anew or the old one.
fn changed(at: usize, byte: u8, resum: bool) -> Bytes {
    let mut bytes = batch_bytes(&["a", "b"], 0, None).to_vec();
    bytes[at] = byte;
    if resum {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Bytes::from(bytes)
}

#[tokio::test(start_paused = true)]
async fn batches_that_no_broker_takes_are_refused() {
    let (cluster, mut client) = one_node().await;
    let good = batch_bytes(&["a", "b"], 0, None);
    let twice = Bytes::from([&good[..], &good[..]].concat());
    let old = Code::UNSUPPORTED_FOR_MESSAGE_FORMAT;
    let invalid = Code::INVALID_RECORD;
    let corrupt = Code::CORRUPT_MESSAGE;
    let cases = [
        (changed(70, 99, false), corrupt, "the checksum fails"),
        (good.slice(..good.len() - 1), corrupt, "it is cut short"),
        (Bytes::new(), invalid, "there is no batch"),
        (twice, invalid, "there are two"),
        (changed(60, 3, true), invalid, "its count is wrong"),
        (changed(22, 0x20, true), invalid, "it is a control batch"),
        (changed(7, 1, false), invalid, "its base offset is not 0"),
        (changed(61, 3, true), invalid, "its records are garbage"),
        (changed(16, 1, false), old, "an old format"),
    ];
    for (batch, code, what) in cases {
        let answer = client.produce(-1, "t", 0, batch).await.unwrap();
        assert_eq!(Code(answer.error_code), code, "{what}");
    }
    assert_eq!(cluster.end_offset("t", 0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn good_batches_are_refused_where_they_do_not_belong() {
    let (cluster, mut client) = one_node().await;
    let small = [("max.message.bytes", "70")];
    cluster.create_topic_with("small", 1, &small).unwrap();
    let good = batch_bytes(&["a", "b"], 0, None);
    let unknown = Code::UNKNOWN_TOPIC_OR_PARTITION;
    let cases = [
        ("small", 0, -1, Code::MESSAGE_TOO_LARGE),
        ("none", 0, -1, unknown),
        ("t", 1, -1, unknown),
        ("t", -1, -1, unknown),
        ("t", 0, 2, Code::INVALID_REQUIRED_ACKS),
        ("t", 0, -1, Code::NONE),
    ];
    for (topic, partition, acks, code) in cases {
        let answer = client.produce(acks, topic, partition, good.clone()).await;
        let answer = Code(answer.unwrap().error_code);
        assert_eq!(answer, code, "{topic}-{partition} with acks={acks}");
    }
}

#[tokio::test(start_paused = true)]
async fn acks_0_has_no_answer_and_a_failure_ends_the_connection() {
    let (cluster, mut client) = one_node().await;
    let batch = batch_bytes(&["a"], 0, None);
    let request = produce_request(0, "t", 0, batch.clone());
    client.send(9, &request).await;
    // The next answer on the connection belongs to the next request.
    let next = client.produce(1, "t", 0, batch.clone()).await.unwrap();
    assert_eq!(next.base_offset, 1);
    client.send(9, &produce_request(0, "none", 0, batch)).await;
    assert_eq!(client.receive_raw().await, None);
    assert_eq!(cluster.end_offset("t", 0), Some(2));
}

#[tokio::test(start_paused = true)]
async fn acks_all_waits_for_a_frozen_follower_up_to_the_timeout() {
    let builder = Cluster::builder().nodes(2).replication(2).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    let leader = cluster.leader("t", 0).unwrap();
    let mut client = Client::to(&cluster, leader).await;
    let batch = |sequence| batch_bytes(&["a"], 0, Some((7, 0, sequence)));
    cluster.freeze_follower("t", 0).unwrap();
    let begun = Instant::now();
    let answer = client.produce(-1, "t", 0, batch(0)).await.unwrap();
    assert_eq!(Code(answer.error_code), Code::REQUEST_TIMED_OUT);
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(
        (cluster.end_offset("t", 0), cluster.high_watermark("t", 0)),
        (Some(1), Some(0))
    );
    let answer = client.produce(1, "t", 0, batch(1)).await.unwrap();
    assert_eq!(answer.error_code, 0, "acks=1 does not wait");

    client.send(9, &produce_request(-1, "t", 0, batch(2))).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.thaw("t", 0).unwrap();
    let answer = client
        .receive::<kafka_protocol::messages::ProduceRequest>(9)
        .await
        .unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(begun.elapsed(), Duration::from_secs(13));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_is_lost_with_its_leader() {
    let builder = Cluster::builder().nodes(2).replication(2).topic("t", 1);
    let cluster = builder.in_memory().start().await.unwrap();
    let leader = cluster.leader("t", 0).unwrap();
    let mut client = Client::to(&cluster, leader).await;
    cluster.freeze_follower("t", 0).unwrap();
    let batch = batch_bytes(&["a"], 0, None);
    client.send(9, &produce_request(-1, "t", 0, batch)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.move_leader("t", 0, 1 - leader).unwrap();
    let answer = client
        .receive::<kafka_protocol::messages::ProduceRequest>(9)
        .await
        .unwrap();
    let code = Code(answer.responses[0].partition_responses[0].error_code);
    assert_eq!(code, Code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(cluster.end_offset("t", 0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn too_few_replicas_refuse_acks_all_before_the_append() {
    let builder = Cluster::builder()
        .nodes(2)
        .replication(2)
        .min_insync_replicas(2);
    let cluster = builder.topic("t", 1).in_memory().start().await.unwrap();
    let leader = cluster.leader("t", 0).unwrap();
    cluster.stop_node(1 - leader).await.unwrap();
    let mut client = Client::to(&cluster, leader).await;
    let batch = batch_bytes(&["a"], 0, None);
    let answer = client.produce(-1, "t", 0, batch.clone()).await.unwrap();
    assert_eq!(Code(answer.error_code), Code::NOT_ENOUGH_REPLICAS);
    assert_eq!(cluster.end_offset("t", 0), Some(0));
    assert_eq!(
        client
            .produce(1, "t", 0, batch.clone())
            .await
            .unwrap()
            .error_code,
        0
    );
    cluster.start_node(1 - leader).await.unwrap();
    assert_eq!(
        client.produce(-1, "t", 0, batch).await.unwrap().error_code,
        0
    );
}

#[tokio::test(start_paused = true)]
async fn log_append_time_is_the_clusters_clock() {
    let builder = Cluster::builder().start_millis(5_000_000).topic("t", 1);
    let builder = builder.topic_setting("message.timestamp.type", "LogAppendTime");
    let cluster = builder.in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = client
        .produce(-1, "t", 0, batch_bytes(&["a", "b"], 77, None))
        .await
        .unwrap();
    assert_eq!(answer.log_append_time_ms, 5_002_000);
    let times: Vec<i64> = cluster.log("t", 0).iter().map(|r| r.timestamp).collect();
    assert_eq!(times, [5_002_000, 5_002_000]);
}

#[tokio::test(start_paused = true)]
async fn versions_0_to_2_are_read_and_refused() {
    for version in 0i16..3 {
        let (_cluster, mut client) = one_node().await;
        let mut frame = BytesMut::new();
        frame.put_slice(&[0, 0]);
        frame.put_i16(version);
        frame.put_i32(9);
        frame.put_i16(-1);
        frame.put_i16(1);
        frame.put_i32(1000);
        frame.put_i32(1);
        frame.put_slice(b"\0\x01t");
        frame.put_i32(1);
        frame.put_i32(0);
        frame.put_i32(30);
        frame.put_slice(&[0; 30]);
        client.send_raw(&frame).await;
        let answer = client.receive_raw().await.unwrap();
        // Correlation, one topic "t", one partition 0, the code.
        let mut wanted = vec![
            0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 43,
        ];
        wanted.extend([0xff; 8]);
        wanted.extend(if version >= 2 { &[0xff; 8][..] } else { &[] });
        wanted.extend(if version >= 1 { &[0; 4][..] } else { &[] });
        assert_eq!(answer, wanted, "version {version}");
    }
}
