//! Where records go that failed for good: to a dead letter topic, with their own bytes and with
//! headers that say what happened.

mod burial;
mod json;

pub(crate) use burial::{Burial, Ending, Graveyard, Predecessor, Turn, bury, bury_one};

use ottla_proto::{Code, Error, ErrorKind, Record, Result, WriteOutcome};
use std::fmt::Write as _;
use std::time::Duration;

/// Stands for the topic's name in a template.
const PLACEHOLDER: &str = "{topic}";

/// Says whether the record may be in its own topic all the same, in every format.
const OUTCOME_HEADER: &str = "__dlq.errors.outcome";

/// How a dead letter says what happened to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterFormat {
    /// Headers `__dlq.errors.*` as text (KIP-1191); key, value and headers as they were.
    #[default]
    KafkaNative,
    /// Spring's headers `kafka_dlt-*`; key, value and headers as they were.
    Spring,
    /// Kafka Connect's headers `__connect.errors.*`; key, value and headers as they were.
    Connect,
    /// The value is a JSON object with `original_topic`, `original_partition`, `key`, `message`,
    /// `error`, `outcome`, `attempts` and `timestamp`; key and headers as they were. A key or value
    /// that is not UTF-8 stands in base64 under `key_base64` or `message_base64`.
    JsonEnvelope,
}

impl DeadLetterFormat {
    /// Every format with its name in the configuration.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("kafka", Self::KafkaNative),
        ("spring", Self::Spring),
        ("connect", Self::Connect),
        ("json", Self::JsonEnvelope),
    ];
}

/// What becomes of records that failed for good, after every retry that `retries` and
/// `delivery.timeout.ms` allow, and after more rounds of them if [`resend`](DeadLetters::resend) asks
/// for some: each is written to a topic named after its own, with the key, the
/// value, the headers and the time it had, to the partition of the same number modulo the dead letter
/// topic's count. Its [`Delivery`](crate::Delivery) fails all the same, once the dead letter is written, and the
/// error says where it lies.
///
/// When a broker names the records of a batch that it finds wrong (KIP-467), and they are few, only
/// those fail: they are cut out, and the others go on in their order.
///
/// A record whose outcome is unknown may be in its own topic too: its dead letter says so in the
/// header `__dlq.errors.outcome` (`unknown`, else `not-written`), unless such records are left out
/// by [`only_unwritten`](Self::only_unwritten). A dead letter that fails itself is reported in the
/// log and counted in the metrics; it gets no dead letter of its own.
///
/// Dead letters on their way take at most as much memory as the buffer itself, `buffer.memory`,
/// counted before compression. What fails beyond that at the same time, as when a topic's permission is
/// taken away while much compressed waits, gets no dead letter: it too is reported and counted.
///
/// A record that [`enqueue`](crate::Producer::enqueue) refuses is still in its caller's hands; see
/// [`Producer::dead_letter`](crate::Producer::dead_letter).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct DeadLetters {
    template: String,
    format: DeadLetterFormat,
    only_unwritten: bool,
    /// More rounds of attempts before the dead letter, and the wait before each.
    rounds: u32,
    rest: Duration,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self::new()
    }
}

impl DeadLetters {
    /// Dead letters in `{topic}.dlq`, in Kafka's own format.
    pub fn new() -> Self {
        Self {
            template: format!("{PLACEHOLDER}.dlq"),
            format: DeadLetterFormat::default(),
            only_unwritten: false,
            rounds: 0,
            rest: Duration::ZERO,
        }
    }

    /// Names their topics: `{topic}` stands for the failed record's; without it all dead letters go
    /// to one topic.
    pub fn topic(mut self, template: impl Into<String>) -> Self {
        self.template = template.into();
        self
    }

    /// How a dead letter says what happened to it.
    pub fn format(mut self, format: DeadLetterFormat) -> Self {
        self.format = format;
        self
    }

    /// Leaves out records that may be in their own topic.
    pub fn only_unwritten(mut self) -> Self {
        self.only_unwritten = true;
        self
    }

    /// Begins anew so many times before a record is a dead letter: after a rest its batch is sent
    /// again, with all of `retries` and `delivery.timeout.ms`. None unless set.
    ///
    /// Only what is proven unwritten is sent again, so that nothing is written twice, and only what
    /// another attempt can mend: not a record that is too large or that the broker finds wrong. It
    /// comes behind what was written meanwhile. Until then it holds its part of `buffer.memory`, and
    /// a flush waits for it; a producer that closes sends it once more, without the rest.
    pub fn resend(mut self, rounds: u32, rest: Duration) -> Self {
        self.rounds = rounds;
        self.rest = rest;
        self
    }

    /// The rest before the next round, if a record that failed so after `rounds` of them is to have
    /// one.
    pub(crate) fn rests(&self, topic: &str, error: &Error, rounds: u32) -> Option<Duration> {
        let unwritten = error.write_outcome() == Some(WriteOutcome::NotWritten);
        let again = unwritten && can_mend(error) && !self.is_of(topic);
        (again && rounds < self.rounds).then_some(self.rest)
    }

    /// The dead letter topic of a topic.
    pub fn topic_of(&self, topic: &str) -> String {
        self.template.replace(PLACEHOLDER, topic)
    }

    /// # Errors
    /// `Config` for a template that names no topic, or every topic itself.
    pub(crate) fn check(&self) -> Result<()> {
        if self.template.trim().is_empty() || self.template == PLACEHOLDER {
            let message = format!(
                "the dead letter topic \"{}\" names no topic apart from the records' own",
                self.template
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }

    /// Whether records of this topic are dead letters: they get no dead letter of their own.
    fn is_of(&self, topic: &str) -> bool {
        match self.template.split_once(PLACEHOLDER) {
            Some((before, after)) => {
                let inner = topic.strip_prefix(before);
                let inner = inner.and_then(|rest| rest.strip_suffix(after));
                inner.is_some_and(|name| !name.is_empty())
            }
            None => topic == self.template,
        }
    }

    /// Whether a record that failed so is to have a dead letter.
    pub(crate) fn takes(&self, topic: &str, error: &Error) -> bool {
        let unwritten = error.write_outcome() == Some(WriteOutcome::NotWritten);
        !self.is_of(topic) && (unwritten || !self.only_unwritten)
    }
}

/// Whether another attempt may go better: the record is not what is wrong.
fn can_mend(error: &Error) -> bool {
    match (error.kind(), error.code()) {
        (ErrorKind::RecordTooLarge | ErrorKind::Closed, _) => false,
        (_, Some(code)) => !matches!(
            code,
            Code::MESSAGE_TOO_LARGE
                | Code::RECORD_LIST_TOO_LARGE
                | Code::INVALID_RECORD
                | Code::INVALID_TIMESTAMP
                | Code::UNSUPPORTED_FOR_MESSAGE_FORMAT
                | Code::UNSUPPORTED_COMPRESSION_TYPE
        ),
        (_, None) => true,
    }
}

/// How a record failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) error: &'a Error,
    pub(crate) attempts: u32,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: i64,
}

impl Failure<'_> {
    fn outcome(&self) -> &'static str {
        match self.error.write_outcome() {
            Some(WriteOutcome::NotWritten) => "not-written",
            _ => "unknown",
        }
    }

    fn class(&self) -> &'static str {
        crate::metrics::kind_name(self.error.kind())
    }
}

/// A dead letter, ready to be sent. It owns its bytes: the failed batch's memory is free by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: Option<i64>,
}

impl Letter {
    /// Writes the dead letter of a record.
    pub(crate) fn write(
        format: DeadLetterFormat,
        record: &Record<'_>,
        failure: &Failure<'_>,
    ) -> Self {
        let own = record.headers.iter();
        let own = own.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
        let mut headers: Vec<_> = own.collect();
        let mut add = |name: &str, value: Vec<u8>| headers.push((name.to_owned(), Some(value)));
        match format {
            DeadLetterFormat::KafkaNative => native(failure, &mut add),
            DeadLetterFormat::Spring => spring(failure, record.timestamp, &mut add),
            DeadLetterFormat::Connect => connect(failure, &mut add),
            DeadLetterFormat::JsonEnvelope => {}
        }
        add(OUTCOME_HEADER, failure.outcome().into());
        let value = match format {
            DeadLetterFormat::JsonEnvelope => Some(envelope(record, failure).into_bytes()),
            _ => record.value.map(<[u8]>::to_vec),
        };
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value,
            headers,
            timestamp: record.timestamp,
        }
    }
}

fn text(value: &impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn native(failure: &Failure<'_>, add: &mut impl FnMut(&str, Vec<u8>)) {
    add("__dlq.errors.topic", text(&failure.topic));
    if let Some(partition) = failure.partition {
        add("__dlq.errors.partition", text(&partition));
    }
    add("__dlq.errors.message", text(failure.error));
    add("__dlq.errors.stage", text(&"produce"));
    add("__dlq.errors.class", text(&failure.class()));
    add("__dlq.errors.timestamp", text(&failure.at));
    add("__dlq.errors.attempts", text(&failure.attempts));
}

/// Spring writes numbers as big-endian bytes.
fn spring(failure: &Failure<'_>, timestamp: Option<i64>, add: &mut impl FnMut(&str, Vec<u8>)) {
    add("kafka_dlt-original-topic", text(&failure.topic));
    if let Some(partition) = failure.partition {
        add(
            "kafka_dlt-original-partition",
            partition.to_be_bytes().into(),
        );
    }
    if let Some(timestamp) = timestamp {
        add(
            "kafka_dlt-original-timestamp",
            timestamp.to_be_bytes().into(),
        );
        add("kafka_dlt-original-timestamp-type", text(&"CreateTime"));
    }
    add("kafka_dlt-exception-fqcn", text(&failure.class()));
    add("kafka_dlt-exception-message", text(failure.error));
}

fn connect(failure: &Failure<'_>, add: &mut impl FnMut(&str, Vec<u8>)) {
    add("__connect.errors.topic", text(&failure.topic));
    if let Some(partition) = failure.partition {
        add("__connect.errors.partition", text(&partition));
    }
    add("__connect.errors.stage", text(&"KAFKA_PRODUCE"));
    add("__connect.errors.class.name", text(&"ottla"));
    add(
        "__connect.errors.exception.class.name",
        text(&failure.class()),
    );
    add("__connect.errors.exception.message", text(failure.error));
}

fn envelope(record: &Record<'_>, failure: &Failure<'_>) -> String {
    let mut out = String::from("{\"original_topic\":");
    json::string(&mut out, failure.topic);
    if let Some(partition) = failure.partition {
        // Writing to a string cannot fail.
        let _ = write!(out, ",\"original_partition\":{partition}");
    }
    json::bytes(&mut out, "key", record.key);
    json::bytes(&mut out, "message", record.value);
    out.push_str(",\"error\":");
    json::string(&mut out, &failure.error.to_string());
    let (outcome, attempts, at) = (failure.outcome(), failure.attempts, failure.at);
    let rest = format!(",\"outcome\":\"{outcome}\",\"attempts\":{attempts},\"timestamp\":{at}}}");
    out.push_str(&rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::Code;

    fn failed() -> Error {
        let error = Error::broker(Code::TOPIC_AUTHORIZATION_FAILED, "produce");
        error.with_outcome(WriteOutcome::NotWritten)
    }

    fn letter(format: DeadLetterFormat, record: &Record<'_>, error: &Error) -> Letter {
        let failure = Failure {
            topic: "orders",
            partition: Some(3),
            error,
            attempts: 2,
            at: 1_700_000_000_000,
        };
        Letter::write(format, record, &failure)
    }

    fn header<'l>(letter: &'l Letter, name: &str) -> Option<&'l [u8]> {
        let found = letter.headers.iter().find(|(own, _)| own == name)?;
        found.1.as_deref()
    }

    #[test]
    fn key_value_headers_and_time_stay_and_kafkas_names_come_behind_them() {
        let record = Record::to("orders").key(b"\xff").value(b"\x00\x01");
        let record = record.header("source", "web").header("source", "web2");
        let letter = letter(
            DeadLetterFormat::KafkaNative,
            &record.timestamp(77),
            &failed(),
        );
        assert_eq!(letter.key.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(letter.value.as_deref(), Some(&b"\x00\x01"[..]));
        assert_eq!(letter.timestamp, Some(77));
        let names: Vec<_> = letter
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let expected = [
            "source",
            "source",
            "__dlq.errors.topic",
            "__dlq.errors.partition",
            "__dlq.errors.message",
            "__dlq.errors.stage",
            "__dlq.errors.class",
            "__dlq.errors.timestamp",
            "__dlq.errors.attempts",
            "__dlq.errors.outcome",
        ];
        assert_eq!(names, expected);
        assert_eq!(header(&letter, "__dlq.errors.partition"), Some(&b"3"[..]));
        assert_eq!(
            header(&letter, "__dlq.errors.outcome"),
            Some(&b"not-written"[..])
        );
        let message = header(&letter, "__dlq.errors.message").unwrap();
        assert!(String::from_utf8_lossy(message).contains("TOPIC_AUTHORIZATION_FAILED"));
    }

    #[test]
    fn a_record_that_may_be_written_says_so_in_every_format() {
        let error = Error::new(ErrorKind::Timeout, "late").with_outcome(WriteOutcome::Unknown);
        for (_, format) in DeadLetterFormat::NAMES {
            let letter = letter(format, &Record::to("orders").value("v"), &error);
            assert_eq!(
                header(&letter, OUTCOME_HEADER),
                Some(&b"unknown"[..]),
                "{format:?}"
            );
        }
    }

    #[test]
    fn a_tombstone_stays_one_outside_the_envelope() {
        let tombstone = Record::to("orders").key("k");
        for (_, format) in DeadLetterFormat::NAMES {
            let letter = letter(format, &tombstone, &failed());
            let enveloped = format == DeadLetterFormat::JsonEnvelope;
            assert_eq!(letter.value.is_some(), enveloped, "{format:?}");
        }
    }

    #[test]
    fn spring_reads_its_numbers_as_big_endian_bytes() {
        let record = Record::to("orders").value("v").timestamp(258);
        let letter = letter(DeadLetterFormat::Spring, &record, &failed());
        let partition = header(&letter, "kafka_dlt-original-partition");
        assert_eq!(partition, Some(&[0, 0, 0, 3][..]));
        let time = header(&letter, "kafka_dlt-original-timestamp");
        assert_eq!(time, Some(&[0, 0, 0, 0, 0, 0, 1, 2][..]));
        assert_eq!(
            header(&letter, "kafka_dlt-original-topic"),
            Some(&b"orders"[..])
        );
    }

    #[test]
    fn the_envelope_is_json_whatever_the_bytes() {
        let error =
            Error::new(ErrorKind::Timeout, "\"late\"\n").with_outcome(WriteOutcome::Unknown);
        let record = Record::to("orders")
            .key(b"\xff\xfe")
            .value("{\"a\":\"\u{e9}\"}");
        let letter = letter(DeadLetterFormat::JsonEnvelope, &record, &error);
        let expected = "{\"original_topic\":\"orders\",\"original_partition\":3,\
             \"key_base64\":\"//4=\",\"message\":\"{\\\"a\\\":\\\"\u{e9}\\\"}\",\
             \"error\":\"\\\"late\\\"\\n (may have been written)\",\"outcome\":\"unknown\",\
             \"attempts\":2,\"timestamp\":1700000000000}";
        assert_eq!(String::from_utf8(letter.value.unwrap()).unwrap(), expected);
    }

    #[test]
    fn topics_are_named_by_the_template_and_dead_letters_have_none() {
        let letters = DeadLetters::new();
        assert_eq!(letters.topic_of("orders"), "orders.dlq");
        assert!(letters.takes("orders", &failed()));
        assert!(
            !letters.takes("orders.dlq", &failed()),
            "no dead letter of a dead letter"
        );
        let one = DeadLetters::new().topic("graveyard");
        assert_eq!(one.topic_of("orders"), "graveyard");
        assert!(!one.takes("graveyard", &failed()));
        let unknown = failed().with_outcome(WriteOutcome::Unknown);
        assert!(letters.takes("orders", &unknown));
        assert!(!letters.clone().only_unwritten().takes("orders", &unknown));
        for wrong in ["", " ", "{topic}"] {
            assert!(
                DeadLetters::new().topic(wrong).check().is_err(),
                "{wrong:?}"
            );
        }
        letters.check().unwrap();
    }
}
