//! Rules about the text of a source file.

use crate::Breach;

/// A file that is longer holds two subjects.
const LINES_MAX: usize = 600;

/// What level 0 never says: time, chance and sockets are arguments there.
const IMPURE: [&str; 12] = [
    "Instant::now",
    "SystemTime",
    "tokio",
    "kafka_protocol",
    "rand",
    "fastrand",
    "getrandom",
    "thread_rng",
    "std::net",
    "std::fs",
    "std::env",
    "thread::sleep",
];

const SOCKETS: [&str; 6] = [
    "tokio::net",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "rustls",
];

const QUEUES: [&str; 3] = [
    "unbounded_channel",
    "mpsc::unbounded",
    "std::sync::mpsc::channel",
];

/// Folders that exist on one machine only, or that a test must ask `std::env::temp_dir` for.
const MACHINE_FOLDERS: [&str; 3] = ["/work", "/root", "/tmp"];

/// The lines of a file that are compiled into the crate, numbered from one: comments are blanked and items
/// under `#[cfg(test)]` left out. It relies on rustfmt: an item ends at the first closing brace that is
/// indented like its attribute.
fn code_lines(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut code = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if line.trim() == "#[cfg(test)]" {
            at = end_of_item(&lines, at);
        } else {
            code.push((at + 1, without_comment(line)));
        }
        at += 1;
    }
    code
}

/// The index of the last line of the item whose first attribute is at `start`.
fn end_of_item(lines: &[&str], start: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = lines.get(start).map_or(0, |line| indent(line));
    let same_depth = |line: &str| indent(line) == depth && !line.trim().is_empty();
    let rest = lines.iter().enumerate().skip(start + 1);
    for (at, line) in rest {
        let line = line.trim_end();
        let ends = line.ends_with(';') || line.ends_with('}') || line.ends_with(',');
        if same_depth(line) && ends && !line.trim_start().starts_with("#[") {
            return at;
        }
    }
    lines.len()
}

fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) => line.get(..at).unwrap_or(""),
        None => line,
    }
}

/// The byte places where `word` stands in `line` as a word of its own.
fn says<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = line.get(..at).and_then(|head| head.chars().next_back());
            let after = line
                .get(at + word.len()..)
                .and_then(|tail| tail.chars().next());
            // A word that ends in part of a name (`std::net::Tcp`) may go on.
            let may_go_on = word.ends_with("Tcp") || word.ends_with("Udp");
            !before.is_some_and(part_of_word) && (may_go_on || !after.is_some_and(part_of_word))
        })
}

fn words_in_code(path: &str, text: &str, words: &[&str], why: &str) -> Vec<Breach> {
    // The test module of a crate may stand in a file of its own.
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (line, code) in code_lines(text) {
        for word in words
            .iter()
            .filter(|word| says(code, word).next().is_some())
        {
            breaches.push(Breach {
                file: path.to_owned(),
                line,
                rule: format!("`{word}`: {why}"),
            });
        }
    }
    breaches
}

pub(crate) fn impure(path: &str, text: &str) -> Vec<Breach> {
    words_in_code(
        path,
        text,
        &IMPURE,
        "a pure crate gets time, chance and bytes as arguments",
    )
}

/// The store that a fleet shares comes with a client of its own, which is not Kafka's.
const SHARED_STORE: &str = "crates/lag/src/fleet/redis";

pub(crate) fn opens_socket(path: &str, text: &str) -> Vec<Breach> {
    if path.starts_with(SHARED_STORE) {
        return Vec::new();
    }
    words_in_code(path, text, &SOCKETS, "only wire opens sockets")
}

pub(crate) fn unbounded_queue(path: &str, text: &str) -> Vec<Breach> {
    words_in_code(
        path,
        text,
        &QUEUES,
        "a queue has a bound, and its constant says who waits",
    )
}

pub(crate) fn length(path: &str, text: &str) -> Vec<Breach> {
    match text.lines().count() {
        lines if lines > LINES_MAX => {
            vec![Breach::of_file(
                path,
                format!("{lines} lines, at most {LINES_MAX}"),
            )]
        }
        _ => Vec::new(),
    }
}

pub(crate) fn unfinished(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in ["todo!", "unimplemented!", "dbg!"] {
            if says(without_comment(line), word).next().is_some() {
                breaches.push(Breach {
                    file: path.to_owned(),
                    line: at + 1,
                    rule: format!("`{word}`"),
                });
            }
        }
    }
    breaches
}

/// `allow` and `expect` attributes want a `reason`, `ignore` says what the test needs.
pub(crate) fn silent_exceptions(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = without_comment(line).trim();
        let mut breach = |rule: &str| {
            breaches.push(Breach {
                file: path.to_owned(),
                line: at + 1,
                rule: rule.to_owned(),
            });
        };
        if code == "#[ignore]" {
            breach("`#[ignore]` without saying what the test needs");
        }
        let exception = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
        if exception.iter().any(|start| code.starts_with(start)) {
            let attribute: Vec<&str> = text.lines().skip(at).take(8).collect();
            let attribute = attribute.join(" ");
            let attribute = attribute.split(")]").next().unwrap_or("");
            if !attribute.contains("reason =") {
                breach("a lint is switched off without a reason");
            }
        }
    }
    breaches
}

/// A path on the machine it was written on. `$dir/tmp`, `./work` and `https://host/work` are not such paths.
pub(crate) fn machine_paths(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            let is_path = line.match_indices(folder).any(|(start, _)| {
                let before = line.get(..start).and_then(|head| head.chars().next_back());
                let after = line
                    .get(start + folder.len()..)
                    .and_then(|tail| tail.chars().next());
                before.is_none_or(|c| !(c.is_alphanumeric() || "._-/}~)".contains(c)))
                    && after.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == '-'))
            });
            if is_path {
                let rule = format!("`{folder}` is a path on one machine");
                breaches.push(Breach {
                    file: path.to_owned(),
                    line: at + 1,
                    rule,
                });
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(breaches: &[Breach]) -> Vec<usize> {
        breaches.iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_caught_but_not_in_its_tests_or_comments() {
        let text = "\
//! Never says Instant::now.
use std::time::Instant;
fn due() -> Instant { Instant::now() }
#[cfg(test)]
mod tests {
    fn start() -> Instant {
        Instant::now()
    }
}
fn later() -> u64 { fastrand::u64(..) }
";
        assert_eq!(lines(&impure("crates/proto/src/a.rs", text)), [3, 10]);
        assert_eq!(impure("crates/proto/src/group/tests.rs", text), []);
    }

    #[test]
    fn a_test_module_in_its_own_file_hides_nothing_after_it() {
        let text = "#[cfg(test)]\nmod tests;\nuse tokio::sync::Mutex;\n";
        assert_eq!(lines(&impure("p.rs", text)), [3]);
        let item = "#[cfg(test)]\n#[derive(Debug)]\nstruct A {\n    at: u8,\n}\nuse rand::Rng;\n";
        assert_eq!(lines(&impure("p.rs", item)), [6]);
    }

    #[test]
    fn words_are_whole_words() {
        assert_eq!(
            impure(
                "p.rs",
                "let operand = brand + strand_rand;\nlet random = 1;"
            ),
            []
        );
        assert_eq!(lines(&impure("p.rs", "use rand::Rng;")), [1]);
    }

    #[test]
    fn sockets_and_unbounded_queues_are_caught() {
        assert_eq!(
            lines(&opens_socket("p.rs", "\nuse std::net::TcpStream as S;")),
            [2, 2]
        );
        assert_eq!(
            lines(&unbounded_queue(
                "p.rs",
                "let (a, b) = mpsc::unbounded_channel();"
            )),
            [1]
        );
        assert_eq!(
            unbounded_queue("p.rs", "let (a, b) = mpsc::channel(LIMIT);"),
            []
        );
    }

    #[test]
    fn long_files_are_caught() {
        assert_eq!(length("p.rs", &"x\n".repeat(LINES_MAX)), []);
        assert_eq!(length("p.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn what_is_left_for_later_is_caught() {
        assert_eq!(
            lines(&unfinished(
                "p.rs",
                "a\n    todo!(\"x\")\n// todo! is banned\n dbg!(x)"
            )),
            [2, 4]
        );
    }

    #[test]
    fn exceptions_without_a_reason_are_caught() {
        let text = "\
#[allow(dead_code)]
#[expect(dead_code, reason = \"the wire names it\")]
#[expect(
    clippy::too_many_lines,
    reason = \"a table\"
)]
#[ignore]
#[ignore = \"needs kafka\"]
#![allow(unused)]
";
        assert_eq!(lines(&silent_exceptions("p.rs", text)), [1, 7, 9]);
    }

    #[test]
    fn paths_of_one_machine_are_caught_and_others_are_not() {
        // Put together here, so that this file names none itself.
        let bad = ["cd |work/main", "let p = \"|tmp/x\";", "see (|root)"].join("\n");
        let bad = bad.replace('|', "/");
        assert_eq!(lines(&machine_paths("p", &bad)), [1, 2, 3]);
        let good =
            "$dir/tmp ./work/ https://host/work /workspace framework/ crates/work target/tmp\n";
        assert_eq!(machine_paths("p", good), []);
    }
}
