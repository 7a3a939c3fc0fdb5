//! Nodes that stop and start, in memory and over TCP.

use crate::testing::{Client, batch_bytes};
use crate::{Cluster, Code};
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test(start_paused = true)]
async fn a_stopped_node_closes_its_connections_and_others_take_over() {
    let builder = Cluster::builder().nodes(3).replication(3).topic("t", 3);
    let builder = builder.election_delay(Duration::from_secs(2));
    let cluster = builder.in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let led = (0..3).find(|p| cluster.leader("t", *p) == Some(0)).unwrap();
    client
        .produce(-1, "t", led, batch_bytes(&["a"], 0, None))
        .await
        .unwrap();

    cluster.stop_node(0).await.unwrap();
    assert_eq!(client.receive_raw().await, None);
    let refused = cluster.dial("node-0.memory", 1).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(
        cluster.leader("t", led),
        None,
        "the election takes its time"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::task::yield_now().await;
    let heir = cluster.leader("t", led).unwrap();
    assert_ne!(heir, 0);
    assert_eq!(cluster.leader_epoch("t", led), Some(1));
    assert_eq!(
        cluster.end_offset("t", led),
        Some(1),
        "what was replicated is there"
    );

    cluster.start_node(0).await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let part = client.fetch("t", led, 0).await.unwrap();
    assert_eq!(Code(part.error_code), Code::NOT_LEADER_OR_FOLLOWER);
    cluster.move_leader("t", led, 0).unwrap();
    assert_eq!(client.fetch("t", led, 0).await.unwrap().high_watermark, 1);
}

#[tokio::test]
async fn over_tcp_a_node_comes_back_on_its_port() {
    let cluster = Cluster::builder()
        .nodes(2)
        .topic("t", 1)
        .start()
        .await
        .unwrap();
    let bootstrap = cluster.bootstrap();
    let first = bootstrap.split(',').next().unwrap();
    assert!(TcpStream::connect(first).await.is_ok());
    cluster.stop_node(0).await.unwrap();
    assert!(TcpStream::connect(first).await.is_err());
    cluster.start_node(0).await.unwrap();
    assert!(TcpStream::connect(first).await.is_ok());
    cluster.shutdown().await;
    assert!(TcpStream::connect(first).await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error() {
    let cluster = Cluster::builder().start().await.unwrap();
    let bootstrap = cluster.bootstrap();
    let port: u16 = bootstrap.rsplit(':').next().unwrap().parse().unwrap();
    let error = Cluster::builder().port(port).start().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("port {port} of 127.0.0.1 cannot be bound")),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_cluster_ends_its_connections() {
    let cluster = Cluster::builder().in_memory().start().await.unwrap();
    let mut client = Client::to(&cluster, 0).await;
    drop(cluster);
    assert_eq!(client.receive_raw().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_answers_when_it_thaws() {
    let cluster = Cluster::builder().topic("t", 1).in_memory();
    let cluster = cluster.start().await.unwrap();
    cluster.freeze_node(0).unwrap();
    let mut client = Client::to(&cluster, 0).await;
    let write = client.produce(-1, "t", 0, batch_bytes(&["a"], 0, None));
    let soon = tokio::time::timeout(Duration::from_secs(60), write);
    assert!(soon.await.is_err());
    assert_eq!(cluster.end_offset("t", 0), Some(0));
    cluster.thaw_node(0).unwrap();
    assert!(client.receive_raw().await.is_some());
    assert_eq!(cluster.end_offset("t", 0), Some(1));
}
