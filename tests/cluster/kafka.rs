//! The cluster that `tests/kafka/kafka` started, and Kafka's own tools.

use crate::process::{Output, PATIENCE, succeed};
use ottla::{Client, ClientBuilder, NewTopic};
use ottla_wire::api::metadata;
use ottla_wire::{Class, Connection};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

/// A real cluster of three brokers.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
    script: PathBuf,
}

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It is killed with -9, and later started again.
    Kill,
    /// It is stopped in mid-work with its connections open, and later goes on.
    Freeze,
}

/// A node that is down. It comes back when this goes, so that a test that fails leaves the cluster whole.
#[derive(Debug)]
pub(crate) struct Down {
    kafka: Kafka,
    harm: Harm,
    node: Option<i32>,
}

impl Kafka {
    /// The cluster named by `OTTLA_KAFKA`, or the one that the script has started.
    pub(crate) fn here() -> Self {
        let script = std::env::var_os("OTTLA_KAFKA_SCRIPT").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/kafka"),
            PathBuf::from,
        );
        let bootstrap = std::env::var("OTTLA_KAFKA").ok();
        let bootstrap = bootstrap.filter(|list| !list.is_empty());
        let bootstrap = bootstrap.unwrap_or_else(|| {
            let asked = std::process::Command::new(&script)
                .arg("bootstrap")
                .output()
                .unwrap();
            assert!(
                asked.status.success(),
                "these tests need Kafka, see `tests/kafka/kafka start`: {}",
                String::from_utf8_lossy(&asked.stderr)
            );
            String::from_utf8(asked.stdout).unwrap().trim().to_owned()
        });
        Self { bootstrap, script }
    }

    pub(crate) fn client_builder(&self) -> ClientBuilder {
        Client::builder(&self.bootstrap)
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_builder().connect().await.unwrap()
    }

    /// Makes a topic that no other test has, with three copies a partition.
    pub(crate) async fn topic(&self, client: &Client, what: &str, partitions: i32) -> String {
        let name = unique(what);
        let topic = NewTopic::new(name.as_str()).partitions(partitions);
        self.create(client, &name, topic.replication(3)).await;
        name
    }

    /// Makes a topic and waits until every broker knows it with all leaders: a foreign client may ask
    /// any of them.
    pub(crate) async fn create(&self, client: &Client, topic: &str, new: NewTopic) {
        client.topics().create(new).await.unwrap();
        let request = metadata::Request {
            topics: metadata::Topics::Named(vec![topic.into()]),
            allow_auto_create: false,
        };
        for broker in client.cluster().view().brokers.keys() {
            let connection = client.cluster().connection(*broker, Class::Control);
            let connection = connection.await.unwrap();
            let shown = async {
                while !shows(&connection, &request).await {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, shown).await.unwrap();
        }
    }

    /// A run of one of Kafka's Java tools, with `--bootstrap-server` given.
    pub(crate) fn tool(&self, class: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command
            .args(["tool", class, "--bootstrap-server", &self.bootstrap])
            .args(arguments);
        command
    }

    /// Runs one of Kafka's Java tools, which has to succeed.
    pub(crate) async fn run_tool(&self, class: &str, arguments: &[&str], input: &[u8]) -> Output {
        succeed(self.tool(class, arguments), input, PATIENCE).await
    }

    /// The major version of the brokers that the script runs.
    pub(crate) async fn major_version(&self) -> u32 {
        static VERSION: OnceCell<u32> = OnceCell::const_new();
        let ask = async || {
            let mut command = Command::new(&self.script);
            command.args(["tool", "TopicCommand", "--version"]);
            let output = succeed(command, b"", PATIENCE).await;
            let text = output.text().trim_start();
            let major = text.split('.').next().and_then(|word| word.parse().ok());
            major.unwrap_or_else(|| panic!("no version: {text}"))
        };
        *VERSION.get_or_init(ask).await
    }

    /// Takes a node down.
    pub(crate) async fn harm(&self, harm: Harm, node: i32) -> Down {
        self.script(harm.words().0, Some(node)).await;
        Down {
            kafka: self.clone(),
            harm,
            node: Some(node),
        }
    }

    /// Waits until every partition has a leader and all of its copies.
    pub(crate) async fn settled(&self) {
        self.script("wait", None).await;
    }

    async fn script(&self, word: &str, node: Option<i32>) {
        let mut command = Command::new(&self.script);
        command.arg(word).args(node.map(|node| node.to_string()));
        succeed(command, b"", PATIENCE).await;
    }
}

impl Harm {
    /// The script's words for it and for its end.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Harm::Kill => ("kill", "restart"),
            Harm::Freeze => ("freeze", "thaw"),
        }
    }
}

impl Down {
    /// Brings the node back.
    pub(crate) async fn end(mut self) {
        if let Some(node) = self.node.take() {
            self.kafka.script(self.harm.words().1, Some(node)).await;
        }
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        if let Some(node) = self.node {
            let mut command = std::process::Command::new(&self.kafka.script);
            command.args([self.harm.words().1, &node.to_string()]);
            eprintln!("node {node} is brought back: {:?}", command.status());
        }
    }
}

async fn shows(connection: &Connection, request: &metadata::Request) -> bool {
    let answer = metadata::call(connection, request).await.unwrap();
    answer.topics.iter().all(|topic| {
        let mut leaders = topic.partitions.iter().map(|partition| partition.leader);
        topic.code.is_none() && leaders.all(|leader| leader.is_some())
    })
}

/// A name for a topic or a group that nobody had before.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{what}-{:x}-{:x}-{count}",
        now.as_millis(),
        std::process::id()
    )
}
