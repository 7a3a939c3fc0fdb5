use super::*;
use crate::api_key::ApiKey;
use crate::testing::{Asked, Net, answer_bytes, every_version};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use ottla_proto::Code;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

/// What the fake brokers all know.
#[derive(Default)]
struct World {
    brokers: BTreeMap<i32, (String, i32)>,
    /// Topic code and the partitions' leaders with their epochs.
    topics: BTreeMap<String, (i16, Vec<(i32, i32)>)>,
    /// What FindCoordinator answers, one after another; the last stays.
    coordinators: VecDeque<(i16, i32)>,
    metadata_asked: Vec<Vec<String>>,
    finds: usize,
    /// Every broker hangs up when asked.
    dead: bool,
}

type Shared = Arc<Mutex<World>>;

impl World {
    fn metadata(&mut self, request: &MetadataRequest) -> MetadataResponse {
        let names = request
            .topics
            .iter()
            .flatten()
            .flat_map(|topic| topic.name.clone());
        let names: Vec<String> = match &request.topics {
            None => self.topics.keys().cloned().collect(),
            Some(_) => names.map(|name| name.to_string()).collect(),
        };
        let topics = names.iter().map(|name| self.topic(name)).collect();
        self.metadata_asked.push(names);
        let brokers = self.brokers.iter().map(|(id, (host, port))| {
            MetadataResponseBroker::default()
                .with_node_id((*id).into())
                .with_host(host.clone().into())
                .with_port(*port)
        });
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_topics(topics)
    }

    fn topic(&self, name: &str) -> MetadataResponseTopic {
        let unknown = (Code::UNKNOWN_TOPIC_OR_PARTITION.0, Vec::new());
        let (code, partitions) = self.topics.get(name).unwrap_or(&unknown);
        let partitions = partitions.iter().zip(0..).map(|((leader, epoch), index)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id((*leader).into())
                .with_leader_epoch(*epoch)
        });
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(name.to_owned().into())))
            .with_topic_id(Uuid::from_bytes([3; 16]))
            .with_error_code(*code)
            .with_partitions(partitions.collect())
    }

    fn coordinator(&mut self, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        self.finds += 1;
        let (code, id) = match self.coordinators.len() {
            0 => (Code::COORDINATOR_NOT_AVAILABLE.0, -1),
            1 => self.coordinators[0],
            _ => self.coordinators.pop_front().unwrap(),
        };
        let (host, port) = self.brokers.get(&id).cloned().unwrap_or_default();
        let one = Coordinator::default()
            .with_key(request.coordinator_keys[0].clone())
            .with_error_code(code)
            .with_node_id(id.into())
            .with_host(host.into())
            .with_port(port);
        FindCoordinatorResponse::default().with_coordinators(vec![one])
    }
}

fn answer(world: &Shared, asked: &Asked) -> Option<Vec<u8>> {
    if world.lock().dead {
        return None;
    }
    Some(match asked.api {
        ApiKey::ApiVersions => answer_bytes(asked.version, &every_version()),
        ApiKey::Metadata => {
            let metadata = world.lock().metadata(&asked.body());
            answer_bytes(asked.version, &metadata)
        }
        ApiKey::FindCoordinator => {
            let found = world.lock().coordinator(&asked.body());
            answer_bytes(asked.version, &found)
        }
        _ => return None,
    })
}

/// Three brokers `b1:1` to `b3:3` and the topic `orders` with a partition on each.
fn three_brokers() -> (Net, Shared) {
    let net = Net::default();
    let world: Shared = Shared::default();
    for id in 1..=3 {
        world.lock().brokers.insert(id, (format!("b{id}"), id));
        serve(&net, &world, id);
    }
    world
        .lock()
        .topics
        .insert("orders".to_owned(), (0, vec![(1, 1), (2, 1), (3, 1)]));
    (net, world)
}

fn serve(net: &Net, world: &Shared, id: i32) {
    let world = Arc::clone(world);
    net.serve(&format!("b{id}"), id as u16, move |asked| {
        answer(&world, asked)
    });
}

fn settings(bootstrap: &[&str]) -> Settings {
    Settings {
        bootstrap: bootstrap
            .iter()
            .map(|&address| address.to_owned())
            .collect(),
        seed: 42,
        ..Settings::default()
    }
}

async fn connect(net: &Net, bootstrap: &[&str]) -> Result<Cluster> {
    Cluster::connect(settings(bootstrap), Arc::new(net.clone())).await
}

fn soon() -> Instant {
    Instant::now() + 5 * SECOND
}

#[tokio::test(start_paused = true)]
async fn a_dead_first_bootstrap_address_does_not_matter() {
    let (net, _world) = three_brokers();
    net.black_hole("frozen", 1);
    let start = Instant::now();
    let cluster = connect(&net, &["dead:1", "frozen:1", "b2:2"])
        .await
        .unwrap();
    assert!(
        start.elapsed() <= 2 * SECOND,
        "a frozen address holds nobody up"
    );
    let view = cluster.view();
    assert_eq!((view.generation, view.brokers.len()), (1, 3));
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
async fn many_callers_share_one_dial() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let before = net.dials().len();
    let calls = (0..10).map(|_| cluster.connection(BrokerId(2), Class::Produce));
    let connections = futures_util::future::join_all(calls).await;
    assert!(connections.iter().all(Result::is_ok));
    assert_eq!(net.dials()[before..], ["b2:2"]);
    cluster.connection(BrokerId(2), Class::Fetch).await.unwrap();
    cluster
        .connection(BrokerId(2), Class::ProduceApart(1))
        .await
        .unwrap();
    assert_eq!(net.dials().len(), before + 3, "one a class");
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
            .connection(BrokerId(2), Class::Produce)
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("broker 2: "), "{error}");
        failed += 1;
    }
    assert!((8..25).contains(&failed), "{failed} dials in 10 s");
    serve(&net, &world, 2);
    assert!(
        cluster
            .connection(BrokerId(2), Class::Produce)
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
        if let Ok(connection) = cluster.connection(BrokerId(2), Class::Produce).await {
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
        .connection(BrokerId(2), Class::Produce)
        .await
        .unwrap();
    world.lock().brokers.insert(2, ("elsewhere".to_owned(), 7));
    let known = Arc::clone(&world);
    net.serve("elsewhere", 7, move |asked| answer(&known, asked));
    cluster.refresh().await.unwrap();
    let connection = cluster
        .connection(BrokerId(2), Class::Produce)
        .await
        .unwrap();
    assert_eq!(&**connection.address(), "elsewhere:7");
}

#[tokio::test(start_paused = true)]
async fn a_broker_the_cluster_does_not_have_is_named() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let error = cluster
        .connection(BrokerId(9), Class::Produce)
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
    let connection = cluster.any_connection(Class::Group).await.unwrap();
    assert_eq!(connection.broker(), BrokerId(3));
    let again = cluster.any_connection(Class::Group).await.unwrap();
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
async fn a_closed_cluster_refuses_everything_and_its_connections_end() {
    let (net, _world) = three_brokers();
    let cluster = connect(&net, &["b1:1"]).await.unwrap();
    let connection = cluster
        .connection(BrokerId(1), Class::Produce)
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
        .connection(BrokerId(1), Class::Produce)
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
        .connection(BrokerId(1), Class::Produce)
        .await
        .unwrap();
    drop(cluster);
    assert!(other.refresh().await.is_ok());
    drop(other);
    tokio::time::sleep(SECOND).await;
    assert!(connection.is_open(), "still in use");
}
