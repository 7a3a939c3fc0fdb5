//! Which groups and topics are told of.

use crate::failure::{Failure, Result};
use regex_lite::Regex;

/// A regular expression that names have to hold, and one that they must not. Both are looked for
/// anywhere in a name, as kafka_exporter does.
#[derive(Debug)]
pub(crate) struct Filter {
    wanted: Regex,
    unwanted: Regex,
}

impl Filter {
    /// # Errors
    /// `Usage`, naming the expression that cannot be read.
    pub(crate) fn new(wanted: &str, unwanted: &str) -> Result<Self> {
        let read = |pattern: &str| {
            Regex::new(pattern)
                .map_err(|error| Failure::usage(format!("{pattern} cannot be read: {error}")))
        };
        Ok(Self {
            wanted: read(wanted)?,
            unwanted: read(unwanted)?,
        })
    }

    pub(crate) fn takes(&self, name: &str) -> bool {
        self.wanted.is_match(name) && !self.unwanted.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_not_matched_whole() {
        let filter = Filter::new("orders", "^test-").unwrap();
        assert!(filter.takes("eu-orders-2"));
        assert!(!filter.takes("test-orders") && !filter.takes("payments"));
        let all = Filter::new(".*", "^$").unwrap();
        assert!(all.takes("__consumer_offsets"));
        assert!(Filter::new("(", "^$").is_err());
    }
}
