//! `ottla consume`: prints records.

mod end;
mod format;
mod json;
mod offset;
mod open;
mod printer;

pub(crate) use format::{Template, unescape};
pub(crate) use offset::Offset;

use crate::arguments::ConsumeArguments;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::session;
use end::Ends;
use offset::Range;
use ottla::consumer::{Consumer, ConsumerRecord, Start};
use ottla::{Client, TopicPartition};
use printer::Printer;
use std::collections::BTreeMap;
use std::time::Duration;

/// Records taken at a time. All of them are printed and flushed before the next are asked for,
/// because asking says that we are done with them, and a group then commits them.
const RECORDS_MAX: usize = 2_000;
/// How long to wait for records before looking whether the end is reached.
const PATIENCE: Duration = Duration::from_millis(100);

pub(crate) async fn run(arguments: ConsumeArguments) -> Result<()> {
    let range = Range::new(&arguments.offsets).map_err(Failure::Usage)?;
    let how = open::how(&arguments, range.from)?;
    // Looking at a topic must not make it.
    let own = [("allow.auto.create.topics", "false")];
    let client = session::connect(&arguments.connect, &own).await?;
    let interrupt = Interrupt::listen();
    let mut consumer = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        consumer = open::open(&client, &arguments, how) => consumer?,
    };
    let mut job = Job {
        printer: Printer::new(&arguments),
        ends: Ends::new(arguments.exit, arguments.read_committed),
        until: range.until,
        left: arguments.count,
        client,
    };
    let result = job.pump(&mut consumer, &interrupt).await;
    // What was printed is committed also when something went wrong afterwards.
    let closed = consumer.close().await;
    result?;
    Ok(closed?)
}

struct Job {
    client: Client,
    printer: Printer,
    ends: Ends,
    /// Records of this time or later are not printed.
    until: Option<i64>,
    /// Records still to print.
    left: Option<u64>,
}

impl Job {
    async fn pump(&mut self, consumer: &mut Consumer, interrupt: &Interrupt) -> Result<()> {
        while !interrupt.is_asked() {
            let most = match self.left {
                Some(left) => usize::try_from(left).unwrap_or(usize::MAX).min(RECORDS_MAX),
                None => RECORDS_MAX,
            };
            if most == 0 {
                break;
            }
            let records = tokio::select! {
                biased;
                () = interrupt.wait() => break,
                records = consumer.poll(most, PATIENCE) => records?,
            };
            self.ends.came(records.len());
            if let Err(failure) = self.print(consumer, &records) {
                give_back(consumer, &records);
                return Err(failure);
            }
            if self.ends.reached(consumer) {
                break;
            }
        }
        Ok(())
    }

    fn print(&mut self, consumer: &mut Consumer, records: &[ConsumerRecord]) -> Result<()> {
        let view = self.client.cluster().view();
        for record in records {
            if self.is_late(record) {
                self.finish_partition(consumer, record)?;
                continue;
            }
            let leader = |record: &ConsumerRecord| {
                let (broker, _) = view.leader(record.topic(), record.partition())?;
                Some(broker.0)
            };
            self.printer.print(record, leader)?;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(1);
            }
        }
        Ok(self.printer.flush()?)
    }

    fn is_late(&self, record: &ConsumerRecord) -> bool {
        self.until.is_some_and(|until| record.timestamp >= until)
    }

    /// The partition's records from this one on are not wanted, and not committed.
    fn finish_partition(&mut self, consumer: &mut Consumer, record: &ConsumerRecord) -> Result<()> {
        let partition = record.topic_partition();
        if self.ends.finish(partition.clone()) {
            consumer.seek(partition, Start::Offset(record.offset, None))?;
            consumer.pause([partition]);
        }
        Ok(())
    }
}

/// Goes back to before these records, so that closing does not commit them.
fn give_back(consumer: &mut Consumer, records: &[ConsumerRecord]) {
    let mut firsts: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    for record in records {
        let partition = record.topic_partition().clone();
        firsts.entry(partition).or_insert(record.offset);
    }
    for (partition, offset) in firsts {
        // A partition that was taken away meanwhile is not ours to commit anyway.
        let _ = consumer.seek(&partition, Start::Offset(offset, None));
    }
}
