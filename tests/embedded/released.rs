//! What a producer had of the cluster's connections is given up when it ends.

use ottla::{BoxFuture, BoxStream, Client, Dial, Record};
use ottla_broker::Cluster;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Dials in memory, counts what is open, and can let whoever dials wait.
struct Counting {
    cluster: Cluster,
    open: Arc<AtomicUsize>,
    held_up: watch::Sender<bool>,
}

impl Dial for Counting {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let mut held_up = self.held_up.subscribe();
            held_up.wait_for(|held_up| !held_up).await.unwrap();
            let stream = self.cluster.dial(host, port).await?;
            self.open.fetch_add(1, Ordering::Relaxed);
            let open = Arc::clone(&self.open);
            Ok(BoxStream::new(Counted { stream, open }))
        })
    }
}

struct Counted<S> {
    stream: S,
    open: Arc<AtomicUsize>,
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Three nodes, a partition each.
async fn orders() -> (Cluster, Client, Arc<Counting>) {
    let cluster = Cluster::builder().nodes(3).in_memory();
    let cluster = cluster.topic("orders", 3).start().await.unwrap();
    let dial = Arc::new(Counting {
        cluster: cluster.clone(),
        open: Arc::default(),
        held_up: watch::Sender::new(false),
    });
    let client = Client::builder(cluster.bootstrap()).transport(dial.clone());
    let client = client.connect().await.unwrap();
    (cluster, client, dial)
}

impl Counting {
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

fn record(partition: i32) -> Record<'static> {
    Record::to("orders").partition(partition).value("v")
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_ends_closes_its_connections_and_nobody_elses() {
    let (_cluster, client, dial) = orders().await;
    let stays = client.producer().build().unwrap();
    for partition in 0..3 {
        stays.send(record(partition)).await.unwrap();
    }
    // Whatever all producers share is open by now.
    sleep(SECOND).await;
    let before = dial.open();
    for round in 0..4 {
        let producer = client.producer().build().unwrap();
        for partition in 0..3 {
            producer.send(record(partition)).await.unwrap();
        }
        assert_eq!(dial.open(), before + 3, "one a leader");
        match round % 2 {
            0 => producer.close().await.unwrap(),
            _ => drop(producer),
        }
        sleep(SECOND).await;
        assert_eq!(dial.open(), before, "round {round}");
    }
    stays.send(record(1)).await.unwrap();
    assert_eq!(dial.open(), before, "it was not given up with the others");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_when_its_producer_has_ended_is_closed() {
    let (cluster, client, dial) = orders().await;
    let other = client.producer().build().unwrap();
    for partition in 0..3 {
        other.send(record(partition)).await.unwrap();
    }
    sleep(SECOND).await;
    let before = dial.open();
    let producer = client.producer().delivery_timeout(2 * SECOND);
    let producer = producer.linger(Duration::ZERO).build().unwrap();
    producer.send(record(0)).await.unwrap();
    assert_eq!(dial.open(), before + 1);
    dial.held_up.send_replace(true);
    producer.send(record(1)).await.unwrap_err();
    producer.close().await.unwrap();
    dial.held_up.send_replace(false);
    sleep(2 * SECOND).await;
    assert_eq!(dial.open(), before);
    assert!(cluster.log("orders", 1).len() == 1, "the other's alone");
}
