//! The rhythm of the task, under a paused clock.

use super::*;
use crate::fake::Fake;
use ottla_partitioner::{KeyPolicy, Method};
use ottla_proto::{BrokerId, Code};

const SECOND: Duration = Duration::from_secs(1);

fn spawn(fake: &Fake) -> Collector {
    Collector::with_source(Collected::new(fake.clone()), SECOND, 1)
}

fn wanted(topic: &str) -> Wanted {
    Wanted::new(vec![topic.into()], &[]).unwrap()
}

/// The watch of one group.
struct One {
    plan: PlanReader,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

async fn watch_group(collector: &Collector, group: &str, wanted: Wanted) -> Result<One> {
    let groups = [group.into()];
    let steered = Steered::default();
    let watching = collector.watch(&groups, &wanted, &steered);
    let Watching {
        plan,
        mut snapshots,
    } = watching.await?;
    let snapshots = snapshots.remove(0);
    Ok(One { plan, snapshots })
}

async fn watch(collector: &Collector, topic: &str) -> One {
    watch_group(collector, "billing", wanted(topic))
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
    let second = watch_group(&collector, "audit", wanted("orders"))
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
    let One { plan, snapshots } = watch(&collector, "orders").await;
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
    let error = watch_group(&collector, "billing", wanted("orders"))
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
    let explained = watching.plan.explain("orders").unwrap().partitions;
    let age = |at: usize| now - explained[at].taken_at.unwrap();
    assert!(age(0) <= 2 * SECOND && age(1) <= 2 * SECOND);
    assert!(age(2) >= 19 * SECOND);
    tokio::time::sleep(60 * SECOND).await;
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    assert_eq!(snapshot.partition("orders", 2).unwrap().lag, None);
}

#[tokio::test(start_paused = true)]
async fn a_look_takes_no_longer_than_it_may() {
    for look_max in [SECOND / 4, SECOND / 2] {
        let fake = Fake::with_topic("orders", 3);
        fake.0.lock().hung.insert(BrokerId(2));
        let source = Collected::new(fake.clone());
        let collector = Collector::with_patience(source, SECOND, look_max, 1);
        let began = Instant::now();
        let watching = watch(&collector, "orders").await;
        let took = began.elapsed();
        assert!(
            took >= look_max && took < look_max + SECOND / 10,
            "{took:?}"
        );
        let snapshot = Arc::clone(&watching.snapshots.borrow());
        let lag = |partition| snapshot.partition("orders", partition).unwrap().lag;
        assert_eq!((lag(0), lag(2)), (Some(5), None));
    }
}

#[tokio::test(start_paused = true)]
async fn topics_by_pattern_come_and_go_with_the_cluster() {
    let fake = Fake::with_topic("orders-eu", 1);
    let collector = spawn(&fake);
    let wanted = Wanted::new(Vec::new(), &["orders-.*".to_owned()]).unwrap();
    let watching = watch_group(&collector, "billing", wanted).await.unwrap();
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
    tokio::time::sleep(35 * SECOND).await;
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
    let lag = || watching.snapshots.borrow().lag();
    assert_eq!(lag(), Some(5), "a new coordinator may say so for a moment");
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(lag(), None, "it was deleted");
}

/// A source of the user's own that does not come back, however often it is asked.
struct Hanging;

impl LagSource for Hanging {
    fn watch_topics<'a>(
        &'a mut self,
        _topics: &'a [Arc<str>],
        _deadline: Instant,
    ) -> ottla_wire::BoxFuture<'a, ()> {
        Box::pin(std::future::pending())
    }

    fn committed_topics<'a>(
        &'a mut self,
        _groups: &'a [Arc<str>],
        _deadline: Instant,
    ) -> ottla_wire::BoxFuture<'a, Vec<Option<Vec<Arc<str>>>>> {
        Box::pin(std::future::pending())
    }

    fn look<'a>(
        &'a mut self,
        _asked: &'a [Asked],
        _pace: Pace,
    ) -> ottla_wire::BoxFuture<'a, Vec<crate::Found>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_hangs_nobody() {
    let collector = Collector::with_source(Hanging, SECOND, 1);
    let began = Instant::now();
    let watching = watch(&collector, "orders").await;
    assert!(began.elapsed() <= 14 * SECOND, "{:?}", began.elapsed());
    let snapshot = Arc::clone(&watching.snapshots.borrow());
    assert_eq!(snapshot.standing, Standing::Unknown(None));
    let committed = Wanted::default().and_committed(true);
    watch_group(&collector, "audit", committed).await.unwrap();
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
    let watching = watch_group(&collector, "billing", committed()).await;
    let watching = watching.unwrap();
    let twin = watch_group(&collector, "billing", committed())
        .await
        .unwrap();
    let topics = |watching: &One| -> Vec<String> {
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
    // Ten seconds until it is probed, and three listings.
    tokio::time::sleep(45 * SECOND).await;
    assert_eq!(topics(&watching), ["audit"]);
}

/// Commits of a group in the three partitions of `orders`.
fn commit(fake: &Fake, group: &str, offsets: [i64; 3]) {
    let mut state = fake.0.lock();
    state.coordinators.insert(group.to_owned(), BrokerId(1));
    for (partition, offset) in (0..).zip(offsets) {
        let key = (group.to_owned(), "orders".to_owned(), partition);
        state.committed.insert(key, offset);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_groups_each_partition_counts_as_its_slowest_has_it() {
    let fake = Fake::with_topic("orders", 3);
    fake.0.lock().ends.values_mut().for_each(|end| *end = 1_000);
    commit(&fake, "billing", [1_000, 1_000, 100]);
    commit(&fake, "audit", [100, 1_000, 1_000]);
    let collector = spawn(&fake);
    let groups = ["billing".into(), "audit".into()];
    let orders = wanted("orders");
    let steered = Steered {
        scorer: Some(Arc::new(crate::health::Threshold::default())),
        keys: KeyPolicy::MIGRATE,
    };
    let watching = collector.watch(&groups, &orders, &steered);
    let watching = watching.await.unwrap();
    let lags: Vec<_> = watching
        .snapshots
        .iter()
        .map(|of| of.borrow().lag())
        .collect();
    assert_eq!(lags, [Some(900), Some(900)]);
    let explained = watching.plan.explain("orders").unwrap();
    assert_eq!(explained.method, Method::Weighted);
    assert_eq!(explained.key_policy, KeyPolicy::MIGRATE);
    let weights: Vec<f64> = explained.partitions.iter().map(|p| p.weight).collect();
    assert!(weights[1] > 0.8, "{weights:?}");
    assert!(weights[0] < 0.2 && weights[2] < 0.2, "{weights:?}");
    // Each partition is shown with the figures of the group that decides, and says which that is.
    let decides = |at: usize| {
        let one = &explained.partitions[at];
        (one.group.as_deref(), one.lag)
    };
    assert_eq!(decides(0), (Some("audit"), Some(900)));
    assert_eq!(decides(2), (Some("billing"), Some(900)));
    // As long as one of them may not be seen, nothing is steered.
    fake.0
        .lock()
        .group_codes
        .push_back(Code::GROUP_AUTHORIZATION_FAILED);
    tokio::time::sleep(2 * SECOND).await;
    let method = watching.plan.explain("orders").unwrap().method;
    assert_eq!(method, Method::Uniform(ottla_partitioner::Fallback::Denied));
}

#[tokio::test(start_paused = true)]
async fn keys_move_by_what_the_slowest_group_has_committed() {
    let fake = Fake::with_topic("orders", 3);
    commit(&fake, "billing", [15, 15, 15]);
    commit(&fake, "audit", [15, 15, 3]);
    let collector = spawn(&fake);
    let groups = ["billing".into(), "audit".into()];
    let orders = wanted("orders");
    let steered = Steered {
        keys: KeyPolicy::MIGRATE,
        ..Steered::default()
    };
    let watching = collector.watch(&groups, &orders, &steered);
    let watching = watching.await.unwrap();
    let steer = ottla_partitioner::LagAware::new(watching.plan.clone());
    let place = |key: &str| keyed(&steer, key);
    let keys: Vec<String> = (0..200).map(|key: i32| key.to_string()).collect();
    // Somebody else may have written until the first key is asked for.
    assert!(keys.iter().all(|key| place(key).is_none()));
    tokio::time::sleep(2 * SECOND).await;
    // Each key is where its hash says, or, where the second place has unread records, there.
    let home = |key: &str| ottla_partitioner::java_partition(key.as_bytes(), 3);
    let away = keys
        .iter()
        .filter(|key| place(key) != Some(home(key)))
        .count();
    let unread = keys
        .iter()
        .filter(|key| home(key) != 2 && place(key) == Some(2))
        .count();
    assert!(away > 0 && away == unread, "{away} {unread}");
    commit(&fake, "billing", [15, 15, 3]);
    commit(&fake, "audit", [3, 15, 15]);
    let watching = collector.watch(&groups, &orders, &steered);
    let watching = watching.await.unwrap();
    let steer = ottla_partitioner::LagAware::new(watching.plan);
    assert!(keyed(&steer, "any").is_none());
    tokio::time::sleep(2 * SECOND).await;
    let held = keys
        .iter()
        .filter(|key| keyed(&steer, key).is_none())
        .count();
    assert!(
        held > 20,
        "both places have records that one of the groups has not read: {held}"
    );
}

/// Where a keyed record goes; `None` when that cannot be said yet.
fn keyed(steer: &ottla_partitioner::LagAware, key: &str) -> Option<i32> {
    use ottla_partitioner::{KeyChoice, NoQueues, Partitioner, TopicView};
    let view = TopicView {
        topic: "orders",
        partition_count: 3,
        available: &[0, 1, 2],
        queued: &NoQueues,
        batch_bytes: 1_000,
        stripe: 0,
    };
    match steer.keyed(&view, key.as_bytes()) {
        KeyChoice::Tracked => Some(
            steer
                .track(
                    &view,
                    key.as_bytes(),
                    tokio::time::Instant::now().into_std(),
                )?
                .partition(),
        ),
        KeyChoice::Partition(partition) => Some(partition),
        KeyChoice::Run => None,
    }
}
