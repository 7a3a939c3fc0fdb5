//! The plan: what the lag collector found, published by one atomic store and read without a lock.

use crate::drain::{Age, Drain, Lanes};
use crate::explain::{Counters, Explanation, Fallback, Method, PartitionHealth, TopicCounters};
use crate::keys::{KeyOffsets, KeyPolicy, Outlook, TopicKeys};
use crate::same_name;
use crate::tally::Tally;
use crate::weights::Weights;
use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this many missed refreshes the backlog is dropped and the rates stay. The study: falling
/// back to a uniform choice instead costs 133 s of p99 where keeping the rates costs 3.5 s.
const STALE_REFRESHES: u32 = 3;

/// A plan older than this (or than four refreshes, if that is longer) steers nothing any more.
const TOO_OLD: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) enum Choice {
    Drain(Lanes),
    Weighted(Weights),
    Uniform(Fallback),
}

/// One topic's part of a plan.
#[derive(Debug)]
pub struct TopicPlan {
    topic: Arc<str>,
    /// A topic made anew under the same name has another one.
    id: Option<[u8; 16]>,
    taken_at: Instant,
    /// Its backlog says nothing any more when it is older than this, in seconds.
    stale_after: f32,
    /// It says nothing at all when it is older than this, in seconds.
    too_old_after: f32,
    choice: Choice,
    health: Vec<PartitionHealth>,
    offsets: Vec<KeyOffsets>,
    outlook: Outlook,
    tally: Arc<Tally>,
    keys: Arc<TopicKeys>,
}

impl TopicPlan {
    fn new(
        topic: Arc<str>,
        taken_at: Instant,
        refresh: Duration,
        partition_count: usize,
        choice: Choice,
    ) -> Self {
        Self {
            topic,
            id: None,
            taken_at,
            stale_after: seconds(refresh.saturating_mul(STALE_REFRESHES)),
            too_old_after: seconds(TOO_OLD.max(refresh.saturating_mul(STALE_REFRESHES + 1))),
            choice,
            health: Vec::new(),
            offsets: Vec::new(),
            outlook: Outlook::default(),
            tally: Arc::new(Tally::new(partition_count)),
            keys: Arc::new(TopicKeys::new(partition_count)),
        }
        .with_outlook()
    }

    /// Works out anew what those who place keys go by.
    fn with_outlook(mut self) -> Self {
        let method = self.method();
        let by_weight = method == Method::Weighted;
        let is_denied = method == Method::Uniform(Fallback::Denied);
        self.outlook = Outlook::new(&self.health, &self.offsets, by_weight, is_denied);
        self
    }

    /// Places records by drain time. `taken_at` is when the figures were asked for and `refresh`
    /// how often they are renewed. Without any rate the choice is uniform.
    pub fn drain(topic: Arc<str>, taken_at: Instant, refresh: Duration, drain: &Drain) -> Self {
        let choice = Lanes::new(drain).map_or(Choice::Uniform(Fallback::NoRates), Choice::Drain);
        Self::new(topic, taken_at, refresh, drain.partitions.len(), choice)
    }

    /// Places records by given weights, one a partition; one that is not above zero gets none. If
    /// none is left, the choice is uniform.
    pub fn weighted(
        topic: Arc<str>,
        taken_at: Instant,
        refresh: Duration,
        weights: &[f64],
    ) -> Self {
        let choice =
            Weights::new(weights).map_or(Choice::Uniform(Fallback::NoWeights), Choice::Weighted);
        Self::new(topic, taken_at, refresh, weights.len(), choice)
    }

    /// Places records on all of this many partitions alike, and says why.
    pub fn uniform(
        topic: Arc<str>,
        taken_at: Instant,
        refresh: Duration,
        partition_count: usize,
        reason: Fallback,
    ) -> Self {
        let choice = Choice::Uniform(reason);
        Self::new(topic, taken_at, refresh, partition_count, choice)
    }

    /// Adds the figures behind the choice, for people to read.
    #[must_use]
    pub fn with_health(mut self, health: Vec<PartitionHealth>) -> Self {
        self.health = health;
        self.with_outlook()
    }

    /// Adds by partition what moving keys rests on; see [`KeyPolicy::Migrate`].
    #[must_use]
    pub fn with_key_offsets(mut self, offsets: Vec<KeyOffsets>) -> Self {
        self.offsets = offsets;
        self.with_outlook()
    }

    /// Adds the topic's id, where brokers have ids: what is kept of keys ends with a topic, also when
    /// another is made under its name.
    #[must_use]
    pub fn with_topic_id(mut self, id: Option<[u8; 16]>) -> Self {
        self.id = id;
        self
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// By what records are placed.
    pub fn method(&self) -> Method {
        match &self.choice {
            Choice::Drain(_) => Method::Drain,
            Choice::Weighted(_) => Method::Weighted,
            Choice::Uniform(reason) => Method::Uniform(*reason),
        }
    }

    /// When the figures were asked for.
    pub(crate) fn taken_at(&self) -> Instant {
        self.taken_at
    }

    pub(crate) fn choice(&self) -> &Choice {
        &self.choice
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    pub(crate) fn keys(&self) -> &TopicKeys {
        &self.keys
    }

    /// Goes on with what was counted and kept under the topic's last plan.
    fn follow(&mut self, last: &Self) {
        if let (Choice::Drain(lanes), Choice::Drain(was)) = (&self.choice, &last.choice) {
            lanes.make_room_as(was);
        }
        let count = self.tally.partition_count();
        if last.tally.partition_count() >= count {
            self.tally = Arc::clone(&last.tally);
        } else {
            self.tally = Arc::new(Tally::grown_from(&last.tally, count));
        }
        let is_new = self.taken_at > last.taken_at;
        self.outlook.follow(&last.outlook, is_new);
        let is_other = self
            .id
            .is_some_and(|id| last.id.is_some_and(|was| was != id));
        if let (Choice::Drain(lanes), Choice::Drain(was)) = (&mut self.choice, &last.choice)
            && self.taken_at == last.taken_at
            && !is_other
        {
            lanes.follow(was);
        }
        // A topic of which nothing is known just now has neither an id nor partitions here.
        self.id = self.id.or(last.id);
        if last.keys.partition_count() >= count && !is_other {
            self.keys = Arc::clone(&last.keys);
        } else if last.keys.partition_count() > 0 {
            self.keys = Arc::new(last.keys.anew(count));
        }
    }

    /// What stands for a topic of which a plan does not speak, if anything must be kept of it.
    fn absent(&self, policy: KeyPolicy) -> Option<Self> {
        let reason = Choice::Uniform(Fallback::UnknownTopic);
        let topic = Arc::clone(&self.topic);
        self.keys.outlives_plan(policy).then(|| {
            // Commits only grow: what was read stays read.
            Self::new(topic, self.taken_at, Duration::ZERO, 0, reason)
                .with_key_offsets(self.offsets.clone())
        })
    }

    /// How long ago the figures were asked for, in seconds, and what they are still good for; `None`
    /// when that is nothing.
    #[inline]
    pub(crate) fn age(&self, now: Instant) -> Option<(f32, Age)> {
        let age = seconds(now.saturating_duration_since(self.taken_at));
        if age > self.too_old_after {
            return None;
        }
        let kind = if age > self.stale_after {
            Age::Stale
        } else {
            Age::Fresh
        };
        Some((age, kind))
    }
}

/// As one number, which compares in one step; more than 136 years count as that. `as_secs_f32` takes
/// twice as long.
#[inline]
fn seconds(duration: Duration) -> f32 {
    let whole = duration.as_secs().min(u64::from(u32::MAX));
    whole as u32 as f32 + duration.subsec_nanos() as f32 * 1e-9
}

/// The plan of every topic, ascending by name.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    topics: Vec<Arc<TopicPlan>>,
}

impl Plan {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicPlan>> {
        let at = self
            .topics
            .binary_search_by(|t| (*t.topic).cmp(name))
            .ok()?;
        self.topics.get(at)
    }
}

#[derive(Debug, Default)]
struct Shared {
    plan: ArcSwapOption<Plan>,
    /// Changes with the plan, and no two plans ever have the same, nor two readers before their first
    /// plan: a thread that sees a plan before its stamp must not take it for another reader's.
    stamp: AtomicU64,
    fallbacks: [AtomicU64; Fallback::ALL.len()],
    stale_runs: AtomicU64,
    key_policy: Mutex<KeyPolicy>,
    /// Nobody publishes any more.
    is_over: AtomicBool,
    /// In nanoseconds; 0 while nobody has said it.
    refresh: AtomicU64,
}

static NEXT_STAMP: AtomicU64 = AtomicU64::new(1);

/// The topic's plan that a thread went by last: to load a shared pointer costs as much as the rest of
/// a choice does. It stays until the thread goes by another one.
#[derive(Debug)]
struct Recent {
    stamp: u64,
    topic: Arc<TopicPlan>,
}

thread_local! {
    static RECENT: RefCell<Option<Recent>> = const { RefCell::new(None) };
}

/// Makes the two ends of a plan: one publishes, any number read.
pub fn plan_channel() -> (PlanPublisher, PlanReader) {
    let shared = Arc::new(Shared {
        stamp: AtomicU64::new(NEXT_STAMP.fetch_add(1, Ordering::Relaxed)),
        ..Shared::default()
    });
    let publisher = PlanPublisher {
        shared: Arc::clone(&shared),
        replaced: Vec::new(),
    };
    (publisher, PlanReader { shared })
}

/// The end that publishes plans. When it is gone, the last plan ages and the choice becomes uniform;
/// keys stay where they are from then on.
#[derive(Debug)]
pub struct PlanPublisher {
    shared: Arc<Shared>,
    /// Those that a thread may still go by, at most one a thread: they are freed here, and not by
    /// whoever is about to send a record.
    replaced: Vec<Arc<TopicPlan>>,
}

impl PlanPublisher {
    /// Replaces the plan by one atomic store. The keyless records of topics that are not in `topics`
    /// are placed uniformly from now on, and keys that moved stay where they are; if a topic stands
    /// there twice, the first counts.
    pub fn publish(&mut self, mut topics: Vec<TopicPlan>) {
        let old = self.shared.plan.load_full();
        let policy = *self.shared.key_policy.lock();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        topics.dedup_by(|a, b| a.topic == b.topic);
        let find = |name: &str| topics.binary_search_by(|topic| (*topic.topic).cmp(name));
        let known = old.iter().flat_map(|old| &old.topics);
        let absent = known.filter(|last| find(&last.topic).is_err());
        let absent: Vec<TopicPlan> = absent.filter_map(|last| last.absent(policy)).collect();
        topics.extend(absent);
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        for topic in &mut topics {
            if let Some(last) = old.as_deref().and_then(|old| old.topic(&topic.topic)) {
                topic.follow(last);
            }
            topic.keys.note(topic.taken_at, &topic.offsets);
        }
        let topics = topics.into_iter().map(Arc::new).collect();
        self.shared.plan.store(Some(Arc::new(Plan { topics })));
        let stamp = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
        // After the plan: whoever sees the stamp finds that plan or a newer one.
        self.shared.stamp.store(stamp, Ordering::Release);
        if let Some(old) = old {
            self.replaced.extend_from_slice(&old.topics);
        }
        self.replaced.retain(|topic| Arc::strong_count(topic) > 1);
    }

    /// How many keyless records the readers of this plan sent to the topic since it was first
    /// planned.
    pub fn sent(&self, topic: &str) -> u64 {
        let plan = self.shared.plan.load();
        plan.as_deref()
            .and_then(|plan| plan.topic(topic))
            .map_or(0, |topic| topic.tally.records().fold(0, u64::wrapping_add))
    }

    /// Whether anybody still reads what is published.
    pub fn has_readers(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// How the readers of this plan place keyed records, unless they are told otherwise.
    pub fn set_key_policy(&mut self, policy: KeyPolicy) {
        *self.shared.key_policy.lock() = policy;
    }

    /// How often plans will be published.
    pub fn set_refresh(&mut self, refresh: Duration) {
        let nanos = u64::try_from(refresh.as_nanos()).unwrap_or(u64::MAX);
        self.shared.refresh.store(nanos, Ordering::Relaxed);
    }

    /// Another reader.
    pub fn reader(&self) -> PlanReader {
        PlanReader {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for PlanPublisher {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// The end that reads plans. Producers that share it know of each other's sends.
#[derive(Debug, Clone)]
pub struct PlanReader {
    shared: Arc<Shared>,
}

impl PlanReader {
    pub(crate) fn load(&self) -> Guard<Option<Arc<Plan>>> {
        self.shared.plan.load()
    }

    /// Works with the plan of a topic. While neither the plan nor the topic is another than at this
    /// thread's last call, nothing is looked up and nothing shared is written.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        topic: &str,
        work: impl Fn(Result<&TopicPlan, Fallback>) -> R,
    ) -> R {
        let stamp = self.shared.stamp.load(Ordering::Acquire);
        let known = RECENT.try_with(|recent| {
            let recent = recent.try_borrow().ok()?;
            let recent = recent.as_ref()?;
            (recent.stamp == stamp && same_name(&recent.topic.topic, topic))
                .then(|| work(Ok(&recent.topic)))
        });
        match known {
            Ok(Some(result)) => result,
            _ => self.with_found(topic, stamp, work),
        }
    }

    #[inline(never)]
    fn with_found<R>(
        &self,
        topic: &str,
        stamp: u64,
        work: impl Fn(Result<&TopicPlan, Fallback>) -> R,
    ) -> R {
        let found = match self.find(topic, stamp) {
            Ok(found) => found,
            Err(reason) => return work(Err(reason)),
        };
        let result = work(Ok(&found.topic));
        // Without effect while the thread ends, and in a choice within a choice: the work asks for
        // the producer's queues, and whoever answers may choose too.
        let _ = RECENT.try_with(|recent| {
            if let Ok(mut recent) = recent.try_borrow_mut() {
                *recent = Some(found);
            }
        });
        result
    }

    fn find(&self, topic: &str, stamp: u64) -> Result<Recent, Fallback> {
        let plan = self.shared.plan.load();
        let plan = plan.as_deref().ok_or(Fallback::NoPlan)?;
        let topic = plan.topic(topic).ok_or(Fallback::UnknownTopic)?;
        let topic = Arc::clone(topic);
        Ok(Recent { stamp, topic })
    }

    pub(crate) fn count_fallback(&self, reason: Fallback) {
        if let Some(count) = self.shared.fallbacks.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How keyed records are placed, as was said last.
    pub fn key_policy(&self) -> KeyPolicy {
        *self.shared.key_policy.lock()
    }

    /// Whether this is the last plan.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    /// How often plans are published; zero when nobody has said it.
    pub fn refresh(&self) -> Duration {
        Duration::from_nanos(self.shared.refresh.load(Ordering::Relaxed))
    }

    pub(crate) fn set_key_policy(&self, policy: KeyPolicy) {
        *self.shared.key_policy.lock() = policy;
    }

    pub(crate) fn count_stale(&self) {
        self.shared.stale_runs.fetch_add(1, Ordering::Relaxed);
    }

    /// Why the partitions of a topic have their shares; `None` if no plan speaks of it.
    pub fn explain(&self, topic: &str) -> Option<Explanation> {
        let plan = self.load();
        let topic = plan.as_deref()?.topic(topic)?;
        Some(Explanation {
            topic: Arc::clone(&topic.topic),
            taken_at: topic.taken_at,
            method: topic.method(),
            partitions: topic.health.clone(),
            key_policy: self.key_policy(),
            keys_away: topic.keys.away_count(),
        })
    }

    /// What was chosen so far by everyone who reads this plan.
    pub fn counters(&self) -> Counters {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let plan = self.load();
        let topics = plan.as_deref().map_or(&[][..], |plan| &plan.topics);
        let of_topic = |topic: &Arc<TopicPlan>| TopicCounters {
            topic: Arc::clone(&topic.topic),
            taken_at: topic.taken_at,
            runs: topic.tally.runs().collect(),
            records: topic.tally.records().collect(),
            keys_away: topic.keys.away_count(),
            key_moves: topic.keys.moves(),
        };
        Counters {
            topics: topics.iter().map(of_topic).collect(),
            fallbacks: Fallback::ALL
                .into_iter()
                .zip(self.shared.fallbacks.iter().map(load))
                .collect(),
            stale_runs: load(&self.shared.stale_runs),
        }
    }
}

#[cfg(test)]
mod tests;
