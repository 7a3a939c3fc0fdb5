//! How the command ends when it does not end well.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Shorthand.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why the command ends early, as its exit code tells.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong; 1.
    Error(String),
    /// The command was called wrongly; 2, as clap does.
    Usage(String),
    /// The lag is over the limit; 3.
    OverLimit(String),
    /// Topics are there and not as asked for; 3.
    NotAsAsked(String),
    /// Whoever reads our output has gone, which is no fault: `head` does it. 0, and no word.
    ReaderGone,
}

impl Failure {
    pub(crate) fn error(clause: impl Into<String>) -> Self {
        Self::Error(clause.into())
    }

    pub(crate) fn usage(clause: impl Into<String>) -> Self {
        Self::Usage(clause.into())
    }

    /// A failure to read or write `what`.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::Error(format!("{what}: {error}"))
    }

    fn code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Error(_) => 1,
            Self::Usage(_) => 2,
            Self::OverLimit(_) | Self::NotAsAsked(_) => 3,
        }
    }

    /// Says what is wrong in one line on standard error, and gives the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        let clause = match self {
            Self::Error(clause) | Self::Usage(clause) => clause,
            Self::OverLimit(clause) | Self::NotAsAsked(clause) => clause,
            Self::ReaderGone => "",
        };
        if !clause.is_empty() {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "ottla: {clause}");
        }
        ExitCode::from(self.code())
    }
}

impl From<ottla::Error> for Failure {
    fn from(error: ottla::Error) -> Self {
        match error.kind() {
            ottla::ErrorKind::Config => Self::Usage(error.to_string()),
            _ => Self::Error(error.to_string()),
        }
    }
}

/// Standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::io("standard output", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_fail_has_its_own_exit_code() {
        let config = ottla::Error::new(ottla::ErrorKind::Config, "linger.ms is odd");
        let timeout = ottla::Error::new(ottla::ErrorKind::Timeout, "no answer");
        assert_eq!(Failure::from(config).code(), 2);
        assert_eq!(Failure::from(timeout).code(), 1);
        assert_eq!(Failure::OverLimit(String::new()).code(), 3);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = Failure::from(io::Error::from(ErrorKind::BrokenPipe));
        assert_eq!(gone.code(), 0);
        let full = Failure::from(io::Error::from(ErrorKind::StorageFull));
        assert_eq!(full.code(), 1);
    }
}
