//! Which topics a watch is about: some by name, some by pattern.

use ottla_proto::{Error, ErrorKind, Result};
use regex_lite::Regex;
use std::sync::Arc;

/// Topics by name and by pattern. Kafka's own topics match no pattern.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    named: Vec<Arc<str>>,
    patterns: Vec<Regex>,
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
            Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                let what = format!("the topic pattern {pattern} cannot be read: {error}");
                Error::new(ErrorKind::Config, what)
            })
        });
        Ok(Self {
            named,
            patterns: patterns.collect::<Result<_>>()?,
        })
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty()
    }

    pub(crate) fn named(&self) -> &[Arc<str>] {
        &self.named
    }

    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The topics that are wanted of those there are, ascending, each once. What is wanted by name
    /// is wanted before it exists.
    pub(crate) fn among(&self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let fits = |name: &&Arc<str>| self.patterns.iter().any(|pattern| pattern.is_match(name));
        let mut chosen = self.named.clone();
        chosen.extend(names.iter().filter(fits).cloned());
        chosen.sort();
        chosen.dedup();
        chosen
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
    fn a_pattern_matches_whole_names_and_named_topics_stay() {
        let wanted = wanted(&["audit", "orders-eu"], &["orders-.*", "pay|refund"]).unwrap();
        let there = ["orders-us", "orders-eu", "my-orders-eu", "pay", "payments"];
        let there: Vec<Arc<str>> = there.iter().map(|name| (*name).into()).collect();
        let chosen = wanted.among(&there);
        let chosen: Vec<&str> = chosen.iter().map(|name| &**name).collect();
        assert_eq!(chosen, ["audit", "orders-eu", "orders-us", "pay"]);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_named() {
        let error = wanted(&[], &["orders-("]).unwrap_err().to_string();
        assert!(error.contains("orders-("), "{error}");
    }
}
