//! How many instructions steering costs a producer: `cargo run --release -p ottla-benches --bin
//! instructions`. Wants valgrind, which counts them.
//!
//! The same records go through a producer of a process of its own, once by the sticky partitioner and
//! once by the lag-aware one with a plan that is renewed every second of load. The load is 80 % of what
//! the consumers read, as it mostly is in the other steering benchmarks: of 12 partitions each gets a
//! thousand records a second and its consumer reads 1,250, so a run has up to 62. No more waits than a
//! producer at that load would have, or a full buffer would cut its batches short. What starting and
//! ending a process takes, and the first batches, is subtracted by counting a short run too. Ends with 1
//! when steering costs more than 2 %.

use ottla::{Client, LagAware, Record, Result};
use ottla_benches::TOPIC;
use ottla_broker::Cluster;
use ottla_partitioner::{PlanReader, TopicPlan, plan_channel};
use std::collections::VecDeque;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const PARTITIONS: usize = 12;
/// What is written to a partition, in records a second.
const RATE: f64 = 1_000.0;
/// What is written, as a part of what the consumers read.
const LOAD: f64 = 0.8;
/// Written in a second, in records.
const SECOND: usize = RATE as usize * PARTITIONS;
const SHORT: usize = 20 * SECOND;
const LONG: usize = 60 * SECOND;
/// In so many seconds a batch fills, and goes on its way: a partition gets a batch of 1 MB in ten.
const UNANSWERED_MAX: usize = 15;
const RECORD_BYTES: usize = 100;
/// The first record's time, since the epoch.
const FIRST_MILLIS: i64 = 1_750_000_000_000;
/// How often each is counted; the least of it is taken. Threads meet at other places each time.
const TIMES: usize = 3;
/// What steering may cost, as a ratio.
const MOST: f64 = 1.02;

/// All that the consumers read comes from this producer.
fn plan() -> TopicPlan {
    ottla_benches::plan(PARTITIONS, RATE / LOAD, LOAD, 1.0)
}

/// Sends the records; what the counted process does.
async fn send(bootstrap: &str, steered: bool, records: usize) -> Result<()> {
    let client = Client::builder(bootstrap).connect().await?;
    let builder = client.producer().linger(Duration::from_secs(60));
    let (mut publisher, reader) = plan_channel();
    publisher.publish(vec![plan()]);
    let builder = match steered {
        true => builder.partitioner(LagAware::new(reader.clone())),
        false => builder,
    };
    let producer = builder.build()?;
    let value = ottla_benches::payload(RECORD_BYTES);
    let mut unanswered = VecDeque::new();
    for at in 0..records {
        let record = Record::to(TOPIC).value(&value).timestamp(written_at(at));
        let delivery = producer.enqueue(record).await?;
        if !at.is_multiple_of(SECOND) {
            continue;
        }
        publisher.publish(vec![plan()]);
        unanswered.push_back(delivery);
        if unanswered.len() > UNANSWERED_MAX
            && let Some(oldest) = unanswered.pop_front()
        {
            oldest.await?;
        }
    }
    producer.close().await?;
    if steered {
        println!("{:.1} records a run", records as f64 / runs(&reader) as f64);
    }
    Ok(())
}

/// How many runs were steered.
fn runs(reader: &PlanReader) -> u64 {
    let topics = reader.counters().topics;
    topics.iter().flat_map(|topic| &topic.runs).sum()
}

/// When that record is written at that load, in milliseconds: what is counted goes on far slower.
fn written_at(at: usize) -> i64 {
    let seconds = at as f64 / SECOND as f64;
    FIRST_MILLIS + (seconds * 1_000.0) as i64
}

/// Counts the instructions of a process that sends so many records.
fn count(bootstrap: &str, way: &str, records: usize) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(this)
        .args([way, bootstrap, &records.to_string()])
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let line = said
        .lines()
        .find(|line| line.contains(" I ") && line.contains("refs:"));
    let digits = line.and_then(|line| line.rsplit(' ').next());
    let count = digits.and_then(|digits| digits.replace(',', "").parse().ok());
    count.filter(|_| out.status.success()).ok_or(said.into())
}

async fn compare() -> Result<f64, String> {
    let cluster = Cluster::builder().topic(TOPIC, PARTITIONS as i32);
    let cluster = cluster.start().await.map_err(|error| error.to_string())?;
    let mut costs = Vec::new();
    for way in ["sticky", "lag-aware"] {
        let mut counts = Vec::new();
        for records in [SHORT, LONG] {
            let bootstrap = cluster.bootstrap();
            let least = move || {
                let counts = (0..TIMES).map(|_| count(&bootstrap, way, records));
                counts.reduce(|a, b| Ok(a?.min(b?))).unwrap_or(Ok(0.0))
            };
            let counting = tokio::task::spawn_blocking(least);
            counts.push(counting.await.map_err(|error| error.to_string())??);
        }
        let cost = (counts[1] - counts[0]) / (LONG - SHORT) as f64;
        println!("{way:10} {cost:8.1} instructions a record");
        costs.push(cost);
    }
    Ok(costs[1] / costs[0])
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [way, bootstrap, records] = words.as_slice() {
        let records = records.parse().unwrap_or(0);
        return match send(bootstrap, way == "lag-aware", records).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    match compare().await {
        Ok(ratio) => {
            println!("steering costs {:+.2} %", (ratio - 1.0) * 100.0);
            ExitCode::from(u8::from(ratio > MOST))
        }
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(2)
        }
    }
}
