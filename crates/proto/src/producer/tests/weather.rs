//! Random faults, against a log with Kafka's rules.

use super::{Bench, Sent, bench};
use crate::code::Code;
use crate::error::WriteOutcome;
use std::collections::VecDeque;
use std::time::Duration;

/// Kafka's rules for one producer in one partition: what it appends, what it refuses.
#[derive(Default)]
struct Log {
    appended: Vec<u32>,
    epoch: i16,
    /// First sequences of the last five batches.
    last: VecDeque<i32>,
}

impl Log {
    fn produce(&mut self, sent: Sent) -> Code {
        let Sent {
            epoch,
            sequence,
            batch,
            ..
        } = sent;
        if epoch < self.epoch {
            return Code::INVALID_PRODUCER_EPOCH;
        }
        if epoch > self.epoch {
            if sequence != 0 {
                return Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
            }
            self.last.clear();
            self.epoch = epoch;
        } else if self.last.contains(&sequence) {
            return Code::DUPLICATE_SEQUENCE_NUMBER;
        } else if self.last.back().is_some_and(|last| last + 2 != sequence) {
            return Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
        }
        self.last.push_back(sequence);
        if self.last.len() > 5 {
            self.last.pop_front();
        }
        self.appended.push(batch);
        Code::NONE
    }
}

#[test]
fn random_faults_never_lose_repeat_or_reorder_a_batch() {
    for seed in 0..400u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut dice = |sides: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % sides
        };
        let mut bench = bench();
        let mut log = Log::default();
        // In flight: the request, the batch's number and whether it was applied.
        let mut flying: VecDeque<(Sent, Code)> = VecDeque::new();
        for _ in 0..300 {
            match dice(10) {
                0..=3 => {
                    bench.push();
                }
                4..=6 => {
                    if let Some(sent) = bench.sent() {
                        let code = match dice(12) {
                            0 => Code::NOT_ENOUGH_REPLICAS,
                            1 => Code::INVALID_RECORD,
                            2 => {
                                log.produce(sent);
                                Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                            }
                            3 => Code::NETWORK_EXCEPTION,
                            4 => {
                                log.produce(sent);
                                Code::NETWORK_EXCEPTION
                            }
                            _ => log.produce(sent),
                        };
                        flying.push_back((sent, code));
                    }
                }
                7..=8 => {
                    if let Some((sent, code)) = flying.pop_front() {
                        match code {
                            Code::NETWORK_EXCEPTION => bench.lose(sent),
                            code => bench.answer(sent, code),
                        }
                    }
                }
                _ => bench.pass(Duration::from_millis(dice(30_000))),
            }
        }
        // The weather clears.
        for _ in 0..2_000 {
            while let Some((sent, code)) = flying.pop_front() {
                match code {
                    Code::NETWORK_EXCEPTION => bench.lose(sent),
                    code => bench.answer(sent, code),
                }
            }
            match bench.sent() {
                Some(sent) => {
                    let code = log.produce(sent);
                    flying.push_back((sent, code));
                }
                None => bench.pass(Duration::from_millis(500)),
            }
        }
        check(seed, &bench, &log);
    }
}

/// Every batch ended; the log holds every acknowledged batch, none that was called unwritten, each
/// once, and all in their order.
fn check(seed: u64, bench: &Bench, log: &Log) {
    let ended = bench.acked.len() + bench.failed.len();
    assert_eq!(
        ended, bench.next as usize,
        "seed {seed}: a batch never ended, or ended twice"
    );
    let ascending = log.appended.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(
        ascending,
        "seed {seed}: repeated or out of order: {:?}",
        log.appended
    );
    for batch in &bench.acked {
        assert!(
            log.appended.contains(batch),
            "seed {seed}: {batch} is acknowledged and lost"
        );
    }
    for (batch, outcome) in &bench.failed {
        let there = log.appended.contains(batch);
        assert!(
            !there || *outcome == WriteOutcome::Unknown,
            "seed {seed}: {batch} is in the log"
        );
    }
}
