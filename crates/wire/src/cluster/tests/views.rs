//! Bootstrap, topics and refreshes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_dead_first_bootstrap_address_does_not_matter() {
    let (net, _world) = three_brokers();
    net.black_hole("frozen", 1);
    for seed in 0..8 {
        let settings = Settings {
            seed,
            ..settings(&["dead:1", "frozen:1", "b2:2"])
        };
        let start = Instant::now();
        let cluster = Cluster::connect(settings, Arc::new(net.clone()))
            .await
            .unwrap();
        let elapsed = start.elapsed();
        assert!(
            elapsed <= 2 * SECOND,
            "a frozen address holds nobody up: {elapsed:?}"
        );
        let view = cluster.view();
        assert_eq!((view.generation, view.brokers.len()), (1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_address_answers_the_error_names_each_and_why() {
    let net = Net::default();
    net.black_hole("frozen", 9092);
    let start = Instant::now();
    let error = connect(&net, &["dead:1", "frozen"]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connection);
    let text = error.to_string();
    assert!(text.contains("dead:1 failed: connection refused"), "{text}");
    assert!(
        text.contains("frozen:9092 was not made within 10s"),
        "{text}"
    );
    let elapsed = start.elapsed();
    assert!(
        elapsed >= 50 * SECOND && elapsed <= 60 * SECOND,
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kafka_is_said_at_once() {
    let net = Net::default();
    let mut peers = net.listen("web", 80);
    tokio::spawn(async move {
        while let Some(mut peer) = peers.recv().await {
            peer.asked().await;
            tokio::io::AsyncWriteExt::write_all(&mut peer.0, b"HTTP/1.1 400 no\r\n\r\n")
                .await
                .ok();
        }
    });
    let start = Instant::now();
    let error = connect(&net, &["web:80"]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Protocol);
    assert!(
        error.to_string().contains("does not speak Kafka"),
        "{error}"
    );
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_still_starting_is_waited_for() {
    let (net, world) = three_brokers();
    let brokers = std::mem::take(&mut world.lock().brokers);
    let later = async {
        tokio::time::sleep(3 * SECOND).await;
        world.lock().brokers = brokers;
    };
    let (cluster, ()) = tokio::join!(connect(&net, &["b1:1"]), later);
    assert_eq!(cluster.unwrap().view().brokers.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_bootstrap_entry_is_a_config_error() {
    let error = connect(&Net::default(), &["kafka:port"]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_waited_for_until_it_exists() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let orders = cluster.topic("orders", soon()).await.unwrap();
    assert_eq!(
        (orders.partitions.len(), &orders.available[..]),
        (3, &[0, 1, 2][..])
    );
    let later = async {
        tokio::time::sleep(SECOND).await;
        world
            .lock()
            .topics
            .insert("late".to_owned(), (0, vec![(1, 0)]));
    };
    let (late, ()) = tokio::join!(cluster.topic("late", soon()), later);
    assert_eq!(late.unwrap().partitions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_ends_at_the_deadline_by_name() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let start = Instant::now();
    let error = cluster.topic("typo", soon()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("typo"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 5);
    let asked = world.lock().metadata_asked.len();
    assert!((5..15).contains(&asked), "backed off, not spun: {asked}");
    // Nobody wants it any more.
    tokio::time::sleep(20 * SECOND).await;
    assert!(world.lock().metadata_asked.len() <= asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_topic_fails_at_once_and_works_once_allowed() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let forbidden = (Code::TOPIC_AUTHORIZATION_FAILED.0, Vec::new());
    world.lock().topics.insert("secret".to_owned(), forbidden);
    let start = Instant::now();
    let error = cluster.topic("secret", soon()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TOPIC_AUTHORIZATION_FAILED));
    assert!(
        error.to_string().contains("secret") && start.elapsed() < SECOND,
        "{error}"
    );
    world
        .lock()
        .topics
        .insert("secret".to_owned(), (0, vec![(1, 0)]));
    cluster.topic("secret", soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stale_view_is_refreshed_once_for_many_marks() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    cluster.topic("orders", soon()).await.unwrap();
    let mut changes = cluster.changes();
    changes.mark_unchanged();
    let generation = cluster.view().generation;
    let asked = world.lock().metadata_asked.len();
    world
        .lock()
        .topics
        .insert("orders".to_owned(), (0, vec![(2, 2), (2, 1), (3, 1)]));
    for _ in 0..100 {
        cluster.mark_stale(generation);
    }
    changes.changed().await.unwrap();
    let view = cluster.view();
    assert_eq!(view.leader("orders", 0), Some((BrokerId(2), Some(2))));
    assert_eq!(view.generation, generation + 1);
    // A failure seen under the old view says nothing about the new one.
    cluster.mark_stale(generation);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.lock().metadata_asked.len(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_view_that_stays_the_same_is_not_published_again() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    cluster.topic("orders", soon()).await.unwrap();
    let generation = cluster.view().generation;
    let asked = world.lock().metadata_asked.len();
    cluster.refresh().await.unwrap();
    assert_eq!(world.lock().metadata_asked.len(), asked + 1);
    assert_eq!(cluster.view().generation, generation);
    // Age alone refreshes it too.
    tokio::time::sleep(301 * SECOND).await;
    assert_eq!(world.lock().metadata_asked.len(), asked + 2);
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_asked_about_until_it_has_one() {
    let (net, world) = three_brokers();
    world
        .lock()
        .topics
        .insert("orders".to_owned(), (0, vec![(-1, 1), (2, 1)]));
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let orders = cluster.topic("orders", soon()).await.unwrap();
    assert_eq!(orders.available, [1]);
    let mut changes = cluster.changes();
    tokio::time::sleep(20 * SECOND).await;
    changes.mark_unchanged();
    world
        .lock()
        .topics
        .insert("orders".to_owned(), (0, vec![(3, 2), (2, 1)]));
    tokio::time::timeout(2 * SECOND, changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        cluster.view().leader("orders", 0),
        Some((BrokerId(3), Some(2)))
    );
}

#[tokio::test(start_paused = true)]
async fn when_every_known_broker_is_gone_we_begin_again_from_the_bootstrap_addresses() {
    let (net, world) = three_brokers();
    let bootstrap = ["b1:1", "vip:9"];
    let cluster = connect(&net, &bootstrap).await.unwrap();
    for id in 1..=3 {
        net.remove(&format!("b{id}"), id as u16);
    }
    let brokers = BTreeMap::from([(4, ("b4".to_owned(), 4)), (5, ("b5".to_owned(), 5))]);
    world.lock().brokers = brokers;
    let known = Arc::clone(&world);
    net.serve("vip", 9, move |asked| answer(&known, asked));
    let view = cluster.refresh().await.unwrap();
    assert_eq!(
        view.brokers.keys().map(|id| id.0).collect::<Vec<_>>(),
        [4, 5]
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_reaches_nobody_says_so_and_recovers() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    for id in 1..=3 {
        net.remove(&format!("b{id}"), id as u16);
    }
    let error = cluster.refresh().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("b1:1") && text.contains("b3:3"), "{text}");
    serve(&net, &world, 2);
    let mut changes = cluster.changes();
    changes.mark_unchanged();
    world
        .lock()
        .topics
        .insert("new".to_owned(), (0, vec![(2, 0)]));
    cluster.topic("new", soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_neither_spun_through_nor_final() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    cluster.topic("orders", soon()).await.unwrap();
    world.lock().dead = true;
    let before = net.dials().len();
    tokio::time::sleep(1200 * SECOND).await;
    // Begins when the view grows old; four addresses a refresh, a refresh a second at most.
    let dials = net.dials().len() - before;
    assert!((900..6000).contains(&dials), "{dials} dials in 20 minutes");
    world.lock().dead = false;
    tokio::time::sleep(3 * SECOND).await;
    world
        .lock()
        .topics
        .insert("new".to_owned(), (0, vec![(2, 0)]));
    cluster.topic("new", soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_topic_can_be_listed_without_watching_it() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    world
        .lock()
        .topics
        .insert("other".to_owned(), (0, vec![(1, 0)]));
    let all = cluster.all_topics().await.unwrap();
    assert_eq!(all.topics.len(), 2);
    assert!(cluster.view().topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_watched_as_long_as_somebody_wants_it() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    cluster.watch_topics(["orders".into()]);
    cluster.watch_topics(["orders".into()]);
    cluster.refresh().await.unwrap();
    cluster.unwatch_topic("orders");
    assert!(cluster.refresh().await.unwrap().topic("orders").is_some());
    cluster.unwatch_topic("orders");
    assert!(cluster.refresh().await.unwrap().topic("orders").is_none());
    cluster.unwatch_topic("never watched");
}

#[tokio::test(start_paused = true)]
async fn who_gives_a_topic_up_takes_it_from_nobody_else() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    for _ in 0..3 {
        // As each producer does: it asks, then it watches.
        cluster.topic("orders", soon()).await.unwrap();
        cluster.watch_topics(["orders".into()]);
    }
    for _ in 0..2 {
        cluster.unwatch_topic("orders");
        assert!(cluster.refresh().await.unwrap().topic("orders").is_some());
    }
    cluster.unwatch_topic("orders");
    assert!(cluster.refresh().await.unwrap().topic("orders").is_none());
}

/// Waits for a topic that is made after three seconds, while `meanwhile` happens.
async fn made_late(meanwhile: impl AsyncFnOnce(&Cluster)) -> Result<Arc<Topic>> {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let make = async {
        tokio::time::sleep(3 * SECOND).await;
        let late = ("late".to_owned(), (0, vec![(1, 0)]));
        world.lock().topics.extend([late]);
    };
    let (late, (), ()) = tokio::join!(cluster.topic("late", soon()), meanwhile(&cluster), make);
    if late.is_ok() {
        let view = cluster.refresh().await.unwrap();
        assert!(view.topic("late").is_some(), "and it stays");
    }
    late
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_topic_finds_it_though_another_unwatches_it_meanwhile() {
    let found = made_late(async |cluster| {
        tokio::time::sleep(SECOND).await;
        cluster.watch_topics(["late".into()]);
        cluster.unwatch_topic("late");
    });
    found.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_topic_finds_it_though_another_stops_waiting_meanwhile() {
    let found = made_late(async |cluster| {
        let impatient = cluster.topic("late", Instant::now() + SECOND);
        impatient.await.unwrap_err();
    });
    found.await.unwrap();
    let found = made_late(async |cluster| {
        let cancelled = tokio::time::timeout(SECOND, cluster.topic("late", soon()));
        cancelled.await.unwrap_err();
    });
    found.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cancelled_leaves_nothing_to_be_asked_for() {
    let (net, world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let cancelled = tokio::time::timeout(SECOND, cluster.topic("typo", soon()));
    cancelled.await.unwrap_err();
    world.lock().metadata_asked.clear();
    cluster.refresh().await.unwrap();
    let asked = world.lock().metadata_asked.concat();
    assert!(asked.is_empty(), "{asked:?}");
}
