//! A record on its way in: borrowed, so that appending it to a batch is the only copy.

use bytes::Bytes;
use std::borrow::Cow;

/// A smaller value is copied into its batch: that costs less than to keep, and to send, one piece more.
pub const KEPT_VALUE_BYTES_MIN: usize = 4 << 10;

/// One header. Keys may repeat within a record and values are any bytes, or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Key; may repeat.
    pub key: &'a str,
    /// Value; `None` is Kafka's null, not the empty value.
    pub value: Option<&'a [u8]>,
}

/// A record to be produced. It borrows everything it names.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Topic.
    pub topic: &'a str,
    /// An explicit partition; it wins over key and partitioner.
    pub partition: Option<i32>,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null, a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The value once more, if a batch may keep it instead of a copy: see [`Record::value_bytes`]. It
    /// counts only while it is the same memory as `value`.
    pub shared_value: Option<&'a Bytes>,
    /// Headers, in order.
    pub headers: Cow<'a, [Header<'a>]>,
    /// Milliseconds since the Unix epoch; `None` takes the producer's clock.
    pub timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// Begins a record for `topic`, with null key and null value.
    pub fn to(topic: &'a str) -> Self {
        Self {
            topic,
            partition: None,
            key: None,
            value: None,
            shared_value: None,
            headers: Cow::Borrowed(&[]),
            timestamp: None,
        }
    }

    /// The same record for a shorter while, so that it can refer to what does not live as long.
    #[must_use]
    pub fn borrowed(&self) -> Record<'_> {
        Record {
            headers: Cow::Borrowed(&self.headers),
            ..*self
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value<V: AsRef<[u8]> + ?Sized>(mut self, value: &'a V) -> Self {
        self.value = Some(value.as_ref());
        self.shared_value = None;
        self
    }

    /// Sets the value, and lets the batch keep these bytes instead of a copy of them.
    ///
    /// They are kept, at least until the record has its outcome, when there are
    /// [`KEPT_VALUE_BYTES_MIN`] of them or more, they are not nearly half of `buffer.memory`, and the
    /// producer does not compress; else they are copied as by [`Record::value`]. `buffer.memory` counts the bytes of the value: where they are a part of
    /// something larger, the rest of it stays in memory too, uncounted.
    #[must_use]
    pub fn value_bytes(mut self, value: &'a Bytes) -> Self {
        self.value = Some(value);
        self.shared_value = Some(value);
        self
    }

    /// The value where it is shared and large enough to be kept.
    #[inline]
    pub fn value_to_keep(&self) -> Option<&'a Bytes> {
        let shared = self.shared_value?;
        let same = self
            .value
            .is_some_and(|value| std::ptr::eq(value, &**shared));
        (same && shared.len() >= KEPT_VALUE_BYTES_MIN).then_some(shared)
    }

    /// Sends the record to this partition, whatever its key.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the record's own time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Adds a header. The first one allocates; use [`Record::headers`] to borrow a whole list.
    #[must_use]
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, key: &'a str, value: &'a V) -> Self {
        self.headers.to_mut().push(Header {
            key,
            value: Some(value.as_ref()),
        });
        self
    }

    /// Sets all headers at once, borrowed.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = Cow::Borrowed(headers);
        self
    }
}
