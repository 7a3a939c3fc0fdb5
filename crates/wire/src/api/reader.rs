//! A bounded reader for the answers that are framed by hand. Nothing it does can panic, and no count
//! is believed before that many elements could fit in what is left.

use crate::walk::{cut_short, malformed, read_uvarint};
use bytes::Bytes;
use ottla_proto::Result;

/// Tagged fields that one struct may carry.
const TAGS_MAX: u32 = 64;

pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a Bytes, flexible: bool) -> Self {
        Self {
            whole,
            rest: whole,
            flexible,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(slice)
    }

    pub(super) fn int16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn int64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16]> {
        self.take()
    }

    /// A length or count: one more than itself as a varint, or plain; null is `None`.
    fn length(&mut self, plain: fn(&mut Self) -> Result<i32>) -> Result<Option<usize>> {
        if self.flexible {
            let length = read_uvarint(&mut self.rest)?;
            return Ok(length.checked_sub(1).map(|length| length as usize));
        }
        match plain(self)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| malformed("a negative length")),
        }
    }

    /// How many elements follow; null counts as none.
    pub(super) fn count(&mut self, smallest_bytes: usize) -> Result<usize> {
        let count = self.length(Self::int32)?.unwrap_or(0);
        let needed = count.checked_mul(smallest_bytes);
        if needed.is_none_or(|needed| needed > self.rest.len()) {
            return Err(malformed("a count of more than the answer holds"));
        }
        Ok(count)
    }

    pub(super) fn text(&mut self) -> Result<Option<&'a str>> {
        let Some(length) = self.length(|reader| reader.int16().map(i32::from))? else {
            return Ok(None);
        };
        let bytes = self.take_slice(length)?;
        std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| malformed("text that is not UTF-8"))
    }

    /// Bytes as a slice of the answer, without a copy.
    pub(super) fn blob(&mut self) -> Result<Option<Bytes>> {
        let Some(length) = self.length(Self::int32)? else {
            return Ok(None);
        };
        let slice = self.take_slice(length)?;
        Ok(Some(self.whole.slice_ref(slice)))
    }

    /// The tagged fields that end a struct in a flexible version: `known` gets each tag with a
    /// reader of just its bytes.
    pub(super) fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<()>,
    ) -> Result<()> {
        if !self.flexible {
            return Ok(());
        }
        let count = read_uvarint(&mut self.rest)?;
        if count > TAGS_MAX {
            return Err(malformed("too many tagged fields"));
        }
        for _ in 0..count {
            let tag = read_uvarint(&mut self.rest)?;
            let size = read_uvarint(&mut self.rest)? as usize;
            let rest = self.take_slice(size)?;
            known(
                tag,
                &mut Reader {
                    whole: self.whole,
                    rest,
                    flexible: true,
                },
            )?;
        }
        Ok(())
    }

    /// Tagged fields of which we know none.
    pub(super) fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(()))
    }
}
