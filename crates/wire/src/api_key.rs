//! The Kafka APIs this client speaks, with the limit of what each may answer.

use std::fmt;

/// The largest Fetch answer that we take when the request did not say how much it asked for: Java's
/// `fetch.max.bytes` (50 MiB), one oversize batch, and room for the framing.
const FETCH_ANSWER_MAX_BYTES: usize = 100 << 20;
/// The largest answer to an ApiVersions request. Small, so that the first bytes of anything that is
/// not Kafka are over the limit.
const VERSIONS_ANSWER_MAX_BYTES: usize = 1 << 20;
/// The largest answer of every other API: metadata of some 500,000 partitions.
const ANSWER_MAX_BYTES: usize = 64 << 20;

macro_rules! apis {
    ($($name:ident = $number:literal,)*) => {
        /// A Kafka API.
        #[expect(missing_docs, reason = "the names are Kafka's, documented in its protocol guide")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        #[non_exhaustive]
        pub enum ApiKey {
            $($name = $number,)*
        }

        impl ApiKey {
            /// Every API of this list, ascending by number.
            pub const ALL: &[ApiKey] = &[$(ApiKey::$name,)*];
        }
    };
}

apis! {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
    DescribeConfigs = 32,
    CreatePartitions = 37,
    DeleteGroups = 42,
    ConsumerGroupDescribe = 69,
    ShareGroupDescribe = 77,
    DescribeShareGroupOffsets = 90,
}

impl ApiKey {
    /// Kafka's number.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// The API of that number, if it is one of ours.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|api| api.number() == number)
    }

    /// The largest answer we take, in bytes, unless the request says otherwise.
    pub(crate) fn answer_max_bytes(self) -> usize {
        match self {
            ApiKey::Fetch => FETCH_ANSWER_MAX_BYTES,
            ApiKey::ApiVersions => VERSIONS_ANSWER_MAX_BYTES,
            _ => ANSWER_MAX_BYTES,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
