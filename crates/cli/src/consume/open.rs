//! From flags to a consumer.

use super::offset::From;
use crate::arguments::ConsumeArguments;
use crate::failure::{Failure, Result};
use ottla::consumer::{Consumer, Isolation, OffsetReset, Start};
use ottla::{Client, TopicPartition};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a topic may take to be found.
const TOPIC_WITHIN: Duration = Duration::from_secs(5);
/// How long the ends of the partitions may take to be found, and how often we look.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// In which way to consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// As a member of the group, which shares the partitions out. Without a commit a partition
    /// begins as the policy says; `None` leaves that to the properties.
    Member(Option<OffsetReset>),
    /// The partitions that were named, or all.
    Alone(From),
}

/// Checks what the flags say together.
pub(super) fn how(arguments: &ConsumeArguments, from: Option<From>) -> Result<How> {
    let in_group = arguments.group.is_some();
    match (in_group, from) {
        (false, Some(From::Stored)) => Err(Failure::usage("--offset stored needs a --group")),
        (false, from) => Ok(How::Alone(from.unwrap_or(From::Beginning))),
        (true, from) if !arguments.partitions.is_empty() => {
            Ok(How::Alone(from.unwrap_or(From::Stored)))
        }
        (true, None | Some(From::Stored)) => Ok(How::Member(None)),
        (true, Some(From::Beginning)) => Ok(How::Member(Some(OffsetReset::Earliest))),
        (true, Some(From::End)) => Ok(How::Member(Some(OffsetReset::Latest))),
        (true, Some(_)) => Err(Failure::usage(
            "a group goes on from where it has committed: --offset takes beginning, end or stored, \
             unless --partition names what to read",
        )),
    }
}

/// Opens the consumer.
pub(super) async fn open(
    client: &Client,
    arguments: &ConsumeArguments,
    how: How,
) -> Result<Consumer> {
    let mut builder = client.consumer()?;
    if let Some(group) = &arguments.group {
        builder = builder.group(group);
    }
    if arguments.read_committed {
        builder = builder.isolation(Isolation::ReadCommitted);
    }
    let partitions = partitions(client, arguments).await?;
    let from = match how {
        How::Member(reset) => {
            if let Some(reset) = reset {
                builder = builder.auto_offset_reset(reset);
            }
            return Ok(builder.topics(&arguments.topics).build().await?);
        }
        How::Alone(from) => from,
    };
    if client.properties().get("auto.offset.reset").is_none() {
        // An offset that the log no longer has is before its start, mostly.
        builder = builder.auto_offset_reset(OffsetReset::Earliest);
    }
    let start = from.start();
    let assigned = partitions.iter().map(|one| (one.clone(), start));
    let mut consumer = builder.assign(assigned).build().await?;
    if let From::Last(count) = from {
        go_back(&mut consumer, &partitions, count).await?;
    }
    Ok(consumer)
}

/// The partitions to read; finds out whether the topics are there.
async fn partitions(client: &Client, arguments: &ConsumeArguments) -> Result<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    for name in &arguments.topics {
        let deadline = Instant::now() + TOPIC_WITHIN;
        let topic = client.cluster().topic(name, deadline).await?;
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let numbers = match arguments.partitions.as_slice() {
            [] => (0..count).collect(),
            named => named.to_vec(),
        };
        if let Some(missing) = numbers.iter().find(|number| **number >= count) {
            return Err(Failure::error(format!(
                "topic {name} has {count} partitions and no number {missing}"
            )));
        }
        let of_topic = numbers.into_iter();
        partitions.extend(of_topic.map(|n| TopicPartition::new(topic.name.clone(), n)));
    }
    partitions.sort();
    partitions.dedup();
    Ok(partitions)
}

/// Waits until the ends are known, and goes so many records back from there.
async fn go_back(consumer: &mut Consumer, partitions: &[TopicPartition], count: i64) -> Result<()> {
    let deadline = Instant::now() + ENDS_WITHIN;
    for partition in partitions {
        let end = loop {
            if let Some(end) = consumer.position(partition) {
                break end;
            }
            if Instant::now() >= deadline {
                let clause = format!("the end of {partition} could not be found");
                return Err(Failure::error(clause));
            }
            sleep(LOOK_EVERY).await;
        };
        let offset = end.saturating_sub(count).max(0);
        consumer.seek(partition, Start::Offset(offset, None))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn how_of(flags: &[&str]) -> Result<How> {
        let words = ["ottla", "consume", "orders"].iter().chain(flags);
        let Command::Consume(arguments) = Arguments::parse_from(words).command else {
            panic!("consume");
        };
        let range = super::super::Range::new(&arguments.offsets).unwrap();
        how(&arguments, range.from)
    }

    #[test]
    fn alone_we_begin_at_the_beginning_and_in_a_group_where_it_has_committed() {
        assert_eq!(how_of(&[]).unwrap(), How::Alone(From::Beginning));
        assert_eq!(how_of(&["-o", "-5"]).unwrap(), How::Alone(From::Last(5)));
        assert_eq!(how_of(&["-g", "g"]).unwrap(), How::Member(None));
        let earliest = How::Member(Some(OffsetReset::Earliest));
        assert_eq!(how_of(&["-g", "g", "-o", "beginning"]).unwrap(), earliest);
        assert_eq!(
            how_of(&["-g", "g", "-p", "1"]).unwrap(),
            How::Alone(From::Stored)
        );
    }

    #[test]
    fn what_contradicts_itself_is_wrong_usage() {
        for flags in [&["-o", "stored"][..], &["-g", "g", "-o", "42"]] {
            let failure = how_of(flags).unwrap_err();
            assert!(matches!(failure, Failure::Usage(_)), "{flags:?}");
        }
    }
}
