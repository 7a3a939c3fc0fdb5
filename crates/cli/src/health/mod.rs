//! `ottla health`: why each partition has its share of new records.

mod words;

use crate::arguments::HealthArguments;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{Align, Table, or_dash};
use crate::session;
use ottla::lag::{Lag, PartitionLag, Snapshot, Standing};
use ottla::partitioner::{Explanation, Method, PartitionHealth};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Clears the terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How many looks are awaited at least: the first rates are rough.
const LOOKS_MIN: u32 = 4;

/// A topic as it is shown.
#[derive(Debug)]
struct Shown {
    explained: Explanation,
    /// By partition, as in the explanation.
    lags: Vec<PartitionLag>,
}

pub(crate) async fn run(arguments: HealthArguments) -> Result<()> {
    let client = session::connect(&arguments.connect, &[]).await?;
    let interrupt = Interrupt::listen();
    let topics = arguments.topics.iter().chain(&arguments.more_topics);
    let topics: Vec<&str> = topics.map(String::as_str).collect();
    let lag = client.lag(arguments.group.as_str());
    let lag = match topics.as_slice() {
        [] => lag.topics_committed(),
        named => lag.topics(named.iter().copied()),
    };
    let lag = lag.refresh(arguments.refresh);
    let lag = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        lag = lag.start() => lag?,
    };
    check(&lag.snapshot(), &topics)?;
    let clears = arguments.watch.is_some() && !arguments.json && io::stdout().is_terminal();
    let mut patience = arguments.seconds;
    tell_of_waiting(&arguments, patience);
    loop {
        tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            () = watch_until_known(&lag, patience) => {}
        }
        print(&lag, &arguments, clears)?;
        let Some(pause) = arguments.watch else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        // Once is enough: what is not known by then may never be.
        patience = Duration::ZERO;
    }
}

/// Why nothing appears at once.
fn tell_of_waiting(arguments: &HealthArguments, patience: Duration) {
    if !arguments.connect.quiet {
        let _ = writeln!(
            io::stderr(),
            "watching the group {} for up to {} s: what its consumers read a second shows only from \
             one commit to the next",
            arguments.group,
            patience.as_secs_f64()
        );
    }
}

/// Whether there is anything to explain.
fn check(snapshot: &Snapshot, topics: &[&str]) -> Result<()> {
    let group = &snapshot.group;
    match snapshot.standing {
        Standing::Denied => {
            return Err(Failure::error(format!(
                "no permission to see the offsets of the group {group} (DESCRIBE on the group)"
            )));
        }
        Standing::Unknown(code) => {
            let why = code.map_or_else(String::new, |code| format!(" ({code})"));
            return Err(Failure::error(format!(
                "the coordinator of the group {group} does not tell its offsets{why}"
            )));
        }
        Standing::Told | Standing::Share | Standing::Closed => {}
    }
    let is_there = |topic: &&str| {
        let known = snapshot.topic(topic);
        known.is_some_and(|topic| !topic.partitions.is_empty())
    };
    if let Some(missing) = topics.iter().find(|topic| !is_there(topic)) {
        return Err(Failure::error(format!(
            "the topic {missing} does not exist, or may not be seen"
        )));
    }
    if snapshot.topics.is_empty() && snapshot.standing == Standing::Share {
        return Err(Failure::error(format!(
            "the group {group} is a share group: name a --topic to watch it there"
        )));
    }
    if snapshot.topics.is_empty() {
        return Err(Failure::error(format!(
            "the group {group} does not exist, or has committed nothing: name a --topic to watch it \
             there"
        )));
    }
    Ok(())
}

/// Waits until every topic is steered and every partition's rate known, but no longer than this.
async fn watch_until_known(lag: &Lag, patience: Duration) {
    let mut changes = lag.changes();
    let known = async {
        let mut looks = 0;
        while looks < LOOKS_MIN || !is_known(lag) {
            looks += 1;
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(patience, known).await;
}

fn is_known(lag: &Lag) -> bool {
    let snapshot = lag.snapshot();
    snapshot.topics.iter().all(|topic| {
        lag.explain(&topic.topic).is_some_and(|explained| {
            !matches!(explained.method, Method::Uniform(_))
                && explained.partitions.iter().all(|one| one.rate.is_some())
        })
    })
}

fn shown(lag: &Lag) -> Vec<Shown> {
    let snapshot = lag.snapshot();
    let topics = snapshot.topics.iter().filter_map(|topic| {
        Some(Shown {
            explained: lag.explain(&topic.topic)?,
            lags: topic.partitions.clone(),
        })
    });
    topics.collect()
}

fn print(lag: &Lag, arguments: &HealthArguments, clears: bool) -> Result<()> {
    let now = Instant::now();
    let shown = shown(lag);
    let mut out = io::stdout().lock();
    if arguments.json {
        let standing = lag.snapshot().standing;
        writeln!(out, "{}", json(lag.group(), standing, &shown, now))?;
        return Ok(out.flush()?);
    }
    if clears {
        write!(out, "{CLEAR}")?;
    }
    for (at, topic) in shown.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        let name = &topic.explained.topic;
        writeln!(out, "{name}: {}", words::method(topic.explained.method))?;
        table(topic, now).write_aligned(&mut out, |column| match column {
            1..=6 => Align::Right,
            _ => Align::Left,
        })?;
    }
    if arguments.watch.is_some() {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn table(topic: &Shown, now: Instant) -> Table {
    let mut table = Table::new([
        "PARTITION",
        "LAG",
        "BEHIND",
        "RATE",
        "DRAIN",
        "SHARE",
        "AGE",
        "STATUS",
        "GROUP",
        "WHY",
    ]);
    let fair = fair(topic);
    for (health, lag) in topic.explained.partitions.iter().zip(&topic.lags) {
        table.push([
            health.partition.to_string(),
            or_dash(health.lag),
            or_dash(lag.time_lag.map(|time| words::time(time.duration()))),
            or_dash(health.rate.map(|rate| format!("{rate:.1}/s"))),
            or_dash(health.drain_time.map(words::time)),
            format!("{:.1}%", 100.0 * health.weight),
            words::time(lag.age(now)),
            health.status.name().to_owned(),
            lag.progress.name().to_owned(),
            words::why(health, lag, fair),
        ]);
    }
    table
}

/// What each partition would get of even shares.
fn fair(topic: &Shown) -> f64 {
    1.0 / topic.explained.partitions.len().max(1) as f64
}

fn json(group: &str, standing: Standing, shown: &[Shown], now: Instant) -> Value {
    let topics = shown.iter().map(|topic| {
        let fair = fair(topic);
        let partitions = topic.explained.partitions.iter().zip(&topic.lags);
        let partitions = partitions.map(|(health, lag)| partition(health, lag, fair, now));
        let (method, fallback) = match topic.explained.method {
            Method::Drain => ("drain", None),
            Method::Weighted => ("weighted", None),
            Method::Uniform(reason) => ("uniform", Some(reason.name())),
        };
        json!({
            "topic": &*topic.explained.topic,
            "method": method,
            "fallback": fallback,
            "explained": words::method(topic.explained.method),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    json!({
        "group": group,
        "share_group": standing == Standing::Share,
        "topics": topics.collect::<Vec<_>>(),
    })
}

fn partition(health: &PartitionHealth, lag: &PartitionLag, fair: f64, now: Instant) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "partition": health.partition,
        "lag": health.lag,
        "lag_seconds": seconds(lag.time_lag.map(|time| time.duration())),
        "stable_lag": lag.stable_lag(),
        "backlog": health.backlog,
        "rate": health.rate,
        "drain_seconds": seconds(health.drain_time),
        "weight": health.weight,
        "status": health.status.name(),
        "group_status": lag.progress.name(),
        "lost": lag.lost,
        "retention_margin": lag.retention_margin(),
        "age_seconds": lag.age(now).as_secs_f64(),
        "why": words::why(health, lag, fair),
    })
}
