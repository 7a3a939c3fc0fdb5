//! `ottla lag`: what a group has still to read.

use crate::arguments::LagArguments;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{Table, or_dash};
use crate::session;
use ottla::Code;
use ottla::lag::{GroupLag, LagStatus, Topics, collect_once};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use tokio::time::sleep;

/// Clears the terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(crate) async fn run(arguments: LagArguments) -> Result<()> {
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
    loop {
        let lag = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            lag = collect_once(client.cluster(), &arguments.group, &topics) => lag?,
        };
        print(&lag, &arguments, clears)?;
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

fn print(lag: &GroupLag, arguments: &LagArguments, clears: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", json(lag))?;
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
    table(lag).write(&mut out)?;
    if arguments.watch.is_some() {
        writeln!(out)?;
    }
    Ok(out.flush()?)
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

fn table(lag: &GroupLag) -> Table {
    let mut table = Table::new([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ]);
    for row in &lag.rows {
        let owner = row.owner.as_ref();
        table.push([
            lag.group.to_string(),
            row.topic.to_string(),
            row.lag.partition.to_string(),
            or_dash(row.lag.committed),
            or_dash(row.lag.end),
            or_dash(row.lag.lag),
            or_dash(owner.map(|owner| &owner.member_id)),
            or_dash(owner.map(|owner| &owner.host)),
            or_dash(owner.map(|owner| &owner.client_id)),
        ]);
    }
    table
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
