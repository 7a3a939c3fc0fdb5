//! The files of the repository, and what cargo says of its dependencies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Larger files are data, not text to be read.
const TEXT_BYTES_MAX: u64 = 512 * 1024;

/// Folders that hold what was built or fetched.
const SKIPPED_FOLDERS: [&str; 4] = ["target", ".git", ".kafka", "corpus"];

pub(crate) struct File {
    /// From the root of the repository, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_tidy(&self) -> bool {
        self.path.starts_with("tests/tidy/")
    }

    pub(crate) fn is_crate_source(&self) -> bool {
        self.is_rust() && self.path.starts_with("crates/") && self.path.contains("/src/")
    }

    pub(crate) fn is_source_of(&self, name: &str) -> bool {
        self.is_rust() && self.path.starts_with(&format!("crates/{name}/src/"))
    }

    /// The manifest of a member of the workspace (`benches/versus` and `fuzz` are workspaces of their own).
    pub(crate) fn is_member_manifest(&self) -> bool {
        match self.path.strip_suffix("/Cargo.toml") {
            Some("tests" | "benches") => true,
            Some(folder) => folder
                .strip_prefix("crates/")
                .is_some_and(|name| !name.contains('/')),
            None => false,
        }
    }
}

pub(crate) struct Repository {
    root: PathBuf,
    pub(crate) files: Vec<File>,
}

impl Repository {
    pub(crate) fn open() -> io::Result<Repository> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.extend(read(&root, &entry.path()));
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Repository { root, files })
    }

    /// Every crate that building the workspace may build, a line each.
    pub(crate) fn dependencies(&self) -> io::Result<String> {
        self.tree(&["--workspace", "-e", "normal,build"])
    }

    /// The same for one crate as its users build it, itself on the first line.
    pub(crate) fn dependencies_of(&self, package: &str) -> io::Result<String> {
        self.tree(&["-p", package, "-e", "normal"])
    }

    /// Asks for all platforms, without the network first. A machine that has fetched only its own platform's
    /// crates and has no network answers for its own platform.
    fn tree(&self, what: &[&str]) -> io::Result<String> {
        let attempts: [&[&str]; 3] = [
            &["--offline", "--target", "all"],
            &["--target", "all"],
            &["--offline"],
        ];
        let mut said = String::new();
        for attempt in attempts {
            let output = Command::new(env!("CARGO"))
                .current_dir(&self.root)
                .args(["tree", "--locked", "--all-features", "--prefix", "none"])
                .args(what)
                .args(attempt)
                .output()?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Err(io::Error::other(format!("cargo tree failed: {said}")))
    }
}

/// None for what is too long or is not text.
fn read(root: &Path, path: &Path) -> Option<File> {
    if fs::metadata(path).ok()?.len() > TEXT_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let path = path
        .strip_prefix(root)
        .ok()?
        .to_string_lossy()
        .replace('\\', "/");
    Some(File { path, text })
}
