//! The bounds walk: no generated decoder sees an answer before its counts and lengths were checked.
//!
//! The decoders of kafka-protocol reserve memory from counts on the wire, so a few bytes can ask
//! for gigabytes. The walk follows a table of the answer's fields and holds that every count times
//! the smallest element, and every length, fits in what is left.

use ottla_proto::{Error, ErrorKind, Result};
use std::ops::RangeInclusive;

/// Tagged fields that one struct may carry. Kafka defines at most a handful; each costs the decoder
/// a tree node.
const TAGS_MAX: u32 = 64;

/// What a field looks like on the wire.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, nullable or not.
    Text,
    /// A byte string, nullable or not.
    Blob,
    /// A list of bare values.
    Plain(&'static Kind),
    /// One struct, with its own tagged fields in a flexible version.
    Struct(&'static [Field]),
    /// A list of structs, each with its own tagged fields in a flexible version.
    Structs(&'static [Field]),
}

/// One field, with the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) from: i16,
    pub(crate) to: i16,
    pub(crate) tag: Option<u32>,
    pub(crate) kind: Kind,
}

/// One answer: its versions, the first flexible one, its fields.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) versions: RangeInclusive<i16>,
    pub(crate) flexible_from: i16,
    pub(crate) fields: &'static [Field],
}

impl Schema {
    /// Checks an answer's body (what comes after the response header).
    ///
    /// # Errors
    /// `Protocol`, saying what does not fit.
    pub(crate) fn walk(&self, version: i16, body: &[u8]) -> Result<()> {
        if !self.versions.contains(&version) {
            return Err(malformed("a version without a description"));
        }
        let mut walk = Walk {
            rest: body,
            version,
            flexible: version >= self.flexible_from,
        };
        walk.fields(self.fields)
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<()> {
        for field in fields {
            if field.tag.is_none() && (field.from..=field.to).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible {
            self.tags(fields)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: &'static Kind) -> Result<()> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text | Kind::Blob => {
                let length = self.length(kind)?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Plain(element) => {
                let count = self.count(self.smallest(element))?;
                (0..count).try_for_each(|_| self.value(element))
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Structs(fields) => {
                let count = self.count(self.smallest_struct(fields))?;
                (0..count).try_for_each(|_| self.fields(fields))
            }
        }
    }

    fn tags(&mut self, fields: &'static [Field]) -> Result<()> {
        let count = read_uvarint(&mut self.rest)?;
        if count > TAGS_MAX {
            return Err(malformed("too many tagged fields"));
        }
        for _ in 0..count {
            let tag = read_uvarint(&mut self.rest)?;
            let size = read_uvarint(&mut self.rest)? as usize;
            let inner = self
                .rest
                .get(..size)
                .ok_or_else(|| malformed("a tagged field longer than the answer"))?;
            if let Some(field) = fields.iter().find(|field| field.tag == Some(tag)) {
                let mut walk = Walk {
                    rest: inner,
                    ..*self
                };
                walk.value(&field.kind)?;
                if !walk.rest.is_empty() {
                    return Err(malformed("a tagged field of another size than it says"));
                }
            }
            self.skip(size)?;
        }
        Ok(())
    }

    fn length(&mut self, kind: &Kind) -> Result<Option<usize>> {
        if self.flexible {
            let length = read_uvarint(&mut self.rest)?;
            return Ok(length.checked_sub(1).map(|length| length as usize));
        }
        let length = match kind {
            Kind::Text => i32::from(self.int16()?),
            _ => self.int32()?,
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| malformed("a negative length")),
        }
    }

    fn count(&mut self, smallest_bytes: usize) -> Result<usize> {
        let count = self.length(&Kind::Plain(&Kind::Text))?.unwrap_or(0);
        let needed = count.checked_mul(smallest_bytes.max(1));
        if needed.is_none_or(|needed| needed > self.rest.len()) {
            return Err(malformed("a count of more than the answer holds"));
        }
        Ok(count)
    }

    fn smallest(&self, kind: &Kind) -> usize {
        match kind {
            Kind::Fixed(bytes) => *bytes,
            Kind::Struct(fields) => self.smallest_struct(fields),
            _ if self.flexible => 1,
            Kind::Text => 2,
            _ => 4,
        }
    }

    fn smallest_struct(&self, fields: &[Field]) -> usize {
        let present = fields
            .iter()
            .filter(|field| field.tag.is_none() && (field.from..=field.to).contains(&self.version));
        let sum: usize = present.map(|field| self.smallest(&field.kind)).sum();
        sum + usize::from(self.flexible)
    }

    fn skip(&mut self, bytes: usize) -> Result<()> {
        self.rest = self
            .rest
            .get(bytes..)
            .ok_or_else(|| malformed("a field longer than the answer"))?;
        Ok(())
    }

    fn int16(&mut self) -> Result<i16> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    fn int32(&mut self) -> Result<i32> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }
}

/// Reads an unsigned varint of 32 bits. Stricter than the generated decoders: what does not fit in
/// 32 bits is refused.
pub(crate) fn read_uvarint(rest: &mut &[u8]) -> Result<u32> {
    let mut value = 0u32;
    for shift in [0u32, 7, 14, 21, 28] {
        let (byte, after) = rest.split_first().ok_or_else(cut_short)?;
        *rest = after;
        if shift == 28 && *byte > 0x0f {
            break;
        }
        value |= u32::from(*byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(malformed("a number of more than 32 bits"))
}

pub(crate) fn cut_short() -> Error {
    malformed("cut short")
}

pub(crate) fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("a malformed answer: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::ApiKey;
    use crate::schema;

    #[test]
    fn bug_28_a_count_bomb_of_a_few_bytes_is_refused() {
        // Metadata 12: throttle 0, then two billion brokers.
        let body = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        let error = schema::of(ApiKey::Metadata).walk(12, &body).unwrap_err();
        assert!(error.to_string().contains("a count of more"), "{error}");
        // Metadata 8, the plain form.
        let body = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0];
        assert!(schema::of(ApiKey::Metadata).walk(8, &body).is_err());
    }

    #[test]
    fn bug_28_a_bomb_inside_a_known_tagged_field_is_refused() {
        // ApiVersions 3: code, no APIs, throttle, one tagged field (0: a list of 268 million).
        let mut body = vec![0, 0, 1, 0, 0, 0, 0, 1, 0, 5];
        body.extend([0xff, 0xff, 0xff, 0x7f, 0]);
        assert!(schema::of(ApiKey::ApiVersions).walk(3, &body).is_err());
        // The same with an empty list passes.
        let body = [0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1];
        schema::of(ApiKey::ApiVersions).walk(3, &body).unwrap();
    }

    #[test]
    fn bug_28_a_negative_length_is_refused() {
        let body = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe];
        let error = schema::of(ApiKey::Metadata).walk(8, &body).unwrap_err();
        assert!(error.to_string().contains("negative"), "{error}");
    }

    #[test]
    fn varints_over_32_bits_are_refused() {
        assert_eq!(
            read_uvarint(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]).unwrap(),
            u32::MAX
        );
        assert!(read_uvarint(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]).is_err());
        assert!(read_uvarint(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01][..]).is_err());
        assert!(read_uvarint(&mut &[0x80][..]).is_err());
    }
}
