//! Every code of Kafka's, as callers hear of it.

use ottla::{Code, Error, ErrorKind, Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster};
use ottla_proto::producer::transaction::{Api, TransactionVerdict, transaction_verdict};
use ottla_proto::producer::{Attempt, Facts, Verdict, verdict};
use ottla_tests::client;

/// What a lone record's batch is to the table.
const FACTS: Facts = Facts {
    acks_all: true,
    idempotent: true,
    head_of_line: true,
    maybe_written: false,
    asked_again: false,
    hole: false,
    records: 1,
    transactional: false,
};

/// Every code with a name, and two of the future.
fn codes() -> impl Iterator<Item = Code> {
    let named = (-1..1_000).map(Code).filter(|code| code.name().is_some());
    named.chain([Code(999), Code(i16::MIN)])
}

fn speaks_of(error: &Error, code: Code) -> bool {
    error.to_string().contains(&code.to_string())
}

async fn cluster() -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3).in_memory();
    builder.topic("orders", 1).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn callers_hear_of_each_code_of_produce_what_the_table_says() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let send = || producer.send(Record::to("orders").value("v"));
    send().await.unwrap();
    for code in codes().filter(|code| *code != Code::NONE) {
        let before = cluster.log("orders", 0).len();
        let answered = cluster.faults().on(ApiKey::Produce).error(code);
        let told = send().await;
        assert_eq!(answered.fired(), 1, "{code}");
        let fail = |attempt| Verdict::Fail { attempt };
        let outcome = match verdict(code, FACTS) {
            // A broker that calls a batch a duplicate has it; this one lied.
            Verdict::Acknowledged => {
                assert!(told.is_ok(), "{code}: {told:?}");
                continue;
            }
            verdict if verdict == fail(Attempt::Refused) => Some(WriteOutcome::NotWritten),
            verdict if verdict == fail(Attempt::Unknown) => Some(WriteOutcome::Unknown),
            _ => None,
        };
        let heard = told.as_ref().err();
        let heard = heard.map(|error| (speaks_of(error, code), error.write_outcome()));
        let wanted = outcome.map(|outcome| (true, Some(outcome)));
        assert_eq!(heard, wanted, "{code}");
        let written = cluster.log("orders", 0).len() - before;
        assert_eq!(written, usize::from(told.is_ok()), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_log_is_never_called_unwritten_by_a_code_that_can_follow_the_append() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let send = || producer.send(Record::to("orders").value("v"));
    send().await.unwrap();
    let unknown = |code: &Code| match verdict(*code, FACTS) {
        Verdict::Retry { attempt, .. } | Verdict::Fail { attempt } => attempt == Attempt::Unknown,
        _ => false,
    };
    for code in codes().filter(unknown) {
        let before = cluster.log("orders", 0).len();
        let _ = cluster.faults().on(ApiKey::Produce).append_then_error(code);
        let told = send().await;
        let unwritten = Some(WriteOutcome::NotWritten);
        let heard = told.as_ref().err().and_then(ottla::Error::write_outcome);
        assert_ne!(heard, unwritten, "{code}");
        assert_eq!(cluster.log("orders", 0).len() - before, 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_hear_of_each_code_of_init_producer_id_what_the_table_says() {
    use TransactionVerdict::{Done, FindCoordinator, Retry};
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    for code in codes() {
        let before = cluster.log("orders", 0).len();
        let answered = cluster.faults().on(ApiKey::InitProducerId).error(code);
        let producer = client.producer().build().unwrap();
        let told = producer.send(Record::to("orders").value("v")).await;
        assert_eq!(answered.fired(), 1, "{code}");
        let verdict = transaction_verdict(Api::InitProducerId, code);
        let passing = matches!(verdict, Done | Retry | FindCoordinator);
        let heard = told.as_ref().err();
        let heard = heard.map(|error| (speaks_of(error, code), error.write_outcome()));
        let wanted = (true, Some(WriteOutcome::NotWritten));
        assert_eq!(heard, (!passing).then_some(wanted), "{code}");
        let written = cluster.log("orders", 0).len() - before;
        assert_eq!(written, usize::from(passing), "{code}");
        // Whoever asks again may have luck.
        producer
            .send(Record::to("orders").value("again"))
            .await
            .unwrap();
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transactional_producer_hears_of_each_code_of_init_producer_id_what_the_table_says() {
    use TransactionVerdict::{Done, FindCoordinator, Retry};
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    for code in codes() {
        let answered = cluster.faults().on(ApiKey::InitProducerId).error(code);
        let built = client.transactional_producer("billing-1").build().await;
        assert_eq!(answered.fired(), 1, "{code}");
        match transaction_verdict(Api::InitProducerId, code) {
            Done | Retry | FindCoordinator => built.unwrap().close().await.unwrap(),
            verdict => {
                let error = built.unwrap_err();
                let fenced = *error.kind() == ErrorKind::Fenced;
                assert!(fenced || verdict != TransactionVerdict::Fenced, "{error}");
                assert!(speaks_of(&error, code), "{code}: {error}");
                assert!(error.is_fatal(), "{error}");
            }
        }
    }
}
