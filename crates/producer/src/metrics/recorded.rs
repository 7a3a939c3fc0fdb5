//! What reaches a recorder of the `metrics` crate.

use super::*;
use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram as Meter, HistogramFn, Key, KeyName, Metadata,
    Recorder, SharedString, Unit,
};
use std::collections::BTreeMap;
use std::sync::Arc;

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Sums up what each name and label set was given.
struct Sums(Values);

struct Cell(Values, String);

impl Cell {
    fn add(&self, value: f64) {
        *self.0.lock().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.lock().insert(self.1.clone(), value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Sums {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels = key
            .labels()
            .map(|label| format!(",{}={}", label.key(), label.value()));
        let name = key.name().to_owned() + &labels.collect::<String>();
        Arc::new(Cell(Arc::clone(&self.0), name))
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0
            .lock()
            .insert(format!("about {}", name.as_str()), 0.0);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0
            .lock()
            .insert(format!("about {}", name.as_str()), 0.0);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0
            .lock()
            .insert(format!("about {}", name.as_str()), 0.0);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Meter {
        Meter::from_arc(self.cell(key))
    }
}

/// Everything that a producer may tell, once.
fn told() -> BTreeMap<String, f64> {
    let values = Values::default();
    let counters =
        ::metrics::with_local_recorder(&Sums(Arc::clone(&values)), || Counters::new("billing"));
    let ended = Ended {
        at: Instant::now(),
        records: 3,
        latency: Duration::from_millis(250),
    };
    counters.sealed(20, 1_000);
    counters.compressed(1_000, 250);
    counters.requested(2, 700);
    counters.queued(Duration::from_millis(5));
    counters.retried();
    counters.answered(Duration::from_millis(40));
    let mut answers = VerdictCounts::default();
    answers.acknowledged = 2;
    counters.judged(&answers);
    answers.split = 1;
    counters.judged(&answers);
    counters.ended(ended, None);
    let late = Error::new(ErrorKind::Timeout, "late");
    counters.ended(
        ended,
        Some(&late.clone().with_outcome(WriteOutcome::NotWritten)),
    );
    counters.ended(ended, Some(&late.with_outcome(WriteOutcome::Unknown)));
    counters.dead_letters(2, true);
    counters.dead_letters(1, false);
    counters.buffer(4_096);
    counters.buffer(512);
    drop(counters);
    std::mem::take(&mut *values.lock())
}

#[test]
fn a_recorder_gets_every_figure_under_its_stable_name() {
    let values = told();
    let expected = [
        ("ottla_producer_answers_total,verdict=acknowledged", 4.0),
        ("ottla_producer_answers_total,verdict=split", 1.0),
        ("ottla_producer_batch_bytes", 1_000.0),
        ("ottla_producer_batch_records", 20.0),
        ("ottla_producer_batch_retries_total", 1.0),
        ("ottla_producer_batches_total", 2.0),
        ("ottla_producer_buffer_used_bytes", 512.0),
        ("ottla_producer_compression_ratio", 0.25),
        ("ottla_producer_dead_letters_total,outcome=lost", 1.0),
        ("ottla_producer_dead_letters_total,outcome=written", 2.0),
        ("ottla_producer_delivery_seconds", 0.25),
        ("ottla_producer_queue_seconds", 0.005),
        ("ottla_producer_record_errors_total,kind=timeout", 6.0),
        ("ottla_producer_records_total,outcome=acknowledged", 3.0),
        ("ottla_producer_records_total,outcome=not_written", 3.0),
        ("ottla_producer_records_total,outcome=unknown", 3.0),
        ("ottla_producer_request_seconds", 0.04),
        ("ottla_producer_requests_total", 1.0),
        ("ottla_producer_sent_bytes_total", 700.0),
    ];
    let found = values
        .iter()
        .filter(|(name, _)| !name.starts_with("about "));
    let found = found.map(|(name, value)| (name.replacen(",client_id=billing", "", 1), *value));
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    let mut found: Vec<_> = found.collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
}

#[test]
fn the_documented_names_are_the_described_ones() {
    let values = told();
    let described = values.keys().filter_map(|name| name.strip_prefix("about "));
    let mut described: Vec<&str> = described.collect();
    let documented = include_str!("../metrics.rs").lines().filter_map(|line| {
        let row = line.strip_prefix("//! | `")?;
        row.split_once('`').map(|(name, _)| name)
    });
    let mut documented: Vec<&str> = documented.collect();
    described.sort_unstable();
    documented.sort_unstable();
    assert_eq!(described, documented);
}
