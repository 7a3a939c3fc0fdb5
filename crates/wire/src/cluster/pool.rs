//! At most one connection a broker and class, made once for all who want it.

use super::{Class, Inner, PATIENCE, bootstrap, closed, no_brokers};
use crate::connection::{Connection, Peer};
use crate::hedge::{Attempt, hedge};
use crate::retry::Backoff;
use ottla_proto::cluster::Broker;
use ottla_proto::{BrokerId, Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

type Outcome = Option<Result<Connection>>;

enum Slot {
    Open {
        connection: Connection,
        since: Instant,
    },
    Dialling(watch::Receiver<Outcome>),
}

/// The order in which brokers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Connected,
    Unconnected,
    Muted,
}

/// How dialling a broker went lately.
#[derive(Clone, Copy)]
struct Health {
    failures: u32,
    not_before: Instant,
}

struct State {
    slots: BTreeMap<(BrokerId, Class), Slot>,
    health: BTreeMap<BrokerId, Health>,
    random: fastrand::Rng,
}

pub(super) struct Pool(Mutex<State>);

impl Pool {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self(Mutex::new(State {
            slots: BTreeMap::new(),
            health: BTreeMap::new(),
            random,
        }))
    }

    /// Who is asked first: brokers that are connected answer at once; those that want to be left
    /// alone for a while answer last.
    pub(super) fn turn(&self, broker: BrokerId, class: Class) -> Turn {
        let state = self.0.lock();
        match state.slots.get(&(broker, class)) {
            Some(Slot::Open { connection, .. }) if connection.is_ready() => Turn::Connected,
            Some(Slot::Open { connection, .. }) if connection.is_open() => Turn::Muted,
            _ => Turn::Unconnected,
        }
    }

    /// Gives every connection up; those in use elsewhere live on.
    pub(super) fn release(&self) {
        // Dropped outside the lock.
        let slots = std::mem::take(&mut self.0.lock().slots);
        drop(slots);
    }

    /// Gives up the connections of a class, also those that are being made; those in use elsewhere
    /// live on.
    pub(super) fn release_class(&self, class: Class) {
        let mut state = self.0.lock();
        let slots = std::mem::take(&mut state.slots);
        let (mine, others): (BTreeMap<_, _>, _) =
            slots.into_iter().partition(|((_, of), _)| *of == class);
        state.slots = others;
        // Dropped outside the lock.
        drop(state);
        drop(mine);
    }

    /// Closes every connection.
    pub(super) fn close(&self) -> Vec<Connection> {
        let slots = std::mem::take(&mut self.0.lock().slots);
        let open = slots.into_values().filter_map(|slot| match slot {
            Slot::Open { connection, .. } => Some(connection),
            Slot::Dialling(_) => None,
        });
        let open: Vec<Connection> = open.collect();
        open.iter().for_each(Connection::close);
        open
    }

    /// The open connection of this class with the fewest requests on it.
    fn least_busy(&self, class: Class) -> Option<Connection> {
        let state = self.0.lock();
        let open = state.slots.iter().filter_map(|((_, of), slot)| match slot {
            Slot::Open { connection, .. } if *of == class && connection.is_ready() => {
                Some(connection)
            }
            _ => None,
        });
        open.min_by_key(|connection| connection.in_flight())
            .cloned()
    }
}

/// The connection to a broker, made if there is none.
pub(super) async fn connection(
    inner: &Arc<Inner>,
    broker: BrokerId,
    class: Class,
) -> Result<Connection> {
    if inner.is_stopped() {
        return Err(closed());
    }
    let mut outcome = match find_or_dial(inner, broker, class) {
        Found::Open(connection) => return Ok(connection),
        Found::Dialling(outcome) => outcome,
    };
    let ended = outcome
        .wait_for(Option::is_some)
        .await
        .map(|outcome| outcome.clone());
    match ended {
        Ok(Some(outcome)) => outcome,
        // The runtime stopped the attempt.
        Ok(None) | Err(_) => Err(closed()),
    }
}

/// A connection to any broker, rather one that is open.
pub(super) async fn any_connection(inner: &Arc<Inner>, class: Class) -> Result<Connection> {
    if let Some(connection) = inner.pool.least_busy(class) {
        return Ok(connection);
    }
    let mut attempts: Vec<Attempt<'_, Connection, Error>> = Vec::new();
    for broker in inner.shuffled_brokers() {
        attempts.push(Box::pin(connection(inner, broker, class)));
    }
    let mut failures = Vec::new();
    let found = hedge(attempts, PATIENCE, &mut failures).await;
    found.ok_or_else(|| failures.pop().unwrap_or_else(no_brokers))
}

enum Found {
    Open(Connection),
    Dialling(watch::Receiver<Outcome>),
}

fn find_or_dial(inner: &Arc<Inner>, broker: BrokerId, class: Class) -> Found {
    let now = Instant::now();
    let mut state = inner.pool.0.lock();
    let settings = &inner.settings;
    let backoff = Backoff {
        first: settings.reconnect_backoff,
        ceiling: settings.reconnect_backoff_max,
    };
    match state.slots.get(&(broker, class)) {
        Some(Slot::Open { connection, .. })
            if connection.is_open() && is_address_of(inner, broker, connection) =>
        {
            return Found::Open(connection.clone());
        }
        // A sender that is gone without an outcome was stopped with its runtime.
        Some(Slot::Dialling(outcome)) if outcome.has_changed().is_ok() => {
            return Found::Dialling(outcome.clone());
        }
        Some(Slot::Open { connection, since }) => {
            // One that broke as soon as it was made counts as a failure, or we would storm.
            let lived = now.saturating_duration_since(*since);
            let broke = !connection.is_open() && lived < settings.reconnect_backoff_max;
            match broke {
                true => state.failed(broker, now, backoff),
                false => state.forgive(broker),
            }
        }
        _ => {}
    }
    state.prune();
    let (sender, outcome) = watch::channel(None);
    state
        .slots
        .insert((broker, class), Slot::Dialling(outcome.clone()));
    let not_before = state
        .health
        .get(&broker)
        .map_or(now, |health| health.not_before);
    drop(state);
    tokio::spawn(dial(Arc::clone(inner), broker, class, not_before, sender));
    Found::Dialling(outcome)
}

/// Brokers move; a connection to an old address is left to those who still use it.
fn is_address_of(inner: &Inner, broker: BrokerId, connection: &Connection) -> bool {
    let view = inner.view.load();
    view.brokers
        .get(&broker)
        .is_some_and(|broker| *address(broker) == **connection.address())
}

fn address(broker: &Broker) -> String {
    match broker.host.contains(':') {
        true => format!("[{}]:{}", broker.host, broker.port),
        false => format!("{}:{}", broker.host, broker.port),
    }
}

impl State {
    fn failed(&mut self, broker: BrokerId, now: Instant, backoff: Backoff) {
        let failures = self.health.get(&broker).map_or(0, |health| health.failures);
        let wait = backoff.wait(failures, self.random.u64(..));
        let health = Health {
            failures: failures.saturating_add(1),
            not_before: now + wait,
        };
        self.health.insert(broker, health);
    }

    fn forgive(&mut self, broker: BrokerId) {
        self.health.remove(&broker);
    }

    /// Whether this attempt is still the one that makes the connection.
    fn is_dialling(&self, broker: BrokerId, class: Class, own: &watch::Sender<Outcome>) -> bool {
        let slot = self.slots.get(&(broker, class));
        matches!(slot, Some(Slot::Dialling(outcome)) if outcome.same_channel(&own.subscribe()))
    }

    /// Drops what has closed, so that slots of brokers that left do not pile up.
    fn prune(&mut self) {
        self.slots.retain(|_, slot| match slot {
            Slot::Open { connection, .. } => connection.is_open(),
            Slot::Dialling(outcome) => outcome.has_changed().is_ok(),
        });
    }
}

/// One attempt, after the backoff, for all who wait.
async fn dial(
    inner: Arc<Inner>,
    broker: BrokerId,
    class: Class,
    not_before: Instant,
    sender: watch::Sender<Outcome>,
) {
    let outcome = tokio::select! {
        biased;
        () = inner.stopped() => Err(closed()),
        outcome = attempt(&inner, broker, not_before) => outcome,
    };
    let now = Instant::now();
    let mut state = inner.pool.0.lock();
    // Under the pool's lock, so that closing the pool either sees the connection or is seen here.
    let outcome = outcome.and_then(|connection| match inner.is_stopped() {
        false => Ok(connection),
        true => {
            connection.close();
            Err(closed())
        }
    });
    // Given up meanwhile, it is for those alone who wait for this attempt.
    let is_wanted = state.is_dialling(broker, class, &sender);
    match &outcome {
        Ok(connection) if is_wanted => {
            let slot = Slot::Open {
                connection: connection.clone(),
                since: now,
            };
            state.slots.insert((broker, class), slot);
        }
        Ok(_) => {}
        Err(_) => {
            if is_wanted {
                state.slots.remove(&(broker, class));
            }
            let backoff = Backoff {
                first: inner.settings.reconnect_backoff,
                ceiling: inner.settings.reconnect_backoff_max,
            };
            state.failed(broker, now, backoff);
        }
    }
    drop(state);
    if let Err(error) = &outcome {
        tracing::debug!(%broker, %error, "no connection");
        // The broker may have moved, or be gone.
        inner.mark_stale(inner.view.load().generation);
    }
    sender.send_replace(Some(outcome));
}

async fn attempt(inner: &Inner, id: BrokerId, not_before: Instant) -> Result<Connection> {
    tokio::time::sleep_until(not_before).await;
    // Looked up after the wait: the address may be a new one by now.
    let broker = inner.view.load().brokers.get(&id).cloned();
    let broker = broker.ok_or_else(|| {
        let what = "the cluster has no such broker now";
        Error::new(ErrorKind::Connection, what).at_broker(id)
    })?;
    let peer = Peer {
        broker: Some(id),
        address: address(&broker).into(),
    };
    bootstrap::open(
        &inner.settings,
        &inner.dial,
        &broker.host,
        broker.port,
        peer,
    )
    .await
}
