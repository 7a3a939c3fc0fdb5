//! Seeds whose producer writes dead letters: some records have no key, which their topic wants, and
//! what fails for another reason may be sent once more.

use crate::book::{Call, Taken};
use crate::callers;
use crate::plan::{End, Plan, Promise};
use crate::world::World;
use ottla::{DeadLetters, Error, Metrics};
use std::collections::BTreeSet;
use std::time::Duration;

/// Where the dead letters lie.
pub(crate) const TOPIC: &str = "orders.dlq";

/// The topic's name stands in the error only when a dead letter is in it.
const BURIED: &str = "its dead letter is in orders.dlq";

/// What the broker says of a record without a key.
const KEYLESS: &str = "the record has no key";

/// One seed in so many, among those whose settings allow it.
const ONE_IN: u64 = 10;

/// What such a producer is set to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letters {
    /// More rounds of attempts before the dead letter.
    pub(crate) rounds: u32,
    /// The rest before each.
    pub(crate) rest: Duration,
    /// One record in so many has no key.
    pub(crate) keyless_one_in: u32,
}

impl Letters {
    /// Those of a seed, if it has any. Without answers nothing is known to be wrong.
    pub(crate) fn of(seed: u64, promise: Promise, end: End) -> Option<Self> {
        let told = !matches!(promise, Promise::Transactions | Promise::Nothing);
        let mut dice = fastrand::Rng::with_seed(!seed);
        let letters = Self {
            rounds: dice.u32(0..3),
            rest: Duration::from_millis(dice.u64(1..3_000)),
            keyless_one_in: [3, 12][dice.usize(0..2)],
        };
        (seed % ONE_IN == 3 && told && end == End::Calm).then_some(letters)
    }

    /// The producer's policy.
    pub(crate) fn policy(self) -> DeadLetters {
        DeadLetters::new().resend(self.rounds, self.rest)
    }
}

/// How long a delivery may take that ends so.
pub(crate) fn longest(plan: &Plan, acknowledged: bool) -> Duration {
    let Some(letters) = plan.letters else {
        return plan.delivery_timeout;
    };
    let sent = plan.delivery_timeout * (letters.rounds + 1) + letters.rest * letters.rounds;
    match acknowledged {
        true => sent,
        // Its dead letter waits for memory, and is a record like others then.
        false => sent + plan.max_block * 4 + plan.delivery_timeout,
    }
}

/// What was counted beyond that of the callers' own records is the dead letters'.
pub(crate) fn metrics(told: [u64; 3], metrics: &Metrics) -> Result<(), String> {
    let (written, lost) = (metrics.dead_letters_written, metrics.dead_letters_lost);
    let failed = metrics.records_not_written + metrics.records_unknown;
    let told_failed = told[1] + told[2];
    let right = metrics.records_acknowledged == told[0] + written
        && written + lost == told_failed
        && (told_failed..=told_failed + lost).contains(&failed);
    let words = || format!("{written} dead letters, {lost} lost, told {told:?}: {metrics:?}");
    right.then_some(()).ok_or_else(words)
}

/// Every dead letter is of a record that failed, and those that callers were told of are there.
pub(crate) fn check(world: &World) -> Result<(), String> {
    if world.plan.letters.is_none() {
        return Ok(());
    }
    let book = world.book.lock().unwrap();
    let mut there = BTreeSet::new();
    for partition in 0..world.plan.partitions {
        for record in world.cluster.log(TOPIC, partition) {
            let place = format!("dead letter {} in {partition}", record.offset);
            let number = callers::number_of(&record, &world.plan)
                .ok_or_else(|| format!("{place}: other bytes than were sent"))?;
            world.trace.note(format_args!("{place}: {number}"));
            match book.calls.get(&number) {
                Some(Call::Taken(taken)) if failure(taken).is_some() => {}
                other => return Err(format!("{place}: {number}, which is {other:?}")),
            }
            if !there.insert(number) && world.plan.idempotent() {
                return Err(format!("{place}: {number} lies there twice"));
            }
        }
    }
    for (number, taken) in book.taken() {
        if failure(taken).is_some_and(is_buried) && !there.contains(&number) {
            return Err(format!("record {number}: its dead letter is lost"));
        }
    }
    Ok(())
}

fn failure(taken: &Taken) -> Option<&Error> {
    taken.told.as_ref()?.1.as_ref().err()
}

fn is_buried(error: &Error) -> bool {
    error.to_string().contains(BURIED)
}

/// What of all this occurred.
pub(crate) fn outcomes(world: &World) -> Vec<&'static str> {
    let Some(_) = world.plan.letters else {
        return Vec::new();
    };
    let book = world.book.lock().unwrap();
    let mut taken: Vec<_> = book.taken().map(|(_, taken)| taken).collect();
    taken.sort_unstable_by_key(|taken| (taken.partition, taken.order));
    let well = |taken: &Taken| matches!(taken.told, Some((_, Ok(_))));
    let wrong =
        |taken: &Taken| failure(taken).is_some_and(|error| error.to_string().contains(KEYLESS));
    let late = |taken: &Taken| match taken.told {
        Some((at, Ok(_))) => at - taken.at > world.plan.delivery_timeout + Duration::from_secs(1),
        _ => false,
    };
    // Taken in the same instant they were in one batch, if it lingered.
    let one_batch = |a: &Taken, b: &Taken| a.partition == b.partition && a.at == b.at;
    let cut_out = taken.windows(3).any(|three| {
        let [before, one, behind] = three else {
            return false;
        };
        let together = one_batch(before, one) && one_batch(one, behind);
        together && !world.plan.linger.is_zero() && well(before) && wrong(one) && well(behind)
    });
    let buried = taken.iter().filter_map(|taken| failure(taken));
    let occurred = [
        ("dead letter", buried.into_iter().any(is_buried)),
        ("wrong record cut out", cut_out),
        ("sent once more", taken.iter().any(|taken| late(taken))),
    ];
    let occurred = occurred.into_iter().filter(|(_, it_did)| *it_did);
    occurred.map(|(what, _)| what).collect()
}
