//! The little of Kafka's protocol that the null broker and the floor need, written by hand: so it shares no
//! code, and no bug, with any client that is measured.

/// The one topic.
pub const TOPIC: &str = "versus";
const TOPIC_ID: [u8; 16] = *b"versus-topic-id!";

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;

/// Key, lowest and highest version. Produce from 0, or librdkafka leaves compression out; nothing below 3 is
/// really served. Fetch, ListOffsets and FindCoordinator are here because librdkafka and others conclude from
/// them which batch format and codecs a broker knows; a producer does not call them.
const SUPPORTED: [(i16, i16, i16); 7] = [
    (PRODUCE, 0, 13),
    (1, 4, 17),
    (2, 1, 10),
    (METADATA, 0, 13),
    (10, 0, 6),
    (API_VERSIONS, 0, 4),
    (INIT_PRODUCER_ID, 0, 5),
];

/// A cursor over bytes of a client that is trusted to be well-formed; what is not yields `None`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn uvarint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A length that is either fixed (-1 for null) or compact (one more than the length, 0 for null).
    fn length(&mut self, flexible: bool, wide: bool) -> Option<usize> {
        Some(match (flexible, wide) {
            (true, _) => self.uvarint()?.saturating_sub(1),
            (false, true) => self.i32()?.max(0) as usize,
            (false, false) => self.i16()?.max(0) as usize,
        })
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let size = self.uvarint()?;
            self.take(size)?;
        }
        Some(())
    }
}

/// A request, as far as it matters.
pub enum Request<'a> {
    ApiVersions { version: i16 },
    Metadata { version: i16 },
    InitProducerId { version: i16 },
    Produce(Produce<'a>),
}

impl<'a> Request<'a> {
    /// The request and its correlation id; `None` for what is not served.
    pub fn parse(frame: &'a [u8]) -> Option<(Request<'a>, i32)> {
        let mut reader = Reader(frame);
        let (key, version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let request = match key {
            API_VERSIONS => Request::ApiVersions { version },
            METADATA => Request::Metadata { version },
            INIT_PRODUCER_ID => Request::InitProducerId { version },
            PRODUCE if version >= 3 => {
                let flexible = version >= 9;
                let client_id = reader.length(false, false)?;
                reader.take(client_id)?;
                if flexible {
                    reader.tags()?;
                }
                let transactional_id = reader.length(flexible, false)?;
                reader.take(transactional_id)?;
                let acks = reader.i16()?;
                reader.i32()?;
                Request::Produce(Produce {
                    version,
                    acks,
                    topics: reader.0,
                })
            }
            _ => return None,
        };
        Some((request, correlation_id))
    }
}

/// A Produce request: its topics are walked as they are asked for.
pub struct Produce<'a> {
    pub version: i16,
    pub acks: i16,
    topics: &'a [u8],
}

impl<'a> Produce<'a> {
    /// Topic (its name or id as it came), partition and record bytes.
    pub fn partitions(&self) -> Vec<(&'a [u8], i32, &'a [u8])> {
        let mut found = Vec::new();
        // A request that ends too early counts for what it held; the record count then tells.
        let _ = self.walk(&mut found);
        found
    }

    fn walk(&self, found: &mut Vec<(&'a [u8], i32, &'a [u8])>) -> Option<()> {
        let flexible = self.version >= 9;
        let mut reader = Reader(self.topics);
        for _ in 0..reader.length(flexible, true)? {
            let name_bytes = if self.version >= 13 {
                16
            } else {
                reader.length(flexible, false)?
            };
            let topic = reader.take(name_bytes)?;
            for _ in 0..reader.length(flexible, true)? {
                let partition = reader.i32()?;
                let size = reader.length(flexible, true)?;
                found.push((topic, partition, reader.take(size)?));
                if flexible {
                    reader.tags()?;
                }
            }
            if flexible {
                reader.tags()?;
            }
        }
        Some(())
    }
}

/// A record batch of version 2, its header read.
pub struct Batch<'a> {
    pub bytes: &'a [u8],
    pub crc: u32,
    pub attributes: u16,
    pub producer_id: i64,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// The batches of a record set.
pub fn batches(records: &[u8]) -> impl Iterator<Item = Batch<'_>> {
    let mut rest = Reader(records);
    std::iter::from_fn(move || {
        let whole = rest.0;
        let mut header = Reader(whole);
        header.take(8)?;
        let size = 12 + header.i32()?.max(0) as usize;
        header.take(5)?;
        let crc = header.array().map(u32::from_be_bytes)?;
        let attributes = header.array().map(u16::from_be_bytes)?;
        header.take(20)?;
        let producer_id = header.array().map(i64::from_be_bytes)?;
        header.take(2)?;
        let (base_sequence, record_count) = (header.i32()?, header.i32()?);
        let bytes = rest.take(size.max(61))?;
        Some(Batch {
            bytes,
            crc,
            attributes,
            producer_id,
            base_sequence,
            record_count,
        })
    })
}

/// An answer as it is built: the size is filled in at the end.
pub struct Answer {
    bytes: Vec<u8>,
    flexible: bool,
}

impl Answer {
    fn new(correlation_id: i32, flexible: bool, header_tags: bool) -> Answer {
        let mut answer = Answer {
            bytes: vec![0; 4],
            flexible,
        };
        answer.i32(correlation_id);
        if header_tags {
            answer.bytes.push(0);
        }
        answer
    }

    fn i16(&mut self, value: i16) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn uvarint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn count(&mut self, count: usize) {
        if self.flexible {
            self.uvarint(count + 1)
        } else {
            self.i32(count as i32)
        }
    }

    fn string(&mut self, text: &[u8]) {
        if self.flexible {
            self.uvarint(text.len() + 1)
        } else {
            self.i16(text.len() as i16)
        }
        self.bytes.extend(text);
    }

    fn null_string(&mut self) {
        if self.flexible {
            self.bytes.push(0)
        } else {
            self.i16(-1)
        }
    }

    fn tags(&mut self) {
        if self.flexible {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let size = (self.bytes.len() - 4) as u32;
        self.bytes[..4].copy_from_slice(&size.to_be_bytes());
        self.bytes
    }

    pub fn api_versions(correlation_id: i32, version: i16) -> Vec<u8> {
        // The header of this answer never has tags: the client does not know yet what we speak.
        let mut answer = Answer::new(correlation_id, version >= 3, false);
        answer.i16(0);
        answer.count(SUPPORTED.len());
        for (key, lowest, highest) in SUPPORTED {
            answer.i16(key);
            answer.i16(lowest);
            answer.i16(highest);
            answer.tags();
        }
        if version >= 1 {
            answer.i32(0);
        }
        answer.tags();
        answer.finish()
    }

    pub fn metadata(correlation_id: i32, version: i16, port: u16, partitions: i32) -> Vec<u8> {
        let flexible = version >= 9;
        let mut answer = Answer::new(correlation_id, flexible, flexible);
        if version >= 3 {
            answer.i32(0);
        }
        answer.count(1);
        answer.i32(1);
        answer.string(b"127.0.0.1");
        answer.i32(i32::from(port));
        if version >= 1 {
            answer.null_string();
        }
        answer.tags();
        if version >= 2 {
            answer.string(b"null-cluster");
        }
        if version >= 1 {
            answer.i32(1);
        }
        answer.count(1);
        answer.i16(0);
        answer.string(TOPIC.as_bytes());
        if version >= 10 {
            answer.bytes.extend(TOPIC_ID);
        }
        if version >= 1 {
            answer.bytes.push(0);
        }
        answer.count(partitions as usize);
        for partition in 0..partitions {
            answer.partition(version, partition);
        }
        if version >= 8 {
            answer.i32(i32::MIN);
        }
        answer.tags();
        if (8..=10).contains(&version) {
            answer.i32(i32::MIN);
        }
        if version >= 13 {
            answer.i16(0);
        }
        answer.tags();
        answer.finish()
    }

    fn partition(&mut self, version: i16, partition: i32) {
        self.i16(0);
        self.i32(partition);
        self.i32(1);
        if version >= 7 {
            self.i32(0);
        }
        for _ in 0..2 {
            self.count(1);
            self.i32(1);
        }
        if version >= 5 {
            self.count(0);
        }
        self.tags();
    }

    pub fn init_producer_id(correlation_id: i32, version: i16, producer_id: i64) -> Vec<u8> {
        let flexible = version >= 2;
        let mut answer = Answer::new(correlation_id, flexible, flexible);
        answer.i32(0);
        answer.i16(0);
        answer.i64(producer_id);
        answer.i16(0);
        answer.tags();
        answer.finish()
    }

    /// `offsets` in the order of the request; neighbours of one topic are put together.
    pub fn produce(correlation_id: i32, version: i16, offsets: &[(&[u8], i32, i64)]) -> Vec<u8> {
        let flexible = version >= 9;
        let mut answer = Answer::new(correlation_id, flexible, flexible);
        let topics: Vec<_> = offsets.chunk_by(|a, b| a.0 == b.0).collect();
        answer.count(topics.len());
        for partitions in topics {
            match partitions.first() {
                Some((id, ..)) if version >= 13 => answer.bytes.extend(*id),
                Some((name, ..)) => answer.string(name),
                None => {}
            }
            answer.count(partitions.len());
            for &(_, partition, base_offset) in partitions {
                answer.acknowledgement(version, partition, base_offset);
            }
            answer.tags();
        }
        answer.i32(0);
        answer.tags();
        answer.finish()
    }

    fn acknowledgement(&mut self, version: i16, partition: i32, base_offset: i64) {
        self.i32(partition);
        self.i16(0);
        self.i64(base_offset);
        self.i64(-1);
        if version >= 5 {
            self.i64(0);
        }
        if version >= 8 {
            self.count(0);
            self.null_string();
        }
        self.tags();
    }
}
