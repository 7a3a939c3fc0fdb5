//! The `ottla` command: produce, consume, lag, an exporter, topics, an embedded broker and a demo.

mod arguments;
mod broker;
mod consume;
mod demo;
mod exporter;
mod failure;
mod health;
mod histogram;
mod interrupt;
mod lag;
mod output;
mod produce;
mod session;
mod topic;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::{Failure, Result};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let result = runtime.block_on(run(arguments.command));
            // A thread may still wait for standard input, which nothing can interrupt.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::error(format!("no runtime: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Produce(arguments) => produce::run(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
        Command::Lag(arguments) => lag::run(arguments).await,
        Command::Health(arguments) => health::run(arguments).await,
        Command::Exporter(arguments) => exporter::run(arguments).await,
        Command::Topic(arguments) => topic::run(arguments).await,
        Command::Broker(arguments) => broker::run(arguments).await,
    }
}
