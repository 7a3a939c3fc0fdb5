//! Clients of others: kcat and Kafka's own console tools.

use crate::kafka::Kafka;
use crate::process::{PATIENCE, Running, Scratch, succeed};
use std::time::Duration;
use tokio::process::Command;

/// The codecs, by the names that all clients use.
pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A run of kcat. It checks every batch's CRC.
pub(crate) fn kcat(bootstrap: &str) -> Command {
    let program = std::env::var_os("OTTLA_KCAT").unwrap_or_else(|| "kcat".into());
    let mut command = Command::new(program);
    command.args(["-b", bootstrap, "-X", "check.crcs=true"]);
    command
}

/// What kcat prints of each record for [`record`].
pub(crate) const FORMAT: &str = "%p\t%o\t%k\t%s\n";

/// A record that a foreign reader printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Reads a line of the four fields.
pub(crate) fn record(line: &[u8]) -> Seen<'_> {
    let mut fields = line.splitn(4, |byte| *byte == b'\t');
    let mut field = || fields.next();
    let parts = (field(), field(), field(), field());
    let (Some(partition), Some(offset), Some(key), Some(value)) = parts else {
        panic!("no record: {}", String::from_utf8_lossy(line));
    };
    // The Java consumer puts the names in front.
    let partition = partition.strip_prefix(b"Partition:").unwrap_or(partition);
    let offset = offset.strip_prefix(b"Offset:").unwrap_or(offset);
    let number = |field| std::str::from_utf8(field).unwrap().parse::<i64>().unwrap();
    Seen {
        partition: i32::try_from(number(partition)).unwrap(),
        offset: number(offset),
        key,
        value,
    }
}

/// Reads a whole topic with kcat.
pub(crate) async fn kcat_reads(bootstrap: &str, topic: &str, each: impl FnMut(Seen<'_>)) {
    let mut command = kcat(bootstrap);
    command.args(["-C", "-q", "-e", "-o", "beginning", "-f", FORMAT]);
    command.args(["-t", topic]);
    follow(command, each).await;
}

/// Reads with kcat what of a topic is committed.
pub(crate) async fn kcat_reads_committed(bootstrap: &str, topic: &str, each: impl FnMut(Seen<'_>)) {
    let mut command = kcat(bootstrap);
    command.args(["-C", "-q", "-e", "-o", "beginning", "-f", FORMAT]);
    command.args(["-X", "isolation.level=read_committed", "-t", topic]);
    follow(command, each).await;
}

/// Reads a whole topic with Kafka's console consumer, which stops when nothing comes for a while.
pub(crate) async fn java_reads(kafka: &Kafka, topic: &str, each: impl FnMut(Seen<'_>)) {
    java_reads_as(kafka, topic, "read_uncommitted", each).await;
}

/// Reads with Kafka's console consumer what of a topic is committed.
pub(crate) async fn java_reads_committed(kafka: &Kafka, topic: &str, each: impl FnMut(Seen<'_>)) {
    java_reads_as(kafka, topic, "read_committed", each).await;
}

async fn java_reads_as(kafka: &Kafka, topic: &str, isolation: &str, each: impl FnMut(Seen<'_>)) {
    let scratch = Scratch::new();
    // As a file, because the flag for a property has another name in newer versions.
    let config = "print.partition=true\nprint.offset=true\nprint.key=true\nkey.separator=\\t\n";
    let config = scratch.file("formatter", config.as_bytes());
    let mut command = kafka.tool("consumer.ConsoleConsumer", &["--topic", topic]);
    command.args(["--from-beginning", "--timeout-ms", "6000"]);
    command.args(["--isolation-level", isolation]);
    command.args(["--formatter-config", &config]);
    follow(command, each).await;
}

/// Runs a reader to its end, record by record.
pub(crate) async fn follow(command: Command, mut each: impl FnMut(Seen<'_>)) {
    let mut running = Running::start(command);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
    while let Some(line) = tokio::time::timeout_at(deadline, running.line())
        .await
        .unwrap()
    {
        each(record(line));
    }
    running.finish().await;
}

/// Writes lines of key, tab and value with kcat.
pub(crate) async fn kcat_writes(bootstrap: &str, topic: &str, codec: &str, file: &[u8]) {
    let mut command = kcat(bootstrap);
    command.args(["-P", "-t", topic, "-K", "\t", "-z", codec]);
    command.args(["-X", "acks=all", "-X", "enable.idempotence=true"]);
    succeed(command, file, PATIENCE).await;
}

/// Writes lines of key, tab and value with Kafka's console producer.
pub(crate) async fn java_writes(kafka: &Kafka, topic: &str, codec: &str, file: &[u8]) {
    let scratch = Scratch::new();
    let config = scratch.file("reader", b"parse.key=true\nkey.separator=\\t\n");
    let arguments = ["--topic", topic, "--compression-codec", codec];
    let arguments = [&arguments[..], &["--reader-config", &config]].concat();
    kafka.run_tool("ConsoleProducer", &arguments, file).await;
}
