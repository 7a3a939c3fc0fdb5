//! The rules of a fleet against a store in memory, under a paused clock.

use super::*;
use crate::snapshot::{Committed, End, Offsets};
use ottla_proto::{Code, TopicId};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::VecDeque;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// What stands in the store under one key: a text, and until when.
type Entries = BTreeMap<String, (String, Instant)>;

#[derive(Default)]
struct Memory {
    entries: Entries,
    tokens: u64,
    /// What the next calls do instead.
    troubles: VecDeque<Trouble>,
    /// How long it takes to be reached.
    delay: Duration,
    calls: usize,
}

/// One process's way to the shared memory.
#[derive(Clone, Default)]
struct FakeStore(Arc<Mutex<Memory>>);

fn clock() -> u64 {
    // The store's clock has nothing to do with ours, but for its pace.
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(|| Instant::now().into_std() - 10 * SECOND);
    let now = Instant::now().into_std();
    1_700_000_000_000 + u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap()
}

impl FakeStore {
    async fn reach(&self) -> Result<(), Trouble> {
        let (trouble, delay) = {
            let mut memory = self.0.lock();
            memory.calls += 1;
            (memory.troubles.pop_front(), memory.delay)
        };
        sleep(delay).await;
        match trouble {
            Some(Trouble::Slow) => {
                sleep(3_600 * SECOND).await;
                Ok(())
            }
            Some(trouble) => Err(trouble),
            None => Ok(()),
        }
    }

    fn fail(&self, troubles: &[Trouble]) {
        self.0.lock().troubles.extend(troubles);
    }

    /// Writes this into every value.
    fn overwrite(&self, text: &str) {
        let mut memory = self.0.lock();
        let values = memory
            .entries
            .iter_mut()
            .filter(|(key, _)| key.ends_with(":value"));
        values.for_each(|(_, (value, _))| *value = text.to_owned());
    }
}

impl Store for FakeStore {
    fn claim<'a>(
        &'a mut self,
        keys: &'a [Key],
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Claim>, Trouble>> {
        Box::pin(async move {
            self.reach().await?;
            let mut memory = self.0.lock();
            let now = Instant::now();
            memory.entries.retain(|_, (_, until)| now < *until);
            let mut claims = Vec::new();
            for Key(key) in keys {
                let name = format!("{key}:lease");
                let held = memory.entries.get(&name).map(|(text, _)| text.clone());
                let held = held.unwrap_or_else(|| {
                    memory.tokens += 1;
                    format!("{} {owner}", memory.tokens)
                });
                let (token, holder) = held.split_once(' ').unwrap();
                if holder == owner {
                    memory.entries.insert(name, (held.clone(), now + lease));
                    let token = token.parse().unwrap();
                    claims.push(Claim::Ours { token });
                    continue;
                }
                let value = memory.entries.get(&format!("{key}:value"));
                let value = value.map(|(text, _)| text.clone().into_bytes());
                claims.push(Claim::Theirs {
                    now: clock(),
                    value,
                });
            }
            Ok(claims)
        })
    }

    fn publish<'a>(
        &'a mut self,
        publications: &'a [Publication],
        owner: &'a str,
        lives: Duration,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            self.reach().await?;
            let mut memory = self.0.lock();
            let until = Instant::now() + lives;
            for Publication {
                key: Key(key),
                token,
                age,
                body,
            } in publications
            {
                let held = memory.entries.get(&format!("{key}:lease"));
                if held.is_some_and(|(text, _)| *text == format!("{token} {owner}")) {
                    let stamp = clock() - u64::try_from(age.as_millis()).unwrap();
                    let text = String::from_utf8(value::stamped(stamp, body)).unwrap();
                    memory.entries.insert(format!("{key}:value"), (text, until));
                }
            }
            Ok(())
        })
    }
}

/// The brokers as one process sees them: the end is the number of looks.
#[derive(Clone, Default)]
struct Local(Arc<Mutex<i64>>);

impl LagSource for Local {
    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        *self.0.lock() += 1;
        let looks = *self.0.lock();
        let found = asked.iter().map(|asked| {
            let mut found = Found::nothing(asked, Standing::Told, pace.began.into_std());
            for topic in &mut found.topics {
                topic.partitions = vec![Offsets {
                    committed: Committed::At(0),
                    end: End::At {
                        high_watermark: looks,
                        log_start: Some(0),
                        last_stable: None,
                    },
                }];
            }
            found
        });
        Box::pin(std::future::ready(found.collect()))
    }
}

struct Process {
    fleet: Fleet<Local, FakeStore>,
    local: Local,
}

impl Process {
    fn new(store: &FakeStore, owner: u128) -> Self {
        let local = Local::default();
        let fleet = Fleet::new(local.clone(), store.clone(), "prod".into(), owner);
        Self { fleet, local }
    }

    async fn look_at(&mut self, topics: &[&str]) -> Found {
        let asked = [asked(topics)];
        let began = Instant::now();
        let pace = Pace {
            began,
            deadline: began + SECOND,
            refresh: SECOND,
        };
        let mut found = self.fleet.look(&asked, pace).await;
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    async fn look(&mut self) -> Found {
        self.look_at(&["orders"]).await
    }

    fn looks(&self) -> i64 {
        *self.local.0.lock()
    }
}

fn asked(topics: &[&str]) -> Asked {
    Asked {
        group: "billing".into(),
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
    }
}

fn end(found: &Found) -> Option<i64> {
    found.topics[0].partitions[0].end.high_watermark()
}

#[tokio::test(start_paused = true)]
async fn one_process_asks_and_the_others_read_with_the_age() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    for round in 1..20 {
        let found = first.look().await;
        let asked_at = Instant::now().into_std();
        assert_eq!((found.origin, end(&found)), (Origin::Asked, Some(round)));
        sleep(SECOND / 2).await;
        let found = second.look().await;
        assert_eq!((found.origin, end(&found)), (Origin::Shared, Some(round)));
        let age = Instant::now().into_std() - found.taken_at;
        assert!(found.taken_at <= asked_at, "never understated");
        assert!(age <= SECOND / 2 + Duration::from_millis(2), "{age:?}");
        // Another time on the way would make another age of the same stamp.
        store.0.lock().delay = Duration::from_millis(5);
        let again = second.look().await;
        store.0.lock().delay = Duration::ZERO;
        assert_eq!(again.taken_at, found.taken_at, "no news");
        sleep(SECOND / 2).await;
    }
    assert_eq!((first.looks(), second.looks()), (19, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_taken_by_another() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    first.look().await;
    for _ in 0..3 {
        assert_eq!(second.look().await.origin, Origin::Shared);
        sleep(SECOND).await;
    }
    sleep(SECOND).await;
    assert_eq!(second.look().await.origin, Origin::Asked);
    assert_eq!(first.look().await.origin, Origin::Shared, "it was paused");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_paused_publishes_nothing_under_its_old_token() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    let old = first.look().await;
    sleep(10 * SECOND).await;
    for _ in 0..5 {
        second.look().await;
    }
    let late = publication(key("prod", &asked(&["orders"]), SECOND), 1, &old).unwrap();
    let owner = first.fleet.owner.clone();
    first
        .fleet
        .store
        .publish(&[late], &owner, SECOND)
        .await
        .unwrap();
    assert_eq!(
        end(&first.look().await),
        Some(5),
        "what the new holder said"
    );
}

#[tokio::test(start_paused = true)]
async fn each_trouble_of_the_store_degrades_to_asking_and_says_so_until_it_serves_again() {
    for trouble in [Trouble::Unreachable, Trouble::Slow, Trouble::Refused] {
        let store = FakeStore::default();
        let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
        first.look().await;
        store.fail(&[trouble]);
        let began = Instant::now();
        let found = second.look().await;
        assert_eq!(found.origin, Origin::Degraded(trouble));
        assert_eq!(end(&found), Some(1), "its own figures");
        assert!(began.elapsed() <= PATIENCE, "{trouble:?}");
        sleep(SECOND).await;
        first.look().await;
        assert_eq!(second.look().await.origin, Origin::Shared);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_asked_less_and_less() {
    let store = FakeStore::default();
    let mut process = Process::new(&store, 1);
    store.fail(&[Trouble::Unreachable; 1_000]);
    for _ in 0..600 {
        let origin = process.look().await.origin;
        assert_eq!(origin, Origin::Degraded(Trouble::Unreachable));
        sleep(SECOND).await;
    }
    let calls = store.0.lock().calls;
    assert!((20..30).contains(&calls), "{calls}");
    assert_eq!(process.looks(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_leaves_its_holder_with_fresh_figures() {
    let store = FakeStore::default();
    let mut process = Process::new(&store, 1);
    process.look().await;
    // The claim is a read and a renewal, which a full store grants; the publication it refuses.
    sleep(SECOND).await;
    store.0.lock().troubles.clear();
    let claims_only = [Trouble::Refused];
    let found = {
        let asked = [asked(&["orders"])];
        let pace = Pace {
            began: Instant::now(),
            deadline: Instant::now() + SECOND,
            refresh: SECOND,
        };
        let keys = [key("prod", &asked[0], SECOND)];
        let steps = process.fleet.steps(&asked, &keys, pace).await;
        assert!(matches!(steps[..], [Step::Lead(_)]));
        store.fail(&claims_only);
        let found = process.fleet.local.look(&asked, pace).await.remove(0);
        let publications = [publication(keys[0].clone(), 1, &found).unwrap()];
        let refused = process.fleet.publish(&publications, pace).await;
        assert_eq!(refused, Err(Trouble::Refused));
        found
    };
    assert_eq!(end(&found), Some(2));
    let origin = process.look().await.origin;
    assert_eq!(origin, Origin::Degraded(Trouble::Refused), "it rests");
}

#[tokio::test(start_paused = true)]
async fn garbage_and_stale_values_are_not_believed() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    first.look().await;
    let now = clock();
    for garbage in [
        String::new(),
        "hello".to_owned(),
        format!("2 {now} told\norders - - 1,2,0,-"),
        format!("1 {} told\norders - - 1,2,0,-", now + 60_000),
        format!("1 {now} told\nother - - 1,2,0,-"),
        format!("1 {now} told\norders - - 1,2,0,-\nmore - -"),
        format!("1 {now} told\norders - - 99999999999999999999,2,0,-"),
    ] {
        store.overwrite(&garbage);
        let found = second.look().await;
        assert_eq!(
            found.origin,
            Origin::Degraded(Trouble::Garbage),
            "{garbage}"
        );
        assert!(end(&found).is_some());
    }
    store.overwrite(&format!("1 {} told\norders - - 1,2,0,-", now - 60_000));
    let origin = second.look().await.origin;
    assert_eq!(origin, Origin::Degraded(Trouble::Stale));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_is_filled_again() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    first.look().await;
    store.0.lock().entries.clear();
    assert_eq!(
        second.look().await.origin,
        Origin::Asked,
        "it has the lease now"
    );
    assert_eq!(first.look().await.origin, Origin::Shared);
}

#[tokio::test(start_paused = true)]
async fn processes_with_other_topics_share_nothing() {
    let store = FakeStore::default();
    let (mut first, mut second) = (Process::new(&store, 1), Process::new(&store, 2));
    first.look().await;
    let found = second.look_at(&["audit", "orders"]).await;
    assert_eq!((found.origin, found.topics.len()), (Origin::Asked, 2));
}

#[test]
fn a_question_is_named_by_cluster_group_topics_and_refresh() {
    let name = |topics: &[&str], refresh| key("prod", &asked(topics), refresh).0;
    let orders = name(&["orders"], SECOND);
    assert!(
        orders.starts_with("ottla:lag:1:{prod}/billing:"),
        "{orders}"
    );
    assert_eq!(orders, name(&["orders"], SECOND));
    assert_ne!(orders, name(&["audit", "orders"], SECOND));
    // Who looks every second cannot live on the figures of who looks every five.
    assert_ne!(orders, name(&["orders"], 5 * SECOND));
}

/// Brokers that take so long for a look, and tell nothing if they are not reached.
struct Brokers {
    takes: Duration,
    tells: bool,
    looks: u32,
}

impl LagSource for Brokers {
    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        self.looks += 1;
        let standing = if self.tells {
            Standing::Told
        } else {
            Standing::Unknown(None)
        };
        Box::pin(async move {
            sleep(self.takes).await;
            let began = pace.began.into_std();
            let found = asked.iter();
            let found = found.map(|asked| Found::nothing(asked, standing, began));
            found.collect()
        })
    }
}

/// Eight processes for two minutes, the first of which may not reach the brokers; the looks of each,
/// and in how many of its rounds it read what another one heard.
async fn fleet_of_eight(takes: Duration, first_tells: bool) -> Vec<(u32, u32)> {
    let store = FakeStore::default();
    let processes = (0..8u32).map(|number| {
        let tells = first_tells || number != 0;
        let brokers = Brokers {
            takes,
            tells,
            looks: 0,
        };
        let owner = u128::from(number);
        let mut fleet = Fleet::new(brokers, store.clone(), "prod".into(), owner);
        async move {
            sleep(SECOND / 10 * number).await;
            let mut shared = 0;
            for _ in 0..120 {
                let began = Instant::now();
                let pace = Pace {
                    began,
                    deadline: began + 10 * SECOND,
                    refresh: SECOND,
                };
                let found = fleet.look(&[asked(&["orders"])], pace).await;
                shared += u32::from(found[0].origin == Origin::Shared);
                let next = (began + SECOND).max(Instant::now() + SECOND / 20);
                tokio::time::sleep_until(next).await;
            }
            (fleet.local.looks, shared)
        }
    });
    futures_util::future::join_all(processes).await
}

#[tokio::test(start_paused = true)]
async fn looks_that_take_longer_than_a_lease_do_not_dissolve_the_fleet() {
    for takes in [SECOND / 10, SECOND * 5 / 2, SECOND * 4, SECOND * 9] {
        let told = fleet_of_eight(takes, true).await;
        let readers = told.iter().filter(|(looks, shared)| {
            // Until the first value is there each looks for itself.
            *looks <= 10 && *shared >= 110
        });
        assert_eq!(readers.count(), 7, "{takes:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_hears_nothing_leaves_the_lease_to_another() {
    let told = fleet_of_eight(SECOND / 10, false).await;
    let readers = told.iter().filter(|(_, shared)| *shared > 100);
    assert_eq!(readers.count(), 7, "also itself: {told:?}");
    assert!(told[0].1 > 100, "{told:?}");
}

fn offsets() -> impl Strategy<Value = Offsets> {
    let code = || proptest::option::of(any::<i16>().prop_map(Code));
    let offset = || 0..=i64::MAX;
    let committed = prop_oneof![
        offset().prop_map(Committed::At),
        Just(Committed::Nothing),
        code().prop_map(Committed::Unknown),
    ];
    let optional = || proptest::option::of(offset());
    let end = prop_oneof![
        (offset(), optional(), optional()).prop_map(|(high_watermark, log_start, last_stable)| {
            End::At {
                high_watermark,
                log_start,
                last_stable,
            }
        }),
        code().prop_map(End::Unknown),
    ];
    (committed, end).prop_map(|(committed, end)| Offsets { committed, end })
}

proptest! {
    /// What is written is read as it was.
    #[test]
    fn a_value_comes_back_as_it_was_written(
        partitions in proptest::collection::vec(offsets(), 0..50),
        id in proptest::option::of(any::<[u8; 16]>()),
        refused in proptest::option::of(any::<i16>()),
        stamp in any::<u64>(),
    ) {
        let asked = asked(&["audit", "orders"]);
        let mut found = Found::nothing(&asked, Standing::Told, Instant::now().into_std());
        found.topics[1].id = id.map(TopicId);
        found.topics[1].refused = refused.map(Code);
        found.topics[1].partitions = partitions;
        let body = value::write(&found).unwrap();
        let read = value::read(&value::stamped(stamp, &body), &asked).unwrap();
        prop_assert_eq!((read.stamp, read.standing), (stamp, Standing::Told));
        prop_assert_eq!(read.topics, found.topics);
    }

    /// Anybody may write into the store: whatever stands there, nothing panics, and what is read has
    /// no more partitions than the value has bytes for.
    #[test]
    fn any_bytes_are_survived(value in r"1 [0-9]{1,20} told\norders [-0-9a-f]{1,32} [-0-9]{1,6}( [-?,0-9]{0,30}){0,5}") {
        if let Some(read) = value::read(value.as_bytes(), &asked(&["orders"])) {
            prop_assert!(read.topics[0].partitions.len() * 8 <= value.len());
        }
    }
}
