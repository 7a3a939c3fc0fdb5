//! What the tests of this crate share.

use crate::Cluster;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// A batch as a producer sends it, written by hand: records with these values, at this time and
/// each later one a millisecond later, and the stamp (producer id, epoch, first sequence).
pub(crate) fn batch_bytes(values: &[&str], time: i64, stamp: Option<(i64, i16, i32)>) -> Bytes {
    let count = values.len() as i32;
    let mut body = Vec::new();
    body.extend(0i16.to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    body.extend(time.to_be_bytes());
    body.extend((time + i64::from(count) - 1).to_be_bytes());
    let (id, epoch, sequence) = stamp.unwrap_or((-1, -1, -1));
    body.extend(id.to_be_bytes());
    body.extend(epoch.to_be_bytes());
    body.extend(sequence.to_be_bytes());
    body.extend(count.to_be_bytes());
    for (index, value) in (0..).zip(values) {
        let mut record = vec![0];
        varint(index, &mut record);
        varint(index, &mut record);
        varint(-1, &mut record);
        varint(value.len() as i64, &mut record);
        record.extend(value.as_bytes());
        varint(0, &mut record);
        varint(record.len() as i64, &mut body);
        body.extend(record);
    }
    let mut bytes = Vec::new();
    bytes.extend(0i64.to_be_bytes());
    bytes.extend((body.len() as i32 + 9).to_be_bytes());
    bytes.extend((-1i32).to_be_bytes());
    bytes.push(2);
    bytes.extend(crc32c::crc32c(&body).to_be_bytes());
    bytes.extend(body);
    Bytes::from(bytes)
}

/// The same batch as part of a transaction.
pub(crate) fn transactional(batch: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[22] |= 0x10;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

/// A client that writes and reads frames with the generated code, one request at a time.
pub(crate) struct Client {
    stream: DuplexStream,
    correlation: i32,
}

impl Client {
    /// Connects to a node of an in-memory cluster.
    pub(crate) async fn to(cluster: &Cluster, node: i32) -> Self {
        let host = format!("node-{node}.memory");
        let stream = cluster.dial(&host, 1).await.expect("the node is up");
        Self {
            stream,
            correlation: 0,
        }
    }

    /// Sends a request's bytes as they are, framed.
    pub(crate) async fn send_raw(&mut self, frame: &[u8]) {
        let mut bytes = (frame.len() as i32).to_be_bytes().to_vec();
        bytes.extend(frame);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Sends a request.
    pub(crate) async fn send<Q: Request>(&mut self, version: i16, request: &Q) {
        self.correlation += 1;
        let frame = request_frame(version, self.correlation, request);
        self.send_raw(&frame).await;
    }

    /// The next answer's bytes; `None` when the connection has ended.
    pub(crate) async fn receive_raw(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(Bytes::from(frame))
    }

    /// The answer to a request; `None` when the connection has ended.
    pub(crate) async fn receive<Q: Request>(&mut self, version: i16) -> Option<Q::Response> {
        let mut frame = self.receive_raw().await?;
        let header = Q::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header).unwrap();
        assert_eq!(header.correlation_id, self.correlation);
        let response = Q::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes too many", frame.len());
        Some(response)
    }

    /// Sends a request and waits for its answer; `None` when the connection has ended.
    pub(crate) async fn call<Q: Request>(
        &mut self,
        version: i16,
        request: &Q,
    ) -> Option<Q::Response> {
        self.send(version, request).await;
        self.receive::<Q>(version).await
    }

    /// Produces one batch; the partition's answer.
    pub(crate) async fn produce(
        &mut self,
        acks: i16,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> Option<PartitionProduceResponse> {
        let request = produce_request(acks, topic, partition, batch);
        let response = self.call(9, &request).await?;
        Some(response.responses[0].partition_responses[0].clone())
    }

    /// Fetches one partition from an offset; the partition's answer.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Option<PartitionData> {
        let request = fetch_request(topic, partition, offset);
        let response = self.call(12, &request).await?;
        Some(response.responses[0].partitions[0].clone())
    }
}

/// A request's bytes, without their length.
pub(crate) fn request_frame<Q: Request>(version: i16, correlation: i32, request: &Q) -> BytesMut {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let header_version = Q::header_version(version);
    header.encode(&mut frame, header_version).unwrap();
    request.encode(&mut frame, version).unwrap();
    frame
}

/// A Produce request with one batch and a timeout of ten seconds.
pub(crate) fn produce_request(
    acks: i16,
    topic: &str,
    partition: i32,
    batch: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let data = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data])
}

/// A Fetch request for one partition, without waiting and with ample limits.
pub(crate) fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_session_epoch(-1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![wanted])
}

/// A topic's name as the generated code wants it.
pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
