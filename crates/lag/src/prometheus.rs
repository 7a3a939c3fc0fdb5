//! Prometheus as a source of lag: what kafka_exporter, or `ottla exporter`, has measured already.
//!
//! Two queries a round serve all groups: the lags and committed offsets, and when they were scraped.
//! The end of a log is the committed offset and the lag together. Figures are as old as the scrape,
//! which is told, and as what was scraped, which `ottla exporter` tells and others do not; a scrape
//! interval of 5 s and less steers well. There is no log start, no last stable
//! offset and no topic id in these metrics: what rests on them is unknown.

use crate::snapshot::{Committed, End, Offsets, TopicOffsets};
use crate::source::{Asked, Found, LagSource, Origin, Pace, Standing};
use ottla_proto::{Error, ErrorKind, Result};
use ottla_wire::BoxFuture;
use reqwest::{Client, Url};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// The metrics of kafka_exporter that are read; an exporter that has no committed offset has none.
const LAG: &str = "kafka_consumergroup_lag";
const COMMITTED: &str = "kafka_consumergroup_current_offset";

/// How old a group's figures were when they were scraped, as `ottla exporter` tells.
const AGE: &str = "ottla_group_age_seconds";

/// Figures whose times are no further apart come from the same look of an exporter: scraped twice,
/// their age is never the same to the millisecond.
const SAME_SECONDS: f64 = 0.1;

/// The longest answer that is read: about 300,000 partitions.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many partitions a topic may have beyond those that were measured. An exporter that leaves some
/// out is common; a partition number out of all proportion is no reason for an allocation.
const UNMEASURED_MAX: usize = 1_024;

/// Reads lag from a Prometheus server's query API.
#[derive(Debug)]
pub struct PrometheusSource {
    client: Client,
    query: Url,
    /// When the figures of a group were asked for by the server's clock, and when that was by ours.
    heard: BTreeMap<Arc<str>, (f64, Instant)>,
    fails: bool,
}

impl PrometheusSource {
    /// Reads from the server at this address, such as `http://prometheus:9090`. A user and a
    /// password may stand in it.
    ///
    /// # Errors
    /// `Config` when the address cannot be read.
    pub fn new(address: &str) -> Result<Self> {
        let wrong = |what: String| {
            let what = format!("the address of the Prometheus server: {what}");
            Error::new(ErrorKind::Config, what)
        };
        // The one that is in force already stays: it is the user's choice.
        let _ = rustls_graviola::default_provider().install_default();
        let base = format!("{}/", address.trim_end_matches('/'));
        let base = Url::parse(&base).map_err(|error| wrong(error.to_string()))?;
        let query = base.join("api/v1/query");
        let client = Client::builder().build();
        Ok(Self {
            client: client.map_err(|error| wrong(error.to_string()))?,
            query: query.map_err(|error| wrong(error.to_string()))?,
            heard: BTreeMap::new(),
            fails: false,
        })
    }

    async fn ask(&self, query: &str) -> Result<Value> {
        let fault = |what: String| Error::new(ErrorKind::Connection, what);
        let request = self.client.post(self.query.clone());
        let answer = request.form(&[("query", query)]).send().await;
        // An error shows the address, where a password may stand.
        let mut answer = answer.map_err(|error| fault(error.without_url().to_string()))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(fault(format!("the Prometheus server answered {status}")));
        }
        let mut body = Vec::new();
        loop {
            let chunk = answer.chunk().await;
            let Some(chunk) = chunk.map_err(|error| fault(error.without_url().to_string()))? else {
                break;
            };
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(fault(
                    "the Prometheus server's answer is too long".to_owned(),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| fault(error.to_string()))
    }

    async fn look_at(&mut self, asked: &[Asked], pace: Pace) -> Vec<Found> {
        let (offsets, scraped) = queries(asked);
        let answers = timeout_at(pace.deadline, async {
            tokio::try_join!(self.ask(&offsets), self.ask(&scraped))
        });
        let measured = match answers.await {
            Ok(Ok((offsets, scraped))) => Some(Measured::read(&offsets, &scraped)),
            Ok(Err(error)) => {
                self.note_failure(&error.to_string());
                None
            }
            Err(_) => {
                self.note_failure("no answer in time");
                None
            }
        };
        let began = pace.began.into_std();
        let Some(measured) = measured else {
            let unknown = Standing::Unknown(None);
            let nothing = asked.iter().map(|one| Found::nothing(one, unknown, began));
            return nothing.collect();
        };
        self.fails = false;
        self.heard
            .retain(|group, _| measured.groups.contains_key(group));
        let found = asked.iter().map(|one| self.found(one, &measured, began));
        found.collect()
    }

    fn note_failure(&mut self, why: &str) {
        if !std::mem::replace(&mut self.fails, true) {
            tracing::warn!(why, "lag cannot be read from the Prometheus server");
        }
    }

    fn found(&mut self, asked: &Asked, measured: &Measured, began: Instant) -> Found {
        let Some(group) = measured.groups.get(&asked.group) else {
            return Found::nothing(asked, Standing::Unknown(None), began);
        };
        let asked_at = group.scraped_at - group.age;
        let known = self.heard.get(&asked.group).copied();
        // No news: it keeps the time that it had.
        let known = known.filter(|(at, _)| (asked_at - at).abs() < SAME_SECONDS);
        let news = known.unwrap_or_else(|| {
            let age = (measured.now - asked_at).clamp(0.0, 3_600.0);
            let taken_at = began.checked_sub(Duration::from_secs_f64(age));
            (asked_at, taken_at.unwrap_or(began))
        });
        self.heard.insert(Arc::clone(&asked.group), news);
        let (_, taken_at) = news;
        let topics = asked.topics.iter().map(|topic| TopicOffsets {
            partitions: group.partitions(topic),
            ..TopicOffsets::nothing(topic)
        });
        Found {
            group: Arc::clone(&asked.group),
            standing: Standing::Told,
            taken_at,
            origin: Origin::Asked,
            topics: topics.collect(),
        }
    }
}

impl LagSource for PrometheusSource {
    fn look<'a>(&'a mut self, asked: &'a [Asked], pace: Pace) -> BoxFuture<'a, Vec<Found>> {
        Box::pin(self.look_at(asked, pace))
    }
}

/// The two queries: lags with committed offsets, and when they were scraped.
fn queries(asked: &[Asked]) -> (String, String) {
    let groups = asked.iter().map(|one| regex_lite::escape(&one.group));
    let groups = groups.collect::<Vec<_>>().join("|");
    // Within a string of the query language a backslash stands for itself only when doubled.
    let groups = groups.replace('\\', "\\\\").replace('"', "\\\"");
    (
        format!("{{__name__=~\"{LAG}|{COMMITTED}|{AGE}\",consumergroup=~\"{groups}\"}}"),
        format!("min by (consumergroup) (timestamp({LAG}{{consumergroup=~\"{groups}\"}}))"),
    )
}

/// What the server knows.
#[derive(Debug, Default)]
struct Measured {
    /// Its clock, in seconds.
    now: f64,
    groups: BTreeMap<Arc<str>, Group>,
}

#[derive(Debug, Default)]
struct Group {
    /// The oldest scrape of any of its partitions, by the server's clock.
    scraped_at: f64,
    /// How many seconds old they were then, as far as that was told.
    age: f64,
    /// Lag and committed offset by topic and partition, where they were measured.
    topics: BTreeMap<String, BTreeMap<usize, LagAndCommitted>>,
}

/// As far as they were measured.
type LagAndCommitted = (Option<i64>, Option<i64>);

impl Measured {
    /// Takes what can be read; whatever else stands there is left out.
    fn read(offsets: &Value, scraped: &Value) -> Self {
        let mut measured = Self::default();
        for (labels, now, value) in samples(scraped) {
            let Some(group) = label(labels, "consumergroup") else {
                continue;
            };
            measured.now = measured.now.max(now);
            let group = measured.groups.entry(group.into()).or_default();
            group.scraped_at = value;
        }
        for (labels, _, value) in samples(offsets) {
            if label(labels, "__name__") == Some(AGE) {
                let group = label(labels, "consumergroup");
                if let Some(group) = group.and_then(|group| measured.groups.get_mut(group)) {
                    group.age = group.age.max(value);
                }
                continue;
            }
            let partition = label(labels, "partition").and_then(|number| number.parse().ok());
            let place = label(labels, "consumergroup").zip(label(labels, "topic"));
            let (Some((group, topic)), Some(partition)) = (place, partition) else {
                continue;
            };
            let Some(group) = measured.groups.get_mut(group) else {
                continue;
            };
            let topic = group.topics.entry(topic.to_owned()).or_default();
            let (lag, committed) = topic.entry(partition).or_default();
            match label(labels, "__name__") {
                Some(LAG) => *lag = Some(value as i64),
                Some(COMMITTED) => *committed = Some(value as i64),
                _ => {}
            }
        }
        measured
    }
}

impl Group {
    fn partitions(&self, topic: &str) -> Vec<Offsets> {
        let Some(measured) = self.topics.get(topic) else {
            return Vec::new();
        };
        let last = measured.keys().next_back().copied().unwrap_or(0);
        let count = last.saturating_add(1).min(measured.len() + UNMEASURED_MAX);
        let partitions = (0..count).map(|at| {
            let (lag, committed) = measured.get(&at).copied().unwrap_or_default();
            // Exporters say -1 for a group that has committed nothing.
            let end = lag.zip(committed).filter(|(lag, at)| *lag >= 0 && *at >= 0);
            let end = end.and_then(|(lag, committed)| committed.checked_add(lag));
            Offsets {
                committed: match committed {
                    Some(offset) if offset >= 0 => Committed::At(offset),
                    Some(_) => Committed::Nothing,
                    None => Committed::Unknown(None),
                },
                end: end.map_or(End::Unknown(None), |high_watermark| End::At {
                    high_watermark,
                    log_start: None,
                    last_stable: None,
                }),
            }
        });
        partitions.collect()
    }
}

/// The samples of an instant vector: labels, the server's clock, the value.
fn samples(answer: &Value) -> impl Iterator<Item = (&Value, f64, f64)> {
    let result = answer.pointer("/data/result").and_then(Value::as_array);
    result.into_iter().flatten().filter_map(|sample| {
        let now = sample.pointer("/value/0")?.as_f64()?;
        let value: f64 = sample.pointer("/value/1")?.as_str()?.parse().ok()?;
        Some((sample.get("metric")?, now, value)).filter(|_| now.is_finite() && value.is_finite())
    })
}

fn label<'a>(labels: &'a Value, name: &str) -> Option<&'a str> {
    labels.get(name)?.as_str()
}

#[cfg(test)]
mod tests;
