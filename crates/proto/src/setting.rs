//! The rows of the settings table. Each crate owns the rows of its own properties; the facade puts
//! them together into the one table that parsing, documentation and warnings read.

/// What a setting's text must look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A comma-separated list.
    List,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds, both included.
    Int(i64, i64),
    /// A fraction within these bounds, both included.
    Float(f64, f64),
    /// A number of milliseconds within these bounds, both included.
    Millis(i64, i64),
    /// A number of bytes within these bounds, both included.
    Bytes(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Text that must never reach a log.
    Secret,
}

/// Whether we act on a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what Kafka's documentation says.
    Acted,
    /// Known from other clients, accepted and listed in a warning: we do not act on it.
    Ignored,
}

/// One row: the single source of a setting's name, type, default and documentation.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Kafka's (the Java client's) name, or ours where Kafka has none.
    pub name: &'static str,
    /// Other names for it, librdkafka's first.
    pub aliases: &'static [&'static str],
    /// What its text must look like.
    pub kind: Kind,
    /// The default as text; empty means "not set".
    pub default: &'static str,
    /// Where the default comes from.
    pub default_source: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// Whether we act on it.
    pub support: Support,
}

impl Setting {
    /// A row that we act on, with a default from elsewhere.
    pub const fn of(
        default_source: &'static str,
        name: &'static str,
        aliases: &'static [&'static str],
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::java(name, aliases, kind, default, doc).sourced(default_source)
    }

    /// A row that we act on, with the Java client's default.
    pub const fn java(
        name: &'static str,
        aliases: &'static [&'static str],
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            aliases,
            kind,
            default,
            default_source: "Java client 4.x",
            doc,
            support: Support::Acted,
        }
    }

    /// A row of the Java client's that we know and do not act on.
    pub const fn ignored(name: &'static str, kind: Kind, default: &'static str) -> Self {
        let doc = "Known from other clients; not acted on.";
        Self {
            support: Support::Ignored,
            ..Self::java(name, &[], kind, default, doc)
        }
    }

    /// The same with a default from elsewhere.
    #[must_use]
    pub const fn sourced(self, default_source: &'static str) -> Self {
        Self {
            default_source,
            ..self
        }
    }
}
