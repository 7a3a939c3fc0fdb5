//! `ottla health`: why each partition has its share of new records.

pub(crate) mod words;

use crate::arguments::HealthArguments;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{Align, Table, or_dash};
use crate::session;
use ottla::lag::{Lag, PartitionLag, Snapshot, Standing};
use ottla::partitioner::{Explanation, Method, PartitionHealth};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
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
    /// By group, in the order in which they were named.
    groups: Vec<OfGroup>,
}

/// A topic as one group has it.
#[derive(Debug)]
struct OfGroup {
    group: Arc<str>,
    /// By partition, as in the explanation.
    lags: Vec<PartitionLag>,
}

impl Shown {
    /// Each partition with the figures of the group that decides there.
    fn partitions(&self) -> impl Iterator<Item = (&PartitionHealth, &PartitionLag)> {
        let partitions = self.explained.partitions.iter().enumerate();
        partitions.filter_map(|(at, health)| {
            let decides = |of: &&OfGroup| health.group.as_ref() == Some(&of.group);
            let group = self.groups.iter().find(decides);
            let group = group.or(self.groups.first())?;
            Some((health, group.lags.get(at)?))
        })
    }

    /// Every group's figures of a partition; nothing where there is but one group.
    fn by_group(&self, partition: i32) -> impl Iterator<Item = (&OfGroup, &PartitionLag)> {
        let groups = match self.groups.as_slice() {
            [_] => &[],
            groups => groups,
        };
        groups.iter().filter_map(move |of| {
            let lag = of.lags.iter().find(|lag| lag.partition == partition)?;
            Some((of, lag))
        })
    }
}

pub(crate) async fn run(arguments: HealthArguments) -> Result<()> {
    let client = session::connect(&arguments.connect, &[]).await?;
    let interrupt = Interrupt::listen();
    let topics = arguments.topics.iter().chain(&arguments.more_topics);
    let topics: Vec<&str> = topics.map(String::as_str).collect();
    let Some((group, others)) = arguments.groups.split_first() else {
        return Err(Failure::usage("name a group"));
    };
    let lag = client.lag(group.as_str());
    let lag = lag.and_groups(others.iter().map(String::as_str));
    let lag = match topics.as_slice() {
        [] => lag.topics_committed(),
        named => lag.topics(named.iter().copied()),
    };
    let lag = match arguments.refresh {
        Some(refresh) => lag.refresh(refresh),
        None => lag,
    };
    let lag = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        lag = lag.start() => lag?,
    };
    for snapshot in lag.snapshots() {
        check(&snapshot, &topics)?;
    }
    if steered(&lag).is_empty() {
        return Err(Failure::error(
            "there is no topic in which all these groups commit",
        ));
    }
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
            arguments.groups.join(", "),
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
    steered(lag).iter().all(|topic| {
        lag.explain(topic).is_some_and(|explained| {
            !matches!(explained.method, Method::Uniform(_))
                && explained.partitions.iter().all(|one| one.rate.is_some())
        })
    })
}

/// The topics that all of the groups are known to read: others are not steered.
fn steered(lag: &Lag) -> Vec<Arc<str>> {
    let snapshots = lag.snapshots();
    let Some((first, others)) = snapshots.split_first() else {
        return Vec::new();
    };
    let names = first.topics.iter().map(|topic| &topic.topic);
    let in_all = |name: &&Arc<str>| others.iter().all(|of| of.topic(name).is_some());
    names.filter(in_all).cloned().collect()
}

fn shown(lag: &Lag) -> Vec<Shown> {
    let snapshots = lag.snapshots();
    let shown = |name: &Arc<str>| {
        let groups = snapshots.iter().filter_map(|snapshot| {
            Some(OfGroup {
                group: Arc::clone(&snapshot.group),
                lags: snapshot.topic(name)?.partitions.clone(),
            })
        });
        Some(Shown {
            explained: lag.explain(name)?,
            groups: groups.collect(),
        })
    };
    steered(lag).iter().filter_map(shown).collect()
}

fn print(lag: &Lag, arguments: &HealthArguments, clears: bool) -> Result<()> {
    let now = Instant::now();
    let shown = shown(lag);
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", json(&lag.snapshots(), &shown, now))?;
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
    for (health, lag) in topic.partitions() {
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
        for (of, lag) in topic.by_group(health.partition) {
            let decides = health.group.as_ref() == Some(&of.group);
            let why = if decides { "decides" } else { "" };
            table.push(row_of_group(of, lag, why, now));
        }
    }
    table
}

/// One of several groups, below its partition: what is its own.
fn row_of_group(of: &OfGroup, lag: &PartitionLag, why: &str, now: Instant) -> [String; 10] {
    [
        format!("  {}", of.group),
        or_dash(lag.lag),
        or_dash(lag.time_lag.map(|time| words::time(time.duration()))),
        String::new(),
        String::new(),
        String::new(),
        words::time(lag.age(now)),
        String::new(),
        lag.progress.name().to_owned(),
        why.to_owned(),
    ]
}

/// What each partition would get of even shares.
fn fair(topic: &Shown) -> f64 {
    1.0 / topic.explained.partitions.len().max(1) as f64
}

fn json(snapshots: &[Arc<Snapshot>], shown: &[Shown], now: Instant) -> Value {
    let topics = shown.iter().map(|topic| {
        let fair = fair(topic);
        let partitions = topic.partitions().map(|(health, lag)| {
            let mut told = partition(health, lag, fair, now);
            let groups = topic.by_group(health.partition);
            let groups: Vec<Value> = groups.map(|(of, lag)| of_group(of, lag, now)).collect();
            if let (false, Value::Object(told)) = (groups.is_empty(), &mut told) {
                told.insert("decided_by".to_owned(), json!(health.group.as_deref()));
                told.insert("groups".to_owned(), groups.into());
            }
            told
        });
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
    let groups: Vec<&str> = snapshots.iter().map(|of| &*of.group).collect();
    let is_share = |of: &Arc<Snapshot>| of.standing == Standing::Share;
    json!({
        "group": groups.first(),
        "groups": groups,
        "share_group": snapshots.first().is_some_and(is_share),
        "origin": snapshots.first().map(|of| of.origin.to_string()),
        "topics": topics.collect::<Vec<_>>(),
    })
}

fn of_group(of: &OfGroup, lag: &PartitionLag, now: Instant) -> Value {
    json!({
        "group": &*of.group,
        "lag": lag.lag,
        "lag_seconds": lag.time_lag.map(|time| time.duration().as_secs_f64()),
        "group_status": lag.progress.name(),
        "lost": lag.lost,
        "age_seconds": lag.age(now).as_secs_f64(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_broker::Cluster;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_several_groups_each_has_a_line_and_the_one_that_decides_is_named() {
        let cluster = Cluster::builder().topic("orders", 2).start().await.unwrap();
        let client = ottla::Client::builder(cluster.bootstrap());
        let client = client.connect().await.unwrap();
        let producer = client.producer().build().unwrap();
        for _ in 0..10 {
            let record = ottla::Record::to("orders").partition(0).value("v");
            drop(producer.enqueue(record).await.unwrap());
        }
        producer.close().await.unwrap();
        for (group, offset) in [("audit", 10), ("billing", 4)] {
            let at = |partition| ottla::TopicPartition::new("orders", partition);
            let start = ottla::consumer::Start::Offset(0, None);
            let consumer = client.consumer().unwrap().group(group).auto_commit(None);
            let consumer = consumer.assign([(at(0), start)]).build().await;
            let consumer = consumer.unwrap();
            let offsets = [(at(0), offset), (at(1), 0)];
            let offsets = offsets.map(|(at, to)| (at, ottla::consumer::Committed::at(to)));
            consumer.commit_offsets(offsets.into()).await.unwrap();
            consumer.close().await.unwrap();
        }
        let lag = client.lag("audit").and_groups(["billing"]);
        let lag = lag.topics(["orders"]).scorer(ottla::lag::health::Linear {
            max_lag_for_health: 10,
        });
        let lag = lag.start().await.unwrap();
        let now = Instant::now();
        let shown = shown(&lag);
        let mut out = Vec::new();
        let table = table(&shown[0], now);
        table.write_aligned(&mut out, |_| Align::Left).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 1 + 2 * 3, "{text}");
        assert_eq!(rows[1][..2], ["0", "6"], "{text}");
        assert_eq!(rows[2][..2], ["audit", "0"], "{text}");
        assert_eq!(rows[3][..2], ["billing", "6"], "{text}");
        let decide = |at: usize| rows[at].last() == Some(&"decides");
        assert!(!decide(2) && decide(3), "{text}");
        let told = json(&lag.snapshots(), &shown, now);
        let part = &told["topics"][0]["partitions"][0];
        assert_eq!(
            (&part["lag"], &part["decided_by"]),
            (&json!(6), &json!("billing"))
        );
        assert_eq!(part["groups"][0]["lag"], 0, "{told}");
        assert_eq!(
            part["retention_margin"], 4,
            "the one's that decides: {told}"
        );
        cluster.shutdown().await;
    }
}
