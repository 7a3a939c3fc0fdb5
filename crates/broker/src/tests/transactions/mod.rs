//! Transactions over the wire, in both protocols. The codes are those that Kafka 4.3 answered to
//! the same requests.

mod ending;
mod states;

use crate::testing::{Client, batch_bytes, fetch_request, name, produce_request, transactional};
use crate::{Builder, Cluster, Code};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

async fn cluster(change: impl FnOnce(Builder) -> Builder) -> (Cluster, Client) {
    let builder = Cluster::builder().topic("t", 2).in_memory();
    let cluster = change(builder).start().await.unwrap();
    let client = Client::to(&cluster, 0).await;
    (cluster, client)
}

/// Which protocol a producer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    V1,
    V2,
}

/// A transactional producer as a client's core would be, without any cleverness.
struct Producer<'a> {
    client: &'a mut Client,
    speaks: Speaks,
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl<'a> Producer<'a> {
    async fn new(client: &'a mut Client, speaks: Speaks) -> Self {
        let (code, id, epoch) = init(client, "x", None, 60_000).await;
        assert_eq!(code, Code::NONE);
        Self {
            client,
            speaks,
            id,
            epoch,
            sequence: 0,
        }
    }

    /// Another producer under the same transactional id, as after a restart.
    async fn again(client: &'a mut Client, speaks: Speaks) -> Self {
        let first = init(client, "x", None, 60_000).await;
        if first.0 == Code::NONE {
            return Producer {
                client,
                speaks,
                id: first.1,
                epoch: first.2,
                sequence: 0,
            };
        }
        assert_eq!(first.0, Code::CONCURRENT_TRANSACTIONS);
        Self::new(client, speaks).await
    }

    async fn add(&mut self, partition: i32) -> Code {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id("x"))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let answer = self.client.call(3, &request).await.unwrap();
        let topic = &answer.results_by_topic_v3_and_below[0];
        Code(topic.results_by_partition[0].partition_error_code)
    }

    /// Writes one record, as the version of Produce says.
    async fn write(&mut self, version: i16, partition: i32, value: &str) -> Code {
        let stamp = Some((self.id, self.epoch, self.sequence));
        let batch = transactional(&batch_bytes(&[value], 0, stamp));
        let request = produce_request(-1, "t", partition, batch);
        let request = request.with_transactional_id(Some(id("x")));
        let answer = self.client.call(version, &request).await.unwrap();
        let code = Code(answer.responses[0].partition_responses[0].error_code);
        self.sequence += i32::from(code == Code::NONE);
        code
    }

    /// Writes one record in the way of the producer's protocol.
    async fn send(&mut self, value: &str) {
        let version = match self.speaks {
            Speaks::V1 => {
                assert_eq!(self.add(0).await, Code::NONE);
                11
            }
            Speaks::V2 => 12,
        };
        assert_eq!(self.write(version, 0, value).await, Code::NONE);
    }

    async fn try_end(&mut self, commit: bool) -> Code {
        let (version, request) = self.end_request(commit);
        let answer = self.client.call(version, &request).await.unwrap();
        let code = Code(answer.error_code);
        if code == Code::NONE && self.speaks == Speaks::V2 {
            (self.id, self.epoch) = (answer.producer_id.0, answer.producer_epoch);
            self.sequence = 0;
        }
        code
    }

    fn end_request(&self, commit: bool) -> (i16, EndTxnRequest) {
        let request = EndTxnRequest::default()
            .with_transactional_id(id("x"))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        let version = match self.speaks {
            Speaks::V1 => 4,
            Speaks::V2 => 5,
        };
        (version, request)
    }

    async fn end(&mut self, commit: bool) {
        assert_eq!(self.try_end(commit).await, Code::NONE);
    }

    async fn add_group(&mut self) -> Code {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id("x"))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_group_id(GroupId(text("g")));
        let answer = self.client.call(3, &request).await.unwrap();
        Code(answer.error_code)
    }

    async fn commit_offset(&mut self, version: i16, offset: i64) -> Code {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id("x"))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_group_id(GroupId(text("g")))
            .with_topics(vec![topic]);
        let answer = self.client.call(version, &request).await.unwrap();
        Code(answer.topics[0].partitions[0].error_code)
    }

    async fn send_offset(&mut self, offset: i64) {
        let version = match self.speaks {
            Speaks::V1 => {
                assert_eq!(self.add_group().await, Code::NONE);
                4
            }
            Speaks::V2 => 5,
        };
        assert_eq!(self.commit_offset(version, offset).await, Code::NONE);
    }
}

/// InitProducerId: code, producer id and epoch.
async fn init(
    client: &mut Client,
    of: &str,
    known: Option<(i64, i16)>,
    timeout_ms: i32,
) -> (Code, i64, i16) {
    let (producer_id, epoch) = known.unwrap_or((-1, -1));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id(of)))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(epoch);
    let answer = client.call(4, &request).await.unwrap();
    let code = Code(answer.error_code);
    (code, answer.producer_id.0, answer.producer_epoch)
}

async fn read_committed(client: &mut Client, offset: i64) -> PartitionData {
    let request = fetch_request("t", 0, offset).with_isolation_level(1);
    let answer = client.call(12, &request).await.unwrap();
    answer.responses[0].partitions[0].clone()
}

fn values(records: &[crate::StoredRecord]) -> Vec<String> {
    let values = records.iter().filter_map(|r| r.value.clone());
    values.map(|v| String::from_utf8(v).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_seen_and_what_is_aborted_is_told() {
    for speaks in [Speaks::V1, Speaks::V2] {
        let (cluster, mut client) = cluster(|b| b).await;
        let mut producer = Producer::new(&mut client, speaks).await;
        producer.send("a").await;
        assert_eq!(cluster.last_stable("t", 0), Some(0));
        assert_eq!(cluster.high_watermark("t", 0), Some(1));
        producer.end(true).await;
        assert_eq!(cluster.last_stable("t", 0), Some(2));
        producer.send("b").await;
        producer.end(false).await;
        producer.send("c").await;
        producer.end(true).await;
        let producer_id = producer.id;
        let view = cluster.transaction("x").unwrap();
        assert_eq!(view.protocol, if speaks == Speaks::V1 { 1 } else { 2 });

        assert_eq!(values(&cluster.committed_log("t", 0)), ["a", "c"]);
        assert_eq!(values(&cluster.log("t", 0)), ["a", "b", "c"]);
        let ends = cluster.markers("t", 0);
        let ends: Vec<_> = ends
            .iter()
            .map(|m| (m.offset, m.committed, m.epoch))
            .collect();
        let epochs = match speaks {
            Speaks::V1 => [0, 0, 0],
            Speaks::V2 => [1, 2, 3],
        };
        assert_eq!(
            ends,
            [
                (1, true, epochs[0]),
                (3, false, epochs[1]),
                (5, true, epochs[2])
            ]
        );
        let part = read_committed(&mut client, 0).await;
        assert_eq!((part.last_stable_offset, part.high_watermark), (6, 6));
        let aborted = part.aborted_transactions.unwrap();
        let aborted: Vec<_> = aborted
            .iter()
            .map(|a| (a.producer_id.0, a.first_offset))
            .collect();
        assert_eq!(aborted, [(producer_id, 2)]);
        let part = read_committed(&mut client, 4).await;
        assert_eq!(part.aborted_transactions.unwrap(), [], "none overlaps");
        let part = client.fetch("t", 0, 0).await.unwrap();
        assert_eq!(part.aborted_transactions, None, "for who reads everything");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_what_is_committed_stops_before_an_open_transaction() {
    let (cluster, mut client) = cluster(|b| b).await;
    let plain = batch_bytes(&["p"], 0, None);
    client.produce(-1, "t", 0, plain.clone()).await.unwrap();
    let mut reader = Client::to(&cluster, 0).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send("a").await;
    reader.produce(-1, "t", 0, plain).await.unwrap();

    let part = read_committed(&mut reader, 0).await;
    assert_eq!((part.last_stable_offset, part.high_watermark), (1, 3));
    let one = client_batches(&part);
    assert_eq!(one, 1, "the batch before it");
    assert_eq!(latest(&mut reader, 1).await, 1);
    assert_eq!(latest(&mut reader, 0).await, 3);

    // A reader that waits is woken by the end.
    let mut waits = fetch_request("t", 0, 1).with_isolation_level(1);
    waits.max_wait_ms = 60_000;
    waits.min_bytes = 1;
    reader.send(12, &waits).await;
    producer.end(true).await;
    let answer = reader.receive::<FetchRequest>(12).await.unwrap();
    assert_eq!(client_batches(&answer.responses[0].partitions[0]), 3);
}

/// How many batches a partition's answer holds.
fn client_batches(part: &PartitionData) -> usize {
    let records = part.records.clone().unwrap_or_default();
    ottla_proto::batch::Batches::new(&records).count()
}

/// The offset of the end, as ListOffsets has it for an isolation level.
async fn latest(client: &mut Client, isolation: i8) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let answer = client.call(6, &request).await.unwrap();
    answer.topics[0].partitions[0].offset
}

#[tokio::test(start_paused = true)]
async fn the_offsets_of_a_transaction_count_from_its_commit_on() {
    for speaks in [Speaks::V1, Speaks::V2] {
        let (cluster, mut client) = cluster(|b| b).await;
        let mut producer = Producer::new(&mut client, speaks).await;
        producer.send_offset(5).await;
        assert_eq!(cluster.committed("g", "t", 0), None);
        let unstable = (Code::UNSTABLE_OFFSET_COMMIT, -1);
        assert_eq!(committed(producer.client, true).await, unstable);
        assert_eq!(committed(producer.client, false).await, (Code::NONE, -1));
        producer.end(true).await;
        assert_eq!(cluster.committed("g", "t", 0), Some(5));
        producer.send_offset(9).await;
        producer.end(false).await;
        assert_eq!(cluster.committed("g", "t", 0), Some(5));
        assert_eq!(committed(producer.client, true).await, (Code::NONE, 5));
    }
}

/// What OffsetFetch says of partition 0.
async fn committed(client: &mut Client, stable: bool) -> (Code, i64) {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic]))
        .with_require_stable(stable);
    let answer = client.call(7, &request).await.unwrap();
    let found = &answer.topics[0].partitions[0];
    (Code(found.error_code), found.committed_offset)
}

#[tokio::test(start_paused = true)]
async fn an_offset_committed_later_outside_stands() {
    let (cluster, mut client) = cluster(|b| b).await;
    let mut producer = Producer::new(&mut client, Speaks::V2).await;
    producer.send_offset(5).await;
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(vec![topic]);
    producer.client.call(7, &request).await.unwrap();
    producer.end(true).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(7));
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_member_that_is_not_there_are_refused() {
    let (_cluster, mut client) = cluster(|b| b).await;
    let producer = Producer::new(&mut client, Speaks::V2).await;
    let mut of_generation = async |group: &str, generation: i32| {
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id("x"))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(GroupId(text(group)))
            .with_generation_id(generation)
            .with_member_id(text("m"))
            .with_topics(vec![topic]);
        let answer = producer.client.call(5, &request).await.unwrap();
        Code(answer.topics[0].partitions[0].error_code)
    };
    assert_eq!(of_generation("g", 3).await, Code::ILLEGAL_GENERATION);
    assert_eq!(of_generation("g", -1).await, Code::NONE);
    assert_eq!(of_generation("g", 3).await, Code::UNKNOWN_MEMBER_ID);
}
