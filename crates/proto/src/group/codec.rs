//! The bytes that members of a classic group exchange through the coordinator, which does not read
//! them: Kafka's `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, versions 0 to 3.

use crate::error::{Error, ErrorKind, Result};
use crate::topic::TopicPartition;
use std::sync::Arc;

/// The newest version that we write and read. Fields of later versions are at the end, so a later
/// version is read as this one, as Java does.
const NEWEST: i16 = 3;

/// What a member tells the group's leader when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The topics it wants, by name.
    pub topics: Vec<Arc<str>>,
    /// What its assignor adds.
    pub user_data: Option<Vec<u8>>,
    /// What it holds now and has not given up (from version 1; empty under the eager protocol).
    pub owned: Vec<TopicPartition>,
    /// The generation in which it got `owned` (from version 2).
    pub generation: Option<i32>,
    /// Its rack (from version 3).
    pub rack: Option<Arc<str>>,
}

/// What the group's leader gives one member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The partitions it shall read.
    pub partitions: Vec<TopicPartition>,
    /// What the assignor adds.
    pub user_data: Option<Vec<u8>>,
}

impl Subscription {
    /// Writes it as Java does: topics and owned partitions sorted, at the newest version.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_version(NEWEST)
    }

    fn encode_version(&self, version: i16) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&version.to_be_bytes());
        let mut topics = self.topics.clone();
        topics.sort();
        put_count(&mut out, topics.len());
        for topic in &topics {
            put_string(&mut out, topic);
        }
        put_bytes(&mut out, self.user_data.as_deref());
        if version >= 1 {
            put_partitions(&mut out, &self.owned);
        }
        if version >= 2 {
            out.extend_from_slice(&self.generation.unwrap_or(-1).to_be_bytes());
        }
        if version >= 3 {
            match &self.rack {
                Some(rack) => put_string(&mut out, rack),
                None => out.extend_from_slice(&(-1i16).to_be_bytes()),
            }
        }
        out
    }

    /// Reads what another member wrote.
    ///
    /// # Errors
    /// `Protocol` when the bytes end early or a length is negative.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bytes);
        let version = from.version()?;
        let mut read = Self::default();
        for _ in 0..from.count()? {
            read.topics.push(from.string()?.into());
        }
        read.user_data = from.bytes()?.map(<[u8]>::to_vec);
        if version >= 1 {
            read.owned = from.partitions()?;
        }
        if version >= 2 {
            read.generation = Some(from.i32()?).filter(|generation| *generation >= 0);
        }
        if version >= 3 {
            read.rack = from.nullable_string()?.map(Into::into);
        }
        Ok(read)
    }
}

impl Assignment {
    /// Writes it as Java does, at the newest version.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&NEWEST.to_be_bytes());
        put_partitions(&mut out, &self.partitions);
        put_bytes(&mut out, self.user_data.as_deref());
        out
    }

    /// Reads what the leader wrote. No bytes at all means no partitions: a leader leaves out
    /// members that get nothing.
    ///
    /// # Errors
    /// `Protocol` when the bytes end early or a length is negative.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut from = Reader(bytes);
        from.version()?;
        Ok(Self {
            partitions: from.partitions()?,
            user_data: from.bytes()?.map(<[u8]>::to_vec),
        })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    out.extend_from_slice(&count.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Kafka's names have at most 249 characters; a longer one was refused long before.
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(text.bytes().take(usize::try_from(length).unwrap_or(0)));
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
    }
}

fn put_partitions(out: &mut Vec<u8>, partitions: &[TopicPartition]) {
    let mut sorted: Vec<&TopicPartition> = partitions.iter().collect();
    sorted.sort();
    let topics = sorted.chunk_by(|a, b| a.topic == b.topic);
    put_count(out, topics.clone().count());
    for topic in topics {
        if let Some(first) = topic.first() {
            put_string(out, &first.topic);
        }
        put_count(out, topic.len());
        for one in topic {
            out.extend_from_slice(&one.partition.to_be_bytes());
        }
    }
}

/// Reads big-endian fields; every length is held against what is left before anything is made.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(|| {
            malformed(format!("{length} bytes wanted, {} are left", self.0.len()))
        })?;
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        let bytes = self.take(2)?;
        Ok(i16::from_be_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn i32(&mut self) -> Result<i32> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn version(&mut self) -> Result<i16> {
        let version = self.i16()?;
        if version < 0 {
            return Err(malformed(format!("version {version}")));
        }
        Ok(version.min(NEWEST))
    }

    fn count(&mut self) -> Result<i32> {
        let count = self.i32()?;
        if count < 0 {
            return Err(malformed(format!("a count of {count}")));
        }
        Ok(count)
    }

    fn nullable_string(&mut self) -> Result<Option<&'a str>> {
        let length = self.i16()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let text = self.take(length)?;
        std::str::from_utf8(text)
            .map(Some)
            .map_err(|_| malformed("a name that is not UTF-8"))
    }

    fn string(&mut self) -> Result<&'a str> {
        self.nullable_string()?
            .ok_or_else(|| malformed("a null where a name belongs"))
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.i32()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>> {
        let mut read = Vec::new();
        for _ in 0..self.count()? {
            let topic: Arc<str> = self.string()?.into();
            for _ in 0..self.count()? {
                read.push(TopicPartition::new(Arc::clone(&topic), self.i32()?));
            }
        }
        Ok(read)
    }
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("a group member's metadata is malformed: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(topic: &str, number: i32) -> TopicPartition {
        TopicPartition::new(topic, number)
    }

    /// Laid out by hand from Kafka's `ConsumerProtocolSubscription.json`, with Java's sorting.
    #[test]
    fn a_subscription_is_written_as_java_writes_it() {
        let subscription = Subscription {
            topics: vec!["b".into(), "a".into()],
            user_data: Some(vec![0, 0, 0, 7]),
            owned: vec![partition("b", 2), partition("a", 1), partition("b", 0)],
            generation: Some(7),
            rack: Some("r".into()),
        };
        let mut golden = vec![0, 3];
        golden.extend([0, 0, 0, 2, 0, 1, b'a', 0, 1, b'b']);
        golden.extend([0, 0, 0, 4, 0, 0, 0, 7]);
        golden.extend([0, 0, 0, 2]);
        golden.extend([0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 1]);
        golden.extend([0, 1, b'b', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2]);
        golden.extend([0, 0, 0, 7]);
        golden.extend([0, 1, b'r']);
        assert_eq!(subscription.encode(), golden);
    }

    #[test]
    fn an_eager_subscription_writes_nulls_and_minus_one() {
        let subscription = Subscription {
            topics: vec!["t".into()],
            ..Subscription::default()
        };
        let golden = [
            0, 3, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 255,
            255,
        ];
        assert_eq!(subscription.encode(), golden);
        assert_eq!(Subscription::decode(&golden).unwrap(), subscription);
    }

    #[test]
    fn an_assignment_is_written_as_java_writes_it() {
        let assignment = Assignment {
            partitions: vec![partition("t", 1), partition("t", 0)],
            user_data: None,
        };
        let golden = [
            0, 3, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255,
        ];
        assert_eq!(assignment.encode(), golden);
    }

    #[test]
    fn older_and_newer_versions_are_read() {
        let full = Subscription {
            topics: vec!["t".into()],
            user_data: Some(vec![1]),
            owned: vec![partition("t", 4)],
            generation: Some(3),
            rack: Some("r1".into()),
        };
        for version in 0..=3 {
            let read = Subscription::decode(&full.encode_version(version)).unwrap();
            assert_eq!(read.topics, full.topics);
            assert_eq!(read.owned.is_empty(), version < 1);
            assert_eq!(read.generation.is_none(), version < 2);
            assert_eq!(read.rack.is_none(), version < 3);
        }
        let mut newer = full.encode_version(3);
        newer[1] = 9;
        newer.extend([1, 2, 3]);
        assert_eq!(Subscription::decode(&newer).unwrap(), full);
    }

    #[test]
    fn a_count_that_lies_is_an_error_and_allocates_nothing() {
        let lying = [0, 1, 127, 255, 255, 255, 0, 1];
        assert!(Subscription::decode(&lying).is_err());
        assert!(Assignment::decode(&lying).is_err());
        assert!(Assignment::decode(&[0, 0, 255, 255, 255, 255]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Subscription::decode(&bytes);
            let _ = Assignment::decode(&bytes);
        }

        #[test]
        fn an_assignment_survives_the_way(numbers in proptest::collection::btree_set(0i32..1000, 0..40)) {
            let assignment = Assignment {
                partitions: numbers.iter().map(|n| partition(if n % 2 == 0 { "a" } else { "b" }, *n)).collect(),
                user_data: Some(vec![9]),
            };
            let mut read = Assignment::decode(&assignment.encode()).unwrap();
            let mut wrote = assignment;
            read.partitions.sort();
            wrote.partitions.sort();
            prop_assert_eq!(read, wrote);
        }
    }
}
