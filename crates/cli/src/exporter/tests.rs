//! The exporter against the embedded cluster.

use super::page::{COUNTERS, GAUGES};
use super::testing::{InMemory, cluster, commit, in_memory, logged, looker};
use super::*;
use crate::arguments::{Arguments, Command as Subcommand};
use clap::Parser;
use ottla::consumer::Committed;
use ottla::lag::LagStatus;
use ottla::{Client, Code, TopicPartition};
use ottla_broker::{ApiKey, Cluster};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// The whole page.
fn text(published: &Published) -> String {
    let (seen, changing) = published.text(Format::Prometheus);
    format!("{seen}{changing}")
}

async fn page(looker: &mut Looker) -> String {
    let sight = Arc::new(looker.look().await.unwrap());
    text(&Published::new(Some(sight), Own::default()))
}

fn holds(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            page.lines().any(|have| have == *line),
            "{line} is not in {page}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_groups_are_told_under_the_names_that_dashboards_know() {
    let (cluster, client) = cluster().await;
    commit(&client, "bill\"ing", 0, 4).await;
    commit(&client, "hidden", 0, 4).await;
    let mut looker = looker(&client, ".*");
    let told = page(&mut looker).await;
    holds(
        &told,
        &[
            "kafka_brokers 2",
            "kafka_topic_partitions{topic=\"orders\"} 2",
            "kafka_topic_partition_current_offset{topic=\"orders\",partition=\"1\"} 20",
            "kafka_topic_partition_oldest_offset{topic=\"orders\",partition=\"1\"} 0",
            "kafka_topic_partition_current_offset{topic=\"unread\",partition=\"0\"} 0",
            "kafka_topic_partition_replicas{topic=\"unread\",partition=\"0\"} 2",
            "kafka_topic_partition_in_sync_replica{topic=\"unread\",partition=\"0\"} 2",
            "kafka_topic_partition_leader_is_preferred{topic=\"unread\",partition=\"0\"} 1",
            "kafka_topic_partition_under_replicated_partition{topic=\"unread\",partition=\"0\"} 0",
            "kafka_consumergroup_members{consumergroup=\"bill\\\"ing\"} 0",
            "kafka_consumergroup_current_offset{consumergroup=\"bill\\\"ing\",topic=\"orders\",\
             partition=\"0\"} 4",
            "kafka_consumergroup_lag{consumergroup=\"bill\\\"ing\",topic=\"orders\",\
             partition=\"0\"} 6",
            "kafka_consumergroup_lag_sum{consumergroup=\"bill\\\"ing\",topic=\"orders\"} 6",
            "ottla_group_retention_margin{consumergroup=\"bill\\\"ing\",topic=\"orders\",\
             partition=\"0\"} 4",
            "ottla_group_status{consumergroup=\"bill\\\"ing\",status=\"WAITING\"} 1",
            "ottla_group_status{consumergroup=\"bill\\\"ing\",status=\"OK\"} 0",
        ],
    );
    let unknown = told
        .lines()
        .filter(|line| line.starts_with("kafka_consumergroup_lag{"));
    assert_eq!(unknown.count(), 1, "no commit is no lag: {told}");
    assert!(!told.contains("hidden"), "{told}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_come_and_go_and_topics_can_be_left_out() {
    let (cluster, client) = cluster().await;
    let mut looker = looker(&client, "unread");
    let told = page(&mut looker).await;
    assert!(
        !told.contains("consumergroup=") && !told.contains("topic=\"orders\""),
        "{told}"
    );
    commit(&client, "late", 1, 5).await;
    let told = page(&mut looker).await;
    holds(
        &told,
        &["kafka_consumergroup_members{consumergroup=\"late\"} 0"],
    );
    assert!(!told.contains("topic=\"orders\""), "{told}");
    client.groups().delete("late").await.unwrap();
    let told = page(&mut looker).await;
    assert!(!told.contains("consumergroup="), "{told}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_groups_of_a_broker_that_hangs_are_not_taken_for_gone() {
    let (cluster, client) = cluster().await;
    commit(&client, "billing", 0, 4).await;
    let mut hasty = Client::builder(cluster.bootstrap());
    for (name, value) in [
        ("request.timeout.ms", "300"),
        ("default.api.timeout.ms", "2000"),
    ] {
        hasty = hasty.property(name, value).unwrap();
    }
    let hasty = hasty.connect().await.unwrap();
    let mut looker = looker(&hasty, ".*");
    let seen = looker.look().await.unwrap();
    assert_eq!((seen.groups.len(), seen.brokers_missing), (1, 0));
    let home = cluster.coordinator("billing").unwrap();
    cluster.freeze_node(home).unwrap();
    let silent = looker.look().await.unwrap();
    assert_eq!((silent.groups.len(), silent.brokers_missing), (1, 1));
    // What is told of them is carried on, and as old as it was.
    let first = Arc::clone(&seen.groups[0].snapshot);
    let mut carried = Arc::clone(&silent.groups[0].snapshot);
    while carried.taken_at == first.taken_at {
        let again = looker.look().await.unwrap();
        carried = Arc::clone(&again.groups[0].snapshot);
    }
    assert_eq!(carried.lag(), first.lag());
    assert_eq!(page::told_at(&carried), page::told_at(&first));
    cluster.thaw_node(home).unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_fails_with_the_reason_when_the_cluster_is_gone() {
    let ask = |path: &str, published: &Published| {
        let request = Request::get(path);
        let answer = answer(&request, published);
        (answer.status, format!("{}{}", answer.body, answer.tail))
    };
    let none = Published::default();
    let (status, body) = ask("/healthz", &none);
    assert!(
        status.starts_with("503") && body.contains("no look"),
        "{body}"
    );
    assert_eq!(ask("/nothing", &none).0, "404 Not Found");
    assert!(ask("/", &none).1.contains("/metrics"));

    let (cluster, client) = cluster().await;
    let sight = Arc::new(looker(&client, ".*").look().await.unwrap());
    let now = Instant::now();
    let own = |age: Duration| Own {
        refresh: SECOND,
        good_at: now.checked_sub(age),
        error: Some("no broker answers".into()),
        ..Own::default()
    };
    let fresh = Published::new(Some(Arc::clone(&sight)), own(19 * SECOND));
    assert_eq!(ask("/healthz", &fresh), ("200 OK", "ok\n".to_owned()));
    let old = Published::new(Some(sight), own(30 * SECOND));
    let (status, body) = ask("/healthz", &old);
    let clause = "the last good look at the cluster was 30 s ago: no broker answers\n";
    assert!(status.starts_with("503"));
    assert_eq!(body, clause);
    holds(
        &ask("/metrics", &old).1,
        &["ottla_exporter_up 0", "kafka_brokers 2"],
    );
    cluster.shutdown().await;
}

fn health(published: &watch::Receiver<Arc<Published>>) -> Answer {
    let published = Arc::clone(&published.borrow());
    answer(&Request::get("/healthz"), &published)
}

/// Waits until /healthz answers as wanted; what it says.
async fn until_health(published: &watch::Receiver<Arc<Published>>, wanted: &str) -> String {
    for _ in 0..60 {
        let answer = health(published);
        if answer.status.starts_with(wanted) {
            return answer.body.to_string();
        }
        tokio::time::sleep(SECOND).await;
    }
    panic!("not {wanted} within a minute: {:?}", health(published));
}

#[tokio::test(start_paused = true)]
async fn the_health_check_fails_while_nobody_tells_any_lag_and_is_well_when_somebody_does() {
    let builder = Cluster::builder().nodes(2).replication(2).in_memory();
    let cluster = builder.topic("orders", 2).start().await.unwrap();
    let client = Client::builder(cluster.bootstrap());
    let client = client.transport(Arc::new(InMemory(cluster.clone())));
    let client = client.connect().await.unwrap();
    commit(&client, "billing", 0, 0).await;
    let (publisher, published) = watch::channel(Arc::new(Published::new(
        None,
        Own {
            refresh: SECOND,
            ..Own::default()
        },
    )));
    let looker = looker(&client, ".*");
    let looks = tokio::spawn(async move { look_on(looker, &publisher).await });
    until_health(&published, "200").await;
    let refuse = |api| cluster.faults().on(api).always();
    for (api, code) in [
        (ApiKey::OffsetFetch, Code::COORDINATOR_LOAD_IN_PROGRESS),
        (ApiKey::ListOffsets, Code::OFFSET_NOT_AVAILABLE),
    ] {
        refuse(api).error(code);
        let began = tokio::time::Instant::now();
        let why = until_health(&published, "503").await;
        let took = began.elapsed();
        assert!((20 * SECOND..25 * SECOND).contains(&took), "{took:?}");
        let (clause, rest) = why.split_once(" s: ").unwrap();
        assert!(
            clause.starts_with("no group's lag was heard for 2"),
            "{why}"
        );
        assert_eq!(rest, "coordinators or leaders do not tell it\n");
        let now = Arc::clone(&published.borrow());
        assert!(now.own().error.is_none(), "the looks themselves are good");
        holds(&text(&now), &["ottla_exporter_up 0"]);
        cluster.faults().clear();
        until_health(&published, "200").await;
    }
    // Where there is nothing to hear, nothing is missed.
    client.groups().delete("billing").await.unwrap();
    refuse(ApiKey::OffsetFetch).error(Code::COORDINATOR_LOAD_IN_PROGRESS);
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(health(&published).status, "200 OK");
    }
    // And when no look comes back any more:
    for node in [0, 1] {
        cluster.freeze_node(node).unwrap();
    }
    let why = until_health(&published, "503").await;
    assert!(
        why.starts_with("the last good look at the cluster was 2"),
        "{why}"
    );
    looks.abort();
}

#[tokio::test(start_paused = true)]
async fn the_health_check_fails_while_the_only_broker_with_groups_is_silent_from_the_start() {
    let builder = Cluster::builder().nodes(2).replication(2).in_memory();
    let cluster = builder.topic("orders", 2).start().await.unwrap();
    let client = |cluster: &Cluster| {
        let client = Client::builder(cluster.bootstrap());
        client.transport(Arc::new(InMemory(cluster.clone())))
    };
    let patient = client(&cluster).connect().await.unwrap();
    commit(&patient, "billing", 0, 0).await;
    let mut hasty = client(&cluster);
    for (name, value) in PATIENCE {
        hasty = hasty.property(name, value).unwrap();
    }
    let hasty = hasty.connect().await.unwrap();
    let home = cluster.coordinator("billing").unwrap();
    cluster.freeze_node(home).unwrap();
    let own = Own {
        refresh: SECOND,
        ..Own::default()
    };
    let (publisher, published) = watch::channel(Arc::new(Published::new(None, own)));
    let looker = looker(&hasty, ".*");
    let looks = tokio::spawn(async move { look_on(looker, &publisher).await });
    until_health(&published, "200").await;
    let why = until_health(&published, "503").await;
    assert!(why.starts_with("no group's lag was heard for 2"), "{why}");
    cluster.thaw_node(home).unwrap();
    until_health(&published, "200").await;
    looks.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_not_be_seen_is_told_as_refused() {
    let (cluster, client) = cluster().await;
    commit(&client, "billing", 0, 4).await;
    let seen = looker(&client, ".*").look().await.unwrap();
    let mut snapshot = seen.groups[0].snapshot.as_ref().clone();
    for (topic, members, names) in [
        (
            Code::UNKNOWN_TOPIC_OR_PARTITION,
            Code::NOT_COORDINATOR,
            &[][..],
        ),
        (
            Code::TOPIC_AUTHORIZATION_FAILED,
            Code::GROUP_AUTHORIZATION_FAILED,
            &["", "orders"],
        ),
    ] {
        snapshot.topics[0].refused = Some(topic);
        let refused = sight::refused(&snapshot, Some(members));
        let told: Vec<&str> = refused.iter().map(|(topic, _)| &**topic).collect();
        assert_eq!(told, names);
    }
    cluster.shutdown().await;
}

/// What the command line says.
fn arguments(words: &[&str]) -> ExporterArguments {
    let words = ["ottla", "exporter"].iter().chain(words);
    match Arguments::try_parse_from(words).unwrap().command {
        Subcommand::Exporter(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exporter_that_is_started_before_its_cluster_tells_why_and_waits_for_it() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (publisher, mut published) = watch::channel(Arc::new(Published::default()));
    let brokers = format!("127.0.0.1:{port}");
    let hasty = ["--refresh", "0.1", "-X", "default.api.timeout.ms=300"];
    let hasty = arguments(&[&["-b", &brokers], &hasty[..]].concat());
    let (lines, _guard) = logged();
    let trouble = async {
        for failures in 1..3 {
            published.changed().await.unwrap();
            let answer = health(&published);
            assert!(answer.status.starts_with("503"));
            let why = answer.body.as_str();
            assert!(
                why.starts_with("no look at the cluster is over yet: ") && why.contains(&brokers),
                "{why}"
            );
            assert_eq!(published.borrow().own().failures, failures);
        }
        Cluster::builder().port(port).start().await.unwrap()
    };
    let (reached, cluster) = tokio::join!(reach(&hasty, &publisher), trouble);
    reached.unwrap();
    assert_eq!(lines("the cluster cannot be reached"), 1);
    cluster.shutdown().await;
    // No waiting mends a wrong property.
    let (publisher, _published) = watch::channel(Arc::new(Published::default()));
    let wrong = arguments(&["-X", "linger.sm=5"]);
    let failure = reach(&wrong, &publisher).await.unwrap_err();
    assert!(matches!(failure, Failure::Usage(_)), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_is_as_old_for_each_scraper_as_it_is_by_then() {
    let (cluster, client) = in_memory(2).await;
    commit(&client, "billing", 0, 0).await;
    let sight = Arc::new(looker(&client, ".*").look().await.unwrap());
    let own = Own {
        refresh: 10 * SECOND,
        good_at: Some(sight.began),
        heard_at: sight.heard_at,
        ..Own::default()
    };
    let published = Published::new(Some(sight), own);
    for format in [Format::Prometheus, Format::OpenMetrics] {
        for metric in [
            "ottla_group_age_seconds{consumergroup=\"billing\"} ",
            "ottla_exporter_look_age_seconds ",
        ] {
            let age = || -> f64 {
                let (_, changing) = published.text(format);
                let told = changing.lines().find_map(|line| line.strip_prefix(metric));
                told.unwrap().parse().unwrap()
            };
            let first = age();
            tokio::time::sleep(4 * SECOND).await;
            let grown = age() - first;
            assert!((3.9..4.1).contains(&grown), "{metric}: {grown}");
        }
        let (seen, changing) = published.text(format);
        let (again, _) = published.text(format);
        assert!(Arc::ptr_eq(&seen, &again), "what was seen is written once");
        let ends = [&*seen, &changing].map(|part| part.ends_with("# EOF\n"));
        assert_eq!(ends, [false, format == Format::OpenMetrics]);
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_as_old_as_its_oldest_figure_that_is_told() {
    let (cluster, client) = in_memory(3).await;
    // The second commit is beyond the end: it is told, though it is no lag. Of the third partition
    // nothing is told.
    for (partition, offset) in [(0, 0), (1, 7)] {
        commit(&client, "billing", partition, offset).await;
    }
    let mut sight = looker(&client, ".*").look().await.unwrap();
    let mut snapshot = sight.groups[0].snapshot.as_ref().clone();
    let partitions = &mut snapshot.topics[0].partitions;
    assert_eq!(partitions[1].status, LagStatus::BeyondEnd);
    let then = snapshot.taken_at;
    for (partition, later) in partitions.iter_mut().zip([8, 5, 0]) {
        partition.taken_at = then + later * SECOND;
    }
    sight.groups[0].snapshot = snapshot.into();
    let now = then + 9 * SECOND;
    let told = page::write_now(Some(&sight), &Own::default(), now, Format::Prometheus);
    holds(
        &told,
        &["ottla_group_age_seconds{consumergroup=\"billing\"} 4"],
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_that_are_too_old_are_not_told() {
    let (cluster, client) = cluster().await;
    let mut sight = looker(&client, ".*").look().await.unwrap();
    let Some(long_ago) = Instant::now().checked_sub(61 * SECOND) else {
        return;
    };
    sight.began = long_ago;
    let own = Own {
        good_at: Some(long_ago),
        ..Own::default()
    };
    let published = Published::new(Some(Arc::new(sight)), own);
    let told = text(&published);
    holds(&told, &["ottla_exporter_up 0"]);
    assert!(!told.contains("kafka_"), "{told}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs promtool"]
async fn promtool_finds_nothing_but_the_names_that_kafka_exporter_chose() {
    let (cluster, client) = cluster().await;
    commit(&client, "billing", 0, 4).await;
    let told = page(&mut looker(&client, ".*")).await;
    let mut promtool = Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(told.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    let names: Vec<_> = said
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let kafka_exporters = [
        "kafka_consumergroup_current_offset_sum",
        "kafka_consumergroup_lag_sum",
    ];
    assert_eq!(names, kafka_exporters, "{said}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_kafka_lag_exporter_are_told_instead_where_they_are_asked_for() {
    let (cluster, client) = cluster().await;
    let consumer = client
        .consumer()
        .unwrap()
        .group("billing")
        .auto_commit(None);
    let mut consumer = consumer.topics(["orders"]).build().await.unwrap();
    while consumer.assignment().len() < 2 {
        consumer.poll(1, SECOND / 10).await.unwrap();
    }
    let at = TopicPartition::new("orders", 1);
    let offsets = [(at, Committed::at(5))];
    consumer.commit_offsets(offsets.into()).await.unwrap();
    let sight = looker(&client, ".*").look().await.unwrap();
    let member = &sight.groups[0].members.as_ref().unwrap()[0];
    let reader = format!(
        "member_host=\"{}\",consumer_id=\"{}\",client_id=\"{}\"",
        member.host, member.member_id, member.client_id
    );
    assert!(!member.member_id.is_empty() && !member.host.is_empty());
    let own = Own {
        names: Names::LagExporter {
            cluster_name: Some("eu".into()),
        },
        ..Own::default()
    };
    let told = text(&Published::new(Some(Arc::new(sight)), own));
    let of_partition = format!(
        "{{cluster_name=\"eu\",group=\"billing\",topic=\"orders\",partition=\"1\",{reader}}}"
    );
    holds(
        &told,
        &[
            "kafka_partition_latest_offset{cluster_name=\"eu\",topic=\"orders\",partition=\"1\"} 20",
            "kafka_partition_earliest_offset{cluster_name=\"eu\",topic=\"orders\",partition=\"0\"} 0",
            &format!("kafka_consumergroup_group_offset{of_partition} 5"),
            &format!("kafka_consumergroup_group_lag{of_partition} 15"),
            "kafka_consumergroup_group_max_lag{cluster_name=\"eu\",group=\"billing\"} 15",
            "kafka_consumergroup_group_sum_lag{cluster_name=\"eu\",group=\"billing\"} 15",
            "kafka_consumergroup_group_topic_sum_lag{cluster_name=\"eu\",group=\"billing\",\
             topic=\"orders\"} 15",
        ],
    );
    for name in [
        "kafka_consumergroup_group_lag_seconds{",
        "kafka_consumergroup_group_max_lag_seconds{",
        "ottla_group_status{",
    ] {
        assert!(told.contains(name), "{name} is not in {told}");
    }
    assert!(!told.contains("kafka_consumergroup_lag{"), "{told}");
    assert!(!told.contains("kafka_topic_partition"), "{told}");
    consumer.close().await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_topic_that_is_gone_no_figure_is_told() {
    let (cluster, client) = cluster().await;
    let mut sight = looker(&client, ".*").look().await.unwrap();
    sight.ends.insert("gone".into(), Vec::new());
    let told = text(&Published::new(Some(Arc::new(sight)), Own::default()));
    assert!(!told.contains("gone"), "{told}");
    holds(&told, &["kafka_topic_partitions{topic=\"unread\"} 1"]);
    cluster.shutdown().await;
}

/// The metrics that an expression of Prometheus' language names.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("kafka_") || word.starts_with("ottla_"))
}

#[test]
fn the_dashboard_shows_only_what_the_exporter_tells() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/grafana/dashboards/ottla.json"
    );
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let told: BTreeSet<&str> = GAUGES.iter().chain(COUNTERS).copied().collect();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let panels_shown = targets.clone().count();
    let shown = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let asked = variables.filter_map(|variable| variable["query"]["query"].as_str());
    let mut seen = BTreeSet::new();
    for expression in shown.chain(asked) {
        for metric in metrics(expression) {
            assert!(
                told.contains(metric),
                "{metric} is told by nobody: {expression}"
            );
            seen.insert(metric);
        }
    }
    assert!(panels_shown >= 8 && seen.len() >= 12, "{seen:?}");
}
