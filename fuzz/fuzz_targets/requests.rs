//! Any requests, one after another on one connection, to an embedded broker. Its clock is paused,
//! so that a request that waits costs no time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_broker::Cluster;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    runtime.block_on(converse(&frames(data)));
});

/// Cuts the input into requests: an API, a version and a length of two bytes before each body.
fn frames(mut data: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [api, version, low, high, rest @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, tail) = rest.split_at(length);
        // Correlation id 7, no client id.
        let head = [0, *api, 0, *version, 0, 0, 0, 7, 0xff, 0xff];
        let size = u32::try_from(head.len() + body.len()).expect("two bytes of length");
        frames.extend_from_slice(&size.to_be_bytes());
        frames.extend_from_slice(&head);
        frames.extend_from_slice(body);
        data = tail;
    }
    frames
}

async fn converse(frames: &[u8]) {
    let builder = Cluster::builder().in_memory().topic("t", 2);
    let cluster = builder.start().await.expect("a cluster starts");
    let address = cluster.bootstrap();
    let (host, port) = address.split_once(':').expect("an address");
    let port = port.parse().expect("a port");
    let stream = cluster.dial(host, port).await.expect("a node answers");
    let (mut answers, mut requests) = tokio::io::split(stream);
    let write = async {
        let _ = requests.write_all(frames).await;
        let _ = requests.shutdown().await;
    };
    let mut sink = Vec::new();
    let read = answers.read_to_end(&mut sink);
    let both = async { tokio::join!(write, read) };
    // An hour is more than any request may wait.
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, both).await.is_ok(), "no end");
    cluster.shutdown().await;
}
