//! The exporter's page by way of a real Prometheus, as a source of lag.

use super::testing::{commit, looker_every};
use super::*;
use ottla::lag::snapshot::{Committed, End};
use ottla::lag::{Asked, Found, LagSource, Pace, PrometheusSource, Standing};
use ottla::{Client, Record};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// How often the exporter looks: several times as seldom as it is scraped.
const REFRESH: Duration = Duration::from_secs(4);

/// How far a time may be off: what a scrape takes on a busy machine. Less than from scrape to scrape.
const ABOUT: Duration = Duration::from_millis(600);

/// A Prometheus that scrapes each second, ended by its id when this goes.
struct Prometheus {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Prometheus {
    fn start(scrapes: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let name = format!("ottla-prometheus-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: ottla\n  \
             static_configs: [{{targets: ['{scrapes}']}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut server = Command::new("prometheus");
        server.arg(format!("--config.file={}", config.display()));
        let data = folder.join("data");
        server.arg(format!("--storage.tsdb.path={}", data.display()));
        server.arg(format!("--web.listen-address={address}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            process: server.spawn().unwrap(),
            folder,
            address: format!("http://{address}"),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn look(source: &mut PrometheusSource) -> Found {
    let began = tokio::time::Instant::now();
    let pace = Pace {
        began,
        deadline: began + 5 * SECOND,
        refresh: SECOND,
    };
    let asked = [Asked {
        group: "billing".into(),
        topics: vec!["orders".into()],
    }];
    source.look(&asked, pace).await.remove(0)
}

/// Commit and end of each partition.
fn offsets(found: &Found) -> Vec<(Option<i64>, Option<i64>)> {
    let partitions = found.topics[0].partitions.iter().map(|one| {
        let committed = match one.committed {
            Committed::At(offset) => Some(offset),
            _ => None,
        };
        let end = match one.end {
            End::At { high_watermark, .. } => Some(high_watermark),
            End::Unknown(_) => None,
        };
        (committed, end)
    });
    partitions.collect()
}

/// When the figures on the page were taken.
fn taken_at(published: &watch::Receiver<Arc<Published>>) -> Option<Instant> {
    let now = Arc::clone(&published.borrow());
    let group = now.sight()?.groups.first()?.snapshot.clone();
    Some(page::told_at(&group))
}

fn about(one: Instant, other: Instant) -> bool {
    one.max(other) - one.min(other) < ABOUT
}

async fn write(client: &Client, count: usize) {
    let producer = client.producer().build().unwrap();
    for _ in 0..count {
        let record = Record::to("orders").partition(0).value("v");
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.close().await.unwrap();
}

/// The exporter's page on a free port: where, and what stands on it.
async fn serve(client: &Client) -> (String, watch::Receiver<Arc<Published>>) {
    let own = Own {
        refresh: REFRESH,
        ..Own::default()
    };
    let (publisher, published) = watch::channel(Arc::new(Published::new(None, own)));
    let looker = looker_every(client, ".*", REFRESH);
    tokio::spawn(async move { look_on(looker, &publisher).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let page = published.clone();
    tokio::spawn(http::serve(listener, move |request: &Request| {
        let published = Arc::clone(&page.borrow());
        answer(request, &published)
    }));
    (address, published)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs prometheus"]
async fn prometheus_tells_the_offsets_and_how_old_they_are_once_a_look() {
    let (cluster, client) = super::testing::cluster().await;
    commit(&client, "billing", 0, 4).await;
    commit(&client, "billing", 1, 20).await;
    let (address, published) = serve(&client).await;
    let server = Prometheus::start(&address);
    let mut source = PrometheusSource::new(&server.address).unwrap();
    let mut ticks = tokio::time::interval(SECOND / 2);
    let began = Instant::now();
    // What the page was made of, and what the source took for news.
    let (mut pages, mut news): (Vec<Instant>, Vec<Instant>) = (Vec::new(), Vec::new());
    let (mut told, mut looks) = (Vec::new(), 0);
    while news.len() < 4 {
        assert!(began.elapsed() < 90 * SECOND, "{news:?} of {pages:?}");
        ticks.tick().await;
        pages.extend(taken_at(&published).filter(|at| pages.last() != Some(at)));
        let found = look(&mut source).await;
        if found.standing != Standing::Told {
            continue;
        }
        looks += 1;
        if news.last().is_none_or(|last| !about(*last, found.taken_at)) {
            news.push(found.taken_at);
            told.push(offsets(&found));
        }
        let is_true = pages.iter().any(|page| about(*page, found.taken_at));
        assert!(is_true, "{:?} is none of {pages:?}", found.taken_at);
        if looks == 1 {
            write(&client, 5).await;
        }
    }
    assert_eq!(told[0], [(Some(4), Some(10)), (Some(20), Some(20))]);
    assert_eq!(told[3], [(Some(4), Some(15)), (Some(20), Some(20))]);
    // A refresh is four scrapes, and eight questions.
    assert!(looks > 2 * news.len(), "{looks} looks");
    assert!(news.is_sorted() && news.len() <= pages.len(), "{news:?}");
    cluster.shutdown().await;
}
