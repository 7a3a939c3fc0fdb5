//! What a round of lag collection costs: `cargo bench -p ottla-benches --bench collect`.
//!
//! Ten thousand partitions and a hundred groups in one collector, over TCP against three embedded
//! brokers. The collector has a thread of its own, whose processor time is counted (Linux); the
//! brokers have others.

use ottla::Client;
use ottla::lag::{Collector, Lag};
use ottla_broker::{ApiKey, Cluster};
use ottla_wire::api::offset_commit::{Member, PartitionCommit, Request, call};
use ottla_wire::{Class, CoordinatorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const GROUPS: usize = 100;
/// A million lags a second would be more than the three brokers, on one thread, can tell of.
const REFRESH: Duration = Duration::from_secs(1);
const REFRESH_MANY: Duration = Duration::from_secs(5);
const MANY: usize = 500_000;
const ROUNDS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// The requests of a round.
const APIS: [(ApiKey, &str); 4] = [
    (ApiKey::FindCoordinator, "FindCoordinator"),
    (ApiKey::OffsetFetch, "OffsetFetch"),
    (ApiKey::ListOffsets, "ListOffsets"),
    (ApiKey::ListGroups, "ListGroups"),
];

/// How partitions are spread over topics, and how many of the topics a group reads.
struct Shape {
    topics: usize,
    partitions: i32,
    topics_a_group: usize,
}

impl Shape {
    fn group_topics(&self, group: usize) -> Vec<Arc<str>> {
        let topics = (0..self.topics_a_group).map(|at| (group + at) % self.topics);
        topics
            .map(|topic| format!("topic-{topic}").into())
            .collect()
    }
}

fn main() -> Result<(), Failure> {
    println!("{GROUPS} groups, 10000 partitions, three brokers; a round:");
    for (topics, partitions, topics_a_group) in [(100, 100, 1), (10, 1_000, 1), (10, 1_000, 10)] {
        let shape = Shape {
            topics,
            partitions,
            topics_a_group,
        };
        let brokers = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let cluster = brokers.block_on(start(&shape))?;
        let collector = Builder::new_current_thread().enable_all().build()?;
        measure(&collector, &cluster, &shape)?;
        brokers.shutdown_background();
    }
    Ok(())
}

async fn start(shape: &Shape) -> Result<Cluster, Failure> {
    let mut builder = Cluster::builder().nodes(3).request_bytes_max(256 << 20);
    for topic in 0..shape.topics {
        builder = builder.topic(format!("topic-{topic}"), shape.partitions);
    }
    Ok(builder.start().await?)
}

fn measure(runtime: &Runtime, cluster: &Cluster, shape: &Shape) -> Result<(), Failure> {
    runtime.block_on(async {
        let client = Client::builder(cluster.bootstrap()).connect().await?;
        for group in 0..GROUPS {
            commit(&client, group, shape).await?;
        }
        let pairs = GROUPS * shape.topics_a_group * shape.partitions as usize;
        let refresh = if pairs < MANY { REFRESH } else { REFRESH_MANY };
        let collector = Collector::start(client.cluster().clone(), refresh, 1);
        let mut lags = Vec::new();
        for group in 0..GROUPS {
            let lag = Lag::with_collector(&collector, format!("group-{group}"));
            lags.push(lag.topics(shape.group_topics(group)));
        }
        let lags = futures_util::future::try_join_all(lags.into_iter().map(|lag| lag.start()));
        let lags = lags.await?;
        let count = || APIS.map(|(api, _)| cluster.requests(api));
        let (rounds, requests, cpu) = (collector.figures().rounds, count(), processor_time()?);
        let began = Instant::now();
        while collector.figures().rounds < rounds + ROUNDS {
            sleep(REFRESH / 10).await;
        }
        let seen = (collector.figures().rounds - rounds) as f64;
        let cpu = processor_time()?.saturating_sub(cpu).as_secs_f64() / seen;
        let known = lags
            .iter()
            .map(|lag| lag.snapshot())
            .filter(|one| one.lag() == Some(0));
        assert_eq!(known.count(), GROUPS, "every group's lag is known");
        print!("{pairs:>8} lags: {:>7.1} ms of processor time", cpu * 1e3);
        print!(
            " ({:.0} ns a lag), every {:.2} s,",
            cpu * 1e9 / pairs as f64,
            began.elapsed().as_secs_f64() / seen
        );
        for ((_, name), (now, was)) in APIS.iter().zip(count().iter().zip(requests)) {
            print!(" {:.1} {name}", (now - was) as f64 / seen);
        }
        println!();
        client.cluster().close().await;
        Ok(())
    })
}

/// The group has read everything there is: nothing.
async fn commit(client: &Client, group: usize, shape: &Shape) -> Result<(), Failure> {
    let name = format!("group-{group}");
    let wire = client.cluster();
    let deadline = Instant::now() + PATIENCE;
    let home = wire
        .coordinator(CoordinatorKind::Group, &name, deadline)
        .await?;
    let partitions = |_| {
        let partitions = (0..shape.partitions).map(|partition| PartitionCommit {
            partition,
            offset: 0,
            leader_epoch: None,
            metadata: None,
        });
        partitions.collect::<Vec<_>>()
    };
    let topics = shape.group_topics(group).into_iter();
    let request = Request {
        member: Member {
            group: name.into(),
            ..Member::default()
        },
        topics: topics.map(|topic| (topic, partitions(()))).collect(),
    };
    call(&wire.connection(home, Class::Control).await?, &request).await?;
    Ok(())
}

/// What this thread has had of a processor.
fn processor_time() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}
