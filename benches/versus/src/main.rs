//! Ottla's producer and its peers, each in a process of its own, against the same null broker.
//!
//! ```text
//! cargo run --release --manifest-path benches/versus/Cargo.toml -- --full     all that the targets speak of
//!                                                                  --quick    a minute's look
//! or single cells:
//!     [--size 100,1000] [--codec none,lz4,zstd] [--callers N] [--partitions N] [--rtt 0,1,5,50] [--keyed]
//!     [--defaults]                       codec, linger, batch and buffer are left to each client
//! with any of them:
//!     [--peers ours,rdkafka] [--runs N] [--records N]
//!     [--json FILE] [--markdown FILE]    the figures; tables for the README
//!     [--bootstrap HOST:PORT]            a real Kafka instead of the null broker
//! ```
//! All clients: acks all, idempotent, 12 partitions, no key, linger 5 ms, batches of 1 MB, 64 MB to hold
//! unsent records in, on a fixed corpus of real text. A run ends when every record is acknowledged. CPU is user
//! and system time of the client's process alone, after connecting and warming up. The clients take turns
//! within a run; the tables show medians over runs. A client that fails in a cell is shown as failed there.
//! franz-go is built when `go` is there, the Java client when `mvn` and `javac` are.

mod arguments;
mod broker;
mod cluster;
mod floor;
mod job;
mod markdown;
mod measure;
mod parent;
mod peers;
mod plan;
mod programs;
mod protocol;
mod report;
mod table;
mod targets;
mod text;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, BrokerArguments, ClientArguments};
use peers::Program;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut words = std::env::args().skip(1).peekable();
    let role = words.next_if(|word| word == "broker" || word == "client");
    match role.as_deref() {
        Some("broker") => {
            let arguments = BrokerArguments::parse(words)?;
            let delay = Duration::from_millis(arguments.rtt_ms);
            Ok(broker::run(arguments.partitions, delay)?)
        }
        Some(_) => {
            let arguments = ClientArguments::parse(words)?;
            let Program::Rust(run) = arguments.peer()?.program else {
                return Err(format!("{} is a program of its own", arguments.peer).into());
            };
            if arguments.count_allocations {
                measure::count_allocations();
            }
            println!("{}", serde_json::to_string(&run(&arguments.job()?)?)?);
            Ok(())
        }
        None => parent::run(&Arguments::parse(words)?),
    }
}
