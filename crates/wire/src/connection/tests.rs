mod pauses;

use super::*;
use crate::frame::{FrameWriter, Header, HeaderForm};
use crate::testing::{self, Asked, pipe};
use bytes::BytesMut;
use kafka_protocol::messages::ApiVersionsResponse;
use ottla_proto::Code;
use std::sync::atomic::AtomicU32;
use tokio::io::AsyncWriteExt;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        client_id: "tester".to_owned(),
        ..Settings::default()
    }
}

fn peer_name() -> Peer {
    Peer {
        broker: Some(BrokerId(7)),
        address: "kafka:9092".into(),
    }
}

/// A connection that skipped the handshake, and its other end.
fn connected(settings: &Settings) -> (Connection, testing::Peer) {
    let (stream, peer) = pipe();
    let connection = Connection::start(stream, peer_name(), settings);
    connection.0.core.spoken.store(true, Ordering::Relaxed);
    (connection, peer)
}

fn frame(api: ApiKey) -> Frame {
    frame_of_version(api, 0)
}

fn writer_of_version(api: ApiKey, version: i16) -> FrameWriter {
    let header = Header {
        api,
        version,
        form: HeaderForm::Plain,
        client_id: "tester",
    };
    FrameWriter::new(header, 16)
}

fn frame_of_version(api: ApiKey, version: i16) -> Frame {
    let mut writer = writer_of_version(api, version);
    writer.small().extend_from_slice(b"body");
    writer.finish().unwrap()
}

async fn open(peer: impl AsyncFnOnce(testing::Peer)) -> Result<Connection> {
    open_with(&settings(), peer).await
}

async fn open_with(
    settings: &Settings,
    peer: impl AsyncFnOnce(testing::Peer),
) -> Result<Connection> {
    let (stream, other_end) = pipe();
    let deadline = Instant::now() + settings.connect_timeout;
    let opening = Connection::open(stream, peer_name(), settings, deadline);
    tokio::join!(opening, peer(other_end)).0
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_get_their_own_answers_in_order() {
    let (connection, mut peer) = connected(&settings());
    let pending: Vec<Pending> = (0..3)
        .map(|_| connection.submit(frame(ApiKey::Metadata), SECOND))
        .collect();
    assert_eq!(connection.in_flight(), 3);
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(peer.asked().await.unwrap());
    }
    assert!(
        asked
            .iter()
            .all(|asked| asked.client_id == "tester" && asked.body == "body")
    );
    for (nth, asked) in asked.iter().enumerate() {
        peer.answer_raw(asked.correlation, &[nth as u8]).await;
    }
    for (nth, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap()[..], [nth as u8]);
    }
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_in_the_middle_of_an_answer_fails_everything() {
    let (connection, mut peer) = connected(&settings());
    let first = connection.submit(frame(ApiKey::Metadata), SECOND);
    let second = connection.submit(frame(ApiKey::Produce), SECOND);
    peer.asked().await.unwrap();
    peer.0.write_all(&[0, 0, 0, 100, 0, 0]).await.unwrap();
    drop(peer);
    let error = first.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connection);
    let text = error.to_string();
    assert!(text.starts_with("broker 7: "), "{text}");
    assert!(
        text.contains("kafka:9092") && text.contains("middle of an answer"),
        "{text}"
    );
    assert_eq!(error.write_outcome(), None, "metadata writes nothing");
    let error = second.await.unwrap_err();
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
    connection.closed().await;
    assert!(!connection.is_open());
    let refused = connection
        .submit(frame(ApiKey::Produce), SECOND)
        .await
        .unwrap_err();
    assert_eq!(refused.write_outcome(), Some(WriteOutcome::NotWritten));
    assert!(
        refused.to_string().contains("middle of an answer"),
        "the first reason stays"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_poisons_the_connection() {
    let (connection, mut peer) = connected(&settings());
    let start = Instant::now();
    let first = connection.submit(frame(ApiKey::Metadata), SECOND);
    let second = connection.submit(frame(ApiKey::Metadata), 100 * SECOND);
    peer.asked().await.unwrap();
    let error = first.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert!(
        error
            .to_string()
            .contains("Metadata was not answered within 1s"),
        "{error}"
    );
    assert_eq!(start.elapsed().as_millis(), 1000);
    assert_eq!(*second.await.unwrap_err().kind(), ErrorKind::Connection);
    connection.closed().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_behind_a_predecessor_does_not_count_against_the_timeout() {
    let settings = Settings {
        max_in_flight: 2,
        ..settings()
    };
    let (connection, mut peer) = connected(&settings);
    let slow = connection.submit(frame(ApiKey::Fetch), 100 * SECOND);
    let behind = connection.submit(frame(ApiKey::Fetch), SECOND);
    let queued = connection.submit(frame(ApiKey::Fetch), SECOND);
    let first = peer.asked().await.unwrap();
    let second = peer.asked().await.unwrap();
    tokio::time::sleep(50 * SECOND).await;
    peer.answer_raw(first.correlation, b"slow").await;
    slow.await.unwrap();
    // The window let the third request out only now.
    let third = peer.asked().await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    peer.answer_raw(second.correlation, b"behind").await;
    behind.await.unwrap();
    tokio::time::sleep(SECOND * 9 / 10).await;
    peer.answer_raw(third.correlation, b"queued").await;
    queued.await.unwrap();
    assert!(connection.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_correlation_id_poisons_the_connection() {
    let (connection, mut peer) = connected(&settings());
    let first = connection.submit(frame(ApiKey::Metadata), SECOND);
    let second = connection.submit(frame(ApiKey::Metadata), SECOND);
    peer.asked().await.unwrap();
    let asked = peer.asked().await.unwrap();
    peer.answer_raw(asked.correlation, b"too early").await;
    let error = first.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Protocol);
    assert!(
        error.to_string().contains("answer 1 where 0 was due"),
        "{error}"
    );
    let error = second.await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::Connection,
        "the fault is not this request's"
    );
    assert_eq!(error.to_string().matches("broker 7").count(), 1, "{error}");
    assert!(
        connection
            .submit(frame(ApiKey::Metadata), SECOND)
            .await
            .unwrap_err()
            .is_retriable()
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_asked_for_poisons_the_connection() {
    let (connection, mut peer) = connected(&settings());
    peer.answer_raw(0, b"surprise").await;
    connection.closed().await;
    let error = connection
        .submit(frame(ApiKey::Metadata), SECOND)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nobody asked for"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_limit_is_refused_by_its_length_alone() {
    for length in [64 + 1, -1, i32::MAX, 3] {
        let (connection, mut peer) = connected(&settings());
        let pending = connection.submit(frame(ApiKey::Metadata).with_answer_max_bytes(64), SECOND);
        peer.asked().await.unwrap();
        peer.0.write_i32(length).await.unwrap();
        let error = pending.await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Protocol);
        assert!(
            error.to_string().contains(&format!("{length} bytes")),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_arrives_whole_from_small_pieces() {
    let (connection, mut peer) = connected(&settings());
    let pending = connection.submit(frame(ApiKey::Fetch), 100 * SECOND);
    let asked = peer.asked().await.unwrap();
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let sending = async {
        let mut whole = BytesMut::new();
        whole.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        whole.extend_from_slice(&asked.correlation.to_be_bytes());
        whole.extend_from_slice(&body);
        for piece in whole.chunks(7_001) {
            peer.0.write_all(piece).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(pending, sending);
    assert!(answer.unwrap() == body);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_does_not_shift_the_answers() {
    let (connection, mut peer) = connected(&settings());
    drop(connection.submit(frame(ApiKey::Metadata), SECOND));
    let kept = connection.submit(frame(ApiKey::Metadata), SECOND);
    for word in [&b"dropped"[..], b"kept"] {
        let asked = peer.asked().await.unwrap();
        peer.answer_raw(asked.correlation, word).await;
    }
    assert_eq!(kept.await.unwrap(), "kept");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_leaves_the_line_as_it_was() {
    let (connection, mut peer) = connected(&settings());
    let (tell, told) = tokio::sync::oneshot::channel();
    connection.submit_oneway(frame(ApiKey::Produce), |written| {
        tell.send(written.is_ok()).unwrap();
    });
    let asked_for = connection.submit(frame(ApiKey::Metadata), SECOND);
    let oneway = peer.asked().await.unwrap();
    let asked = peer.asked().await.unwrap();
    assert_eq!((oneway.api, asked.api), (ApiKey::Produce, ApiKey::Metadata));
    peer.answer_raw(asked.correlation, b"fine").await;
    assert_eq!(asked_for.await.unwrap(), "fine");
    assert!(told.await.unwrap(), "its writer hears that it was written");
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_is_unanswered_and_the_queue_what_waits() {
    let settings = Settings {
        max_in_flight: 2,
        ..settings()
    };
    let (connection, mut peer) = connected(&settings);
    let pending: Vec<Pending> = (0..5)
        .map(|_| connection.submit(frame(ApiKey::Metadata), SECOND))
        .collect();
    let first = peer.asked().await.unwrap();
    peer.asked().await.unwrap();
    let third = tokio::time::timeout(SECOND / 2, peer.asked()).await;
    assert!(third.is_err(), "only two may be unanswered");
    let answered = Instant::now();
    peer.answer_raw(first.correlation, b"").await;
    assert!(peer.asked().await.is_some());
    assert_eq!(
        answered.elapsed(),
        Duration::ZERO,
        "an answer lets the next one out"
    );
    drop(pending);
    let (tell, told) = std::sync::mpsc::channel();
    for _ in 0..=QUEUE_MAX {
        let tell = tell.clone();
        connection.submit_oneway(frame(ApiKey::Produce), move |written| {
            let _ = tell.send(written.err());
        });
    }
    let error = told.try_recv().unwrap().expect("one is refused at once");
    assert!(
        error.to_string().contains("requests waiting already"),
        "{error}"
    );
    assert_eq!(error.write_outcome(), Some(WriteOutcome::NotWritten));
    assert!(connection.is_open());
}

#[tokio::test(start_paused = true)]
async fn what_never_left_the_queue_was_certainly_not_written() {
    let settings = Settings {
        max_in_flight: 1,
        ..settings()
    };
    let (connection, mut peer) = connected(&settings);
    let written = connection.submit(frame(ApiKey::Produce), SECOND);
    let queued = connection.submit(frame(ApiKey::Produce), SECOND);
    peer.asked().await.unwrap();
    drop(peer);
    let outcome = written.await.unwrap_err().write_outcome();
    assert_eq!(outcome, Some(WriteOutcome::Unknown));
    let outcome = queued.await.unwrap_err().write_outcome();
    assert_eq!(outcome, Some(WriteOutcome::NotWritten));
}

#[test]
fn a_waiter_that_is_dropped_is_told() {
    let (sender, mut receiver) = oneshot::channel();
    drop(Waiter::channel(ApiKey::Produce, sender));
    let error = receiver.try_recv().unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connection);
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_called_once_whatever_happens() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = |connection: &Connection| {
        let calls = Arc::clone(&calls);
        let on_answer: OnAnswer = Arc::new(move |asked, _| {
            assert_eq!(asked.request, 7);
            calls.fetch_add(1, Ordering::Relaxed);
        });
        connection.submit_then(frame(ApiKey::Produce), SECOND, 7, &on_answer);
    };
    let (connection, mut peer) = connected(&settings());
    count(&connection);
    let asked = peer.asked().await.unwrap();
    peer.answer_raw(asked.correlation, b"").await;
    count(&connection);
    peer.asked().await.unwrap();
    connection.close();
    connection.closed().await;
    assert_eq!(calls.load(Ordering::Relaxed), 2, "one answered, one failed");
    count(&connection);
    assert_eq!(calls.load(Ordering::Relaxed), 3, "refused on the spot");
}

#[test]
fn a_callback_is_called_when_the_runtime_stops() {
    let outcome = Arc::new(Mutex::new(None));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _connection = runtime.block_on(async {
        let (connection, mut peer) = connected(&settings());
        let heard = Arc::clone(&outcome);
        let on_answer: OnAnswer = Arc::new(move |_, answer| {
            *heard.lock() = answer.unwrap_err().write_outcome();
        });
        connection.submit_then(frame(ApiKey::Produce), SECOND, 7, &on_answer);
        peer.asked().await.unwrap();
        connection
    });
    drop(runtime);
    assert_eq!(*outcome.lock(), Some(WriteOutcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_connection_after_the_last_answer() {
    let (connection, mut peer) = connected(&settings());
    let pending = connection.submit(frame(ApiKey::Metadata), SECOND);
    drop(connection);
    let asked = peer.asked().await.unwrap();
    peer.answer_raw(asked.correlation, b"last").await;
    assert_eq!(pending.await.unwrap(), "last");
    let answered = Instant::now();
    assert!(peer.asked().await.is_none());
    assert_eq!(answered.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes() {
    let settings = Settings {
        connections_max_idle: 60 * SECOND,
        ..settings()
    };
    let (connection, mut peer) = connected(&settings);
    tokio::time::sleep(50 * SECOND).await;
    let pending = connection.submit(frame(ApiKey::Metadata), 100 * SECOND);
    let asked = peer.asked().await.unwrap();
    tokio::time::sleep(80 * SECOND).await;
    assert!(connection.is_open(), "waiting for an answer is not idle");
    peer.answer_raw(asked.correlation, b"").await;
    pending.await.unwrap();
    let start = Instant::now();
    connection.closed().await;
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_bytes_is_given_up() {
    let (connection, _peer) = connected(&settings());
    let start = Instant::now();
    let mut writer = writer_of_version(ApiKey::Produce, 3);
    writer.payload(&Bytes::from(vec![0; 1 << 20]));
    let pending = connection.submit(writer.finish().unwrap(), 1000 * SECOND);
    let error = pending.await.unwrap_err();
    assert!(error.to_string().contains("took no bytes"), "{error}");
    assert_eq!(error.write_outcome(), Some(WriteOutcome::Unknown));
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn versions_are_agreed_on_first() {
    let connection = open(async |mut peer| peer.shake_hands().await)
        .await
        .unwrap();
    assert_eq!(connection.version(ApiKey::Metadata, 4..=13).unwrap(), 13);
    let error = connection.version(ApiKey::Metadata, 31..=40).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UnsupportedVersion);
    let text = error.to_string();
    assert!(
        text.contains("broker 7") && text.contains("31 to 40"),
        "{text}"
    );
    assert!(text.contains("0 to 30"), "{text}");
}

/// A broker that does not know the version answers in version 0 (KIP-511).
async fn fall_back(peer: &mut testing::Peer, knows: i16) -> Asked {
    let asked = peer.asked().await.unwrap();
    let answer = testing::versions([(ApiKey::ApiVersions, 0, knows)])
        .with_error_code(Code::UNSUPPORTED_VERSION.0);
    let body = testing::answer_bytes(0, &answer);
    peer.answer_raw(asked.correlation, &body).await;
    peer.asked().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_older_broker_is_asked_again_in_a_version_it_knows() {
    for knows in [3, 2, 0] {
        let connection = open(async |mut peer| {
            let again = fall_back(&mut peer, knows).await;
            assert_eq!(again.version, knows);
            peer.answer(&again, &testing::versions([(ApiKey::Fetch, 4, 11)]))
                .await;
        });
        let connection = connection.await.unwrap();
        assert_eq!(connection.version(ApiKey::Fetch, 4..=17).unwrap(), 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_every_version_is_an_error() {
    let error = open(async |mut peer| {
        let again = fall_back(&mut peer, 3).await;
        let answer = testing::versions([]).with_error_code(Code::UNSUPPORTED_VERSION.0);
        let body = testing::answer_bytes(0, &answer);
        peer.answer_raw(again.correlation, &body).await;
    });
    let error = error.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UnsupportedVersion);
}

#[tokio::test(start_paused = true)]
async fn finalized_features_are_kept() {
    use kafka_protocol::messages::api_versions_response::FinalizedFeatureKey;
    let connection = open(async |mut peer| {
        let asked = peer.asked().await.unwrap();
        let feature = FinalizedFeatureKey::default()
            .with_name("transaction.version".into())
            .with_min_version_level(1)
            .with_max_version_level(2);
        let answer: ApiVersionsResponse = testing::every_version()
            .with_finalized_features(vec![feature])
            .with_finalized_features_epoch(9);
        peer.answer(&asked, &answer).await;
    });
    let connection = connection.await.unwrap();
    assert_eq!(
        connection.versions().feature_level("transaction.version"),
        Some(2)
    );
    assert_eq!(connection.versions().finalized_epoch, Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_not_kafka_is_named() {
    let cases: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46], "TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (&[0, 0, 0, 4, 9, 9, 9, 9], "makes no sense"),
    ];
    for (greeting, word) in cases {
        let error = open(async |mut peer| {
            peer.asked().await.unwrap();
            peer.0.write_all(greeting).await.unwrap();
            peer.asked().await;
        });
        let error = error.await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Protocol, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("does not speak Kafka") && text.contains(word),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_named() {
    let error = open(async |mut peer| {
        peer.0
            .write_all(b"220 mail.example.org ESMTP\r\n")
            .await
            .unwrap();
        peer.asked().await;
    });
    let error = error.await.unwrap_err();
    assert!(
        error.to_string().contains("does not speak Kafka"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_port_fails_within_the_connect_timeout() {
    let start = Instant::now();
    let error = open(async |mut peer| {
        peer.asked().await.unwrap();
        peer.asked().await;
    });
    let error = error.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("does the peer speak Kafka?"),
        "{error}"
    );
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_hangs_up_hints_at_the_listener() {
    let error = open(async |mut peer| {
        peer.asked().await.unwrap();
    });
    let error = error.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connection);
    assert!(
        error.to_string().contains("before its first answer"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn giving_up_the_opening_closes_the_stream() {
    let (stream, mut peer) = pipe();
    let settings = settings();
    let deadline = Instant::now() + 100 * SECOND;
    let opening = Connection::open(stream, peer_name(), &settings, deadline);
    assert!(tokio::time::timeout(SECOND, opening).await.is_err());
    peer.asked().await.unwrap();
    let given_up = Instant::now();
    assert!(peer.asked().await.is_none());
    assert_eq!(given_up.elapsed(), Duration::ZERO);
}
