//! Kafka's properties: from code, from a Java `.properties` file, from the environment.

use crate::table;
use ottla_proto::setting::{Kind, Support};
use ottla_proto::{Error, ErrorKind, Result};
use std::fmt;
use std::path::Path;

/// Properties by their Java names. Names of librdkafka are translated, values are checked, and
/// what is known but not acted on is remembered for one warning.
#[derive(Clone, Default)]
pub struct Properties {
    /// Later entries win.
    entries: Vec<(&'static str, String)>,
    ignored: Vec<&'static str>,
}

impl Properties {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a property.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: an unknown name (with the nearest known one), or a value that does not
    /// fit.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<()> {
        let row = table::find_or_suggest(name.trim())?;
        let value = value.into();
        let value = value.trim();
        if row.support == Support::Ignored {
            self.ignored.push(row.name);
            return Ok(());
        }
        table::check(row, value)?;
        self.entries.push((row.name, value.to_owned()));
        Ok(())
    }

    /// Reads a Java `.properties` file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the file when it cannot be read and the line at fault when it
    /// can.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read {}: {error}", path.display());
            Error::new(ErrorKind::Config, message).caused_by(error)
        })?;
        Self::parse(&text).map_err(|error| {
            Error::new(ErrorKind::Config, format!("{}: {error}", path.display())).caused_by(error)
        })
    }

    /// Parses the text of a Java `.properties` file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the line at fault.
    pub fn parse(text: &str) -> Result<Self> {
        let mut properties = Self::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, first)) = lines.next() {
            let mut line = first.trim_start().to_owned();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            while continues(&line) {
                line.pop();
                line.push_str(lines.next().map_or("", |(_, next)| next.trim_start()));
            }
            let (name, value) = split(&line);
            properties
                .set(&unescape(name), unescape(value))
                .map_err(|error| {
                    let message = format!("line {}: {error}", number + 1);
                    Error::new(ErrorKind::Config, message).caused_by(error)
                })?;
        }
        Ok(properties)
    }

    /// Takes properties from the process's environment: with the prefix `KAFKA_`,
    /// `KAFKA_BOOTSTRAP_SERVERS` is `bootstrap.servers`, whatever the letters' case. Variables that
    /// name no property are left alone, since other programs use the same prefix.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a value does not fit.
    pub fn from_env(prefix: &str) -> Result<Self> {
        let variables = std::env::vars_os();
        // What is not text can be no property.
        let text =
            variables.filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        Self::from_variables(prefix, text)
    }

    /// As [`from_env`](Self::from_env), from a `.env` file: `NAME=value` a line, perhaps with
    /// `export` before it, with quotes around the value, or with `#` before a comment line.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the file, when it cannot be read or a value does not fit.
    pub fn from_env_file(prefix: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read {}: {error}", path.display());
            Error::new(ErrorKind::Config, message).caused_by(error)
        })?;
        Self::from_variables(prefix, text.lines().filter_map(variable)).map_err(|error| {
            let message = format!("{}: {error}", path.display());
            Error::new(ErrorKind::Config, message).caused_by(error)
        })
    }

    /// As [`from_env`](Self::from_env), from these variables.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut properties = Self::new();
        for (variable, value) in variables {
            let upper = variable.to_ascii_uppercase();
            let Some(rest) = upper.strip_prefix(&prefix.to_ascii_uppercase()) else {
                continue;
            };
            // A few names have underscores themselves.
            let own = rest.to_ascii_lowercase();
            let dotted = own.replace('_', ".");
            let known = [dotted, own];
            if let Some(name) = known.iter().find(|name| table::find(name).is_some()) {
                properties.set(name, value)?;
            }
        }
        Ok(properties)
    }

    /// Adds all of `other`, which win over what is here.
    pub fn merge(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.ignored.extend(other.ignored);
    }

    /// The value of a property, if it was set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = table::find(name)?.name;
        self.entries
            .iter()
            .rev()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value.as_str())
    }

    /// Names that were set and that we do not act on, each once.
    pub fn ignored(&self) -> Vec<&'static str> {
        let mut names = self.ignored.clone();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Hands each property that stands among `rows` to `set`.
    pub(crate) fn apply(
        &self,
        rows: &[ottla_proto::setting::Setting],
        mut set: impl FnMut(&str, &str) -> Result<()>,
    ) -> Result<()> {
        for (name, value) in &self.entries {
            if rows.iter().any(|row| row.name == *name) {
                set(name, value)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name| table::find(name).is_none_or(|row| row.kind == Kind::Secret);
        let mut map = f.debug_map();
        for (name, value) in &self.entries {
            map.entry(name, if secret(name) { &"(hidden)" } else { value });
        }
        map.finish()
    }
}

/// The variable that a line of a `.env` file sets.
fn variable(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = value.strip_prefix(quote)?;
        inner.strip_suffix(quote)
    });
    Some((name.trim().to_owned(), quoted.unwrap_or(value).to_owned()))
}

/// Whether a line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.chars()
        .rev()
        .take_while(|&letter| letter == '\\')
        .count()
        % 2
        == 1
}

/// Splits at the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|letter: char| {
        let end = !escaped && (letter == '=' || letter == ':' || letter.is_whitespace());
        escaped = letter == '\\' && !escaped;
        end
    });
    let Some(end) = end else { return (line, "") };
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (
        name,
        rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start(),
    )
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let code: String = letters.by_ref().take(4).collect();
                let letter = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                out.push(letter.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_properties_file_is_read_as_java_reads_it() {
        let text = "# comment\n! another\n\nbootstrap.servers = a:1,\\\n    b:2\n\
                    linger.ms:7\nacks all\nclient.id=caf\\u00e9\\ 1\n";
        let properties = Properties::parse(text).unwrap();
        assert_eq!(properties.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(properties.get("queue.buffering.max.ms"), Some("7"));
        assert_eq!(properties.get("acks"), Some("all"));
        assert_eq!(properties.get("client.id"), Some("café 1"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = Properties::parse("acks=all\nlinger.ms=soon\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("line 2: linger.ms must be a whole number"),
            "{error}"
        );
    }

    #[test]
    fn a_java_file_with_serializers_loads_unchanged_and_they_are_listed() {
        let text = "key.serializer=org.apache.kafka.common.serialization.StringSerializer\n";
        assert_eq!(
            Properties::parse(text).unwrap().ignored(),
            ["key.serializer"]
        );
    }

    #[test]
    fn the_environment_gives_what_it_names_and_foreign_variables_are_left_alone() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = [
            variable("KAFKA_BOOTSTRAP_SERVERS", "k:9092"),
            variable("kafka_linger_ms", "9"),
            variable("KAFKA_HEAP_OPTS", "-Xmx1g"),
            variable("PATH", "/bin"),
        ];
        let properties = Properties::from_variables("KAFKA_", variables).unwrap();
        assert_eq!(properties.get("bootstrap.servers"), Some("k:9092"));
        assert_eq!(properties.get("linger.ms"), Some("9"));
    }

    #[test]
    fn a_line_of_an_env_file_sets_a_variable() {
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(variable("KAFKA_ACKS=all"), pair("KAFKA_ACKS", "all"));
        assert_eq!(variable(" export A = \"x y\" "), pair("A", "x y"));
        assert_eq!(variable("A='k=v'"), pair("A", "k=v"));
        assert_eq!(variable("A="), pair("A", ""));
        assert_eq!(variable("# A=1"), None);
        assert_eq!(variable(""), None);
        let missing = Properties::from_env_file("KAFKA_", "/no/such/.env").unwrap_err();
        assert!(missing.to_string().contains("/no/such/.env"), "{missing}");
    }

    #[test]
    fn the_later_value_wins() {
        let mut properties = Properties::new();
        properties.set("linger.ms", "1").unwrap();
        properties.set("queue.buffering.max.ms", "2").unwrap();
        assert_eq!(properties.get("linger.ms"), Some("2"));
    }
}
