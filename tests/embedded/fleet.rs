//! Producers that share one look at the brokers, as users ask for it.

use ottla::lag::fleet::{Claim, Key, Publication, Store};
use ottla::lag::{Lag, Origin, Trouble};
use ottla::{BoxFuture, Client};
use ottla_broker::{ApiKey, Cluster};
use ottla_tests::client;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A store in memory: lease and value by name, each with its end.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    leases: BTreeMap<String, (String, Instant)>,
    values: BTreeMap<String, (Vec<u8>, Instant)>,
    began: Option<Instant>,
}

impl Entries {
    /// The store's clock, in milliseconds.
    fn now(&mut self) -> u64 {
        let began = *self.began.get_or_insert_with(Instant::now);
        u64::try_from(began.elapsed().as_millis()).unwrap() + 1_000_000
    }
}

impl Store for Shelf {
    fn claim<'a>(
        &'a mut self,
        keys: &'a [Key],
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Claim>, Trouble>> {
        let mut entries = self.0.lock().unwrap();
        let stamp = entries.now();
        let now = Instant::now();
        let claims = keys.iter().map(|key| {
            let name = key.name();
            let held = entries.leases.get(name).filter(|(_, until)| now < *until);
            if held.is_some_and(|(holder, _)| holder != owner) {
                let value = entries.values.get(name).filter(|(_, until)| now < *until);
                let value = value.map(|(value, _)| value.clone());
                return Claim::Theirs { now: stamp, value };
            }
            let until = now + lease;
            entries
                .leases
                .insert(name.to_owned(), (owner.to_owned(), until));
            Claim::Ours { token: 1 }
        });
        let claims = claims.collect();
        Box::pin(std::future::ready(Ok(claims)))
    }

    fn publish<'a>(
        &'a mut self,
        publications: &'a [Publication],
        _owner: &'a str,
        lives: Duration,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        let mut entries = self.0.lock().unwrap();
        for one in publications {
            let stamp = entries.now() - u64::try_from(one.age.as_millis()).unwrap();
            let value = format!("1 {stamp} {}", one.body).into_bytes();
            let until = Instant::now() + lives;
            entries
                .values
                .insert(one.key.name().to_owned(), (value, until));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn two_clients() -> (Cluster, [Client; 2]) {
    let cluster = Cluster::builder().in_memory().topic("orders", 3);
    let cluster = cluster.start().await.unwrap();
    let first = client(&cluster).connect().await.unwrap();
    let second = client(&cluster).connect().await.unwrap();
    (cluster, [first, second])
}

async fn watch(client: &Client, store: &Shelf) -> Lag {
    let lag = client.lag("billing").topics(["orders"]);
    lag.fleet(store.clone()).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_of_a_fleet_asks_and_the_others_read_what_it_heard() {
    let (cluster, [first, second]) = two_clients().await;
    let store = Shelf::default();
    let leader = watch(&first, &store).await;
    let reader = watch(&second, &store).await;
    sleep(3 * SECOND).await;
    assert_eq!(leader.origin(), Origin::Asked);
    assert_eq!(reader.origin(), Origin::Shared);
    let told = |lag: &Lag| {
        let snapshot = lag.snapshot();
        let partitions = snapshot.topics.iter().flat_map(|topic| &topic.partitions);
        let offsets = partitions.map(|one| (one.partition, one.end, one.committed, one.status));
        offsets.collect::<Vec<_>>()
    };
    assert_eq!(told(&reader), told(&leader));
    assert_eq!(told(&reader).len(), 3);
    let before = cluster.requests(ApiKey::OffsetFetch);
    sleep(10 * SECOND).await;
    let asked = cluster.requests(ApiKey::OffsetFetch) - before;
    assert!(
        (8..=14).contains(&asked),
        "as many looks as one process takes: {asked}"
    );
    // The one that asked goes: the other takes over.
    drop((leader, first));
    sleep(10 * SECOND).await;
    assert_eq!(reader.origin(), Origin::Asked);
    let newest = reader.snapshot();
    assert!(newest.taken_at.elapsed() < 2 * SECOND);
}

#[cfg(not(feature = "redis"))]
#[tokio::test(start_paused = true)]
#[ignore = "needs a build of this crate alone: beside the command the library has Redis"]
async fn a_build_without_redis_refuses_it_by_name() {
    let cluster = Cluster::builder().in_memory().topic("orders", 1);
    let cluster = cluster.start().await.unwrap();
    let client = client(&cluster).property("lag.fleet.redis.url", "redis://:secret@127.0.0.1:1");
    let client = client.unwrap().connect().await.unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let refused = client.lag("billing").topics(["orders"]).start().await;
    let error = refused.unwrap_err();
    assert_eq!(*error.kind(), ottla::ErrorKind::Config);
    assert!(error.to_string().contains("lag.fleet.redis.url"), "{error}");
}

/// A Redis server, ended by its id when this goes.
#[cfg(feature = "redis")]
struct Redis {
    process: std::process::Child,
    url: String,
}

#[cfg(feature = "redis")]
impl Redis {
    fn start() -> Self {
        use std::io::{BufRead, BufReader};
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = std::process::Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        server.args(["--save", "", "--requirepass", "pass:word"]);
        server.stdout(std::process::Stdio::piped());
        let mut process = server.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Ready to accept connections")));
        let url = format!("redis://:pass%3Aword@127.0.0.1:{port}/1");
        Self { process, url }
    }

    fn signal(&self, name: &str) {
        let mut kill = std::process::Command::new("kill");
        let id = self.process.id().to_string();
        assert!(
            kill.args([&format!("-{name}"), &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

#[cfg(feature = "redis")]
impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that shares lag with others through the server.
#[cfg(feature = "redis")]
async fn sharing(cluster: &Cluster, redis: &Redis) -> Client {
    let client = Client::builder(cluster.bootstrap());
    let client = client.property("lag.fleet.redis.url", &redis.url).unwrap();
    let client = client.property("lag.refresh.interval.ms", "200").unwrap();
    client.connect().await.unwrap()
}

/// The store serves lag figures alone: a producer that steers by them never waits for it.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis"]
async fn a_redis_that_hangs_holds_up_no_record() {
    let redis = Redis::start();
    let cluster = Cluster::builder().topic("orders", 3).start().await.unwrap();
    let client = sharing(&cluster, &redis).await;
    let lag = client.lag("billing").topics(["orders"]);
    let lag = lag.start().await.unwrap();
    let steer = ottla::LagAware::new(lag.plan());
    let producer = client.producer().partitioner(steer).build().unwrap();
    let send = async |text: &'static str| {
        let began = Instant::now();
        let sent = producer.send(ottla::Record::to("orders").value(text)).await;
        sent.unwrap();
        let took = began.elapsed();
        assert!(took < SECOND, "{text}: a record waited for {took:?}");
    };
    send("the first").await;
    redis.signal("STOP");
    let degraded = async {
        while !matches!(lag.origin(), Origin::Degraded(_)) {
            send("the store is frozen").await;
        }
        for _ in 0..50 {
            send("and that is known").await;
        }
    };
    tokio::time::timeout(20 * SECOND, degraded).await.unwrap();
    let heard = lag.snapshot().taken_at;
    let again = async {
        while lag.snapshot().taken_at == heard {
            lag.changes().changed().await.unwrap();
        }
    };
    let steers = "figures still come, from the brokers";
    tokio::time::timeout(5 * SECOND, again).await.expect(steers);
    redis.signal("CONT");
    producer.close().await.unwrap();
    cluster.shutdown().await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis"]
async fn redis_is_reached_by_a_property_alone() {
    let redis = Redis::start();
    let cluster = Cluster::builder().topic("orders", 3).start().await.unwrap();
    let mut lags = Vec::new();
    for _ in 0..2 {
        let lag = sharing(&cluster, &redis).await.lag("billing");
        lags.push(lag.topics(["orders"]).start().await.unwrap());
    }
    let shared = async {
        while lags[1].origin() != Origin::Shared {
            lags[1].changes().changed().await.unwrap();
        }
    };
    tokio::time::timeout(20 * SECOND, shared).await.unwrap();
    assert_eq!(lags[0].origin(), Origin::Asked);
    // Without the store both ask for themselves, and say so.
    drop(redis);
    let alone = async {
        for lag in &lags {
            while !matches!(lag.origin(), Origin::Degraded(_)) {
                lag.changes().changed().await.unwrap();
            }
        }
    };
    tokio::time::timeout(20 * SECOND, alone).await.unwrap();
    cluster.shutdown().await;
}
