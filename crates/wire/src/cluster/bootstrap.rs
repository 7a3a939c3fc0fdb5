//! The way into a cluster: its bootstrap addresses.

use super::PATIENCE;
use crate::api::metadata::{self, Request, Response};
use crate::connection::{Connection, Peer};
use crate::dial::Dial;
use crate::hedge::{Attempt, hedge};
use crate::retry::Backoff;
use crate::settings::Settings;
use ottla_proto::{Error, ErrorKind, Result};
use std::sync::Arc;
use tokio::time::Instant;

/// Tries every address, again and again with backoff, until one tells the brokers.
pub(super) async fn connect(
    settings: &Settings,
    dial: &Arc<dyn Dial>,
    addresses: Vec<(String, u16)>,
    random: &mut fastrand::Rng,
) -> Result<Response> {
    let deadline = Instant::now() + settings.api_timeout;
    let backoff = Backoff {
        first: settings.reconnect_backoff,
        ceiling: settings.reconnect_backoff_max,
    };
    let request = Request {
        topics: metadata::Topics::Named(Vec::new()),
        allow_auto_create: false,
    };
    let mut reasons = Vec::new();
    for attempt in 0.. {
        let mut failures = Vec::new();
        let round = ask(settings, dial, &addresses, &request, random, &mut failures);
        let answer = tokio::time::timeout_at(deadline, round).await;
        if let Ok(Some(answer)) = answer {
            return Ok(answer);
        }
        // A round cut short by the deadline may know less than the one before.
        if failures.len() >= reasons.len() {
            reasons = failures;
        }
        let hopeless = answer.is_ok() && !reasons.iter().any(is_transient);
        let wait = backoff.wait(attempt, random.u64(..));
        if hopeless || Instant::now() + wait >= deadline {
            break;
        }
        tokio::time::sleep(wait).await;
    }
    Err(unreachable(settings, &reasons))
}

/// Asks the addresses, in a random order, until one answers.
pub(super) async fn ask(
    settings: &Settings,
    dial: &Arc<dyn Dial>,
    addresses: &[(String, u16)],
    request: &Request,
    random: &mut fastrand::Rng,
    failures: &mut Vec<Error>,
) -> Option<Response> {
    let mut order: Vec<&(String, u16)> = addresses.iter().collect();
    random.shuffle(&mut order);
    let mut attempts: Vec<Attempt<'_, Response, Error>> = Vec::new();
    for (host, port) in order {
        attempts.push(Box::pin(ask_one(settings, dial, host, *port, request)));
    }
    hedge(attempts, PATIENCE, failures).await
}

async fn ask_one(
    settings: &Settings,
    dial: &Arc<dyn Dial>,
    host: &str,
    port: u16,
    request: &Request,
) -> Result<Response> {
    let peer = Peer {
        broker: None,
        address: format!("{host}:{port}").into(),
    };
    let connection = open(settings, dial, host, port, peer).await?;
    let answer = metadata::call(&connection, request).await?;
    if answer.brokers.is_empty() {
        // A broker that has just started knows none yet.
        let what = "brought metadata without a broker";
        return Err(connection.error(ErrorKind::Connection, what));
    }
    Ok(answer)
}

/// Dials and agrees on versions within `connect_timeout`.
pub(super) async fn open(
    settings: &Settings,
    dial: &Arc<dyn Dial>,
    host: &str,
    port: u16,
    peer: Peer,
) -> Result<Connection> {
    let deadline = Instant::now() + settings.connect_timeout;
    let stream = match tokio::time::timeout_at(deadline, dial.dial(host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let failed = peer.error(ErrorKind::Connection, &format!("failed: {error}"));
            return Err(failed.caused_by(error));
        }
        Err(_) => {
            let what = format!("was not made within {:?}", settings.connect_timeout);
            return Err(peer.error(ErrorKind::Timeout, &what));
        }
    };
    Connection::open(stream, peer, settings, deadline).await
}

fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout) || error.is_retriable()
}

/// One error for all addresses. Its kind is theirs if they agree.
fn unreachable(settings: &Settings, reasons: &[Error]) -> Error {
    let mut kinds = reasons.iter().map(Error::kind);
    let first = kinds.next().cloned().unwrap_or(ErrorKind::Timeout);
    let kind = match kinds.all(|kind| *kind == first) {
        true => first,
        false => ErrorKind::Connection,
    };
    let mut why: Vec<String> = reasons.iter().map(Error::to_string).collect();
    why.sort();
    why.dedup();
    if why.is_empty() {
        why.push(format!("no answer within {:?}", settings.api_timeout));
    }
    let what = format!(
        "no bootstrap address of {} can be used: {}",
        settings.bootstrap.join(","),
        why.join("; ")
    );
    Error::new(kind, what)
}
