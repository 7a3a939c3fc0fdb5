//! Bad input gets a clear error that names the thing, within its timeout.

use ottla::{Client, ErrorKind, Record, WriteOutcome};
use ottla_broker::{ApiKey, Cluster, Code};
use ottla_tests::client;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn cluster() -> Cluster {
    Cluster::builder()
        .in_memory()
        .topic("orders", 1)
        .start()
        .await
        .unwrap()
}

fn short(bootstrap: &str) -> ottla::ClientBuilder {
    Client::builder(bootstrap)
        .property("socket.connection.setup.timeout.ms", "300")
        .and_then(|builder| builder.property("default.api.timeout.ms", "900"))
        .unwrap()
}

#[tokio::test]
async fn unreachable_brokers_are_each_named() {
    // Bound and dropped: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let addresses = format!("{free},127.0.0.1:1");
    let begin = tokio::time::Instant::now();
    let error = short(&addresses).connect().await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3));
    let text = error.to_string();
    assert!(
        text.contains(&free.to_string()) && text.contains("127.0.0.1:1"),
        "{text}"
    );
    assert_eq!(error.kind(), &ErrorKind::Connection, "{text}");
}

#[tokio::test]
async fn a_port_that_is_not_kafka_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0u8; 64];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            });
        }
    });
    let begin = tokio::time::Instant::now();
    let text = short(&address).connect().await.unwrap_err().to_string();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(
        text.contains("does not speak Kafka") && text.contains(&address),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_that_never_answers_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let begin = tokio::time::Instant::now();
    let text = short(&address).connect().await.unwrap_err().to_string();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(text.contains(&address), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_is_named_after_max_block() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .property("max.block.ms", "2000")
        .unwrap()
        .build()
        .unwrap();
    let begin = tokio::time::Instant::now();
    let error = producer
        .send(Record::to("no-such-topic").value("v"))
        .await
        .unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(error.kind(), &ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("no-such-topic"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_oversize_record_is_refused_with_the_limit_it_broke() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let value = vec![0u8; (1 << 20) + 1];
    let error = producer
        .send(Record::to("orders").value(&value))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge);
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    assert!(error.to_string().contains("max.request.size"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_over_the_topics_limit_says_so_and_is_not_written() {
    let builder = Cluster::builder().in_memory().topic("orders", 1);
    let cluster = builder
        .topic_setting("max.message.bytes", "1000")
        .start()
        .await
        .unwrap();
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let error = producer
        .send(Record::to("orders").value(&[0u8; 2_000]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge);
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    assert!(error.to_string().contains("orders-0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_waits_then_fails_and_gives_a_record_back_that_would_not_wait() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let builder = client.producer().buffer_bytes(65_536);
    let producer = builder
        .property("max.block.ms", "1000")
        .unwrap()
        .build()
        .unwrap();
    producer.prepare("orders").await.unwrap();
    cluster
        .faults()
        .on(ApiKey::Produce)
        .always()
        .delay(Duration::from_secs(20));
    let value = vec![7u8; 10_000];
    let full = loop {
        match producer.try_enqueue(Record::to("orders").value(&value)) {
            Ok(delivery) => drop(delivery),
            Err((error, record)) => {
                assert_eq!(record.value.map(<[u8]>::len), Some(10_000));
                break error;
            }
        }
    };
    assert_eq!(full.kind(), &ErrorKind::BufferFull);
    assert!(full.to_string().contains("buffer.memory"), "{full}");
    let begin = tokio::time::Instant::now();
    let error = producer
        .enqueue(Record::to("orders").value(&value))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::BufferFull);
    assert_eq!(begin.elapsed().as_secs(), 1, "it waits max.block.ms");
    cluster.faults().clear();
    producer.flush().await.unwrap();
    producer
        .send(Record::to("orders").value(&value))
        .await
        .unwrap();
    assert_eq!(producer.metrics().records_not_written, 0);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_in_the_middle_of_an_answer_repeats_nothing() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer
        .send(Record::to("orders").value("first"))
        .await
        .unwrap();
    for cut in [0, 3, 4, 9, 20] {
        let fault = cluster.faults().on(ApiKey::Produce).cut_answer(cut);
        producer
            .send(Record::to("orders").value("again"))
            .await
            .unwrap();
        assert_eq!(fault.fired(), 1);
    }
    assert_eq!(cluster.log("orders", 0).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stays_away_ends_records_with_a_timeout_that_names_the_partition() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client
        .producer()
        .delivery_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
    cluster.stop_node(0).await.unwrap();
    let begin = tokio::time::Instant::now();
    let error = producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(
        (5..7).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
    assert!(error.to_string().contains("orders-0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_that_is_refused_for_good_fails_the_record_at_once() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let refused = Code::CLUSTER_AUTHORIZATION_FAILED;
    cluster.faults().on(ApiKey::InitProducerId).error(refused);
    let begin = tokio::time::Instant::now();
    let error = producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(error.code(), Some(refused), "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    // The permission is given: the next record asks again.
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_that_is_not_there_yet_is_waited_for() {
    let cluster = cluster().await;
    let client = client(&cluster).connect().await.unwrap();
    let producer = client.producer().build().unwrap();
    let loading = Code::COORDINATOR_LOAD_IN_PROGRESS;
    cluster
        .faults()
        .on(ApiKey::InitProducerId)
        .times(5)
        .error(loading);
    producer
        .send(Record::to("orders").value("v"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_code_in_place_of_a_producer_id_is_waited_out_or_fails_the_record_as_the_table_says() {
    #[rustfmt::skip]
    let table = [
        (Code::COORDINATOR_LOAD_IN_PROGRESS, true),
        (Code::COORDINATOR_NOT_AVAILABLE, true),
        (Code::NOT_COORDINATOR, true),
        (Code::CONCURRENT_TRANSACTIONS, true),
        (Code::REQUEST_TIMED_OUT, true),
        (Code::NETWORK_EXCEPTION, true),
        (Code::NOT_ENOUGH_REPLICAS, true),
        (Code::THROTTLING_QUOTA_EXCEEDED, true),
        (Code::CLUSTER_AUTHORIZATION_FAILED, false),
        (Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, false),
        (Code::INVALID_PRODUCER_EPOCH, false),
        (Code::PRODUCER_FENCED, false),
        (Code::INVALID_PRODUCER_ID_MAPPING, false),
        (Code::UNKNOWN_PRODUCER_ID, false),
        (Code::INVALID_TXN_STATE, false),
        (Code::INVALID_TRANSACTION_TIMEOUT, false),
        (Code::INVALID_REQUEST, false),
        (Code::UNSUPPORTED_VERSION, false),
        (Code::UNKNOWN_SERVER_ERROR, false),
        (Code(9_999), false),
    ];
    for (code, waited_out) in table {
        let cluster = cluster().await;
        let client = client(&cluster).connect().await.unwrap();
        let producer = client.producer().build().unwrap();
        let fault = cluster.faults().on(ApiKey::InitProducerId).error(code);
        let send = || producer.send(Record::to("orders").partition(0).value("v"));
        let first = send().await;
        assert_eq!(first.is_ok(), waited_out, "{code}: {first:?}");
        if let Err(error) = first {
            let outcome = error.write_outcome();
            assert_eq!(outcome, Some(WriteOutcome::NotWritten), "{code}");
            assert!(error.to_string().contains(&code.to_string()), "{error}");
        }
        // Whatever it was, the next record asks again.
        send().await.unwrap();
        assert_eq!(fault.fired(), 1, "{code}");
        let written = cluster.log("orders", 0).len();
        assert_eq!(written, 1 + usize::from(waited_out), "{code}");
    }
}
