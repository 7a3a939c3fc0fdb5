//! What the user holds.

mod builder;

pub use builder::Builder;

use crate::driver::Command;
use crate::shared::{Listener, Rebalance, Shared, now};
use ottla_proto::fetch::{Cursor, FetchedRecord, Pause, Progress, Ready, Start};
use ottla_proto::group::{Committed, GroupMetadata, Identity};
use ottla_proto::{Error, ErrorKind, Result, TopicPartition};
use ottla_wire::Cluster;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How long [`Consumer::close`] may take; Java's default too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads records, and commits how far it is.
///
/// Records come from [`Consumer::next`] or [`Consumer::poll`]. Each call says that the user is done
/// with everything that earlier calls handed out: that is what automatic commits commit, and
/// rebalances happen within these calls, so that no partition is given up while one of its records
/// is being worked on. A user who makes no such call for `max.poll.interval.ms` loses the
/// partitions.
pub struct Consumer {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    stop: watch::Sender<bool>,
    driver: Option<JoinHandle<()>>,
    current: Option<Cursor>,
    /// Partitions whose last records were handed out by the latest call.
    touched: Vec<Arc<Progress>>,
    /// An error that came behind records which went out first.
    stashed: VecDeque<Error>,
    /// It has a membership to keep; otherwise its partitions were given to it by hand.
    is_member: bool,
    /// Who this member was when the user last took records.
    identity: Option<Identity>,
    polls: u64,
    ended: bool,
    /// Behind a lock only so that a consumer can be shared between threads by reference.
    listener: Option<Mutex<Listener>>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.shared.config.group)
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Begins a consumer on this cluster.
    pub fn builder(cluster: Cluster) -> Builder {
        Builder::new(cluster)
    }

    /// The next record; waits for one. `None` when the consumer has failed for good, which the
    /// error before said.
    ///
    /// # Errors
    /// `Corrupt`, with partition and offset, when bytes cannot be believed: the consumer goes no
    /// further in that partition until they are right or the user seeks, and says so again.
    /// The broker's code when a partition or the group is refused for good. `State` when there is
    /// no offset to begin at and `auto.offset.reset` is none. After an error that is not
    /// [`Error::is_fatal`] the other partitions go on.
    ///
    /// Cancel safety: dropping the future loses no record.
    pub async fn next(&mut self) -> Option<Result<FetchedRecord>> {
        self.come_back();
        loop {
            if let Some(item) = self.take() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            self.wait().await;
        }
    }

    /// Up to `max_records` records: what is there, or what comes first within `timeout`. Empty
    /// when nothing came.
    ///
    /// # Errors
    /// As [`Consumer::next`]; `Closed` once the consumer has failed for good. An error that follows
    /// records is told by the next call.
    ///
    /// Cancel safety: dropping the future loses no record.
    pub async fn poll(
        &mut self,
        max_records: usize,
        timeout: Duration,
    ) -> Result<Vec<FetchedRecord>> {
        self.come_back();
        let deadline = Instant::now() + timeout;
        loop {
            let records = self.gather(max_records)?;
            if !records.is_empty() || max_records == 0 {
                return Ok(records);
            }
            if self.ended {
                return Err(Error::new(ErrorKind::Closed, "the consumer has ended"));
            }
            if timeout_at(deadline, self.wait()).await.is_err() {
                return self.gather(max_records);
            }
        }
    }

    fn gather(&mut self, max_records: usize) -> Result<Vec<FetchedRecord>> {
        let mut records = Vec::new();
        while records.len() < max_records {
            match self.take() {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) if records.is_empty() => return Err(error),
                Some(Err(error)) => {
                    self.stashed.push_back(error);
                    break;
                }
                None => break,
            }
        }
        Ok(records)
    }

    /// The user is done with everything that was handed out.
    #[inline]
    fn come_back(&mut self) {
        if let Some(cursor) = &self.current {
            cursor.progress().settle();
        }
        for progress in self.touched.drain(..) {
            progress.settle();
        }
        self.polls += 1;
        self.shared.polls.store(self.polls, Ordering::Release);
    }

    async fn wait(&self) {
        struct Waiting<'a>(&'a Shared);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.store(false, Ordering::Release);
            }
        }
        self.shared.waiting.store(true, Ordering::Release);
        let _waiting = Waiting(&self.shared);
        self.shared.user.notified().await;
    }

    /// The next thing that is there.
    #[inline]
    fn take(&mut self) -> Option<Result<FetchedRecord>> {
        loop {
            if self.shared.attention.load(Ordering::Acquire) {
                self.attend();
            }
            if let Some(error) = self.stashed.pop_front() {
                return Some(Err(error));
            }
            let Some(cursor) = &mut self.current else {
                match self.take_ready()? {
                    Ok(cursor) => self.current = Some(cursor),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match cursor.next_record() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => self.finish_current(),
                Err(error) => {
                    if let Some(cursor) = self.current.take() {
                        self.touched.push(Arc::clone(cursor.progress()));
                        self.shared.fetcher.lock().handle_corrupt(now(), &cursor);
                        self.shared.fetch.notify_one();
                    }
                    return Some(Err(error));
                }
            }
        }
    }

    #[cold]
    fn take_ready(&mut self) -> Option<Result<Cursor>> {
        if self.ended {
            return None;
        }
        let ready = self.shared.fetcher.lock().take(now())?;
        // There is room for more.
        self.shared.fetch.notify_one();
        match ready {
            Ready::Records(cursor) => Some(Ok(cursor)),
            Ready::Fault(error) => Some(Err(error)),
        }
    }

    #[cold]
    fn finish_current(&mut self) {
        if let Some(cursor) = self.current.take() {
            self.touched.push(Arc::clone(cursor.progress()));
            self.shared.fetcher.lock().finish(&cursor);
        }
    }

    /// Looks at what the driver put on the desk. The user has come back, so it is done with what
    /// it is asked to give up.
    #[cold]
    fn attend(&mut self) {
        self.shared.attention.store(false, Ordering::Release);
        let mut desk = self.shared.desk.lock();
        let mut rebalances = std::mem::take(&mut desk.rebalances);
        self.stashed.append(&mut desk.errors);
        self.ended |= desk.ended;
        if let Some(identity) = desk.identity.take() {
            self.identity = Some(identity);
        }
        let wakes_driver = std::mem::take(&mut desk.wants_poll);
        let release = desk.release.take();
        if let Some(partitions) = &release {
            let mut fetcher = self.shared.fetcher.lock();
            let released = partitions.iter().filter_map(|one| fetcher.unassign(one));
            desk.released = Some(released.collect());
        }
        drop(desk);
        if self.ended
            || self
                .current
                .as_ref()
                .is_some_and(|c| c.progress().is_revoked())
        {
            self.current = None;
        }
        let wakes_driver = wakes_driver || release.is_some();
        rebalances.extend(release.map(Rebalance::Revoked));
        for rebalance in &rebalances {
            tracing::info!(group = ?self.shared.config.group, ?rebalance, "the assignment changed");
            if let Some(listener) = &mut self.listener {
                (listener.get_mut())(rebalance);
            }
        }
        if wakes_driver {
            self.shared.group.notify_one();
        }
    }

    /// Commits everything that was handed out.
    ///
    /// # Errors
    /// As [`Consumer::commit_offsets`].
    ///
    /// Cancel safety: the commit is made all the same, or refused.
    pub async fn commit(&self) -> Result<()> {
        let offsets = self.positions();
        self.commit_offsets(offsets).await
    }

    /// On whose behalf a transactional producer commits what this consumer has handed out: the
    /// member as of the latest call that took records, so that a member which lost its partitions
    /// meanwhile is refused.
    ///
    /// # Errors
    /// `State` without a group, and while this member is not in its group.
    pub fn group_metadata(&self) -> Result<GroupMetadata> {
        self.need_group()?;
        let group = self.shared.config.group.clone().unwrap_or_default();
        if !self.is_member {
            return Ok(GroupMetadata::outside(group));
        }
        let joined = self.identity.as_ref().filter(|id| id.generation.is_some());
        let identity = joined.ok_or_else(|| {
            let what = format!("the consumer is not in its group {group} now");
            Error::new(ErrorKind::State, what)
        })?;
        Ok(GroupMetadata {
            group,
            generation: identity.generation,
            member_id: Arc::clone(&identity.member_id),
            instance_id: identity.instance.clone(),
        })
    }

    /// Where each partition stands: behind the last record handed out.
    pub fn positions(&self) -> BTreeMap<TopicPartition, Committed> {
        let fetcher = self.shared.fetcher.lock();
        let position = |progress: &Arc<Progress>| {
            let committed = Committed {
                offset: progress.position()?,
                leader_epoch: progress.leader_epoch(),
                metadata: None,
            };
            Some((progress.partition().clone(), committed))
        };
        fetcher.assignment().filter_map(position).collect()
    }

    /// Commits these offsets; each is the next one to read. Commits are made in the order they are
    /// asked for.
    ///
    /// # Errors
    /// `State` without a group, or for a partition that this member does not read. The broker's
    /// code: REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION and UNKNOWN_MEMBER_ID say that the group
    /// moved on, and another member may read the partitions now. `Timeout` or `Connection` when
    /// the coordinator could not be asked within `default.api.timeout.ms`; the offsets may be
    /// committed then.
    ///
    /// Cancel safety: the commit is made all the same, or refused.
    pub async fn commit_offsets(&self, offsets: BTreeMap<TopicPartition, Committed>) -> Result<()> {
        self.need_group()?;
        self.ask(|reply| Command::Commit { offsets, reply }).await
    }

    /// What the group has committed for these partitions; `None` where it has nothing.
    ///
    /// # Errors
    /// `State` without a group; otherwise as [`Consumer::commit_offsets`].
    ///
    /// Cancel safety: nothing changes.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<Committed>>> {
        self.need_group()?;
        let partitions = partitions.to_vec();
        self.ask(|reply| Command::Committed { partitions, reply })
            .await
    }

    fn need_group(&self) -> Result<()> {
        match self.shared.config.group {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::State, "offsets need a group.id")),
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let closed = || Error::new(ErrorKind::Closed, "the consumer has ended");
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// The offset of the next record of a partition; `None` while it is being looked up, or when
    /// the partition is not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.fetcher.lock().progress(partition)?.position()
    }

    /// The log's end as the latest answer told it; `None` before the first one.
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared
            .fetcher
            .lock()
            .progress(partition)?
            .high_watermark()
    }

    /// How many offsets the position is behind the log's end.
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        let fetcher = self.shared.fetcher.lock();
        let progress = fetcher.progress(partition)?;
        let behind = progress
            .high_watermark()?
            .checked_sub(progress.position()?)?;
        Some(u64::try_from(behind).unwrap_or(0))
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let fetcher = self.shared.fetcher.lock();
        fetcher
            .assignment()
            .map(|progress| progress.partition().clone())
            .collect()
    }

    /// Goes to another place in a partition.
    ///
    /// # Errors
    /// `State` when the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<()> {
        if self.current_is(partition) {
            self.current = None;
        }
        let sought = self.shared.fetcher.lock().seek(partition, to);
        self.shared.fetch.notify_one();
        if sought {
            return Ok(());
        }
        let error = Error::new(
            ErrorKind::State,
            "a partition that is not assigned was sought",
        );
        Err(error.at_partition(partition.clone()))
    }

    /// Hands out nothing more of these partitions until they are resumed. It outlives rebalances,
    /// and partitions that are not assigned now can be paused for later.
    pub fn pause<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            let current = self
                .current
                .take_if(|c| c.progress().partition() == partition);
            let mut fetcher = self.shared.fetcher.lock();
            if let Some(cursor) = current {
                self.touched.push(Arc::clone(cursor.progress()));
                fetcher.put_back(cursor);
            }
            fetcher.pause(partition, Pause::On);
        }
        self.shared.fetch.notify_one();
    }

    /// Undoes [`Consumer::pause`].
    pub fn resume<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        let mut fetcher = self.shared.fetcher.lock();
        for partition in partitions {
            fetcher.pause(partition, Pause::Off);
        }
        drop(fetcher);
        self.shared.fetch.notify_one();
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.fetcher.lock().paused().cloned().collect()
    }

    fn current_is(&self, partition: &TopicPartition) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|cursor| cursor.progress().partition() == partition)
    }

    /// Commits what was handed out, if commits are automatic, and leaves the group. Takes at most
    /// 30 s.
    ///
    /// # Errors
    /// Why the last commit failed; `Timeout`. The consumer is closed all the same.
    ///
    /// Cancel safety: the consumer closes all the same, in the background.
    pub async fn close(mut self) -> Result<()> {
        self.come_back();
        self.stop.send_replace(true);
        let closing = self.ask(|reply| Command::Close { reply });
        let closed = match timeout_at(Instant::now() + CLOSE_TIMEOUT, closing).await {
            Ok(result) => result,
            Err(_) => {
                let message = "the group could not be left in time";
                Err(Error::new(ErrorKind::Timeout, message))
            }
        };
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
        closed
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // After a close the driver is gone. Otherwise it leaves the group by itself.
        if self.driver.is_some() {
            tracing::warn!("a consumer was dropped without close: what it read is not committed");
        }
    }
}
