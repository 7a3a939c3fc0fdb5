//! `ottla exporter`: lag and more for Prometheus, under the names that dashboards know.

mod filter;
mod http;
mod lag_exporter;
mod page;
mod published;
mod sight;
mod text;

use crate::arguments::{ExporterArguments, MetricNames};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::session;
use filter::Filter;
use http::{Answer, Request};
use ottla::Client;
use published::{Names, Own, Published};
use sight::Looker;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use text::Format;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How many groups are watched at most. Each has a series in every partition of the topics it commits
/// in, for each of its metrics; the metric `ottla_exporter_groups_left_out` tells of those beyond.
const GROUPS_MAX: usize = 10_000;

/// The least pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// How long a broker is waited for unless the user says otherwise: a look has to go on without one
/// that hangs.
const PATIENCE: [(&str, &str); 2] = [
    ("request.timeout.ms", "5000"),
    ("default.api.timeout.ms", "10000"),
];

const INDEX: &str = "<!DOCTYPE html>\n<html><head><title>Ottla exporter</title></head><body>\n\
    <h1>Ottla exporter</h1>\n<p><a href=\"/metrics\">Metrics</a></p>\n\
    <p><a href=\"/healthz\">Health</a></p>\n</body></html>\n";

pub(crate) async fn run(arguments: ExporterArguments) -> Result<()> {
    let groups = Filter::new(&arguments.group_filter, &arguments.group_exclude)?;
    let topics = Filter::new(&arguments.topic_filter, &arguments.topic_exclude)?;
    let listener = TcpListener::bind(&arguments.listen).await;
    let listener = listener.map_err(|error| Failure::io(&arguments.listen, &error))?;
    let address = listener.local_addr()?;
    let interrupt = Interrupt::listen();
    let own = Own {
        names: names(&arguments),
        refresh: arguments.refresh,
        ..Own::default()
    };
    let (publisher, published) = watch::channel(Arc::new(Published::new(None, own)));
    let answer = move |request: &Request| {
        let published = Arc::clone(&published.borrow());
        answer(request, &published)
    };
    // Before the cluster can be reached: /healthz tells why it cannot.
    writeln!(io::stdout(), "http://{address}/metrics")?;
    let work = async {
        let client = reach(&arguments, &publisher).await?;
        let unused = sight::unused(client.properties());
        if !unused.is_empty() {
            let properties = unused.join(", ");
            tracing::warn!(properties, "properties that the exporter does not go by");
        }
        let looker = Looker::new(client, arguments.refresh, groups, topics);
        look_on(looker, &publisher).await;
        Ok(())
    };
    tokio::select! {
        biased;
        () = interrupt.wait() => Ok(()),
        () = http::serve(listener, answer) => Ok(()),
        ended = work => ended,
    }
}

fn names(arguments: &ExporterArguments) -> Names {
    match arguments.metrics {
        MetricNames::KafkaExporter => Names::KafkaExporter,
        MetricNames::LagExporter => Names::LagExporter {
            cluster_name: arguments.cluster_name.as_deref().map(Arc::from),
        },
    }
}

/// Connects to the cluster, again and again until it is there: an exporter that is started before its
/// cluster tells so.
///
/// # Errors
/// What waiting does not mend: a wrong property.
async fn reach(
    arguments: &ExporterArguments,
    publisher: &watch::Sender<Arc<Published>>,
) -> Result<Client> {
    loop {
        let own = publisher.borrow().own().clone();
        let why = match session::connect_with(&arguments.connect, &PATIENCE).await {
            Err(Failure::Error(why)) => why,
            ended => return ended,
        };
        // Said once; /healthz goes on saying so.
        if own.error.is_none() {
            tracing::warn!(why, "the cluster cannot be reached");
        }
        let own = Own {
            looks: own.looks + 1,
            failures: own.failures + 1,
            error: Some(why.into()),
            ..own
        };
        publisher.send_replace(Arc::new(Published::new(None, own)));
        tokio::time::sleep(arguments.refresh.max(PAUSE_MIN)).await;
    }
}

/// Looks at the cluster again and again, and publishes what was seen.
async fn look_on(mut looker: Looker, publisher: &watch::Sender<Arc<Published>>) {
    let refresh = publisher.borrow().own().refresh;
    loop {
        let began = published::now();
        let looked = looker.look().await;
        let published = {
            let last = publisher.borrow();
            let failed = last.own().error.is_some();
            let mut own = Own {
                looks: last.own().looks + 1,
                took: Some(published::now().saturating_duration_since(began)),
                error: None,
                ..last.own().clone()
            };
            match looked {
                Ok(sight) => {
                    if failed {
                        tracing::info!("the cluster can be looked at again");
                    }
                    own.good_at = Some(began);
                    own.heard_at = sight.heard_at;
                    Published::new(Some(Arc::new(sight)), own)
                }
                Err(error) => {
                    if !failed {
                        tracing::warn!(%error, "the cluster cannot be looked at");
                    }
                    own.failures += 1;
                    own.error = Some(error.to_string().into());
                    Published::new(last.sight().cloned(), own)
                }
            }
        };
        publisher.send_replace(Arc::new(published));
        let took = published::now().saturating_duration_since(began);
        let pause = refresh.saturating_sub(took);
        tokio::time::sleep(pause.max(PAUSE_MIN)).await;
    }
}

fn answer(request: &Request, published: &Published) -> Answer {
    match request.path.as_str() {
        "/metrics" => {
            let format = Format::accepted(&request.accept);
            let (body, tail) = published.text(format);
            Answer {
                status: "200 OK",
                content_type: format.content_type(),
                body,
                tail,
            }
        }
        "/healthz" => match published.trouble() {
            None => Answer::text("200 OK", "ok\n"),
            Some(trouble) => Answer::text("503 Service Unavailable", format!("{trouble}\n")),
        },
        "/" => Answer {
            content_type: "text/html; charset=utf-8",
            ..Answer::text("200 OK", INDEX)
        },
        _ => Answer::text("404 Not Found", "there is /metrics and /healthz\n"),
    }
}

#[cfg(test)]
mod scraped;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
