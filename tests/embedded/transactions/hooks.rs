//! What users hang into a transactional producer.

use super::*;
use ottla::{
    Code, Delivered, DeliveryHook, ErrorKind, Failed, Interceptor, Record, Scratch, WriteOutcome,
};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<String>>>);

impl Ears {
    fn hear(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(", ")
    }
}

impl DeliveryHook for Ears {
    fn on_delivered(&self, batch: &Delivered<'_>) {
        let (count, offset) = (batch.record_count, batch.base_offset.unwrap());
        self.hear(format!(
            "{}-{} {count} at {offset}",
            batch.topic, batch.partition
        ));
    }

    fn on_failed(&self, batch: &Failed<'_>) {
        let outcome = batch.error.write_outcome().unwrap();
        let count = batch.record_count;
        self.hear(format!(
            "{}-{} {count} {outcome:?}",
            batch.topic, batch.partition
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_hears_of_the_batches_of_every_transaction_however_it_ends() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let ears = Ears::default();
        let builder = client.transactional_producer("billing-1");
        let builder = builder.delivery_hook(ears.clone());
        let mut producer = builder.build().await.unwrap();
        // Committed: heard before the commit is.
        let tx = producer.begin().await.unwrap();
        drop(tx.enqueue(record(1, "a")).await.unwrap());
        drop(tx.enqueue(record(1, "b")).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(ears.take(), "out-1 2 at 0", "level {level}");
        // Aborted: what lies in the log was delivered, what was never sent has failed.
        let tx = producer.begin().await.unwrap();
        tx.send(record(1, "c")).await.unwrap();
        assert_eq!(ears.take(), "out-1 1 at 3", "behind the marker");
        drop(tx.enqueue(record(1, "d")).await.unwrap());
        tx.abort().await.unwrap();
        assert_eq!(ears.take(), "out-1 1 NotWritten", "level {level}");
        // Broken.
        let tx = producer.begin().await.unwrap();
        let produce = cluster.faults().on(ApiKey::Produce);
        let _ = produce.error(Code::TOPIC_AUTHORIZATION_FAILED);
        tx.send(record(1, "e")).await.unwrap_err();
        assert_eq!(ears.take(), "out-1 1 NotWritten", "level {level}");
        drop(tx);
        producer.close().await.unwrap();
        assert_eq!(ears.take(), "");
        assert_eq!(committed(&cluster).await, ["a", "b"]);
    }
}

/// Moves records to another topic, and counts how they ended.
#[derive(Clone, Default)]
struct Router(Ears);

impl Interceptor for Router {
    fn on_send<'r>(&'r self, record: Record<'r>, scratch: &'r Scratch) -> Record<'r> {
        let origin = scratch.keep(format!("was for {}", record.topic));
        let record = Record {
            topic: "out",
            ..record
        };
        record.header("origin", origin)
    }

    fn on_acknowledgement(&self, batch: Result<&Delivered<'_>, &Failed<'_>>) {
        self.0.hear(format!("{}", batch.is_ok()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_changes_what_a_transaction_sends_by_every_way_in() {
    for level in LEVELS {
        let cluster = cluster(level).await;
        let client = client(&cluster).await;
        let router = Router::default();
        let builder = client.transactional_producer("billing-1");
        let builder = builder.interceptor(router.clone());
        let mut producer = builder.build().await.unwrap();
        producer.prepare("out").await.unwrap();
        let to = |value| Record::to("elsewhere").partition(2).value(value);
        let tx = producer.begin().await.unwrap();
        tx.send(to("1")).await.unwrap();
        drop(tx.enqueue(to("2")).await.unwrap());
        drop(tx.try_enqueue(to("3")).unwrap());
        tx.commit().await.unwrap();
        assert_eq!(committed(&cluster).await, ["1", "2", "3"], "level {level}");
        for record in cluster.log("out", 2) {
            let header = ("origin".to_owned(), Some(b"was for elsewhere".to_vec()));
            assert_eq!(record.headers, [header]);
        }
        assert_eq!(router.0.take(), "true, true");
    }
}

/// A record that fails aborts its transaction, and its dead letter with it if it were part of that.
#[tokio::test(start_paused = true)]
async fn dead_letters_are_refused_by_name_and_a_failed_record_can_be_written_to_one_by_hand() {
    let cluster = cluster(2).await;
    cluster.create_topic("out.dlq", 1).unwrap();
    let client = client(&cluster).await;
    let builder = client.transactional_producer("billing-1");
    let builder = builder.property("dead.letter.topic", "{topic}.dlq");
    let error = builder.unwrap().build().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.contains("transactional.id") && text.contains("dead letters"),
        "{text}"
    );
    let mut producer = producer(&client).await;
    let letters = client.producer().dead_letters(ottla::DeadLetters::new());
    let letters = letters.build().unwrap();
    let tx = producer.begin().await.unwrap();
    let produce = cluster.faults().on(ApiKey::Produce);
    let _ = produce.error(Code::INVALID_RECORD);
    let error = tx.send(record(0, "wrong")).await.unwrap_err();
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    tx.abort().await.unwrap();
    letters
        .dead_letter(record(0, "wrong"), &error)
        .await
        .unwrap();
    let letter = cluster.log("out.dlq", 0).remove(0);
    assert_eq!(letter.value.as_deref(), Some(&b"wrong"[..]));
    assert_eq!(committed(&cluster).await, Vec::<String>::new());
}
