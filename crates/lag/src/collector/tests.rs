//! The rhythm of the task, under a paused clock.

use super::*;
use crate::fake::Fake;
use ottla_partitioner::Method;
use ottla_proto::BrokerId;

const SECOND: Duration = Duration::from_secs(1);

async fn watch(collector: &Collector, topic: &str) -> Watching {
    collector
        .watch("billing".into(), vec![topic.into()])
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
    let collector = Collector::spawn(fake, SECOND, 1);
    let watching = watch(&collector, "orders").await;
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    assert_eq!(snapshot.lag(), Some(15));
    assert!(watching.plan.explain("orders").is_some());
}

#[tokio::test(start_paused = true)]
async fn rounds_come_at_jittered_intervals_and_lead_to_a_plan() {
    let fake = Fake::with_topic("orders", 3);
    let collector = Collector::spawn(fake.clone(), SECOND, 1);
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
    let collector = Collector::spawn(fake.clone(), SECOND, 1);
    let first = watch(&collector, "orders").await;
    let second = collector
        .watch("audit".into(), vec!["orders".into()])
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
    let collector = Collector::spawn(fake.clone(), SECOND, 1);
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
    let collector = Collector::spawn(fake.clone(), SECOND, 1);
    let watching = watch(&collector, "orders").await;
    fake.0.lock().coordinator_error = Some(Error::new(ErrorKind::Closed, "closed"));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(Arc::strong_count(&fake.0), 1);
    let error = collector
        .watch("billing".into(), vec!["orders".into()])
        .await
        .err()
        .unwrap();
    assert_eq!(*error.kind(), ErrorKind::Closed);
    drop(watching);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_ages_its_partitions_and_the_rest_stays_fresh() {
    let fake = Fake::with_topic("orders", 3);
    let collector = Collector::spawn(fake.clone(), SECOND, 1);
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
