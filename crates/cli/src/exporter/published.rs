//! What scrapers get: the last look, written once for all of them.

use super::page;
use super::sight::Sight;
use super::text::Format;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// For how many refreshes a look is fresh, and what was heard of lag, and for how long at least: a look
/// waits some seconds for a broker that hangs.
const FRESH_REFRESHES: u32 = 3;
const FRESH_MIN: Duration = Duration::from_secs(20);

/// For how long the figures of the last good look are still told when no look succeeds.
const TOLD_MAX: Duration = Duration::from_secs(60);

/// Under whose names topics and groups are told.
#[derive(Debug, Clone, Default)]
pub(super) enum Names {
    #[default]
    KafkaExporter,
    LagExporter {
        /// The label `cluster_name`; the cluster's own id unless set.
        cluster_name: Option<Arc<str>>,
    },
}

/// By the runtime's clock, which tests turn.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How the exporter itself does.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    pub(super) names: Names,
    pub(super) refresh: Duration,
    pub(super) looks: u64,
    pub(super) failures: u64,
    /// What the last look took.
    pub(super) took: Option<Duration>,
    /// When the last good look began.
    pub(super) good_at: Option<Instant>,
    /// When lag was last heard of, of any group.
    pub(super) heard_at: Option<Instant>,
    /// Why the last look failed, if it did.
    pub(super) error: Option<Arc<str>>,
}

impl Own {
    fn fresh(&self) -> Duration {
        self.refresh.saturating_mul(FRESH_REFRESHES).max(FRESH_MIN)
    }

    /// What is wrong with the last look, or with what was heard of lag, in one clause.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        let why = || {
            let error = self.error.as_ref();
            error.map_or_else(String::new, |error| format!(": {error}"))
        };
        let Some(at) = self.good_at else {
            return Some(format!("no look at the cluster is over yet{}", why()));
        };
        let too_old = |at: Instant| {
            let age = now.saturating_duration_since(at);
            (age > self.fresh()).then_some(age.as_secs())
        };
        if let Some(seconds) = too_old(at) {
            let what = "the last good look at the cluster was";
            return Some(format!("{what} {seconds} s ago{}", why()));
        }
        let seconds = too_old(self.heard_at.unwrap_or(at))?;
        Some(format!(
            "no group's lag was heard for {seconds} s: coordinators or leaders do not tell it"
        ))
    }
}

/// One state of affairs. What was seen is written when it is first asked for, and by one scraper only.
#[derive(Debug, Default)]
pub(super) struct Published {
    sight: Option<Arc<Sight>>,
    own: Own,
    texts: [OnceLock<Arc<String>>; 2],
}

impl Published {
    pub(super) fn new(sight: Option<Arc<Sight>>, own: Own) -> Self {
        Self {
            sight,
            own,
            texts: Default::default(),
        }
    }

    /// The page of metrics in two parts: what was seen, and what changes from scrape to scrape. An
    /// age that one scraper was told is too low for the next.
    pub(super) fn text(&self, format: Format) -> (Arc<String>, String) {
        let now = now();
        let told = |sight: &&Arc<Sight>| {
            now.saturating_duration_since(sight.began) <= self.own.fresh().max(TOLD_MAX)
        };
        let sight = self.sight.as_ref().filter(told).map(|sight| &**sight);
        let [prometheus, open_metrics] = &self.texts;
        let slot = match format {
            Format::Prometheus => prometheus,
            Format::OpenMetrics => open_metrics,
        };
        let write = |sight| Arc::new(page::write_seen(sight, &self.own.names, format));
        let seen = sight.map(|sight| Arc::clone(slot.get_or_init(|| write(sight))));
        let changing = page::write_now(sight, &self.own, now, format);
        (seen.unwrap_or_default(), changing)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.own.trouble(now())
    }

    pub(super) fn sight(&self) -> Option<&Arc<Sight>> {
        self.sight.as_ref()
    }

    pub(super) fn own(&self) -> &Own {
        &self.own
    }
}
