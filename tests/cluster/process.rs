//! Other programs: run to their end, or read as they go, and never left behind.

use crate::kafka::unique;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long any one program may take that is not part of a soak.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    /// What it printed, as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs a program to its end, however it ends.
pub(crate) async fn run(mut command: Command, input: &[u8], within: Duration) -> Output {
    let shown = shown(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("{shown}: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        // A program that ends early leaves its input unread; how it ended is looked at.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let Ok(output) = timeout(within, both).await else {
        panic!("{shown}: not done within {within:?}");
    };
    let output = output.unwrap();
    Output {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that has to succeed.
pub(crate) async fn succeed(command: Command, input: &[u8], within: Duration) -> Output {
    let shown = shown(&command);
    let output = run(command, input, within).await;
    assert!(
        output.code == Some(0),
        "{shown}: exit code {:?}\n{}\n{}",
        output.code,
        String::from_utf8_lossy(&output.stdout),
        output.stderr
    );
    output
}

/// A program that runs beside the test and prints lines.
#[derive(Debug)]
pub(crate) struct Running {
    shown: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let shown = shown(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{shown}: {error}"),
        };
        let stdout = BufReader::with_capacity(1 << 18, child.stdout.take().unwrap());
        Self {
            shown,
            child,
            stdout,
            line: Vec::new(),
        }
    }

    /// Its next line, without the end of line; `None` when there will be no more.
    ///
    /// Cancel safety: a line that was begun goes on with the next call.
    pub(crate) async fn line(&mut self) -> Option<&[u8]> {
        if self.line.last() == Some(&b'\n') {
            self.line.clear();
        }
        let read = self.stdout.read_until(b'\n', &mut self.line).await;
        read.unwrap();
        match self.line.strip_suffix(b"\n") {
            Some(line) => Some(line),
            None if self.line.is_empty() => None,
            None => panic!("{}: the last line has no end", self.shown),
        }
    }

    /// Asks it to end, as Ctrl-C does, and gives what it still printed.
    pub(crate) async fn end(self) -> Vec<u8> {
        self.signalled("-INT").await
    }

    /// Asks a Java tool to end: a JVM that was started by a shell's background job, as CI may do,
    /// hears nothing of Ctrl-C.
    pub(crate) async fn terminate(self) -> Vec<u8> {
        self.signalled("-TERM").await
    }

    async fn signalled(mut self, signal: &str) -> Vec<u8> {
        if let Some(id) = self.child.id() {
            let mut kill = Command::new("kill");
            kill.args([signal, &id.to_string()]);
            succeed(kill, b"", PATIENCE).await;
        }
        let mut rest = match self.line.last() {
            Some(b'\n') => Vec::new(),
            _ => std::mem::take(&mut self.line),
        };
        let ended = async {
            self.stdout.read_to_end(&mut rest).await.unwrap();
            self.child.wait().await.unwrap()
        };
        assert!(
            timeout(PATIENCE, ended).await.is_ok(),
            "{}: it does not end",
            self.shown
        );
        rest
    }

    /// Stops it in mid-work, as SIGSTOP does: its connections stay open.
    pub(crate) async fn freeze(&self) {
        let id = self.child.id().unwrap();
        let mut kill = Command::new("kill");
        kill.args(["-STOP", &id.to_string()]);
        succeed(kill, b"", PATIENCE).await;
    }

    /// Ends it at once, frozen or not.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for the end it came to by itself, which has to be a good one.
    pub(crate) async fn finish(mut self) {
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{}: {status}", self.shown);
    }
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let short: String = argument.chars().take(80).collect();
        let _ = write!(text, " {short}");
    }
    text
}

/// A directory for a test's files, removed with all it holds when this goes.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(unique("ottla"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A file with this content, and its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
