//! `ottla topic`: create, ensure, list, describe, delete.

mod ensure;

use crate::arguments::{
    Connect, CreateArguments, DeleteArguments, DescribeArguments, ListArguments, Shape,
    TopicArguments, TopicCommand,
};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{Table, or_dash};
use crate::session;
use ottla::{BrokerId, Client, NewTopic, TopicDescription};
use serde_json::{Value, json};
use std::io::{self, Write};

pub(crate) async fn run(arguments: TopicArguments) -> Result<()> {
    let interrupt = Interrupt::listen();
    let work = async {
        match arguments.command {
            TopicCommand::Create(arguments) => create(arguments).await,
            TopicCommand::Ensure(arguments) => ensure::run(arguments).await,
            TopicCommand::List(arguments) => list(arguments).await,
            TopicCommand::Describe(arguments) => describe(arguments).await,
            TopicCommand::Delete(arguments) => delete(arguments).await,
        }
    };
    tokio::select! {
        biased;
        () = interrupt.wait() => Err(Failure::error("interrupted")),
        done = work => done,
    }
}

async fn connect(connect: &Connect) -> Result<Client> {
    session::connect(connect, &[]).await
}

async fn create(arguments: CreateArguments) -> Result<()> {
    let topic = new_topic(&arguments)?;
    let client = connect(&arguments.connect).await?;
    client.topics().create(topic).await?;
    say(&arguments.connect, &format!("created {}", arguments.topic))
}

fn new_topic(arguments: &CreateArguments) -> Result<NewTopic> {
    let mut topic = NewTopic::new(arguments.topic.as_str());
    if let Some(count) = arguments.partitions {
        topic = topic.partitions(count);
    }
    if let Some(count) = arguments.replication {
        topic = topic.replication(count);
    }
    for (name, value) in &arguments.configs {
        if arguments.compact && name == "cleanup.policy" {
            return Err(Failure::usage(
                "--compact and --config cleanup.policy say the same thing twice",
            ));
        }
        topic = topic.config(name.as_str(), value.as_str());
    }
    if arguments.compact {
        topic = topic.config("cleanup.policy", "compact");
    }
    Ok(topic)
}

async fn delete(arguments: DeleteArguments) -> Result<()> {
    let client = connect(&arguments.connect).await?;
    for topic in &arguments.topics {
        client.topics().delete(topic).await?;
        say(&arguments.connect, &format!("deleted {topic}"))?;
    }
    Ok(())
}

/// What was done goes to standard error: standard output is for what was asked.
fn say(connect: &Connect, what: &str) -> Result<()> {
    if !connect.quiet {
        let _ = writeln!(io::stderr(), "{what}");
    }
    Ok(())
}

async fn list(arguments: ListArguments) -> Result<()> {
    let client = connect(&arguments.connect).await?;
    let topics = client.topics().list().await?;
    let mut out = io::stdout().lock();
    if arguments.output == Shape::Json {
        let topics = topics.iter().map(|topic| {
            json!({
                "name": &*topic.name,
                "id": topic.id.map(|id| id.to_string()),
                "partitions": topic.partitions.len(),
                "replication": topic.partitions.first().map(|p| p.replicas.len()),
            })
        });
        writeln!(out, "{}", Value::from_iter(topics))?;
        return Ok(());
    }
    let mut table = Table::new(["TOPIC", "PARTITIONS", "REPLICATION"]);
    for topic in &topics {
        table.push([
            topic.name.to_string(),
            topic.partitions.len().to_string(),
            or_dash(topic.partitions.first().map(|p| p.replicas.len())),
        ]);
    }
    Ok(table.write(&mut out)?)
}

async fn describe(arguments: DescribeArguments) -> Result<()> {
    let client = connect(&arguments.connect).await?;
    let description = client.topics().describe(&arguments.topic).await?;
    let mut out = io::stdout().lock();
    if arguments.output == Shape::Json {
        writeln!(out, "{}", json_of(&description))?;
        return Ok(());
    }
    let topic = &description.topic;
    writeln!(
        out,
        "{} (id {}), {} partitions",
        topic.name,
        or_dash(topic.id),
        topic.partitions.len()
    )?;
    for (name, value) in &description.configs {
        writeln!(out, "  {name}={}", value.as_deref().unwrap_or(""))?;
    }
    let mut table = Table::new([
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "IN-SYNC",
        "OFFLINE",
    ]);
    for (number, partition) in topic.partitions.iter().enumerate() {
        table.push([
            number.to_string(),
            or_dash(partition.leader),
            or_dash(partition.leader_epoch),
            numbers(&partition.replicas),
            numbers(&partition.in_sync),
            numbers(&partition.offline),
        ]);
    }
    Ok(table.write(&mut out)?)
}

fn numbers(brokers: &[BrokerId]) -> String {
    match brokers {
        [] => "-".to_owned(),
        brokers => {
            let numbers: Vec<String> = brokers.iter().map(BrokerId::to_string).collect();
            numbers.join(",")
        }
    }
}

fn json_of(description: &TopicDescription) -> Value {
    let topic = &description.topic;
    let ids = |brokers: &[BrokerId]| -> Vec<i32> { brokers.iter().map(|id| id.0).collect() };
    let partitions = topic.partitions.iter().enumerate().map(|(number, one)| {
        json!({
            "partition": number,
            "leader": one.leader.map(|id| id.0),
            "leader_epoch": one.leader_epoch,
            "replicas": ids(&one.replicas),
            "in_sync": ids(&one.in_sync),
            "offline": ids(&one.offline),
        })
    });
    let configs = description.configs.iter();
    let configs = configs.map(|(name, value)| (name.to_string(), json!(value.as_deref())));
    json!({
        "name": &*topic.name,
        "id": topic.id.map(|id| id.to_string()),
        "partitions": Value::from_iter(partitions),
        "configs": Value::Object(configs.collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn new(flags: &[&str]) -> Result<NewTopic> {
        let words = ["ottla", "topic", "create", "orders"].iter().chain(flags);
        match Arguments::parse_from(words).command {
            Command::Topic(TopicArguments {
                command: TopicCommand::Create(arguments),
            }) => new_topic(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_is_left_to_the_cluster() {
        assert_eq!(new(&[]).unwrap(), NewTopic::new("orders"));
    }

    #[test]
    fn flags_become_the_topics_settings() {
        let flags = [
            "-p",
            "12",
            "-r",
            "3",
            "-c",
            "retention.ms=1000",
            "--compact",
        ];
        let expected = NewTopic::new("orders")
            .partitions(12)
            .replication(3)
            .config("retention.ms", "1000")
            .config("cleanup.policy", "compact");
        assert_eq!(new(&flags).unwrap(), expected);
        assert!(new(&["--compact", "-c", "cleanup.policy=delete"]).is_err());
    }
}
