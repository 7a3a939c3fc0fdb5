//! The text of a shared value. Pure; the format stands in the parent module.

use super::VALUE_BYTES_MAX;
use crate::snapshot::{Committed, End, Offsets, TopicOffsets};
use crate::source::{Asked, Found, Standing};
use ottla_proto::{Code, TopicId};
use std::fmt::Write;
use std::sync::Arc;

/// The version of keys and values.
const VERSION: &str = "1";

/// What a value says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) stamp: u64,
    pub(super) standing: Standing,
    pub(super) topics: Vec<TopicOffsets>,
}

/// Version and stamp as they stand before a body.
#[cfg(test)]
pub(super) fn stamped(stamp: u64, body: &str) -> Vec<u8> {
    format!("{VERSION} {stamp} {body}").into_bytes()
}

/// What stands behind version and stamp. `None` for what another process may find out better, and
/// for what is too long.
pub(super) fn write(found: &Found) -> Option<String> {
    let mut text = String::from(match found.standing {
        Standing::Told => "told",
        Standing::Share => "share",
        Standing::Denied | Standing::Unknown(_) | Standing::Closed => return None,
    });
    for topic in &found.topics {
        text.push('\n');
        text.push_str(&topic.topic);
        text.push(' ');
        match topic.id {
            Some(id) => {
                id.0.iter()
                    .try_for_each(|byte| write!(text, "{byte:02x}"))
                    .ok()?
            }
            None => text.push('-'),
        }
        match topic.refused {
            Some(code) => write!(text, " {}", code.0).ok()?,
            None => text.push_str(" -"),
        }
        for offsets in &topic.partitions {
            write_partition(&mut text, offsets)?;
        }
    }
    // Version and stamp come before it.
    (text.len() + 64 <= VALUE_BYTES_MAX).then_some(text)
}

fn write_partition(text: &mut String, offsets: &Offsets) -> Option<()> {
    match offsets.committed {
        Committed::At(offset) => write!(text, " {offset},"),
        Committed::Nothing => write!(text, " -,"),
        Committed::Unknown(None) => write!(text, " ?,"),
        Committed::Unknown(Some(code)) => write!(text, " ?{},", code.0),
    }
    .ok()?;
    let (end, log_start, last_stable) = match offsets.end {
        End::At {
            high_watermark,
            log_start,
            last_stable,
        } => (Ok(high_watermark), log_start, last_stable),
        End::Unknown(code) => (Err(code), None, None),
    };
    match end {
        Ok(offset) => write!(text, "{offset},"),
        Err(None) => write!(text, "?,"),
        Err(Some(code)) => write!(text, "?{},", code.0),
    }
    .ok()?;
    match log_start {
        Some(offset) => write!(text, "{offset},"),
        None => write!(text, "-,"),
    }
    .ok()?;
    match last_stable {
        Some(offset) => write!(text, "{offset}").ok(),
        None => write!(text, "-").ok(),
    }
}

/// Reads a value about what was asked. `None` for everything that is not exactly that: anybody may
/// write into the store.
pub(super) fn read(value: &[u8], asked: &Asked) -> Option<Read> {
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let mut lines = std::str::from_utf8(value).ok()?.split('\n');
    let mut head = lines.next()?.split(' ');
    if head.next() != Some(VERSION) {
        return None;
    }
    let stamp = head.next()?.parse().ok()?;
    let standing = match (head.next(), head.next()) {
        (Some("told"), None) => Standing::Told,
        (Some("share"), None) => Standing::Share,
        _ => return None,
    };
    let mut topics = Vec::with_capacity(asked.topics.len());
    for name in &asked.topics {
        topics.push(read_topic(lines.next()?, name)?);
    }
    lines.next().is_none().then_some(Read {
        stamp,
        standing,
        topics,
    })
}

fn read_topic(line: &str, name: &Arc<str>) -> Option<TopicOffsets> {
    let mut words = line.split(' ');
    if words.next() != Some(&**name) {
        return None;
    }
    let id = match words.next()? {
        "-" => None,
        hex => Some(read_id(hex)?),
    };
    let refused = match words.next()? {
        "-" => None,
        code => Some(Code(code.parse().ok()?)),
    };
    Some(TopicOffsets {
        topic: Arc::clone(name),
        id,
        refused,
        partitions: words.map(read_partition).collect::<Option<_>>()?,
    })
}

fn read_id(hex: &str) -> Option<TopicId> {
    let mut id = [0; 16];
    // One by one: a sign would pass for a digit when parsed as a number.
    let digits = hex.chars().map(|digit| digit.to_digit(16));
    let digits: Vec<u32> = digits.collect::<Option<_>>()?;
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::try_from(pair.first()? * 16 + pair.get(1)?).ok()?;
    }
    Some(TopicId(id))
}

fn read_partition(word: &str) -> Option<Offsets> {
    let mut parts = word.split(',');
    let committed = match parts.next()? {
        "-" => Committed::Nothing,
        text => match read_unknown(text)? {
            Some(unknown) => Committed::Unknown(unknown),
            None => Committed::At(read_offset(text)?),
        },
    };
    let end = parts.next()?;
    let log_start = read_optional(parts.next()?)?;
    let last_stable = read_optional(parts.next()?)?;
    let end = match read_unknown(end)? {
        Some(unknown) => End::Unknown(unknown),
        None => End::At {
            high_watermark: read_offset(end)?,
            log_start,
            last_stable,
        },
    };
    parts.next().is_none().then_some(Offsets { committed, end })
}

/// `?` and `?CODE`; the inner `None` is anything else.
#[expect(clippy::option_option, reason = "unreadable, not unknown, unknown")]
fn read_unknown(text: &str) -> Option<Option<Option<Code>>> {
    match text.strip_prefix('?') {
        None => Some(None),
        Some("") => Some(Some(None)),
        Some(code) => Some(Some(Some(Code(code.parse().ok()?)))),
    }
}

fn read_offset(text: &str) -> Option<i64> {
    text.parse().ok().filter(|offset| *offset >= 0)
}

#[expect(clippy::option_option, reason = "unreadable, none, an offset")]
fn read_optional(text: &str) -> Option<Option<i64>> {
    match text {
        "-" => Some(None),
        text => read_offset(text).map(Some),
    }
}
