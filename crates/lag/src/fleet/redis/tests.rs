//! The store on a real Redis server, which each test starts for itself and ends.

use super::*;
use crate::fleet::FleetOptions;
use crate::fleet::key;
use crate::source::Asked;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SECOND: Duration = Duration::from_secs(1);

/// A server, ended by its id when it is dropped.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("ottla-redis-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        Self::start_in(folder, arguments)
    }

    /// A port that is taken is tried no further.
    fn start_in(folder: PathBuf, arguments: &[&str]) -> Self {
        for _ in 0..20 {
            let port = fastrand::u16(20_000..60_000);
            if let Some(child) = launch(&folder, port, arguments) {
                return Self {
                    child,
                    port,
                    folder,
                };
            }
        }
        panic!("redis-server does not start");
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self, arguments: &[&str]) {
        self.child = launch(&self.folder, self.port, arguments).unwrap();
    }

    fn store(&self) -> RedisStore {
        let url = format!("redis://127.0.0.1:{}", self.port);
        RedisStore::builder(url).build().unwrap()
    }

    /// Runs a command by Redis's own client.
    fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(words)
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    }
}

/// Starts a server and waits until it says that it is ready; `None` if it ends instead.
fn launch(folder: &Path, port: u16, arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    let tls = arguments.contains(&"--tls-cert-file");
    let port = port.to_string();
    let ports = match tls {
        true => ["--port", "0", "--tls-port", &port],
        false => ["--port", &port, "--save", ""],
    };
    command.args(ports).args(arguments);
    command.args(["--bind", "127.0.0.1", "--appendonly", "no", "--dir"]);
    command
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .expect("redis-server (Debian package redis-server)");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.is_ok_and(|line| line.contains("Ready to accept")));
    // Its log must be read on, or it waits when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    if ready {
        return Some(child);
    }
    child.wait().unwrap();
    None
}

fn question(group: &str) -> Key {
    key(
        "prod",
        &Asked {
            group: group.into(),
            topics: vec!["orders".into()],
        },
        SECOND,
    )
}

fn publication(group: &str, token: u64, body: &str) -> Publication {
    Publication {
        key: question(group),
        token,
        age: SECOND,
        body: body.to_owned(),
    }
}

async fn claim(store: &mut RedisStore, owner: &str) -> Result<Claim, Trouble> {
    let claims = store.claim(&[question("billing")], owner, SECOND).await;
    claims.map(|mut claims| claims.remove(0))
}

#[tokio::test]
#[ignore = "needs redis"]
async fn one_owner_holds_a_lease_and_the_other_reads_what_it_publishes() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.store(), server.store());
    assert_eq!(claim(&mut first, "aa").await, Ok(Claim::Ours { token: 1 }));
    assert_eq!(claim(&mut first, "aa").await, Ok(Claim::Ours { token: 1 }));
    let Ok(Claim::Theirs { value: None, now }) = claim(&mut second, "bb").await else {
        panic!("the lease is the first one's");
    };
    let body = "told\norders - - 1,2,0,-";
    let published = [publication("billing", 1, body)];
    first.publish(&published, "aa", 10 * SECOND).await.unwrap();
    let Ok(Claim::Theirs {
        value: Some(value), ..
    }) = claim(&mut second, "bb").await
    else {
        panic!("it was published");
    };
    let text = String::from_utf8(value).unwrap();
    let (head, rest) = text.split_once(" told").unwrap();
    let stamp: u64 = head.strip_prefix("1 ").unwrap().parse().unwrap();
    assert_eq!(rest, "\norders - - 1,2,0,-");
    assert!(
        stamp + 1_000 >= now && stamp <= now,
        "by the store's clock, less the age"
    );
    let ttl: i64 = server
        .command(&["pttl", &format!("{}:value", question("billing").0)])
        .parse()
        .unwrap();
    assert!(ttl > 0 && ttl <= 10_000);
}

#[tokio::test]
#[ignore = "needs redis"]
async fn the_token_grows_with_each_taking_and_fences_the_old_holder() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.store(), server.store());
    claim(&mut first, "aa").await.unwrap();
    // A lease that is renewed for days must not outlive its counter.
    let counter = format!("{}:token", question("billing").0);
    server.command(&["pexpire", &counter, "60000"]);
    claim(&mut first, "aa").await.unwrap();
    let lives: i64 = server.command(&["pttl", &counter]).parse().unwrap();
    assert!(lives > 60_000, "{lives}");
    // As if it had run out.
    server.command(&["del", &format!("{}:lease", question("billing").0)]);
    assert_eq!(claim(&mut second, "bb").await, Ok(Claim::Ours { token: 2 }));
    let late = [publication("billing", 1, "told")];
    first.publish(&late, "aa", SECOND).await.unwrap();
    let exists = server.command(&["exists", &format!("{}:value", question("billing").0)]);
    assert_eq!(exists, "0");
}

#[tokio::test]
#[ignore = "needs redis"]
async fn many_questions_go_in_one_script() {
    let server = Server::start(&[]);
    let mut store = server.store();
    let keys: Vec<Key> = (0..500).map(|n| question(&n.to_string())).collect();
    let claims = store.claim(&keys, "aa", SECOND).await.unwrap();
    assert_eq!(claims, vec![Claim::Ours { token: 1 }; 500]);
    let body = format!(
        "told\norders - -{}",
        " 1234567,1234569,0,1234569".repeat(1_000)
    );
    let all = (0..100).map(|n| publication(&n.to_string(), 1, &body));
    store
        .publish(&all.collect::<Vec<_>>(), "aa", SECOND)
        .await
        .unwrap();
    assert_eq!(server.command(&["dbsize"]), "1100");
}

#[tokio::test]
#[ignore = "needs redis"]
async fn a_server_that_is_gone_is_unreachable_and_serves_again_after_a_restart() {
    let mut server = Server::start(&[]);
    let mut store = server.store();
    claim(&mut store, "aa").await.unwrap();
    server.stop();
    assert_eq!(claim(&mut store, "aa").await, Err(Trouble::Unreachable));
    server.restart(&[]);
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(claim(&mut store, "aa").await);
        if answers.last() == Some(&Ok(Claim::Ours { token: 1 })) {
            return;
        }
    }
    panic!("{answers:?}");
}

#[tokio::test]
#[ignore = "needs redis"]
async fn a_server_that_hangs_is_slow() {
    let server = Server::start(&[]);
    let mut store = server.store();
    claim(&mut store, "aa").await.unwrap();
    server.command(&["client", "pause", "10000", "all"]);
    let began = std::time::Instant::now();
    assert_eq!(claim(&mut store, "aa").await, Err(Trouble::Slow));
    assert!(began.elapsed() < 2 * RESPONSE_TIMEOUT);
}

#[tokio::test]
#[ignore = "needs redis"]
async fn a_full_server_refuses_new_leases_and_publications_and_keeps_leases() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let (mut first, mut second) = (server.store(), server.store());
    claim(&mut first, "aa").await.unwrap();
    server.command(&["config", "set", "maxmemory", "1"]);
    assert_eq!(claim(&mut first, "aa").await, Ok(Claim::Ours { token: 1 }));
    let published = [publication("billing", 1, "told")];
    let refused = first.publish(&published, "aa", SECOND).await;
    assert_eq!(refused, Err(Trouble::Refused));
    let audit = second.claim(&[question("audit")], "bb", SECOND).await;
    assert_eq!(audit, Err(Trouble::Refused));
}

#[tokio::test]
#[ignore = "needs redis"]
async fn keys_that_hold_something_else_are_refused_or_taken_over() {
    let server = Server::start(&[]);
    let mut store = server.store();
    let lease = format!("{}:lease", question("billing").0);
    server.command(&["set", &lease, "garbage"]);
    assert_eq!(claim(&mut store, "aa").await, Ok(Claim::Ours { token: 1 }));
    server.command(&["del", &lease]);
    server.command(&["lpush", &lease, "garbage"]);
    assert_eq!(claim(&mut store, "aa").await, Err(Trouble::Refused));
}

#[tokio::test]
#[ignore = "needs redis"]
async fn a_password_is_given_and_a_wrong_one_is_refused() {
    let server = Server::start(&["--requirepass", "secret"]);
    let store = |password| {
        let url = format!("redis://:{password}@127.0.0.1:{}", server.port);
        RedisStore::builder(url).build().unwrap()
    };
    assert_eq!(
        claim(&mut store("secret"), "aa").await,
        Ok(Claim::Ours { token: 1 })
    );
    assert_eq!(
        claim(&mut store("wrong"), "aa").await,
        Err(Trouble::Refused)
    );
    assert!(!format!("{:?}", store("secret")).contains("secret"));
}

/// Certificates by openssl, removed with their folder by the server that gets it.
struct Certificates(PathBuf);

impl Certificates {
    /// An authority `ca`, and of it a certificate for localhost, `server`, and one for us, `client`; and
    /// `stranger` for us by itself.
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("ottla-redis-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
        std::fs::write(folder.join("names"), names).unwrap();
        let made = Self(folder);
        made.authority("ca");
        made.authority("stranger");
        for name in ["server", "client"] {
            made.signed(name);
        }
        made
    }

    fn run(&self, words: &[&str]) {
        let mut openssl = Command::new("openssl");
        let output = openssl.args(words).current_dir(&self.0).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
    }

    /// Asks for a certificate with a new key.
    fn request(&self, name: &str, form: &[&str], out: &str) {
        let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let key = format!("{name}.key");
        let subject = format!("/CN={name}");
        let files = ["-subj", &subject, "-keyout", &key, "-out", out];
        let curve: Vec<&str> = curve.split(' ').collect();
        self.run(&[&["req"], &curve[..], form, &files].concat());
    }

    fn authority(&self, name: &str) {
        self.request(name, &["-x509", "-days", "2"], &format!("{name}.pem"));
    }

    fn signed(&self, name: &str) {
        self.request(name, &[], "csr");
        let out = format!("{name}.pem");
        let words =
            "x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        let words: Vec<&str> = words.split(' ').collect();
        self.run(&[&words[..], &["-out", &out]].concat());
    }

    fn place(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    /// A server with them; whether it wants to see a certificate of its clients.
    fn server(&self, wants: &str) -> Server {
        let places = ["server.pem", "server.key", "ca.pem"].map(|name| self.place(name));
        let [certificate, private, authority] = &places;
        Server::start_in(
            self.0.clone(),
            &[
                "--tls-cert-file",
                certificate,
                "--tls-key-file",
                private,
                "--tls-ca-cert-file",
                authority,
                "--tls-auth-clients",
                wants,
                "--requirepass",
                "secret",
            ],
        )
    }
}

#[tokio::test]
#[ignore = "needs redis"]
async fn tls_trusts_the_given_authority_and_no_other() {
    let certificates = Certificates::new();
    let server = certificates.server("no");
    let url = format!("rediss://:secret@localhost:{}", server.port);
    let ours = Ok(Claim::Ours { token: 1 });
    let trusting = |name: &str| {
        let builder = RedisStore::builder(url.clone());
        let builder = builder.root_certificate(certificates.read(name));
        builder.build().unwrap()
    };
    assert_eq!(claim(&mut trusting("ca.pem"), "aa").await, ours);
    assert!(claim(&mut trusting("stranger.pem"), "aa").await.is_err());
    let mut strict = RedisStore::builder(url).build().unwrap();
    assert!(claim(&mut strict, "aa").await.is_err());
}

#[tokio::test]
#[ignore = "needs redis"]
async fn a_server_that_asks_for_a_certificate_lets_in_who_has_one_of_its_authority() {
    let certificates = Certificates::new();
    let server = certificates.server("yes");
    let url = format!("rediss://:secret@localhost:{}", server.port);
    let with = |name: Option<&str>| {
        let builder = RedisStore::builder(url.clone());
        let builder = builder.root_certificate(certificates.read("ca.pem"));
        let builder = match name {
            Some(name) => builder.client_certificate(
                certificates.read(&format!("{name}.pem")),
                certificates.read(&format!("{name}.key")),
            ),
            None => builder,
        };
        builder.build().unwrap()
    };
    let ours = Ok(Claim::Ours { token: 1 });
    assert_eq!(claim(&mut with(Some("client")), "aa").await, ours);
    assert_eq!(
        claim(&mut with(None), "aa").await,
        Err(Trouble::Unreachable)
    );
    let stranger = claim(&mut with(Some("stranger")), "aa").await;
    assert_eq!(stranger, Err(Trouble::Unreachable));
}

/// Asks the store that these properties describe.
async fn claim_by(properties: &[(&str, &str)]) -> Result<Claim, Trouble> {
    let mut options = FleetOptions::default();
    for (name, value) in properties {
        let name = format!("lag.fleet.{name}");
        options.read(&name, value).unwrap();
    }
    let mut store = options.store().unwrap().unwrap();
    let claims = store.claim(&[question("billing")], "aa", SECOND).await;
    claims.map(|mut claims| claims.remove(0))
}

#[tokio::test]
#[ignore = "needs redis"]
async fn properties_name_the_certificates_to_show_and_to_trust() {
    let certificates = Certificates::new();
    let server = certificates.server("yes");
    let (port, places) = (
        server.port.to_string(),
        ["ca.pem", "client.pem", "client.key"].map(|name| certificates.place(name)),
    );
    let mut properties = vec![
        ("enable", "true"),
        ("redis.port", port.as_str()),
        ("redis.password", "secret"),
        ("redis.ca.location", places[0].as_str()),
    ];
    assert_eq!(claim_by(&properties).await, Err(Trouble::Unreachable));
    properties.push(("redis.certificate.location", &places[1]));
    properties.push(("redis.key.location", &places[2]));
    assert_eq!(claim_by(&properties).await, Ok(Claim::Ours { token: 1 }));
}
