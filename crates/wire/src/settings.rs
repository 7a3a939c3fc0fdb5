//! What a user may set about connections and metadata, and the table of the properties' names.

use ottla_proto::setting::{Kind, Setting};
use ottla_proto::{Error, ErrorKind, Result};
use std::time::Duration;

/// Kafka's port, taken when a bootstrap address names none.
const DEFAULT_PORT: u16 = 9092;

/// Everything a cluster's connections need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses to begin with, `host:port` each (`bootstrap.servers`).
    pub bootstrap: Vec<String>,
    /// Sent with every request, for the brokers' logs and quotas (`client.id`).
    pub client_id: String,
    /// How long a request may stay unanswered once it is the oldest one of its connection
    /// (`request.timeout.ms`).
    pub request_timeout: Duration,
    /// How long reaching one address and agreeing on versions may take
    /// (`socket.connection.setup.timeout.ms`).
    pub connect_timeout: Duration,
    /// How long an operation made of many requests may take: connecting to a cluster, a refresh
    /// (`default.api.timeout.ms`).
    pub api_timeout: Duration,
    /// The first wait before a broker is dialled again (`reconnect.backoff.ms`).
    pub reconnect_backoff: Duration,
    /// The longest such wait (`reconnect.backoff.max.ms`).
    pub reconnect_backoff_max: Duration,
    /// The first wait before a failed request is asked again (`retry.backoff.ms`).
    pub retry_backoff: Duration,
    /// The longest such wait (`retry.backoff.max.ms`).
    pub retry_backoff_max: Duration,
    /// Metadata older than this is asked again (`metadata.max.age.ms`).
    pub metadata_max_age: Duration,
    /// Without metadata for this long we begin again from the bootstrap addresses
    /// (`metadata.recovery.rebootstrap.trigger.ms`, KIP-1102).
    pub metadata_recovery_rebootstrap: Duration,
    /// Whether to begin again from the bootstrap addresses at all
    /// (`metadata.recovery.strategy`).
    pub metadata_recovery: MetadataRecovery,
    /// A connection without traffic for this long is closed (`connections.max.idle.ms`).
    pub connections_max_idle: Duration,
    /// Requests that may be unanswered on one connection; further ones wait in its queue.
    pub max_in_flight: usize,
    /// Whether asking for an unknown topic may make it (`allow.auto.create.topics`).
    pub allow_auto_create_topics: bool,
    /// `SO_SNDBUF`; `None` leaves it to the system (`send.buffer.bytes`).
    pub send_buffer_bytes: Option<usize>,
    /// `SO_RCVBUF`; `None` leaves it to the system (`receive.buffer.bytes`).
    pub receive_buffer_bytes: Option<usize>,
    /// Where jitter and the order of brokers come from; a simulation sets it.
    pub seed: u64,
    /// The software's name as brokers see it (KIP-511).
    pub software_name: String,
    /// The software's version as brokers see it (KIP-511).
    pub software_version: String,
}

/// What to do when every known broker is out of reach (`metadata.recovery.strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataRecovery {
    /// Keep trying the known brokers.
    None,
    /// Begin again from the bootstrap addresses.
    Rebootstrap,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "ottla".to_owned(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            api_timeout: Duration::from_secs(60),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            metadata_recovery_rebootstrap: Duration::from_secs(300),
            metadata_recovery: MetadataRecovery::Rebootstrap,
            connections_max_idle: Duration::from_secs(540),
            max_in_flight: 64,
            allow_auto_create_topics: true,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            seed: fastrand::u64(..),
            software_name: "ottla".to_owned(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

const DAY_MS: i64 = 86_400_000;
const INT_MAX: i64 = i32::MAX as i64;

const fn acted(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting::java(name, &[], kind, default, doc)
}

const fn aliased(aliases: &'static [&'static str], row: Setting) -> Setting {
    Setting { aliases, ..row }
}

const fn sourced(default_source: &'static str, row: Setting) -> Setting {
    row.sourced(default_source)
}

/// The rows of this crate's properties.
pub const SETTINGS: &[Setting] = &[
    aliased(
        &["metadata.broker.list"],
        acted(
            "bootstrap.servers",
            Kind::List,
            "",
            "Addresses to begin with, host:port each; a port left out is 9092.",
        ),
    ),
    sourced(
        "ours",
        acted(
            "client.id",
            Kind::Text,
            "ottla",
            "Sent with every request, for the brokers' logs and quotas.",
        ),
    ),
    aliased(
        &["socket.timeout.ms"],
        acted(
            "request.timeout.ms",
            Kind::Millis(1, INT_MAX),
            "30000",
            "How long a request may stay unanswered once it is the oldest of its connection.",
        ),
    ),
    acted(
        "socket.connection.setup.timeout.ms",
        Kind::Millis(1, INT_MAX),
        "10000",
        "How long reaching one address and agreeing on versions may take.",
    ),
    Setting::ignored(
        "socket.connection.setup.timeout.max.ms",
        Kind::Millis(1, INT_MAX),
        "30000",
    ),
    acted(
        "default.api.timeout.ms",
        Kind::Millis(1, INT_MAX),
        "60000",
        "How long an operation made of many requests may take, such as connecting.",
    ),
    acted(
        "reconnect.backoff.ms",
        Kind::Millis(0, DAY_MS),
        "50",
        "The first wait before a broker is dialled again.",
    ),
    acted(
        "reconnect.backoff.max.ms",
        Kind::Millis(0, DAY_MS),
        "1000",
        "The longest wait before a broker is dialled again.",
    ),
    acted(
        "retry.backoff.ms",
        Kind::Millis(0, DAY_MS),
        "100",
        "The first wait before a failed request is asked again.",
    ),
    acted(
        "retry.backoff.max.ms",
        Kind::Millis(0, DAY_MS),
        "1000",
        "The longest wait before a failed request is asked again.",
    ),
    aliased(
        &["topic.metadata.refresh.interval.ms"],
        acted(
            "metadata.max.age.ms",
            Kind::Millis(1, INT_MAX),
            "300000",
            "Metadata older than this is asked again.",
        ),
    ),
    acted(
        "metadata.recovery.strategy",
        Kind::OneOf(&["rebootstrap", "none"]),
        "rebootstrap",
        "Whether to begin again from the bootstrap addresses when every known broker is out of reach.",
    ),
    acted(
        "metadata.recovery.rebootstrap.trigger.ms",
        Kind::Millis(0, INT_MAX),
        "300000",
        "Without metadata for this long we begin again from the bootstrap addresses.",
    ),
    acted(
        "connections.max.idle.ms",
        Kind::Millis(-1, INT_MAX),
        "540000",
        "A connection without traffic for this long is closed; -1 keeps it.",
    ),
    acted(
        "allow.auto.create.topics",
        Kind::Bool,
        "true",
        "Whether asking for an unknown topic may make it, where the brokers allow that.",
    ),
    sourced(
        "the system",
        aliased(
            &["socket.send.buffer.bytes"],
            acted(
                "send.buffer.bytes",
                Kind::Bytes(-1, INT_MAX),
                "-1",
                "SO_SNDBUF; -1 leaves it to the system.",
            ),
        ),
    ),
    sourced(
        "the system",
        aliased(
            &["socket.receive.buffer.bytes"],
            acted(
                "receive.buffer.bytes",
                Kind::Bytes(-1, INT_MAX),
                "-1",
                "SO_RCVBUF; -1 leaves it to the system.",
            ),
        ),
    ),
    acted(
        "client.dns.lookup",
        Kind::OneOf(&["use_all_dns_ips"]),
        "use_all_dns_ips",
        "Every address of a name is tried in turn.",
    ),
    acted(
        "security.protocol",
        Kind::OneOf(&["PLAINTEXT"]),
        "PLAINTEXT",
        "How connections are secured; only PLAINTEXT so far.",
    ),
    aliased(
        &["sasl.mechanisms"],
        Setting::ignored("sasl.mechanism", Kind::Text, ""),
    ),
    Setting::ignored("sasl.jaas.config", Kind::Secret, ""),
    Setting::ignored("sasl.username", Kind::Text, ""),
    Setting::ignored("sasl.password", Kind::Secret, ""),
    Setting::ignored("sasl.kerberos.service.name", Kind::Text, ""),
    Setting::ignored("sasl.login.callback.handler.class", Kind::Text, ""),
    Setting::ignored("sasl.client.callback.handler.class", Kind::Text, ""),
    Setting::ignored("sasl.oauthbearer.token.endpoint.url", Kind::Text, ""),
    aliased(
        &["ssl.ca.location"],
        Setting::ignored("ssl.truststore.location", Kind::Text, ""),
    ),
    Setting::ignored("ssl.truststore.password", Kind::Secret, ""),
    Setting::ignored("ssl.truststore.type", Kind::Text, ""),
    Setting::ignored("ssl.truststore.certificates", Kind::Text, ""),
    Setting::ignored("ssl.keystore.location", Kind::Text, ""),
    Setting::ignored("ssl.keystore.password", Kind::Secret, ""),
    Setting::ignored("ssl.keystore.type", Kind::Text, ""),
    Setting::ignored("ssl.keystore.key", Kind::Secret, ""),
    Setting::ignored("ssl.keystore.certificate.chain", Kind::Text, ""),
    Setting::ignored("ssl.key.password", Kind::Secret, ""),
    Setting::ignored("ssl.endpoint.identification.algorithm", Kind::Text, "https"),
    Setting::ignored("ssl.enabled.protocols", Kind::List, ""),
    Setting::ignored("ssl.protocol", Kind::Text, ""),
    Setting::ignored("ssl.cipher.suites", Kind::List, ""),
];

/// The row of a property, by its name or an alias.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|row| row.name == name || row.aliases.contains(&name))
}

impl Settings {
    /// Sets a property by its name or an alias. A row that is
    /// [`Support::Ignored`](ottla_proto::setting::Support::Ignored) changes nothing.
    ///
    /// # Errors
    /// `Config`, naming the property, when this crate has no such property or the text is not what
    /// its row says.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let row = setting(name)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("there is no property {name}")))?;
        let value = value.trim();
        match row.name {
            "bootstrap.servers" => self.bootstrap = list(value),
            "client.id" => self.client_id = value.to_owned(),
            "request.timeout.ms" => self.request_timeout = millis(row, value)?,
            "socket.connection.setup.timeout.ms" => self.connect_timeout = millis(row, value)?,
            "default.api.timeout.ms" => self.api_timeout = millis(row, value)?,
            "reconnect.backoff.ms" => self.reconnect_backoff = millis(row, value)?,
            "reconnect.backoff.max.ms" => self.reconnect_backoff_max = millis(row, value)?,
            "retry.backoff.ms" => self.retry_backoff = millis(row, value)?,
            "retry.backoff.max.ms" => self.retry_backoff_max = millis(row, value)?,
            "metadata.max.age.ms" => self.metadata_max_age = millis(row, value)?,
            "metadata.recovery.strategy" => {
                self.metadata_recovery = match one_of(row, value)? {
                    "none" => MetadataRecovery::None,
                    _ => MetadataRecovery::Rebootstrap,
                }
            }
            "metadata.recovery.rebootstrap.trigger.ms" => {
                self.metadata_recovery_rebootstrap = millis(row, value)?;
            }
            "connections.max.idle.ms" => self.connections_max_idle = millis(row, value)?,
            "allow.auto.create.topics" => self.allow_auto_create_topics = boolean(row, value)?,
            "send.buffer.bytes" => self.send_buffer_bytes = buffer(row, value)?,
            "receive.buffer.bytes" => self.receive_buffer_bytes = buffer(row, value)?,
            "client.dns.lookup" | "security.protocol" => {
                one_of(row, value)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The bootstrap addresses as host and port.
    ///
    /// # Errors
    /// `Config`, naming the entry, when there is none or one cannot be read.
    pub fn addresses(&self) -> Result<Vec<(String, u16)>> {
        if self.bootstrap.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "bootstrap.servers is empty: at least one host:port is needed",
            ));
        }
        self.bootstrap.iter().map(|entry| address(entry)).collect()
    }
}

fn address(entry: &str) -> Result<(String, u16)> {
    let wrong = || {
        Error::new(
            ErrorKind::Config,
            format!("bootstrap.servers has the entry \"{entry}\", which is not host:port"),
        )
    };
    // A listener's name in front ("PLAINTEXT://host:port") is tolerated, as librdkafka does.
    let bare = entry.trim();
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let (host, port) = if let Some(rest) = bare.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        (host, rest.strip_prefix(':'))
    } else if bare.matches(':').count() > 1 {
        (bare, None) // an IPv6 address without a port
    } else {
        match bare.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (bare, None),
        }
    };
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?,
        None => DEFAULT_PORT,
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn list(value: &str) -> Vec<String> {
    let entries = value.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

fn wrong(row: &Setting, value: &str, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("{} is \"{value}\" but must be {wanted}", row.name),
    )
}

fn whole(row: &Setting, value: &str) -> Result<i64> {
    let (least, most) = match row.kind {
        Kind::Int(least, most) | Kind::Millis(least, most) | Kind::Bytes(least, most) => {
            (least, most)
        }
        _ => (i64::MIN, i64::MAX),
    };
    let number = value.parse::<i64>().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            wrong(
                row,
                value,
                &format!("a whole number from {least} to {most}"),
            )
        })
}

/// -1 where a row allows it means "never".
fn millis(row: &Setting, value: &str) -> Result<Duration> {
    let millis = whole(row, value)?;
    Ok(u64::try_from(millis).map_or(Duration::MAX, Duration::from_millis))
}

fn buffer(row: &Setting, value: &str) -> Result<Option<usize>> {
    let bytes = whole(row, value)?;
    // librdkafka writes "leave it to the system" as 0, Java as -1.
    Ok(usize::try_from(bytes).ok().filter(|bytes| *bytes > 0))
}

fn boolean(row: &Setting, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(row, value, "true or false")),
    }
}

fn one_of(row: &Setting, value: &str) -> Result<&'static str> {
    let Kind::OneOf(words) = row.kind else {
        return Ok("");
    };
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(value));
    found
        .copied()
        .ok_or_else(|| wrong(row, value, &words.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::setting::Support;

    #[test]
    fn the_defaults_are_what_the_rows_say() {
        let mut set = Settings::default();
        for row in SETTINGS.iter().filter(|row| !row.default.is_empty()) {
            set.set(row.name, row.default).unwrap();
        }
        let fresh = Settings {
            seed: set.seed,
            ..Settings::default()
        };
        assert_eq!(format!("{set:?}"), format!("{fresh:?}"));
    }

    #[test]
    fn every_acted_row_changes_something_or_refuses() {
        for row in SETTINGS.iter().filter(|row| row.support == Support::Acted) {
            let other = match row.kind {
                Kind::Text | Kind::List | Kind::Secret => "elsewhere:1",
                Kind::Bool => "false",
                Kind::OneOf(words) => words
                    .last()
                    .copied()
                    .filter(|w| *w != row.default)
                    .unwrap_or("SASL_SSL"),
                _ => "7777",
            };
            let mut settings = Settings::default();
            let before = format!("{settings:?}");
            let result = settings.set(row.name, other);
            assert!(
                result.is_err() || format!("{settings:?}") != before,
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn security_that_is_not_there_is_refused_not_ignored() {
        let error = Settings::default()
            .set("security.protocol", "SASL_SSL")
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("security.protocol"), "{error}");
    }

    #[test]
    fn a_wrong_number_names_the_property_and_its_bounds() {
        let error = Settings::default()
            .set("request.timeout.ms", "soon")
            .unwrap_err();
        assert!(
            error.to_string().contains("request.timeout.ms is \"soon\""),
            "{error}"
        );
        assert!(Settings::default().set("request.timeout.ms", "0").is_err());
        assert!(Settings::default().set("no.such", "0").is_err());
    }

    #[test]
    fn librdkafka_names_work() {
        let mut settings = Settings::default();
        settings.set("metadata.broker.list", "a:1, b:2,").unwrap();
        assert_eq!(settings.bootstrap, ["a:1", "b:2"]);
    }

    #[test]
    fn addresses_of_every_form_are_read() {
        let read = |entry: &str| {
            let settings = Settings {
                bootstrap: vec![entry.to_owned()],
                ..Settings::default()
            };
            settings.addresses().map(|mut all| all.remove(0))
        };
        let is = |host: &str, port| (host.to_owned(), port);
        assert_eq!(read("kafka:9093").unwrap(), is("kafka", 9093));
        assert_eq!(read("kafka").unwrap(), is("kafka", 9092));
        assert_eq!(read("[::1]:9093").unwrap(), is("::1", 9093));
        assert_eq!(read("::1").unwrap(), is("::1", 9092));
        assert_eq!(read("PLAINTEXT://kafka:1").unwrap(), is("kafka", 1));
        for wrong in ["kafka:", "kafka:x", ":1", "kafka:0", "kafka:70000", "[::1"] {
            let error = read(wrong).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
        assert!(Settings::default().addresses().is_err());
    }
}
