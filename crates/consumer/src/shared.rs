//! What the user's side and the two tasks share.

use crate::config::Config;
use crate::lanes::Lanes;
use ottla_proto::fetch::{FetchConfig, Fetcher, Progress};
use ottla_proto::group::Identity;
use ottla_proto::{Error, TopicPartition};
use ottla_wire::Cluster;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// Errors that wait for the user; when the user does not come, further ones are dropped, as they
/// say the same.
const ERRORS_MAX: usize = 16;

/// A change of what this member reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// These partitions are read from now on.
    Assigned(Vec<TopicPartition>),
    /// These are no longer read. Everything that was handed out of them had been handed out before
    /// the call in which this is told; with automatic commits it is committed next.
    Revoked(Vec<TopicPartition>),
    /// These were taken away without warning: other members may read them already.
    Lost(Vec<TopicPartition>),
}

/// Who is told of rebalances.
pub(crate) type Listener = Box<dyn FnMut(&Rebalance) + Send>;

/// The time, as the runtime counts it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
    pub(crate) lanes: Lanes,
    pub(crate) fetcher: Mutex<Fetcher>,
    pub(crate) desk: Mutex<Desk>,
    /// Something is on the desk: the user looks there before taking the next record.
    pub(crate) attention: AtomicBool,
    /// Counts the user's calls.
    pub(crate) polls: AtomicU64,
    /// The user is waiting for records.
    pub(crate) waiting: AtomicBool,
    /// Wakes the user.
    pub(crate) user: Notify,
    /// Wakes the fetching task.
    pub(crate) fetch: Notify,
    /// Wakes the driver.
    pub(crate) group: Notify,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody else uses them: they would stay open until they are idle long enough.
        self.cluster.release(self.lanes.fetch);
        self.cluster.release(self.lanes.group);
    }
}

/// What the driver and the user hand each other.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The user shall be done with these partitions.
    pub(crate) release: Option<Vec<TopicPartition>>,
    /// The user is.
    pub(crate) released: Option<Vec<Arc<Progress>>>,
    /// To be told. Bounded: a rebalance waits for the user, and a user who does not come is out of
    /// the group after `max.poll.interval.ms`.
    pub(crate) rebalances: VecDeque<Rebalance>,
    /// To be told, bounded by [`ERRORS_MAX`].
    pub(crate) errors: VecDeque<Error>,
    /// Who this member is since the rebalances above.
    pub(crate) identity: Option<Identity>,
    /// The driver wants to hear of the next call.
    pub(crate) wants_poll: bool,
    /// Nothing follows: the membership failed, or the consumer was closed.
    pub(crate) ended: bool,
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, config: Config) -> Self {
        let settings = cluster.settings();
        let fetcher = Fetcher::new(FetchConfig {
            max_bytes: config.fetch_max_bytes,
            partition_max_bytes: config.partition_max_bytes,
            buffer_max_bytes: config.buffer_max_bytes,
            isolation: config.isolation,
            reset: config.auto_offset_reset,
            check_crcs: config.check_crcs,
            inflated_max_bytes: config.inflated_max_bytes,
            retry_backoff: settings.retry_backoff,
            retry_backoff_max: settings.retry_backoff_max,
            seed: settings.seed,
        });
        Self {
            lanes: Lanes::new(&cluster),
            cluster,
            config,
            fetcher: Mutex::new(fetcher),
            desk: Mutex::new(Desk::default()),
            attention: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            user: Notify::new(),
            fetch: Notify::new(),
            group: Notify::new(),
        }
    }

    /// Puts something on the desk and has the user look.
    pub(crate) fn tell(&self, put: impl FnOnce(&mut Desk)) {
        put(&mut self.desk.lock());
        self.attention.store(true, Ordering::Release);
        self.user.notify_one();
    }

    pub(crate) fn tell_error(&self, error: Error) {
        self.tell(|desk| {
            if desk.errors.len() < ERRORS_MAX {
                desk.errors.push_back(error);
            }
        });
    }
}
