//! The exporter beside groups that come, go and are of the newer kinds, and while a broker is down.

use crate::command::run_ottla;
use crate::kafka::{Harm, Kafka, unique};
use crate::lag::{agreed, filled};
use crate::process::{PATIENCE, Running};
use crate::watching::{SECOND, commit, exporter, get, samples};
use ottla::lag::Lag;
use ottla::{Client, NewTopic, Record, TopicPartition};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Waits until the exporter's page tells a sample as it should be, and gives the page.
pub(crate) async fn until_told(
    address: &str,
    key: &str,
    wanted: impl Fn(Option<&str>) -> bool,
) -> String {
    let mut page = String::new();
    let told = async {
        loop {
            page = get(address, "/metrics").await.1;
            if wanted(samples(&page).get(key).copied()) {
                return;
            }
            sleep(SECOND / 5).await;
        }
    };
    let is_told = timeout(PATIENCE, told).await.is_ok();
    assert!(is_told, "{key} is never told as it is: {page}");
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn members_of_groups_of_the_new_protocol_are_counted_and_named() {
    let kafka = Kafka::here();
    // KIP-848's groups are there from 4.0 on.
    if kafka.major_version().await < 4 {
        return;
    }
    let client = kafka.client().await;
    let topic = filled(&kafka, &client, &[5, 5, 5]).await;
    let group = unique("newer");
    let (exporter, address) = exporter(&kafka, &["--group-filter", &group]).await;
    let arguments = ["--topic", &topic, "--group", &group, "--from-beginning"];
    let mut command = kafka.tool("consumer.ConsoleConsumer", &arguments);
    for property in ["group.protocol=consumer", "auto.commit.interval.ms=100"] {
        command.args(["--consumer-property", property]);
    }
    let mut member = Running::start(command);
    for _ in 0..15 {
        timeout(PATIENCE, member.line()).await.unwrap().unwrap();
    }
    // The group came after the exporter.
    let count = format!("kafka_consumergroup_members{{consumergroup=\"{group}\"}}");
    until_told(&address, &count, |told| told == Some("1")).await;
    let sum = format!("kafka_consumergroup_lag_sum{{consumergroup=\"{group}\",topic=\"{topic}\"}}");
    until_told(&address, &sum, |told| told == Some("0")).await;
    let rows = agreed(&kafka, &client, &group).await;
    assert_eq!(rows.len(), 3);
    assert!(
        rows.values().all(|row| row[5] != "-"),
        "every partition has its reader: {rows:?}"
    );
    let named = run_ottla(&kafka.bootstrap, &["lag", &group, "--json"]).await;
    assert!(named.text().contains("\"state\":\"Stable\""), "{named:?}");

    member.terminate().await;
    until_told(&address, &count, |told| told == Some("0")).await;
    client.groups().delete(&group).await.unwrap();
    // With all that was told of it.
    let page = until_told(&address, &sum, |told| told.is_none()).await;
    assert!(!page.contains(&*group), "{page}");
    assert_eq!(samples(&page)["ottla_exporter_groups"], "0");
    exporter.end().await;
    client.topics().delete(&topic).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn members_of_share_groups_are_counted() {
    let kafka = Kafka::here();
    // Share groups are on from 4.2 on.
    if kafka.major_version().await < 4 {
        return;
    }
    let client = kafka.client().await;
    let topic = kafka.topic(&client, "shared", 1).await;
    let group = unique("sharing");
    let (exporter, address) = exporter(&kafka, &["--group-filter", &group]).await;
    let arguments = ["--topic", &topic, "--group", &group];
    let member = || Running::start(kafka.tool("consumer.ConsoleShareConsumer", &arguments));
    let first = member();
    let count = format!("kafka_consumergroup_members{{consumergroup=\"{group}\"}}");
    until_told(&address, &count, |told| told == Some("1")).await;
    let second = member();
    until_told(&address, &count, |told| told == Some("2")).await;
    // Both come to read the one partition.
    let listed = client.groups().list().await.unwrap().groups;
    let listed: Vec<_> = listed.into_iter().filter(|g| *g.group == *group).collect();
    let shared = TopicPartition::new(topic.as_str(), 0);
    let both_read = async {
        loop {
            let mut members = client.groups().members(&listed).await;
            let members = members.remove(group.as_str()).unwrap().unwrap();
            assert!(members.iter().all(|member| !member.host.is_empty()));
            let read = members.iter().map(|member| member.assigned.as_slice());
            if read.eq([[shared.clone()], [shared.clone()]]) {
                return members;
            }
            sleep(SECOND / 10).await;
        }
    };
    let members = timeout(PATIENCE, both_read).await.unwrap();
    assert_ne!(members[0].member_id, members[1].member_id);

    first.terminate().await;
    until_told(&address, &count, |told| told == Some("1")).await;
    second.terminate().await;
    until_told(&address, &count, |told| told == Some("0")).await;
    exporter.end().await;
    client.topics().delete(&topic).await.unwrap();
}

/// Writes one more record to a partition of a topic.
pub(crate) async fn write(client: &Client, topic: &str, partition: i32) {
    let producer = client.producer().build().unwrap();
    let record = Record::to(topic).partition(partition).value("more");
    producer.send(record).await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka"]
async fn while_a_broker_is_down_its_partitions_age_and_the_rest_stays_fresh() {
    let kafka = Kafka::here();
    let client = kafka.client().await;
    let topic = unique("single");
    let new = NewTopic::new(topic.as_str()).partitions(6).replication(1);
    kafka.create(&client, &topic, new).await;
    let group = unique("bereft");
    let at = |partition| TopicPartition::new(topic.as_str(), partition);
    for partition in 0..6 {
        write(&client, &topic, partition).await;
    }
    let offsets: Vec<_> = (0..6).map(|partition| (at(partition), 0)).collect();
    commit(&client, &group, &offsets).await;
    let lag = client.lag(group.as_str()).topics([topic.as_str()]);
    let lag = lag.refresh(SECOND / 2).start().await.unwrap();
    let (exporter, address) = exporter(&kafka, &["--group-filter", &group]).await;
    let of = |partition: i32| {
        format!(
            "kafka_consumergroup_lag{{consumergroup=\"{group}\",topic=\"{topic}\",\
             partition=\"{partition}\"}}"
        )
    };
    until_told(&address, &of(0), |told| told == Some("1")).await;

    // The group's coordinator goes too, so that another one has to be found.
    let listed = client.groups().list().await.unwrap().groups;
    let home = listed.iter().find(|one| *one.group == *group).unwrap();
    let victim = home.coordinator;
    let view = client.cluster().all_topics().await.unwrap();
    let partitions = &view.topic(&topic).unwrap().partitions;
    let led = |partition: i32| partitions[partition as usize].leader;
    let dead: Vec<i32> = (0..6).filter(|at| led(*at) == Some(victim)).collect();
    let alive: Vec<i32> = (0..6).filter(|at| !dead.contains(at)).collect();
    assert!(!dead.is_empty() && !alive.is_empty(), "{partitions:?}");
    let producer = client.producer().build().unwrap();
    producer.prepare(&topic).await.unwrap();
    let down = kafka.harm(Harm::Kill, victim.0).await;
    let since = Instant::now();
    for partition in &alive {
        let record = Record::to(&topic).partition(*partition).value("more");
        producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
    ends_are_told_at_once(&address, &topic, &alive).await;
    for partition in &alive {
        // Whatever a new coordinator says: what was known of the group does not leave the page.
        until_told(&address, &of(*partition), |told| {
            assert!(
                told.is_some(),
                "{partition} is gone after {:?}",
                since.elapsed()
            );
            told == Some("2")
        })
        .await;
    }
    println!("fresh {:?} after the coordinator's end", since.elapsed());
    sleep(Duration::from_secs(8).saturating_sub(since.elapsed())).await;
    are_aged(&lag, &topic, &alive, &dead).await;
    // A look that still asked the dead one takes its time.
    let page = until_told(&address, "kafka_brokers", |told| told == Some("2")).await;
    assert_eq!(samples(&page)["ottla_exporter_up"], "1", "{page}");
    let leader = format!("kafka_topic_partition_leader{{topic=\"{topic}\",partition=\"");
    for partition in &dead {
        let leader = format!("{leader}{partition}\"}}");
        assert!(!samples(&page).contains_key(leader.as_str()), "{page}");
    }

    down.end().await;
    kafka.settled().await;
    for partition in &dead {
        write(&client, &topic, *partition).await;
        until_told(&address, &of(*partition), |told| told == Some("2")).await;
    }
    exporter.end().await;
    client.topics().delete(&topic).await.unwrap();
}

/// The other leaders are heard before the cluster has noticed that one is gone.
async fn ends_are_told_at_once(address: &str, topic: &str, alive: &[i32]) {
    for partition in alive {
        let end = format!(
            "kafka_topic_partition_current_offset{{topic=\"{topic}\",partition=\"{partition}\"}}"
        );
        let page = until_told(address, &end, |told| told == Some("2")).await;
        assert_eq!(samples(&page)["kafka_brokers"], "3", "too late: {page}");
    }
}

/// Once another coordinator is found, figures of leaders that live are new, and those of one that is
/// gone are old.
async fn are_aged(lag: &Lag, topic: &str, alive: &[i32], dead: &[i32]) {
    let age = |partition: &i32| {
        let snapshot = lag.snapshot();
        let figures = snapshot.partition(topic, *partition).unwrap();
        figures.age(Instant::now())
    };
    let are_new = async {
        while alive.iter().any(|partition| age(partition) > 2 * SECOND) {
            sleep(SECOND / 10).await;
        }
    };
    let are_new = timeout(PATIENCE, are_new).await;
    let ages: Vec<_> = (0..6).map(|partition| age(&partition)).collect();
    assert!(are_new.is_ok(), "{alive:?}: {ages:?}");
    for partition in dead {
        assert!(age(partition) > 5 * SECOND, "{partition}: {ages:?}");
    }
}
