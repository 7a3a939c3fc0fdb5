//! Rules about a crate's `Cargo.toml` and about what it pulls in.

use crate::Breach;

/// What a member may depend on within the house. A crate that is not here has no place in it yet.
/// `ottla-proto` and `ottla-partitioner` are level 0; an arrow never points up, and the crates of level 2
/// (producer, consumer, lag, admin) never import each other.
const HOUSE: [(&str, &[&str]); 14] = [
    ("ottla-proto", &[]),
    ("ottla-partitioner", &[]),
    ("ottla-wire", &["ottla-proto"]),
    // A framing bug shared with wire would cancel itself out.
    ("ottla-broker", &["ottla-proto"]),
    (
        "ottla-producer",
        &["ottla-wire", "ottla-proto", "ottla-partitioner"],
    ),
    ("ottla-consumer", &["ottla-wire", "ottla-proto"]),
    ("ottla-admin", &["ottla-wire", "ottla-proto"]),
    (
        "ottla-lag",
        &["ottla-wire", "ottla-proto", "ottla-partitioner"],
    ),
    ("ottla-serdes", &["ottla-proto"]),
    (
        "ottla-worker",
        // The broker only behind the feature `testing`.
        &[
            "ottla-consumer",
            "ottla-producer",
            "ottla-admin",
            "ottla-partitioner",
            "ottla-proto",
            "ottla-broker?",
        ],
    ),
    (
        "ottla",
        &[
            "ottla-producer",
            "ottla-consumer",
            "ottla-lag",
            "ottla-admin",
            "ottla-worker",
            "ottla-wire",
            "ottla-proto",
            "ottla-partitioner",
        ],
    ),
    ("ottla-cli", &["ottla", "ottla-serdes", "ottla-broker"]),
    ("ottla-tests", &["*"]),
    (
        "ottla-benches",
        &[
            "ottla",
            "ottla-broker",
            "ottla-producer",
            "ottla-consumer",
            "ottla-lag",
            "ottla-wire",
            "ottla-proto",
            "ottla-partitioner",
        ],
    ),
];

/// A clock, a socket, a runtime or a random source: level 0 gets these as arguments or not at all.
const IMPURE: [&str; 18] = [
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "kafka-protocol",
    "rustls",
    "redis",
    "rand",
    "rand_core",
    "fastrand",
    "getrandom",
    "oorandom",
    "chrono",
    "time",
    "jiff",
    "quanta",
    "coarsetime",
];

/// Crates that build C, or find a C library for those that link it.
const C_BUILDERS: [&str; 16] = [
    "cc",
    "gcc",
    "cmake",
    "bindgen",
    "pkg-config",
    "vcpkg",
    "nasm-rs",
    "autotools",
    "system-deps",
    "cxx",
    "cxx-build",
    "ring",
    "aws-lc-rs",
    "aws-lc-fips-sys",
    "mimalloc",
    "jemallocator",
];

/// Crates named `-sys` that are plain Rust declarations.
const RUST_ONLY_SYS: [&str; 8] = [
    "jni-sys",
    "linux-raw-sys",
    "windows-sys",
    "js-sys",
    "web-sys",
    "core-foundation-sys",
    "security-framework-sys",
    "r-efi-sys",
];

/// A dependency as a manifest declares it.
struct Dependency {
    name: String,
    /// Declared under `dev-dependencies`.
    dev: bool,
    optional: bool,
    features: Vec<String>,
}

fn parse(path: &str, text: &str) -> Result<toml::Table, Vec<Breach>> {
    text.parse::<toml::Table>().map_err(|error| {
        vec![Breach::of_file(
            path,
            format!("not TOML: {}", error.message()),
        )]
    })
}

fn package_name(table: &toml::Table) -> &str {
    table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(|name| name.as_str())
        .unwrap_or("")
}

fn dependencies(table: &toml::Table) -> Vec<Dependency> {
    let mut found = Vec::new();
    let platforms = table.get("target").and_then(toml::Value::as_table);
    let sections = platforms
        .into_iter()
        .flat_map(|platforms| platforms.values().filter_map(toml::Value::as_table))
        .chain([table]);
    for section in sections {
        for (kind, dev) in [
            ("dependencies", false),
            ("build-dependencies", false),
            ("dev-dependencies", true),
        ] {
            let Some(entries) = section.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            found.extend(
                entries
                    .iter()
                    .map(|(key, entry)| dependency(key, entry, dev)),
            );
        }
    }
    found
}

fn dependency(key: &str, entry: &toml::Value, dev: bool) -> Dependency {
    let features = entry.get("features").and_then(toml::Value::as_array);
    Dependency {
        // A renamed dependency is known by the name of its package.
        name: entry
            .get("package")
            .and_then(toml::Value::as_str)
            .unwrap_or(key)
            .to_owned(),
        dev,
        optional: entry
            .get("optional")
            .and_then(toml::Value::as_bool)
            .unwrap_or(false),
        features: features
            .into_iter()
            .flatten()
            .filter_map(|feature| feature.as_str().map(str::to_owned))
            .collect(),
    }
}

/// Dependencies within the house point downwards, as `HOUSE` lists them. Tests inside a crate may reach
/// where the crate may, and no further: what needs more belongs to the `tests` member.
pub(crate) fn direction(path: &str, text: &str) -> Vec<Breach> {
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(breaches) => return breaches,
    };
    let package = package_name(&table);
    let Some((_, allowed)) = HOUSE.iter().find(|(name, _)| *name == package) else {
        return vec![Breach::of_file(
            path,
            format!("crate `{package}` has no place in the house (HOUSE in tests/tidy)"),
        )];
    };
    let breaks = |dependency: &Dependency| {
        let name = dependency.name.as_str();
        let ours = name == "ottla" || name.starts_with("ottla-");
        let only_optional = allowed
            .iter()
            .any(|entry| entry.strip_suffix('?') == Some(name));
        ours && !allowed.contains(&name)
            && !allowed.contains(&"*")
            && !(only_optional && (dependency.optional || dependency.dev))
    };
    dependencies(&table)
        .iter()
        .filter(|dependency| breaks(dependency))
        .map(|dependency| {
            Breach::of_file(
                path,
                format!("{package} must not depend on {}", dependency.name),
            )
        })
        .collect()
}

/// kafka-protocol only in wire and in the embedded broker (elsewhere at most as a test's oracle); sockets and
/// TLS only there too; nothing impure at level 0.
pub(crate) fn libraries(path: &str, text: &str) -> Vec<Breach> {
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(breaches) => return breaches,
    };
    let package = package_name(&table);
    let pure = matches!(package, "ottla-proto" | "ottla-partitioner");
    let speaks_kafka = matches!(package, "ottla-wire" | "ottla-broker" | "ottla-tests");
    let may_listen = speaks_kafka || matches!(package, "ottla-cli" | "ottla-benches");
    let mut breaches = Vec::new();
    for dependency in dependencies(&table)
        .iter()
        .filter(|dependency| !dependency.dev)
    {
        let name = dependency.name.as_str();
        if pure && IMPURE.contains(&name) {
            breaches.push(Breach::of_file(
                path,
                format!("{package} is pure: no {name}"),
            ));
        }
        if !speaks_kafka && name == "kafka-protocol" {
            breaches.push(Breach::of_file(
                path,
                format!("only wire names kafka-protocol, not {package}"),
            ));
        }
        let sockets = name == "tokio"
            && dependency
                .features
                .iter()
                .any(|feature| feature == "net" || feature == "full");
        // The store that a fleet shares comes with a client of its own, behind a feature.
        let shared_store = package == "ottla-lag" && name == "rustls-graviola";
        if !may_listen && !shared_store && (sockets || name.contains("rustls")) {
            breaches.push(Breach::of_file(
                path,
                format!("only wire opens sockets, not {package} ({name})"),
            ));
        }
    }
    breaches
}

pub(crate) fn lints(path: &str, text: &str) -> Vec<Breach> {
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(breaches) => return breaches,
    };
    let inherits = table
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    match inherits {
        Some(true) => Vec::new(),
        _ => vec![Breach::of_file(path, "wants `[lints] workspace = true`")],
    }
}

pub(crate) fn build_script(path: &str, text: &str) -> Vec<Breach> {
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(breaches) => return breaches,
    };
    let package = table.get("package").and_then(toml::Value::as_table);
    let builds = package
        .is_some_and(|package| package.contains_key("build") || package.contains_key("links"));
    if builds {
        vec![Breach::of_file(path, "a build script or a linked library")]
    } else {
        Vec::new()
    }
}

/// The crates of `cargo tree --prefix none` that compile or link C.
pub(crate) fn compiles_c(origin: &str, tree: &str) -> Vec<Breach> {
    let is_c = |name: &str| {
        C_BUILDERS.contains(&name) || (name.ends_with("-sys") && !RUST_ONLY_SYS.contains(&name))
    };
    crates_where(origin, tree, is_c, "compiles C or links a C library")
}

/// The crates of `cargo tree --prefix none` that a pure crate must not pull in.
pub(crate) fn impure(origin: &str, tree: &str) -> Vec<Breach> {
    crates_where(
        origin,
        tree,
        |name| IMPURE.contains(&name),
        "is a clock, a socket, a runtime or a random source",
    )
}

fn crates_where(origin: &str, tree: &str, is_bad: impl Fn(&str) -> bool, why: &str) -> Vec<Breach> {
    let mut names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| is_bad(name))
        .map(|name| Breach::of_file(origin, format!("{name} {why}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(breaches: &[Breach]) -> Vec<&str> {
        breaches.iter().map(|breach| breach.rule.as_str()).collect()
    }

    #[test]
    fn an_arrow_up_or_sideways_is_caught() {
        let up = "[package]\nname = 'ottla-proto'\n[dependencies]\nottla-wire.workspace = true\n";
        assert_eq!(
            rules(&direction("p", up)),
            ["ottla-proto must not depend on ottla-wire"]
        );
        let sideways =
            "[package]\nname = 'ottla-producer'\n[dependencies]\nottla-consumer.workspace = true\n";
        assert_eq!(
            rules(&direction("p", sideways)),
            ["ottla-producer must not depend on ottla-consumer"]
        );
        let shared_bug =
            "[package]\nname = 'ottla-broker'\n[dev-dependencies]\nottla-wire.workspace = true\n";
        assert_eq!(
            rules(&direction("p", shared_bug)),
            ["ottla-broker must not depend on ottla-wire"]
        );
        let platform = "[package]\nname = 'ottla-lag'\n[target.'cfg(unix)'.dependencies]\nb = { package = 'ottla-broker' }\n";
        assert_eq!(
            rules(&direction("p", platform)),
            ["ottla-lag must not depend on ottla-broker"]
        );
    }

    #[test]
    fn a_crate_without_a_place_is_caught() {
        assert_eq!(
            direction("crates/util/Cargo.toml", "[package]\nname = 'ottla-util'\n").len(),
            1
        );
        assert_eq!(direction("crates/x/Cargo.toml", "not toml at all").len(), 1);
    }

    #[test]
    fn the_worker_may_have_the_broker_only_as_an_option() {
        let head = "[package]\nname = 'ottla-worker'\n[dependencies]\n";
        let optional = format!("{head}ottla-broker = {{ workspace = true, optional = true }}\n");
        assert_eq!(direction("p", &optional), []);
        let always = format!("{head}ottla-broker.workspace = true\n");
        assert_eq!(
            rules(&direction("p", &always)),
            ["ottla-worker must not depend on ottla-broker"]
        );
    }

    #[test]
    fn a_library_above_its_level_is_caught() {
        let clock = "[package]\nname = 'ottla-partitioner'\n[dependencies]\ntokio = '1'\n";
        assert_eq!(
            rules(&libraries("p", clock)),
            ["ottla-partitioner is pure: no tokio"]
        );
        let protocol =
            "[package]\nname = 'ottla-lag'\n[dependencies]\nkafka-protocol.workspace = true\n";
        assert_eq!(
            rules(&libraries("p", protocol)),
            ["only wire names kafka-protocol, not ottla-lag"]
        );
        let socket = "[package]\nname = 'ottla-producer'\n[dependencies]\ntokio = { workspace = true, features = ['net'] }\n";
        assert_eq!(
            rules(&libraries("p", socket)),
            ["only wire opens sockets, not ottla-producer (tokio)"]
        );
        let oracle = "[package]\nname = 'ottla-proto'\n[dev-dependencies]\nkafka-protocol.workspace = true\n";
        assert_eq!(libraries("p", oracle), []);
    }

    #[test]
    fn missing_lints_and_build_scripts_are_caught() {
        assert_eq!(lints("p", "[package]\nname = 'x'\n").len(), 1);
        assert_eq!(lints("p", "[lints]\nworkspace = false\n").len(), 1);
        assert_eq!(lints("p", "[lints]\nworkspace = true\n"), []);
        assert_eq!(build_script("p", "[package]\nbuild = 'make.rs'\n").len(), 1);
    }

    #[test]
    fn c_is_caught_and_plain_declarations_are_not() {
        let tree = "ottla v0.1.0 (crates/ottla)\nzstd-sys v2.0.1\nlinux-raw-sys v0.9.1\ncc v1.2.0\nring v0.17.14 (*)\ncc v1.2.0 (*)\n";
        let found = compiles_c("cargo tree", tree);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            found[0].to_string(),
            "cargo tree: cc compiles C or links a C library"
        );
        assert_eq!(
            impure("ottla-proto", "ottla-proto v0.1.0\ngetrandom v0.3.0\n").len(),
            1
        );
    }
}
