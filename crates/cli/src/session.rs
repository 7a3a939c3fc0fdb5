//! From the command line to a client.

use crate::arguments::Connect;
use crate::failure::Result;
use ottla::{Client, Properties};
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

/// Where a cluster is looked for when nobody says.
const DEFAULT_BROKERS: &str = "localhost:9092";

/// After how long a user wonders why nothing happens.
const LONG: Duration = Duration::from_secs(2);

/// The properties as given: the environment's are outdone by the file's, those by `-X`, and those
/// by `-b`.
pub(crate) fn properties(
    connect: &Connect,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Properties> {
    let mut properties = Properties::new();
    properties.set("bootstrap.servers", DEFAULT_BROKERS)?;
    properties.merge(Properties::from_variables("KAFKA_", environment)?);
    if let Some(file) = &connect.properties_file {
        properties.merge(Properties::load(file)?);
    }
    for (name, value) in &connect.properties {
        properties.set(name, value)?;
    }
    if let Some(brokers) = &connect.brokers {
        properties.set("bootstrap.servers", brokers)?;
    }
    Ok(properties)
}

/// Connects as the command line says, with `own` properties of the command on top.
pub(crate) async fn connect(connect: &Connect, own: &[(&str, &str)]) -> Result<Client> {
    log(connect);
    let mut properties = properties(connect, environment())?;
    for (name, value) in own {
        properties.set(name, *value)?;
    }
    reach(connect, properties).await
}

/// Connects as the command line says; `defaults` are the command's own, which anything said outdoes.
pub(crate) async fn connect_with(connect: &Connect, defaults: &[(&str, &str)]) -> Result<Client> {
    log(connect);
    let mut properties = properties(connect, environment())?;
    for (name, value) in defaults {
        if properties.get(name).is_none() {
            properties.set(name, *value)?;
        }
    }
    reach(connect, properties).await
}

/// Connects, and says so when that takes long: until `default.api.timeout.ms` has passed nothing else
/// tells a wrong address from a slow cluster.
async fn reach(connect: &Connect, properties: Properties) -> Result<Client> {
    let brokers = properties.get("bootstrap.servers").unwrap_or_default();
    let brokers = brokers.to_owned();
    let client = Client::from_properties(properties).connect();
    let slow = || {
        if !connect.quiet {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "no broker of {brokers} answers yet: waiting");
        }
    };
    Ok(say_when_slow(client, slow).await?)
}

/// Waits for the work, and calls `slow` once if that takes long.
async fn say_when_slow<T>(work: impl Future<Output = T>, slow: impl FnOnce()) -> T {
    let mut work = pin!(work);
    match timeout(LONG, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            slow();
            work.await
        }
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text)
}

/// Writes the log to standard error: warnings, or what `-v` or `OTTLA_LOG` asks for.
pub(crate) fn log(connect: &Connect) {
    log_level(match (connect.quiet, connect.verbose) {
        (true, _) => "error",
        (false, verbose) => level(verbose),
    });
}

/// The level that so many `-v` ask for.
pub(crate) fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    }
}

/// Writes the log to standard error, as `OTTLA_LOG` says, else as `default` does.
pub(crate) fn log_level(default: &str) {
    let filter = EnvFilter::try_from_env("OTTLA_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Only the first call in a process counts.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(connect: &Connect, environment: &[(&str, &str)]) -> String {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let properties = properties(connect, environment.iter().map(owned)).unwrap();
        properties.get("bootstrap.servers").unwrap().to_owned()
    }

    #[test]
    fn the_nearer_the_word_the_more_it_counts() {
        let environment = [("KAFKA_BOOTSTRAP_SERVERS", "from-env:1")];
        let mut connect = Connect::default();
        assert_eq!(brokers(&connect, &[]), DEFAULT_BROKERS);
        assert_eq!(brokers(&connect, &environment), "from-env:1");
        connect.properties = vec![("bootstrap.servers".into(), "from-x:1".into())];
        assert_eq!(brokers(&connect, &environment), "from-x:1");
        connect.brokers = Some("from-b:1".into());
        assert_eq!(brokers(&connect, &environment), "from-b:1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_waits_long_is_told_once() {
        for (seconds, told) in [(0, 0), (1, 0), (3, 1), (60, 1)] {
            let mut said = 0;
            let begun = tokio::time::Instant::now();
            let takes = Duration::from_secs(seconds);
            say_when_slow(tokio::time::sleep(takes), || said += 1).await;
            assert_eq!((said, begun.elapsed()), (told, takes));
        }
    }

    #[test]
    fn a_property_that_nobody_knows_is_a_mistake() {
        let connect = Connect {
            properties: vec![("linger.sm".into(), "5".into())],
            ..Connect::default()
        };
        let failure = properties(&connect, []).unwrap_err();
        assert!(matches!(failure, crate::failure::Failure::Usage(_)));
    }
}
