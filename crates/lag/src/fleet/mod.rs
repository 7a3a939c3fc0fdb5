//! One collector for a fleet of producers: whoever holds the lease asks the brokers, the others read
//! what it heard from a store that all can reach.
//!
//! - What is shared are observations (committed offset, end, age), never weights: each producer makes
//!   its own plan, with its own sends counted.
//! - A lease is for one question: a group and its topics. Processes that watch the same topics of a
//!   group share it. It is taken and renewed by a script, carries a fencing token that grows with each
//!   taking, and only its holder can publish: one that was paused and comes back publishes nothing.
//!   It is renewed while the holder looks, however long that takes; a holder that hears nothing worth
//!   publishing in two looks leaves it to another for a while.
//! - Ages go by the store's clock, not by the clocks of the machines.
//! - Whatever is wrong with the store, the brokers are asked instead, as without it. That is said once
//!   in the log, in each snapshot's [`Origin`], and counted. The store is asked less and less often
//!   while it fails, each time with a short patience; producing does not wait for any of it.
//!
//! # Keys and values
//! `ottla:lag:1:{CLUSTER}/GROUP:HASH` and then `:lease` (`TOKEN OWNER`, lives three refreshes), `:token`
//! (a counter) and `:value`, which lives ten refreshes, or as long as it may be read. HASH is of the
//! topics' names and the refresh: who looks seldom is no help to who looks often. All keys of a cluster
//! go to one node of a Redis Cluster, for a script can touch no other. The 1 is the version of all
//! this; what has another version is not read. A value is text:
//!
//! ```text
//! 1 STAMP STANDING            version; milliseconds of the store's clock; told or share
//! TOPIC ID REFUSED PARTITION  one line a topic, by name; the id in hex or -; a Kafka code or -
//!
//! PARTITION = COMMITTED,END,LOG_START,LAST_STABLE    in order from 0, with a blank between
//! COMMITTED = an offset, - for none, ? for unknown, ?CODE with Kafka's reason
//! END       = an offset, ? or ?CODE
//! ```

mod options;
#[cfg(feature = "redis")]
mod redis;
#[cfg(test)]
mod tests;
mod value;

use crate::source::{Asked, Found, LagSource, Origin, Pace, Standing, Trouble};
pub(crate) use options::FleetOptions;
use ottla_proto::Result;
use ottla_wire::BoxFuture;
#[cfg(feature = "redis")]
pub use redis::{RedisStore, RedisStoreBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The longest value that is written or read. Ten thousand partitions need less than a tenth of it.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the store may take for one answer, at most; a quarter of a refresh if that is less.
const PATIENCE: Duration = Duration::from_millis(250);

/// The longest time that a store that fails is left alone.
const REST_MAX: Duration = Duration::from_secs(30);

/// How many refreshes a lease lives without being renewed.
const LEASE_REFRESHES: u32 = 3;

/// How often in a row a lease may lead to nothing worth publishing, and for how many leases it is then
/// left to others: a process that cannot reach a group's coordinator would hold it for ever.
const UNHEARD_MAX: u32 = 2;
const UNHEARD_REST_LEASES: u32 = 2;

/// How many refreshes a value lives.
const VALUE_REFRESHES: u32 = 10;

/// What a store needs to know of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub(crate) String);

impl Key {
    /// What its lease, its token and its value are named by: `ottla:lag:1:{CLUSTER}/GROUP:HASH`.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What a store says of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The lease is ours, under this fencing token: ask the brokers, and publish.
    Ours {
        /// Grows whenever the lease is taken anew.
        token: u64,
    },
    /// Another process has the lease.
    Theirs {
        /// The store's clock, in milliseconds.
        now: u64,
        /// What that process published last, if it still lives.
        value: Option<Vec<u8>>,
    },
    /// What stands there is not ours to read.
    Garbage,
}

/// What the holder of a lease heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The question.
    pub key: Key,
    /// The token of the lease.
    pub token: u64,
    /// How old the figures are.
    pub age: Duration,
    /// What stands in a value behind version and stamp.
    pub body: String,
}

/// A store that a fleet shares; `RedisStore` (feature `redis`) is one.
///
/// A future that is dropped must leave the store fit for the next call.
pub trait Store: Send + 'static {
    /// Takes or renews the lease of each question for `owner`, and reads what the holder published
    /// where that is another.
    fn claim<'a>(
        &'a mut self,
        keys: &'a [Key],
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Claim>, Trouble>>;

    /// Publishes what `owner` heard, where the lease is still its own.
    fn publish<'a>(
        &'a mut self,
        publications: &'a [Publication],
        owner: &'a str,
        lives: Duration,
    ) -> BoxFuture<'a, Result<(), Trouble>>;
}

impl Store for Box<dyn Store> {
    fn claim<'a>(
        &'a mut self,
        keys: &'a [Key],
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Claim>, Trouble>> {
        (**self).claim(keys, owner, lease)
    }

    fn publish<'a>(
        &'a mut self,
        publications: &'a [Publication],
        owner: &'a str,
        lives: Duration,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        (**self).publish(publications, owner, lives)
    }
}

/// Makes `local` the collector of a fleet, or spares it the asking, by a lease in `store`. `cluster`
/// tells clusters apart that share a store.
pub fn fleet_source(
    local: impl LagSource,
    store: impl Store,
    cluster: impl Into<String>,
) -> impl LagSource {
    Fleet::new(local, store, cluster.into(), fastrand::u128(..))
}

/// See [`fleet_source`].
struct Fleet<L, S> {
    local: L,
    store: S,
    cluster: String,
    owner: String,
    seen: BTreeMap<String, Seen>,
    unheard: BTreeMap<String, Unheard>,
    failing: Option<Failing>,
}

/// What was last seen of a question that another process asks.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The stamp of its value, and when that was by our clock.
    news: Option<(u64, std::time::Instant)>,
    /// Since when there is none.
    missing_since: Instant,
}

/// How often in a row a lease led to nothing worth publishing, and until when it is left to others.
#[derive(Debug, Clone, Copy)]
struct Unheard {
    times: u32,
    rests_until: Instant,
}

/// That the store failed, and until when it is left alone.
#[derive(Debug, Clone, Copy)]
struct Failing {
    trouble: Trouble,
    times: u32,
    until: Instant,
}

/// What to do about one question.
enum Step {
    /// Ask, and publish under this token.
    Lead(u64),
    /// Ask, for ourselves.
    Ask(Origin),
    Read(Found),
}

impl<L: LagSource, S: Store> LagSource for Fleet<L, S> {
    fn watch_topics<'a>(
        &'a mut self,
        topics: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, ()> {
        self.local.watch_topics(topics, deadline)
    }

    fn unwatch_topics(&mut self, topics: &[Arc<str>]) {
        self.local.unwatch_topics(topics);
    }

    fn topic_names(&mut self) -> BoxFuture<'_, Result<Vec<Arc<str>>>> {
        self.local.topic_names()
    }

    fn committed_topics<'a>(
        &'a mut self,
        groups: &'a [Arc<str>],
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Option<Vec<Arc<str>>>>> {
        self.local.committed_topics(groups, deadline)
    }

    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        Box::pin(self.look_at(asked, pace))
    }
}

impl<L: LagSource, S: Store> Fleet<L, S> {
    fn new(local: L, store: S, cluster: String, owner: u128) -> Self {
        Self {
            local,
            store,
            cluster,
            owner: format!("{owner:032x}"),
            seen: BTreeMap::new(),
            unheard: BTreeMap::new(),
            failing: None,
        }
    }

    async fn look_at(&mut self, asked: &[Asked], pace: Pace) -> Vec<Found> {
        let key = |one| key(&self.cluster, one, pace.refresh);
        let keys: Vec<Key> = asked.iter().map(key).collect();
        let is_asked = |key: &String| keys.iter().any(|asked| asked.0 == *key);
        self.seen.retain(|key, _| is_asked(key));
        self.unheard.retain(|key, _| is_asked(key));
        let steps = self.steps(asked, &keys, pace).await;
        let questions = asked.iter().zip(&steps);
        let questions = questions.filter(|(_, step)| !matches!(step, Step::Read(_)));
        let questions: Vec<Asked> = questions.map(|(asked, _)| asked.clone()).collect();
        let held = keys.iter().zip(&steps);
        let held = held.filter(|(_, step)| matches!(step, Step::Lead(_)));
        let held: Vec<Key> = held.map(|(key, _)| key.clone()).collect();
        let answers = self.look_holding(&questions, &held, pace).await;
        let mut answers = answers.into_iter();
        let mut found = Vec::with_capacity(asked.len());
        let mut publications = Vec::new();
        for ((asked, key), step) in asked.iter().zip(keys).zip(steps) {
            let (answer, origin) = match step {
                Step::Read(read) => {
                    found.push(read);
                    continue;
                }
                Step::Lead(token) => {
                    let answer = answers.next();
                    publications.extend(answer.as_ref().and_then(|a| publication(key, token, a)));
                    (answer, Origin::Asked)
                }
                Step::Ask(origin) => (answers.next(), origin),
            };
            let nothing = || {
                let taken_at = pace.began.into_std();
                Found::nothing(asked, Standing::Unknown(None), taken_at)
            };
            let mut answer = answer.unwrap_or_else(nothing);
            answer.origin = origin;
            found.push(answer);
        }
        if let Err(trouble) = self.publish(&publications, pace).await {
            // The others hear nothing of it; for us it is as fresh as ever.
            for found in &mut found {
                if found.origin == Origin::Asked {
                    found.origin = Origin::Degraded(trouble);
                }
            }
        }
        found
    }

    /// Asks by ourselves. These leases are kept meanwhile: they are shorter than a look may be, so
    /// that one whose holder is gone is soon free.
    async fn look_holding(&mut self, asked: &[Asked], held: &[Key], pace: Pace) -> Vec<Found> {
        if asked.is_empty() {
            return Vec::new();
        }
        let look = self.local.look(asked, pace);
        if held.is_empty() {
            return look.await;
        }
        let (store, owner) = (&mut self.store, &self.owner);
        let hold = async {
            loop {
                sleep(lease(pace) / 3).await;
                // What has come of it shows when we publish.
                let _ = timeout(patience(pace), store.claim(held, owner, lease(pace))).await;
            }
        };
        tokio::select! {
            biased;
            found = look => found,
            () = hold => Vec::new(),
        }
    }

    /// What to do about each question, as the store says.
    async fn steps(&mut self, asked: &[Asked], keys: &[Key], pace: Pace) -> Vec<Step> {
        let alone = |trouble| {
            let steps = asked.iter().map(|_| Step::Ask(Origin::Degraded(trouble)));
            steps.collect()
        };
        let now = Instant::now();
        if let Some(failing) = self.failing.filter(|failing| now < failing.until) {
            return alone(failing.trouble);
        }
        let rests = |key: &Key| {
            let unheard = self.unheard.get(&key.0);
            unheard.is_some_and(|unheard| now < unheard.rests_until)
        };
        let rest: Vec<bool> = keys.iter().map(rests).collect();
        let claimed = keys.iter().zip(&rest).filter(|(_, rests)| !**rests);
        let claimed: Vec<Key> = claimed.map(|(key, _)| key.clone()).collect();
        if claimed.is_empty() {
            return asked.iter().map(|_| Step::Ask(Origin::Asked)).collect();
        }
        let claim = self.store.claim(&claimed, &self.owner, lease(pace));
        let claims = match timeout(patience(pace), claim).await {
            Ok(Ok(claims)) if claims.len() == claimed.len() => claims,
            Ok(Ok(_)) => return alone(self.fail(Trouble::Garbage, pace)),
            Ok(Err(trouble)) => return alone(self.fail(trouble, pace)),
            Err(_) => return alone(self.fail(Trouble::Slow, pace)),
        };
        if !claims.iter().any(|c| matches!(c, Claim::Ours { .. })) {
            // Whoever has to write knows only then whether the store serves again.
            self.failing = None;
        }
        let mut claims = claims.into_iter();
        let mut steps = Vec::with_capacity(asked.len());
        for ((asked, key), rests) in asked.iter().zip(keys).zip(rest) {
            let claim = if rests { None } else { claims.next() };
            steps.push(match claim {
                None => Step::Ask(Origin::Asked),
                Some(claim) => self.step(asked, key, claim, pace),
            });
        }
        steps
    }

    fn step(&mut self, asked: &Asked, key: &Key, claim: Claim, pace: Pace) -> Step {
        let (clock, value) = match claim {
            Claim::Ours { token } => {
                self.seen.remove(&key.0);
                return self.lead(key, token, pace);
            }
            Claim::Garbage => return Step::Ask(Origin::Degraded(Trouble::Garbage)),
            Claim::Theirs { now, value } => (now, value),
        };
        self.unheard.remove(&key.0);
        match self.read(asked, key, clock, value.as_deref(), pace) {
            Ok(Some(found)) => Step::Read(found),
            Ok(None) => Step::Ask(Origin::Asked),
            Err(trouble) => Step::Ask(Origin::Degraded(trouble)),
        }
    }

    /// Counts a look that we owe the others, until it is published.
    fn lead(&mut self, key: &Key, token: u64, pace: Pace) -> Step {
        let now = Instant::now();
        let unheard = self.unheard.entry(key.0.clone()).or_insert(Unheard {
            times: 0,
            rests_until: now,
        });
        unheard.times += 1;
        if unheard.times <= UNHEARD_MAX {
            return Step::Lead(token);
        }
        unheard.times = 0;
        unheard.rests_until = now + lease(pace) * UNHEARD_REST_LEASES;
        Step::Ask(Origin::Asked)
    }

    /// What another process published; `None` if it has not come to that yet.
    fn read(
        &mut self,
        asked: &Asked,
        key: &Key,
        clock: u64,
        value: Option<&[u8]>,
        pace: Pace,
    ) -> Result<Option<Found>, Trouble> {
        let fresh = fresh(pace);
        let seen = self.seen.entry(key.0.clone()).or_insert(Seen {
            news: None,
            missing_since: pace.began,
        });
        let Some(value) = value else {
            let missing = pace.began.saturating_duration_since(seen.missing_since);
            return if missing > fresh {
                Err(Trouble::Stale)
            } else {
                Ok(None)
            };
        };
        let read = value::read(value, asked).ok_or(Trouble::Garbage)?;
        seen.missing_since = pace.began;
        // The store's clock was read after ours: the age is overstated by that, never understated.
        let age = Duration::from_millis(clock.checked_sub(read.stamp).ok_or(Trouble::Garbage)?);
        if age > fresh {
            return Err(Trouble::Stale);
        }
        let began = pace.began.into_std();
        let taken_at = match seen.news {
            // No news: it keeps the time that it had.
            Some((stamp, taken_at)) if stamp == read.stamp => taken_at,
            _ => began.checked_sub(age).ok_or(Trouble::Garbage)?,
        };
        seen.news = Some((read.stamp, taken_at));
        Ok(Some(Found {
            group: Arc::clone(&asked.group),
            standing: read.standing,
            taken_at,
            origin: Origin::Shared,
            topics: read.topics,
        }))
    }

    async fn publish(&mut self, publications: &[Publication], pace: Pace) -> Result<(), Trouble> {
        if publications.is_empty() {
            return Ok(());
        }
        for one in publications {
            self.unheard.remove(&one.key.0);
        }
        let lives = pace.refresh.max(Duration::from_secs(1)) * VALUE_REFRESHES;
        let lives = lives.max(fresh(pace));
        let publish = self.store.publish(publications, &self.owner, lives);
        match timeout(patience(pace), publish).await {
            Ok(Ok(())) => {
                self.failing = None;
                Ok(())
            }
            Ok(Err(trouble)) => Err(self.fail(trouble, pace)),
            Err(_) => Err(self.fail(Trouble::Slow, pace)),
        }
    }

    /// Lengthens the rest of a store that fails.
    fn fail(&mut self, trouble: Trouble, pace: Pace) -> Trouble {
        let times = self.failing.map_or(0, |failing| failing.times);
        let rest = pace.refresh.saturating_mul(1 << times.min(10));
        self.failing = Some(Failing {
            trouble,
            times: times.saturating_add(1),
            until: Instant::now() + rest.min(REST_MAX),
        });
        trouble
    }
}

/// How long a lease lives without being renewed.
fn lease(pace: Pace) -> Duration {
    pace.refresh.max(Duration::from_secs(1)) * LEASE_REFRESHES
}

/// How old shared figures may be. When a holder publishes them they are as old as its look was long,
/// and they stand until the next one is over.
fn fresh(pace: Pace) -> Duration {
    let look = pace.deadline.saturating_duration_since(pace.began);
    lease(pace) + 2 * look
}

fn patience(pace: Pace) -> Duration {
    PATIENCE.min(pace.refresh / 4)
}

/// What a process that holds the lease has to say. What it could not hear itself, or may not see,
/// others may.
fn publication(key: Key, token: u64, found: &Found) -> Option<Publication> {
    let body = value::write(found)?;
    let now = Instant::now().into_std();
    Some(Publication {
        key,
        token,
        age: now.saturating_duration_since(found.taken_at),
        body,
    })
}

fn key(cluster: &str, asked: &Asked, refresh: Duration) -> Key {
    let refresh = refresh.as_millis().to_string();
    let topics = asked.topics.iter().map(|topic| &**topic);
    // FNV-1a: it must be the same in every process and version.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in topics.chain([&*refresh]) {
        for byte in word.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let group = &asked.group;
    Key(format!("ottla:lag:1:{{{cluster}}}/{group}:{hash:016x}"))
}
