//! The task that keeps the view fresh: on error, when a topic is new, while something is unsettled,
//! and when it grows old.

use super::merge::{self, Doubts};
use super::watched::{Covered, Round};
use super::{Class, Inner, PATIENCE, bootstrap, pool};
use crate::api::metadata::{self, Request, Response, Topics};
use crate::hedge::{Attempt, hedge};
use crate::settings::MetadataRecovery;
use ottla_proto::{BrokerId, Code, Error, ErrorKind, Result};
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct Task {
    inner: Arc<Inner>,
    doubts: Doubts,
    last_ended: Instant,
    last_success: Instant,
    /// When the next refresh may begin for a reason that already made one in vain.
    retry_at: Instant,
    /// Refreshes in a row that failed or settled nothing.
    in_vain: u32,
    last_failed: bool,
    unsettled: bool,
}

impl Task {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let now = Instant::now();
        Self {
            inner,
            doubts: Doubts::default(),
            last_ended: now,
            last_success: now,
            retry_at: now,
            in_vain: 0,
            last_failed: false,
            unsettled: false,
        }
    }

    pub(super) async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = inner.stopped() => return,
                () = inner.wake.notified() => continue,
                () = tokio::time::sleep_until(due) => {}
            }
            let round = inner.watched.lock().begin_round();
            let answer = tokio::select! {
                biased;
                () = inner.stopped() => return,
                answer = self.ask(&round) => answer,
            };
            self.end(&round, answer);
        }
    }

    fn due(&self) -> Instant {
        if self.last_failed {
            return self.retry_at;
        }
        let watched = self.inner.watched.lock();
        if watched.has_wishes() {
            return self.last_ended;
        }
        let old = self.last_success + self.inner.settings.metadata_max_age;
        match watched.is_stale() || self.unsettled {
            true => self.retry_at.min(old),
            false => old,
        }
    }

    async fn ask(&self, round: &Round) -> Result<Response> {
        let request = Request {
            topics: Topics::Named(round.topics.clone()),
            allow_auto_create: self.inner.settings.allow_auto_create_topics,
        };
        let recovers = self.inner.settings.metadata_recovery == MetadataRecovery::Rebootstrap;
        let trigger = self.inner.settings.metadata_recovery_rebootstrap;
        let bootstrap_first = recovers && self.last_success.elapsed() >= trigger;
        let mut failures = Vec::new();
        for bootstrap in [bootstrap_first, !bootstrap_first] {
            let answer = match bootstrap {
                true if recovers => self.ask_bootstrap(&request, &mut failures).await,
                true => None,
                false => self.ask_known(&request, &mut failures).await,
            };
            let unfit = |answer: &Response| answer.code == Some(Code::REBOOTSTRAP_REQUIRED);
            if let Some(answer) = answer.filter(|answer| !(recovers && unfit(answer))) {
                return Ok(answer);
            }
        }
        let why: Vec<String> = failures.iter().map(Error::to_string).collect();
        let what = format!("no broker gave metadata: {}", why.join("; "));
        Err(Error::new(ErrorKind::Connection, what))
    }

    async fn ask_known(&self, request: &Request, failures: &mut Vec<Error>) -> Option<Response> {
        let mut attempts: Vec<Attempt<'_, Response, Error>> = Vec::new();
        for broker in self.inner.brokers_soonest_first() {
            attempts.push(Box::pin(self.ask_one(broker, request)));
        }
        hedge(attempts, PATIENCE, failures).await
    }

    async fn ask_one(&self, broker: BrokerId, request: &Request) -> Result<Response> {
        let connection = pool::connection(&self.inner, broker, Class::Control).await?;
        let answer = metadata::call(&connection, request).await?;
        if answer.brokers.is_empty() && answer.code.is_none() {
            let what = "brought metadata without a broker";
            return Err(connection.error(ErrorKind::Connection, what));
        }
        Ok(answer)
    }

    async fn ask_bootstrap(
        &self,
        request: &Request,
        failures: &mut Vec<Error>,
    ) -> Option<Response> {
        let addresses = match self.inner.settings.addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.push(error);
                return None;
            }
        };
        let (settings, dial) = (&self.inner.settings, &self.inner.dial);
        let mut random = fastrand::Rng::with_seed(self.inner.random());
        bootstrap::ask(settings, dial, &addresses, request, &mut random, failures).await
    }

    /// Takes an answer over and decides when to ask again.
    fn end(&mut self, round: &Round, answer: Result<Response>) {
        let now = Instant::now();
        self.last_ended = now;
        // Said once and its end once: a cluster that is gone may stay so for hours.
        let failed_before = std::mem::replace(&mut self.last_failed, answer.is_err());
        let mut changed = false;
        let error = match answer {
            Ok(answer) => {
                self.last_success = now;
                if failed_before {
                    tracing::info!("metadata is refreshed again");
                }
                changed = self.take(&answer);
                None
            }
            Err(error) => {
                if failed_before {
                    tracing::debug!(%error, "there is still no metadata");
                } else {
                    tracing::warn!(%error, "metadata could not be refreshed");
                }
                Some(error)
            }
        };
        let inner = &self.inner;
        self.unsettled = self.doubts.any() || inner.watched.lock().is_unsettled(&inner.view.load());
        let in_vain = self.last_failed || self.unsettled || (round.because_stale && !changed);
        let attempt = if in_vain { self.in_vain } else { 0 };
        self.in_vain = if in_vain {
            attempt.saturating_add(1)
        } else {
            0
        };
        self.retry_at = now + inner.retry_wait(attempt);
        inner
            .covered
            .send_replace(Covered::new(round.wishes, error));
    }

    fn take(&mut self, answer: &Response) -> bool {
        let inner = Arc::clone(&self.inner);
        let doubts = &mut self.doubts;
        inner.update(|old| {
            let watched = inner.watched.lock();
            let view = merge::merge(old, answer, |name| watched.is_watched(name), doubts);
            merge::differ(old, &view).then_some(view)
        })
    }
}
