//! A request on its way out: small pieces written once, large payloads borrowed.

use crate::api_key::ApiKey;
use bytes::{BufMut, Bytes, BytesMut};
use ottla_proto::batch::Segments;
use ottla_proto::{Error, ErrorKind, Result};

/// A payload below this is copied into the buffer of small pieces: a slice of its own would cost
/// more than the copy.
const COPY_BELOW_BYTES: usize = 512;

/// The largest request: a broker refuses more by default (`socket.request.max.bytes`).
pub const REQUEST_MAX_BYTES: usize = 100 << 20;

/// Where the correlation id stands: after the length, the API key and its version.
const CORRELATION_AT: usize = 8;
const LENGTH_BYTES: usize = 4;

/// What stands before a request's body, without the client id.
const HEADER_ROOM_BYTES: usize = 16;
/// Room for the small pieces of some dozens of requests: then each of them costs no allocation.
const ROOM_BYTES: usize = 16 << 10;

/// A whole request: length, header and body as a list of segments.
#[derive(Debug)]
pub struct Frame {
    api: ApiKey,
    version: i16,
    head: BytesMut,
    rest: Segments,
    size_bytes: usize,
    answer_max_bytes: usize,
}

impl Frame {
    /// The API that the request calls.
    pub fn api(&self) -> ApiKey {
        self.api
    }

    /// The API's version that the request speaks.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Size on the wire, with the length field.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Limits the answer, where the request itself says how much it asks for.
    #[must_use]
    pub fn with_answer_max_bytes(mut self, limit_bytes: usize) -> Self {
        self.answer_max_bytes = limit_bytes;
        self
    }

    pub(crate) fn answer_max_bytes(&self) -> usize {
        self.answer_max_bytes
    }

    /// Gives the request its number and yields its segments in order.
    pub(crate) fn into_segments(mut self, correlation: i32) -> impl Iterator<Item = Bytes> {
        if let Some(field) = self.head.get_mut(CORRELATION_AT..CORRELATION_AT + 4) {
            field.copy_from_slice(&correlation.to_be_bytes());
        }
        std::iter::once(self.head.freeze()).chain(self.rest)
    }

    /// The request's bytes in one piece, for tests and tools.
    #[doc(hidden)]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = self.head.to_vec();
        for segment in &self.rest {
            all.extend_from_slice(segment);
        }
        all
    }
}

/// Writes a request piece by piece.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    api: ApiKey,
    version: i16,
    /// The first segment, once a payload came after it.
    head: Option<BytesMut>,
    /// Small pieces since the last payload.
    open: BytesMut,
    rest: Segments,
    closed_bytes: usize,
}

/// What payloads need of a frame.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Payloads {
    /// How many are not copied.
    pub(crate) borrowed: usize,
    /// Bytes of the tiny ones, which are: they need capacity.
    pub(crate) copied_bytes: usize,
}

impl Payloads {
    pub(crate) fn of<'p>(payloads: impl Iterator<Item = &'p Bytes>) -> Self {
        payloads.fold(Self::default(), |mut all, payload| {
            match payload.len() {
                tiny if tiny < COPY_BELOW_BYTES => all.copied_bytes += tiny,
                _ => all.borrowed += 1,
            }
            all
        })
    }
}

/// The two request headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderForm {
    /// Version 1: key, version, correlation id, client id.
    Plain,
    /// Version 2: the same with tagged fields.
    Flexible,
}

/// What a request's header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) form: HeaderForm,
    pub(crate) client_id: &'a str,
}

impl FrameWriter {
    /// Begins a request with room for `capacity_bytes` of small pieces.
    pub(crate) fn new(header: Header<'_>, capacity_bytes: usize) -> Self {
        let wanted = capacity_bytes + header.client_id.len() + HEADER_ROOM_BYTES;
        Self::within(BytesMut::with_capacity(wanted), header)
    }

    /// As [`new`](Self::new), in the room that earlier requests left ([`into_room`](Self::into_room)).
    pub(crate) fn in_room(mut room: BytesMut, header: Header<'_>, capacity_bytes: usize) -> Self {
        let wanted = capacity_bytes + header.client_id.len() + HEADER_ROOM_BYTES;
        if room.capacity() < wanted {
            // It is the old room again once all that was written into it has left.
            room.reserve(wanted.max(ROOM_BYTES));
        }
        Self::within(room, header)
    }

    fn within(mut open: BytesMut, header: Header<'_>) -> Self {
        let Header {
            api,
            version,
            form,
            client_id,
        } = header;
        open.put_i32(0); // the length, known at the end
        open.put_i16(api.number());
        open.put_i16(version);
        open.put_i32(0); // the correlation id, given when the request is written
        match i16::try_from(client_id.len()) {
            Ok(length) => {
                open.put_i16(length);
                open.put_slice(client_id.as_bytes());
            }
            Err(_) => open.put_i16(-1),
        }
        if form == HeaderForm::Flexible {
            open.put_u8(0);
        }
        Self {
            api,
            version,
            head: None,
            open,
            rest: Segments::default(),
            closed_bytes: 0,
        }
    }

    /// What is left of the room, for the next request.
    pub(crate) fn into_room(self) -> BytesMut {
        self.open
    }

    /// Makes room for so many borrowed payloads and the small pieces behind each; before the first.
    pub(crate) fn reserve(&mut self, payloads: Payloads) {
        self.rest = Segments::with_capacity(2 * payloads.borrowed);
    }

    /// The buffer for small pieces.
    pub(crate) fn small(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    /// Adds a payload without copying it, unless it is tiny.
    pub(crate) fn payload(&mut self, payload: &Bytes) {
        if payload.len() < COPY_BELOW_BYTES {
            self.open.put_slice(payload);
            return;
        }
        self.close_small();
        self.closed_bytes += payload.len();
        self.rest.push(payload.clone());
    }

    fn close_small(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let piece = self.open.split();
        self.closed_bytes += piece.len();
        match self.head {
            None => self.head = Some(piece),
            Some(_) => self.rest.push(piece.freeze()),
        }
    }

    /// Ends the request.
    ///
    /// # Errors
    /// `RecordTooLarge` for Produce and `Config` for other APIs when it is larger than
    /// [`REQUEST_MAX_BYTES`].
    pub(crate) fn finish(&mut self) -> Result<Frame> {
        self.close_small();
        let size_bytes = self.closed_bytes;
        let length = size_bytes.saturating_sub(LENGTH_BYTES);
        let mut head = self.head.take().unwrap_or_default();
        let length = i32::try_from(length)
            .ok()
            .filter(|_| length <= REQUEST_MAX_BYTES)
            .ok_or_else(|| too_large(self.api, length))?;
        if let Some(field) = head.get_mut(..LENGTH_BYTES) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        Ok(Frame {
            api: self.api,
            version: self.version,
            head,
            rest: std::mem::take(&mut self.rest),
            size_bytes,
            answer_max_bytes: self.api.answer_max_bytes(),
        })
    }
}

fn too_large(api: ApiKey, length: usize) -> Error {
    let kind = match api {
        ApiKey::Produce => ErrorKind::RecordTooLarge,
        _ => ErrorKind::Config,
    };
    Error::new(
        kind,
        format!("a {api} request of {length} bytes is over the limit of {REQUEST_MAX_BYTES}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header<'static> = Header {
        api: ApiKey::Produce,
        version: 9,
        form: HeaderForm::Flexible,
        client_id: "me",
    };

    #[test]
    fn tiny_payloads_share_one_buffer_that_was_made_for_them() {
        let (tiny, large) = (vec![1u8; COPY_BELOW_BYTES - 1], vec![2u8; COPY_BELOW_BYTES]);
        let payloads: Vec<_> = [tiny, large]
            .into_iter()
            .cycle()
            .take(20)
            .map(Bytes::from)
            .collect();
        let needs = Payloads::of(payloads.iter());
        let capacity = 64 + needs.copied_bytes;
        let mut writer = FrameWriter::new(HEADER, capacity);
        writer.reserve(needs);
        for payload in &payloads {
            writer.small().put_u8(0);
            writer.payload(payload);
        }
        let segments: Vec<Bytes> = writer.finish().unwrap().into_segments(1).collect();
        assert_eq!(segments.len(), payloads.len());
        let tiny: Vec<_> = segments.iter().step_by(2).collect();
        for pair in tiny.windows(2) {
            assert_eq!(pair[0].as_ptr_range().end, pair[1].as_ptr_range().start);
        }
    }

    #[test]
    fn a_large_payload_is_borrowed_and_a_tiny_one_copied() {
        let mut writer = FrameWriter::new(HEADER, 64);
        writer.small().put_slice(b"abc");
        let large = Bytes::from(vec![7u8; 4096]);
        writer.payload(&large);
        writer.small().put_slice(b"def");
        writer.payload(&Bytes::from_static(b"tiny"));
        let frame = writer.finish().unwrap();
        let whole = frame.to_bytes();
        assert_eq!(frame.size_bytes(), whole.len());
        assert_eq!(whole[..4], (whole.len() as i32 - 4).to_be_bytes());
        let segments: Vec<Bytes> = frame.into_segments(0x0102_0304).collect();
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[0][8..12], [1, 2, 3, 4]);
        assert_eq!(segments[1].as_ptr(), large.as_ptr(), "not copied");
        assert_eq!(&segments[2][..], b"deftiny");
    }

    #[test]
    fn an_oversize_request_is_refused_by_name() {
        let mut writer = FrameWriter::new(HEADER, 64);
        let chunk = Bytes::from(vec![0u8; 1 << 20]);
        for _ in 0..101 {
            writer.payload(&chunk);
        }
        let error = writer.finish().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::RecordTooLarge);
        assert!(error.to_string().contains("Produce"), "{error}");
    }
}
