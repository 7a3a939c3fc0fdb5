//! Who coordinates a group or a transactional id: asked once for all who want to know, remembered
//! until it answers that it is not.

use super::{Class, CoordinatorKind, Inner, closed, merge, pool};
use crate::api::find_coordinator::{self, Request};
use crate::api_key::ApiKey;
use dashmap::DashMap;
use ottla_proto::cluster::Broker;
use ottla_proto::{BrokerId, Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// One key's coordinator. Whoever asks the brokers holds `asking`; the others wait for it.
#[derive(Default)]
struct Entry {
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Option<BrokerId>>,
}

/// By name; grows with the groups and transactional ids that this client uses. A commit, a heartbeat
/// and a look at lag each begin with a look here, a collector's for hundreds of groups: they share
/// no lock, and none of theirs is held across an await.
#[derive(Default)]
pub(super) struct Coordinators {
    groups: DashMap<Arc<str>, Arc<Entry>>,
    transactions: DashMap<Arc<str>, Arc<Entry>>,
}

impl Coordinators {
    fn of_kind(&self, kind: CoordinatorKind) -> &DashMap<Arc<str>, Arc<Entry>> {
        match kind {
            CoordinatorKind::Group => &self.groups,
            CoordinatorKind::Transaction => &self.transactions,
        }
    }

    fn entry(&self, kind: CoordinatorKind, key: &str) -> Arc<Entry> {
        let entries = self.of_kind(kind);
        if let Some(known) = entries.get(key) {
            return Arc::clone(&known);
        }
        Arc::clone(&entries.entry(key.into()).or_default())
    }

    pub(super) fn forget(&self, kind: CoordinatorKind, key: &str, was: BrokerId) {
        let entry = self.of_kind(kind).get(key).map(|entry| Arc::clone(&entry));
        let Some(entry) = entry else {
            return;
        };
        let mut known = entry.known.lock();
        if *known == Some(was) {
            *known = None;
        }
    }
}

pub(super) async fn find(
    inner: &Arc<Inner>,
    kind: CoordinatorKind,
    key: &str,
    deadline: Instant,
) -> Result<BrokerId> {
    let entry = inner.coordinators.entry(kind, key);
    let known = *entry.known.lock();
    if let Some(broker) = known {
        return Ok(broker);
    }
    let mut last = None;
    let search = async {
        let _asking = entry.asking.lock().await;
        // Another caller may have found it meanwhile.
        let known = *entry.known.lock();
        match known {
            Some(broker) => Ok(broker),
            None => {
                let broker = search(inner, kind, key, &mut last).await?;
                *entry.known.lock() = Some(broker);
                Ok(broker)
            }
        }
    };
    let found = tokio::select! {
        biased;
        () = inner.stopped() => return Err(closed()),
        found = tokio::time::timeout_at(deadline, search) => found,
    };
    found.unwrap_or_else(|_| Err(too_late(kind, key, last)))
}

fn too_late(kind: CoordinatorKind, key: &str, last: Option<Error>) -> Error {
    let why = last
        .as_ref()
        .map_or("no answer".to_owned(), Error::to_string);
    let what = format!(
        "no coordinator of {} within its deadline: {why}",
        named(kind, key)
    );
    let error = Error::new(ErrorKind::Timeout, what);
    match last {
        Some(last) => error.caused_by(last),
        None => error,
    }
}

fn named(kind: CoordinatorKind, key: &str) -> String {
    match kind {
        CoordinatorKind::Group => format!("group {key}"),
        CoordinatorKind::Transaction => format!("transactional id {key}"),
    }
}

/// Asks until there is an answer or a final error.
async fn search(
    inner: &Arc<Inner>,
    kind: CoordinatorKind,
    key: &str,
    last: &mut Option<Error>,
) -> Result<BrokerId> {
    let request = Request {
        kind,
        key: key.to_owned(),
    };
    for attempt in 0.. {
        match ask(inner, &request).await {
            Ok(broker) => return Ok(meet(inner, broker)),
            Err(error) if error.is_retriable() => *last = Some(error),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(inner.retry_wait(attempt)).await;
    }
    Err(closed())
}

async fn ask(inner: &Arc<Inner>, request: &Request) -> Result<Broker> {
    let connection = pool::any_connection(inner, Class::Control).await?;
    let answer = find_coordinator::call(&connection, request).await?;
    answer.map_err(|item| {
        let name = named(request.kind, &request.key);
        connection.name(item.into_error(ApiKey::FindCoordinator, &name))
    })
}

/// The coordinator may be a broker that the view does not have yet.
fn meet(inner: &Inner, broker: Broker) -> BrokerId {
    let id = broker.id;
    if !inner.view.load().brokers.contains_key(&id) {
        inner.update(|view| merge::learn(view, &[broker]));
    }
    id
}
