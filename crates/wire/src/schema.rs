//! The fields of every answer that a generated decoder reads, for the bounds walk.
//!
//! A row a field, in wire order; the name of the field stands behind it.

use crate::api_key::ApiKey;
use crate::walk::Kind::{Blob, Fixed, Plain, Struct, Structs, Text};
use crate::walk::{Field, Kind, Schema};

const INT32: &Kind = &Fixed(4);

const fn since(from: i16, kind: Kind) -> Field {
    within(from, i16::MAX, kind)
}

const fn within(from: i16, to: i16, kind: Kind) -> Field {
    Field {
        from,
        to,
        tag: None,
        kind,
    }
}

const fn tagged(tag: u32, kind: Kind) -> Field {
    Field {
        from: 0,
        to: i16::MAX,
        tag: Some(tag),
        kind,
    }
}

const fn schema(from: i16, to: i16, flexible_from: i16, fields: &'static [Field]) -> Schema {
    Schema {
        versions: std::ops::RangeInclusive::new(from, to),
        flexible_from,
        fields,
    }
}

const LIST_OFFSETS_PARTITION: &[Field] = &[
    since(0, Fixed(4)), // partition_index
    since(0, Fixed(2)), // error_code
    since(0, Fixed(8)), // timestamp
    since(0, Fixed(8)), // offset
    since(4, Fixed(4)), // leader_epoch
];
const LIST_OFFSETS_TOPIC: &[Field] = &[
    since(0, Text),                            // name
    since(0, Structs(LIST_OFFSETS_PARTITION)), // partitions
];
const LIST_OFFSETS: &[Field] = &[
    since(2, Fixed(4)),                    // throttle_time_ms
    since(0, Structs(LIST_OFFSETS_TOPIC)), // topics
];
const METADATA_BROKER: &[Field] = &[
    since(0, Fixed(4)), // node_id
    since(0, Text),     // host
    since(0, Fixed(4)), // port
    since(1, Text),     // rack
];
const METADATA_PARTITION: &[Field] = &[
    since(0, Fixed(2)),     // error_code
    since(0, Fixed(4)),     // partition_index
    since(0, Fixed(4)),     // leader_id
    since(7, Fixed(4)),     // leader_epoch
    since(0, Plain(INT32)), // replica_nodes
    since(0, Plain(INT32)), // isr_nodes
    since(5, Plain(INT32)), // offline_replicas
];
const METADATA_TOPIC: &[Field] = &[
    since(0, Fixed(2)),                    // error_code
    since(0, Text),                        // name
    since(10, Fixed(16)),                  // topic_id
    since(1, Fixed(1)),                    // is_internal
    since(0, Structs(METADATA_PARTITION)), // partitions
    since(8, Fixed(4)),                    // topic_authorized_operations
];
const METADATA: &[Field] = &[
    since(3, Fixed(4)),                 // throttle_time_ms
    since(0, Structs(METADATA_BROKER)), // brokers
    since(2, Text),                     // cluster_id
    since(1, Fixed(4)),                 // controller_id
    since(0, Structs(METADATA_TOPIC)),  // topics
    within(8, 10, Fixed(4)),            // cluster_authorized_operations
    since(13, Fixed(2)),                // error_code
];
const OFFSET_COMMIT_PARTITION: &[Field] = &[
    since(0, Fixed(4)), // partition_index
    since(0, Fixed(2)), // error_code
];
const OFFSET_COMMIT_TOPIC: &[Field] = &[
    within(0, 9, Text),                         // name
    since(10, Fixed(16)),                       // topic_id
    since(0, Structs(OFFSET_COMMIT_PARTITION)), // partitions
];
const OFFSET_COMMIT: &[Field] = &[
    since(3, Fixed(4)),                     // throttle_time_ms
    since(0, Structs(OFFSET_COMMIT_TOPIC)), // topics
];
const OFFSET_FETCH_PARTITION: &[Field] = &[
    within(0, 7, Fixed(4)), // partition_index
    within(0, 7, Fixed(8)), // committed_offset
    within(5, 7, Fixed(4)), // committed_leader_epoch
    within(0, 7, Text),     // metadata
    within(0, 7, Fixed(2)), // error_code
];
const OFFSET_FETCH_TOPIC: &[Field] = &[
    within(0, 7, Text),                            // name
    within(0, 7, Structs(OFFSET_FETCH_PARTITION)), // partitions
];
const OFFSET_FETCH_PARTITIONS: &[Field] = &[
    since(8, Fixed(4)), // partition_index
    since(8, Fixed(8)), // committed_offset
    since(8, Fixed(4)), // committed_leader_epoch
    since(8, Text),     // metadata
    since(8, Fixed(2)), // error_code
];
const OFFSET_FETCH_TOPICS: &[Field] = &[
    within(8, 9, Text),                         // name
    since(10, Fixed(16)),                       // topic_id
    since(8, Structs(OFFSET_FETCH_PARTITIONS)), // partitions
];
const OFFSET_FETCH_GROUP: &[Field] = &[
    since(8, Text),                         // group_id
    since(8, Structs(OFFSET_FETCH_TOPICS)), // topics
    since(8, Fixed(2)),                     // error_code
];
const OFFSET_FETCH: &[Field] = &[
    since(3, Fixed(4)),                        // throttle_time_ms
    within(0, 7, Structs(OFFSET_FETCH_TOPIC)), // topics
    within(2, 7, Fixed(2)),                    // error_code
    since(8, Structs(OFFSET_FETCH_GROUP)),     // groups
];
const COORDINATOR: &[Field] = &[
    since(4, Text),     // key
    since(4, Fixed(4)), // node_id
    since(4, Text),     // host
    since(4, Fixed(4)), // port
    since(4, Fixed(2)), // error_code
    since(4, Text),     // error_message
];
const FIND_COORDINATOR: &[Field] = &[
    since(1, Fixed(4)),             // throttle_time_ms
    within(0, 3, Fixed(2)),         // error_code
    within(1, 3, Text),             // error_message
    within(0, 3, Fixed(4)),         // node_id
    within(0, 3, Text),             // host
    within(0, 3, Fixed(4)),         // port
    since(4, Structs(COORDINATOR)), // coordinators
];
const JOIN_GROUP_MEMBER: &[Field] = &[
    since(0, Text), // member_id
    since(5, Text), // group_instance_id
    since(0, Blob), // metadata
];
const JOIN_GROUP: &[Field] = &[
    since(2, Fixed(4)),                   // throttle_time_ms
    since(0, Fixed(2)),                   // error_code
    since(0, Fixed(4)),                   // generation_id
    since(7, Text),                       // protocol_type
    since(0, Text),                       // protocol_name
    since(0, Text),                       // leader
    since(9, Fixed(1)),                   // skip_assignment
    since(0, Text),                       // member_id
    since(0, Structs(JOIN_GROUP_MEMBER)), // members
];
const HEARTBEAT: &[Field] = &[
    since(1, Fixed(4)), // throttle_time_ms
    since(0, Fixed(2)), // error_code
];
const MEMBER: &[Field] = &[
    since(3, Text),     // member_id
    since(3, Text),     // group_instance_id
    since(3, Fixed(2)), // error_code
];
const LEAVE_GROUP: &[Field] = &[
    since(1, Fixed(4)),        // throttle_time_ms
    since(0, Fixed(2)),        // error_code
    since(3, Structs(MEMBER)), // members
];
const SYNC_GROUP: &[Field] = &[
    since(1, Fixed(4)), // throttle_time_ms
    since(0, Fixed(2)), // error_code
    since(5, Text),     // protocol_type
    since(5, Text),     // protocol_name
    since(0, Blob),     // assignment
];
const DESCRIBED_GROUP_MEMBER: &[Field] = &[
    since(0, Text), // member_id
    since(4, Text), // group_instance_id
    since(0, Text), // client_id
    since(0, Text), // client_host
    since(0, Blob), // member_metadata
    since(0, Blob), // member_assignment
];
const DESCRIBED_GROUP: &[Field] = &[
    since(0, Fixed(2)),                        // error_code
    since(6, Text),                            // error_message
    since(0, Text),                            // group_id
    since(0, Text),                            // group_state
    since(0, Text),                            // protocol_type
    since(0, Text),                            // protocol_data
    since(0, Structs(DESCRIBED_GROUP_MEMBER)), // members
    since(3, Fixed(4)),                        // authorized_operations
];
const DESCRIBE_GROUPS: &[Field] = &[
    since(1, Fixed(4)),                 // throttle_time_ms
    since(0, Structs(DESCRIBED_GROUP)), // groups
];
const LISTED_GROUP: &[Field] = &[
    since(0, Text), // group_id
    since(0, Text), // protocol_type
    since(4, Text), // group_state
    since(5, Text), // group_type
];
const LIST_GROUPS: &[Field] = &[
    since(1, Fixed(4)),              // throttle_time_ms
    since(0, Fixed(2)),              // error_code
    since(0, Structs(LISTED_GROUP)), // groups
];
const API_VERSION: &[Field] = &[
    since(0, Fixed(2)), // api_key
    since(0, Fixed(2)), // min_version
    since(0, Fixed(2)), // max_version
];
const SUPPORTED_FEATURE_KEY: &[Field] = &[
    since(3, Text),     // name
    since(3, Fixed(2)), // min_version
    since(3, Fixed(2)), // max_version
];
const FINALIZED_FEATURE_KEY: &[Field] = &[
    since(3, Text),     // name
    since(3, Fixed(2)), // max_version_level
    since(3, Fixed(2)), // min_version_level
];
const API_VERSIONS: &[Field] = &[
    since(0, Fixed(2)),                        // error_code
    since(0, Structs(API_VERSION)),            // api_keys
    since(1, Fixed(4)),                        // throttle_time_ms
    tagged(0, Structs(SUPPORTED_FEATURE_KEY)), // supported_features
    tagged(1, Fixed(8)),                       // finalized_features_epoch
    tagged(2, Structs(FINALIZED_FEATURE_KEY)), // finalized_features
    tagged(3, Fixed(1)),                       // zk_migration_ready
];
const CREATABLE_TOPIC_CONFIGS: &[Field] = &[
    since(5, Text),     // name
    since(5, Text),     // value
    since(5, Fixed(1)), // read_only
    since(5, Fixed(1)), // config_source
    since(5, Fixed(1)), // is_sensitive
];
const CREATABLE_TOPIC_RESULT: &[Field] = &[
    since(0, Text),                             // name
    since(7, Fixed(16)),                        // topic_id
    since(0, Fixed(2)),                         // error_code
    since(0, Text),                             // error_message
    since(5, Fixed(4)),                         // num_partitions
    since(5, Fixed(2)),                         // replication_factor
    since(5, Structs(CREATABLE_TOPIC_CONFIGS)), // configs
    tagged(0, Fixed(2)),                        // topic_config_error_code
];
const CREATE_TOPICS: &[Field] = &[
    since(0, Fixed(4)),                        // throttle_time_ms
    since(0, Structs(CREATABLE_TOPIC_RESULT)), // topics
];
const DELETABLE_TOPIC_RESULT: &[Field] = &[
    since(0, Text),      // name
    since(6, Fixed(16)), // topic_id
    since(0, Fixed(2)),  // error_code
    since(5, Text),      // error_message
];
const DELETE_TOPICS: &[Field] = &[
    since(0, Fixed(4)),                        // throttle_time_ms
    since(0, Structs(DELETABLE_TOPIC_RESULT)), // responses
];
const INIT_PRODUCER_ID: &[Field] = &[
    since(0, Fixed(4)), // throttle_time_ms
    since(0, Fixed(2)), // error_code
    since(0, Fixed(8)), // producer_id
    since(0, Fixed(2)), // producer_epoch
    since(6, Fixed(8)), // ongoing_txn_producer_id
    since(6, Fixed(2)), // ongoing_txn_producer_epoch
];
const ADDED_PARTITION: &[Field] = &[
    since(0, Fixed(4)), // partition_index
    since(0, Fixed(2)), // partition_error_code
];
const ADDED_TOPIC: &[Field] = &[
    since(0, Text),                     // name
    since(0, Structs(ADDED_PARTITION)), // results_by_partition
];
const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    since(0, Fixed(4)),             // throttle_time_ms
    since(0, Structs(ADDED_TOPIC)), // results_by_topic_v3_and_below
];
const ADD_OFFSETS_TO_TXN: &[Field] = &[
    since(0, Fixed(4)), // throttle_time_ms
    since(0, Fixed(2)), // error_code
];
const END_TXN: &[Field] = &[
    since(0, Fixed(4)), // throttle_time_ms
    since(0, Fixed(2)), // error_code
    since(5, Fixed(8)), // producer_id
    since(5, Fixed(2)), // producer_epoch
];
const TXN_OFFSET_COMMIT_PARTITION: &[Field] = &[
    since(0, Fixed(4)), // partition_index
    since(0, Fixed(2)), // error_code
];
const TXN_OFFSET_COMMIT_TOPIC: &[Field] = &[
    since(0, Text),                                 // name
    since(0, Structs(TXN_OFFSET_COMMIT_PARTITION)), // partitions
];
const TXN_OFFSET_COMMIT: &[Field] = &[
    since(0, Fixed(4)),                         // throttle_time_ms
    since(0, Structs(TXN_OFFSET_COMMIT_TOPIC)), // topics
];
const DESCRIBE_CONFIGS_SYNONYM: &[Field] = &[
    since(0, Text),     // name
    since(0, Text),     // value
    since(0, Fixed(1)), // source
];
const DESCRIBE_CONFIGS_RESOURCE_RESULT: &[Field] = &[
    since(0, Text),                              // name
    since(0, Text),                              // value
    since(0, Fixed(1)),                          // read_only
    since(0, Fixed(1)),                          // config_source
    since(0, Fixed(1)),                          // is_sensitive
    since(0, Structs(DESCRIBE_CONFIGS_SYNONYM)), // synonyms
    since(3, Fixed(1)),                          // config_type
    since(3, Text),                              // documentation
];
const DESCRIBE_CONFIGS_RESULT: &[Field] = &[
    since(0, Fixed(2)),                                  // error_code
    since(0, Text),                                      // error_message
    since(0, Fixed(1)),                                  // resource_type
    since(0, Text),                                      // resource_name
    since(0, Structs(DESCRIBE_CONFIGS_RESOURCE_RESULT)), // configs
];
const DESCRIBE_CONFIGS: &[Field] = &[
    since(0, Fixed(4)),                         // throttle_time_ms
    since(0, Structs(DESCRIBE_CONFIGS_RESULT)), // results
];
const CREATE_PARTITIONS_TOPIC_RESULT: &[Field] = &[
    since(0, Text),     // name
    since(0, Fixed(2)), // error_code
    since(0, Text),     // error_message
];
const CREATE_PARTITIONS: &[Field] = &[
    since(0, Fixed(4)),                                // throttle_time_ms
    since(0, Structs(CREATE_PARTITIONS_TOPIC_RESULT)), // results
];

const SHARE_OFFSETS_PARTITION: &[Field] = &[
    since(0, Fixed(4)), // partition_index
    since(0, Fixed(8)), // start_offset
    since(0, Fixed(4)), // leader_epoch
    since(0, Fixed(2)), // error_code
    since(0, Text),     // error_message
];
const SHARE_OFFSETS_TOPIC: &[Field] = &[
    since(0, Text),                             // topic_name
    since(0, Fixed(16)),                        // topic_id
    since(0, Structs(SHARE_OFFSETS_PARTITION)), // partitions
];
const SHARE_OFFSETS_GROUP: &[Field] = &[
    since(0, Text),                         // group_id
    since(0, Structs(SHARE_OFFSETS_TOPIC)), // topics
    since(0, Fixed(2)),                     // error_code
    since(0, Text),                         // error_message
];
const SHARE_OFFSETS: &[Field] = &[
    since(0, Fixed(4)),                     // throttle_time_ms
    since(0, Structs(SHARE_OFFSETS_GROUP)), // groups
];

const GROUP_DESCRIBE_TOPIC: &[Field] = &[
    since(0, Fixed(16)),    // topic_id
    since(0, Text),         // topic_name
    since(0, Plain(INT32)), // partitions
];
const GROUP_DESCRIBE_ASSIGNMENT: &[Field] = &[
    since(0, Structs(GROUP_DESCRIBE_TOPIC)), // topic_partitions
];
const GROUP_DESCRIBE_MEMBER: &[Field] = &[
    since(0, Text),                              // member_id
    since(0, Text),                              // instance_id
    since(0, Text),                              // rack_id
    since(0, Fixed(4)),                          // member_epoch
    since(0, Text),                              // client_id
    since(0, Text),                              // client_host
    since(0, Plain(&Text)),                      // subscribed_topic_names
    since(0, Text),                              // subscribed_topic_regex
    since(0, Struct(GROUP_DESCRIBE_ASSIGNMENT)), // assignment
    since(0, Struct(GROUP_DESCRIBE_ASSIGNMENT)), // target_assignment
    since(1, Fixed(1)),                          // member_type
];
const GROUP_DESCRIBE_GROUP: &[Field] = &[
    since(0, Fixed(2)),                       // error_code
    since(0, Text),                           // error_message
    since(0, Text),                           // group_id
    since(0, Text),                           // group_state
    since(0, Fixed(4)),                       // group_epoch
    since(0, Fixed(4)),                       // assignment_epoch
    since(0, Text),                           // assignor_name
    since(0, Structs(GROUP_DESCRIBE_MEMBER)), // members
    since(0, Fixed(4)),                       // authorized_operations
];
const GROUP_DESCRIBE: &[Field] = &[
    since(0, Fixed(4)),                      // throttle_time_ms
    since(0, Structs(GROUP_DESCRIBE_GROUP)), // groups
];

const SHARE_DESCRIBE_MEMBER: &[Field] = &[
    since(0, Text),                              // member_id
    since(0, Text),                              // rack_id
    since(0, Fixed(4)),                          // member_epoch
    since(0, Text),                              // client_id
    since(0, Text),                              // client_host
    since(0, Plain(&Text)),                      // subscribed_topic_names
    since(0, Struct(GROUP_DESCRIBE_ASSIGNMENT)), // assignment
];
const SHARE_DESCRIBE_GROUP: &[Field] = &[
    since(0, Fixed(2)),                       // error_code
    since(0, Text),                           // error_message
    since(0, Text),                           // group_id
    since(0, Text),                           // group_state
    since(0, Fixed(4)),                       // group_epoch
    since(0, Fixed(4)),                       // assignment_epoch
    since(0, Text),                           // assignor_name
    since(0, Structs(SHARE_DESCRIBE_MEMBER)), // members
    since(0, Fixed(4)),                       // authorized_operations
];
const SHARE_DESCRIBE: &[Field] = &[
    since(0, Fixed(4)),                      // throttle_time_ms
    since(0, Structs(SHARE_DESCRIBE_GROUP)), // groups
];

const DELETABLE_GROUP_RESULT: &[Field] = &[
    since(0, Text),     // group_id
    since(0, Fixed(2)), // error_code
];
const DELETE_GROUPS: &[Field] = &[
    since(0, Fixed(4)),                        // throttle_time_ms
    since(0, Structs(DELETABLE_GROUP_RESULT)), // results
];

static LIST_OFFSETS_ANSWER: Schema = schema(1, 10, 6, LIST_OFFSETS);
static METADATA_ANSWER: Schema = schema(0, 13, 9, METADATA);
static OFFSET_COMMIT_ANSWER: Schema = schema(2, 10, 8, OFFSET_COMMIT);
static OFFSET_FETCH_ANSWER: Schema = schema(1, 10, 6, OFFSET_FETCH);
static FIND_COORDINATOR_ANSWER: Schema = schema(0, 6, 3, FIND_COORDINATOR);
static JOIN_GROUP_ANSWER: Schema = schema(0, 9, 6, JOIN_GROUP);
static HEARTBEAT_ANSWER: Schema = schema(0, 4, 4, HEARTBEAT);
static LEAVE_GROUP_ANSWER: Schema = schema(0, 5, 4, LEAVE_GROUP);
static SYNC_GROUP_ANSWER: Schema = schema(0, 5, 4, SYNC_GROUP);
static DESCRIBE_GROUPS_ANSWER: Schema = schema(0, 6, 5, DESCRIBE_GROUPS);
static LIST_GROUPS_ANSWER: Schema = schema(0, 5, 3, LIST_GROUPS);
static API_VERSIONS_ANSWER: Schema = schema(0, 4, 3, API_VERSIONS);
static CREATE_TOPICS_ANSWER: Schema = schema(2, 7, 5, CREATE_TOPICS);
static DELETE_TOPICS_ANSWER: Schema = schema(1, 6, 4, DELETE_TOPICS);
static INIT_PRODUCER_ID_ANSWER: Schema = schema(0, 6, 2, INIT_PRODUCER_ID);
static ADD_PARTITIONS_TO_TXN_ANSWER: Schema = schema(0, 3, 3, ADD_PARTITIONS_TO_TXN);
static ADD_OFFSETS_TO_TXN_ANSWER: Schema = schema(0, 4, 3, ADD_OFFSETS_TO_TXN);
static END_TXN_ANSWER: Schema = schema(0, 5, 3, END_TXN);
static TXN_OFFSET_COMMIT_ANSWER: Schema = schema(0, 5, 3, TXN_OFFSET_COMMIT);
static DESCRIBE_CONFIGS_ANSWER: Schema = schema(1, 4, 4, DESCRIBE_CONFIGS);
static CREATE_PARTITIONS_ANSWER: Schema = schema(0, 3, 2, CREATE_PARTITIONS);
static DELETE_GROUPS_ANSWER: Schema = schema(0, 2, 2, DELETE_GROUPS);
static GROUP_DESCRIBE_ANSWER: Schema = schema(0, 1, 0, GROUP_DESCRIBE);
static SHARE_DESCRIBE_ANSWER: Schema = schema(1, 1, 0, SHARE_DESCRIBE);
static SHARE_OFFSETS_ANSWER: Schema = schema(0, 0, 0, SHARE_OFFSETS);

/// An answer that nothing describes: framed by hand elsewhere.
static HAND_FRAMED: Schema = schema(1, 0, 0, &[]);

/// Fetch is framed by hand and flexible from here on.
const FETCH_FLEXIBLE_FROM: i16 = 12;

/// Whether an API's answer has tagged fields in this version.
pub(crate) fn is_flexible(api: ApiKey, version: i16) -> bool {
    let from = match api {
        ApiKey::Fetch => FETCH_FLEXIBLE_FROM,
        api => of(api).flexible_from,
    };
    version >= from
}

/// The description of an API's answer.
pub(crate) fn of(api: ApiKey) -> &'static Schema {
    match api {
        ApiKey::ListOffsets => &LIST_OFFSETS_ANSWER,
        ApiKey::Metadata => &METADATA_ANSWER,
        ApiKey::OffsetCommit => &OFFSET_COMMIT_ANSWER,
        ApiKey::OffsetFetch => &OFFSET_FETCH_ANSWER,
        ApiKey::FindCoordinator => &FIND_COORDINATOR_ANSWER,
        ApiKey::JoinGroup => &JOIN_GROUP_ANSWER,
        ApiKey::Heartbeat => &HEARTBEAT_ANSWER,
        ApiKey::LeaveGroup => &LEAVE_GROUP_ANSWER,
        ApiKey::SyncGroup => &SYNC_GROUP_ANSWER,
        ApiKey::DescribeGroups => &DESCRIBE_GROUPS_ANSWER,
        ApiKey::ListGroups => &LIST_GROUPS_ANSWER,
        ApiKey::ApiVersions => &API_VERSIONS_ANSWER,
        ApiKey::CreateTopics => &CREATE_TOPICS_ANSWER,
        ApiKey::DeleteTopics => &DELETE_TOPICS_ANSWER,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID_ANSWER,
        ApiKey::AddPartitionsToTxn => &ADD_PARTITIONS_TO_TXN_ANSWER,
        ApiKey::AddOffsetsToTxn => &ADD_OFFSETS_TO_TXN_ANSWER,
        ApiKey::EndTxn => &END_TXN_ANSWER,
        ApiKey::TxnOffsetCommit => &TXN_OFFSET_COMMIT_ANSWER,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS_ANSWER,
        ApiKey::CreatePartitions => &CREATE_PARTITIONS_ANSWER,
        ApiKey::DeleteGroups => &DELETE_GROUPS_ANSWER,
        ApiKey::ConsumerGroupDescribe => &GROUP_DESCRIBE_ANSWER,
        ApiKey::ShareGroupDescribe => &SHARE_DESCRIBE_ANSWER,
        ApiKey::DescribeShareGroupOffsets => &SHARE_OFFSETS_ANSWER,
        ApiKey::Produce | ApiKey::Fetch => &HAND_FRAMED,
    }
}
