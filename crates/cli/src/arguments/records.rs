//! What `produce` and `consume` take.

use super::Connect;
use crate::consume::{Offset, Template};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ProduceArguments {
    /// The topic
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Where to read from [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The key of every record
    #[arg(
        short = 'k',
        long,
        value_name = "KEY",
        conflicts_with = "key_delimiter"
    )]
    pub(crate) key: Option<String>,
    /// What stands between key and value in each line; a line without it has no key. \t and \xHH
    /// are understood
    #[arg(short = 'K', long, value_name = "DELIM", value_parser = delimiter)]
    pub(crate) key_delimiter: Option<Delimiter>,
    /// A header of every record; may be repeated. NAME alone has a null value
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// Compress with none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC")]
    pub(crate) compression: Option<String>,
    /// Copies a record needs before it counts as sent: all, 1 or 0
    #[arg(long, value_name = "ACKS", allow_hyphen_values = true)]
    pub(crate) acks: Option<String>,
    /// The partition of every record
    #[arg(short = 'p', long, value_name = "N",
          value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// How partitions are chosen: lag-aware, sticky, round_robin, random, consistent,
    /// consistent_random, murmur2, murmur2_random, fnv1a, fnv1a_random
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    pub(crate) partitioner: Option<String>,
    /// The consumer group whose lag steers the lag-aware partitioner
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Send at most so many records a second
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Send an empty value as null
    #[arg(short = 'Z', long)]
    pub(crate) null: bool,
    /// Send null values: each line is a key to delete; with --key one record, and nothing is read
    #[arg(long, conflicts_with = "key_delimiter")]
    pub(crate) tombstone: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[derive(Debug, Args)]
pub(crate) struct ConsumeArguments {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    pub(crate) topics: Vec<String>,
    /// Consume in this group, and commit what was printed
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Where to begin: beginning, end, stored, N (an offset), -N (the last N of each partition),
    /// s@MS (records from this time, in milliseconds since 1970); e@MS ends before this time, and
    /// may be given beside another. A group goes on from where it has committed, and this says
    /// where to begin without a commit: beginning or end [default: beginning; in a group: end]
    #[arg(
        short = 'o',
        long = "offset",
        value_name = "OFFSET",
        allow_hyphen_values = true
    )]
    pub(crate) offsets: Vec<Offset>,
    /// Only these partitions, whatever the group's members do; may be repeated
    #[arg(short = 'p', long = "partition", value_name = "N",
          value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partitions: Vec<i32>,
    /// Exit at the end: once everything that was there at the start is printed
    #[arg(short = 'e', long)]
    pub(crate) exit: bool,
    /// Exit after so many records
    #[arg(short = 'n', long, short_alias = 'c', value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How to print a record: %t topic, %p partition, %o offset, %k key, %s value, %h headers, %T
    /// timestamp, %K and %S the lengths of key and value (-1 for null), %R the value's length in
    /// four bytes, %% a percent sign, \n \r \t \xHH
    #[arg(short = 'f', long, value_name = "FORMAT", conflicts_with_all = ["json", "key_delimiter", "delimiter"])]
    pub(crate) format: Option<Template>,
    /// Print each record as a line of JSON, as kcat does
    #[arg(short = 'J', long, conflicts_with_all = ["key_delimiter", "delimiter"])]
    pub(crate) json: bool,
    /// Print the key before the value, with this between them
    #[arg(short = 'K', long, value_name = "DELIM", value_parser = delimiter)]
    pub(crate) key_delimiter: Option<Delimiter>,
    /// What to print after each record [default: \n]
    #[arg(short = 'D', long, value_name = "DELIM", value_parser = delimiter)]
    pub(crate) delimiter: Option<Delimiter>,
    /// Print NULL for null keys and values instead of nothing
    #[arg(short = 'Z', long)]
    pub(crate) null: bool,
    /// Only records of committed transactions
    #[arg(long)]
    pub(crate) read_committed: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Bytes between two things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) Vec<u8>);

fn delimiter(text: &str) -> Result<Delimiter, String> {
    let bytes = crate::consume::unescape(text)?;
    if bytes.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    Ok(Delimiter(bytes))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if f64::is_finite(rate) && rate > 0.0 => Ok(rate),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn consume(arguments: &[&str]) -> Result<ConsumeArguments, clap::Error> {
        let command = ["ottla", "consume"].iter().chain(arguments);
        match Arguments::try_parse_from(command)?.command {
            Command::Consume(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    fn produce(arguments: &[&str]) -> Result<ProduceArguments, clap::Error> {
        let command = ["ottla", "produce"].iter().chain(arguments);
        match Arguments::try_parse_from(command)?.command {
            Command::Produce(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn offsets_below_zero_are_values_and_no_flags() {
        let arguments = consume(&["t", "-o", "-5", "-e", "-K:", "-c", "3"]).unwrap();
        assert_eq!(arguments.offsets, ["-5".parse().unwrap()]);
        assert_eq!(arguments.key_delimiter, Some(Delimiter(b":".to_vec())));
        assert_eq!(arguments.count, Some(3));
        assert!(arguments.exit);
    }

    #[test]
    fn a_key_stands_beside_no_key_delimiter_and_json_beside_no_format() {
        assert!(produce(&["t", "-k", "a", "-K", ":"]).is_err());
        assert!(consume(&["t", "-J", "-f", "%s"]).is_err());
    }

    #[test]
    fn produce_reads_kcats_flags() {
        let arguments = produce(&["t", "-K", "\\t", "-z", "lz4", "--acks", "-1", "-H", "a=b=c"]);
        let arguments = arguments.unwrap();
        assert_eq!(arguments.key_delimiter, Some(Delimiter(b"\t".to_vec())));
        assert_eq!(arguments.acks.as_deref(), Some("-1"));
        assert_eq!(arguments.headers, ["a=b=c"]);
    }

    #[test]
    fn a_rate_is_above_zero() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
