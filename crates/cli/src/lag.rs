//! `ottla lag`: what a group has still to read.

use crate::arguments::LagArguments;
use crate::failure::{Failure, Result};
use crate::health::words;
use crate::interrupt::Interrupt;
use crate::output::{Table, or_dash};
use crate::session;
use ottla::lag::{GroupLag, Lag, LagStatus, PartitionLag, Snapshot, TimeLag, Topics, collect_once};
use ottla::{Client, Code};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Clears the terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How long the second look is waited for, without which there is no status.
const SECOND_LOOK_MAX: Duration = Duration::from_secs(15);

pub(crate) async fn run(arguments: LagArguments) -> Result<()> {
    if arguments.group.is_empty() {
        return Err(Failure::usage("the name of the group is empty"));
    }
    let client = session::connect(&arguments.connect, &[]).await?;
    let interrupt = Interrupt::listen();
    let topics = match arguments.topics.as_slice() {
        [] => Topics::Committed,
        named => {
            let names = named.iter().map(|name| name.as_str().into());
            Topics::Named(names.collect())
        }
    };
    let clears = arguments.watch.is_some() && !arguments.json && io::stdout().is_terminal();
    let mut watch = None;
    loop {
        let look = look(&client, &arguments, &topics, &mut watch);
        let (lag, watched) = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            looked = look => looked?,
        };
        let shown = Shown {
            lag: &lag,
            watched: watched.as_deref(),
            arguments: &arguments,
        };
        shown.print(clears)?;
        if let Some(max) = arguments.max {
            judge(&lag, max)?;
        }
        let Some(pause) = arguments.watch else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

/// Looks once. Where times or statuses are wanted the group is watched too, from the first look on.
async fn look(
    client: &Client,
    arguments: &LagArguments,
    topics: &Topics,
    watch: &mut Option<Lag>,
) -> Result<(GroupLag, Option<Arc<Snapshot>>)> {
    let group = arguments.group.as_str();
    let lag = collect_once(client.cluster(), group, topics).await?;
    let names: BTreeSet<&Arc<str>> = lag.rows.iter().map(|row| &row.topic).collect();
    let is_wanted = arguments.seconds || arguments.status;
    if is_wanted && watch.is_none() && !names.is_empty() {
        let begun = client.lag(group).topics(names.into_iter().cloned());
        let begun = match topics {
            Topics::Committed => begun.topics_committed(),
            Topics::Named(_) => begun,
        };
        let begun = watch.insert(begun.start().await?);
        let _ = timeout(SECOND_LOOK_MAX, begun.changes().changed()).await;
    }
    Ok((lag, watch.as_ref().map(Lag::snapshot)))
}

/// A look, and how it is shown.
struct Shown<'a> {
    lag: &'a GroupLag,
    /// What a row of looks told.
    watched: Option<&'a Snapshot>,
    arguments: &'a LagArguments,
}

impl Shown<'_> {
    fn print(&self, clears: bool) -> Result<()> {
        let Self { lag, arguments, .. } = self;
        let mut out = io::stdout().lock();
        if arguments.json {
            writeln!(out, "{}", self.json())?;
            return Ok(out.flush()?);
        }
        if clears {
            write!(out, "{CLEAR}")?;
        }
        let is_empty = lag.state.as_deref() == Some("Empty");
        if is_empty && !arguments.connect.quiet {
            // As Kafka's tool does, beside the table and not in it.
            let _ = writeln!(
                io::stderr(),
                "Consumer group '{}' has no active members.",
                lag.group
            );
        }
        for (topic, code) in &lag.refused {
            let _ = writeln!(io::stderr(), "topic {topic} is not shown: {}", why(*code));
        }
        self.table().write(&mut out)?;
        if arguments.watch.is_some() {
            writeln!(out)?;
        }
        Ok(out.flush()?)
    }

    /// What is known of a partition by watching it.
    fn watched(&self, topic: &str, partition: i32) -> Option<&PartitionLag> {
        let mut partitions = self.watched?.topic(topic)?.partitions.iter();
        partitions.find(|one| one.partition == partition)
    }

    fn table(&self) -> Table {
        let Self { lag, arguments, .. } = self;
        let mut names = vec![
            "GROUP",
            "TOPIC",
            "PARTITION",
            "CURRENT-OFFSET",
            "LOG-END-OFFSET",
            "LAG",
        ];
        names.extend(arguments.seconds.then_some("BEHIND"));
        names.extend(arguments.status.then_some("STATUS"));
        names.extend(["CONSUMER-ID", "HOST", "CLIENT-ID"]);
        let mut table = Table::new(names);
        for row in &lag.rows {
            let (owner, watched) = (
                row.owner.as_ref(),
                self.watched(&row.topic, row.lag.partition),
            );
            let mut cells = vec![
                lag.group.to_string(),
                row.topic.to_string(),
                row.lag.partition.to_string(),
                or_dash(row.lag.committed),
                or_dash(row.lag.end),
                or_dash(row.lag.lag),
            ];
            if arguments.seconds {
                cells.push(or_dash(watched.and_then(|one| one.time_lag).map(behind)));
            }
            if arguments.status {
                cells.push(or_dash(watched.map(|one| one.progress.name())));
            }
            cells.push(or_dash(owner.map(|owner| &owner.member_id)));
            cells.push(or_dash(owner.map(|owner| &owner.host)));
            cells.push(or_dash(owner.map(|owner| &owner.client_id)));
            table.push(cells);
        }
        table
    }

    fn json(&self) -> Value {
        let mut told = json(self.lag);
        let partitions = told.get_mut("partitions").and_then(Value::as_array_mut);
        for (told, row) in partitions.into_iter().flatten().zip(&self.lag.rows) {
            let (Value::Object(told), watched) =
                (told, self.watched(&row.topic, row.lag.partition))
            else {
                continue;
            };
            if self.arguments.seconds {
                let time = watched.and_then(|one| one.time_lag);
                let seconds = time.map(|time| time.duration().as_secs_f64());
                let is_least = time.map(|time| matches!(time, TimeLag::AtLeast(_)));
                told.insert("lag_seconds".to_owned(), json!(seconds));
                told.insert("lag_seconds_at_least".to_owned(), json!(is_least));
            }
            if self.arguments.status {
                let status = watched.map(|one| one.progress.name());
                told.insert("group_status".to_owned(), json!(status));
            }
        }
        told
    }
}

/// How far a group is behind; more than what we watched cannot be told.
fn behind(time: TimeLag) -> String {
    let least = match time {
        TimeLag::About(_) => "",
        TimeLag::AtLeast(_) => ">",
    };
    format!("{least}{}", words::time(time.duration()))
}

/// Why brokers do not show a topic.
fn why(code: Code) -> String {
    match code {
        Code::TOPIC_AUTHORIZATION_FAILED => {
            format!("no permission to see it (DESCRIBE on the topic): {code}")
        }
        Code::UNKNOWN_TOPIC_OR_PARTITION => "it does not exist".to_owned(),
        code => code.to_string(),
    }
}

fn json(lag: &GroupLag) -> Value {
    let rows = lag.rows.iter().map(|row| {
        let owner = row.owner.as_ref().map(|owner| {
            json!({
                "consumer_id": &*owner.member_id,
                "instance_id": owner.instance_id.as_deref(),
                "client_id": &*owner.client_id,
                "host": &*owner.host,
            })
        });
        json!({
            "topic": &*row.topic,
            "partition": row.lag.partition,
            "current_offset": row.lag.committed,
            "log_start_offset": row.lag.log_start,
            "log_end_offset": row.lag.end,
            "lag": row.lag.lag,
            "lost": row.lag.lost,
            "status": row.lag.status.to_string(),
            "owner": owner,
        })
    });
    let refused = lag.refused.iter();
    let refused =
        refused.map(|(topic, code)| json!({"topic": &**topic, "error": code.to_string()}));
    json!({
        "group": &*lag.group,
        "state": lag.state.as_deref(),
        "lag": total(lag),
        "partitions": rows.collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
    })
}

/// The sum of what is known; `None` when nothing is.
fn total(lag: &GroupLag) -> Option<u64> {
    let known = lag.rows.iter().filter_map(|row| row.lag.lag);
    known.reduce(u64::saturating_add)
}

/// Whether the lag is within the limit. What cannot be told is not within it.
fn judge(lag: &GroupLag, max: u64) -> Result<()> {
    let group = &lag.group;
    if let Some(total) = total(lag).filter(|total| *total > max) {
        return Err(Failure::OverLimit(format!(
            "group {group} has {total} records to read, over the limit of {max}"
        )));
    }
    if let Some((topic, code)) = lag.refused.first() {
        return Err(Failure::error(format!(
            "the lag of group {group} in {topic} cannot be told: {}",
            why(*code)
        )));
    }
    let untold = |status| !matches!(status, LagStatus::Known | LagStatus::NoCommit);
    match lag.rows.iter().find(|row| untold(row.lag.status)) {
        Some(row) => Err(Failure::error(format!(
            "the lag of group {group} in {}-{} cannot be told: {}",
            row.topic, row.lag.partition, row.lag.status
        ))),
        None => Ok(()),
    }
}
