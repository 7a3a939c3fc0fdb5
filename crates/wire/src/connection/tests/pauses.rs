//! A broker that asks to be left alone.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_as_long_as_a_broker_asks_to_be_left_alone() {
    let (connection, mut peer) = connected(&settings());
    let fetch = || connection.submit(frame_of_version(ApiKey::Fetch, 8), 2 * SECOND);
    let first = fetch();
    let asked = peer.asked().await.unwrap();
    // Queued while the answer is on its way.
    let second = fetch();
    let asked_again = peer.asked().await.unwrap();
    peer.answer_raw(asked.correlation, &5000i32.to_be_bytes())
        .await;
    first.await.unwrap();
    let start = Instant::now();
    let third = fetch();
    peer.answer_raw(asked_again.correlation, &[0; 4]).await;
    second.await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "answers are still read");
    let asked = peer.asked().await.unwrap();
    let waited = start.elapsed();
    assert!((5 * SECOND..6 * SECOND).contains(&waited), "{waited:?}");
    peer.answer_raw(asked.correlation, &[0; 4]).await;
    third.await.unwrap();
    let start = Instant::now();
    let fourth = fetch();
    let asked = peer.asked().await.unwrap();
    peer.answer_raw(asked.correlation, &[0; 4]).await;
    fourth.await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "the pause is over");
}
