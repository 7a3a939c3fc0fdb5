//! The house rules as a test: who may depend on whom, what a pure crate never says, no C, no stray words.
//!
//! Every rule is a pure function over text (`manifest`, `source`) that is tested on bad input beside it;
//! the tests here run them over the repository and print each breach as `file:line: rule`.

mod manifest;
mod repository;
mod services;
mod source;

use std::fmt;
use std::io;

use repository::{File, Repository};

/// A place in the repository that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    /// One-based; zero when the rule is about the file as a whole.
    line: usize,
    rule: String,
}

impl Breach {
    fn of_file(file: &str, rule: impl Into<String>) -> Breach {
        Breach {
            file: file.to_owned(),
            line: 0,
            rule: rule.into(),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.rule),
            line => write!(f, "{}:{line}: {}", self.file, self.rule),
        }
    }
}

fn assert_clean(breaches: &[Breach]) {
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(
        list.is_empty(),
        "{} breaches of the house rules:\n{}",
        list.len(),
        list.join("\n")
    );
}

fn check_files(
    wanted: impl Fn(&File) -> bool,
    rule: impl Fn(&File) -> Vec<Breach>,
) -> io::Result<()> {
    let repository = Repository::open()?;
    let files: Vec<&File> = repository
        .files
        .iter()
        .filter(|file| wanted(file))
        .collect();
    assert!(!files.is_empty(), "the rule looked at no file");
    assert_clean(&files.into_iter().flat_map(rule).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn crates_depend_only_downwards() -> io::Result<()> {
    check_files(File::is_member_manifest, |file| {
        manifest::direction(&file.path, &file.text)
    })
}

#[test]
fn crates_name_only_the_libraries_of_their_level() -> io::Result<()> {
    check_files(File::is_member_manifest, |file| {
        manifest::libraries(&file.path, &file.text)
    })
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() -> io::Result<()> {
    check_files(File::is_member_manifest, |file| {
        manifest::lints(&file.path, &file.text)
    })
}

#[test]
fn no_crate_has_a_build_script() -> io::Result<()> {
    check_files(File::is_member_manifest, |file| {
        manifest::build_script(&file.path, &file.text)
    })?;
    let repository = Repository::open()?;
    let scripts = repository
        .files
        .iter()
        .filter(|file| file.path.ends_with("/build.rs"));
    assert_clean(
        &scripts
            .map(|file| Breach::of_file(&file.path, "a build script"))
            .collect::<Vec<_>>(),
    );
    Ok(())
}

#[test]
fn nothing_compiles_c() -> io::Result<()> {
    let repository = Repository::open()?;
    let tree = repository.dependencies()?;
    assert!(
        tree.lines().count() > 20,
        "cargo tree printed too little:\n{tree}"
    );
    assert_clean(&manifest::compiles_c("cargo tree", &tree));
    // What people install brings the clients of Redis and Prometheus with it.
    let command = repository.dependencies_of("ottla-cli")?;
    for client in ["redis v", "reqwest v"] {
        let is_there = command.lines().any(|line| line.starts_with(client));
        assert!(is_there, "{client} is no part of the command:\n{command}");
    }
    assert_clean(&manifest::compiles_c("the ottla command", &command));
    Ok(())
}

#[test]
fn the_pure_crates_pull_in_no_runtime() -> io::Result<()> {
    let repository = Repository::open()?;
    for package in ["ottla-proto", "ottla-partitioner"] {
        let tree = repository.dependencies_of(package)?;
        assert!(
            tree.starts_with(package),
            "cargo tree printed something else:\n{tree}"
        );
        assert_clean(&manifest::impure(package, &tree));
    }
    Ok(())
}

#[test]
fn the_pure_crates_read_no_clock_and_no_socket() -> io::Result<()> {
    check_files(
        |file| file.is_source_of("proto") || file.is_source_of("partitioner"),
        |file| source::impure(&file.path, &file.text),
    )
}

#[test]
fn only_wire_opens_sockets_among_the_client_crates() -> io::Result<()> {
    let clients = [
        "proto",
        "partitioner",
        "producer",
        "consumer",
        "lag",
        "admin",
        "worker",
        "serdes",
        "ottla",
    ];
    check_files(
        |file| clients.iter().any(|name| file.is_source_of(name)),
        |file| source::opens_socket(&file.path, &file.text),
    )
}

#[test]
fn queues_are_bounded() -> io::Result<()> {
    check_files(File::is_crate_source, |file| {
        source::unbounded_queue(&file.path, &file.text)
    })
}

#[test]
fn files_stay_readable_in_one_sitting() -> io::Result<()> {
    check_files(File::is_rust, |file| source::length(&file.path, &file.text))
}

#[test]
fn nothing_is_left_for_later() -> io::Result<()> {
    check_files(
        |file| file.is_rust() && !file.is_tidy(),
        |file| source::unfinished(&file.path, &file.text),
    )
}

#[test]
fn exceptions_give_their_reason() -> io::Result<()> {
    check_files(
        |file| file.is_rust() && !file.is_tidy(),
        |file| source::silent_exceptions(&file.path, &file.text),
    )
}

#[test]
fn no_file_names_a_place_on_one_machine() -> io::Result<()> {
    check_files(
        |file| !file.is_tidy(),
        |file| source::machine_paths(&file.path, &file.text),
    )
}

#[test]
fn the_compose_file_runs_the_kafka_of_the_script() -> io::Result<()> {
    let repository = Repository::open()?;
    let text = |path: &str| {
        let file = repository.files.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str())
            .ok_or_else(|| io::Error::other(format!("no {path} in the repository")))
    };
    let script = text("tests/kafka/kafka")?;
    assert_clean(&services::compose_in_step(
        script,
        text("docker-compose.yml")?,
    ));
    let deployed = repository.files.iter();
    let deployed = deployed.filter(|file| file.path.starts_with("deploy/"));
    let deployed: Vec<(&str, &str)> = deployed
        .map(|file| (file.path.as_str(), file.text.as_str()))
        .collect();
    let compose = text("docker-compose.yml")?;
    assert_clean(&services::compose_is_whole(compose, &deployed));
    Ok(())
}
