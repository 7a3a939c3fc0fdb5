//! Transactional producers, one heir after another, in the same weather: what is committed is seen
//! whole and once, what is not is never seen, and a group's offsets go with it.

use crate::callers;
use crate::fault::Kind;
use crate::world::{AFTERMATH, FAULTS_MIN, World};
use ottla::{Committed, Decision, Delivery, Error, GroupMetadata, Record, TopicPartition};
use ottla::{Transaction, TransactionalProducer, WriteOutcome};
use ottla_partitioner::Sticky;
use ottla_producer::Config;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The transactional id of them all.
pub(crate) const ID: &str = "copier";
/// The group whose offsets they commit.
pub(crate) const GROUP: &str = "copies";

/// One transaction: what was put in, and what its caller was told.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Each record with its partition, in the order in which they were taken.
    records: Vec<(u32, i32)>,
    /// Where its records were said to lie.
    told: BTreeMap<u32, Option<i64>>,
    /// The group's offset in it.
    offset: Option<i64>,
    /// How it ended; `None` when that is in doubt.
    end: Option<Decision>,
    /// It was said that it can only be aborted.
    broken: bool,
    /// Its commit was in doubt for a while at least.
    doubted: bool,
    /// An heir was built while it was open.
    pub(crate) fenced: bool,
}

impl Round {
    /// The partition of each record that was put in.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.records.iter().map(|(_, partition)| *partition)
    }

    /// What it is counted as.
    pub(crate) fn what(&self) -> &'static str {
        match self.end {
            _ if self.doubted => "commit in doubt",
            _ if self.broken => "transaction broken",
            Some(Decision::Commit) => "transaction committed",
            Some(Decision::Abort) => "transaction aborted",
            None => "its end is not known",
        }
    }
}

/// Whoever writes: its connections, and what it draws its ways from.
struct Writer<'w> {
    world: &'w World,
    cluster: ottla_wire::Cluster,
    config: Config,
    dice: fastrand::Rng,
}

/// Everything, from the first producer to the reckoning.
pub(crate) async fn live(world: &World) -> Result<(), String> {
    let (cluster, config) = world.connect().await;
    let config = Config {
        transactional_id: Some(ID.into()),
        // Shorter, and no heir is ever built while a coordinator is away.
        max_block: config.max_block.max(Duration::from_millis(200)),
        ..config
    };
    let mut dice = fastrand::Rng::with_seed(world.plan.seed ^ 1 << 40);
    world.cluster.set_transaction_version(dice.i16(1..3));
    let mut writer = Writer {
        world,
        cluster,
        config,
        dice,
    };
    world.weather().await;
    let mut producer = writer.heir().await?;
    while begun(world) < world.plan.records || !world.is_enough() {
        if begun(world) >= world.plan.records && world.struck() < FAULTS_MIN {
            world.strike(&mut writer.dice, Kind::DisconnectBefore).await;
        }
        if let Some(heir) = writer.round(&mut producer).await? {
            let zombie = std::mem::replace(&mut producer, heir);
            // Its end is no news.
            let _ = zombie.close().await;
        }
    }
    world.calm().await;
    writer.probe(&mut producer).await?;
    sleep(AFTERMATH).await;
    let metrics = producer.metrics();
    *world.verdicts.lock().unwrap() = metrics.verdicts;
    let left = (metrics.buffer_used_bytes, metrics.records_pending);
    if left != (0, 0) {
        return Err(format!("bytes and records left over: {left:?}"));
    }
    producer
        .close()
        .await
        .map_err(|error| format!("close: {error}"))?;
    check(world)
}

fn begun(world: &World) -> u32 {
    world.book.lock().unwrap().begun()
}

impl Writer<'_> {
    /// The next producer of the same id. Whatever refuses it goes by.
    async fn heir(&mut self) -> Result<TransactionalProducer, String> {
        let limit = Instant::now() + Duration::from_secs(600);
        loop {
            let sticky = Arc::new(Sticky::default());
            let (cluster, config) = (self.cluster.clone(), self.config.clone());
            match TransactionalProducer::new(cluster, config, sticky).await {
                Ok(heir) => {
                    self.world.trace.note(format_args!("an heir"));
                    return Ok(heir);
                }
                Err(error) if Instant::now() > limit => return Err(format!("no heir: {error}")),
                Err(error) => self.world.trace.note(format_args!("no heir yet: {error}")),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// One transaction. Gives the next producer when this one is of no further use.
    async fn round(
        &mut self,
        producer: &mut TransactionalProducer,
    ) -> Result<Option<TransactionalProducer>, String> {
        let transaction = match producer.begin().await {
            Ok(transaction) => transaction,
            Err(error) => {
                self.world.trace.note(format_args!("no begin: {error}"));
                return match error.is_fatal() {
                    true => self.heir().await.map(Some),
                    false => Ok(None),
                };
            }
        };
        let mut round = Round::default();
        let mut deliveries = Vec::new();
        let failed = self.fill(&transaction, &mut round, &mut deliveries).await;
        let mut heir = None;
        if self.dice.u8(0..12) == 0 {
            heir = Some(self.heir().await?);
            round.fenced = true;
        }
        let commits = failed.is_none() && self.dice.u8(0..5) > 0;
        self.end(transaction, &mut round, commits).await?;
        if round.end.is_none() {
            round.doubted = true;
            // Perhaps it becomes known in good time.
            match producer.settle().await {
                Ok(end) => round.end = end,
                Err(error) => self.world.trace.note(format_args!("in doubt: {error}")),
            }
        }
        self.listen(&mut round, deliveries)?;
        self.world.trace.note(format_args!("{round:?}"));
        self.world.rounds.lock().unwrap().push(round);
        Ok(heir)
    }

    /// Puts records in, and mostly the group's offset; gives the error that only an abort can follow.
    async fn fill(
        &mut self,
        transaction: &Transaction<'_>,
        round: &mut Round,
        deliveries: &mut Vec<(u32, Delivery)>,
    ) -> Option<Error> {
        for _ in 0..self.dice.u8(1..12) {
            let number = self.world.weather().await;
            match self.enqueue(transaction, number).await {
                Ok(delivery) => {
                    round.records.push((number, delivery.partition()));
                    deliveries.push((number, delivery));
                }
                Err(error) if error.requires_abort() || error.is_fatal() => return Some(error),
                Err(error) => self.world.trace.note(format_args!("not taken: {error}")),
            }
            if self.dice.u8(0..3) == 0 {
                sleep(Duration::from_millis(self.dice.u64(0..100))).await;
            }
        }
        // Whether one in doubt is committed is seen by its records.
        if round.records.is_empty() || self.dice.u8(0..3) == 0 {
            return None;
        }
        let offset = i64::from(begun(self.world));
        let partition = TopicPartition::new(self.world.plan.topic, 0);
        let committed = Committed::at(offset);
        let offsets = BTreeMap::from([(partition, committed)]);
        let group = GroupMetadata::outside(GROUP);
        match transaction.send_offsets(group, offsets).await {
            Ok(()) => round.offset = Some(offset),
            Err(error) => {
                self.world.trace.note(format_args!("no offsets: {error}"));
                return Some(error);
            }
        }
        None
    }

    async fn enqueue(
        &mut self,
        transaction: &Transaction<'_>,
        number: u32,
    ) -> ottla::Result<Delivery> {
        let plan = &self.world.plan;
        let value = callers::value(number, plan.value_bytes_max).into();
        let key = callers::key(number, plan);
        let mut record = callers::with_value(Record::to(plan.topic), number, &value);
        match &key {
            Some(key) => record = record.key(key),
            None if self.dice.bool() => {
                record = record.partition(self.dice.i32(0..plan.partitions));
            }
            None => {}
        }
        transaction.enqueue(record).await
    }

    /// Ends it, and enters how.
    async fn end(
        &mut self,
        transaction: Transaction<'_>,
        round: &mut Round,
        commits: bool,
    ) -> Result<(), String> {
        round.end = Some(Decision::Abort);
        if !commits {
            // Whatever comes of it, nothing of an abort is ever committed.
            match self.dice.bool() {
                true => drop(transaction),
                false => drop(transaction.abort().await),
            }
            return Ok(());
        }
        match transaction.commit().await {
            Ok(()) if round.fenced && !round.records.is_empty() => {
                return Err(format!("a fenced producer committed {round:?}"));
            }
            Ok(()) => round.end = Some(Decision::Commit),
            Err(error) => {
                self.world.trace.note(format_args!("no commit: {error}"));
                round.broken = error.requires_abort();
                match error.write_outcome() {
                    Some(WriteOutcome::NotWritten) => {}
                    // The heir has ended it.
                    _ if round.fenced => {}
                    Some(_) => round.end = None,
                    None => return Err(format!("nobody says whether it is committed: {error}")),
                }
            }
        }
        Ok(())
    }

    /// Enters what was told of the records.
    fn listen(&self, round: &mut Round, deliveries: Vec<(u32, Delivery)>) -> Result<(), String> {
        for (number, delivery) in deliveries {
            match delivery.outcome() {
                Some(Ok(metadata)) => {
                    round.told.insert(number, metadata.offset);
                }
                _ if round.end == Some(Decision::Commit) && !round.broken => {
                    return Err(format!("{number} was committed before it was acknowledged"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// After the weather: a transaction over every partition can be committed again within minutes.
    async fn probe(&mut self, producer: &mut TransactionalProducer) -> Result<(), String> {
        let limit = Instant::now() + Duration::from_secs(300);
        loop {
            if let Some(heir) = self.round(producer).await? {
                let zombie = std::mem::replace(producer, heir);
                let _ = zombie.close().await;
            }
            let committed = |round: &Round| {
                round.end == Some(Decision::Commit) && !round.records.is_empty() && !round.fenced
            };
            if self
                .world
                .rounds
                .lock()
                .unwrap()
                .last()
                .is_some_and(committed)
            {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err("nothing is committed any more".to_owned());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Every promise about what a reader sees that sees only what is committed.
fn check(world: &World) -> Result<(), String> {
    let topic = world.plan.topic;
    let rounds = world.rounds.lock().unwrap();
    let mut seen: BTreeMap<u32, (i32, i64)> = BTreeMap::new();
    for partition in (0..).take_while(|p| world.cluster.leader_epoch(topic, *p).is_some()) {
        let mut last = None;
        for record in world.cluster.committed_log(topic, partition) {
            let place = (partition, record.offset);
            let number = callers::number_of(&record, &world.plan)
                .ok_or_else(|| format!("{place:?}: a record with other bytes than were sent"))?;
            if last >= Some(number) {
                return Err(format!("{place:?}: {number} comes after {last:?}"));
            }
            last = Some(number);
            if let Some(before) = seen.insert(number, place) {
                return Err(format!("{number} lies at {before:?} and at {place:?}"));
            }
        }
        let end = world.cluster.end_offset(topic, partition);
        let stable = world.cluster.last_stable(topic, partition);
        if stable != end {
            return Err(format!("{partition} is stable to {stable:?} of {end:?}"));
        }
    }
    let mut offset = None;
    for round in rounds.iter() {
        if is_seen(round, &mut seen).map_err(|breach| format!("{breach}: {round:?}"))? {
            offset = round.offset.or(offset);
        }
    }
    if let Some((number, place)) = seen.first_key_value() {
        return Err(format!("{number} at {place:?} is nobody's"));
    }
    let committed = world.cluster.committed(GROUP, topic, 0);
    if committed != offset {
        return Err(format!("the group is at {committed:?}, not at {offset:?}"));
    }
    Ok(())
}

/// Whether a transaction is seen, and whole. What is its own is taken out of what is seen.
fn is_seen(round: &Round, seen: &mut BTreeMap<u32, (i32, i64)>) -> Result<bool, String> {
    let mut count = 0;
    for (number, partition) in &round.records {
        let Some((at, offset)) = seen.remove(number) else {
            continue;
        };
        count += 1;
        let told = round.told.get(number).copied().flatten();
        if at != *partition || told.is_some_and(|told| told != offset) {
            return Err(format!("{number} lies at {offset} of {at}"));
        }
    }
    if count != 0 && count != round.records.len() {
        return Err(format!("{count} records of it are seen"));
    }
    match round.end {
        Some(Decision::Commit) if count != round.records.len() => Err("lost".to_owned()),
        Some(Decision::Abort) if count > 0 => Err("seen".to_owned()),
        Some(decision) => Ok(decision == Decision::Commit),
        None => Ok(count > 0),
    }
}
