//! The way of failed records to their dead letter topics.

use super::{DeadLetters, Failure, Letter};
use crate::delivery::{Completion, Delivery, RecordMetadata};
use crate::inbox::Message;
use crate::producer::{Producer, Shared};
use ottla_proto::batch::{BatchRef, RecordRef, Records, SealedRecords};
use ottla_proto::{Error, ErrorKind, Header, Record, Result};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::oneshot;

/// How much memory dead letters may take while they are on their way, beside the buffer: they own
/// their bytes, since a buffer full of failed batches could never take their dead letters in.
#[derive(Debug)]
pub(crate) struct Graveyard {
    used_bytes: AtomicUsize,
    limit_bytes: usize,
}

impl Graveyard {
    /// As much as the buffer itself.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            used_bytes: AtomicUsize::new(0),
            limit_bytes,
        }
    }

    fn reserve(&self, bytes: usize) -> Option<Plot<'_>> {
        let room = |used: usize| {
            used.checked_add(bytes)
                .filter(|&sum| sum <= self.limit_bytes)
        };
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let taken = self.used_bytes.fetch_update(set, fetch, room);
        taken.ok().map(|_| Plot { yard: self, bytes })
    }
}

/// Memory for one batch's dead letters.
struct Plot<'y> {
    yard: &'y Graveyard,
    bytes: usize,
}

impl Drop for Plot<'_> {
    fn drop(&mut self) {
        self.yard.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A batch, or a part of one, that failed for good.
#[derive(Debug)]
pub(crate) struct Burial {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) records: SealedRecords,
    pub(crate) attempts: u32,
    pub(crate) ending: Ending,
    pub(crate) turn: Turn,
}

/// Tells when the letters of the batch before are on their way.
pub(crate) type Predecessor = Option<oneshot::Receiver<()>>;

/// A batch's place among those of its partition that have dead letters, so that these stand in their
/// records' order: who waits for a topic is woken in any order.
#[derive(Debug)]
pub(crate) struct Turn {
    before: Predecessor,
    /// Its end tells the next one.
    done: Option<oneshot::Sender<()>>,
}

impl Turn {
    /// The turn behind the last one, which this is from now on.
    pub(crate) fn behind(last: &mut Predecessor) -> Self {
        let (done, next) = oneshot::channel();
        Self {
            before: last.replace(next),
            done: Some(done),
        }
    }

    async fn comes(&mut self, deadline: tokio::time::Instant) {
        if let Some(before) = self.before.take() {
            // However the one before ended.
            let _ = tokio::time::timeout_at(deadline, before).await;
        }
    }

    /// The next one's turn.
    fn end(&mut self) {
        self.done = None;
    }
}

/// Who waits for the records. However the burial ends, they hear of their failure.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) completion: Arc<Completion>,
    pub(crate) serial: u64,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) error: Error,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let error = self.error.clone();
        self.completion
            .complete_part(self.first, self.count, Err(error));
    }
}

/// Tells the driver that a burial has ended, however it ended: a flush waits for it.
struct Settled<'s> {
    shared: &'s Shared,
    serial: u64,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        let serial = self.serial;
        self.shared.shop.inbox.push(Message::Buried { serial });
    }
}

/// Writes the dead letters of a batch, then tells those who wait for its records.
pub(crate) async fn bury(shared: Arc<Shared>, policy: Arc<DeadLetters>, burial: Burial) {
    // Before what ends below, so that it ends after that.
    let _settled = Settled {
        shared: &shared,
        serial: burial.ending.serial,
    };
    let Burial {
        topic,
        partition,
        records,
        attempts,
        mut ending,
        mut turn,
    } = burial;
    let failure = Failure {
        topic: &topic,
        partition: Some(partition),
        error: &ending.error,
        attempts,
        at: shared.now_millis(),
    };
    let count = u64::from(ending.count);
    let target = policy.topic_of(&topic);
    let deadline = tokio::time::Instant::now() + shared.config.max_block;
    let (written, why) = match shared.graveyard.reserve(records.raw_size_bytes()) {
        None => {
            // Whoever is waited for below may wait for this memory.
            drop(records);
            (0, Some(no_room(&shared.graveyard)))
        }
        Some(_plot) => match letters(&policy, records, &failure) {
            Ok(letters) => {
                let place = (&*target, partition);
                send(&shared, place, letters, &mut turn, deadline).await
            }
            Err(error) => (0, Some(error)),
        },
    };
    // The next one's letters stand behind those of the one before, also without ours between.
    turn.comes(deadline).await;
    drop(turn);
    let lost = count.saturating_sub(written);
    shared.counters.dead_letters(written, true);
    let word = if lost == 0 {
        format!("its dead letter is in {target}")
    } else {
        shared.counters.dead_letters(lost, false);
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        tracing::error!(
            topic = &*topic,
            partition,
            records = lost,
            error = %ending.error,
            "records failed and have no dead letter in {target}{why}"
        );
        format!("{lost} of {count} dead letters are not in {target}{why}")
    };
    ending.error = ending.error.clone().with_message(&word);
}

/// Writes the dead letter of one record that was refused or failed elsewhere.
pub(crate) async fn bury_one(
    shared: &Arc<Shared>,
    policy: &DeadLetters,
    record: &Record<'_>,
    error: &Error,
) -> Result<RecordMetadata> {
    let failure = Failure {
        topic: record.topic,
        partition: record.partition,
        error,
        attempts: 0,
        at: shared.now_millis(),
    };
    let letter = Letter::write(policy.format, record, &failure);
    let target = policy.topic_of(record.topic);
    let producer = Producer::of_driver(Arc::clone(shared));
    let written = async {
        let delivery = enqueue(&producer, &target, record.partition, &letter).await?;
        delivery.await
    };
    let written = written.await;
    shared.counters.dead_letters(1, written.is_ok());
    written
}

/// Reads the failed records; their memory is free when this returns.
fn letters(
    policy: &DeadLetters,
    records: SealedRecords,
    failure: &Failure<'_>,
) -> Result<Vec<Letter>> {
    let whole = records.to_bytes();
    let cap_bytes = records.raw_size_bytes();
    drop(records);
    let batch = BatchRef::parse(&whole)?;
    let section = batch.decompressed(cap_bytes)?;
    let write = |record: Result<RecordRef<'_>>| {
        let record = record?;
        Ok(Letter::write(policy.format, &borrowed(&record), failure))
    };
    Records::new(&batch.header, &section).map(write).collect()
}

fn borrowed<'a>(record: &RecordRef<'a>) -> Record<'a> {
    let headers = record.headers.clone().map(|header| Header {
        // It was written from text.
        key: header.key_str().unwrap_or_default(),
        value: header.value,
    });
    Record {
        key: record.key,
        value: record.value,
        headers: Cow::Owned(headers.collect()),
        timestamp: Some(record.timestamp),
        ..Record::to("")
    }
}

/// Sends the letters in their order; gives how many were acknowledged, and why others were not. All
/// of them together wait for their turn and for room in the buffer until the deadline.
async fn send(
    shared: &Arc<Shared>,
    (target, partition): (&str, i32),
    letters: Vec<Letter>,
    turn: &mut Turn,
    deadline: tokio::time::Instant,
) -> (u64, Option<Error>) {
    let producer = Producer::of_driver(Arc::clone(shared));
    if let Err(error) = producer.prepare(target).await {
        return (0, Some(error));
    }
    turn.comes(deadline).await;
    let mut deliveries: Vec<Delivery> = Vec::with_capacity(letters.len());
    let mut why = None;
    for letter in letters {
        let placing = enqueue(&producer, target, Some(partition), &letter);
        let placed = tokio::time::timeout_at(deadline, placing).await;
        match placed.unwrap_or_else(|_| Err(no_place())) {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => {
                let hopeless = *error.kind() != ErrorKind::RecordTooLarge;
                why = Some(error);
                if hopeless {
                    // What holds for one holds for all.
                    break;
                }
            }
        }
    }
    turn.end();
    let mut written = 0;
    for delivery in deliveries {
        match delivery.await {
            Ok(_) => written += 1,
            Err(error) => why = Some(error),
        }
    }
    (written, why)
}

/// Puts a letter into the buffer, for the partition of its record's number modulo the dead letter
/// topic's count (KIP-1191).
async fn enqueue(
    producer: &Producer,
    target: &str,
    partition: Option<i32>,
    letter: &Letter,
) -> Result<Delivery> {
    producer.prepare(target).await?;
    let headers = letter.headers.iter().map(|(key, value)| Header {
        key,
        value: value.as_deref(),
    });
    let count = producer.partition_count(target).max(1);
    let record = Record {
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: Cow::Owned(headers.collect()),
        timestamp: letter.timestamp,
        partition: partition.map(|partition| partition % count),
        ..Record::to(target)
    };
    producer.enqueue_as_it_is(record).await
}

fn no_place() -> Error {
    let what = "the buffer had no room for a batch's dead letters within max.block.ms";
    Error::new(ErrorKind::BufferFull, what)
}

fn no_room(yard: &Graveyard) -> Error {
    let limit = yard.limit_bytes;
    let what = format!("the dead letters on their way take {limit} bytes (buffer.memory) already");
    Error::new(ErrorKind::BufferFull, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_on_their_way_are_bounded_and_give_their_room_back() {
        let yard = Graveyard::new(100);
        let first = yard.reserve(60).unwrap();
        assert!(yard.reserve(41).is_none());
        let second = yard.reserve(40).unwrap();
        drop(first);
        assert!(yard.reserve(60).is_some());
        drop(second);
        assert_eq!(yard.used_bytes.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_when_the_one_before_has_ended_and_at_the_deadline_at_the_latest() {
        let second = std::time::Duration::from_secs(1);
        let mut last = None;
        let first = Turn::behind(&mut last);
        let mut others: Vec<Turn> = (0..3).map(|_| Turn::behind(&mut last)).collect();
        let begun = tokio::time::Instant::now();
        let [second_turn, third, fourth] = &mut others[..] else {
            unreachable!();
        };
        let comes = second_turn.comes(begun + 10 * second);
        tokio::time::timeout(60 * second, comes).await.unwrap();
        assert_eq!(begun.elapsed(), 10 * second, "the first one hangs");
        second_turn.comes(begun + 20 * second).await;
        assert_eq!(begun.elapsed(), 10 * second, "once is enough");
        let ends = async {
            tokio::time::sleep(second).await;
            second_turn.end();
        };
        tokio::join!(third.comes(begun + 60 * second), ends);
        assert_eq!(
            begun.elapsed(),
            11 * second,
            "behind the second, not the first"
        );
        fourth.comes(begun).await;
        assert_eq!(begun.elapsed(), 11 * second, "its deadline has passed");
        drop(first);
    }
}
