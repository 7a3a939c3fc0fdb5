//! Frames and their headers: what stands on the wire around a request and an answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much room a frame gets before its bytes arrive; beyond it room grows with them.
const TRUSTED_BYTES: usize = 1024 * 1024;

/// The connection must end: the bytes are not what the protocol wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads one frame without its length; `None` at a clean end.
///
/// # Errors
/// A broken connection, or a length that is negative or beyond `bytes_max`.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    bytes_max: usize,
) -> io::Result<Option<BytesMut>> {
    let length = match reader.read_i32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > bytes_max {
        let reason = format!("a request of {length} bytes is over the limit of {bytes_max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut frame = BytesMut::with_capacity(length.min(TRUSTED_BYTES));
    while frame.len() < length {
        if frame.len() == frame.capacity() {
            frame.reserve(frame.len().min(length - frame.len()));
        }
        let left = length - frame.len();
        if reader.read_buf(&mut (&mut frame).limit(left)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(frame))
}

/// The bytes of a request, read from the front. Flexible versions (KIP-482) write lengths as
/// varints and have tagged fields.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: BytesMut,
    flexible: bool,
}

impl Input {
    pub(crate) fn new(bytes: BytesMut, flexible: bool) -> Self {
        Self { bytes, flexible }
    }

    /// Says whether what follows is written the flexible way.
    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// What is left.
    pub(crate) fn into_rest(self) -> BytesMut {
        self.bytes
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.bytes.try_get_i16().map_err(|_| Malformed)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.bytes.try_get_i32().map_err(|_| Malformed)
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..5).map(|n| n * 7) {
            let byte = self.bytes.try_get_u8().map_err(|_| Malformed)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    /// A length, `None` for null; `wide` is how the plain versions write it.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, Malformed> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    /// So many bytes, split off.
    pub(crate) fn take(&mut self, count: usize) -> Result<BytesMut, Malformed> {
        if count > self.bytes.len() {
            return Err(Malformed);
        }
        Ok(self.bytes.split_to(count))
    }

    /// A string, `None` for null.
    pub(crate) fn string(&mut self) -> Result<Option<String>, Malformed> {
        let Some(length) = self.length(false)? else {
            return Ok(None);
        };
        let text = self.take(length)?;
        let text = std::str::from_utf8(&text).map_err(|_| Malformed)?;
        Ok(Some(text.to_owned()))
    }

    /// Bytes, `None` for null.
    pub(crate) fn bytes(&mut self) -> Result<Option<BytesMut>, Malformed> {
        match self.length(true)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// An array's length; it must fit what is left when an element takes `smallest` bytes. Null
    /// counts as empty.
    pub(crate) fn count(&mut self, smallest: usize) -> Result<usize, Malformed> {
        let count = self.length(true)?.unwrap_or(0);
        match count.checked_mul(smallest) {
            Some(bytes) if bytes <= self.bytes.len() => Ok(count),
            _ => Err(Malformed),
        }
    }

    /// Skips the tagged fields that end a flexible struct; plain ones have none.
    pub(crate) fn skip_tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
            self.take(length)?;
        }
        Ok(())
    }
}

/// What stands before a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) api: i16,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
}

impl RequestHead {
    /// Reads the part that every version has.
    pub(crate) fn parse(input: &mut Input) -> Result<Self, Malformed> {
        Ok(Self {
            api: input.i16()?,
            version: input.i16()?,
            correlation: input.i32()?,
        })
    }
}

/// An answer under way: pieces of bytes, so that fetched batches are not copied.
#[derive(Debug)]
pub(crate) struct Reply {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Reply {
    /// Frames the pieces that make up one answer.
    pub(crate) fn new(mut pieces: VecDeque<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let prefix = i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes();
        pieces.push_front(Bytes::copy_from_slice(&prefix));
        Self {
            pieces,
            remaining: length + prefix.len(),
        }
    }

    /// Keeps only the first bytes: for an answer that breaks off.
    pub(crate) fn cut(&mut self, bytes: usize) {
        let mut left = bytes;
        for piece in &mut self.pieces {
            piece.truncate(left);
            left -= piece.len();
        }
        self.pieces.retain(|piece| !piece.is_empty());
        self.remaining = self.pieces.iter().map(Bytes::len).sum();
    }
}

impl Buf for Reply {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.remaining);
        self.remaining -= left;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                return;
            };
            let step = left.min(piece.len());
            piece.advance(step);
            left -= step;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

/// Writes an answer's body by hand, the plain or the flexible way.
#[derive(Debug)]
pub(crate) struct Output {
    pieces: VecDeque<Bytes>,
    current: BytesMut,
    flexible: bool,
}

impl Output {
    pub(crate) fn new(flexible: bool) -> Self {
        Self {
            pieces: VecDeque::new(),
            current: BytesMut::with_capacity(512),
            flexible,
        }
    }

    /// The bytes being written, for fields of fixed size and for generated encoders.
    pub(crate) fn raw(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.current.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.current.put_u8(value.to_le_bytes()[0]);
    }

    /// An array's or a byte string's length; `None` is null.
    pub(crate) fn length(&mut self, length: Option<usize>) {
        let length = length.map(|n| u32::try_from(n).unwrap_or(u32::MAX - 1));
        if self.flexible {
            self.varint(length.map_or(0, |n| n + 1));
        } else {
            let length = length.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
            self.current.put_i32(length);
        }
    }

    /// A string.
    pub(crate) fn string(&mut self, text: &str) {
        if self.flexible {
            self.length(Some(text.len()));
        } else {
            self.current
                .put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.current.put_slice(text.as_bytes());
    }

    /// Bytes that are written from where they are.
    pub(crate) fn borrow(&mut self, bytes: Bytes) {
        self.pieces.push_back(self.current.split().freeze());
        self.pieces.push_back(bytes);
    }

    /// The end of a flexible struct: how many tagged fields follow. Nothing in plain versions.
    pub(crate) fn tags(&mut self, count: u32) {
        if self.flexible {
            self.varint(count);
        }
    }

    /// One tagged field.
    pub(crate) fn tagged(&mut self, tag: u32, content: &[u8]) {
        self.varint(tag);
        self.varint(u32::try_from(content.len()).unwrap_or(u32::MAX));
        self.current.put_slice(content);
    }

    /// The whole answer, framed.
    pub(crate) fn finish(mut self) -> Reply {
        self.pieces.push_back(self.current.freeze());
        Reply::new(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_before_its_bytes_arrive() {
        let mut frame: &[u8] = &[0x7f, 0, 0, 0, 1, 2];
        let error = read_frame(&mut frame, 1000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut negative: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        assert!(read_frame(&mut negative, 1000).await.is_err());
        let mut cut: &[u8] = &[0, 0, 0, 9, 1, 2];
        assert!(read_frame(&mut cut, 1000).await.is_err());
        let mut whole: &[u8] = &[0, 0, 0, 2, 1, 2, 7];
        let read = read_frame(&mut whole, 1000).await.unwrap().unwrap();
        assert_eq!((&read[..], whole), (&[1u8, 2][..], &[7u8][..]));
        assert_eq!(read_frame(&mut &[][..], 1000).await.unwrap(), None);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        let input = |bytes: &[u8], flexible| Input::new(BytesMut::from(bytes), flexible);
        assert_eq!(
            input(&[0x7f, 0xff, 0xff, 0xff, 0], false).count(1),
            Err(Malformed)
        );
        assert_eq!(
            input(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).count(8),
            Err(Malformed)
        );
        assert_eq!(input(&[2, 0, 0], true).count(2), Ok(1));
        assert_eq!(input(&[0xff; 6], true).count(1), Err(Malformed));
        assert_eq!(input(&[0, 9, b'x'], false).string(), Err(Malformed));
        assert_eq!(
            input(&[1, 0, 0xff, 0xff, 0x7f], true).skip_tags(),
            Err(Malformed)
        );
    }

    #[test]
    fn pieces_are_framed_advanced_and_cut() {
        let mut output = Output::new(true);
        output.string("ab");
        output.borrow(Bytes::from_static(b"xyz"));
        output.tags(0);
        let mut reply = output.finish();
        assert_eq!(reply.remaining(), 4 + 3 + 3 + 1);
        reply.advance(5);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(reply.chunks_vectored(&mut slices), 3);
        assert_eq!(reply.copy_to_bytes(6), &b"abxyz\0"[..]);
        let mut reply = Reply::new([Bytes::from_static(b"12345")].into());
        reply.cut(6);
        assert_eq!(reply.copy_to_bytes(6), &b"\0\0\0\x0512"[..]);
    }
}
