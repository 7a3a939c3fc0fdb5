//! The `ottla` command as a person uses it.

use crate::process::PATIENCE;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// An optimised build from nothing on a small machine.
const BUILD: Duration = Duration::from_secs(900);

/// The command to run: the one that `OTTLA_BIN` names, or an optimised build.
async fn program() -> PathBuf {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        if let Some(named) = std::env::var_os("OTTLA_BIN") {
            return PathBuf::from(named);
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked", "-p", "ottla-cli"]);
        cargo.args(["--message-format", "json"]);
        let built = crate::process::succeed(cargo, b"", BUILD).await;
        let mut executable = built.text().lines().filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["executable"].as_str().map(PathBuf::from)
        });
        executable.next_back().unwrap()
    };
    PROGRAM.get_or_init(build).await.clone()
}

/// A run of it.
pub(crate) async fn command(arguments: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(program().await);
    command.args(arguments).args(more);
    command
}

/// A run of one of its subcommands on these brokers.
pub(crate) async fn ottla(bootstrap: &str, arguments: &[&str]) -> Command {
    command(arguments, &["--brokers", bootstrap]).await
}

/// Runs it; it has to succeed.
pub(crate) async fn run_ottla(bootstrap: &str, arguments: &[&str]) -> crate::process::Output {
    let command = ottla(bootstrap, arguments).await;
    crate::process::succeed(command, b"", PATIENCE).await
}
