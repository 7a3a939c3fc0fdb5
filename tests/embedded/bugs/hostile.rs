//! Bug class 28 once more: a stranger on the way changes what brokers answer.

use super::orders;
use ottla::{BoxFuture, BoxStream, Client, Dial, Record};
use ottla_broker::Cluster;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

/// Reads everything as it is but four bytes.
struct Changed {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    read_bytes: usize,
    at: usize,
    lie: [u8; 4],
}

impl AsyncRead for Changed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let (from, at, lie) = (self.read_bytes, self.at, self.lie);
        for (place, byte) in (from..).zip(&mut buffer.filled_mut()[before..]) {
            if (at..at + 4).contains(&place) {
                *byte = lie[place - at];
            }
        }
        self.read_bytes += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

/// Changes bytes of every connection.
struct Stranger {
    cluster: Cluster,
    at: usize,
    lie: [u8; 4],
}

impl Dial for Stranger {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let BoxStream { reader, writer } = BoxStream::new(self.cluster.dial(host, port).await?);
            let reader = Changed {
                inner: reader,
                read_bytes: 0,
                at: self.at,
                lie: self.lie,
            };
            Ok(BoxStream::halves(reader, writer))
        })
    }
}

/// One record by a producer that hears lies, and its end: a word of it comes, in time, whatever word.
async fn send_among_lies(cluster: &Cluster, at: usize, lie: [u8; 4]) {
    let stranger = Stranger {
        cluster: cluster.clone(),
        at,
        lie,
    };
    let client = Client::builder(cluster.bootstrap()).transport(Arc::new(stranger));
    let client = client.property("request.timeout.ms", "2000").unwrap();
    let client = client.property("default.api.timeout.ms", "5000").unwrap();
    let Ok(client) = client.connect().await else {
        return;
    };
    let builder = client.producer().property("max.block.ms", "5000").unwrap();
    let builder = builder.delivery_timeout(Duration::from_secs(10));
    let producer = builder.build().unwrap();
    if let Ok(delivery) = producer.enqueue(Record::to("orders").value("v")).await {
        let _ = delivery.await;
    }
    let metrics = producer.metrics();
    assert_eq!(metrics.records_pending, 0, "{lie:?} at {at}");
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bug_28_answers_that_lie_of_lengths_and_counts_end_the_process_or_hold_it_for_ever() {
    let cluster = orders(1).await;
    let lies = [
        [0x7f, 0xff, 0xff, 0xff],
        [0xff, 0xff, 0xff, 0xfe],
        [0xff, 0xff, 0xff, 0x0f],
    ];
    for at in 0..900 {
        let run = send_among_lies(&cluster, at, lies[at % lies.len()]);
        let ended = timeout(Duration::from_secs(120), run).await;
        assert!(ended.is_ok(), "no end with a lie at {at}");
    }
}
