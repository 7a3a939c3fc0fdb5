//! Connections, coordinators and the end.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_dial() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let before = net.dials().len();
    let calls = (0..10).map(|_| cluster.connection(BrokerId(2), Class::Produce(0)));
    let connections = futures_util::future::join_all(calls).await;
    assert!(connections.iter().all(Result::is_ok));
    assert_eq!(net.dials()[before..], ["b2:2"]);
    cluster
        .connection(BrokerId(2), Class::Fetch(0))
        .await
        .unwrap();
    cluster
        .connection(BrokerId(2), Class::ProduceApart(1))
        .await
        .unwrap();
    assert_eq!(net.dials().len(), before + 3, "one a class");
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_given_up_serves_those_who_wait_for_it_and_no_later_ones() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let mut peers = net.listen("b2", 2);
    let class = Class::Produce(7);
    let dial = || {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.connection(BrokerId(2), class).await.unwrap() })
    };
    let first = dial();
    let mut first_peer = peers.recv().await.unwrap();
    cluster.release(class);
    let second = dial();
    let mut second_peer = peers.recv().await.unwrap();
    second_peer.shake_hands().await;
    let second = second.await.unwrap();
    // It comes last, and takes nobody's place.
    first_peer.shake_hands().await;
    drop(first.await.unwrap());
    assert!(first_peer.asked().await.is_none(), "nobody holds it");
    cluster.connection(BrokerId(2), class).await.unwrap();
    assert!(peers.try_recv().is_err(), "the second one is still there");
    cluster.release(class);
    drop(second);
    assert!(second_peer.asked().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn dials_of_a_dead_broker_are_backed_off_and_recover() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    net.remove("b2", 2);
    let start = Instant::now();
    let mut failed = 0;
    while start.elapsed() < 10 * SECOND {
        let error = cluster
            .connection(BrokerId(2), Class::Produce(0))
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("broker 2: "), "{error}");
        failed += 1;
    }
    assert!((8..25).contains(&failed), "{failed} dials in 10 s");
    serve(&net, &world, 2);
    assert!(
        cluster
            .connection(BrokerId(2), Class::Produce(0))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_up_again_and_again_is_not_stormed() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let mut peers = net.listen("b2", 2);
    let hangups = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hangups);
    tokio::spawn(async move {
        while let Some(mut peer) = peers.recv().await {
            peer.shake_hands().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let start = Instant::now();
    while start.elapsed() < 10 * SECOND {
        if let Ok(connection) = cluster.connection(BrokerId(2), Class::Produce(0)).await {
            connection.closed().await;
        }
    }
    let hangups = hangups.load(Ordering::Relaxed);
    assert!((8..25).contains(&hangups), "{hangups} dials in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_moved_is_dialled_at_its_new_address() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    cluster
        .connection(BrokerId(2), Class::Produce(0))
        .await
        .unwrap();
    world.lock().brokers.insert(2, ("elsewhere".to_owned(), 7));
    let known = Arc::clone(&world);
    net.serve("elsewhere", 7, move |asked| answer(&known, asked));
    cluster.refresh().await.unwrap();
    let connection = cluster
        .connection(BrokerId(2), Class::Produce(0))
        .await
        .unwrap();
    assert_eq!(&**connection.address(), "elsewhere:7");
}

#[tokio::test(start_paused = true)]
async fn a_broker_the_cluster_does_not_have_is_named() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let error = cluster
        .connection(BrokerId(9), Class::Produce(0))
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("broker 9"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn any_connection_passes_over_dead_brokers() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    net.remove("b1", 1);
    net.black_hole("b2", 2);
    let start = Instant::now();
    let connection = cluster.any_connection(Class::Group(0)).await.unwrap();
    assert_eq!(connection.broker(), BrokerId(3));
    assert!(
        start.elapsed() < 3 * SECOND,
        "a frozen broker holds nobody up"
    );
    let again = cluster.any_connection(Class::Group(0)).await.unwrap();
    assert_eq!(again.broker(), BrokerId(3), "the open one");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_is_asked_for_once_and_again_when_it_moved() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let loading = (Code::COORDINATOR_LOAD_IN_PROGRESS.0, -1);
    world.lock().coordinators = [loading, loading, (0, 2)].into();
    let find = || cluster.coordinator(CoordinatorKind::Group, "billing", soon());
    let found = futures_util::future::join_all((0..5).map(|_| find())).await;
    assert!(
        found.iter().all(|found| matches!(found, Ok(BrokerId(2)))),
        "{found:?}"
    );
    assert_eq!(
        world.lock().finds,
        3,
        "asked once for all, after two refusals"
    );
    world.lock().coordinators = [(0, 3)].into();
    assert_eq!(find().await.unwrap(), BrokerId(2), "remembered");
    cluster.forget_coordinator(CoordinatorKind::Group, "billing", BrokerId(2));
    assert_eq!(find().await.unwrap(), BrokerId(3));
    cluster.forget_coordinator(CoordinatorKind::Group, "billing", BrokerId(2));
    assert_eq!(
        find().await.unwrap(),
        BrokerId(3),
        "that was about the old one"
    );
    assert_eq!(world.lock().finds, 4);
    world.lock().coordinators = [(0, 1)].into();
    let namesake = cluster.coordinator(CoordinatorKind::Transaction, "billing", soon());
    assert_eq!(namesake.await.unwrap(), BrokerId(1));
    assert_eq!(find().await.unwrap(), BrokerId(3));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_never_comes_ends_at_the_deadline() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let error = cluster
        .coordinator(CoordinatorKind::Group, "billing", soon())
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    assert!(
        text.contains("billing") && text.contains("COORDINATOR_NOT_AVAILABLE"),
        "{text}"
    );
    assert!(
        (5..15).contains(&world.lock().finds),
        "{}",
        world.lock().finds
    );
    let forbidden = (Code::GROUP_AUTHORIZATION_FAILED.0, -1);
    world.lock().coordinators = [forbidden].into();
    let start = Instant::now();
    let error = cluster
        .coordinator(CoordinatorKind::Group, "billing", soon())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::GROUP_AUTHORIZATION_FAILED));
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_closed_cluster_refuses_everything_and_its_connections_end() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let connection = cluster
        .connection(BrokerId(1), Class::Produce(0))
        .await
        .unwrap();
    let waiting = cluster.topic("never", soon() + 1000 * SECOND);
    let (error, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(SECOND).await;
        cluster.close().await;
    });
    assert_eq!(*error.unwrap_err().kind(), ErrorKind::Closed);
    assert!(!connection.is_open());
    let error = cluster
        .connection(BrokerId(1), Class::Produce(0))
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Closed);
    assert_eq!(
        *cluster.refresh().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_connections() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let other = cluster.clone();
    let connection = cluster
        .connection(BrokerId(1), Class::Produce(0))
        .await
        .unwrap();
    drop(cluster);
    assert!(other.refresh().await.is_ok());
    drop(other);
    tokio::time::sleep(SECOND).await;
    assert!(connection.is_open(), "still in use");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_wants_to_be_left_alone_is_passed_over_while_others_answer() {
    let (net, world) = three_brokers();
    // Each broker wants five seconds after every metadata answer.
    world.lock().throttle_ms = 5_000;
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        cluster.all_topics().await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "a broker each");
    cluster.all_topics().await.unwrap();
    assert!(start.elapsed() >= 4 * SECOND, "{:?}", start.elapsed());
}
