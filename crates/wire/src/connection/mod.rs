//! One connection to one broker: requests are queued without waiting, written in batches, and
//! answered strictly in order.

mod driver;
mod handshake;
mod line;
#[cfg(test)]
mod tests;
mod waiter;

use crate::api_key::ApiKey;
use crate::dial::BoxStream;
use crate::frame::Frame;
use crate::settings::Settings;
use crate::versions::Versions;
use bytes::Bytes;
use driver::Driver;
use line::Line;
use ottla_proto::{BrokerId, Error, ErrorKind, Result, WriteOutcome};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use waiter::Waiter;
pub use waiter::{Asked, OnAnswer};

/// Requests that may wait to be written. It fills when callers submit faster than the broker
/// answers; a further submit is refused, and the caller tries again when an answer came.
const QUEUE_MAX: usize = 1024;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The broker's id; `None` for a bootstrap address.
    pub(crate) broker: Option<BrokerId>,
    /// `host:port`, for error messages.
    pub(crate) address: Arc<str>,
}

impl Peer {
    /// An error that names the broker and the address.
    pub(crate) fn error(&self, kind: ErrorKind, what: &str) -> Error {
        let error = Error::new(kind, format!("the connection to {} {what}", self.address));
        self.name(error)
    }

    fn name(&self, error: Error) -> Error {
        match self.broker {
            Some(broker) => error.at_broker(broker),
            None => error,
        }
    }
}

/// What the handles and the task share.
struct Core {
    peer: Peer,
    line: Mutex<Line>,
    /// Queued or unanswered requests.
    in_flight: AtomicUsize,
    max_in_flight: usize,
    max_idle: Duration,
    request_timeout: Duration,
    open: AtomicBool,
    /// Whether the peer ever gave a proper answer.
    spoken: AtomicBool,
    /// Whether the writer waits for an answer before it goes on.
    writer_waits: AtomicBool,
    window: Notify,
    close_asked: Notify,
    failure: OnceLock<Error>,
    ended: watch::Sender<bool>,
}

impl Core {
    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        self.peer.error(kind, what)
    }

    fn broken(&self, what: &str, cause: io::Error) -> Error {
        self.error(ErrorKind::Connection, &format!("{what}: {cause}"))
            .caused_by(cause)
    }

    fn closed_here(&self) -> Error {
        self.error(ErrorKind::Connection, "was closed by this client")
    }

    /// Keeps the first reason and returns it.
    fn fail(&self, error: Error) -> Error {
        self.open.store(false, Ordering::Release);
        self.failure.get_or_init(|| error).clone()
    }

    /// Why a request that is not itself at fault fails: its connection is lost. On a connection
    /// that never worked the fault is everybody's.
    fn reason(&self) -> Error {
        let Some(error) = self.failure.get() else {
            return self.closed_here();
        };
        let never_worked = !self.spoken.load(Ordering::Relaxed);
        if never_worked || *error.kind() == ErrorKind::Connection {
            return error.clone();
        }
        let text = error.to_string();
        let prefix = self
            .peer
            .broker
            .map_or(String::new(), |id| format!("broker {id}: "));
        let text = text.strip_prefix(&prefix).unwrap_or(&text);
        let lost = Error::new(ErrorKind::Connection, text).caused_by(error.clone());
        self.peer.name(lost)
    }
}

/// A request on its way to the task.
struct Request {
    frame: Frame,
    timeout: Duration,
    waiter: Waiter,
}

struct Handle {
    core: Arc<Core>,
    queue: mpsc::Sender<Request>,
    versions: OnceLock<Versions>,
    client_id: Arc<str>,
}

/// A connection to a broker. Clones share it; it closes when the last one is dropped and every
/// request is answered, when it fails, or when it was idle too long.
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

impl Connection {
    /// Takes a fresh stream and agrees on versions.
    ///
    /// Cancel safety: dropping the future closes the stream.
    pub(crate) async fn open(
        stream: BoxStream,
        peer: Peer,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Self> {
        let connection = Self::start(stream, peer, settings);
        let guard = CloseOnDrop(Some(connection));
        handshake::negotiate(guard.get()?, settings, deadline).await?;
        guard.keep()
    }

    fn start(stream: BoxStream, peer: Peer, settings: &Settings) -> Self {
        let core = Arc::new(Core {
            peer,
            line: Mutex::new(Line::new(Instant::now())),
            in_flight: AtomicUsize::new(0),
            max_in_flight: settings.max_in_flight.max(1),
            max_idle: settings.connections_max_idle,
            request_timeout: settings.request_timeout,
            open: AtomicBool::new(true),
            spoken: AtomicBool::new(false),
            writer_waits: AtomicBool::new(false),
            window: Notify::new(),
            close_asked: Notify::new(),
            failure: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(Driver::new(Arc::clone(&core), receiver).run(stream));
        Self(Arc::new(Handle {
            core,
            queue,
            versions: OnceLock::new(),
            client_id: settings.client_id.as_str().into(),
        }))
    }

    /// The broker at the other end.
    pub fn broker(&self) -> BrokerId {
        self.0.core.peer.broker.unwrap_or(BrokerId(-1))
    }

    /// `host:port` of the other end.
    pub fn address(&self) -> &Arc<str> {
        &self.0.core.peer.address
    }

    /// Whether requests can still be submitted.
    pub fn is_open(&self) -> bool {
        self.0.core.open.load(Ordering::Acquire)
    }

    /// The client id that requests carry.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The default time an answer may take.
    pub fn request_timeout(&self) -> Duration {
        self.0.core.request_timeout
    }

    /// What the broker speaks.
    pub fn versions(&self) -> &Versions {
        static NONE: OnceLock<Versions> = OnceLock::new();
        match self.0.versions.get() {
            Some(versions) => versions,
            None => NONE.get_or_init(Versions::default),
        }
    }

    /// The highest version of an API that both sides speak.
    ///
    /// # Errors
    /// `UnsupportedVersion`, naming the broker, the API and both ranges.
    pub fn version(&self, api: ApiKey, ours: RangeInclusive<i16>) -> Result<i16> {
        let versions = self.versions();
        versions.common(api, &ours).ok_or_else(|| {
            let theirs = versions.range(api).map_or("none".to_owned(), |range| {
                format!("{} to {}", range.start(), range.end())
            });
            let (from, to) = (ours.start(), ours.end());
            let what =
                format!("has no common version of {api}: ours are {from} to {to}, theirs {theirs}");
            self.error(ErrorKind::UnsupportedVersion, &what)
        })
    }

    /// Queues a request; never waits. The future gives the answer after its correlation id.
    ///
    /// `timeout` starts when the request is the oldest unanswered one of the connection. When it
    /// passes, the connection is poisoned: this request fails with `Timeout`, every other one with
    /// `Connection`. A full queue or a closed connection fails the request at once with
    /// `Connection`. Errors of a Produce request say whether it may have been written.
    ///
    /// Cancel safety: dropping the future leaves the request on its way; its answer is read and
    /// thrown away.
    pub fn submit(&self, frame: Frame, timeout: Duration) -> Pending {
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter::channel(frame.api(), sender);
        // A refusal is told to the waiter.
        let _ = self.offer(Request {
            frame,
            timeout,
            waiter,
        });
        Pending(receiver)
    }

    /// As [`Connection::submit`], but calls `on_answer` exactly once, with the request's number: on
    /// the connection's task, which reads nothing further meanwhile, or, when the request is refused
    /// at once, right here before this returns.
    pub fn submit_then(&self, frame: Frame, timeout: Duration, request: u64, on_answer: &OnAnswer) {
        let asked = Asked {
            request,
            version: frame.version(),
            at: Instant::now(),
        };
        let waiter = Waiter::shared(frame.api(), Arc::clone(on_answer), asked);
        // A refusal is told to the waiter.
        let _ = self.offer(Request {
            frame,
            timeout,
            waiter,
        });
    }

    /// Queues a request that the broker does not answer (Produce with acks=0). `on_written` is called
    /// exactly once: with nothing when the system has taken the last byte, or with the error that
    /// says whether any byte may have left.
    pub fn submit_oneway(
        &self,
        frame: Frame,
        on_written: impl FnOnce(Result<Bytes>) + Send + 'static,
    ) {
        let waiter = Waiter::oneway(frame.api(), Box::new(on_written));
        let timeout = self.request_timeout();
        // A refusal is told to the waiter.
        let _ = self.offer(Request {
            frame,
            timeout,
            waiter,
        });
    }

    /// Queues a request, or fails it at once.
    fn offer(&self, request: Request) -> Result<()> {
        let core = &self.0.core;
        let (error, refused) = if self.is_open() {
            core.in_flight.fetch_add(1, Ordering::Relaxed);
            let refused = match self.0.queue.try_send(request) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            core.in_flight.fetch_sub(1, Ordering::Relaxed);
            match refused {
                mpsc::error::TrySendError::Full(request) => {
                    let what = format!("has {QUEUE_MAX} requests waiting already");
                    (self.error(ErrorKind::Connection, &what), request)
                }
                mpsc::error::TrySendError::Closed(request) => (core.reason(), request),
            }
        } else {
            (core.reason(), request)
        };
        refused.waiter.fail(&error, WriteOutcome::NotWritten);
        Err(error)
    }

    /// Requests that are queued or unanswered.
    pub fn in_flight(&self) -> usize {
        self.0.core.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is open and its broker has not asked to be left alone for a while (KIP-219):
    /// otherwise another broker answers sooner.
    pub(crate) fn is_ready(&self) -> bool {
        let muted = || self.0.core.line.lock().muted_until(Instant::now());
        self.is_open() && muted().is_none()
    }

    /// Closes the connection now; what is unanswered fails.
    pub fn close(&self) {
        self.0.core.open.store(false, Ordering::Release);
        self.0.core.close_asked.notify_one();
    }

    /// Waits until the connection is closed and every request on it has failed or been answered.
    ///
    /// Cancel safety: dropping the future loses nothing.
    pub async fn closed(&self) {
        // The sender lives in `core`, which this handle holds.
        let _ = self.0.core.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// An error that names this connection's broker and address.
    pub(crate) fn error(&self, kind: ErrorKind, what: &str) -> Error {
        self.0.core.error(kind, what)
    }

    /// Adds this connection's broker to an error.
    pub(crate) fn name(&self, error: Error) -> Error {
        self.0.core.peer.name(error)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.core.peer)
            .field("open", &self.is_open())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

/// An answer on its way: the whole response after its correlation id.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Bytes>>);

impl Future for Pending {
    type Output = Result<Bytes>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender never goes away silently: see `Waiter`.
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Closed,
                "the connection's task is gone",
            ))
        }))
    }
}

/// Closes a connection whose opening was given up.
struct CloseOnDrop(Option<Connection>);

impl CloseOnDrop {
    fn get(&self) -> Result<&Connection> {
        self.0.as_ref().ok_or_else(gone)
    }

    fn keep(mut self) -> Result<Connection> {
        self.0.take().ok_or_else(gone)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::State, "the connection was given away")
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close();
        }
    }
}
