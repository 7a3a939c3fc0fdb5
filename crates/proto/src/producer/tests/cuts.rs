//! Batches cut again and again, against a broker that finds some of their records wrong.

use super::hard::{Many, many, records, stamp};
use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Which of the wrong records of a batch the broker names.
#[derive(Debug, Clone, Copy)]
enum Names {
    All,
    First,
    /// One from the middle, also when others are wrong before it.
    Middle,
}

/// A broker that keeps the sequence rules and takes no batch with a wrong record.
struct Weeder {
    many: Many,
    wrong: BTreeSet<u32>,
    names: Names,
    idempotent: bool,
    /// Epoch, and the sequence that comes next.
    expected: (i16, i32),
    /// The numbers of the records that were appended.
    log: Vec<u32>,
    /// The first number and the count behind each token.
    parts: BTreeMap<u32, (u32, u32)>,
    cuts: u32,
    requests: usize,
    told: Vec<(u32, bool)>,
}

fn weeder(wrong: impl IntoIterator<Item = u32>, names: Names, idempotent: bool) -> Weeder {
    let config = Config {
        cut_out_wrong: true,
        idempotent,
        ..config()
    };
    Weeder {
        many: many(1, config).proven(1),
        wrong: wrong.into_iter().collect(),
        names,
        idempotent,
        expected: (0, 1),
        log: vec![],
        parts: BTreeMap::new(),
        cuts: 0,
        requests: 0,
        told: vec![],
    }
}

/// The number of a request's first record, and how many records follow one another.
fn numbers(sent: &Transmit) -> std::ops::Range<u32> {
    let batch = &sent.batches[0];
    let first = u32::from_be_bytes(batch.segments[0][6..10].try_into().unwrap());
    first..first + u32::from_be_bytes(batch.header[57..61].try_into().unwrap())
}

impl Weeder {
    /// Pushes records with these numbers.
    fn push(&mut self, numbers: std::ops::Range<u32>) {
        let (first, count) = (numbers.start, numbers.end - numbers.start);
        let mut writer = BatchWriter::new();
        writer.add_chunk(Vec::with_capacity(16_384));
        for number in numbers {
            let value = number.to_be_bytes();
            writer.append(&Record::to("t").value(&value), 0).unwrap();
        }
        let deadline = self.many.now + 1_000_000 * SECOND;
        let token = self.token(first, count);
        let batch = Batch::new(token, count, deadline, Some(writer.seal(Bytes::from)));
        let now = self.many.now;
        self.many.sender.push(now, PartitionIndex(0), batch);
    }

    fn token(&mut self, first: u32, count: u32) -> u32 {
        let token = u32::try_from(self.parts.len()).unwrap();
        self.parts.insert(token, (first, count));
        token
    }

    fn answer(&mut self, sent: &Transmit) {
        self.requests += 1;
        let records = numbers(sent);
        let (epoch, sequence) = stamp(sent);
        let next = match epoch > self.expected.0 {
            true => 0,
            false => self.expected.1,
        };
        if self.idempotent && (epoch < self.expected.0 || sequence != next) {
            self.many.answer(sent, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
            return;
        }
        let wrong: Vec<_> = self.wrong.range(records.clone()).copied().collect();
        let named = match self.names {
            Names::All => wrong.clone(),
            Names::First => wrong.iter().take(1).copied().collect(),
            Names::Middle => wrong.get(wrong.len() / 2).copied().into_iter().collect(),
        };
        if wrong.is_empty() {
            self.many.answer(sent, Code::NONE);
            self.expected = (epoch, sequence + i32::try_from(records.len()).unwrap());
            self.log.extend(records);
        } else {
            let named: Vec<_> = named.iter().map(|number| number - records.start).collect();
            super::lanes::refuse(&mut self.many, sent, &named);
        }
    }

    fn events(&mut self) {
        self.many.take_events();
        // A batch that is cut may have to be cut once more.
        while !self.many.events.is_empty() {
            for event in std::mem::take(&mut self.many.events) {
                self.event(event);
            }
            self.many.take_events();
        }
    }

    fn event(&mut self, event: Event<u32>) {
        match event {
            Event::Acknowledged { token, .. } => self.told.push((token, true)),
            Event::Failed { token, .. } => self.told.push((token, false)),
            Event::Split(split) => {
                self.cuts += 1;
                let (first, count) = self.parts[&split.token];
                let at = split.cut_at.unwrap();
                let (front, back) = split.records.cut_at(at).unwrap();
                let front = (self.token(first, at), front);
                let back = (self.token(first + at, count - at), back);
                let (now, index) = (self.many.now, split.partition);
                let sender = &mut self.many.sender;
                sender.provide_halves(now, index, split.ordinal, front, back);
            }
            _ => {}
        }
    }

    /// Until nothing is sent for a while.
    fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 5 {
            let sent: Vec<_> =
                std::iter::from_fn(|| self.many.sender.poll_transmit(self.many.now)).collect();
            quiet = if sent.is_empty() { quiet + 1 } else { 0 };
            for sent in &sent {
                self.answer(sent);
            }
            self.events();
            self.many.pass(2 * SECOND);
            self.events();
        }
    }

    /// The numbers of all records whose tokens were told this.
    fn of(&self, acknowledged: bool) -> Vec<u32> {
        let told = self.told.iter().filter(|(_, ok)| *ok == acknowledged);
        let parts = told.map(|(token, _)| self.parts[token]);
        let mut numbers: Vec<_> = parts
            .flat_map(|(first, count)| first..first + count)
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

#[test]
fn twenty_wrong_records_apart_from_each_other_are_cut_out_and_the_order_stays() {
    for idempotent in [true, false] {
        for names in [Names::All, Names::First] {
            let wrong: Vec<u32> = (0..20).map(|place| 2 * place + 1).collect();
            let mut weeder = weeder(wrong.clone(), names, idempotent);
            weeder.push(0..45);
            weeder.push(45..48);
            weeder.push(48..49);
            weeder.run();
            let well: Vec<u32> = (0..49).filter(|number| !wrong.contains(number)).collect();
            assert_eq!(weeder.log, well, "{names:?}, idempotent: {idempotent}");
            assert_eq!(weeder.of(true), well, "each is told once");
            assert_eq!(weeder.of(false), wrong, "each is told once");
        }
    }
}

#[test]
fn as_many_wrong_records_as_are_cut_out_at_once_are_cut_out_one_after_another() {
    let wrong: Vec<u32> = (0..32).map(|place| 2 * place + 1).collect();
    for names in [Names::All, Names::First] {
        let mut weeder = weeder(wrong.clone(), names, true);
        weeder.push(0..66);
        weeder.run();
        assert_eq!((weeder.of(false), weeder.cuts), (wrong.clone(), 64));
    }
}

#[test]
fn wrong_records_named_together_cost_one_epoch_and_no_request_of_their_own() {
    // Each alone between well ones, and all next to each other.
    let apart = (0..32).map(|place| 2 * place + 1).collect::<Vec<u32>>();
    for (wrong, cuts, runs) in [(apart, 64, 33), ((10..40).collect(), 31, 2)] {
        let mut weeder = weeder(wrong.clone(), Names::All, true);
        weeder.push(0..66);
        weeder.run();
        assert_eq!(weeder.of(false), wrong);
        assert_eq!(weeder.log.len(), 66 - wrong.len());
        assert_eq!(weeder.cuts, cuts);
        // The whole batch, then what is well of it.
        assert_eq!(weeder.requests, 1 + runs);
        assert_eq!(weeder.expected.0, 1, "one epoch");
    }
}

#[test]
fn a_broker_that_names_ever_another_record_has_a_batch_cut_only_so_often() {
    for names in [Names::First, Names::Middle] {
        for idempotent in [true, false] {
            let mut weeder = weeder((0..400).filter(|n| n % 3 > 0), names, idempotent);
            weeder.push(0..400);
            weeder.push(400..401);
            weeder.run();
            assert!(weeder.cuts <= 64, "{} cuts, {names:?}", weeder.cuts);
            let told = weeder.of(true).len() + weeder.of(false).len();
            assert_eq!((told, weeder.log.last()), (401, Some(&400)), "{names:?}");
        }
    }
}

#[test]
fn what_is_taken_of_a_batch_to_cut_it_is_all_of_it_or_nothing() {
    let mut batch = Batch::new(7, 2, Instant::now(), None);
    assert!(batch.take_whole().is_none());
    assert_eq!(batch.token, Some(7), "whoever waits must be told by it");
    batch.records = Some(records(2));
    let (token, taken) = batch.take_whole().unwrap();
    assert_eq!((token, taken.count()), (7, 2));
    batch.records = Some(records(2));
    assert!(batch.take_whole().is_none() && batch.records.is_some());
}

/// A batch across the end of the sequences, cut in two there or beside it, with another behind it in
/// flight.
#[test]
fn sequences_wrap_within_a_batch_that_is_cut_with_its_successor_in_flight() {
    // How far the batch begins before the largest sequence, where its second half begins then, and
    // its successor.
    for (before, second, successor) in [(2, 0, 3), (3, i32::MAX, 2), (1, 1, 4)] {
        let mut many = many(1, config()).proven(1);
        let deadline = many.now + 120 * SECOND;
        // Only its count is long.
        let long = Batch::new(1, i32::MAX as u32 - 1 - before, deadline, Some(records(1)));
        many.sender.push(many.now, PartitionIndex(0), long);
        many.push(0, 2, 6);
        many.push(0, 3, 1);
        let [long, whole, behind] = [many.sent(), many.sent(), many.sent()];
        let first = i32::MAX - before.cast_signed();
        let stamps = [&long, &whole, &behind].map(stamp);
        assert_eq!(stamps, [(0, 1), (0, first), (0, successor)]);
        many.answer(&long, Code::NONE);
        many.answer(&whole, Code::MESSAGE_TOO_LARGE);
        many.answer(&behind, Code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        many.cut(20, 21);
        let sent = [many.sent(), many.sent(), many.sent()];
        let stamps = sent.each_ref().map(stamp);
        assert_eq!(stamps, [(0, first), (0, second), (0, successor)]);
        for transmit in &sent {
            many.answer(transmit, Code::NONE);
        }
        assert_eq!(many.acked(), [1, 20, 21, 3]);
        many.push(0, 4, 1);
        assert_eq!(stamp(&many.sent()), (0, successor + 1));
    }
}
