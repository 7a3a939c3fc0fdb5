//! The lag of groups, as Kafka's own tool tells it.

use crate::command::{ottla, run_ottla};
use crate::foreign::kcat;
use crate::kafka::{Kafka, unique};
use crate::process::{PATIENCE, Running, run, succeed};
use ottla::consumer::{Committed, OffsetReset};
use ottla::lag::{GroupLag, Topics, collect_once};
use ottla::{Client, Code, Record, TopicPartition};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// The columns that all three have.
const COLUMNS: [&str; 8] = [
    "TOPIC",
    "PARTITION",
    "CURRENT-OFFSET",
    "LOG-END-OFFSET",
    "LAG",
    "CONSUMER-ID",
    "HOST",
    "CLIENT-ID",
];

/// Rows by topic and partition, each cell as it is printed.
pub(crate) type Rows = BTreeMap<(String, String), Vec<String>>;

fn rows(cells: impl IntoIterator<Item = Vec<String>>) -> Rows {
    let keyed = |row: Vec<String>| ((row[0].clone(), row[1].clone()), row);
    cells.into_iter().map(keyed).collect()
}

/// Reads a table that begins with its headings.
pub(crate) fn table(text: &str) -> Rows {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("GROUP"));
    let Some(headings) = lines.next() else {
        panic!("no table: {text}");
    };
    let headings: Vec<_> = headings.split_whitespace().collect();
    let column = |name: &str| headings.iter().position(|heading| *heading == name);
    let columns: Vec<_> = COLUMNS.iter().map(|name| column(name).unwrap()).collect();
    let lines = lines.filter(|line| !line.trim().is_empty());
    rows(lines.map(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        columns.iter().map(|at| cells[*at].to_owned()).collect()
    }))
}

fn collected(lag: &GroupLag) -> Rows {
    fn dash(cell: Option<impl ToString>) -> String {
        cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string())
    }
    rows(lag.rows.iter().map(|row| {
        let owner = row.owner.as_ref();
        vec![
            row.topic.to_string(),
            row.lag.partition.to_string(),
            dash(row.lag.committed),
            dash(row.lag.end),
            dash(row.lag.lag),
            dash(owner.map(|owner| &owner.member_id)),
            dash(owner.map(|owner| &owner.host)),
            dash(owner.map(|owner| &owner.client_id)),
        ]
    }))
}

/// What the three say of a group, which has to be the same.
pub(crate) async fn agreed(kafka: &Kafka, client: &Client, group: &str) -> Rows {
    let arguments = ["--describe", "--group", group];
    let javas = kafka
        .run_tool("consumer.group.ConsumerGroupCommand", &arguments, b"")
        .await;
    let javas = table(javas.text());
    let lag = collect_once(client.cluster(), group, &Topics::Committed)
        .await
        .unwrap();
    assert_eq!(collected(&lag), javas);
    let command = run_ottla(&kafka.bootstrap, &["lag", group]).await;
    assert_eq!(table(command.text()), javas);
    javas
}

fn cells<'a>(rows: &'a Rows, topic: &str, partition: i32) -> [&'a str; 3] {
    let row = &rows[&(topic.to_owned(), partition.to_string())];
    [&row[2], &row[3], &row[4]]
}

/// A topic with so many records in each partition.
pub(crate) async fn filled(kafka: &Kafka, client: &Client, counts: &[u32]) -> String {
    let partitions = i32::try_from(counts.len()).unwrap();
    let topic = kafka.topic(client, "lag", partitions).await;
    let producer = client.producer().build().unwrap();
    for (partition, count) in (0..).zip(counts) {
        for number in 0..*count {
            let value = number.to_string();
            let record = Record::to(&topic).partition(partition).value(&value);
            drop(producer.enqueue(record).await.unwrap());
        }
    }
    producer.close().await.unwrap();
    topic
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_group_of_ours_agrees_while_it_lives_and_after() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[10, 20, 30, 0]).await;
    let group = unique("lag");
    let consumer = client.consumer().unwrap().group(&group).topics([&topic]);
    let consumer = consumer
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(None);
    let mut consumer = consumer.build().await.unwrap();
    let joined = async {
        while consumer.assignment().len() < 4 {
            consumer.poll(1, Duration::from_millis(100)).await.unwrap();
        }
    };
    timeout(PATIENCE, joined).await.unwrap();
    let at = |partition, offset| {
        (
            TopicPartition::new(topic.as_str(), partition),
            Committed::at(offset),
        )
    };
    consumer
        .commit_offsets([at(0, 4), at(1, 20)].into())
        .await
        .unwrap();

    let rows = agreed(&kafka, &client, &group).await;
    assert_eq!(rows.len(), 4);
    assert_eq!(cells(&rows, &topic, 0), ["4", "10", "6"]);
    assert_eq!(cells(&rows, &topic, 1), ["20", "20", "0"]);
    assert_eq!(cells(&rows, &topic, 2), ["-", "30", "-"]);
    assert_eq!(cells(&rows, &topic, 3), ["-", "0", "-"]);
    assert!(
        rows.values().all(|row| row[5] != "-"),
        "every partition has its reader: {rows:?}"
    );

    consumer.close().await.unwrap();
    let rows = agreed(&kafka, &client, &group).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(cells(&rows, &topic, 0), ["4", "10", "6"]);
    assert!(
        rows.values().all(|row| row[5] == "-"),
        "nobody reads any more: {rows:?}"
    );
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_group_of_javas_agrees_in_either_protocol() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[50, 50, 0]).await;
    // KIP-848's groups are there from 4.0 on.
    let protocols: &[_] = match kafka.major_version().await {
        ..4 => &["classic"],
        _ => &["classic", "consumer"],
    };
    for protocol in protocols {
        let group = unique(protocol);
        let protocol = format!("group.protocol={protocol}");
        let mut command = kafka.tool("consumer.ConsoleConsumer", &["--topic", &topic]);
        command.args([
            "--group",
            &group,
            "--from-beginning",
            "--max-messages",
            "70",
        ]);
        command.args(["--consumer-property", &protocol, "--timeout-ms", "20000"]);
        succeed(command, b"", PATIENCE).await;
        let rows = agreed(&kafka, &client, &group).await;
        let lags = rows.values().filter_map(|row| row[4].parse::<u32>().ok());
        assert_eq!(lags.sum::<u32>(), 30, "{rows:?}");
    }
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn a_group_of_kcats_agrees_while_it_lives() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[5, 0]).await;
    let group = unique("kcats");
    let mut command = kcat(&kafka.bootstrap);
    command.args([
        "-X",
        "auto.offset.reset=earliest",
        "-X",
        "auto.commit.interval.ms=100",
    ]);
    command.args(["-u", "-f", "%o\n", "-G", &group, &topic]);
    let mut running = Running::start(command);
    for _ in 0..5 {
        timeout(PATIENCE, running.line()).await.unwrap().unwrap();
    }
    let committed = async {
        loop {
            let lag = collect_once(client.cluster(), &group, &Topics::Committed)
                .await
                .unwrap();
            if lag.rows.iter().any(|row| row.lag.committed == Some(5)) {
                return;
            }
        }
    };
    timeout(PATIENCE, committed).await.unwrap();
    let rows = agreed(&kafka, &client, &group).await;
    assert_eq!(cells(&rows, &topic, 0), ["5", "5", "0"]);
    assert_eq!(cells(&rows, &topic, 1), ["-", "0", "-"]);
    running.end().await;
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_group_that_nobody_knows_is_an_error_here_as_there() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let group = unique("nobody");
    let arguments = ["--describe", "--group", &group];
    let tool = kafka.tool("consumer.group.ConsumerGroupCommand", &arguments);
    let javas = run(tool, b"", PATIENCE).await;
    let said = [javas.text(), &javas.stderr].concat();
    // 3.9 and 4, each in its own words.
    let unknown = said.contains("does not exist") || said.contains("not found");
    assert!(unknown && said.contains(&group), "{said}");
    let error = collect_once(client.cluster(), &group, &Topics::Committed)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::GROUP_ID_NOT_FOUND), "{error}");
    let command = ottla(&kafka.bootstrap, &["lag", &group]).await;
    let ours = run(command, b"", PATIENCE).await;
    assert_eq!((ours.code, ours.text()), (Some(1), ""), "{ours:?}");
    assert!(
        ours.stderr.contains(&*group) && ours.stderr.contains("does not exist"),
        "{ours:?}"
    );
}
