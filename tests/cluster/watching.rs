//! What `ottla exporter` and `ottla health` tell of a real cluster.

use crate::command::{ottla, run_ottla};
use crate::kafka::{Kafka, unique};
use crate::lag::{filled, table};
use crate::process::{PATIENCE, Running};
use crate::steering::{PARTITIONS, STALLED, read, shares};
use ottla::consumer::{Committed, Start};
use ottla::{Client, TopicPartition};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Gets a path of an exporter whose address is this; status line and body.
pub(crate) async fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The samples of a page.
pub(crate) fn samples(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).collect()
}

/// An exporter with these options, and its address.
pub(crate) async fn exporter(kafka: &Kafka, options: &[&str]) -> (Running, String) {
    let arguments = ["exporter", "--listen", "127.0.0.1:0", "--refresh", "0.5"];
    let arguments = [&arguments[..], options].concat();
    let mut running = Running::start(ottla(&kafka.bootstrap, &arguments).await);
    let line = timeout(PATIENCE, running.line()).await.unwrap().unwrap();
    let line = String::from_utf8(line.to_vec()).unwrap();
    let address = line.strip_prefix("http://").unwrap();
    (
        running,
        address.strip_suffix("/metrics").unwrap().to_owned(),
    )
}

pub(crate) async fn commit(client: &Client, group: &str, offsets: &[(TopicPartition, i64)]) {
    let start = offsets
        .iter()
        .map(|(at, _)| (at.clone(), Start::Offset(0, None)));
    let consumer = client.consumer().unwrap().group(group).auto_commit(None);
    let consumer = consumer.assign(start).build().await.unwrap();
    let offsets = offsets
        .iter()
        .map(|(at, offset)| (at.clone(), Committed::at(*offset)));
    consumer.commit_offsets(offsets.collect()).await.unwrap();
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn the_exporter_tells_what_kafkas_own_tool_tells() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[10, 20, 30]).await;
    let group = unique("exported");
    let at = |partition| TopicPartition::new(topic.as_str(), partition);
    commit(&client, &group, &[(at(0), 4), (at(1), 20)]).await;
    let (running, address) = exporter(&kafka, &["--group-filter", &group]).await;
    let there = async {
        while !get(&address, "/healthz").await.0.contains(" 200 ") {
            sleep(SECOND / 10).await;
        }
    };
    timeout(PATIENCE, there).await.unwrap();

    let arguments = ["--describe", "--group", &group];
    let javas = kafka
        .run_tool("consumer.group.ConsumerGroupCommand", &arguments, b"")
        .await;
    let javas = table(javas.text());
    assert_eq!(javas.len(), 2);
    let (_, page) = get(&address, "/metrics").await;
    let told = samples(&page);
    let of = |name: &str, partition: &str| {
        let labels = format!("topic=\"{topic}\",partition=\"{partition}\"");
        let key = match name.contains("consumergroup") {
            true => format!("{name}{{consumergroup=\"{group}\",{labels}}}"),
            false => format!("{name}{{{labels}}}"),
        };
        told.get(key.as_str()).map(|sample| (*sample).to_owned())
    };
    for ((_, partition), row) in &javas {
        let told = [
            of("kafka_consumergroup_current_offset", partition),
            of("kafka_topic_partition_current_offset", partition),
            of("kafka_consumergroup_lag", partition),
        ];
        let javas = row[2..5].iter().map(|cell| Some(cell.clone()));
        assert!(told.into_iter().eq(javas), "{row:?} is not told: {page}");
    }
    assert_eq!(of("kafka_consumergroup_lag", "2"), None);
    assert_eq!(
        of("kafka_topic_partition_replicas", "2").as_deref(),
        Some("3")
    );
    assert_eq!(
        of("kafka_topic_partition_in_sync_replica", "2").as_deref(),
        Some("3")
    );
    assert_eq!(told["kafka_brokers"], "3");
    let sum = format!("kafka_consumergroup_lag_sum{{consumergroup=\"{group}\",topic=\"{topic}\"}}");
    assert_eq!(told[sum.as_str()], "6");
    running.end().await;
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_person_is_shown_why_each_partition_has_its_share() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "explained", PARTITIONS).await;
    let group = unique("explained");
    let stalled = Arc::new(AtomicBool::new(false));
    let readers = (0..PARTITIONS).map(|partition| {
        let partition = TopicPartition::new(topic.as_str(), partition);
        let stalled = Arc::clone(&stalled);
        tokio::spawn(read(client.clone(), group.clone(), partition, stalled))
    });
    let readers: Vec<_> = readers.collect();
    let producer = client
        .producer()
        .partitioner(ottla::partitioner::RoundRobin);
    let producer = producer.build().unwrap();
    let part = |told: &Value, at: i32| told["topics"][0]["partitions"][at as usize].clone();
    let weight = |told: &Value| part(told, STALLED)["weight"].as_f64().unwrap();
    let look = async {
        sleep(2 * SECOND).await;
        let health = ["health", "-g", &group, "-t", &topic, "-s", "10"];
        let watching = [&health[..], &["-w", "1", "--json"]].concat();
        let mut watching = Running::start(ottla(&kafka.bootstrap, &watching).await);
        // The first answer knows every rate; the consumer stalls after it.
        let first: Value = serde_json::from_slice(watching.line().await.unwrap()).unwrap();
        stalled.store(true, Ordering::Release);
        let mut last = first.clone();
        while weight(&last) > 0.05 {
            last = serde_json::from_slice(watching.line().await.unwrap()).unwrap();
        }
        watching.end().await;
        let table = run_ottla(&kafka.bootstrap, &["explain", "-g", &group, &topic]).await;
        (first, last, table)
    };
    let (first, last, table) = tokio::select! {
        told = look => told,
        shares = shares(&producer, &topic, PATIENCE) => panic!("it is never spared: {shares:?}"),
    };
    println!("{}", table.text());
    assert_eq!(first["topics"][0]["method"], "drain", "{first}");
    assert!(weight(&first) > 0.05, "it is read yet: {first}");
    for at in 0..PARTITIONS {
        let rate = part(&first, at)["rate"].as_f64().unwrap();
        assert!(rate > 0.0, "each has a reader: {first}");
    }
    let spared = part(&last, STALLED);
    let status = spared["status"].as_str().unwrap();
    assert!(["stalled", "lagging"].contains(&status), "{last}");
    assert!(spared["lag"].as_u64().unwrap() > 0, "{last}");
    assert!(spared["drain_seconds"].as_f64().unwrap() > 0.0, "{last}");
    let why = spared["why"].as_str().unwrap();
    assert!(
        why.starts_with("spared") || why.starts_with("a trickle"),
        "{why}"
    );
    let shown = table.text().lines().count();
    assert_eq!(shown, 2 + PARTITIONS as usize, "{}", table.text());
    producer.close().await.unwrap();
    for reader in readers {
        reader.abort();
    }
    client.topics().delete(&topic).await.unwrap();
}

/// What Kafka's own tool says of a share group: start offset and lag by partition.
async fn share_group_tool(kafka: &Kafka, group: &str) -> BTreeMap<i32, [String; 2]> {
    let arguments = ["--describe", "--group", group];
    let class = "consumer.group.ShareGroupCommand";
    let told = kafka.run_tool(class, &arguments, b"").await;
    let lines = told.text().lines().filter(|line| line.starts_with(group));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let figures = [cells[3].to_owned(), cells[4].to_owned()];
        (cells[2].parse().unwrap(), figures)
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_share_group_has_the_lag_that_kafkas_own_tool_tells() {
    let kafka = Kafka::here();
    if kafka.major_version().await < 4 {
        return;
    }
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[30, 50]).await;
    let group = unique("shared");
    let earliest = [
        "--alter",
        "--entity-type",
        "groups",
        "--entity-name",
        &group,
    ];
    let earliest = [
        &earliest[..],
        &["--add-config", "share.auto.offset.reset=earliest"],
    ]
    .concat();
    let class = "kafka.admin.ConfigCommand";
    kafka.run_tool(class, &earliest, b"").await;
    let read = ["--topic", &topic, "--group", &group, "--max-messages", "20"];
    let read = [&read[..], &["--timeout-ms", "30000"]].concat();
    let class = "consumer.ConsoleShareConsumer";
    kafka.run_tool(class, &read, b"").await;

    let javas = share_group_tool(&kafka, &group).await;
    assert_eq!(javas.len(), 2, "{javas:?}");
    let read = javas
        .values()
        .map(|[start, _]| start.parse::<i64>().unwrap());
    assert!(read.sum::<i64>() > 0, "{javas:?}");
    let wanted: Vec<[Option<i64>; 2]> = javas
        .values()
        .map(|row| row.each_ref().map(|cell| cell.parse().ok()))
        .collect();
    let lag = run_ottla(&kafka.bootstrap, &["lag", &group, "--json"]).await;
    let health = ["health", "-g", &group, "-t", &topic, "-s", "3", "--json"];
    let health = run_ottla(&kafka.bootstrap, &health).await;
    let lag: Value = serde_json::from_str(lag.text()).unwrap();
    let health: Value = serde_json::from_str(health.text()).unwrap();
    assert_eq!(health["share_group"], true, "{health}");
    for (at, [start, unread]) in wanted.iter().enumerate() {
        let row = &lag["partitions"][at];
        assert_eq!(
            [row["current_offset"].as_i64(), row["lag"].as_i64()],
            [*start, *unread]
        );
        let part = &health["topics"][0]["partitions"][at];
        assert_eq!(part["lag"].as_i64(), *unread, "{health}");
    }
    client.topics().delete(&topic).await.unwrap();
}
