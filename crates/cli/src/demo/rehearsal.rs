//! Before the load: records that do not count, until the cluster is as quick as it is going to be.
//!
//! Brokers that have just started, or that keep a new group's offsets for the first time, take
//! seconds for what they do in milliseconds a minute later. A comparison that begins in those seconds
//! measures them, and not how partitions are chosen.

use super::scene::PARTITIONS;
use super::side::Names;
use crate::failure::{Failure, Result};
use ottla::lag::{Topics, collect_once};
use ottla::{Client, Record};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// It ends when this many turns in a row were quick. A turn is a record to each partition, written,
/// read and committed.
const QUICK_TURNS: u32 = 5;

/// A turn is quick when it takes no longer than this: twice the time between two commits.
const QUICK: Duration = Duration::from_millis(200);

/// It ends then anyway: a cluster that is always slow shall be seen as it is.
const ENDS_AFTER: Duration = Duration::from_secs(30);

/// How often it is looked whether all is committed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Too short to be taken for a record of the load.
const VALUE: &[u8] = b"rehearsal";

/// Rehearses with a group whose members read already.
///
/// # Errors
/// What broke; that the cluster is slow is no error.
pub(super) async fn rehearse(client: &Client, names: &Names) -> Result<()> {
    let end = Instant::now() + ENDS_AFTER;
    let producer = client.producer().build()?;
    let mut quick = 0;
    while quick < QUICK_TURNS {
        let began = Instant::now();
        let turn = async {
            for partition in (0..).take(PARTITIONS) {
                let record = Record::to(&names.topic).partition(partition).value(VALUE);
                // `flush` waits for it.
                drop(producer.enqueue(record).await?);
            }
            producer.flush().await?;
            while !has_read_all(client, names).await? {
                sleep(LOOK_EVERY).await;
            }
            Ok::<(), Failure>(())
        };
        match timeout_at(end, turn).await {
            Ok(turn) => turn?,
            Err(_) => {
                tracing::warn!("the cluster is slow: the load begins all the same");
                break;
            }
        }
        quick = if began.elapsed() <= QUICK {
            quick + 1
        } else {
            0
        };
    }
    producer.close().await?;
    Ok(())
}

async fn has_read_all(client: &Client, names: &Names) -> Result<bool> {
    let topics = Topics::Named(vec![Arc::clone(&names.topic)]);
    let group = collect_once(client.cluster(), &names.group, &topics).await?;
    let rows = group.rows.iter();
    Ok(rows.filter(|row| row.lag.lag == Some(0)).count() == PARTITIONS)
}
