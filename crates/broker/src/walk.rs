//! A walk over a request's bytes before the generated decoder sees them. That decoder reserves
//! memory from counts on the wire, so that a few bytes could end the process; after the walk every
//! count is known to have its elements behind it.

use crate::frame::Malformed;
use kafka_protocol::messages::ApiKey;

#[derive(Debug, Clone, Copy)]
enum Part {
    /// So many bytes.
    Fixed(usize),
    /// A string, possibly null.
    Text,
    /// Bytes, possibly null.
    Blob,
    /// An array of structs, possibly null.
    Many(&'static [Field]),
    /// An array of plain values, possibly null.
    List(&'static Part),
}

/// A field, with the versions that have it.
#[derive(Debug, Clone, Copy)]
struct Field {
    part: Part,
    since: i16,
    until: i16,
}

const fn all(part: Part) -> Field {
    since(0, part)
}

const fn since(since: i16, part: Part) -> Field {
    Field {
        part,
        since,
        until: i16::MAX,
    }
}

const fn until(until: i16, part: Part) -> Field {
    Field {
        part,
        since: 0,
        until,
    }
}

const BYTE: Part = Part::Fixed(1);
const SHORT: Part = Part::Fixed(2);
const INT: Part = Part::Fixed(4);
const LONG: Part = Part::Fixed(8);
const ID: Part = Part::Fixed(16);
const INTS: Part = Part::List(&INT);
const TEXTS: Part = Part::List(&Part::Text);
use Part::{Blob, Many, Text};

const FETCH_PARTITION: &[Field] = &[
    all(INT),
    since(9, INT),
    all(LONG),
    since(12, INT),
    since(5, LONG),
    all(INT),
];
const FETCH: &[Field] = &[
    until(14, INT),
    all(INT),
    all(INT),
    all(INT),
    all(BYTE),
    since(7, INT),
    since(7, INT),
    all(Many(&[
        until(12, Text),
        since(13, ID),
        all(Many(FETCH_PARTITION)),
    ])),
    since(7, Many(&[until(12, Text), since(13, ID), all(INTS)])),
    since(11, Text),
];
const LIST_OFFSETS: &[Field] = &[
    all(INT),
    since(2, BYTE),
    all(Many(&[
        all(Text),
        all(Many(&[all(INT), since(4, INT), all(LONG)])),
    ])),
    since(10, INT),
];
const METADATA: &[Field] = &[
    all(Many(&[since(10, ID), all(Text)])),
    since(4, BYTE),
    Field {
        part: BYTE,
        since: 8,
        until: 10,
    },
    since(8, BYTE),
];
const COMMITTED: &[Field] = &[all(INT), all(LONG), since(6, INT), all(Text)];
const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(INT),
    all(Text),
    since(7, Text),
    until(4, LONG),
    all(Many(&[all(Text), all(Many(COMMITTED))])),
];
const NAMED_INTS: &[Field] = &[all(Text), all(INTS)];
const OFFSET_FETCH: &[Field] = &[
    until(7, Text),
    until(7, Many(NAMED_INTS)),
    since(
        8,
        Many(&[
            all(Text),
            since(9, Text),
            since(9, INT),
            all(Many(NAMED_INTS)),
        ]),
    ),
    since(7, BYTE),
];
const JOIN_GROUP: &[Field] = &[
    all(Text),
    all(INT),
    since(1, INT),
    all(Text),
    since(5, Text),
    all(Text),
    all(Many(&[all(Text), all(Blob)])),
    since(8, Text),
];
const SYNC_GROUP: &[Field] = &[
    all(Text),
    all(INT),
    all(Text),
    since(3, Text),
    since(5, Text),
    since(5, Text),
    all(Many(&[all(Text), all(Blob)])),
];
const CREATE_TOPICS: &[Field] = &[
    all(Many(&[
        all(Text),
        all(INT),
        all(SHORT),
        all(Many(&[all(INT), all(INTS)])),
        all(Many(&[all(Text), all(Text)])),
    ])),
    all(INT),
    all(BYTE),
];
const DELETE_TOPICS: &[Field] = &[
    since(6, Many(&[all(Text), all(ID)])),
    until(5, TEXTS),
    all(INT),
];
const DELETE_RECORDS: &[Field] = &[
    all(Many(&[all(Text), all(Many(&[all(INT), all(LONG)]))])),
    all(INT),
];
const LEADER_EPOCH: &[Field] = &[
    since(3, INT),
    all(Many(&[
        all(Text),
        all(Many(&[all(INT), all(INT), all(INT)])),
    ])),
];
const DESCRIBE_CONFIGS: &[Field] = &[
    all(Many(&[all(BYTE), all(Text), all(TEXTS)])),
    all(BYTE),
    since(3, BYTE),
];
const CREATE_PARTITIONS: &[Field] = &[
    all(Many(&[all(Text), all(INT), all(Many(&[all(INTS)]))])),
    all(INT),
    all(BYTE),
];

const FIND_COORDINATOR: &[Field] = &[until(3, Text), since(1, BYTE), since(4, TEXTS)];
const HEARTBEAT: &[Field] = &[all(Text), all(INT), all(Text), since(3, Text)];
const LEAVE_GROUP: &[Field] = &[
    all(Text),
    until(2, Text),
    since(3, Many(&[all(Text), all(Text), since(5, Text)])),
];
const DESCRIBE_GROUPS: &[Field] = &[all(TEXTS), since(3, BYTE)];
const LIST_GROUPS: &[Field] = &[since(4, TEXTS), since(5, TEXTS)];
const DELETE_GROUPS: &[Field] = &[all(TEXTS)];
const API_VERSIONS: &[Field] = &[since(3, Text), since(3, Text)];
const INIT_PRODUCER_ID: &[Field] = &[all(Text), all(INT), since(3, LONG), since(3, SHORT)];
const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    since(
        4,
        Many(&[
            all(Text),
            all(LONG),
            all(SHORT),
            all(BYTE),
            all(Many(NAMED_INTS)),
        ]),
    ),
    until(3, Text),
    until(3, LONG),
    until(3, SHORT),
    until(3, Many(NAMED_INTS)),
];
const ADD_OFFSETS_TO_TXN: &[Field] = &[all(Text), all(LONG), all(SHORT), all(Text)];
const END_TXN: &[Field] = &[all(Text), all(LONG), all(SHORT), all(BYTE)];
const TXN_OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(Text),
    all(LONG),
    all(SHORT),
    since(3, INT),
    since(3, Text),
    since(3, Text),
    all(Many(&[
        all(Text),
        all(Many(&[all(INT), all(LONG), since(2, INT), all(Text)])),
    ])),
];
const DESCRIBE_TRANSACTIONS: &[Field] = &[all(TEXTS)];
const LIST_TRANSACTIONS: &[Field] = &[
    all(TEXTS),
    all(Part::List(&LONG)),
    since(1, LONG),
    since(2, Text),
];
const DESCRIBE_CLUSTER: &[Field] = &[all(BYTE), since(1, BYTE), since(2, BYTE)];

/// The fields of a request; `None` for Produce, which is read by hand, and for what is not served.
fn fields(api: ApiKey) -> Option<&'static [Field]> {
    Some(match api {
        ApiKey::Fetch => FETCH,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::DeleteRecords => DELETE_RECORDS,
        ApiKey::OffsetForLeaderEpoch => LEADER_EPOCH,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        ApiKey::AddPartitionsToTxn => ADD_PARTITIONS_TO_TXN,
        ApiKey::AddOffsetsToTxn => ADD_OFFSETS_TO_TXN,
        ApiKey::EndTxn => END_TXN,
        ApiKey::TxnOffsetCommit => TXN_OFFSET_COMMIT,
        ApiKey::DescribeTransactions => DESCRIBE_TRANSACTIONS,
        ApiKey::ListTransactions => LIST_TRANSACTIONS,
        _ => return None,
    })
}

/// Walks a request's body.
///
/// # Errors
/// A length or a count does not fit, or bytes are left over.
pub(crate) fn walk(
    api: ApiKey,
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<(), Malformed> {
    let Some(fields) = fields(api) else {
        return Ok(());
    };
    let mut walker = Walker {
        rest: body,
        version,
        flexible,
    };
    walker.fields(fields)?;
    if walker.rest.is_empty() {
        Ok(())
    } else {
        Err(Malformed)
    }
}

struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl Walker<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0u64;
        for shift in (0..5).map(|n| n * 7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let value = u32::try_from(value).map_err(|_| Malformed)?;
                return usize::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    /// A length with null as 0; `wide` is how the plain versions write it.
    fn length(&mut self, wide: bool) -> Result<usize, Malformed> {
        let length = if self.flexible {
            return Ok(self.varint()?.saturating_sub(1));
        } else if wide {
            i32::from_be_bytes(self.take()?)
        } else {
            i32::from(i16::from_be_bytes(self.take()?))
        };
        match length {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| Malformed),
        }
    }

    fn tags(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let length = self.varint()?;
                self.skip(length)?;
            }
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.part(field.part)?;
            }
        }
        self.tags()
    }

    fn part(&mut self, part: Part) -> Result<(), Malformed> {
        match part {
            Part::Fixed(bytes) => self.skip(bytes),
            Part::Text => {
                let length = self.length(false)?;
                self.skip(length)
            }
            Part::Blob => {
                let length = self.length(true)?;
                self.skip(length)
            }
            // Every element takes at least a byte, so a count that lies ends at the last byte.
            Part::Many(fields) => (0..self.length(true)?).try_for_each(|_| self.fields(fields)),
            Part::List(part) => (0..self.length(true)?).try_for_each(|_| self.part(*part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_need_their_elements() {
        let groups = |body: &[u8]| walk(ApiKey::DeleteGroups, 0, false, body);
        assert_eq!(groups(b"\0\0\0\x02\0\x01g\0\x01h"), Ok(()));
        assert_eq!(groups(b"\0\0\0\x03\0\x01g\0\x01h"), Err(Malformed));
        assert_eq!(
            groups(b"\0\0\0\x01\0\x01g\0\x01h"),
            Err(Malformed),
            "bytes are left over"
        );
        assert_eq!(groups(b"\0\0\0\x01\0\x09g"), Err(Malformed));
        assert_eq!(groups(b"\xff\xff\xff\xfe"), Err(Malformed));
        let flexible = |body: &[u8]| walk(ApiKey::DeleteGroups, 2, true, body);
        assert_eq!(flexible(b"\x02\x02g\0"), Ok(()));
        assert_eq!(flexible(b"\xff\xff\xff\xff\x0f\x02g\0"), Err(Malformed));
        assert_eq!(flexible(b"\x02\x02g\x01\x00\x7f"), Err(Malformed));
    }
}
