//! The parent: for each cell and run it starts a broker and a client as processes, and collects what they say.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::broker::Counts;
use crate::job::{Codec, Tuning};
use crate::measure::Cost;
use crate::peers::{FLOOR, Failure, PEERS, Peer};
use crate::table::{self, Row, Run};

/// A client that hangs fails its run and not the whole comparison.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(180);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let peers: Vec<&Peer> = PEERS
        .iter()
        .filter(|peer| arguments.peers.iter().any(|name| name == peer.name))
        .collect();
    println!(
        "acks all, {} partitions, {}, {} caller(s), {}; medians of {} runs",
        arguments.partitions,
        if arguments.keyed { "keyed" } else { "no key" },
        arguments.callers,
        match arguments.tuning {
            Tuning::Same => "linger 5 ms, batch 1 MB",
            Tuning::OwnDefaults => "each client's own defaults",
        },
        arguments.runs,
    );
    for peer in peers.iter().chain([&&FLOOR]) {
        println!("  {:<8} {}", peer.name, peer.note);
    }
    for &rtt_ms in &arguments.rtts {
        for &size in &arguments.sizes {
            for &codec in &arguments.codecs {
                Cell {
                    arguments,
                    rtt_ms,
                    size,
                    codec,
                }
                .run(&peers);
            }
        }
    }
    Ok(())
}

/// One table: what is sent, and how far away the broker is.
struct Cell<'a> {
    arguments: &'a Arguments,
    rtt_ms: usize,
    size: usize,
    codec: Codec,
}

impl Cell<'_> {
    fn run(&self, peers: &[&Peer]) {
        let Cell {
            arguments,
            rtt_ms,
            size,
            codec,
        } = *self;
        let peers: Vec<&Peer> = peers.iter().copied().chain([&FLOOR]).collect();
        let mut rows: Vec<Row> = peers
            .iter()
            .map(|peer| Row {
                name: peer.name,
                runs: Vec::new(),
                allocations: None,
                failure: None,
            })
            .collect();
        for _ in 0..arguments.runs {
            for (peer, row) in peers.iter().zip(&mut rows) {
                match self.run_once(peer, &[]) {
                    Ok(run) => row.runs.push(run),
                    Err(error) => row.failure = Some(error.to_string()),
                }
            }
        }
        for (peer, row) in peers
            .iter()
            .zip(&mut rows)
            .filter(|(_, row)| !row.runs.is_empty())
        {
            row.allocations = self
                .run_once(peer, &["--count-allocations"])
                .ok()
                .map(|run| run.cost.allocations);
        }
        let (records, warm_up) = (arguments.records_of(size), arguments.warm_up_of(size));
        let title = format!(
            "{size} bytes, {}, {records} records, {rtt_ms} ms round trip",
            codec.name()
        );
        table::print(&title, records, warm_up, &rows);
    }

    fn run_once(&self, peer: &Peer, more: &[&str]) -> Result<Run, Failure> {
        let Cell {
            arguments,
            rtt_ms,
            size,
            codec,
        } = *self;
        let mut broker = Broker::start(arguments.partitions, rtt_ms)?;
        let bootstrap = format!("127.0.0.1:{}", broker.port);
        let client = Command::new(std::env::current_exe()?)
            .arg("client")
            .args(arguments.of_client(peer.name, size, codec, &bootstrap))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = within(CLIENT_TIMEOUT, client)?;
        let counts = broker.stop()?;
        if !output.status.success() {
            return Err(format!("the client ended with {}", output.status).into());
        }
        let cost: Cost = serde_json::from_slice(&output.stdout)?;
        let expected = (arguments.records_of(size) + arguments.warm_up_of(size)) as u64;
        check(&counts, peer, codec, expected)?;
        Ok(Run { cost, counts })
    }
}

/// Waits for a process that prints no more than a line.
fn within(timeout: Duration, mut process: Child) -> Result<Output, Failure> {
    let deadline = Instant::now() + timeout;
    while process.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            process.kill()?;
            process.wait()?;
            return Err(format!("the client was not done within {timeout:?}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(process.wait_with_output()?)
}

/// What makes a figure worthless.
fn check(counts: &Counts, peer: &Peer, codec: Codec, expected: u64) -> Result<(), Failure> {
    if counts.records != expected {
        return Err(format!("the broker got {} records, not {expected}", counts.records).into());
    }
    if counts.corrupt > 0 || counts.gaps > 0 {
        return Err(format!("{} corrupt batches, {} gaps", counts.corrupt, counts.gaps).into());
    }
    // A client may leave a batch as it is when compressing does not make it smaller.
    let compressed = counts.codecs[codec.bits()];
    if compressed * 10 < counts.batches * 9 {
        return Err(format!(
            "only {compressed} of {} batches are {}",
            counts.batches,
            codec.name()
        )
        .into());
    }
    if peer.idempotent && counts.idempotent != counts.batches {
        return Err("some batches carry no producer id".into());
    }
    Ok(())
}

struct Broker {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Broker {
    fn start(partitions: i32, rtt_ms: usize) -> Result<Broker, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("broker")
            .args([
                "--partitions",
                &partitions.to_string(),
                "--rtt",
                &rtt_ms.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().ok_or("the broker has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(Broker {
            port: line.trim().parse()?,
            process,
            input,
            output,
        })
    }

    /// Closing its input makes it print what it counted.
    fn stop(&mut self) -> Result<Counts, Failure> {
        self.input = None;
        let mut line = String::new();
        self.output.read_to_string(&mut line)?;
        self.process.wait()?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone after `stop`; after an error it must not stay behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
