//! One file a client: how its users would send as fast as they can and know that all is acknowledged.

mod kacrab;
mod krafka;
mod ours;
mod rdkafka;
mod rskafka;

use std::error::Error;
use std::ops::Range;

use crate::floor;
use crate::job::Job;
use crate::measure::{Cost, Meter};

pub type Failure = Box<dyn Error + Send + Sync>;

/// What runs a client in its process.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// A function of this program.
    Rust(fn(&Job) -> Result<Cost, Failure>),
    /// `peers/go`.
    Go,
    /// `peers/java`.
    Java,
}

/// A client by name, and what stands beside it in the report.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    pub note: &'static str,
    /// Whether its batches carry a producer id.
    pub idempotent: bool,
    /// Whether this program sees its allocations: not those of C, Go and Java.
    pub counts_allocations: bool,
    pub program: Program,
}

const RUST: Peer = Peer {
    name: "",
    note: "",
    idempotent: true,
    counts_allocations: true,
    program: Program::Rust(ours::run),
};

pub static PEERS: &[Peer] = &[
    Peer {
        name: "ours",
        note: "ottla of this repository",
        ..RUST
    },
    Peer {
        name: "rdkafka",
        note: "librdkafka 2.12.1 through rdkafka 0.39.0, BaseProducer with delivery reports",
        counts_allocations: false,
        program: Program::Rust(rdkafka::run),
        ..RUST
    },
    Peer {
        name: "franz-go",
        note: "franz-go 1.22.2",
        counts_allocations: false,
        program: Program::Go,
        ..RUST
    },
    Peer {
        name: "java",
        note: "Apache Kafka's kafka-clients 4.3.1, warm",
        counts_allocations: false,
        program: Program::Java,
        ..RUST
    },
    Peer {
        name: "krafka",
        note: "krafka 0.28.1",
        program: Program::Rust(krafka::run),
        ..RUST
    },
    Peer {
        name: "kacrab",
        note: "kacrab 0.4.0",
        program: Program::Rust(kacrab::run),
        ..RUST
    },
    Peer {
        name: "rskafka",
        note: "rskafka 0.6.0, a BatchProducer a partition; it has no idempotence and no partitioner",
        idempotent: false,
        program: Program::Rust(rskafka::run),
        ..RUST
    },
];

/// What no client can undercut.
pub static FLOOR: Peer = Peer {
    name: "floor",
    note: "one thread, a blocking socket, one reused batch of 1 MB: encoding, (our codec,) CRC, write",
    idempotent: false,
    counts_allocations: false,
    program: Program::Rust(floor::run),
};

pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().chain([&FLOOR]).find(|peer| peer.name == name)
}

/// Runs an asynchronous client on two worker threads, its callers as tasks on them.
fn block_on<F: Future<Output = Result<Cost, Failure>>>(client: F) -> Result<Cost, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(client)
}

/// Runs `send` over the warm-up and then, measured, over the records.
async fn measure(
    job: &Job,
    send: impl AsyncFn(Range<usize>) -> Result<(), Failure>,
) -> Result<Cost, Failure> {
    send(0..job.warm_up).await?;
    let meter = Meter::start();
    send(job.warm_up..job.warm_up + job.records).await?;
    Ok(meter.stop(job.warm_up))
}

/// Splits `range` among the job's callers, each a task.
async fn each_caller<F>(
    job: &Job,
    range: Range<usize>,
    caller: impl Fn(Range<usize>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let tasks: Vec<_> = (0..job.callers)
        .map(|index| tokio::spawn(caller(job.share(&range, index))))
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
