//! The parent: for each cell and run it starts a broker and a client as processes, and collects what they say.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{Arguments, BrokerArguments, ClientArguments};
use crate::broker::Counts;
use crate::cluster::Cluster;
use crate::job::Tuning;
use crate::measure::Cost;
use crate::peers::{FLOOR, Failure, Peer};
use crate::plan::{self, Cell};
use crate::programs::Programs;
use crate::protocol::TOPIC;
use crate::report::{self, Note, Report, Row, Table};
use crate::{markdown, table, targets, text};

/// A client that hangs fails its run and not the whole comparison.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(45);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let peers = plan::peers(arguments);
    let mut session = Session {
        programs: Programs::build(&peers),
        folder: Folder::create()?,
        cluster: arguments
            .bootstrap
            .as_deref()
            .map(Cluster::connect)
            .transpose()?,
        runs: arguments.runs(),
    };
    let mut report = Report {
        commit: report::commit(),
        machine: report::machine(),
        runs: session.runs,
        seconds: 0,
        notes: session.notes(&peers),
        cells: Vec::new(),
        targets: Vec::new(),
    };
    table::print_head(&report);
    for cell in plan::cells(arguments) {
        let table = session.measure(cell, &peers);
        table::print(&table);
        report.cells.push(table);
    }
    report.targets = targets::check(&report.cells);
    report.seconds = start.elapsed().as_secs();
    table::print_end(&report);
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, markdown::tables(&report))?;
    }
    Ok(())
}

struct Session {
    programs: Programs,
    folder: Folder,
    /// None for the null broker.
    cluster: Option<Cluster>,
    runs: usize,
}

impl Session {
    fn notes(&self, peers: &[&'static Peer]) -> Vec<Note> {
        let floor = self.cluster.is_none().then_some(&FLOOR);
        let all = peers.iter().copied().chain(floor);
        all.map(|peer| Note {
            client: peer.name,
            note: match self.programs.missing(peer) {
                None => peer.note.to_owned(),
                Some(why) => format!("{}: left out, {why}", peer.note),
            },
        })
        .collect()
    }

    /// The clients take turns, so that what disturbs the machine for a while disturbs all of them.
    fn measure(&mut self, cell: Cell, peers: &[&'static Peer]) -> Table {
        let peers: Vec<&Peer> = cell
            .peers(peers)
            .filter(|peer| self.programs.missing(peer).is_none())
            // It knows one broker only.
            .filter(|peer| self.cluster.is_none() || peer.name != FLOOR.name)
            .collect();
        let mut rows: Vec<Row> = peers.iter().map(|peer| Row::new(peer.name)).collect();
        for _ in 0..self.runs {
            for (peer, row) in peers.iter().zip(&mut rows) {
                // What never succeeded is not tried again: it may have taken a minute to fail.
                if row.failure.is_some() && row.cpu_ns.is_empty() {
                    continue;
                }
                match self.run_once(&cell, peer, false) {
                    Ok((cost, counts)) => row.add(&cost, counts.as_ref(), cell.records, cell.size),
                    Err(error) => row.failure = Some(error.to_string()),
                }
            }
        }
        for (peer, row) in peers.iter().zip(&mut rows) {
            if !cell.is_standard() || !peer.counts_allocations || row.cpu_ns.is_empty() {
                continue;
            }
            if let Ok((cost, _)) = self.run_once(&cell, peer, true) {
                row.allocations = Some(cost.allocations as f64 / cell.records as f64);
            }
        }
        Table { cell, rows }
    }

    fn run_once(
        &mut self,
        cell: &Cell,
        peer: &Peer,
        count_allocations: bool,
    ) -> Result<(Cost, Option<Counts>), Failure> {
        let mut client = ClientArguments {
            peer: peer.name.to_owned(),
            text: self.folder.text(cell.compressed()),
            bootstrap: String::new(),
            topic: TOPIC.to_owned(),
            size: cell.size,
            records: cell.records,
            warm_up: cell.warm_up(),
            codec: cell.codec,
            callers: cell.callers,
            partitions: cell.partitions,
            keyed: cell.keyed,
            tuning: cell.tuning,
            count_allocations,
        };
        let expected = |cost: &Cost| cell.records as u64 + cost.warm_up;
        let Some(cluster) = &mut self.cluster else {
            let mut broker = Broker::start(cell)?;
            client.bootstrap = format!("127.0.0.1:{}", broker.port);
            let cost = run_client(&self.programs, &self.folder, peer, &client)?;
            let counts = broker.stop()?;
            check(&counts, peer, cell, expected(&cost))?;
            return Ok((cost, Some(counts)));
        };
        client.bootstrap = cluster.bootstrap.clone();
        client.topic = cluster.create_topic(cell.partitions)?;
        let cost = run_client(&self.programs, &self.folder, peer, &client);
        let records = cluster.records(&client.topic, cell.partitions);
        cluster.delete_topic(&client.topic)?;
        let (cost, records) = (cost?, records?);
        let expected = expected(&cost);
        if records != expected {
            return Err(format!("the cluster has {records} records, not {expected}").into());
        }
        Ok((cost, None))
    }
}

fn run_client(
    programs: &Programs,
    folder: &Folder,
    peer: &Peer,
    arguments: &ClientArguments,
) -> Result<Cost, Failure> {
    let errors = folder.path.join("errors");
    let client = programs
        .command(peer)?
        .args(arguments.words())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&errors)?)
        .spawn()?;
    let output = within(CLIENT_TIMEOUT, client)?;
    if !output.status.success() {
        let said = std::fs::read(&errors)?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        return Err(format!("{}: {}", output.status, last.unwrap_or("no word")).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits for a process that prints no more than a line.
fn within(timeout: Duration, mut process: Child) -> Result<Output, Failure> {
    let deadline = Instant::now() + timeout;
    while process.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            process.kill()?;
            process.wait()?;
            return Err(format!("not done within {timeout:?}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(process.wait_with_output()?)
}

/// What makes a figure worthless.
fn check(counts: &Counts, peer: &Peer, cell: &Cell, expected: u64) -> Result<(), Failure> {
    if counts.records != expected {
        return Err(format!("the broker got {} records, not {expected}", counts.records).into());
    }
    if counts.corrupt > 0 || counts.gaps > 0 {
        return Err(format!("{} corrupt batches, {} gaps", counts.corrupt, counts.gaps).into());
    }
    // A client may leave a batch as it is when compressing does not make it smaller.
    let compressed = counts.codecs[cell.codec.bits()];
    if cell.tuning == Tuning::Same && compressed * 10 < counts.batches * 9 {
        let (batches, codec) = (counts.batches, cell.codec.name());
        return Err(format!("only {compressed} of {batches} batches are {codec}").into());
    }
    if peer.idempotent && counts.idempotent != counts.batches {
        return Err("some batches carry no producer id".into());
    }
    Ok(())
}

/// What the client processes read, in a folder that goes away with the parent.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create() -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("versus-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let folder = Folder { path };
        for compressed in [false, true] {
            std::fs::write(folder.text(compressed), text::text(compressed))?;
        }
        Ok(folder)
    }

    fn text(&self, compressed: bool) -> PathBuf {
        let name = if compressed { "long-text" } else { "text" };
        Path::join(&self.path, name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder of temporary files that stays behind is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

struct Broker {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Broker {
    fn start(cell: &Cell) -> Result<Broker, Failure> {
        let arguments = BrokerArguments {
            partitions: cell.partitions,
            rtt_ms: cell.rtt_ms as u64,
        };
        let mut process = Command::new(std::env::current_exe()?)
            .arg("broker")
            .args(arguments.words())
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
