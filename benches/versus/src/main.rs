//! Ottla's producer and its peers, each in a process of its own, against the same null broker.
//!
//! ```text
//! cargo run --release --manifest-path benches/versus/Cargo.toml -- [--quick] [--size 100,1000]
//!     [--codec none,lz4,zstd] [--peers ours,rdkafka] [--records N] [--runs N] [--callers N]
//!     [--partitions N] [--rtt 0,1,5,50] [--keyed] [--defaults]
//! ```
//! All clients: acks all, idempotent, 12 partitions, no key, linger 5 ms, batches of 1 MB, 64 MB to hold
//! unsent records in, on a fixed corpus of real text; `--defaults` leaves linger, batch and buffer to each.
//! A run ends when every record is acknowledged. CPU is user and system time of the client's process alone,
//! after connecting and warming up. The clients take turns within a run; the table shows medians over runs.

mod arguments;
mod broker;
mod floor;
mod job;
mod measure;
mod parent;
mod peers;
mod protocol;
mod table;
mod text;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use arguments::Arguments;

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
    let arguments = Arguments::parse(words)?;
    match role.as_deref() {
        Some("broker") => {
            let rtt_ms = arguments.rtts.first().copied().unwrap_or(0);
            Ok(broker::run(
                arguments.partitions,
                Duration::from_millis(rtt_ms as u64),
            )?)
        }
        Some(_) => {
            let peer = arguments.single_peer()?;
            if arguments.count_allocations {
                measure::count_allocations();
            }
            let cost = (peer.run)(&arguments.job()?)?;
            println!("{}", serde_json::to_string(&cost)?);
            Ok(())
        }
        None => parent::run(&arguments),
    }
}
