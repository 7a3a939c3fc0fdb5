//! `ottla topic ensure`: the topics of a file are made where they are missing, and what differs of
//! the others is told.

use super::connect;
use crate::arguments::{EnsureArguments, Shape};
use crate::failure::{Failure, Result};
use crate::output::Table;
use ottla::{Ensured, ErrorKind, NewTopic, Topics};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use toml::{Table as Toml, Value};

/// A topic as the file has it.
#[derive(Debug, PartialEq)]
struct Wanted {
    name: String,
    topic: NewTopic,
}

/// What became of a topic.
#[derive(Debug)]
enum State {
    Created,
    AsAsked,
    Differs(Vec<String>),
    Failed(String),
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::AsAsked => "as asked",
            Self::Differs(_) => "differs",
            Self::Failed(_) => "failed",
        }
    }

    /// What there is to say, each in one clause.
    fn clauses(&self) -> &[String] {
        match self {
            Self::Created | Self::AsAsked => &[],
            Self::Differs(differences) => differences,
            Self::Failed(error) => std::slice::from_ref(error),
        }
    }
}

pub(super) async fn run(arguments: EnsureArguments) -> Result<()> {
    let file = &arguments.file;
    let text = read(file).map_err(|error| Failure::io(&file.display().to_string(), &error))?;
    let wrong = |what| Failure::usage(format!("{}: {what}", file.display()));
    let wanted = topics(&text).map_err(wrong)?;
    let client = connect(&arguments.connect).await?;
    let (done, ended) = ensure(&client.topics(), wanted).await;
    print(&done, arguments.output)?;
    ended?;
    verdict(&done)
}

/// What became of each topic, up to the one at which no broker answered any more.
async fn ensure(topics: &Topics, wanted: Vec<Wanted>) -> (Vec<(String, State)>, ottla::Result<()>) {
    let mut done = Vec::with_capacity(wanted.len());
    for Wanted { name, topic } in wanted {
        match topics.ensure(topic).await {
            Ok(Ensured::Created) => done.push((name, State::Created)),
            Ok(Ensured::Existed { differences }) if differences.is_empty() => {
                done.push((name, State::AsAsked));
            }
            Ok(Ensured::Existed { differences }) => done.push((name, State::Differs(differences))),
            Err(error) => {
                done.push((name, State::Failed(error.to_string())));
                // What the cluster has against one topic it need not have against the others.
                if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout) {
                    return (done, Err(error));
                }
            }
        }
    }
    (done, Ok(()))
}

/// The file, or standard input for `-`.
fn read(file: &Path) -> io::Result<String> {
    match file.to_str() {
        Some("-") => text_from(io::stdin().lock()),
        _ => text_from(std::fs::File::open(file)?),
    }
}

/// More than anybody writes by hand.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// All there is; what is cut could be read as a shorter file.
fn text_from(source: impl Read) -> io::Result<String> {
    let mut source = source.take(FILE_BYTES_MAX + 1);
    let text = io::read_to_string(&mut source)?;
    if source.limit() == 0 {
        return Err(io::Error::other(format!(
            "it has more than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

fn print(done: &[(String, State)], shape: Shape) -> Result<()> {
    let mut out = io::stdout().lock();
    if shape == Shape::Json {
        let row = |(name, state): &(String, State)| {
            json!({
                "name": name,
                "state": state.word(),
                "because": state.clauses(),
            })
        };
        writeln!(out, "{}", Json::from_iter(done.iter().map(row)))?;
        return Ok(());
    }
    let mut table = Table::new(["TOPIC", "STATE", "BECAUSE"]);
    for (name, state) in done {
        table.push([name, state.word(), &state.clauses().join("; ")]);
    }
    Ok(table.write(&mut out)?)
}

/// Whether everything is as asked for now.
fn verdict(done: &[(String, State)]) -> Result<()> {
    let count = |is: fn(&State) -> bool| done.iter().filter(|(_, state)| is(state)).count();
    let failed = count(|state| matches!(state, State::Failed(_)));
    let differ = count(|state| matches!(state, State::Differs(_)));
    let all = done.len();
    match (failed, differ) {
        (0, 0) => Ok(()),
        (0, differ) => {
            let what = format!("{differ} of {all} topics are not as asked for");
            Err(Failure::NotAsAsked(what))
        }
        (failed, _) => Err(Failure::error(format!("{failed} of {all} topics failed"))),
    }
}

/// Reads `[[topic]]` after `[[topic]]`; the error says in one clause what is wrong.
fn topics(text: &str) -> Result<Vec<Wanted>, String> {
    let mut file: Toml = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string().trim().replace('\n', " "))?;
    let list = file.remove("topic");
    if let Some(other) = file.keys().next() {
        return Err(format!("there is a {other}, and [[topic]] alone is known"));
    }
    let Some(Value::Array(list)) = list else {
        return Err("it has no [[topic]]".to_owned());
    };
    let mut wanted: Vec<Wanted> = Vec::with_capacity(list.len());
    for (number, entry) in (1..).zip(list) {
        let topic = match entry {
            Value::Table(entry) => topic(entry),
            _ => Err("it is no table".to_owned()),
        };
        let topic = topic.map_err(|what| format!("topic {number}: {what}"))?;
        if wanted.iter().any(|known| known.name == topic.name) {
            return Err(format!("topic {number}: {} is there twice", topic.name));
        }
        wanted.push(topic);
    }
    Ok(wanted)
}

fn topic(mut entry: Toml) -> Result<Wanted, String> {
    let name = match entry.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err("it has no name".to_owned()),
    };
    let mut topic = NewTopic::new(name.as_str());
    if let Some(count) = count(&mut entry, "partitions")? {
        topic = topic.partitions(count);
    }
    if let Some(count) = count(&mut entry, "replication")? {
        topic = topic.replication(count);
    }
    let mut settings = BTreeMap::new();
    match entry.remove("config") {
        None => {}
        Some(Value::Table(config)) => add_settings(&mut settings, "", config)?,
        Some(_) => return Err("config is no table".to_owned()),
    }
    let mut others = BTreeMap::new();
    add_settings(&mut others, "", entry)?;
    for (name, value) in others {
        if name != "cleanup.policy" {
            let hint = "of Kafka's own, cleanup.policy may stand here and all others under config";
            return Err(format!("{name} is not known: {hint}"));
        }
        if settings.insert(name, value).is_some() {
            return Err("cleanup.policy is there twice".to_owned());
        }
    }
    for (name, value) in settings {
        topic = topic.config(name, value);
    }
    Ok(Wanted { name, topic })
}

/// A number above zero.
fn count<N: TryFrom<i64>>(entry: &mut Toml, key: &str) -> Result<Option<N>, String> {
    let Some(value) = entry.remove(key) else {
        return Ok(None);
    };
    let count = value.as_integer().filter(|count| *count > 0);
    let count = count.and_then(|count| N::try_from(count).ok());
    let count = count.ok_or_else(|| format!("{key} must be a number above 0, not {value}"))?;
    Ok(Some(count))
}

/// Adds Kafka's settings under their dotted names, whether they are quoted or nested.
fn add_settings(
    settings: &mut BTreeMap<String, String>,
    above: &str,
    table: Toml,
) -> Result<(), String> {
    for (key, value) in table {
        let name = match above {
            "" => key,
            above => format!("{above}.{key}"),
        };
        match value {
            Value::Table(below) => add_settings(settings, &name, below)?,
            value => {
                let text = text_of(&value).ok_or_else(|| format!("{name} cannot be {value}"))?;
                if settings.insert(name.clone(), text).is_some() {
                    return Err(format!("{name} is there twice"));
                }
            }
        }
    }
    Ok(())
}

/// As Kafka writes it; a list with commas.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Array(list) => {
            let texts: Option<Vec<String>> = list.iter().map(text_of).collect();
            Some(texts?.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla::Client;
    use ottla_broker::{ApiKey, Cluster, Code};

    #[tokio::test]
    async fn what_was_done_is_told_whatever_became_of_the_rest() {
        let cluster = Cluster::builder().nodes(1).replication(1).start();
        let cluster = cluster.await.unwrap();
        let client = Client::builder(cluster.bootstrap());
        let client = client.property("default.api.timeout.ms", "1000").unwrap();
        let client = client.connect().await.unwrap();
        let order = |names: [&str; 3]| {
            topics(
                &names
                    .map(|name| format!("[[topic]]\nname = \"{name}\"\n"))
                    .concat(),
            )
            .unwrap()
        };
        let words = |done: &[(String, State)]| -> Vec<&str> {
            done.iter().map(|(_, state)| state.word()).collect()
        };
        // An error that has no code of a broker is one topic's all the same.
        let odd = cluster.faults().on(ApiKey::CreateTopics).after(1);
        odd.error(Code::UNSUPPORTED_VERSION);
        let (done, ended) = ensure(&client.topics(), order(["a", "b", "c"])).await;
        assert_eq!(words(&done), ["created", "failed", "created"]);
        assert!(ended.is_ok());
        let gone = cluster.faults().on(ApiKey::CreateTopics).after(1).always();
        gone.disconnect_before_apply();
        let (done, ended) = ensure(&client.topics(), order(["d", "e", "f"])).await;
        assert_eq!(words(&done), ["created", "failed"]);
        assert!(ended.unwrap_err().is_retriable());
        cluster.shutdown().await;
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let blank = |bytes| io::repeat(b' ').take(bytes);
        assert_eq!(text_from(blank(FILE_BYTES_MAX)).unwrap().len(), 16 << 20);
        let long = text_from(blank(FILE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(long.to_string(), "it has more than 16777216 bytes");
    }

    #[test]
    fn a_file_tells_name_partitions_copies_and_settings() {
        let text = r#"
            [[topic]]
            name = "orders"
            partitions = 12
            replication = 3
            cleanup.policy = ["compact", "delete"]
            [topic.config]
            retention.ms = 604_800_000
            "min.cleanable.dirty.ratio" = 0.5
            unclean.leader.election.enable = false

            [[topic]]
            name = "clicks"
        "#;
        let wanted = topics(text).unwrap();
        let names: Vec<&str> = wanted.iter().map(|topic| &*topic.name).collect();
        assert_eq!(names, ["orders", "clicks"]);
        let orders = NewTopic::new("orders")
            .partitions(12)
            .replication(3)
            .config("cleanup.policy", "compact,delete")
            .config("min.cleanable.dirty.ratio", "0.5")
            .config("retention.ms", "604800000")
            .config("unclean.leader.election.enable", "false");
        assert_eq!(wanted[0].topic, orders);
        assert_eq!(wanted[1].topic, NewTopic::new("clicks"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_topic() {
        let of_topic = |rest: &str| topics(&format!("[[topic]]\nname = \"a\"\n{rest}"));
        for (found, words) in [
            (topics(""), "no [[topic]]"),
            (topics("topic = []\nother = 1"), "other"),
            (topics("topic = [1]"), "topic 1: it is no table"),
            (
                topics("[[topic]]\npartitions = 1"),
                "topic 1: it has no name",
            ),
            (topics("[[topic]\n"), "TOML parse error at line 1"),
            (
                of_topic("partitions = 0"),
                "partitions must be a number above 0",
            ),
            (of_topic("partitions = \"3\""), "not \"3\""),
            (of_topic("replication = 40000"), "replication must be"),
            (of_topic("retention.ms = 1"), "retention.ms is not known"),
            (of_topic("config = 1"), "config is no table"),
            (
                of_topic("config.at = 2026-01-01"),
                "at cannot be 2026-01-01",
            ),
            (
                of_topic("cleanup.policy = \"delete\"\nconfig.cleanup.policy = \"compact\""),
                "cleanup.policy is there twice",
            ),
            (
                of_topic("[[topic]]\nname = \"a\""),
                "topic 2: a is there twice",
            ),
        ] {
            let said = found.unwrap_err();
            assert!(said.contains(words), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn the_exit_code_tells_a_failure_from_a_difference() {
        let done = |states: Vec<State>| -> Vec<(String, State)> {
            let named = |state| ("t".to_owned(), state);
            states.into_iter().map(named).collect()
        };
        let differs = || State::Differs(vec!["partitions is 3, not 12".to_owned()]);
        assert!(verdict(&done(vec![State::Created, State::AsAsked])).is_ok());
        let told = verdict(&done(vec![State::Created, differs()]));
        assert!(matches!(told, Err(Failure::NotAsAsked(_))), "{told:?}");
        let failed = State::Failed("no".to_owned());
        let told = verdict(&done(vec![differs(), failed]));
        assert!(matches!(told, Err(Failure::Error(_))), "{told:?}");
    }
}
