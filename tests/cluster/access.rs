//! Topics and groups that may not be seen, or not be written to, by the rules of a real cluster.

use crate::command::{ottla, run_ottla};
use crate::exporter::{until_told, write};
use crate::kafka::{Kafka, unique};
use crate::lag::{agreed, filled};
use crate::process::{PATIENCE, Running, run};
use crate::watching::{SECOND, commit, exporter, samples};
use ottla::lag::{Lag, Standing, Topics, collect_once};
use ottla::partitioner::{Fallback, Method};
use ottla::{Client, Code, Error, ErrorKind, Record, TopicPartition, WriteOutcome};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const TOPIC_DENIED: Code = Code::TOPIC_AUTHORIZATION_FAILED;
const GROUP_DENIED: Code = Code::GROUP_AUTHORIZATION_FAILED;

/// Makes a rule for these topics and groups. Once there is one, what none allows is refused.
async fn add_rule(kafka: &Kafka, rule: [&str; 2], operation: &str, of: &[&str]) {
    let add = ["--add", rule[0], rule[1], "--operation", operation];
    let add = [&add[..], of].concat();
    kafka.run_tool("AclCommand", &add, b"").await;
}

/// Removes all rules for these topics and groups.
async fn remove_rules(kafka: &Kafka, of: &[&str]) {
    let remove = [&["--remove", "--force"], of].concat();
    kafka.run_tool("AclCommand", &remove, b"").await;
}

/// Forbids whoever has no name, such as the tests, to see these.
async fn hide(kafka: &Kafka, of: &[&str]) {
    let rule = ["--deny-principal", "User:ANONYMOUS"];
    add_rule(kafka, rule, "Describe", of).await;
}

/// Allows whoever has no name to read these, and with this rule nothing else.
async fn read_only(kafka: &Kafka, of: &[&str]) {
    let rule = ["--allow-principal", "User:ANONYMOUS"];
    add_rule(kafka, rule, "Read", of).await;
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let so = async {
        while !is_so().await {
            sleep(SECOND / 20).await;
        }
    };
    assert!(timeout(PATIENCE, so).await.is_ok(), "never: {what}");
}

/// Two topics, and a group that has read two of five records in each partition of both.
struct Scene {
    kafka: Kafka,
    client: Client,
    open: String,
    closed: String,
    group: String,
}

async fn scene() -> Scene {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let open = filled(&kafka, &client, &[5, 5]).await;
    let closed = filled(&kafka, &client, &[5, 5]).await;
    let group = unique("access");
    let places = [&open, &closed].into_iter().flat_map(|topic| {
        let at = |partition| (TopicPartition::new(topic.as_str(), partition), 2);
        (0..2).map(at)
    });
    let places: Vec<_> = places.collect();
    commit(&client, &group, &places).await;
    Scene {
        kafka,
        client,
        open,
        closed,
        group,
    }
}

impl Scene {
    /// Watches both topics for a group.
    async fn lag(&self, group: &str) -> Lag {
        let lag = self.client.lag(group);
        let lag = lag.topics([self.open.as_str(), self.closed.as_str()]);
        lag.refresh(SECOND / 2).start().await.unwrap()
    }

    async fn end(self) {
        remove_rules(&self.kafka, &["--topic", &self.closed]).await;
        for topic in [&self.open, &self.closed] {
            let topics = self.client.topics();
            until("deleted", async || topics.delete(topic).await.is_ok()).await;
        }
    }
}

fn method(lag: &Lag, topic: &str) -> Method {
    lag.explain(topic).unwrap().method
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_topic_and_a_group_that_may_not_be_seen_are_named_and_the_rest_is_told() {
    let scene = scene().await;
    let (kafka, client) = (&scene.kafka, &scene.client);
    let (open, closed, group) = (&scene.open, &scene.closed, &scene.group);
    let hidden = format!("{group}-hidden");
    commit(
        client,
        &hidden,
        &[(TopicPartition::new(open.as_str(), 0), 1)],
    )
    .await;
    let (lag, hidden_lag) = (scene.lag(group).await, scene.lag(&hidden).await);
    assert_eq!(lag.snapshot().lag(), Some(12));
    let (exporter, address) = exporter(kafka, &["--group-filter", group]).await;
    let of = |group: &str, topic: &str| {
        format!("kafka_consumergroup_lag_sum{{consumergroup=\"{group}\",topic=\"{topic}\"}}")
    };
    until_told(&address, &of(group, closed), |told| told == Some("6")).await;
    until_told(&address, &of(&hidden, open), |told| told == Some("4")).await;

    hide(kafka, &["--topic", closed, "--group", &hidden]).await;
    write(client, open, 0).await;
    // Who watches goes on with the other topic, and says what is wrong with the one.
    until("the one is refused and the other fresh", async || {
        let snapshot = lag.snapshot();
        let refused = snapshot.topic(closed).unwrap();
        let other = snapshot.topic(open).unwrap();
        refused.refused == Some(TOPIC_DENIED) && other.lag() == Some(7)
    })
    .await;
    assert_eq!(lag.snapshot().topic(open).unwrap().refused, None);
    let denied = Method::Uniform(Fallback::Denied);
    until("no plan", async || method(&lag, closed) == denied).await;
    assert_ne!(method(&lag, open), denied);
    until("the group is refused", async || {
        hidden_lag.snapshot().standing == Standing::Denied
    })
    .await;

    // Who looks once, too; what Kafka's own tool shows of the group is the other topic.
    let names = [open, closed].map(|name| Arc::from(name.as_str()));
    let names = Topics::Named(names.into());
    let once = collect_once(client.cluster(), group, &names).await.unwrap();
    assert_eq!(once.refused, [(Arc::from(closed.as_str()), TOPIC_DENIED)]);
    assert!(once.rows.iter().all(|row| *row.topic == **open));
    assert_eq!(agreed(kafka, client, group).await.len(), 2);
    let error = collect_once(client.cluster(), &hidden, &Topics::Committed).await;
    assert_eq!(error.unwrap_err().code(), Some(GROUP_DENIED));
    the_command_names_them(&scene, &hidden).await;

    // The exporter is up, tells the other topic, and names both.
    let refused = |group: &str, topic: &str, code: Code| {
        format!(
            "ottla_group_refused{{consumergroup=\"{group}\",topic=\"{topic}\",error=\"{code}\"}}"
        )
    };
    let one = |told: Option<&str>| told == Some("1");
    until_told(&address, &refused(&hidden, "", GROUP_DENIED), one).await;
    let page = until_told(&address, &refused(group, closed, TOPIC_DENIED), one).await;
    let told = samples(&page);
    assert_eq!(told[of(group, open).as_str()], "7", "{page}");
    assert_eq!(told["ottla_exporter_up"], "1", "{page}");

    remove_rules(kafka, &["--topic", closed, "--group", &hidden]).await;
    until("it is seen again", async || {
        lag.snapshot().lag() == Some(13)
    })
    .await;
    until_told(&address, &of(group, closed), |told| told == Some("6")).await;
    exporter.end().await;
    scene.end().await;
}

async fn the_command_names_them(scene: &Scene, hidden: &str) {
    let Scene {
        kafka,
        open,
        closed,
        group,
        ..
    } = scene;
    let both = run_ottla(&kafka.bootstrap, &["lag", group, open, closed]).await;
    let shown = both.text();
    assert!(
        shown.contains(&**open) && !shown.contains(&**closed),
        "{shown}"
    );
    let why = format!("topic {closed} is not shown: no permission to see it");
    assert!(both.stderr.contains(&why), "{both:?}");
    let arguments = ["lag", group, open, closed, "--max", "1000"];
    let limited = ottla(&kafka.bootstrap, &arguments).await;
    let limited = run(limited, b"", PATIENCE).await;
    assert_eq!(limited.code, Some(1), "it cannot be told: {limited:?}");
    let none = ottla(&kafka.bootstrap, &["lag", hidden]).await;
    let none = run(none, b"", PATIENCE).await;
    let says = none.stderr.contains("GROUP_AUTHORIZATION_FAILED") && none.stderr.contains(hidden);
    assert!(none.code == Some(1) && says, "{none:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn a_group_of_the_new_protocol_with_a_topic_that_may_not_be_seen_is_told_without_it() {
    let scene = scene().await;
    let (kafka, client) = (&scene.kafka, &scene.client);
    // KIP-848's groups are there from 4.0 on.
    if kafka.major_version().await < 4 {
        return scene.end().await;
    }
    let (open, closed) = (&scene.open, &scene.closed);
    let group = unique("access-newer");
    let (exporter, address) = exporter(kafka, &["--group-filter", &group]).await;
    let both = format!("{open}|{closed}");
    let arguments = ["--include", &both, "--group", &group, "--from-beginning"];
    let mut command = kafka.tool("consumer.ConsoleConsumer", &arguments);
    for property in ["group.protocol=consumer", "auto.commit.interval.ms=100"] {
        command.args(["--consumer-property", property]);
    }
    let mut member = Running::start(command);
    for _ in 0..20 {
        timeout(PATIENCE, member.line()).await.unwrap().unwrap();
    }
    let lag = |topic: &str| {
        format!("kafka_consumergroup_lag_sum{{consumergroup=\"{group}\",topic=\"{topic}\"}}")
    };
    for topic in [open, closed] {
        until_told(&address, &lag(topic), |told| told == Some("0")).await;
    }

    // Its member would leave the topic; a frozen one has it until its session ends.
    member.freeze().await;
    hide(kafka, &["--topic", closed]).await;
    write(client, open, 0).await;
    let refused = format!(
        "ottla_group_refused{{consumergroup=\"{group}\",topic=\"\",error=\"{TOPIC_DENIED}\"}}"
    );
    until_told(&address, &refused, |told| told == Some("1")).await;
    let page = until_told(&address, &lag(open), |told| told == Some("1")).await;
    let members = format!("kafka_consumergroup_members{{consumergroup=\"{group}\"}}");
    assert!(!samples(&page).contains_key(members.as_str()), "{page}");
    let once = collect_once(client.cluster(), &group, &Topics::Committed);
    let once = once.await.unwrap();
    assert_eq!(once.state, None);
    let told = once.rows.iter().map(|row| (&*row.topic, row.lag.lag));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(open.as_str(), Some(1)), (open.as_str(), Some(0))]
    );
    let named = run_ottla(&kafka.bootstrap, &["lag", &group, open, closed]).await;
    assert!(named.stderr.contains(&**closed), "{named:?}");

    remove_rules(kafka, &["--topic", closed]).await;
    until_told(&address, &members, |told| told.is_some()).await;
    member.kill().await;
    exporter.end().await;
    scene.end().await;
}

fn is_refused(error: &Error) -> bool {
    *error.kind() == ErrorKind::Broker(TOPIC_DENIED)
        && error.write_outcome() == Some(WriteOutcome::NotWritten)
        && !error.is_retriable()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn records_for_a_topic_that_may_not_be_written_fail_unwritten_and_others_go_on() {
    let scene = scene().await;
    let (kafka, client) = (&scene.kafka, &scene.client);
    let (open, closed) = (&scene.open, &scene.closed);
    let producer = client.producer().linger(Duration::from_millis(20));
    let producer = producer.build().unwrap();
    let record = |topic| Record::to(topic).partition(0).value("v");
    producer.send(record(closed)).await.unwrap();
    // It can be seen, but not written to: its leader refuses it, beside what is allowed.
    read_only(kafka, &["--topic", closed]).await;
    until("it is refused", async || {
        let sent = producer.send(record(closed)).await;
        sent.is_err_and(|error| is_refused(&error))
    })
    .await;
    let before = end(client, closed).await;
    let mut deliveries = Vec::new();
    for _ in 0..50 {
        for topic in [open, closed] {
            let delivery = producer.enqueue(record(topic)).await.unwrap();
            deliveries.push((topic, delivery));
        }
        sleep(Duration::from_millis(2)).await;
    }
    for (topic, delivery) in deliveries {
        match delivery.await {
            Ok(_) => assert_eq!(topic, open),
            Err(error) => {
                assert!(topic == closed && is_refused(&error), "{error}");
                let place = TopicPartition::new(closed.as_str(), 0).to_string();
                assert!(error.to_string().contains(&place), "{error}");
            }
        }
    }
    assert_eq!(end(client, open).await, 55);
    assert_eq!(end(client, closed).await, before);

    // As soon as it is allowed the same producer writes again.
    remove_rules(kafka, &["--topic", closed]).await;
    let delivered = async || producer.send(record(closed)).await.is_ok();
    until("it is written", delivered).await;

    // What may not be seen is refused before anything is sent.
    hide(kafka, &["--topic", closed]).await;
    let fresh = client.producer().build().unwrap();
    until("it is hidden", async || {
        let sent = fresh.send(record(closed)).await;
        sent.is_err_and(|error| is_refused(&error))
    })
    .await;
    fresh.send(record(open)).await.unwrap();
    fresh.close().await.unwrap();
    producer.close().await.unwrap();
    scene.end().await;
}

/// Where the first partition's log ends.
async fn end(client: &Client, topic: &str) -> i64 {
    let topics = Topics::Named(vec![topic.into()]);
    let group = unique("nobody");
    commit(client, &group, &[(TopicPartition::new(topic, 0), 0)]).await;
    let lag = collect_once(client.cluster(), &group, &topics).await;
    lag.unwrap().rows[0].lag.end.unwrap()
}
