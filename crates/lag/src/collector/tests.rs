//! The rhythm of the task, under a paused clock.

use super::*;
use crate::fake::Fake;
use ottla_partitioner::Method;
use ottla_proto::BrokerId;

const SECOND: Duration = Duration::from_secs(1);

fn spawn(fake: &Fake) -> Collector {
    Collector::with_source(Collected::new(fake.clone()), SECOND, 1)
}

fn wanted(topic: &str) -> Wanted {
    Wanted::new(vec![topic.into()], &[]).unwrap()
}

async fn watch(collector: &Collector, topic: &str) -> Watching {
    collector
        .watch("billing".into(), wanted(topic))
        .await
        .unwrap()
}

/// Every partition receives and commits a hundred records.
fn flow(fake: &Fake) {
    let mut state = fake.0.lock();
    state.ends.values_mut().for_each(|end| *end += 100);
    state
        .committed
        .values_mut()
        .for_each(|offset| *offset += 100);
}

#[tokio::test(start_paused = true)]
async fn the_first_look_is_there_when_the_watch_begins() {
    let fake = Fake::with_topic("orders", 3);
    let collector = spawn(&fake);
    let watching = watch(&collector, "orders").await;
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    assert_eq!(snapshot.lag(), Some(15));
    assert!(watching.plan.explain("orders").is_some());
}

#[tokio::test(start_paused = true)]
async fn rounds_come_at_jittered_intervals_and_lead_to_a_plan() {
    let fake = Fake::with_topic("orders", 3);
    let collector = spawn(&fake);
    let mut watching = watch(&collector, "orders").await;
    let mut last = watching.snapshots.borrow_and_update().taken_at;
    let mut gaps = Vec::new();
    for _ in 0..40 {
        flow(&fake);
        watching.snapshots.changed().await.unwrap();
        let taken_at = watching.snapshots.borrow_and_update().taken_at;
        gaps.push(taken_at - last);
        last = taken_at;
    }
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least >= Duration::from_millis(750) && *most <= Duration::from_millis(1_251));
    assert!(
        *most - *least > Duration::from_millis(300),
        "{least:?} to {most:?}"
    );
    let explained = watching.plan.explain("orders").unwrap();
    assert_eq!(explained.method, Method::Drain);
}

#[tokio::test(start_paused = true)]
async fn one_task_serves_all_groups_in_the_same_round() {
    let fake = Fake::with_topic("orders", 3);
    fake.0
        .lock()
        .coordinators
        .insert("audit".into(), BrokerId(1));
    let collector = spawn(&fake);
    let first = watch(&collector, "orders").await;
    let second = collector
        .watch("audit".into(), wanted("orders"))
        .await
        .unwrap();
    fake.calls();
    let mut snapshots = first.snapshots.clone();
    snapshots.borrow_and_update();
    snapshots.changed().await.unwrap();
    let calls = fake.calls();
    assert_eq!(
        calls.iter().filter(|call| *call == "commits 1 2").count(),
        1
    );
    assert_eq!(
        calls.iter().filter(|call| call.starts_with("ends")).count(),
        3
    );
    assert_eq!(
        second.snapshots.borrow().lag(),
        None,
        "it has committed nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn it_looks_on_while_a_plan_is_read_and_ends_when_nobody_looks() {
    let fake = Fake::with_topic("orders", 3);
    let collector = spawn(&fake);
    let Watching { plan, snapshots } = watch(&collector, "orders").await;
    drop((collector, snapshots));
    fake.calls();
    tokio::time::sleep(10 * SECOND).await;
    assert!(fake.count("commits") >= 8);
    drop(plan);
    tokio::time::sleep(2 * SECOND).await;
    let calls = fake.calls();
    assert_eq!(
        calls.last().map(String::as_str),
        Some("unwatch [\"orders\"]")
    );
    tokio::time::sleep(10 * SECOND).await;
    assert!(fake.calls().is_empty());
    assert_eq!(Arc::strong_count(&fake.0), 1, "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_closed_cluster_ends_the_task() {
    let fake = Fake::with_topic("orders", 3);
    let collector = spawn(&fake);
    let watching = watch(&collector, "orders").await;
    fake.0.lock().coordinator_error = Some(Error::new(ErrorKind::Closed, "closed"));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(Arc::strong_count(&fake.0), 1);
    let error = collector
        .watch("billing".into(), wanted("orders"))
        .await
        .err()
        .unwrap();
    assert_eq!(*error.kind(), ErrorKind::Closed);
    drop(watching);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_ages_its_partitions_and_the_rest_stays_fresh() {
    let fake = Fake::with_topic("orders", 3);
    let collector = spawn(&fake);
    let watching = watch(&collector, "orders").await;
    fake.0.lock().down.insert(BrokerId(2));
    tokio::time::sleep(20 * SECOND).await;
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    let now = Instant::now().into_std();
    let age = |partition| snapshot.partition("orders", partition).unwrap().age(now);
    assert!(age(0) <= 2 * SECOND && age(1) <= 2 * SECOND);
    assert!(age(2) >= 19 * SECOND);
    assert_eq!(snapshot.partition("orders", 2).unwrap().lag, Some(5));
    tokio::time::sleep(60 * SECOND).await;
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    assert_eq!(snapshot.partition("orders", 2).unwrap().lag, None);
}

#[tokio::test(start_paused = true)]
async fn topics_by_pattern_come_and_go_with_the_cluster() {
    let fake = Fake::with_topic("orders-eu", 1);
    let collector = spawn(&fake);
    let wanted = Wanted::new(Vec::new(), &["orders-.*".to_owned()]).unwrap();
    let watching = collector.watch("billing".into(), wanted).await.unwrap();
    let topics = || {
        let snapshot = Arc::clone(&watching.snapshots.borrow());
        let topics = snapshot.topics.iter().map(|topic| topic.topic.to_string());
        topics.collect::<Vec<_>>()
    };
    assert_eq!(topics(), ["orders-eu"]);
    let rename = |from: &str, to: &str| {
        let mut state = fake.0.lock();
        let topic = state.view.topics.get(from).cloned().unwrap();
        state.view.topics.insert(to.into(), topic);
    };
    rename("orders-eu", "orders-us");
    rename("orders-eu", "payments");
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(topics(), ["orders-eu", "orders-us"]);
    fake.0.lock().view.topics.remove("orders-eu");
    fake.calls();
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(topics(), ["orders-us"]);
    assert_eq!(fake.count("unwatch [\"orders-eu\"]"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_comes_to_be_is_seen_in_the_next_round() {
    let fake = Fake::with_topic("orders", 1);
    let committed = std::mem::take(&mut fake.0.lock().committed);
    let collector = spawn(&fake);
    let watching = watch(&collector, "orders").await;
    assert_eq!(watching.snapshots.borrow().lag(), None);
    fake.0.lock().committed = committed;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(watching.snapshots.borrow().lag(), Some(5));
    fake.0.lock().committed.clear();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(watching.snapshots.borrow().lag(), None, "it was deleted");
}

/// A source of the user's own, whose figures are old and do not change with every look.
struct Slow(std::time::Instant);

impl LagSource for Slow {
    fn look<'a>(
        &'a mut self,
        asked: &'a [Asked],
        _pace: Pace,
    ) -> ottla_wire::BoxFuture<'a, Vec<crate::Found>> {
        let found = asked.iter();
        let found = found.map(|asked| crate::Found::nothing(asked, Standing::Told, self.0));
        Box::pin(std::future::ready(found.collect()))
    }
}

#[tokio::test(start_paused = true)]
async fn figures_that_are_no_news_are_not_published_again() {
    let collector = Collector::with_source(Slow(std::time::Instant::now()), SECOND, 1);
    let mut watching = watch(&collector, "orders").await;
    watching.snapshots.borrow_and_update();
    tokio::time::sleep(5 * SECOND).await;
    assert!(!watching.snapshots.has_changed().unwrap());
    assert!(collector.figures().rounds >= 4);
}

#[tokio::test(start_paused = true)]
async fn the_topics_of_a_group_are_those_it_commits_in() {
    let fake = Fake::with_topic("orders", 2);
    let other = Fake::with_topic("audit", 1);
    let audit = other.0.lock().view.topics.clone();
    fake.0.lock().view.topics.extend(audit);
    fake.0.lock().ends.insert(("audit".into(), 0), 9);
    let collector = spawn(&fake);
    let committed = || Wanted::default().and_committed(true);
    let watching = collector.watch("billing".into(), committed()).await;
    let watching = watching.unwrap();
    let twin = collector
        .watch("billing".into(), committed())
        .await
        .unwrap();
    let topics = |watching: &Watching| -> Vec<String> {
        let snapshot = watching.snapshots.borrow();
        let names = snapshot.topics.iter().map(|topic| topic.topic.to_string());
        names.collect()
    };
    assert_eq!(topics(&watching), ["orders"]);
    assert_eq!(topics(&twin), ["orders"]);
    let key = ("billing".to_owned(), "audit".to_owned(), 0);
    fake.0.lock().committed.insert(key, 4);
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(topics(&watching), ["audit", "orders"]);
    assert_eq!(watching.snapshots.borrow().lag(), Some(15));
    // A coordinator that cannot be asked takes nothing away.
    fake.0.lock().down.insert(BrokerId(1));
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(topics(&watching), ["audit", "orders"]);
    fake.0.lock().down.clear();
    fake.0
        .lock()
        .committed
        .retain(|(_, topic, _), _| topic == "audit");
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(topics(&watching), ["audit"]);
}
