//! Which topics a watch is about: some by name, some by pattern, some because the group commits there.

use ottla_proto::{Error, ErrorKind, Result};
use regex_lite::Regex;
use std::sync::Arc;

/// Topics by name, by pattern and by commit. Kafka's own topics match no pattern.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    named: Vec<Arc<str>>,
    patterns: Vec<Regex>,
    committed: bool,
}

impl Wanted {
    /// Reads the patterns. A pattern is a regular expression that must match the whole name.
    ///
    /// # Errors
    /// `Config`, naming the pattern that cannot be read.
    pub(crate) fn new(mut named: Vec<Arc<str>>, patterns: &[String]) -> Result<Self> {
        named.sort();
        named.dedup();
        let patterns = patterns.iter().map(|pattern| {
            // Alone first: what closes our group and opens another can be read, but means more.
            let alone = Regex::new(pattern);
            let whole = alone.and_then(|_| Regex::new(&format!("^(?:{pattern})$")));
            whole.map_err(|error| {
                let what = format!("the topic pattern {pattern} cannot be read: {error}");
                Error::new(ErrorKind::Config, what)
            })
        });
        Ok(Self {
            named,
            patterns: patterns.collect::<Result<_>>()?,
            committed: false,
        })
    }

    /// The same, and whether the topics in which the group has committed are wanted too.
    pub(crate) fn and_committed(self, committed: bool) -> Self {
        Self { committed, ..self }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty() && !self.committed
    }

    /// Whether the topics in which the group has committed are wanted.
    pub(crate) fn wants_committed(&self) -> bool {
        self.committed
    }

    pub(crate) fn named(&self) -> &[Arc<str>] {
        &self.named
    }

    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Those of the topics there are that a pattern wants.
    pub(crate) fn matching(&self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let fits = |name: &&Arc<str>| self.patterns.iter().any(|pattern| pattern.is_match(name));
        names.iter().filter(fits).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(named: &[&str], patterns: &[&str]) -> Result<Wanted> {
        let named = named.iter().map(|name| (*name).into()).collect();
        let patterns: Vec<String> = patterns.iter().map(|one| (*one).to_owned()).collect();
        Wanted::new(named, &patterns)
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let wanted = wanted(&[], &["orders-.*", "pay|refund"]).unwrap();
        let there = ["orders-us", "orders-eu", "my-orders-eu", "pay", "payments"];
        let there: Vec<Arc<str>> = there.iter().map(|name| (*name).into()).collect();
        let chosen = wanted.matching(&there);
        let chosen: Vec<&str> = chosen.iter().map(|name| &**name).collect();
        assert_eq!(chosen, ["orders-us", "orders-eu", "pay"]);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_named() {
        let error = wanted(&[], &["orders-("]).unwrap_err().to_string();
        assert!(error.contains("orders-("), "{error}");
        // Within a group it would match all that begins with a or ends in b.
        let error = wanted(&[], &["a)|(?:b"]).unwrap_err().to_string();
        assert!(error.contains("a)|(?:b"), "{error}");
    }
}
