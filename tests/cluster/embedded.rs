//! The embedded cluster as the broker of clients that know nothing of it.

use crate::command::command;
use crate::corpus::{Reading, as_file, lines};
use crate::foreign::{CODECS, FORMAT, Seen, kcat, kcat_reads, kcat_writes, record};
use crate::process::{PATIENCE, Running, succeed};
use crate::python::{
    CONFLUENT_MEMBER, CONFLUENT_ROUND, KAFKA_PYTHON_MEMBER, KAFKA_PYTHON_ROUND, TRANSACTIONAL_COPY,
    TRANSACTIONS, python,
};
use ottla::lag::{Topics, collect_once};
use ottla::{Client, Code};
use ottla_broker::{ApiKey, Cluster};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const COUNT: usize = 5_000;

async fn cluster(topics: &[&str]) -> Cluster {
    let builder = Cluster::builder().nodes(3).replication(3);
    let builder = topics
        .iter()
        .fold(builder, |builder, topic| builder.topic(*topic, 4));
    builder.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kcat"]
async fn kcat_lists_the_embedded_cluster() {
    let cluster = cluster(&["orders", "bills"]).await;
    let mut command = kcat(&cluster.bootstrap());
    command.args(["-L", "-J"]);
    let listed = succeed(command, b"", PATIENCE).await;
    let listed: serde_json::Value = serde_json::from_str(listed.text()).unwrap();
    assert_eq!(listed["brokers"].as_array().unwrap().len(), 3);
    let topics = listed["topics"].as_array().unwrap();
    let names: BTreeSet<_> = topics
        .iter()
        .map(|topic| topic["topic"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bills", "orders"].into());
    for topic in topics {
        let partitions = topic["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 4);
        for partition in partitions {
            assert_eq!(partition["replicas"].as_array().unwrap().len(), 3);
            assert_eq!(partition["isrs"].as_array().unwrap().len(), 3);
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kcat"]
async fn kcat_writes_and_reads_the_embedded_cluster_with_every_codec() {
    let cluster = cluster(&CODECS).await;
    for codec in CODECS {
        kcat_writes(&cluster.bootstrap(), codec, codec, &as_file(lines(COUNT))).await;
        let log = (0..4).flat_map(|partition| cluster.log(codec, partition));
        assert_eq!(log.count(), COUNT);
        let mut reading = Reading::of(lines(COUNT));
        let saw = |seen: Seen<'_>| reading.saw(seen.partition, seen.offset, seen.key, seen.value);
        kcat_reads(&cluster.bootstrap(), codec, saw).await;
        assert_eq!(reading.missing(), 0, "{codec}: records are missing");
    }
    cluster.shutdown().await;
}

/// Two members of a group share the partitions of `orders`, one leaves, the other has them all, and a
/// later one goes on where they have committed.
async fn group_of(bootstrap: &str, member: impl Fn() -> Command) {
    let client = Client::builder(bootstrap).connect().await.unwrap();
    let mut sent = 0;
    let mut send = async || {
        let batch = (sent..sent + 40).map(|number| (format!("{number}"), format!("v{number}")));
        sent += 40;
        let file: String = batch
            .map(|(key, value)| format!("{key}\t{value}\n"))
            .collect();
        kcat_writes(bootstrap, "orders", "none", file.as_bytes()).await;
    };
    let joined = async |count: usize| {
        let joined = async {
            while looked(&client).await.members != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, joined).await.unwrap();
    };
    let mut seen = BTreeSet::new();
    let mut first = Running::start(member());
    send().await;
    take(&mut [&mut first], &mut seen, 40).await;
    let mut second = Running::start(member());
    joined(2).await;
    for round in 2..=4 {
        send().await;
        take(&mut [&mut first, &mut second], &mut seen, round * 40).await;
    }
    first.end().await;
    joined(1).await;
    send().await;
    take(&mut [&mut second], &mut seen, 200).await;
    second.end().await;
    joined(0).await;
    assert_eq!(looked(&client).await.committed, 200);
    send().await;
    let mut third = Running::start(member());
    take(&mut [&mut third], &mut seen, 240).await;
    third.end().await;
    assert_eq!(seen.len(), 240);
}

/// The group from outside.
#[derive(Debug, Default)]
struct Looked {
    /// How many members have partitions.
    members: usize,
    /// The sum of the committed offsets.
    committed: i64,
}

async fn looked(client: &Client) -> Looked {
    match collect_once(client.cluster(), "readers", &Topics::Committed).await {
        Ok(lag) => {
            let owners = lag.rows.iter().filter_map(|row| row.owner.as_ref());
            let members: BTreeSet<_> = owners.map(|owner| &owner.member_id).collect();
            Looked {
                members: members.len(),
                committed: lag.rows.iter().filter_map(|row| row.lag.committed).sum(),
            }
        }
        Err(error) => {
            assert_eq!(error.code(), Some(Code::GROUP_ID_NOT_FOUND), "{error}");
            Looked::default()
        }
    }
}

/// Reads from any of these until there are so many records, each once.
async fn take(members: &mut [&mut Running], seen: &mut BTreeSet<(i32, i64)>, until: usize) {
    let all = async {
        while seen.len() < until {
            for member in members.iter_mut() {
                let soon = Duration::from_millis(50);
                while let Ok(line) = timeout(soon, member.line()).await {
                    let Seen {
                        partition, offset, ..
                    } = record(line.unwrap());
                    assert!(
                        seen.insert((partition, offset)),
                        "{partition} {offset} came twice"
                    );
                }
            }
        }
    };
    if timeout(PATIENCE, all).await.is_err() {
        panic!("{} of {until} records came", seen.len());
    }
}

fn kcat_member(bootstrap: &str) -> Command {
    let mut command = kcat(bootstrap);
    command.args(["-X", "auto.offset.reset=earliest", "-u", "-q", "-f", FORMAT]);
    command.args(["-G", "readers", "orders"]);
    command
}

/// The same as a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kcat and python clients"]
async fn the_broker_command_serves_kcat_and_python_clients() {
    let topics = ["--topic", "orders:4", "--topic", "python:4"];
    let mut broker =
        Running::start(command(&["broker", "--port", "0", "--nodes", "3"], &topics).await);
    let bootstrap = broker.line().await.unwrap().to_vec();
    let bootstrap = String::from_utf8(bootstrap).unwrap();
    let mut list = kcat(&bootstrap);
    list.arg("-L");
    let listed = succeed(list, b"", PATIENCE).await;
    for wanted in [
        " 3 brokers:",
        " 2 topics:",
        "topic \"orders\" with 4 partitions:",
    ] {
        assert!(listed.text().contains(wanted), "{}", listed.text());
    }
    group_of(&bootstrap, || kcat_member(&bootstrap)).await;
    let program = python(CONFLUENT_ROUND, &[&bootstrap, "python", "lz4", "5000"]);
    succeed(program, b"", PATIENCE).await;
    assert_eq!(broker.end().await, b"", "it prints its address alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kcat"]
async fn kcats_share_a_group_of_the_embedded_cluster() {
    let cluster = cluster(&["orders"]).await;
    let bootstrap = cluster.bootstrap();
    group_of(&bootstrap, || kcat_member(&bootstrap)).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kcat and python clients"]
async fn python_clients_share_a_group_of_the_embedded_cluster() {
    for program in [KAFKA_PYTHON_MEMBER, CONFLUENT_MEMBER] {
        let cluster = cluster(&["orders"]).await;
        let bootstrap = cluster.bootstrap();
        let member = || python(program, &[&bootstrap, "orders", "readers"]);
        group_of(&bootstrap, member).await;
        cluster.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs python clients"]
async fn python_clients_write_and_read_the_embedded_cluster() {
    let cluster = cluster(&[
        "a-none", "a-gzip", "b-none", "b-gzip", "b-snappy", "b-lz4", "b-zstd",
    ])
    .await;
    let bootstrap = cluster.bootstrap();
    // The others want packages of their own for kafka-python.
    for codec in ["none", "gzip"] {
        let topic = format!("a-{codec}");
        let program = python(KAFKA_PYTHON_ROUND, &[&bootstrap, &topic, codec, "2000"]);
        succeed(program, b"", PATIENCE).await;
    }
    for codec in CODECS {
        let topic = format!("b-{codec}");
        let program = python(CONFLUENT_ROUND, &[&bootstrap, &topic, codec, "20000"]);
        succeed(program, b"", PATIENCE).await;
    }
    assert!(
        cluster.requests(ApiKey::InitProducerId) >= 7,
        "they were idempotent"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs python clients"]
async fn a_python_client_copies_in_transactions_through_the_embedded_cluster() {
    let cluster = cluster(&["orders", "bills"]).await;
    let bootstrap = cluster.bootstrap();
    let writes = python(TRANSACTIONS, &[&bootstrap, "orders"]);
    succeed(writes, b"", PATIENCE).await;
    let copies = python(
        TRANSACTIONAL_COPY,
        &[&bootstrap, "orders", "bills", "copiers"],
    );
    succeed(copies, b"", PATIENCE).await;

    // Rounds 1 and 3 were aborted.
    let round = |round: u32| (0..100).map(move |number| format!("{round}-{number}"));
    let wanted: Vec<_> = [0, 2].into_iter().flat_map(round).collect();
    let log = cluster.committed_log("bills", 0);
    let values = log.iter().filter_map(|record| record.value.clone());
    let copied: Vec<_> = values.map(|v| String::from_utf8(v).unwrap()).collect();
    assert_eq!(copied, wanted);
    let all = cluster.log("bills", 0).len();
    assert!(all > 200, "{all}: none was aborted");
    // Behind the last record of round 2: four hundred records and the ends of three transactions,
    // less the last round.
    assert_eq!(cluster.committed("copiers", "orders", 0), Some(302));
    cluster.shutdown().await;
}
