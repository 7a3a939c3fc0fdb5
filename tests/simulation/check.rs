//! Holds the logs against what the callers were told.

use crate::book::{Call, Taken};
use crate::callers;
use crate::fault;
use crate::letters;
use crate::plan::Promise;
use crate::world::{Logs, World};
use ottla::{Metrics, WriteOutcome};
use std::collections::BTreeMap;
use std::time::Duration;

/// Timers tick in milliseconds, and a batch's deadline is looked at when one fires.
const TICK: Duration = Duration::from_millis(20);

/// Every counter adds up, and the memory is back.
pub(crate) fn metrics(world: &World, metrics: &Metrics) -> Result<(), String> {
    let book = world.book.lock().unwrap();
    let mut told = [0u64; 3];
    for (_, taken) in book.taken() {
        let at = match taken.told.as_ref().map(|(_, told)| told) {
            Some(Ok(_)) => 0,
            Some(Err(error)) if error.write_outcome() == Some(WriteOutcome::NotWritten) => 1,
            _ => 2,
        };
        told[at] += 1;
    }
    let counted = [
        metrics.records_acknowledged,
        metrics.records_not_written,
        metrics.records_unknown,
    ];
    if world.plan.letters.is_some() {
        letters::metrics(told, metrics)?;
    } else if told != counted {
        return Err(format!(
            "callers were told {told:?}, counted were {counted:?}"
        ));
    }
    let left = (
        metrics.buffer_used_bytes,
        metrics.records_pending,
        metrics.callers_waiting,
    );
    if left != (0, 0, 0) {
        return Err(format!("bytes, records and callers left over: {left:?}"));
    }
    Ok(())
}

/// Every promise about the logs holds.
pub(crate) fn logs(world: &World) -> Result<(), String> {
    let mut lives = Vec::new();
    for logs in world.old_logs.lock().unwrap().iter() {
        lives.push(read(world, logs)?);
    }
    for life in &lives {
        for (partition, log) in life.iter().enumerate() {
            in_order(world, log).map_err(|breach| format!("partition {partition}: {breach}"))?;
        }
    }
    let book = world.book.lock().unwrap();
    for (number, call) in &book.calls {
        kept(world, &lives, *number, call)
            .map_err(|breach| format!("record {number}: {breach}"))?;
    }
    Ok(())
}

/// One partition's log as numbers, by offset.
type Numbers = Vec<u32>;

fn read(world: &World, logs: &Logs) -> Result<Vec<Numbers>, String> {
    let mut life = Vec::new();
    for (partition, log) in (0..).zip(logs) {
        let mut numbers = Numbers::new();
        for record in log {
            let place = format!("partition {partition} at {}", record.offset);
            let number = callers::number_of(record, &world.plan)
                .ok_or_else(|| format!("{place}: a record with other bytes than were sent"))?;
            if record.offset != i64::try_from(numbers.len()).unwrap() {
                return Err(format!("{place}: {} records before it", numbers.len()));
            }
            let stamp = (record.producer_id, record.epoch, record.sequence);
            world.trace.note(format_args!(
                "{place}: {number} {stamp:?} {}",
                record.timestamp
            ));
            let book = world.book.lock().unwrap();
            match book.calls.get(&number) {
                Some(Call::Taken(taken)) if taken.partition == partition => {}
                other => return Err(format!("{place}: {number}, which is {other:?}")),
            }
            numbers.push(number);
        }
        life.push(numbers);
    }
    Ok(life)
}

fn in_order(world: &World, log: &Numbers) -> Result<(), String> {
    if world.plan.promise == Promise::Nothing {
        return Ok(());
    }
    let book = world.book.lock().unwrap();
    let order = |number: &u32| match &book.calls[number] {
        Call::Taken(taken) => taken.order,
        _ => 0,
    };
    let mut last: Option<(u32, u32)> = None;
    let mut seen = BTreeMap::new();
    for (offset, number) in log.iter().enumerate() {
        if let Some(first) = seen.insert(*number, offset) {
            if world.plan.idempotent() {
                return Err(format!("{number} lies at {first} and at {offset}"));
            }
            continue;
        }
        if world.plan.letters.is_some_and(|letters| letters.rounds > 0) {
            // What is sent once more comes behind what was written meanwhile.
            continue;
        }
        let now = order(number);
        if let Some((before, _)) = last.filter(|(_, last)| *last > now) {
            return Err(format!("{number} at {offset} comes after {before}"));
        }
        last = Some((*number, now));
    }
    Ok(())
}

/// What one caller was told of one record is true.
fn kept(world: &World, lives: &[Vec<Numbers>], number: u32, call: &Call) -> Result<(), String> {
    let Call::Taken(taken) = call else {
        // That it is nowhere was seen when the logs were read.
        return Ok(());
    };
    let Taken {
        at,
        partition,
        told,
        ..
    } = taken;
    let Some((told_at, outcome)) = told else {
        return Err("its delivery never ended".to_owned());
    };
    let took = *told_at - *at;
    if took > letters::longest(&world.plan, outcome.is_ok()) + TICK {
        return Err(format!("its delivery took {took:?}"));
    }
    let partition = usize::try_from(*partition).unwrap();
    let logs = lives.iter().filter_map(|life| life.get(partition));
    let places: Vec<Vec<i64>> = logs
        .map(|log| {
            (0..)
                .zip(log)
                .filter(|(_, n)| **n == number)
                .map(|(at, _)| at)
                .collect()
        })
        .collect();
    let there = places.iter().any(|offsets| !offsets.is_empty());
    match outcome {
        Ok(_) if world.plan.promise == Promise::Nothing => Ok(()),
        Ok(_) if !there => Err("acknowledged and lost".to_owned()),
        Ok(metadata) => {
            let told = metadata.offset.ok_or("acknowledged without an offset")?;
            let right = places.iter().any(|offsets| offsets.contains(&told));
            let wrong = || format!("told to be at {told}, lies at {places:?}");
            right.then_some(()).ok_or_else(wrong)
        }
        Err(error) if sequence_lost(world, error) => {
            Err(format!("the broker forgot nothing: {error}"))
        }
        Err(error) => match error.write_outcome() {
            Some(WriteOutcome::NotWritten) if there => Err(format!("lies at {places:?}: {error}")),
            Some(_) => Ok(()),
            None => Err(format!("nobody says whether it was written: {error}")),
        },
    }
}

/// Whether a record failed for its sequence although the brokers have lost nothing that they knew of
/// the producer.
fn sequence_lost(world: &World, error: &ottla::Error) -> bool {
    let remade = world.old_logs.lock().unwrap().len() > 1;
    let refused = |code| fault::SEQUENCE.contains(&code);
    world.plan.promise == Promise::ExactlyOnce && !remade && error.code().is_some_and(refused)
}
