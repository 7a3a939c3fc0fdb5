//! Those who send records: what each record holds, and how it is sent.

use crate::book::Call;
use crate::plan::{End, Plan};
use crate::world::World;
use ottla::{Bytes, ErrorKind, Producer, Record};
use ottla_broker::StoredRecord;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Callers number their records from multiples of this.
const PER_CALLER: u32 = 100_000;

/// The caller whose records ask, after the weather, whether the producer still works.
const PROBER: u32 = 1_000;

/// The numbers of a caller's records.
pub(crate) fn numbers_of(caller: u32) -> Range<u32> {
    caller * PER_CALLER..(caller + 1) * PER_CALLER
}

fn mix(number: u32) -> u32 {
    let mixed = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from(mixed >> 33).unwrap()
}

/// A record's value: its number, then bytes that follow from it.
pub(crate) fn value(number: u32, bytes_max: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    let length = mix(number) as usize % bytes_max;
    value.extend((0..length).map(|at| (at as u32 / 7 + number).to_le_bytes()[0]));
    value
}

/// A record's key, for those that have one: one in three, or most where the others fail.
pub(crate) fn key(number: u32, plan: &Plan) -> Option<Vec<u8>> {
    let has_key = match plan.letters {
        Some(letters) => !mix(number).is_multiple_of(letters.keyless_one_in),
        None => mix(number).is_multiple_of(3),
    };
    has_key.then(|| format!("key-{}", mix(number) % 17).into_bytes())
}

/// The number of a stored record, if every byte of it is as it was sent.
pub(crate) fn number_of(record: &StoredRecord, plan: &Plan) -> Option<u32> {
    let stored = record.value.as_deref()?;
    let number = u32::from_be_bytes(stored.get(..4)?.try_into().ok()?);
    let whole = stored == value(number, plan.value_bytes_max) && record.key == key(number, plan);
    whole.then_some(number)
}

/// One caller's life.
pub(crate) async fn call(world: Arc<World>, producer: Producer, caller: u32) -> Result<(), String> {
    let plan = &world.plan;
    let mut dice = fastrand::Rng::with_seed(plan.seed ^ (u64::from(caller) + 1) << 40);
    let share = plan.records.div_ceil(plan.callers);
    for number in numbers_of(caller).take(share as usize) {
        world.weather().await;
        let early = number % PER_CALLER > share * 2 / 3;
        if number % PER_CALLER == share / 3 && plan.end != End::Calm {
            // So that faults strike although the end comes early.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        if early && plan.end == End::Abandon {
            return Ok(());
        }
        if early && plan.end == End::CloseEarly && caller == 0 {
            world.trace.note(format_args!("close"));
            return producer
                .close()
                .await
                .map_err(|error| format!("close: {error}"));
        }
        one(&world, &producer, &mut dice, number).await;
        if dice.u32(0..plan.flush_one_in) == 0 {
            flush(&world, &producer, caller).await?;
        }
        if dice.u8(0..3) > 0 {
            let pause = dice.u64(0..plan.pause_millis_max);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    Ok(())
}

async fn flush(world: &World, producer: &Producer, caller: u32) -> Result<(), String> {
    world.trace.note(format_args!("flush by {caller}"));
    match producer.flush().await {
        Ok(()) => {
            // Whoever waits for a delivery is woken before, but runs after us.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let told = world.book.lock().unwrap().all_told(caller);
            told.then_some(())
                .ok_or_else(|| "a flush ended before its records".to_owned())
        }
        Err(error) if world.plan.end == End::CloseEarly => {
            world.trace.note(format_args!("flush: {error}"));
            Ok(())
        }
        Err(error) => Err(format!("flush: {error}")),
    }
}

/// Sends one record, in one of the ways that there are.
async fn one(world: &Arc<World>, producer: &Producer, dice: &mut fastrand::Rng, number: u32) {
    let plan = &world.plan;
    let value = Bytes::from(value(number, plan.value_bytes_max));
    let key = key(number, plan);
    let mut record = with_value(Record::to(plan.topic), number, &value);
    match &key {
        Some(key) => record = record.key(key),
        None if dice.bool() => {
            // Now and then a partition that there may be by now.
            let count = plan.partitions + i32::from(dice.u8(0..10) == 0);
            record = record.partition(dice.i32(0..count));
        }
        None => {}
    }
    let taken = if dice.u8(0..8) == 0 {
        Some(producer.try_enqueue(record).map_err(|(error, _)| error))
    } else if dice.u32(0..plan.cancel_one_in) == 0 {
        let patience = Duration::from_millis(dice.u64(0..5));
        tokio::time::timeout(patience, producer.enqueue(record))
            .await
            .ok()
    } else {
        Some(producer.enqueue(record).await)
    };
    enter(world, number, taken);
}

/// Every other value may be kept by its batch.
pub(crate) fn with_value<'r>(record: Record<'r>, number: u32, value: &'r Bytes) -> Record<'r> {
    match number % 2 {
        0 => record.value_bytes(value),
        _ => record.value(value),
    }
}

fn enter(world: &Arc<World>, number: u32, taken: Option<ottla::Result<ottla::Delivery>>) {
    let mut book = world.book.lock().unwrap();
    match taken {
        Some(Ok(delivery)) => {
            let partition = delivery.partition();
            world
                .trace
                .note(format_args!("took {number} for {partition}"));
            book.take(number, partition);
            drop(book);
            world.await_delivery(number, delivery);
        }
        Some(Err(error)) => {
            world.trace.note(format_args!("refused {number}: {error}"));
            book.calls.insert(number, Call::Refused(error));
        }
        None => {
            world.trace.note(format_args!("gave up {number}"));
            book.calls.insert(number, Call::GivenUp);
        }
    }
}

/// One record more than planned.
pub(crate) async fn extra(world: &Arc<World>, producer: &Producer) {
    let number = PROBER * PER_CALLER + world.book.lock().unwrap().begin();
    let value = value(number, world.plan.value_bytes_max);
    let key = key(number, &world.plan);
    let mut record = Record::to(world.plan.topic).value(&value);
    if let Some(key) = &key {
        record = record.key(key);
    }
    let taken = producer.enqueue(record).await;
    enter(world, number, Some(taken));
}

/// After the weather: every partition takes a record again, within a minute.
pub(crate) async fn probe(world: &Arc<World>, producer: &Producer) -> Result<(), String> {
    let plan = &world.plan;
    for partition in 0..plan.partitions {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let number = PROBER * PER_CALLER + world.book.lock().unwrap().begin();
            let (value, key) = (value(number, plan.value_bytes_max), key(number, plan));
            let mut record = Record::to(plan.topic).partition(partition).value(&value);
            if let Some(key) = &key {
                record = record.key(key);
            }
            let taken = producer.enqueue(record).await;
            enter(world, number, Some(taken));
            world.settle().await?;
            match &world.book.lock().unwrap().calls[&number] {
                Call::Taken(taken) if matches!(taken.told, Some((_, Ok(_)))) => break,
                // A batch over the topic's limit fails in any weather.
                Call::Taken(taken) if too_large(taken) => break,
                call if tokio::time::Instant::now() > limit => {
                    return Err(format!("{partition} takes nothing any more: {call:?}"));
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

fn too_large(taken: &crate::book::Taken) -> bool {
    let told = taken.told.as_ref();
    told.is_some_and(|(_, told)| matches!(told, Err(e) if *e.kind() == ErrorKind::RecordTooLarge))
}

impl World {
    /// Counts one more record and brings about the faults whose turn has come; gives how many records
    /// were begun before.
    pub(crate) async fn weather(&self) -> u32 {
        let begun = self.book.lock().unwrap().begin();
        let due = |at: usize| {
            self.plan
                .faults
                .get(at)
                .is_some_and(|(turn, _)| *turn <= begun)
        };
        loop {
            let next = self.book.lock().unwrap().next_fault(due);
            let Some((at, (_, kind))) = next.map(|at| (at, self.plan.faults[at])) else {
                return begun;
            };
            let seed = self.plan.seed.wrapping_mul(31) ^ (at as u64) << 50;
            self.strike(&mut fastrand::Rng::with_seed(seed), kind).await;
        }
    }
}
