//! What the tests of the exporter share.

use super::filter::Filter;
use super::sight::Looker;
use ottla::consumer::{Committed, Start};
use ottla::{BoxFuture, BoxStream, Client, Dial, Record, TopicPartition};
use ottla_broker::Cluster;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::subscriber::DefaultGuard;

pub(super) async fn cluster() -> (Cluster, Client) {
    let builder = Cluster::builder().nodes(2).replication(2);
    let builder = builder.topic("orders", 2).topic("unread", 1);
    let cluster = builder.start().await.unwrap();
    let client = Client::builder(cluster.bootstrap())
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build().unwrap();
    for (partition, count) in [(0, 10), (1, 20)] {
        for _ in 0..count {
            let record = Record::to("orders").partition(partition).value("v");
            drop(producer.enqueue(record).await.unwrap());
        }
    }
    producer.close().await.unwrap();
    (cluster, client)
}

/// A cluster in memory with a topic of so many partitions, and a client that reaches it.
pub(super) async fn in_memory(partitions: i32) -> (Cluster, Client) {
    let cluster = Cluster::builder().in_memory().topic("orders", partitions);
    let cluster = cluster.start().await.unwrap();
    let client = Client::builder(cluster.bootstrap());
    let client = client.transport(Arc::new(InMemory(cluster.clone())));
    (cluster, client.connect().await.unwrap())
}

pub(super) async fn commit(client: &Client, group: &str, partition: i32, offset: i64) {
    let partition = TopicPartition::new("orders", partition);
    let consumer = client.consumer().unwrap().group(group).auto_commit(None);
    let consumer = consumer.assign([(partition.clone(), Start::Offset(0, None))]);
    let consumer = consumer.build().await.unwrap();
    let offsets = [(partition, Committed::at(offset))];
    consumer.commit_offsets(offsets.into()).await.unwrap();
    consumer.close().await.unwrap();
}

pub(super) fn looker(client: &Client, topic_filter: &str) -> Looker {
    looker_every(client, topic_filter, Duration::from_secs(1))
}

pub(super) fn looker_every(client: &Client, topic_filter: &str, refresh: Duration) -> Looker {
    let groups = Filter::new(".*", "^hidden").unwrap();
    let topics = Filter::new(topic_filter, "^$").unwrap();
    Looker::new(client.clone(), refresh, groups, topics)
}

/// Reaches the nodes of a cluster in memory.
pub(super) struct InMemory(pub(super) Cluster);

impl Dial for InMemory {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move { self.0.dial(host, port).await.map(BoxStream::new) })
    }
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts the lines with a clause that this thread logs while the guard lives.
pub(super) fn logged() -> (impl Fn(&str) -> usize, DefaultGuard) {
    let written = Written::default();
    let to = written.clone();
    let log = tracing_subscriber::fmt().with_ansi(false);
    let log = log.with_writer(move || to.clone()).finish();
    let lines = move |clause: &str| {
        let text = written.0.lock().unwrap().clone();
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|line| line.contains(clause)).count()
    };
    (lines, tracing::subscriber::set_default(log))
}
