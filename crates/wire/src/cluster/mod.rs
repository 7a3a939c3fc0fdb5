//! One cluster: its connections by broker and class, its metadata, its coordinators.

mod ask;
mod bootstrap;
mod coordinator;
mod merge;
mod metadata;
mod pool;
#[cfg(test)]
mod tests;
mod watched;

use crate::api::metadata as metadata_api;
use crate::connection::Connection;
use crate::dial::{BoxFuture, Dial};
use crate::retry::Backoff;
use crate::settings::Settings;
use arc_swap::{ArcSwap, Guard};
use coordinator::Coordinators;
use ottla_proto::cluster::{Broker, Topic};
use ottla_proto::producer::LeaderHint;
use ottla_proto::{BrokerId, ClusterView, Error, ErrorKind, Result, TopicId, TopicPartition};
use parking_lot::Mutex;
use pool::Pool;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use watched::{Covered, Watched};

/// What a connection is for. A broker answers one connection strictly in order, so what may wait
/// long stands apart from what may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Produce requests of one producer. Its number is from [`Cluster::lane`]: a producer closes a
    /// connection that a stalled request holds up, and what another one has on it would be lost.
    Produce(u32),
    /// Produce requests of partitions whose followers lag, so that they hold up nobody else.
    ProduceApart(u32),
    /// Fetch requests of one consumer, which wait at the broker. Its number is from
    /// [`Cluster::lane`]: a second consumer's requests would wait behind the first one's.
    Fetch(u32),
    /// The membership of one consumer: a JoinGroup can hold the connection for minutes, and wait for
    /// just the other consumer whose JoinGroup stands behind it.
    Group(u32),
    /// Everything else.
    Control,
}

/// What a coordinator keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinatorKind {
    /// A consumer group's members and offsets.
    Group,
    /// A transactional producer's transactions.
    Transaction,
}

struct Inner {
    lanes: AtomicU32,
    settings: Settings,
    dial: Arc<dyn Dial>,
    view: ArcSwap<ClusterView>,
    /// Held while a new view is made from the old one.
    publishing: Mutex<()>,
    generation: watch::Sender<u64>,
    watched: Mutex<Watched>,
    covered: watch::Sender<Covered>,
    wake: Notify,
    pool: Pool,
    coordinators: Coordinators,
    random: Mutex<fastrand::Rng>,
    stop: watch::Sender<bool>,
}

/// Stops the background task when the last handle goes.
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.send_replace(true);
        self.0.pool.release();
    }
}

/// A connection to a whole cluster. Clones share it; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Cluster(Arc<Handle>);

impl Cluster {
    /// Reaches the cluster: tries every bootstrap address, again and again with backoff, until one
    /// tells the brokers or `api_timeout` passes.
    ///
    /// # Errors
    /// `Config` for a wrong address; `Protocol` at once when nothing at the addresses speaks Kafka;
    /// else `Connection`. The message names every address and why it failed.
    ///
    /// Cancel safety: dropping the future closes what was opened.
    pub async fn connect(settings: Settings, dial: Arc<dyn Dial>) -> Result<Cluster> {
        let addresses = settings.addresses()?;
        let mut random = fastrand::Rng::with_seed(settings.seed);
        let answer = bootstrap::connect(&settings, &dial, addresses, &mut random).await?;
        let mut doubts = merge::Doubts::default();
        let view = merge::merge(&ClusterView::default(), &answer, |_| true, &mut doubts);
        let view = ClusterView {
            generation: 1,
            ..view
        };
        let inner = Arc::new(Inner {
            lanes: AtomicU32::new(0),
            pool: Pool::new(random.fork()),
            settings,
            dial,
            view: ArcSwap::from_pointee(view),
            publishing: Mutex::new(()),
            generation: watch::Sender::new(1),
            watched: Mutex::new(Watched::default()),
            covered: watch::Sender::new(Covered::default()),
            wake: Notify::new(),
            coordinators: Coordinators::default(),
            random: Mutex::new(random),
            stop: watch::Sender::new(false),
        });
        tokio::spawn(metadata::Task::new(Arc::clone(&inner)).run());
        Ok(Self(Arc::new(Handle(inner))))
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    /// What the cluster was connected with.
    pub fn settings(&self) -> &Settings {
        &self.inner().settings
    }

    /// The cluster as last seen.
    pub fn view(&self) -> Arc<ClusterView> {
        self.inner().view.load_full()
    }

    /// The cluster as last seen, without counting a reference: for the hot path.
    pub fn view_guard(&self) -> Guard<Arc<ClusterView>> {
        self.inner().view.load()
    }

    /// Gives the view's generation, and again whenever it changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner().generation.subscribe()
    }

    /// The topic, as soon as the cluster knows it; from then on it is watched, until
    /// [`Cluster::unwatch_topic`].
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, naming the topic, when it is still unknown at the deadline (it may
    /// be made meanwhile); the broker's code at once when the name is invalid or reading it is
    /// forbidden; `Timeout` when no broker answered; `Closed`.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn topic(&self, name: &str, deadline: Instant) -> Result<Arc<Topic>> {
        watched::await_topic(self.inner(), name, deadline).await
    }

    /// Keeps these topics in the view. Each call counts once for [`Cluster::unwatch_topic`].
    pub fn watch_topics(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut watched = self.inner().watched.lock();
        for name in names {
            watched.watch(&name);
        }
        drop(watched);
        self.inner().wake.notify_one();
    }

    /// Undoes one [`Cluster::watch_topics`], the last one also every [`Cluster::topic`] of that
    /// name: then the topic leaves the view with the next refresh.
    pub fn unwatch_topic(&self, name: &str) {
        self.inner().watched.lock().unwatch(name);
    }

    /// An error showed that the view of that generation is old: it is refreshed soon. Calls are
    /// coalesced and backed off; a newer view makes them void.
    pub fn mark_stale(&self, generation: u64) {
        self.inner().mark_stale(generation);
    }

    /// Takes over a new leader that a broker named (KIP-951), if its epoch is newer than ours. With an
    /// id it is of that topic: of one that was made anew meanwhile it says nothing.
    pub fn apply_leader(
        &self,
        partition: &TopicPartition,
        topic_id: Option<TopicId>,
        hint: LeaderHint,
    ) {
        self.inner()
            .update(|view| merge::apply_leader(view, partition, topic_id, hint));
    }

    /// Takes over the addresses of brokers that an answer named (KIP-951).
    pub fn learn_brokers(&self, brokers: &[Broker]) {
        self.inner().update(|view| merge::learn(view, brokers));
    }

    /// Asks about the watched topics now and gives the view afterwards.
    ///
    /// # Errors
    /// Why the brokers could not be asked; `Closed`.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn refresh(&self) -> Result<Arc<ClusterView>> {
        watched::await_refresh(self.inner()).await?;
        Ok(self.view())
    }

    /// A view of every topic of the cluster, for listing; it is not kept.
    ///
    /// # Errors
    /// Why the brokers could not be asked.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn all_topics(&self) -> Result<Arc<ClusterView>> {
        let answer = self.ask(|connection| {
            let request = metadata_api::Request {
                topics: metadata_api::Topics::All,
                allow_auto_create: false,
            };
            Box::pin(async move { metadata_api::call(&connection, &request).await })
        });
        let answer = answer.await?;
        let mut doubts = merge::Doubts::default();
        let view = merge::merge(&ClusterView::default(), &answer, |_| true, &mut doubts);
        Ok(Arc::new(view))
    }

    /// The connection to a broker for this class, made if there is none. After a failure the next
    /// attempt waits out a jittered backoff; one attempt may take `connect_timeout`.
    ///
    /// # Errors
    /// `Connection`, `Timeout`, `Protocol` or `UnsupportedVersion` of the attempt, naming the broker
    /// and its address; `Connection` for a broker the cluster does not have; `Closed`.
    ///
    /// Cancel safety: the attempt goes on for the next caller.
    pub async fn connection(&self, broker: BrokerId, class: Class) -> Result<Connection> {
        pool::connection(self.inner(), broker, class).await
    }

    /// A number for connections of one's own: see [`Class::Fetch`]. No two callers get the same.
    pub fn lane(&self) -> u32 {
        self.inner().lanes.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives up the connections of a class; each closes when its last holder lets go.
    pub fn release(&self, class: Class) {
        self.inner().pool.release_class(class);
    }

    /// A connection to any broker, rather one that is open already.
    ///
    /// # Errors
    /// As [`Cluster::connection`], of the last broker tried.
    ///
    /// Cancel safety: as [`Cluster::connection`].
    pub async fn any_connection(&self, class: Class) -> Result<Connection> {
        pool::any_connection(self.inner(), class).await
    }

    /// Asks any broker: the next one when a connection breaks or an answer is slow, again and again
    /// until one answers or `api_timeout` has passed. For questions; see [`Cluster::change`].
    ///
    /// # Errors
    /// The last broker's `Connection` or `Timeout` when none answered; any other error of `call` at
    /// once; `Closed`.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn ask<T: Send>(
        &self,
        call: impl Fn(Connection) -> BoxFuture<'static, Result<T>> + Send + Sync,
    ) -> Result<T> {
        ask::ask(self.inner(), &call).await
    }

    /// Has any broker make a change: one at a time, the controller first, the next one when a
    /// connection breaks, until `api_timeout` has passed. The flag says that the answer of an earlier
    /// attempt was lost, so that the change may be that attempt's.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    ///
    /// Cancel safety: the change may or may not be made.
    pub async fn change<T: Send>(
        &self,
        call: impl Fn(Connection) -> BoxFuture<'static, Result<T>> + Send + Sync,
    ) -> Result<(T, bool)> {
        ask::change(self.inner(), &call).await
    }

    /// The broker that coordinates a group or a transactional id; remembered until
    /// [`Cluster::forget_coordinator`].
    ///
    /// # Errors
    /// The broker's code at once when it is final (no permission, an invalid id); `Timeout`, naming
    /// the last reason, at the deadline; `Closed`.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn coordinator(
        &self,
        kind: CoordinatorKind,
        key: &str,
        deadline: Instant,
    ) -> Result<BrokerId> {
        coordinator::find(self.inner(), kind, key, deadline).await
    }

    /// Forgets a coordinator that answered NOT_COORDINATOR or is gone, unless another one is known
    /// by now.
    pub fn forget_coordinator(&self, kind: CoordinatorKind, key: &str, was: BrokerId) {
        self.inner().coordinators.forget(kind, key, was);
    }

    /// Waits until somebody [closes](Self::close) it.
    ///
    /// Cancel safety: safe.
    pub async fn closed(&self) {
        self.inner().stopped().await;
    }

    /// Closes every connection; what is unanswered fails, and so does every later call.
    ///
    /// Cancel safety: the connections close all the same.
    pub async fn close(&self) {
        self.inner().stop.send_replace(true);
        for connection in self.inner().pool.close() {
            connection.closed().await;
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view_guard();
        f.debug_struct("Cluster")
            .field("bootstrap", &self.settings().bootstrap)
            .field("generation", &view.generation)
            .field("brokers", &view.brokers.len())
            .finish()
    }
}

/// How long a broker may take before another one is asked beside it.
const PATIENCE: Duration = Duration::from_secs(1);

impl Inner {
    /// Makes a new view from the current one and publishes it, if it is another.
    fn update(&self, make: impl FnOnce(&ClusterView) -> Option<ClusterView>) -> bool {
        let _publishing = self.publishing.lock();
        let current = self.view.load_full();
        let Some(next) = make(&current) else {
            return false;
        };
        let generation = current.generation + 1;
        self.view
            .store(Arc::new(ClusterView { generation, ..next }));
        self.generation.send_replace(generation);
        true
    }

    fn mark_stale(&self, generation: u64) {
        if self.view.load().generation > generation {
            return;
        }
        if self.watched.lock().mark_stale() {
            self.wake.notify_one();
        }
    }

    fn random(&self) -> u64 {
        self.random.lock().u64(..)
    }

    fn retry_wait(&self, attempt: u32) -> Duration {
        let backoff = Backoff {
            first: self.settings.retry_backoff,
            ceiling: self.settings.retry_backoff_max,
        };
        backoff.wait(attempt, self.random())
    }

    /// The brokers in a random order.
    fn shuffled_brokers(&self) -> Vec<BrokerId> {
        let mut brokers: Vec<BrokerId> = self.view.load().brokers.keys().copied().collect();
        self.random.lock().shuffle(&mut brokers);
        brokers
    }

    /// The same, those first that answer soonest.
    fn brokers_soonest_first(&self) -> Vec<BrokerId> {
        let mut brokers = self.shuffled_brokers();
        brokers.sort_by_key(|broker| self.pool.turn(*broker, Class::Control));
        brokers
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    async fn stopped(&self) {
        // The sender is a field of `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed")
}

fn no_brokers() -> Error {
    let what = "the cluster has no broker that we know";
    Error::new(ErrorKind::Connection, what)
}
