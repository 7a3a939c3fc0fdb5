//! Metrics as text: Prometheus' format 0.0.4, and OpenMetrics 1.0 where it is asked for.

use std::fmt::{Display, Write};

/// In which of the two formats a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The better one of those that a scraper's `Accept` names.
    pub(crate) fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whether a metric may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    /// Its name is written with `_total` behind it.
    Counter,
}

/// A metric: its name, which is stable, and what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

impl Family {
    pub(crate) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            labels,
            help,
        }
    }

    pub(crate) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            labels: &[],
            help,
        }
    }

    fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
        }
    }
}

/// A page of metrics that is being written.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        let text = String::new();
        Self { text, format }
    }

    /// Begins a metric; its samples follow, and no other's between them.
    pub(crate) fn begin(&mut self, family: &'static Family) -> Samples<'_> {
        // OpenMetrics names a counter without its suffix, the older format with it.
        let suffix = match self.format {
            Format::Prometheus => family.suffix(),
            Format::OpenMetrics => "",
        };
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let name = family.name;
        self.add(format_args!("# HELP {name}{suffix} {}\n", family.help));
        self.add(format_args!("# TYPE {name}{suffix} {kind}\n"));
        Samples { page: self, family }
    }

    /// What was written so far, where another part follows.
    pub(crate) fn part(self) -> String {
        self.text
    }

    /// The whole page, or its last part.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(text);
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub(crate) struct Samples<'p> {
    page: &'p mut Page,
    family: &'static Family,
}

impl Samples<'_> {
    /// Writes one sample; `values` are those of the family's labels, in their order.
    pub(crate) fn put(&mut self, values: &[&str], sample: impl Display) {
        let family = self.family;
        debug_assert_eq!(values.len(), family.labels.len(), "{}", family.name);
        self.page
            .add(format_args!("{}{}", family.name, family.suffix()));
        for (at, (label, value)) in family.labels.iter().zip(values).enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.page.add(format_args!("{before}{label}=\""));
            escape(&mut self.page.text, value);
            self.page.text.push('"');
        }
        let after = if values.is_empty() { "" } else { "}" };
        self.page.add(format_args!("{after} {sample}\n"));
    }

    /// The same for a figure that may be unknown: then there is no sample.
    pub(crate) fn put_known(&mut self, values: &[&str], sample: Option<impl Display>) {
        if let Some(sample) = sample {
            self.put(values, sample);
        }
    }
}

/// Writes a label's value: names of groups may hold any character.
fn escape(text: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LAG: Family = Family::gauge("lag", &["group", "topic"], "What is unread.");
    static UP: Family = Family::gauge("up", &[], "Whether it runs.");
    static ROUNDS: Family = Family::counter("rounds", "How many.");

    fn written(format: Format) -> String {
        let mut page = Page::new(format);
        let mut lag = page.begin(&LAG);
        lag.put(&["a \"b\"\\\nc", "\u{e9}"], 7u64);
        lag.put_known(&["g", "t"], None::<u64>);
        page.begin(&UP).put(&[], 0.5f64);
        page.begin(&ROUNDS).put(&[], 3u64);
        page.finish()
    }

    #[test]
    fn the_text_is_as_the_format_has_it() {
        let text = written(Format::Prometheus);
        let wanted = "# HELP lag What is unread.\n# TYPE lag gauge\n\
                      lag{group=\"a \\\"b\\\"\\\\\\nc\",topic=\"\u{e9}\"} 7\n\
                      # HELP up Whether it runs.\n# TYPE up gauge\nup 0.5\n\
                      # HELP rounds_total How many.\n# TYPE rounds_total counter\nrounds_total 3\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn open_metrics_names_counters_without_suffix_and_ends_with_a_mark() {
        let text = written(Format::OpenMetrics);
        assert!(text.contains("# TYPE rounds counter\nrounds_total 3\n"));
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn the_format_is_what_the_scraper_accepts() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
        assert_eq!(Format::accepted(""), Format::Prometheus);
    }
}
