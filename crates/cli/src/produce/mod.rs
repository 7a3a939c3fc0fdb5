//! `ottla produce`: each line a record.

mod lines;
mod pace;
mod receipts;
mod shape;

use crate::arguments::ProduceArguments;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::session;
use lines::Lines;
use ottla::{Client, Error, ErrorKind, Header, LagAware, Producer};
use pace::Pace;
use receipts::{Outcome, Receipts};
use shape::Shape;
use std::io::Write;
use std::time::Duration;
use tokio::time::Instant;

/// How long the topic may take to be found.
const TOPIC_WITHIN: Duration = Duration::from_secs(10);
/// The partitioner that is built from a group's lag, and not by its name alone.
const LAG_AWARE: &str = "lag-aware";

pub(crate) async fn run(arguments: ProduceArguments) -> Result<()> {
    check(&arguments)?;
    let shape = Shape::new(&arguments)?;
    let mut own = Vec::new();
    let named = [
        ("compression.type", &arguments.compression),
        ("acks", &arguments.acks),
    ];
    for (name, value) in named {
        own.extend(value.as_deref().map(|value| (name, value)));
    }
    let client = session::connect(&arguments.connect, &own).await?;
    let interrupt = Interrupt::listen();
    let producer = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        producer = open(&client, &arguments) => producer?,
    };
    let began = Instant::now();
    let mut job = Job {
        producer: producer.clone(),
        receipts: Receipts::start(),
        pace: arguments.rate.map(|rate| Pace::new(rate, began)),
        bytes: 0,
        refused: 0,
        first_refusal: None,
    };
    let pumped = tokio::select! {
        biased;
        () = interrupt.wait() => Ok(()),
        pumped = job.pump(&arguments, &shape) => pumped,
    };
    // What was taken is sent, however the reading ended.
    let flushed = producer.close().await;
    let Job {
        receipts,
        bytes,
        refused,
        first_refusal,
        ..
    } = job;
    let mut outcome = receipts.finish().await;
    outcome.add_failures(refused, first_refusal);
    if !arguments.connect.quiet {
        let summary = outcome.summary(bytes, began.elapsed());
        // The records are sent, whether anybody reads this or not.
        let _ = writeln!(std::io::stderr(), "{summary}");
    }
    pumped?;
    conclude(&outcome)?;
    Ok(flushed?)
}

fn check(arguments: &ProduceArguments) -> Result<()> {
    let lag_aware = arguments.partitioner.as_deref() == Some(LAG_AWARE);
    match (lag_aware, &arguments.group) {
        (true, None) => Err(Failure::usage(
            "the lag-aware partitioner needs the --group whose lag it looks at",
        )),
        (false, Some(_)) => Err(Failure::usage("--group goes with --partitioner lag-aware")),
        _ => Ok(()),
    }
}

async fn open(client: &Client, arguments: &ProduceArguments) -> Result<Producer> {
    let topic = arguments.topic.as_str();
    let deadline = Instant::now() + TOPIC_WITHIN;
    client.cluster().topic(topic, deadline).await?;
    let builder = client.producer();
    let builder = match (arguments.partitioner.as_deref(), &arguments.group) {
        (Some(LAG_AWARE), Some(group)) => {
            let lag = client.lag(group.as_str()).topics([topic]).start().await?;
            builder.partitioner(LagAware::new(lag.plan()))
        }
        (Some(name), _) => builder.property("partitioner", name)?,
        (None, _) => builder,
    };
    let producer = builder.build()?;
    producer.prepare(topic).await?;
    Ok(producer)
}

struct Job {
    producer: Producer,
    receipts: Receipts,
    pace: Option<Pace>,
    /// Of keys and values.
    bytes: u64,
    /// Records that the producer did not take.
    refused: u64,
    first_refusal: Option<Error>,
}

impl Job {
    /// Reads lines and enqueues them until there are no more.
    ///
    /// Cancel safety: what was enqueued before stays enqueued.
    async fn pump(&mut self, arguments: &ProduceArguments, shape: &Shape) -> Result<()> {
        let headers = shape.headers();
        if let (true, Some(key)) = (arguments.tombstone, &arguments.key) {
            return self.enqueue(shape, key.as_bytes(), &headers).await;
        }
        let source = match &arguments.file {
            Some(file) => file.display().to_string(),
            None => "standard input".to_owned(),
        };
        let mut blocks = lines::read(arguments.file.clone());
        let mut lines = Lines::default();
        while let Some(block) = blocks.recv().await {
            let block = block.map_err(|error| Failure::io(&source, &error))?;
            lines
                .push(block)
                .map_err(|clause| Failure::error(format!("{source}: {clause}")))?;
            while let Some(line) = lines.next_line() {
                self.enqueue(shape, line, &headers).await?;
            }
            // Nobody knows when the next block comes.
            self.receipts.hand_over().await;
        }
        if let Some(line) = lines.last_line() {
            self.enqueue(shape, line, &headers).await?;
        }
        Ok(())
    }

    async fn enqueue(&mut self, shape: &Shape, line: &[u8], headers: &[Header<'_>]) -> Result<()> {
        if let Some(pace) = &mut self.pace {
            pace.wait().await;
        }
        let record = shape.record(line, headers);
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        match self.producer.enqueue(record).await {
            Ok(delivery) => {
                self.bytes += bytes as u64;
                if self.receipts.push(delivery) {
                    self.receipts.hand_over().await;
                }
                Ok(())
            }
            // The next record may fit.
            Err(error) if *error.kind() == ErrorKind::RecordTooLarge => {
                self.refused += 1;
                self.first_refusal.get_or_insert(error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn conclude(outcome: &Outcome) -> Result<()> {
    let Some(error) = &outcome.first_error else {
        return Ok(());
    };
    let all = outcome.failed + outcome.acknowledged;
    Err(Failure::error(format!(
        "{} of {all} records failed, the first: {error}",
        outcome.failed
    )))
}
