//! The clients in other languages: built here when their tools are there, and left out otherwise.
//!
//! What they need is fetched by their own tools and kept in `${XDG_CACHE_HOME:-~/.cache}/ottla/versus`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers::{Failure, Peer, Program};

/// How each client's process is started.
pub struct Programs {
    franz_go: Result<Vec<OsString>, String>,
    java: Result<Vec<OsString>, String>,
}

impl Programs {
    /// Builds those that are wanted; a failure says why that client is missing from the tables.
    pub fn build(wanted: &[&Peer]) -> Programs {
        let unless = |build: fn() -> Result<Vec<OsString>, Failure>, wanted: bool| {
            if wanted {
                build().map_err(|error| error.to_string())
            } else {
                Err("not asked for".to_owned())
            }
        };
        let any = |test: fn(&Program) -> bool| wanted.iter().any(|peer| test(&peer.program));
        Programs {
            franz_go: unless(build_go, any(|program| matches!(program, Program::Go))),
            java: unless(build_java, any(|program| matches!(program, Program::Java))),
        }
    }

    /// The command up to the arguments of a client.
    pub fn command(&self, peer: &Peer) -> Result<Command, Failure> {
        let words = match peer.program {
            Program::Rust(_) => vec![std::env::current_exe()?.into(), "client".into()],
            Program::Go => self.franz_go.clone()?,
            Program::Java => self.java.clone()?,
        };
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        Ok(command)
    }

    /// Why a client cannot take part.
    pub fn missing(&self, peer: &Peer) -> Option<&str> {
        match peer.program {
            Program::Rust(_) => None,
            Program::Go => self.franz_go.as_ref().err().map(String::as_str),
            Program::Java => self.java.as_ref().err().map(String::as_str),
        }
    }
}

fn source(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(language)
}

fn cache(language: &str) -> Result<PathBuf, Failure> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => return Err("neither XDG_CACHE_HOME nor HOME is set".into()),
    };
    let folder = base.join("ottla").join("versus").join(language);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn build_go() -> Result<Vec<OsString>, Failure> {
    let program = cache("go")?.join("franz-go");
    let mut go = Command::new("go");
    go.current_dir(source("go")).args(["build", "-o"]);
    run(go.arg(&program).arg("."))?;
    Ok(vec![program.into()])
}

fn build_java() -> Result<Vec<OsString>, Failure> {
    let (source, cache) = (source("java"), cache("java")?);
    let pom = std::fs::read(source.join("pom.xml"))?;
    let (fetched, libraries) = (cache.join("pom.xml"), cache.join("libs"));
    // The copy beside the libraries is written last: it says which ones they are.
    if std::fs::read(&fetched).ok().as_ref() != Some(&pom) {
        if libraries.exists() {
            std::fs::remove_dir_all(&libraries)?;
        }
        let mut maven = Command::new("mvn");
        maven.args(["-B", "-q", "dependency:copy-dependencies", "-f"]);
        maven.arg(source.join("pom.xml"));
        run(maven.arg(option("-DoutputDirectory=", &libraries)))?;
        std::fs::write(&fetched, &pom)?;
    }
    let classes = cache.join("classes");
    let all = libraries.join("*");
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(&all).arg("-d").arg(&classes);
    run(compiler.arg(source.join("Versus.java")))?;
    let path = std::env::join_paths([classes, all])?;
    Ok(vec!["java".into(), "-cp".into(), path, "Versus".into()])
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// Runs a tool to its end, its words on our standard error.
fn run(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name} failed: {status}").into())
    }
}
