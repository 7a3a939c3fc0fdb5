//! The `ottla` command carries real text into a real cluster and out again, to the byte.

use crate::command::{ottla, run_ottla};
use crate::corpus::{Reading, as_file, lines};
use crate::foreign::{CODECS, FORMAT, Seen, follow, java_reads, kcat_reads, kcat_writes};
use crate::kafka::Kafka;
use crate::process::Scratch;
use std::time::Instant;

const MILLION: usize = 1_000_000;

fn saw(reading: &mut Reading) -> impl FnMut(Seen<'_>) {
    |seen| reading.saw(seen.partition, seen.offset, seen.key, seen.value)
}

/// `ottla produce` writes, a foreign consumer reads.
async fn out(kafka: &Kafka, count: usize) {
    let client = kafka.client().await;
    let scratch = Scratch::new();
    let file = scratch.file("lines", &as_file(lines(count)));
    for codec in CODECS {
        let topic = kafka.topic(&client, "command-out", 6).await;
        let began = Instant::now();
        let arguments = ["produce", &topic, &file, "-K", "\\t", "-z", codec];
        let produced = run_ottla(&kafka.bootstrap, &arguments).await;
        let said = produced.stderr;
        assert!(said.contains(&format!("{count} records sent")), "{said}");
        println!("{codec}: written in {:?}", began.elapsed());
        let mut reading = Reading::of(lines(count));
        kcat_reads(&kafka.bootstrap, &topic, saw(&mut reading)).await;
        assert_eq!(reading.missing(), 0, "{codec}: kcat finds records missing");
        if count == MILLION && codec == "zstd" {
            let mut reading = Reading::of(lines(count));
            java_reads(kafka, &topic, saw(&mut reading)).await;
            assert_eq!(reading.missing(), 0, "{codec}: Java finds records missing");
        }
        client.topics().delete(&topic).await.unwrap();
    }
}

/// A foreign producer writes, `ottla consume` reads.
async fn back(kafka: &Kafka, count: usize) {
    let client = kafka.client().await;
    let file = as_file(lines(count));
    for codec in CODECS {
        let topic = kafka.topic(&client, "command-back", 6).await;
        kcat_writes(&kafka.bootstrap, &topic, codec, &file).await;
        let began = Instant::now();
        let mut reading = Reading::of(lines(count));
        let arguments = ["consume", &topic, "-e", "-q", "-f", FORMAT];
        let command = ottla(&kafka.bootstrap, &arguments).await;
        follow(command, saw(&mut reading)).await;
        assert_eq!(reading.missing(), 0, "{codec}: records are missing");
        println!("{codec}: read in {:?}", began.elapsed());
        client.topics().delete(&topic).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn the_command_writes_what_kcat_reads() {
    out(&Kafka::here(), 30_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kafka and kcat"]
async fn the_command_reads_what_kcat_writes() {
    back(&Kafka::here(), 30_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_a_million_lines_out() {
    out(&Kafka::here(), MILLION).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: needs kafka and kcat"]
async fn soak_a_million_lines_back() {
    back(&Kafka::here(), MILLION).await;
}
