//! What a seed decides before anything runs.

use crate::fault::{self, Kind};
use crate::letters::Letters;
use ottla::{Acks, Code, Compression};
use std::time::Duration;

/// What the producer promises under its settings, and so what the checker may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// acks=all and idempotent.
    ExactlyOnce,
    /// The same, among faults that leave no batch in doubt.
    ExactlyOnceUndoubted,
    /// acks=all, not idempotent: in order, perhaps repeated.
    AtLeastOnce,
    /// acks=1: the same, as long as no leader is lost with what it alone had.
    LeaderOnly,
    /// acks=0: nothing.
    Nothing,
    /// What is committed is there once and whole, and nothing else is seen.
    Transactions,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After the weather has cleared.
    Calm,
    /// Closed in the middle, while callers go on.
    CloseEarly,
    /// Every handle is dropped in the middle.
    Abandon,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) topic: &'static str,
    pub(crate) promise: Promise,
    pub(crate) end: End,
    pub(crate) nodes: i32,
    pub(crate) partitions: i32,
    /// How many records the callers try to send together.
    pub(crate) records: u32,
    pub(crate) callers: u32,
    pub(crate) value_bytes_max: usize,
    /// A caller rests for at most so long between two records.
    pub(crate) pause_millis_max: u64,
    /// One in so many calls is given up before it ends.
    pub(crate) cancel_one_in: u32,
    pub(crate) flush_one_in: u32,
    pub(crate) distance: Duration,
    pub(crate) delay_millis_max: u64,
    pub(crate) outage_millis_max: u64,
    pub(crate) election_delay: Duration,
    pub(crate) min_insync: i16,
    pub(crate) batch_bytes_stored_max: usize,
    pub(crate) log_append_time: bool,
    pub(crate) strict_first_sequence: bool,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) max_block: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) stall_after: Duration,
    pub(crate) retries: u32,
    pub(crate) in_flight_max: usize,
    pub(crate) compression: Compression,
    /// Its dead letters, if it writes any.
    pub(crate) letters: Option<Letters>,
    /// In the order of the record before which each comes.
    pub(crate) faults: Vec<(u32, Kind)>,
}

fn one_of<T: Copy>(dice: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[dice.usize(0..choices.len())]
}

fn millis(dice: &mut fastrand::Rng, choices: &[u64]) -> Duration {
    Duration::from_millis(one_of(dice, choices))
}

/// One seed in so many is of a transactional producer.
const ONE_IN_TRANSACTIONS: u64 = 5;

/// One seed in so many has large values in large batches: those that leave this remainder, of all
/// promises.
const ONE_IN_LARGE: u64 = 23;
const LARGE: u64 = 3;

const PROMISES: [Promise; 10] = [
    Promise::ExactlyOnce,
    Promise::ExactlyOnce,
    Promise::ExactlyOnce,
    Promise::ExactlyOnce,
    Promise::ExactlyOnce,
    Promise::ExactlyOnce,
    Promise::ExactlyOnceUndoubted,
    Promise::AtLeastOnce,
    Promise::LeaderOnly,
    Promise::Nothing,
];

const CODECS: [Compression; 8] = [
    Compression::None,
    Compression::None,
    Compression::None,
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

impl Plan {
    /// The plan of that seed.
    pub(crate) fn of(seed: u64) -> Self {
        let plan = Self::drawn(seed);
        match seed % ONE_IN_LARGE {
            LARGE => plan.large(),
            _ => plan,
        }
    }

    fn drawn(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let dice = &mut dice;
        let promise = promise(dice, seed);
        // A request that a broker finds after the client gave it up leaves the order to sequences.
        let sequences = matches!(promise, Promise::ExactlyOnce | Promise::Transactions);
        let small = dice.u8(0..5) == 0;
        let end = match dice.u8(0..20) {
            0 => End::CloseEarly,
            1 => End::Abandon,
            _ => End::Calm,
        };
        let end = match promise {
            Promise::Transactions => End::Calm,
            _ => end,
        };
        // Those that end early leave a half of them out, or more.
        let records = match end {
            End::Calm => dice.u32(200..280),
            _ => dice.u32(660..740),
        };
        Self {
            seed,
            topic: "orders",
            promise,
            end,
            nodes: 3,
            partitions: 3,
            records,
            callers: one_of(dice, &[1, 1, 2, 4]),
            value_bytes_max: if small {
                8_000
            } else {
                one_of(dice, &[20, 300])
            },
            pause_millis_max: one_of(dice, &[2, 10, 30, 100]),
            cancel_one_in: one_of(dice, &[u32::MAX, 20]),
            flush_one_in: one_of(dice, &[u32::MAX, 60]),
            distance: millis(dice, &[0, 1, 5, 20, 60]),
            delay_millis_max: if sequences {
                one_of(dice, &[100, 5_000, 40_000])
            } else {
                2_000
            },
            outage_millis_max: one_of(dice, &[200, 3_000, 20_000]),
            election_delay: millis(dice, &[0, 0, 50, 2_000]),
            min_insync: one_of(dice, &[1, 2]),
            batch_bytes_stored_max: if dice.u8(0..12) == 0 {
                4_000
            } else {
                1_048_588
            },
            log_append_time: dice.u8(0..10) == 0,
            strict_first_sequence: dice.u8(0..5) == 0,
            linger: millis(dice, &[0, 1, 5, 20, 100]),
            batch_bytes: one_of(dice, &[100, 1_000, 16_384, 1_000_000]),
            buffer_bytes: if small { 65_536 } else { 32 << 20 },
            max_block: millis(dice, &[50, 1_000, 60_000]),
            delivery_timeout: millis(dice, &[1_000, 5_000, 30_000, 120_000]),
            request_timeout: if sequences {
                millis(dice, &[500, 2_000, 30_000])
            } else {
                Duration::from_secs(30)
            },
            stall_after: millis(dice, &[100, 500, 500, 500, 1_000_000_000]),
            retries: one_of(dice, &[u32::MAX, u32::MAX, u32::MAX, 3]),
            in_flight_max: one_of(dice, &[5, 5, 5, 2, 1]),
            compression: one_of(dice, &CODECS),
            letters: Letters::of(seed, promise, end),
            faults: faults(dice, promise, end, records),
        }
    }

    /// Values and batches so large that a batch has larger chunks than a small one ever gets.
    fn large(self) -> Self {
        Self {
            value_bytes_max: 8_000,
            pause_millis_max: 2,
            linger: Duration::from_millis(20),
            batch_bytes: 1_000_000,
            batch_bytes_stored_max: 1_048_588,
            buffer_bytes: 4 << 20,
            flush_one_in: u32::MAX,
            ..self
        }
    }

    /// The producer's `acks`.
    pub(crate) fn acks(&self) -> Acks {
        match self.promise {
            Promise::LeaderOnly => Acks::Leader,
            Promise::Nothing => Acks::None,
            _ => Acks::All,
        }
    }

    /// Whether batches carry sequences.
    pub(crate) fn idempotent(&self) -> bool {
        matches!(
            self.promise,
            Promise::ExactlyOnce | Promise::ExactlyOnceUndoubted | Promise::Transactions
        )
    }
}

fn promise(dice: &mut fastrand::Rng, seed: u64) -> Promise {
    let drawn = one_of(dice, &PROMISES);
    match seed % ONE_IN_TRANSACTIONS {
        0 => Promise::Transactions,
        _ => drawn,
    }
}

/// From four to sixteen faults among the records.
fn faults(dice: &mut fastrand::Rng, promise: Promise, end: End, records: u32) -> Vec<(u32, Kind)> {
    let count = dice.usize(4..17);
    let mut faults = Vec::with_capacity(count);
    while faults.len() < count {
        let kind = match promise {
            Promise::Transactions if dice.bool() => kind_of_transactions(dice),
            _ => kind(dice),
        };
        if kind.fits(promise) {
            // Producer ids are asked for at the beginning.
            let at = match kind {
                Kind::Identity(_) | Kind::IdentityLost => 0,
                _ => dice.u32(0..records),
            };
            faults.push((at, kind));
        }
    }
    if end != End::Calm {
        // Afterwards nobody is left to see to it that enough faults have struck.
        faults.extend([0, 40, 80].map(|at| (at, Kind::DisconnectBefore)));
    }
    faults.sort_unstable();
    faults
}

fn kind(dice: &mut fastrand::Rng) -> Kind {
    match dice.u8(0..40) {
        0..4 => Kind::DisconnectBefore,
        4..7 => Kind::AnswerLost,
        7 => Kind::AnswerCut,
        8..11 => Kind::Delay,
        11..15 => Kind::Refused(one_of(dice, &fault::RETRIABLE)),
        15..19 => Kind::AfterAppend(one_of(dice, &fault::AFTER_APPEND)),
        19 => Kind::Final(Code::MESSAGE_TOO_LARGE),
        20 => Kind::Final(one_of(dice, &fault::FINAL)),
        21..24 => Kind::Sequence(one_of(dice, &fault::SEQUENCE)),
        24..26 => Kind::Truncated,
        26 => Kind::Throttle,
        27..30 => Kind::LeaderMoves,
        30 | 31 => Kind::NodeStops,
        32 => Kind::NodeFreezes,
        33 => Kind::FollowersFreeze,
        34 => Kind::StaleMetadata,
        35 => one_of(dice, &[Kind::MetadataRefused, Kind::MetadataLost]),
        36 => Kind::DialRefused,
        37 => Kind::Identity(one_of(dice, &fault::IDENTITY)),
        38 => one_of(dice, &[Kind::IdentityLost, Kind::TopicRemade]),
        _ => Kind::PartitionsAdded,
    }
}

fn kind_of_transactions(dice: &mut fastrand::Rng) -> Kind {
    match dice.u8(0..8) {
        0 | 1 => Kind::CoordinatorMoves,
        2 => Kind::ProtocolChanges,
        _ => one_of(dice, &Kind::of_coordinators()),
    }
}
